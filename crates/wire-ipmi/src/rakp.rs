//! The messages that open an IPMI 2.0 session (spec §13.17–13.24) and the keys that come out of them
//! (§13.31, §13.32).
//!
//! The letters of the spec: M is the remote console, C the managed system (the BMC); SID are session
//! numbers, R random numbers.

use crate::completion::RakpStatus;
use crate::crypto;
use crate::drops::DropReason;
use crate::secret::{KEY_MAX, Secret};
use crate::suite::{Algorithms, Suite};

/// The longest user name, bytes.
pub const USER_MAX: usize = 16;
/// In the role byte: look the user up by name alone. Without it, by name and privilege level together.
pub const ROLE_NAME_ONLY: u8 = 0x10;

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn sixteen(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    bytes.get(at..at + 16)?.try_into().ok()
}

/// The three proposals of an open-session message, eight bytes each.
fn encode_algorithms(out: &mut Vec<u8>, algorithms: Algorithms) {
    let list = [
        algorithms.authentication,
        algorithms.integrity,
        algorithms.confidentiality,
    ];
    for (kind, number) in (0u8..).zip(list) {
        out.extend_from_slice(&[kind, 0, 0, 8, number, 0, 0, 0]);
    }
}

fn decode_algorithms(bytes: &[u8]) -> Option<Algorithms> {
    let mut numbers = [0; 3];
    for (kind, (number, chunk)) in
        (0u8..).zip(numbers.iter_mut().zip(bytes.get(..24)?.chunks_exact(8)))
    {
        if chunk[0] != kind {
            return None;
        }
        *number = chunk[4] & 0x3f;
    }
    Some(Algorithms {
        authentication: numbers[0],
        integrity: numbers[1],
        confidentiality: numbers[2],
    })
}

/// Open Session Request (§13.17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// Sent back in the response.
    pub tag: u8,
    /// Highest privilege level wanted; 0 asks for the highest that the algorithms allow.
    pub privilege: u8,
    /// The console's session number (SIDm).
    pub console_session: u32,
    /// What is proposed.
    pub algorithms: Algorithms,
}

impl OpenRequest {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.privilege, 0, 0];
        out.extend_from_slice(&self.console_session.to_le_bytes());
        encode_algorithms(&mut out, self.algorithms);
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<OpenRequest, DropReason> {
        let parts = || {
            Some(OpenRequest {
                tag: *bytes.first()?,
                privilege: bytes.get(1)? & 0x0f,
                console_session: four(bytes, 4)?,
                algorithms: decode_algorithms(bytes.get(8..)?)?,
            })
        };
        parts().ok_or(DropReason::Malformed)
    }
}

/// Open Session Response (§13.18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenResponse {
    /// The tag of the request.
    pub tag: u8,
    /// Highest privilege level that will be possible.
    pub privilege: u8,
    /// The console's session number; some BMCs leave it out of a refusal, then 0.
    pub console_session: u32,
    /// The BMC's session number (SIDc) and the algorithms, or why not.
    pub result: Result<(u32, Algorithms), RakpStatus>,
}

impl OpenResponse {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let status = self.result.as_ref().err().map_or(0, |s| s.0);
        let mut out = vec![self.tag, status, self.privilege, 0];
        out.extend_from_slice(&self.console_session.to_le_bytes());
        if let Ok((session, algorithms)) = self.result {
            out.extend_from_slice(&session.to_le_bytes());
            encode_algorithms(&mut out, algorithms);
        }
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<OpenResponse, DropReason> {
        let parts = || {
            let status = *bytes.get(1)?;
            let result = match status {
                0 => Ok((four(bytes, 8)?, decode_algorithms(bytes.get(12..)?)?)),
                _ => Err(RakpStatus(status)),
            };
            let console_session = match result {
                Ok(_) => four(bytes, 4)?,
                Err(_) => four(bytes, 4).unwrap_or(0),
            };
            Some(OpenResponse {
                tag: *bytes.first()?,
                privilege: bytes.get(2).copied().unwrap_or(0),
                console_session,
                result,
            })
        };
        parts().ok_or(DropReason::Malformed)
    }
}

/// RAKP message 1 (§13.20): who wants in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp1 {
    /// Sent back in the answer.
    pub tag: u8,
    /// The BMC's session number.
    pub bmc_session: u32,
    /// Random number of the console.
    pub console_random: [u8; 16],
    /// Privilege level wanted, and [`ROLE_NAME_ONLY`].
    pub role: u8,
    /// User name, up to [`USER_MAX`] bytes.
    pub user: Vec<u8>,
}

impl Rakp1 {
    /// The bytes. A longer name is cut off.
    pub fn encode(&self) -> Vec<u8> {
        let user = &self.user[..self.user.len().min(USER_MAX)];
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.bmc_session.to_le_bytes());
        out.extend_from_slice(&self.console_random);
        out.extend_from_slice(&[self.role, 0, 0, user.len() as u8]);
        out.extend_from_slice(user);
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], also for a name longer than [`USER_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Rakp1, DropReason> {
        let parts = || {
            let length = usize::from(*bytes.get(27)?);
            if length > USER_MAX {
                return None;
            }
            Some(Rakp1 {
                tag: *bytes.first()?,
                bmc_session: four(bytes, 4)?,
                console_random: sixteen(bytes, 8)?,
                role: *bytes.get(24)?,
                user: bytes.get(28..28 + length)?.to_vec(),
            })
        };
        parts().ok_or(DropReason::Malformed)
    }
}

/// What a BMC says in RAKP message 2 when it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2Body {
    /// Random number of the BMC.
    pub bmc_random: [u8; 16],
    /// The BMC's GUID.
    pub guid: [u8; 16],
    /// Proof that the BMC knows the user's password.
    pub code: Vec<u8>,
}

/// RAKP message 2 (§13.21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2 {
    /// The tag of message 1.
    pub tag: u8,
    /// The console's session number.
    pub console_session: u32,
    /// How it goes on, or why not.
    pub result: Result<Rakp2Body, RakpStatus>,
}

impl Rakp2 {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let status = self.result.as_ref().err().map_or(0, |s| s.0);
        let mut out = vec![self.tag, status, 0, 0];
        out.extend_from_slice(&self.console_session.to_le_bytes());
        if let Ok(body) = &self.result {
            out.extend_from_slice(&body.bmc_random);
            out.extend_from_slice(&body.guid);
            out.extend_from_slice(&body.code);
        }
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Rakp2, DropReason> {
        let parts = || {
            let status = *bytes.get(1)?;
            let result = match status {
                0 => Ok(Rakp2Body {
                    bmc_random: sixteen(bytes, 8)?,
                    guid: sixteen(bytes, 24)?,
                    code: bytes.get(40..)?.to_vec(),
                }),
                _ => Err(RakpStatus(status)),
            };
            let console_session = match result {
                Ok(_) => four(bytes, 4)?,
                Err(_) => four(bytes, 4).unwrap_or(0),
            };
            Some(Rakp2 {
                tag: *bytes.first()?,
                console_session,
                result,
            })
        };
        parts().ok_or(DropReason::Malformed)
    }
}

/// RAKP message 3 (§13.22): proof that the console knows the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp3 {
    /// Sent back in the answer.
    pub tag: u8,
    /// The BMC's session number.
    pub bmc_session: u32,
    /// The proof, or why the console gives up.
    pub result: Result<Vec<u8>, RakpStatus>,
}

impl Rakp3 {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let status = self.result.as_ref().err().map_or(0, |s| s.0);
        let mut out = vec![self.tag, status, 0, 0];
        out.extend_from_slice(&self.bmc_session.to_le_bytes());
        if let Ok(code) = &self.result {
            out.extend_from_slice(code);
        }
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Rakp3, DropReason> {
        let parts = || {
            let status = *bytes.get(1)?;
            let result = if status == 0 {
                Ok(bytes.get(8..)?.to_vec())
            } else {
                Err(RakpStatus(status))
            };
            Some(Rakp3 {
                tag: *bytes.first()?,
                bmc_session: four(bytes, 4)?,
                result,
            })
        };
        parts().ok_or(DropReason::Malformed)
    }
}

/// RAKP message 4 (§13.23): proof that the BMC has the same session key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp4 {
    /// The tag of message 3.
    pub tag: u8,
    /// The console's session number.
    pub console_session: u32,
    /// The proof, or why not.
    pub result: Result<Vec<u8>, RakpStatus>,
}

impl Rakp4 {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let status = self.result.as_ref().err().map_or(0, |s| s.0);
        let mut out = vec![self.tag, status, 0, 0];
        out.extend_from_slice(&self.console_session.to_le_bytes());
        if let Ok(code) = &self.result {
            out.extend_from_slice(code);
        }
        out
    }

    /// Takes the bytes apart.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Rakp4, DropReason> {
        let parts = || {
            let status = *bytes.get(1)?;
            let result = if status == 0 {
                Ok(bytes.get(8..)?.to_vec())
            } else {
                Err(RakpStatus(status))
            };
            let console_session = match result {
                Ok(_) => four(bytes, 4)?,
                Err(_) => four(bytes, 4).unwrap_or(0),
            };
            Some(Rakp4 {
                tag: *bytes.first()?,
                console_session,
                result,
            })
        };
        parts().ok_or(DropReason::Malformed)
    }
}

/// Everything both sides have agreed on before the proofs, under the spec's letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The cipher suite.
    pub suite: Suite,
    /// SIDm.
    pub console_session: u32,
    /// SIDc.
    pub bmc_session: u32,
    /// Rm.
    pub console_random: [u8; 16],
    /// Rc.
    pub bmc_random: [u8; 16],
    /// GUIDc.
    pub guid: [u8; 16],
    /// The role byte of RAKP message 1, whole.
    pub role: u8,
    /// The user name as sent.
    pub user: Vec<u8>,
}

impl Exchange {
    fn name_parts(&self) -> [u8; 2] {
        [self.role, self.user.len() as u8]
    }

    /// The code of RAKP message 2, under the user's password.
    pub fn rakp2_code(&self, password: &Secret) -> Vec<u8> {
        self.suite.rakp_hmac(
            password.bytes(),
            &[
                &self.console_session.to_le_bytes(),
                &self.bmc_session.to_le_bytes(),
                &self.console_random,
                &self.bmc_random,
                &self.guid,
                &self.name_parts(),
                &self.user,
            ],
        )
    }

    /// The code of RAKP message 3, under the user's password.
    pub fn rakp3_code(&self, password: &Secret) -> Vec<u8> {
        self.suite.rakp_hmac(
            password.bytes(),
            &[
                &self.bmc_random,
                &self.console_session.to_le_bytes(),
                &self.name_parts(),
                &self.user,
            ],
        )
    }

    /// The session's keys: under K_g if there is one, else under the user's password (§13.31).
    pub fn keys(&self, password: &Secret, k_g: Option<&Secret>) -> SessionKeys {
        let key = k_g.unwrap_or(password);
        let sik = self.suite.rakp_hmac(
            key.bytes(),
            &[
                &self.console_random,
                &self.bmc_random,
                &self.name_parts(),
                &self.user,
            ],
        );
        // §13.32: additional keys are made from 20 equal bytes, whatever the hash.
        let k1 = self.suite.rakp_hmac(&sik, &[&[1; 20]]);
        let k2 = self.suite.rakp_hmac(&sik, &[&[2; 20]]);
        let mut aes = [0; 16];
        for (to, from) in aes.iter_mut().zip(&k2) {
            *to = *from;
        }
        let mut rakp4 = self.suite.rakp_hmac(
            &sik,
            &[
                &self.console_random,
                &self.bmc_session.to_le_bytes(),
                &self.guid,
            ],
        );
        rakp4.truncate(self.suite.rakp4_code_len());
        SessionKeys {
            suite: self.suite,
            k1: Secret::new(k1),
            aes: Secret::new(aes),
            password: Secret::new(password.padded::<KEY_MAX>()),
            rakp4,
        }
    }
}

/// The keys of a live IPMI 2.0 session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKeys {
    suite: Suite,
    k1: Secret,
    aes: Secret,
    /// Filled up to 20 bytes with zeros. Only suite 12 needs it after the handshake; the spec leaves the
    /// filling open, and this is how FreeIPMI reads it.
    password: Secret,
    rakp4: Vec<u8>,
}

impl SessionKeys {
    /// The cipher suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The integrity check value of RAKP message 4.
    pub fn rakp4_code(&self) -> &[u8] {
        &self.rakp4
    }

    /// The code at the end of a session packet (§13.28), over everything before it.
    pub(crate) fn integrity_code(&self, signed: &[u8]) -> Vec<u8> {
        let mut code = match self.suite {
            Suite::Sha1 => crypto::hmac_sha1(self.k1.bytes(), &[signed]),
            Suite::Sha256 => crypto::hmac_sha256(self.k1.bytes(), &[signed]),
            Suite::HmacMd5 => crypto::hmac_md5(self.k1.bytes(), &[signed]),
            Suite::Md5 => {
                crypto::md5(&[self.password.bytes(), signed, self.password.bytes()]).to_vec()
            }
        };
        code.truncate(self.suite.integrity_len());
        code
    }

    fn aes_key(&self) -> [u8; 16] {
        self.aes.padded()
    }

    pub(crate) fn encrypt(&self, iv: [u8; 16], plain: &[u8]) -> Vec<u8> {
        crypto::aes_seal(&self.aes_key(), iv, plain)
    }

    pub(crate) fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        crypto::aes_open(&self.aes_key(), sealed)
    }
}

/// Whether a received code is the expected one. `prefix` accepts a code with bytes too many at its end,
/// which some firmware sends (FreeIPMI's workaround `supermicro20`).
pub(crate) fn code_fits(expected: &[u8], received: &[u8], prefix: bool) -> bool {
    match received.get(..expected.len()) {
        Some(head) if prefix || received.len() == expected.len() => crypto::same(expected, head),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn algorithms() -> impl Strategy<Value = Algorithms> {
        (0u8..64, 0u8..64, 0u8..64).prop_map(|(authentication, integrity, confidentiality)| {
            Algorithms {
                authentication,
                integrity,
                confidentiality,
            }
        })
    }

    fn code() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        #[test]
        fn an_open_request_survives_the_wire(tag: u8, privilege in 0u8..16, console_session: u32, algorithms in algorithms()) {
            let message = OpenRequest { tag, privilege, console_session, algorithms };
            prop_assert_eq!(OpenRequest::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn an_open_response_survives_the_wire(tag: u8, privilege: u8, console_session: u32, session: u32, algorithms in algorithms(), status: u8) {
            let result = if status == 0 { Ok((session, algorithms)) } else { Err(RakpStatus(status)) };
            let message = OpenResponse { tag, privilege, console_session, result };
            prop_assert_eq!(OpenResponse::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn rakp_messages_survive_the_wire(tag: u8, session: u32, random: [u8; 16], guid: [u8; 16], role: u8,
                                          user in proptest::collection::vec(any::<u8>(), 0..=USER_MAX), code in code(), status: u8) {
            let one = Rakp1 { tag, bmc_session: session, console_random: random, role, user };
            prop_assert_eq!(Rakp1::decode(&one.encode()), Ok(one));
            let body = Rakp2Body { bmc_random: random, guid, code: code.clone() };
            let result = if status == 0 { Ok(body) } else { Err(RakpStatus(status)) };
            let two = Rakp2 { tag, console_session: session, result };
            prop_assert_eq!(Rakp2::decode(&two.encode()), Ok(two));
            let result = if status == 0 { Ok(code) } else { Err(RakpStatus(status)) };
            let three = Rakp3 { tag, bmc_session: session, result: result.clone() };
            prop_assert_eq!(Rakp3::decode(&three.encode()), Ok(three));
            let four = Rakp4 { tag, console_session: session, result };
            prop_assert_eq!(Rakp4::decode(&four.encode()), Ok(four));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            OpenRequest::decode(&bytes).ok();
            OpenResponse::decode(&bytes).ok();
            Rakp1::decode(&bytes).ok();
            Rakp2::decode(&bytes).ok();
            Rakp3::decode(&bytes).ok();
            Rakp4::decode(&bytes).ok();
        }
    }

    #[test]
    fn a_code_with_bytes_too_many_fits_only_as_a_prefix() {
        assert!(code_fits(&[1, 2], &[1, 2], false));
        assert!(!code_fits(&[1, 2], &[1, 2, 3], false));
        assert!(code_fits(&[1, 2], &[1, 2, 3], true));
        assert!(!code_fits(&[1, 2], &[1], true));
    }
}
