//! Messages and streams of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire_syslog::{Format, Framer, MESSAGE_MAX, Message};

fuzz_target!(|data: &[u8]| {
    let message = Message::parse(data);
    assert!(
        !message
            .text
            .chars()
            .any(|c| c.is_control() && c != '\t' && c != '\n')
    );
    let again = Message::parse(message.to_rfc5424().as_bytes());
    assert_eq!(again.format, Format::Rfc5424);

    let mut whole = Framer::default();
    let mut frames = whole.feed(data);
    frames.extend(whole.finish());
    let mut cut = Framer::default();
    let mut bytewise: Vec<_> = data.chunks(1).flat_map(|part| cut.feed(part)).collect();
    bytewise.extend(cut.finish());
    assert_eq!(frames, bytewise);
    assert!(frames.iter().all(|frame| frame.bytes.len() <= MESSAGE_MAX));
});
