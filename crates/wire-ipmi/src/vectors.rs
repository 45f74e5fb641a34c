//! Recorded conversations between programs that are not ours (`testdata/README.md`): every datagram must be
//! understood, every code must fit, and packing it again must give the same bytes.

use crate::command::{BootDevice, BootFlags, ChassisControl, ChassisStatus, Power, Request};
use crate::message::{Checksums, Message};
use crate::packet::{self, AuthType, Datagram, PayloadType, V15};
use crate::rakp::{Exchange, OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, SessionKeys};
use crate::secret::Secret;
use crate::suite::Suite;

/// A request with its answer's data, completion code first.
type Exchanged = Vec<(Request, Vec<u8>)>;

fn lines(text: &str) -> Vec<(char, Vec<u8>)> {
    let unhex = |digits: &str| {
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|p| {
                u8::from_str_radix(std::str::from_utf8(p).expect("text"), 16).expect("hexadecimal")
            })
            .collect()
    };
    text.lines()
        .map(|line| {
            (
                line.chars().next().expect("a direction"),
                unhex(line[1..].trim()),
            )
        })
        .collect()
}

/// Collects messages and pairs requests with answers.
#[derive(Default)]
struct Pairs {
    open: Option<(Message, Request)>,
    done: Exchanged,
}

impl Pairs {
    fn take(&mut self, payload: &[u8]) {
        let message = Message::decode(payload, Checksums::Check).expect("a message");
        assert_eq!(message.encode(), payload);
        if message.net_fn & 1 == 0 {
            let request =
                Request::decode(message.net_fn, message.command, &message.data).expect("a request");
            assert_eq!(
                (request.code(), request.data()),
                ((message.net_fn, message.command), message.data.clone())
            );
            self.open = Some((message, request));
        } else {
            let (asked, request) = self.open.take().expect("a request before the answer");
            assert_eq!(
                (message.sequence, message.command),
                (asked.sequence, asked.command)
            );
            self.done.push((request, message.data));
        }
    }
}

/// An IPMI 2.0 conversation.
fn lanplus(text: &str) -> Exchanged {
    let password = Secret::from("secret");
    let mut pairs = Pairs::default();
    let mut exchange = Exchange {
        suite: Suite::Sha1,
        console_session: 0,
        bmc_session: 0,
        console_random: [0; 16],
        bmc_random: [0; 16],
        guid: [0; 16],
        role: 0,
        user: Vec::new(),
    };
    let mut keys: Option<SessionKeys> = None;
    for (_, bytes) in lines(text) {
        match packet::parse(&bytes).expect("a datagram") {
            Datagram::Asf(message) => assert_eq!(packet::encode_asf(message), bytes),
            Datagram::V15(v15) => {
                assert_eq!(packet::encode_v15(&v15), bytes);
                pairs.take(v15.payload);
            }
            Datagram::V20(v20) => {
                let again = match v20.payload_type {
                    PayloadType::Ipmi => {
                        let keys = keys.as_ref().expect("keys before the first command");
                        let plain = v20.open(keys).expect("the code fits and the payload opens");
                        pairs.take(&plain);
                        let iv = *v20.payload.first_chunk().expect("an initialisation vector");
                        let sealed = packet::seal_v20(
                            keys,
                            PayloadType::Ipmi,
                            v20.session,
                            v20.sequence,
                            iv,
                            &plain,
                        );
                        assert_eq!(sealed, bytes);
                        continue;
                    }
                    PayloadType::OpenRequest => {
                        let request = OpenRequest::decode(v20.payload).expect("an open request");
                        exchange.suite =
                            Suite::from_algorithms(request.algorithms).expect("a known suite");
                        exchange.console_session = request.console_session;
                        request.encode()
                    }
                    PayloadType::OpenResponse => {
                        let response = OpenResponse::decode(v20.payload).expect("an open response");
                        let (session, algorithms) = response.result.expect("accepted");
                        assert_eq!(algorithms, exchange.suite.algorithms());
                        exchange.bmc_session = session;
                        response.encode()
                    }
                    PayloadType::Rakp1 => {
                        let message = Rakp1::decode(v20.payload).expect("RAKP 1");
                        exchange.console_random = message.console_random;
                        exchange.role = message.role;
                        exchange.user = message.user.clone();
                        message.encode()
                    }
                    PayloadType::Rakp2 => {
                        let message = Rakp2::decode(v20.payload).expect("RAKP 2");
                        let body = message.result.clone().expect("accepted");
                        exchange.bmc_random = body.bmc_random;
                        exchange.guid = body.guid;
                        assert_eq!(exchange.rakp2_code(&password), body.code);
                        message.encode()
                    }
                    PayloadType::Rakp3 => {
                        let message = Rakp3::decode(v20.payload).expect("RAKP 3");
                        assert_eq!(message.result, Ok(exchange.rakp3_code(&password)));
                        message.encode()
                    }
                    PayloadType::Rakp4 => {
                        let message = Rakp4::decode(v20.payload).expect("RAKP 4");
                        let agreed = exchange.keys(&password, None);
                        assert_eq!(message.result.as_deref(), Ok(agreed.rakp4_code()));
                        keys = Some(agreed);
                        message.encode()
                    }
                    PayloadType::Other(code) => panic!("payload type {code}"),
                };
                assert_eq!(again, v20.payload);
                assert_eq!(packet::encode_v20_plain(v20.payload_type, &again), bytes);
            }
        }
    }
    pairs.done
}

/// An IPMI 1.5 conversation.
fn lan(text: &str, auth: AuthType) -> Exchanged {
    let password = Secret::from("secret").padded();
    let mut pairs = Pairs::default();
    let mut authenticated = 0;
    for (_, bytes) in lines(text) {
        match packet::parse(&bytes).expect("a datagram") {
            Datagram::Asf(message) => assert_eq!(packet::encode_asf(message), bytes),
            Datagram::V15(v15) => {
                let right = packet::v15_code(
                    v15.auth,
                    &password,
                    v15.session,
                    v15.sequence.to_le_bytes(),
                    v15.payload,
                );
                assert_eq!(v15.code, right, "the code fits");
                authenticated += usize::from(v15.auth == auth);
                assert_eq!(packet::encode_v15(&V15 { code: right, ..v15 }), bytes);
                pairs.take(v15.payload);
            }
            Datagram::V20(v20) => panic!("{v20:?}"),
        }
    }
    // All but capabilities and challenge.
    assert_eq!(authenticated, 2 * (pairs.done.len() - 2));
    pairs.done
}

fn status(exchanged: &Exchanged) -> Vec<Power> {
    let of = |(request, answer): &(Request, Vec<u8>)| match (request, answer.split_first()) {
        (Request::GetChassisStatus, Some((0, data))) => {
            ChassisStatus::decode(data).map(|s| s.power)
        }
        _ => None,
    };
    exchanged.iter().filter_map(of).collect()
}

#[test]
fn a_suite_3_conversation_is_understood() {
    let exchanged = lanplus(include_str!(
        "../testdata/ipmitool-sim-lanplus-3-status.txt"
    ));
    assert_eq!(status(&exchanged), [Power::Off]);
    assert!(
        matches!(exchanged.last(), Some((Request::CloseSession { .. }, answer)) if *answer == [0])
    );
}

#[test]
fn a_boot_device_set_by_ipmitool_is_understood() {
    let exchanged = lanplus(include_str!(
        "../testdata/ipmitool-sim-lanplus-3-bootdev.txt"
    ));
    let flags = exchanged
        .iter()
        .find_map(|(request, answer)| match request {
            Request::SetBootOptions { parameter: 5, data } if *answer == [0] => {
                BootFlags::decode(data)
            }
            _ => None,
        });
    assert_eq!(
        flags,
        Some(BootFlags {
            valid: true,
            persistent: false,
            efi: true,
            device: BootDevice::Pxe
        })
    );
}

#[test]
fn the_short_refusal_of_suite_17_is_understood() {
    let recorded = lines(include_str!(
        "../testdata/ipmitool-sim-lanplus-17-refused.txt"
    ));
    let (_, last) = recorded.last().expect("datagrams");
    let Ok(Datagram::V20(v20)) = packet::parse(last) else {
        panic!("not an IPMI 2.0 packet")
    };
    let response = OpenResponse::decode(v20.payload).expect("an open response");
    assert!(response.result.expect_err("refused").refuses_suite());
}

#[test]
fn an_md5_conversation_is_understood() {
    let exchanged = lan(
        include_str!("../testdata/ipmitool-sim-lan-md5-on.txt"),
        AuthType::Md5,
    );
    assert!(exchanged.contains(&(Request::ChassisControl(ChassisControl::PowerUp), vec![0])));
}

#[test]
fn a_straight_password_conversation_is_understood() {
    let exchanged = lan(
        include_str!("../testdata/ipmitool-sim-lan-password-status.txt"),
        AuthType::Straight,
    );
    assert_eq!(status(&exchanged), [Power::On]);
}
