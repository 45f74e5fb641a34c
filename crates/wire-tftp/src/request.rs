//! What a client asks for.

use crate::packet::{ErrorCode, Malformed, Opcode, error_reply, options, string};

/// Longest request read, in bytes. RFC 2347 allows 512; some clients send long paths.
pub const REQUEST_MAX: usize = 1024;
/// Longest file name accepted after normalising, in bytes.
pub const FILENAME_MAX: usize = 512;
/// Most options read from one packet. Five are defined.
pub const OPTIONS_MAX: usize = 16;

/// Transfer mode (RFC 1350 §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes as they are. All firmware.
    Octet,
    /// Line ends are translated on the wire. Command-line clients, by default.
    Netascii,
}

/// A read request, checked: the file name can be joined below a root without leaving it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Relative path with `/` between its parts: leading slashes gone, backslashes turned, empty
    /// and `.` parts dropped, no `..`, at least one part.
    pub filename: String,
    /// Mode.
    pub mode: Mode,
    /// Options in the order asked, the first of each name, names spelt as the client did (they are
    /// compared without regard to case, and repeated to it in its own spelling).
    pub options: Vec<(String, String)>,
}

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusalReason {
    /// Not a request at all: DATA, ACK or ERROR sent to the listening port.
    #[error("not a request")]
    NotARequest,
    /// The datagram cannot be read.
    #[error("malformed request")]
    Malformed(#[source] Malformed),
    /// Longer than [`REQUEST_MAX`].
    #[error("request of {0} bytes")]
    TooLong(usize),
    /// A client wants to store a file here.
    #[error("write request")]
    Write,
    /// Neither `octet` nor `netascii`.
    #[error("unknown transfer mode")]
    Mode,
    /// Empty, not text, too long, or leads out of the tree.
    #[error("unacceptable file name")]
    Filename,
}

/// A request that is not served, with what to send back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// For the counter and the log.
    #[source]
    pub reason: RefusalReason,
    /// An ERROR packet for the client; `None` where answering could start a loop of errors
    /// between two hosts.
    pub reply: Option<Vec<u8>>,
}

impl Refusal {
    fn new(reason: RefusalReason) -> Self {
        let reply = match &reason {
            RefusalReason::NotARequest => None,
            RefusalReason::Malformed(Malformed::Short | Malformed::Opcode(_)) => None,
            RefusalReason::Malformed(_) | RefusalReason::TooLong(_) => {
                Some((ErrorCode::IllegalOperation, "the request could not be read"))
            }
            RefusalReason::Write => {
                Some((ErrorCode::AccessViolation, "files are only handed out here"))
            }
            RefusalReason::Mode => Some((
                ErrorCode::IllegalOperation,
                "mode must be octet or netascii",
            )),
            RefusalReason::Filename => {
                Some((ErrorCode::AccessViolation, "that file name is not allowed"))
            }
        };
        Self {
            reason,
            reply: reply.map(|(code, message)| error_reply(code, message)),
        }
    }
}

impl ReadRequest {
    /// Reads a datagram that came to the listening port.
    ///
    /// # Errors
    /// [`Refusal`] with the reason and, where one is due, the ERROR packet to send back.
    pub fn parse(datagram: &[u8]) -> Result<Self, Refusal> {
        Self::parse_inner(datagram).map_err(Refusal::new)
    }

    fn parse_inner(datagram: &[u8]) -> Result<Self, RefusalReason> {
        if datagram.len() > REQUEST_MAX {
            return Err(RefusalReason::TooLong(datagram.len()));
        }
        let malformed = RefusalReason::Malformed;
        let (opcode, rest) = datagram
            .split_first_chunk::<2>()
            .ok_or(malformed(Malformed::Short))?;
        match Opcode::from(u16::from_be_bytes(*opcode)) {
            Opcode::Read => {}
            Opcode::Write => return Err(RefusalReason::Write),
            Opcode::Data | Opcode::Ack | Opcode::Error | Opcode::OptionAck => {
                return Err(RefusalReason::NotARequest);
            }
            Opcode::Other(value) => return Err(malformed(Malformed::Opcode(value))),
        }
        let (filename, rest) = string(rest).map_err(malformed)?;
        let (mode, rest) = string(rest).map_err(malformed)?;
        let mode = if mode.eq_ignore_ascii_case(b"octet") {
            Mode::Octet
        } else if mode.eq_ignore_ascii_case(b"netascii") {
            Mode::Netascii
        } else {
            return Err(RefusalReason::Mode);
        };
        let filename = normalise(filename).ok_or(RefusalReason::Filename)?;
        let mut kept: Vec<(String, String)> = Vec::new();
        for (name, value) in options(rest).map_err(malformed)? {
            // An option that is not text is one that we do not know: RFC 2347 has it left out of
            // the answer.
            let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) else {
                continue;
            };
            let seen = kept.iter().any(|(seen, _)| seen.eq_ignore_ascii_case(name));
            if seen || name.is_empty() {
                continue;
            }
            kept.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self {
            filename,
            mode,
            options: kept,
        })
    }

    /// The value of an option as a number; `None` if absent or no number.
    #[must_use]
    pub fn number(&self, option: &str) -> Option<u64> {
        let (_, value) = self
            .options
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(option))?;
        parse_number(value)
    }

    /// The request as a datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 1];
        let mode = match self.mode {
            Mode::Octet => "octet",
            Mode::Netascii => "netascii",
        };
        let pairs = self
            .options
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for text in [self.filename.as_str(), mode].into_iter().chain(pairs) {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        out
    }
}

/// Decimal digits only: `u64::from_str` would take a sign.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let digits = text.trim_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Firmware sends `lpxelinux.0`, `/grub/grub.cfg`, `//grubx64.efi` (shim) and `\\Boot\\BCD`
/// (Windows); all mean a path below the root.
fn normalise(name: &[u8]) -> Option<String> {
    // EDK2's shim builds names in buffers that can end in rubbish after 0xff padding; such a name
    // is refused here rather than guessed at.
    let name = str::from_utf8(name).ok()?;
    if name.chars().any(char::is_control) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    for part in name.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return None,
            part => {
                if !out.is_empty() {
                    out.push('/');
                }
                out.push_str(part);
            }
        }
    }
    (!out.is_empty() && out.len() <= FILENAME_MAX).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(sent: &[u8]) -> Option<String> {
        let mut datagram = b"\x00\x01".to_vec();
        datagram.extend_from_slice(sent);
        datagram.extend_from_slice(b"\0octet\0");
        ReadRequest::parse(&datagram)
            .ok()
            .map(|request| request.filename)
    }

    #[test]
    fn names_as_firmware_spells_them_become_relative_paths() {
        assert_eq!(name(b"lpxelinux.0").as_deref(), Some("lpxelinux.0"));
        assert_eq!(name(b"/grub/grub.cfg").as_deref(), Some("grub/grub.cfg"));
        assert_eq!(name(b"//grubx64.efi").as_deref(), Some("grubx64.efi"));
        assert_eq!(name(b"\\Boot\\\\BCD").as_deref(), Some("Boot/BCD"));
        assert_eq!(name(b"./a/./b/").as_deref(), Some("a/b"));
        assert_eq!(name(b"..a/b..").as_deref(), Some("..a/b.."));
    }

    #[test]
    fn names_that_lead_out_of_the_tree_are_refused() {
        for bad in [
            &b"../etc/passwd"[..],
            b"a/../../b",
            b"..",
            b"\\..\\x",
            b"",
            b"/",
            b"a\nb",
            b"a\xff",
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        assert_eq!(
            name("x".repeat(FILENAME_MAX).as_bytes()).map(|n| n.len()),
            Some(FILENAME_MAX)
        );
        assert_eq!(name("x".repeat(FILENAME_MAX + 1).as_bytes()), None);
    }

    #[test]
    fn refusals_carry_the_error_the_client_understands() {
        let write = ReadRequest::parse(b"\x00\x02file\0octet\0").unwrap_err();
        assert_eq!(write.reason, RefusalReason::Write);
        assert_eq!(write.reply.unwrap()[..4], [0, 5, 0, 2]);
        let mail = ReadRequest::parse(b"\x00\x01file\0mail\0").unwrap_err();
        assert_eq!(mail.reason, RefusalReason::Mode);
        assert_eq!(mail.reply.unwrap()[..4], [0, 5, 0, 4]);
        let cut = ReadRequest::parse(b"\x00\x01file\0oct").unwrap_err();
        assert_eq!(
            cut.reason,
            RefusalReason::Malformed(Malformed::Unterminated)
        );
        let long = ReadRequest::parse(&[b'a'; REQUEST_MAX + 1]).unwrap_err();
        assert_eq!(long.reason, RefusalReason::TooLong(REQUEST_MAX + 1));
    }

    #[test]
    fn an_error_at_the_listening_port_is_never_answered() {
        for packet in [
            &b"\x00\x05\x00\x00x\0"[..],
            b"\x00\x03\x00\x01",
            b"\x00\x04\x00\x01",
            b"\x00\x06",
        ] {
            let refusal = ReadRequest::parse(packet).unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.reply),
                (RefusalReason::NotARequest, None)
            );
        }
    }

    #[test]
    fn options_are_found_whatever_their_case_and_padding() {
        let request = ReadRequest::parse(
            b"\x00\x01f\0OCTET\0TSize\x000\0BLKSIZE\x001408\0blksize\x008\0\0\0\0",
        )
        .unwrap();
        assert_eq!(request.number("tsize"), Some(0));
        assert_eq!(request.number("blksize"), Some(1408));
        assert_eq!(request.number("windowsize"), None);
        assert_eq!(request.options.len(), 2);
    }

    #[test]
    fn an_option_without_a_name_is_no_option() {
        let request = ReadRequest::parse(b"\x00\x01f\0octet\0\0\0\0x\0tsize\x000\0").unwrap();
        assert_eq!(request.options, [("tsize".to_owned(), "0".to_owned())]);
    }

    #[test]
    fn too_many_options_are_refused() {
        let mut datagram = b"\x00\x01f\0octet\0".to_vec();
        for number in 0..=OPTIONS_MAX {
            datagram.extend_from_slice(format!("o{number}\0v\0").as_bytes());
        }
        let refusal = ReadRequest::parse(&datagram).unwrap_err();
        assert_eq!(
            refusal.reason,
            RefusalReason::Malformed(Malformed::TooManyOptions)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..REQUEST_MAX + 10)) {
            ReadRequest::parse(&bytes).ok();
            let mut read = vec![0, 1];
            read.extend_from_slice(&bytes);
            ReadRequest::parse(&read).ok();
        }

        #[test]
        fn requests_round_trip(
            parts in proptest::collection::vec("[a-z0-9][a-z0-9._-]{0,10}", 1..5),
            options in proptest::collection::hash_map("[a-z]{1,8}", "[0-9]{1,5}", 0..5),
            netascii: bool,
        ) {
            let mode = if netascii { Mode::Netascii } else { Mode::Octet };
            let request = ReadRequest { filename: parts.join("/"), mode, options: options.into_iter().collect() };
            prop_assert_eq!(ReadRequest::parse(&request.encode()).unwrap(), request);
        }

        #[test]
        fn accepted_names_stay_below_the_root(sent in "[./\\\\a-c]{0,20}") {
            if let Some(name) = name(sent.as_bytes()) {
                prop_assert!(!name.starts_with('/') && !name.contains('\\'));
                prop_assert!(name.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}
