//! Opening a session: capabilities, then the IPMI 2.0 handshake or the IPMI 1.5 challenge.

use std::time::Instant;

use super::{
    Action, Channel, Client, ConfigError, Driver, Fault, HANDSHAKE_TRIES_MAX, IpmiError,
    LOGIN_ATTEMPTS_MAX, Login, Lookup, Outgoing, PASSWORD_MAX_V15, PasswordEvidence, Refusal,
    State, Step, SuiteChoice, Warning, Workaround,
};
use crate::channel::{Channel15, Channel20, PerMessage, SeqOrder, SeqWindow};
use crate::command::{self, AuthCapabilities, AuthTypes, CHANNEL_PRESENT, Privilege, Request};
use crate::completion::{Completion, RakpStatus};
use crate::drops::DropReason;
use crate::message::Message;
use crate::packet::{self, AuthType, PayloadType, V15};
use crate::rakp::{
    self, Exchange, OpenRequest, OpenResponse, ROLE_NAME_ONLY, Rakp1, Rakp2, Rakp3, Rakp4,
    SessionKeys, USER_MAX,
};
use crate::secret::Secret;
use crate::suite::Suite;

/// Transmissions of the question for the cipher suites: several kinds of BMC never answer it, and the
/// answer only saves time.
const CIPHER_SUITE_TRIES_MAX: u32 = 1;
/// How many chunks of the cipher suite list are asked for.
const CIPHER_SUITE_CHUNKS_MAX: u8 = 8;

impl Client {
    pub(super) fn ask_capabilities(&mut self, extended: bool, now: Instant, out: &mut Vec<Action>) {
        self.state = State::AuthCapabilities { extended };
        let request = Request::GetAuthCapabilities {
            extended,
            channel: CHANNEL_PRESENT,
            privilege: self.config.privilege.code(),
        };
        self.ask_plain(
            Step::AuthCapabilities,
            &request,
            self.config.timing.tries,
            now,
            out,
        );
    }

    /// An answer to a command before the session.
    pub(super) fn on_plain_answer(
        &mut self,
        answer: &Message,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let (completion, body) = answer.data.split_first().ok_or(DropReason::TooShort)?;
        let completion = Completion(*completion);
        match self.state.clone() {
            State::AuthCapabilities { extended } => {
                self.on_capabilities(extended, completion, body, now, out)
            }
            State::CipherSuites { index, records } => {
                self.on_cipher_suites(index, records, completion, body, now, out)
            }
            State::SessionChallenge { auth } => self.on_challenge(auth, completion, body, now, out),
            State::Idle
            | State::OpenSession { .. }
            | State::Rakp1 { .. }
            | State::Rakp3 { .. }
            | State::ActivateSession { .. }
            | State::Working { .. }
            | State::Closing
            | State::Done => return Err(DropReason::Unexpected),
        }
        Ok(())
    }

    fn on_capabilities(
        &mut self,
        extended: bool,
        completion: Completion,
        body: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if completion.is_passing() {
            return self.fault(Fault::Passing(completion));
        }
        let trusted = !self.has(Workaround::AuthCap);
        let capabilities = if completion.is_ok() {
            AuthCapabilities::decode(body)
        } else {
            None
        };
        let Some(capabilities) = capabilities else {
            return match completion {
                // Before IPMI 2.0 the bit that asks for the extension was reserved.
                _ if extended && trusted => self.ask_capabilities(false, now, out),
                _ if !trusted => self.begin_login(AuthTypes::default(), extended, now, out),
                Completion::OK => self.finish(
                    Err(IpmiError::ShortAnswer {
                        step: Step::AuthCapabilities,
                    }),
                    now,
                    out,
                ),
                _ => self.finish(
                    Err(IpmiError::Command {
                        step: Step::AuthCapabilities,
                        completion,
                    }),
                    now,
                    out,
                ),
            };
        };
        self.per_message_off = capabilities.status & command::STATUS_PER_MESSAGE_OFF != 0;
        self.begin_login(capabilities.auth_types, capabilities.speaks_v20(), now, out);
    }

    fn begin_login(
        &mut self,
        offered: AuthTypes,
        speaks_v20: bool,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let trusted = !self.has(Workaround::AuthCap);
        match self.config.driver {
            Driver::Lan20 if !speaks_v20 && trusted => {
                self.finish(Err(IpmiError::DriverRefused(Driver::Lan20)), now, out)
            }
            Driver::Auto if !speaks_v20 => self.begin_login_v15(offered, now, out),
            Driver::Lan => self.begin_login_v15(offered, now, out),
            Driver::Lan20 | Driver::Auto => match self.config.suites {
                SuiteChoice::Auto => self.ask_cipher_suites(0, Vec::new(), now, out),
                SuiteChoice::Prefer(_) | SuiteChoice::Only(_) => self.open_session(now, out),
            },
        }
    }

    /// Begins the login anew with fresh numbers, or gives up with this error.
    pub(super) fn login_again(&mut self, error: IpmiError, now: Instant, out: &mut Vec<Action>) {
        self.logins += 1;
        if self.logins >= LOGIN_ATTEMPTS_MAX {
            return self.finish(Err(error), now, out);
        }
        match self.state {
            State::SessionChallenge { auth } | State::ActivateSession { auth, .. } => {
                self.ask_challenge(auth, now, out)
            }
            _ => self.open_session(now, out),
        }
    }

    fn too_low(&self, step: Step, refusal: Refusal) -> IpmiError {
        IpmiError::PrivilegeTooLow {
            step,
            wanted: self.config.privilege,
            refusal,
        }
    }

    // ---- IPMI 2.0 ----

    fn ask_cipher_suites(
        &mut self,
        index: u8,
        records: Vec<u8>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.state = State::CipherSuites { index, records };
        let request = Request::GetCipherSuites {
            channel: CHANNEL_PRESENT,
            index,
        };
        self.ask_plain(
            Step::CipherSuites,
            &request,
            CIPHER_SUITE_TRIES_MAX,
            now,
            out,
        );
    }

    fn on_cipher_suites(
        &mut self,
        index: u8,
        mut records: Vec<u8>,
        completion: Completion,
        body: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        // The first byte is the channel.
        let chunk = body.get(1..).unwrap_or(&[]);
        if completion.is_ok() {
            records.extend_from_slice(&chunk[..chunk.len().min(command::SUITE_CHUNK)]);
            if chunk.len() >= command::SUITE_CHUNK && index + 1 < CIPHER_SUITE_CHUNKS_MAX {
                return self.ask_cipher_suites(index + 1, records, now, out);
            }
        }
        let listed = command::decode_suite_records(&records);
        if self.suites.iter().any(|s| listed.contains(&s.id())) {
            self.suites.retain(|s| listed.contains(&s.id()));
        }
        self.open_session(now, out);
    }

    /// Proposes the first suite of the list.
    pub(super) fn open_session(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(&suite) = self.suites.front() else {
            let tried = std::mem::take(&mut self.tried);
            let last = self.last_refusal.unwrap_or(RakpStatus::NO_SUITE_MATCH);
            return self.finish(Err(IpmiError::SuiteRefused { tried, last }), now, out);
        };
        let console_session = self.random_session();
        let tag = self.next_number();
        let privilege = if self.has(Workaround::OpenSessPriv) {
            self.config.privilege.code()
        } else {
            0
        };
        let request = OpenRequest {
            tag,
            privilege,
            console_session,
            algorithms: suite.algorithms(),
        };
        // Some BMCs say nothing to algorithms they do not know: leave time for the next suite.
        let tries = if self.suites.len() > 1 {
            HANDSHAKE_TRIES_MAX
        } else {
            self.config.timing.tries
        };
        self.state = State::OpenSession {
            suite,
            console_session,
        };
        self.ask_handshake(
            Step::OpenSession,
            tag,
            PayloadType::OpenRequest,
            &request.encode(),
            tries,
            now,
            out,
        );
    }

    #[allow(clippy::too_many_arguments)]
    fn ask_handshake(
        &mut self,
        step: Step,
        tag: u8,
        kind: PayloadType,
        payload: &[u8],
        tries: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let bytes = packet::encode_v20_plain(kind, payload);
        self.ask(step, tag, Outgoing::Datagram(bytes), tries, now, out);
    }

    pub(super) fn on_handshake(
        &mut self,
        kind: PayloadType,
        payload: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        match (self.state.clone(), kind) {
            (
                State::OpenSession {
                    suite,
                    console_session,
                },
                PayloadType::OpenResponse,
            ) => {
                let response = OpenResponse::decode(payload)?;
                self.expect(
                    response.tag,
                    response.console_session,
                    console_session,
                    response.result.is_err(),
                )?;
                self.on_open_response(suite, response, console_session, now, out);
                Ok(())
            }
            (State::Rakp1 { exchange }, PayloadType::Rakp2) => {
                let message = Rakp2::decode(payload)?;
                self.expect(
                    message.tag,
                    message.console_session,
                    exchange.console_session,
                    message.result.is_err(),
                )?;
                self.on_rakp2(exchange, message, now, out);
                Ok(())
            }
            (State::Rakp3 { exchange, keys }, PayloadType::Rakp4) => {
                let message = Rakp4::decode(payload)?;
                self.expect(
                    message.tag,
                    message.console_session,
                    exchange.console_session,
                    message.result.is_err(),
                )?;
                self.on_rakp4(&exchange, keys, message, now, out);
                Ok(())
            }
            (_, PayloadType::OpenResponse | PayloadType::Rakp2 | PayloadType::Rakp4) => {
                Err(DropReason::Unexpected)
            }
            (_, _) => Err(DropReason::PayloadType),
        }
    }

    /// Whether a handshake message is meant for the open question.
    fn expect(
        &self,
        tag: u8,
        session: u32,
        own_session: u32,
        refusal: bool,
    ) -> Result<(), DropReason> {
        if self.pending.as_ref().is_none_or(|p| p.number != tag) {
            return Err(DropReason::Unexpected);
        }
        // Some BMCs leave the session number out of a refusal.
        let zero_is_fine = refusal || self.has(Workaround::IdZero);
        if session != own_session && !(zero_is_fine && session == 0) {
            return Err(DropReason::Session);
        }
        Ok(())
    }

    /// What a refusal in the handshake leads to, unless it is about the suite.
    fn on_refusal(&mut self, step: Step, status: RakpStatus, now: Instant, out: &mut Vec<Action>) {
        let refusal = Refusal::Status(status);
        let error = match status {
            RakpStatus::NO_RESOURCES | RakpStatus::NO_RESOURCES_AT_ROLE => {
                return self.fault(Fault::NoSession(refusal));
            }
            RakpStatus::INVALID_SESSION | RakpStatus::INACTIVE_SESSION => {
                return self.login_again(IpmiError::HandshakeRefused { step, status }, now, out);
            }
            RakpStatus::UNAUTHORIZED_NAME => IpmiError::WrongUser { refusal },
            RakpStatus::INVALID_ROLE | RakpStatus::UNAUTHORIZED_ROLE => self.too_low(step, refusal),
            RakpStatus::INVALID_CODE => IpmiError::WrongPassword {
                evidence: PasswordEvidence::Refused(status),
            },
            _ => IpmiError::HandshakeRefused { step, status },
        };
        self.finish(Err(error), now, out);
    }

    fn next_suite(
        &mut self,
        refused: Suite,
        status: RakpStatus,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.tried.push(refused.id());
        self.last_refusal = Some(status);
        self.suites.pop_front();
        self.logins = 0;
        self.open_session(now, out);
    }

    fn on_open_response(
        &mut self,
        suite: Suite,
        response: OpenResponse,
        console_session: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        match response.result {
            Err(status) if status.refuses_suite() => self.next_suite(suite, status, now, out),
            Err(status) => self.on_refusal(Step::OpenSession, status, now, out),
            // Other algorithms than proposed: as good as a refusal, and never a way to weaker ones.
            Ok((_, algorithms)) if algorithms != suite.algorithms() => {
                self.next_suite(suite, RakpStatus::NO_SUITE_MATCH, now, out)
            }
            Ok((0, _)) if !self.has(Workaround::IdZero) => {
                self.fault(Fault::Damaged(DropReason::Malformed))
            }
            Ok((bmc_session, _)) => {
                let tag = self.next_number();
                let lookup = match self.config.lookup {
                    Lookup::NameOnly => ROLE_NAME_ONLY,
                    Lookup::NameAndPrivilege => 0,
                };
                let mut user = self.config.user.clone();
                if self.has(Workaround::Intel20) {
                    user.resize(USER_MAX, 0);
                }
                let exchange = Exchange {
                    suite,
                    console_session,
                    bmc_session,
                    console_random: self.random(),
                    bmc_random: [0; 16],
                    guid: [0; 16],
                    role: self.config.privilege.code() | lookup,
                    user,
                };
                let message = Rakp1 {
                    tag,
                    bmc_session,
                    console_random: exchange.console_random,
                    role: exchange.role,
                    user: exchange.user.clone(),
                };
                self.state = State::Rakp1 { exchange };
                self.ask_handshake(
                    Step::Rakp1,
                    tag,
                    PayloadType::Rakp1,
                    &message.encode(),
                    HANDSHAKE_TRIES_MAX,
                    now,
                    out,
                );
            }
        }
    }

    fn password_for(&self, suite: Suite) -> Secret {
        let cut = self.has(Workaround::Intel20) && matches!(suite, Suite::HmacMd5 | Suite::Md5);
        let password = self.config.password.bytes();
        Secret::new(if cut {
            &password[..password.len().min(PASSWORD_MAX_V15)]
        } else {
            password
        })
    }

    fn on_rakp2(
        &mut self,
        mut exchange: Exchange,
        message: Rakp2,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let body = match message.result {
            Err(status) if status.refuses_suite() && status != RakpStatus(0x12) => {
                return self.next_suite(exchange.suite, status, now, out);
            }
            Err(status) => return self.on_refusal(Step::Rakp1, status, now, out),
            Ok(body) => body,
        };
        exchange.bmc_random = body.bmc_random;
        exchange.guid = body.guid;
        let password = self.password_for(exchange.suite);
        if !rakp::code_fits(
            &exchange.rakp2_code(&password),
            &body.code,
            self.has(Workaround::Supermicro20),
        ) {
            let evidence = PasswordEvidence::BmcProof;
            return self.finish(Err(IpmiError::WrongPassword { evidence }), now, out);
        }
        let keys = exchange.keys(&password, self.k_g.as_ref());
        let tag = self.next_number();
        let message = Rakp3 {
            tag,
            bmc_session: exchange.bmc_session,
            result: Ok(exchange.rakp3_code(&password)),
        };
        // A repeated message 1 may have given the BMC a random number that we did not see; then it
        // refuses our proof although the password is right, and a new login helps.
        let repeated = self.pending.as_ref().is_some_and(|p| p.sent > 1);
        self.desynchronised = repeated;
        self.state = State::Rakp3 { exchange, keys };
        self.ask_handshake(
            Step::Rakp3,
            tag,
            PayloadType::Rakp3,
            &message.encode(),
            HANDSHAKE_TRIES_MAX,
            now,
            out,
        );
    }

    fn on_rakp4(
        &mut self,
        exchange: &Exchange,
        keys: SessionKeys,
        message: Rakp4,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let code = match message.result {
            Err(RakpStatus::INVALID_CODE) if self.desynchronised => {
                let evidence = PasswordEvidence::Refused(RakpStatus::INVALID_CODE);
                return self.login_again(IpmiError::WrongPassword { evidence }, now, out);
            }
            Err(status) => return self.on_refusal(Step::Rakp3, status, now, out),
            Ok(code) => code,
        };
        if !rakp::code_fits(keys.rakp4_code(), &code, self.has(Workaround::Supermicro20)) {
            // Both sides have proved the password, so it is the K_g that differs.
            return match self.k_g.take() {
                Some(_) => {
                    self.warnings.push(Warning::KgIgnored);
                    self.open_session(now, out);
                }
                None => self.finish(Err(IpmiError::WrongKg), now, out),
            };
        }
        if let SuiteChoice::Prefer(from) = self.config.suites
            && from != exchange.suite
        {
            self.warnings.push(Warning::SuiteFellBack {
                from,
                to: exchange.suite,
            });
        }
        let inner = Channel20::new(exchange.bmc_session, keys);
        self.channel = Some(Channel::V20 {
            own_session: exchange.console_session,
            inner,
        });
        self.login = Some(Login::V20 {
            suite: exchange.suite,
        });
        self.begin_work(now, out);
    }

    // ---- IPMI 1.5 ----

    fn begin_login_v15(&mut self, offered: AuthTypes, now: Instant, out: &mut Vec<Action>) {
        if self.config.password.len() > PASSWORD_MAX_V15 {
            let error = ConfigError::PasswordTooLong {
                max: PASSWORD_MAX_V15,
            };
            return self.finish(Err(IpmiError::Config(error)), now, out);
        }
        let trusted = !self.has(Workaround::AuthCap);
        let auth = match self.config.auth {
            Some(auth) => (offered.has(auth) || !trusted).then_some(auth),
            None if offered.has(AuthType::Md5) || !trusted => Some(AuthType::Md5),
            None if offered.has(AuthType::Straight) && self.config.driver == Driver::Lan => {
                Some(AuthType::Straight)
            }
            None if offered.has(AuthType::None) => Some(AuthType::None),
            None => None,
        };
        match auth {
            Some(auth) => self.ask_challenge(auth, now, out),
            None => self.finish(Err(IpmiError::NoAuthType { offered }), now, out),
        }
    }

    fn ask_challenge(&mut self, auth: AuthType, now: Instant, out: &mut Vec<Action>) {
        self.state = State::SessionChallenge { auth };
        let mut user = [0; USER_MAX];
        for (to, from) in user.iter_mut().zip(&self.config.user) {
            *to = *from;
        }
        self.ask_plain(
            Step::SessionChallenge,
            &Request::GetSessionChallenge { auth, user },
            self.config.timing.tries,
            now,
            out,
        );
    }

    fn on_challenge(
        &mut self,
        auth: AuthType,
        completion: Completion,
        body: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let step = Step::SessionChallenge;
        match completion {
            Completion::OK => {}
            Completion::SPECIFIC_81 | Completion::SPECIFIC_82 => {
                let refusal = Refusal::Completion(completion);
                return self.finish(Err(IpmiError::WrongUser { refusal }), now, out);
            }
            passing if passing.is_passing() => return self.fault(Fault::Passing(passing)),
            completion => {
                return self.finish(Err(IpmiError::Command { step, completion }), now, out);
            }
        }
        let fields = body.split_first_chunk::<4>().and_then(|(session, rest)| {
            Some((u32::from_le_bytes(*session), *rest.first_chunk::<16>()?))
        });
        let Some((session, challenge)) = fields else {
            return self.finish(Err(IpmiError::ShortAnswer { step }), now, out);
        };
        let initial_sequence = self.random_session();
        let number = self.next_number();
        let request = Request::ActivateSession {
            auth,
            privilege: self.config.privilege.code(),
            challenge,
            initial_sequence,
        };
        let (net_fn, command) = request.code();
        let payload = Message::request(number, net_fn, command, request.data()).encode();
        let code = packet::v15_code(
            auth,
            &self.config.password.padded(),
            session,
            [0; 4],
            &payload,
        );
        let bytes = packet::encode_v15(&V15 {
            auth,
            sequence: 0,
            session,
            code,
            payload: &payload,
        });
        self.state = State::ActivateSession {
            auth,
            initial_sequence,
        };
        self.ask(
            Step::ActivateSession,
            number,
            Outgoing::Datagram(bytes),
            HANDSHAKE_TRIES_MAX,
            now,
            out,
        );
    }

    pub(super) fn on_activation(
        &mut self,
        packet: &V15<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let State::ActivateSession {
            auth,
            initial_sequence,
        } = self.state
        else {
            return Err(DropReason::Unexpected);
        };
        let proved = match packet.code {
            None => auth == AuthType::None,
            Some(_) if packet.auth != auth => return Err(DropReason::AuthType),
            Some(code) => {
                let right = packet::v15_code(
                    auth,
                    &self.config.password.padded(),
                    packet.session,
                    packet.sequence.to_le_bytes(),
                    packet.payload,
                );
                if !right.is_some_and(|right| crate::crypto::same(&right, &code)) {
                    return Err(DropReason::AuthCode);
                }
                true
            }
        };
        let answer = self.answer(packet.payload)?;
        let (completion, body) = answer.data.split_first().ok_or(DropReason::TooShort)?;
        let completion = Completion(*completion);
        let step = Step::ActivateSession;
        let refusal = Refusal::Completion(completion);
        match completion.0 {
            0x00 => {}
            0x81..=0x83 => {
                self.fault(Fault::NoSession(refusal));
                return Ok(());
            }
            0x85 => {
                self.login_again(IpmiError::Command { step, completion }, now, out);
                return Ok(());
            }
            0x86 | 0xd4 => {
                self.finish(Err(self.too_low(step, refusal)), now, out);
                return Ok(());
            }
            _ if completion.is_passing() => {
                self.fault(Fault::Passing(completion));
                return Ok(());
            }
            _ => {
                self.finish(Err(IpmiError::Command { step, completion }), now, out);
                return Ok(());
            }
        }
        if !proved && !self.per_message_off {
            return Err(DropReason::Unprotected);
        }
        let [rest_auth, s0, s1, s2, s3, n0, n1, n2, n3, ..] = body else {
            self.finish(Err(IpmiError::ShortAnswer { step }), now, out);
            return Ok(());
        };
        let session = u32::from_le_bytes([*s0, *s1, *s2, *s3]);
        if session == 0 && !self.has(Workaround::IdZero) {
            return Err(DropReason::Malformed);
        }
        let bare = self.per_message_off
            || (proved && AuthType::from_code(rest_auth & 0x0f) == AuthType::None);
        let channel = Channel15 {
            auth,
            per_message: if bare && !self.has(Workaround::ForcePerMsg) {
                PerMessage::Bare
            } else {
                PerMessage::Code
            },
            per_message_in: if bare {
                PerMessage::Bare
            } else {
                PerMessage::Code
            },
            session,
            password: self.config.password.clone(),
            next_out: u32::from_le_bytes([*n0, *n1, *n2, *n3]),
            window: SeqWindow::starting_at(initial_sequence),
            order: if self.has(Workaround::EndianSeq) {
                SeqOrder::Big
            } else {
                SeqOrder::Little
            },
        };
        self.channel = Some(Channel::V15(channel));
        self.login = Some(Login::V15 { auth });
        self.begin_work(now, out);
        Ok(())
    }

    /// The session stands. It begins at level USER (spec §6.8), so that level needs no raising.
    fn begin_work(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.config.privilege > Privilege::User {
            self.tasks.push_front(super::Task::SetPrivilege);
        }
        self.next_task(now, out);
    }
}
