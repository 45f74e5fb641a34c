//! Logins and sessions of the BMC side.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Bmc, BmcAction, HALF_OPEN_MAX, PerMessageAuth, SuiteRefusal, User};
use crate::channel::{Channel15, Channel20, PerMessage, SeqOrder, SeqWindow};
use crate::command::{Privilege, Request};
use crate::completion::{Completion, RakpStatus};
use crate::crypto;
use crate::drops::DropReason;
use crate::message::{Checksums, Message};
use crate::packet::{self, AuthType, PayloadType, V15, V20};
use crate::rakp::{
    Exchange, OpenRequest, OpenResponse, ROLE_NAME_ONLY, Rakp1, Rakp2, Rakp2Body, Rakp3, Rakp4,
};
use crate::suite::Suite;

/// An IPMI 1.5 challenge that was given out.
#[derive(Debug)]
pub(super) struct Challenge {
    pub session: u32,
    pub given: Instant,
    peer: SocketAddr,
    auth: AuthType,
    user: User,
    challenge: [u8; 16],
}

/// An IPMI 2.0 login between the open-session request and RAKP message 3.
#[derive(Debug)]
pub(super) struct Handshake {
    pub bmc_session: u32,
    pub begun: Instant,
    peer: SocketAddr,
    suite: Suite,
    console_session: u32,
    /// Highest level the console may get, by its own request.
    limit: Privilege,
    /// The request and the answer, for when the console repeats itself.
    open: (Vec<u8>, Vec<u8>),
    proposal: Option<Proposal>,
}

/// What RAKP message 1 fixed.
#[derive(Debug)]
struct Proposal {
    message: Vec<u8>,
    answer: Vec<u8>,
    exchange: Exchange,
    user: User,
    role: Privilege,
}

#[derive(Debug)]
enum Protection {
    V15(Channel15),
    V20(Channel20),
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    pub number: u32,
    pub last_used: Instant,
    pub level: Privilege,
    /// Highest level of this session.
    pub limit: Privilege,
    /// Highest level of the user.
    pub user_limit: Privilege,
    /// The last switching request and its answer: a console that repeats itself does not switch twice.
    pub last_switch: Option<(Message, Message)>,
    peer: SocketAddr,
    protection: Protection,
    /// The message that opened the session and its answer, for when the console repeats itself.
    opened_by: (Vec<u8>, Vec<u8>),
}

fn make_room<T>(list: &mut Vec<T>) {
    if list.len() >= HALF_OPEN_MAX {
        list.remove(0);
    }
}

impl Bmc {
    fn user(&self, name: &[u8], wanted: Option<Privilege>) -> Option<User> {
        let fits = |u: &&User| u.name == name && wanted.is_none_or(|w| u.privilege >= w);
        self.config.users.iter().find(fits).cloned()
    }

    // ---- IPMI 2.0 ----

    pub(super) fn on_open(
        &mut self,
        payload: &[u8],
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Vec<u8>, DropReason> {
        let request = OpenRequest::decode(payload)?;
        if let Some(known) = self
            .handshakes
            .iter()
            .find(|h| h.peer == peer && h.open.0 == payload)
        {
            return Ok(known.open.1.clone());
        }
        let limit = match request.privilege {
            0 => Some(Privilege::Admin),
            code => Privilege::from_code(code),
        };
        let suite =
            Suite::from_algorithms(request.algorithms).filter(|s| self.config.suites.contains(s));
        let refuse = |status| {
            let response = OpenResponse {
                tag: request.tag,
                privilege: request.privilege,
                console_session: request.console_session,
                result: Err(status),
            };
            Ok(packet::encode_v20_plain(
                PayloadType::OpenResponse,
                &response.encode(),
            ))
        };
        let (suite, limit) = match (suite, limit, self.config.suite_refusal) {
            (None, _, SuiteRefusal::Silence) => return Err(DropReason::Unexpected),
            (None, _, SuiteRefusal::Status(status)) => return refuse(status),
            (Some(_), None, _) => return refuse(RakpStatus::INVALID_ROLE),
            (Some(_), Some(_), _) if self.sessions.len() >= self.config.sessions_max => {
                return refuse(RakpStatus::NO_RESOURCES);
            }
            (Some(suite), Some(limit), _) => (suite, limit),
        };
        let bmc_session = self.fresh_session();
        let response = OpenResponse {
            tag: request.tag,
            privilege: limit.code(),
            console_session: request.console_session,
            result: Ok((bmc_session, suite.algorithms())),
        };
        let bytes = packet::encode_v20_plain(PayloadType::OpenResponse, &response.encode());
        make_room(&mut self.handshakes);
        self.handshakes.push(Handshake {
            bmc_session,
            begun: now,
            peer,
            suite,
            console_session: request.console_session,
            limit,
            open: (payload.to_vec(), bytes.clone()),
            proposal: None,
        });
        Ok(bytes)
    }

    pub(super) fn on_rakp1(
        &mut self,
        payload: &[u8],
        peer: SocketAddr,
    ) -> Result<Vec<u8>, DropReason> {
        let message = Rakp1::decode(payload)?;
        let at = self
            .handshakes
            .iter()
            .position(|h| h.bmc_session == message.bmc_session)
            .ok_or(DropReason::Session)?;
        let handshake = &self.handshakes[at];
        if handshake.peer != peer {
            return Err(DropReason::Peer);
        }
        if let Some(proposal) = &handshake.proposal {
            // A repeated message gets the same answer; another one is too late.
            return if proposal.message == payload {
                Ok(proposal.answer.clone())
            } else {
                Err(DropReason::Unexpected)
            };
        }
        let (suite, console_session, limit) =
            (handshake.suite, handshake.console_session, handshake.limit);
        let role = Privilege::from_code(message.role);
        let by_name = message.role & ROLE_NAME_ONLY != 0;
        let user = self.user(&message.user, if by_name { None } else { role });
        let (user, role) = match (user, role) {
            (_, None) => return Ok(self.give_up(at, &message, RakpStatus::INVALID_ROLE)),
            (None, Some(_)) => {
                return Ok(self.give_up(at, &message, RakpStatus::UNAUTHORIZED_NAME));
            }
            (Some(user), Some(role)) if role > user.privilege || role > limit => {
                return Ok(self.give_up(at, &message, RakpStatus::UNAUTHORIZED_ROLE));
            }
            (Some(user), Some(role)) => (user, role),
        };
        let exchange = Exchange {
            suite,
            console_session,
            bmc_session: message.bmc_session,
            console_random: message.console_random,
            bmc_random: self.random(),
            guid: self.config.guid,
            role: message.role,
            user: message.user,
        };
        let body = Rakp2Body {
            bmc_random: exchange.bmc_random,
            guid: exchange.guid,
            code: exchange.rakp2_code(&user.password),
        };
        let answer = Rakp2 {
            tag: message.tag,
            console_session,
            result: Ok(body),
        };
        let bytes = packet::encode_v20_plain(PayloadType::Rakp2, &answer.encode());
        self.handshakes[at].proposal = Some(Proposal {
            message: payload.to_vec(),
            answer: bytes.clone(),
            exchange,
            user,
            role,
        });
        Ok(bytes)
    }

    fn give_up(&mut self, at: usize, message: &Rakp1, status: RakpStatus) -> Vec<u8> {
        let handshake = self.handshakes.remove(at);
        let answer = Rakp2 {
            tag: message.tag,
            console_session: handshake.console_session,
            result: Err(status),
        };
        packet::encode_v20_plain(PayloadType::Rakp2, &answer.encode())
    }

    pub(super) fn on_rakp3(
        &mut self,
        payload: &[u8],
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Vec<u8>, DropReason> {
        let message = Rakp3::decode(payload)?;
        if let Some(open) = self
            .sessions
            .iter()
            .find(|s| s.peer == peer && s.number == message.bmc_session && s.opened_by.0 == payload)
        {
            return Ok(open.opened_by.1.clone());
        }
        let at = self
            .handshakes
            .iter()
            .position(|h| h.bmc_session == message.bmc_session)
            .ok_or(DropReason::Session)?;
        if self.handshakes[at].peer != peer {
            return Err(DropReason::Peer);
        }
        if self.handshakes[at].proposal.is_none() {
            return Err(DropReason::Unexpected);
        }
        let handshake = self.handshakes.remove(at);
        let Some(Proposal {
            exchange,
            user,
            role,
            ..
        }) = handshake.proposal
        else {
            return Err(DropReason::Unexpected);
        };
        // With a status instead of a proof the console has given up; nobody waits for an answer.
        let Ok(code) = message.result else {
            return Err(DropReason::Unexpected);
        };
        let answer = |result| {
            let answer = Rakp4 {
                tag: message.tag,
                console_session: exchange.console_session,
                result,
            };
            packet::encode_v20_plain(PayloadType::Rakp4, &answer.encode())
        };
        if !crypto::same(&exchange.rakp3_code(&user.password), &code) {
            return Ok(answer(Err(RakpStatus::INVALID_CODE)));
        }
        if self.sessions.len() >= self.config.sessions_max {
            return Ok(answer(Err(RakpStatus::NO_RESOURCES)));
        }
        let keys = exchange.keys(&user.password, self.config.k_g.as_ref());
        let bytes = answer(Ok(keys.rakp4_code().to_vec()));
        self.sessions.push(Session {
            number: exchange.bmc_session,
            last_used: now,
            level: role.min(Privilege::User),
            limit: role,
            user_limit: user.privilege,
            last_switch: None,
            peer,
            protection: Protection::V20(Channel20::new(exchange.console_session, keys)),
            opened_by: (payload.to_vec(), bytes.clone()),
        });
        Ok(bytes)
    }

    pub(super) fn inside_v20(
        &mut self,
        packet: &V20<'_>,
        peer: SocketAddr,
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> Result<Vec<u8>, DropReason> {
        let at = self.find(packet.session, peer)?;
        let Protection::V20(channel) = &mut self.sessions[at].protection else {
            return Err(DropReason::Session);
        };
        let payload = channel.open(packet)?;
        let request = Message::decode(&payload, Checksums::Check)?;
        let iv = self.random();
        // The session may be gone after its last command, but its answer still belongs to it.
        let mut session = self.sessions.swap_remove(at);
        session.last_used = now;
        let (answer, alive) = self.inside(&mut session, &request, now, out);
        let Protection::V20(channel) = &mut session.protection else {
            return Err(DropReason::Session);
        };
        let bytes = channel.seal(iv, &answer.encode());
        if alive {
            self.sessions.push(session);
        }
        Ok(bytes)
    }

    fn find(&self, number: u32, peer: SocketAddr) -> Result<usize, DropReason> {
        let at = self
            .sessions
            .iter()
            .position(|s| s.number == number)
            .ok_or(DropReason::Session)?;
        if self.sessions[at].peer != peer {
            return Err(DropReason::Peer);
        }
        Ok(at)
    }

    // ---- IPMI 1.5 ----

    /// Get Session Challenge.
    pub(super) fn give_challenge(
        &mut self,
        auth: AuthType,
        name: &[u8; 16],
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Vec<u8>, Completion> {
        if !self.config.auth_types.contains(&auth) {
            return Err(Completion::INVALID_FIELD);
        }
        let length = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        let user = match self.user(&name[..length], None) {
            Some(user) => user,
            None if length == 0 => return Err(Completion::SPECIFIC_82),
            None => return Err(Completion::SPECIFIC_81),
        };
        let (session, challenge) = (self.fresh_session(), self.random());
        make_room(&mut self.challenges);
        self.challenges.push(Challenge {
            session,
            given: now,
            peer,
            auth,
            user,
            challenge,
        });
        let mut data = session.to_le_bytes().to_vec();
        data.extend_from_slice(&challenge);
        Ok(data)
    }

    fn per_message(&self) -> PerMessage {
        match self.config.per_message_auth {
            PerMessageAuth::On => PerMessage::Code,
            PerMessageAuth::Off => PerMessage::Bare,
        }
    }

    pub(super) fn inside_v15(
        &mut self,
        packet: &V15<'_>,
        peer: SocketAddr,
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> Result<Vec<u8>, DropReason> {
        if let Some(at) = self
            .challenges
            .iter()
            .position(|c| c.session == packet.session)
        {
            return self.activate(at, packet, peer, now);
        }
        if let Some(open) = self
            .sessions
            .iter()
            .find(|s| s.peer == peer && packet.sequence == 0 && s.opened_by.0 == packet.payload)
        {
            return Ok(open.opened_by.1.clone());
        }
        let at = self.find(packet.session, peer)?;
        let Protection::V15(channel) = &mut self.sessions[at].protection else {
            return Err(DropReason::Session);
        };
        channel.check(packet)?;
        let request = Message::decode(packet.payload, Checksums::Check)?;
        let mut session = self.sessions.swap_remove(at);
        session.last_used = now;
        let (answer, alive) = self.inside(&mut session, &request, now, out);
        let Protection::V15(channel) = &mut session.protection else {
            return Err(DropReason::Session);
        };
        let bytes = channel.seal(&answer.encode());
        if alive {
            self.sessions.push(session);
        }
        Ok(bytes)
    }

    /// Activate Session. A wrong password gets no answer, as with real BMCs.
    fn activate(
        &mut self,
        at: usize,
        packet: &V15<'_>,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Vec<u8>, DropReason> {
        let given = &self.challenges[at];
        if given.peer != peer {
            return Err(DropReason::Peer);
        }
        if packet.auth != given.auth {
            return Err(DropReason::AuthType);
        }
        let (auth, temporary, password) = (given.auth, given.session, given.user.password.clone());
        let code_for = |payload: &[u8], sequence: u32| {
            packet::v15_code(
                auth,
                &password.padded(),
                temporary,
                sequence.to_le_bytes(),
                payload,
            )
        };
        let fits = match (packet.code, code_for(packet.payload, packet.sequence)) {
            (Some(code), Some(right)) => crypto::same(&code, &right),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !fits {
            return Err(DropReason::AuthCode);
        }
        let request = Message::decode(packet.payload, Checksums::Check)?;
        let wrapped = |completion: Completion, data: &[u8]| {
            let payload = request.answer(completion.0, data).encode();
            packet::encode_v15(&V15 {
                auth,
                sequence: 0,
                session: temporary,
                code: code_for(&payload, 0),
                payload: &payload,
            })
        };
        let (privilege, challenge, initial_sequence) =
            match Request::decode(request.net_fn, request.command, &request.data) {
                Ok(Request::ActivateSession {
                    privilege,
                    challenge,
                    initial_sequence,
                    ..
                }) => (privilege, challenge, initial_sequence),
                Ok(_) => return Ok(wrapped(Completion::PRIVILEGE, &[])),
                Err(completion) => return Ok(wrapped(completion, &[])),
            };
        if challenge != given.challenge {
            return Ok(wrapped(Completion::INVALID_FIELD, &[]));
        }
        let wanted = match Privilege::from_code(privilege) {
            Some(wanted) if wanted <= given.user.privilege => wanted,
            Some(_) => return Ok(wrapped(Completion(0x86), &[])),
            None => return Ok(wrapped(Completion::INVALID_FIELD, &[])),
        };
        if self.sessions.len() >= self.config.sessions_max {
            return Ok(wrapped(Completion(0x81), &[]));
        }
        let user_limit = given.user.privilege;
        let first_in = u32::from_le_bytes(self.random()) | 1;
        let number = self.fresh_session();
        let mut data = vec![auth.code()];
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&first_in.to_le_bytes());
        data.push(wanted.code());
        let bytes = wrapped(Completion::OK, &data);
        self.challenges.remove(at);
        self.sessions.push(Session {
            number,
            last_used: now,
            level: wanted.min(Privilege::User),
            limit: wanted,
            user_limit,
            last_switch: None,
            peer,
            protection: Protection::V15(Channel15 {
                auth,
                per_message: self.per_message(),
                per_message_in: self.per_message(),
                session: number,
                password,
                next_out: initial_sequence,
                window: SeqWindow::starting_at(first_in),
                order: SeqOrder::Little,
            }),
            opened_by: (packet.payload.to_vec(), bytes.clone()),
        });
        Ok(bytes)
    }
}
