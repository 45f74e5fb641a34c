//! Messages as senders write them.

use proptest::prelude::*;
use wire_syslog::{FIELD_MAX, Format, MESSAGE_MAX, Message, Priority, Severity};

/// `format|priority|timestamp|host|app|pid|id|data|text`
#[track_caller]
fn check(input: &str, expected: &str) {
    let message = Message::parse(input.as_bytes());
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let got = format!(
        "{:?}|{}|{}|{}|{}|{}|{}|{}|{}",
        message.format,
        message
            .priority
            .map_or("-".into(), |p| format!("{}.{}", p.facility, p.severity)),
        or_dash(&message.timestamp),
        or_dash(&message.hostname),
        or_dash(&message.app),
        or_dash(&message.pid),
        or_dash(&message.message_id),
        or_dash(&message.structured_data),
        message.text
    );
    assert_eq!(got, expected);
}

#[test]
fn rfc_5424_examples_are_read() {
    check(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
        "Rfc5424|auth.crit|2003-10-11T22:14:15.003Z|mymachine.example.com|su|-|ID47|-|'su root' failed for lonvick on /dev/pts/8",
    );
    check(
        "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
        "Rfc5424|local4.notice|2003-08-24T05:14:15.000003-07:00|192.0.2.1|myproc|8710|-|-|%% It's time to make the do-nuts.",
    );
    check(
        "<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [a@32473 iut=\"3\" x=\"q\\\"u]o\"][b@32473 c=\"high\"]",
        "Rfc5424|local4.notice|2003-10-11T22:14:15.003Z|h|evntslog|-|ID47|[a@32473 iut=\"3\" x=\"q\\\"u]o\"][b@32473 c=\"high\"]|",
    );
    check("<14>1 - - - - - -", "Rfc5424|user.info|-|-|-|-|-|-|");
    check("<14>1 - h app 1 id", "Rfc5424|user.info|-|h|app|1|id|-|");
}

#[test]
fn broken_structured_data_is_text() {
    check(
        "<14>1 - h app 1 id [a b=\"c text",
        "Rfc5424|user.info|-|h|app|1|id|-|[a b=\"c text",
    );
    check(
        "<14>1 - h app 1 id [a]text",
        "Rfc5424|user.info|-|h|app|1|id|-|[a]text",
    );
}

#[test]
fn rfc_3164_as_senders_write_it() {
    check(
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
        "Rfc3164|auth.crit|Oct 11 22:14:15|mymachine|su|-|-|-|'su root' failed",
    );
    check(
        "<30>Aug  1 10:00:01 node-1 cloud-init[812]: running\n",
        "Rfc3164|daemon.info|Aug  1 10:00:01|node-1|cloud-init|812|-|-|running",
    );
    // rsyslog's forwarding format
    check(
        "<6>2026-08-11T10:00:01.123456+00:00 node1 kernel: [    0.000000] Linux version",
        "Rfc3164|kern.info|2026-08-11T10:00:01.123456+00:00|node1|kernel|-|-|-|[    0.000000] Linux version",
    );
    // busybox
    check(
        "<13>Jan  1 00:00:07 init: starting pid 1",
        "Rfc3164|user.notice|Jan  1 00:00:07|-|init|-|-|-|starting pid 1",
    );
    // with a year, and without a tag
    check(
        "<189>Jan  1 2026 00:00:07 switch1 link up on port 3",
        "Rfc3164|local7.notice|Jan  1 2026 00:00:07|switch1|-|-|-|-|link up on port 3",
    );
    // iPXE, before and after it has a name
    check(
        "<165>ipxe: iPXE 1.21.1",
        "Rfc3164|local4.notice|-|-|ipxe|-|-|-|iPXE 1.21.1",
    );
    check(
        "<165>node1.maas ipxe: ok",
        "Rfc3164|local4.notice|-|node1.maas|ipxe|-|-|-|ok",
    );
    // a stray time stamp without a priority (rsyslog file format)
    check(
        "Oct 11 22:14:15 host app[1]: x",
        "Rfc3164|-|Oct 11 22:14:15|host|app|1|-|-|x",
    );
}

#[test]
fn what_cannot_be_understood_is_kept_as_text() {
    check(
        "[   12.345678] e1000: eth0 link up",
        "Text|-|-|-|-|-|-|-|[   12.345678] e1000: eth0 link up",
    );
    check(
        "<6>no tag here",
        "Rfc3164|kern.info|-|-|-|-|-|-|no tag here",
    );
    check("<192>x", "Text|-|-|-|-|-|-|-|<192>x");
    check("<>x", "Text|-|-|-|-|-|-|-|<>x");
    check("<0x>x", "Text|-|-|-|-|-|-|-|<0x>x");
    check("", "Text|-|-|-|-|-|-|-|");
    check("<14>", "Rfc3164|user.info|-|-|-|-|-|-|");
    check(
        "<14>http://host/ is down",
        "Rfc3164|user.info|-|-|-|-|-|-|http://host/ is down",
    );
    check(
        "<14>Oct 32 22:14:15 host app: x",
        "Rfc3164|user.info|-|-|-|-|-|-|Oct 32 22:14:15 host app: x",
    );
    check(
        "<14>Oct 11 24:14:15 host app: x",
        "Rfc3164|user.info|-|-|-|-|-|-|Oct 11 24:14:15 host app: x",
    );
    check(
        "<14>2 - h app 1 id - x",
        "Rfc3164|user.info|-|-|-|-|-|-|2 - h app 1 id - x",
    );
}

#[test]
fn terminal_escapes_and_bad_utf8_do_not_pass() {
    let message = Message::parse(b"<14>app: \x1b[31mred\xff\tand\nmore\r\n\0");
    assert_eq!(message.text, "\u{fffd}[31mred\u{fffd}\tand\nmore");
}

#[test]
fn fields_and_messages_are_bounded() {
    let long = "h".repeat(FIELD_MAX + 1);
    let message = Message::parse(format!("<14>1 - {long} app - - - x").as_bytes());
    assert_eq!((message.format, message.hostname), (Format::Rfc3164, None));
    let message = Message::parse(&vec![b'x'; MESSAGE_MAX]);
    assert_eq!(
        (message.text.len(), message.truncated),
        (MESSAGE_MAX, false)
    );
    let message = Message::parse(&vec![b'x'; MESSAGE_MAX + 1]);
    assert_eq!((message.text.len(), message.truncated), (MESSAGE_MAX, true));
}

fn name() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[!-~]{1,40}".prop_filter("nothing", |text| text != "-"))
}

proptest! {
    #[test]
    fn rfc_5424_round_trips(
        value in 0u8..=191, hostname in name(), app in name(), pid in name(), message_id in name(),
        timestamp in proptest::option::of("20[0-9]{2}-0[1-9]-[12][0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]0[0-9]:30)"),
        structured_data in proptest::option::of("(\\[[a-z]{1,5}( [a-z]{1,4}=\"([a-z ]|\\\\\"|\\\\\\]){0,9}\"){0,3}\\]){1,3}"),
        text in "[^\\pC]{0,60}",
    ) {
        let message = Message {
            format: Format::Rfc5424, priority: Priority::from_value(value), timestamp, hostname, app, pid, message_id,
            structured_data, text, truncated: false,
        };
        prop_assert_eq!(Message::parse(message.to_rfc5424().as_bytes()), message);
    }

    #[test]
    fn whatever_was_read_can_be_forwarded_and_read_again(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let message = Message::parse(&bytes);
        let again = Message::parse(message.to_rfc5424().as_bytes());
        prop_assert_eq!(again.format, Format::Rfc5424);
        prop_assert_eq!(again.severity(), message.severity().or(Some(Severity::Notice)));
        prop_assert_eq!(again.text.trim_end(), message.text.trim_start_matches('\u{feff}').trim_end());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(
        start in prop_oneof![Just(""), Just("<14>"), Just("<14>1 - "), Just("<14>1 - h a p i ["), Just("<14>Oct 11 22:14:15 ")],
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in "[<>0-9:\\[\\]a-zé \\\\\"-]{0,80}",
    ) {
        let message = Message::parse(&[start.as_bytes(), &bytes].concat());
        prop_assert!(!message.truncated);
        let message = Message::parse(&[start.as_bytes(), text.as_bytes()].concat());
        prop_assert!(message.text.len() <= 3 * (start.len() + text.len()));
    }
}
