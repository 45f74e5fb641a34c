//! The console side: one [`Client`] logs in at one BMC, reaches one [`Goal`] and logs out.
//!
//! ```text
//! Start ─ capabilities ─┬─ [cipher suites] ─ open session ─ RAKP 1/2 ─ RAKP 3/4 ─┬─ privilege ─ commands ─ close ─ Done
//!                       └─ session challenge ─ activate session ────────────────┘
//! ```
//! `login` holds the left half, `work` the right, this file the clock: what was sent last is sent again
//! with growing pauses until an answer, a limit per request, or the limit for everything.

mod config;
mod error;
mod goal;
mod login;
mod work;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::channel::{Channel15, Channel20};
use crate::command::{BootFlags, ChassisControl, ChassisStatus, DeviceId, Request};
use crate::completion::{Completion, RakpStatus};
use crate::drops::{DropCounts, DropReason};
use crate::message::{Checksums, Message};
use crate::packet::{self, AuthType, Datagram, V15, V20};
use crate::rakp::{Exchange, SessionKeys};
use crate::secret::Secret;
use crate::suite::Suite;

pub use config::{
    Config, ConfigError, Driver, Lookup, PASSWORD_MAX_V15, SuiteChoice, Timing, Workaround,
    Workarounds,
};
pub use error::{IpmiError, PasswordEvidence, Refusal, Step};
use goal::Task;
pub use goal::{BootOnce, BootType, Goal, Login, OffMode, Outcome, Warning};

/// How often a login is begun anew, with fresh numbers, after the BMC fell silent or lost track.
pub const LOGIN_ATTEMPTS_MAX: u32 = 3;
/// Transmissions of one handshake message before the login is begun anew.
const HANDSHAKE_TRIES_MAX: u32 = 3;
/// Transmissions of Close Session; the result does not depend on an answer.
const CLOSE_TRIES_MAX: u32 = 2;

/// What happens to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// Begin.
    Start,
    /// A datagram came from the BMC's address.
    Packet(&'a [u8]),
    /// The time set by [`Action::SetTimer`] has come.
    Timeout,
    /// The network said that the BMC's port or host cannot be reached (ICMP). Not final: BMCs that
    /// restart do this for a while.
    Unreachable,
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this datagram to the BMC.
    Send(Vec<u8>),
    /// Call with [`Input::Timeout`] at this time; replaces the time set before.
    SetTimer(Instant),
    /// It is over. Comes once, as the last action.
    Done(Result<Outcome, IpmiError>),
}

/// Where the client is.
#[derive(Debug, Clone)]
enum State {
    Idle,
    AuthCapabilities {
        extended: bool,
    },
    CipherSuites {
        index: u8,
        records: Vec<u8>,
    },
    OpenSession {
        suite: Suite,
        console_session: u32,
    },
    /// Random number and GUID of the BMC are not known yet.
    Rakp1 {
        exchange: Exchange,
    },
    Rakp3 {
        exchange: Exchange,
        keys: SessionKeys,
    },
    SessionChallenge {
        auth: AuthType,
    },
    ActivateSession {
        auth: AuthType,
        initial_sequence: u32,
    },
    Working {
        task: Task,
    },
    Closing,
    Done,
}

/// A live session.
#[derive(Debug)]
enum Channel {
    V15(Channel15),
    V20 { own_session: u32, inner: Channel20 },
}

/// What is sent again when no answer comes.
#[derive(Debug)]
enum Outgoing {
    /// The same bytes.
    Datagram(Vec<u8>),
    /// The same message in a new session packet: BMCs drop repeated session sequence numbers.
    Message(Vec<u8>),
}

/// Why the last answer did not help.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Passing(Completion),
    NoSession(Refusal),
    Damaged(DropReason),
    Unreachable,
}

/// The question that is open.
#[derive(Debug)]
struct Pending {
    step: Step,
    outgoing: Outgoing,
    /// Tag or message sequence number by which the answer is known.
    number: u8,
    sent: u32,
    tries_max: u32,
    since: Instant,
    wait: Duration,
    again_at: Instant,
    fault: Option<Fault>,
}

/// One conversation with one BMC.
#[derive(Debug)]
pub struct Client {
    config: Config,
    goal: Goal,
    rng: StdRng,
    state: State,
    pending: Option<Pending>,
    deadline: Option<Instant>,
    timer: Option<Instant>,
    /// Next tag or message sequence number.
    number: u8,
    /// Cipher suites still to try, the current one first.
    suites: VecDeque<Suite>,
    tried: Vec<u8>,
    last_refusal: Option<RakpStatus>,
    k_g: Option<Secret>,
    logins: u32,
    per_message_off: bool,
    /// RAKP message 1 was sent more than once, so the BMC may expect a proof over another random number.
    desynchronised: bool,
    channel: Option<Channel>,
    login: Option<Login>,
    tasks: VecDeque<Task>,
    status: Option<ChassisStatus>,
    sent: Option<ChassisControl>,
    boot: Option<BootFlags>,
    device: Option<DeviceId>,
    warnings: Vec<Warning>,
    result: Option<Result<Outcome, IpmiError>>,
    dropped: DropCounts,
}

impl Client {
    /// A client that will reach `goal`. `seed` must be fresh and unpredictable for every client: session
    /// numbers, random numbers and initialisation vectors are drawn from it.
    ///
    /// # Errors
    /// [`ConfigError`] when no BMC could accept the configuration.
    pub fn new(config: Config, goal: Goal, seed: [u8; 32]) -> Result<Client, ConfigError> {
        config.check()?;
        let mut rng = StdRng::from_seed(seed);
        let number = rng.next_u32() as u8;
        Ok(Client {
            suites: config.suites.order().into(),
            k_g: config.k_g.clone(),
            tasks: goal.tasks(),
            config,
            goal,
            rng,
            state: State::Idle,
            pending: None,
            deadline: None,
            timer: None,
            number,
            tried: Vec::new(),
            last_refusal: None,
            logins: 0,
            per_message_off: false,
            desynchronised: false,
            channel: None,
            login: None,
            status: None,
            sent: None,
            boot: None,
            device: None,
            warnings: Vec::new(),
            result: None,
            dropped: DropCounts::default(),
        })
    }

    /// Takes one input and says what to do. After [`Action::Done`] every input is ignored.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Start => self.start(now, &mut out),
            Input::Packet(bytes) => {
                if let Err(reason) = self.on_packet(bytes, now, &mut out) {
                    self.dropped.add(reason);
                    if reason.is_damage() {
                        self.fault(Fault::Damaged(reason));
                    }
                }
            }
            Input::Timeout => {}
            Input::Unreachable => self.fault(Fault::Unreachable),
        }
        self.on_time(now, &mut out);
        let timer = self.next_timeout();
        if timer != self.timer {
            self.timer = timer;
            out.extend(timer.map(Action::SetTimer));
        }
        // Whoever takes actions in order has sent everything before hearing that it is over.
        out.sort_by_key(|action| matches!(action, Action::Done(_)));
        out
    }

    /// When to call with [`Input::Timeout`], if nothing else happens before.
    pub fn next_timeout(&self) -> Option<Instant> {
        let again = self.pending.as_ref().map(|p| p.again_at);
        match self.state {
            State::Idle | State::Done => None,
            _ => again.into_iter().chain(self.deadline).min(),
        }
    }

    /// Whether [`Action::Done`] was given out.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// What is being asked at the moment.
    pub fn step(&self) -> Option<Step> {
        self.pending.as_ref().map(|p| p.step)
    }

    /// Which datagrams were dropped, and why.
    pub fn dropped(&self) -> &DropCounts {
        &self.dropped
    }

    fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, State::Idle) {
            self.deadline = Some(now + self.config.timing.total);
            self.ask_capabilities(self.config.driver != Driver::Lan, now, out);
        }
    }

    fn has(&self, workaround: Workaround) -> bool {
        self.config.workarounds.has(workaround)
    }

    fn checksums(&self) -> Checksums {
        if self.has(Workaround::NoChecksumCheck) {
            Checksums::Ignore
        } else {
            Checksums::Check
        }
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A random number other than 0, which means "no session".
    fn random_session(&mut self) -> u32 {
        loop {
            let number = self.rng.next_u32();
            if number != 0 {
                return number;
            }
        }
    }

    fn next_number(&mut self) -> u8 {
        self.number = self.number.wrapping_add(1);
        // Message sequence numbers have six bits; tags have room for them.
        self.number & 0x3f
    }

    // ---- asking ----

    fn ask(
        &mut self,
        step: Step,
        number: u8,
        outgoing: Outgoing,
        tries_max: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let wait = self.config.timing.first;
        self.pending = Some(Pending {
            step,
            outgoing,
            number,
            sent: 0,
            tries_max: tries_max.max(1),
            since: now,
            wait,
            again_at: now,
            fault: None,
        });
        self.transmit(now, out);
    }

    /// A command before the session, as an IPMI 1.5 packet without session.
    fn ask_plain(
        &mut self,
        step: Step,
        request: &Request,
        tries_max: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let number = self.next_number();
        let (net_fn, command) = request.code();
        let payload = Message::request(number, net_fn, command, request.data()).encode();
        let bytes = packet::encode_v15(&V15 {
            auth: AuthType::None,
            sequence: 0,
            session: 0,
            code: None,
            payload: &payload,
        });
        self.ask(step, number, Outgoing::Datagram(bytes), tries_max, now, out);
    }

    /// A command in the session.
    fn ask_in_session(
        &mut self,
        step: Step,
        request: &Request,
        tries_max: u32,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let number = self.next_number();
        let (net_fn, command) = request.code();
        let payload = Message::request(number, net_fn, command, request.data()).encode();
        self.ask(
            step,
            number,
            Outgoing::Message(payload),
            tries_max,
            now,
            out,
        );
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<Action>) {
        let iv = self.random();
        let Some(pending) = &mut self.pending else {
            return;
        };
        let bytes = match (&pending.outgoing, &mut self.channel) {
            (Outgoing::Datagram(bytes), _) => bytes.clone(),
            (Outgoing::Message(payload), Some(Channel::V15(channel))) => channel.seal(payload),
            (Outgoing::Message(payload), Some(Channel::V20 { inner, .. })) => {
                inner.seal(iv, payload)
            }
            (Outgoing::Message(_), None) => return,
        };
        if pending.sent > 0 {
            pending.wait = (pending.wait * 2).min(self.config.timing.ceiling);
        }
        pending.sent += 1;
        pending.again_at = now + pending.wait;
        out.push(Action::Send(bytes));
    }

    /// Notes why an answer did not help. What the BMC said weighs more than what the network did.
    fn fault(&mut self, fault: Fault) {
        if let Some(pending) = &mut self.pending {
            match (pending.fault, fault) {
                (
                    Some(Fault::Passing(_) | Fault::NoSession(_)),
                    Fault::Damaged(_) | Fault::Unreachable,
                ) => {}
                (_, fault) => pending.fault = Some(fault),
            }
        }
    }

    // ---- time ----

    fn on_time(&mut self, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, State::Idle | State::Done) {
            return;
        }
        if self.deadline.is_some_and(|d| now >= d) {
            return self.out_of_time(now, out);
        }
        let Some(pending) = &self.pending else { return };
        if now >= pending.again_at {
            if pending.sent < pending.tries_max {
                self.transmit(now, out);
            } else {
                self.unanswered(now, out);
            }
        }
    }

    fn out_of_time(&mut self, now: Instant, out: &mut Vec<Action>) {
        let step = self.step().unwrap_or(Step::AuthCapabilities);
        let error = match self.pending.as_ref().and_then(|p| p.fault) {
            Some(_) => self.silence(now),
            None => IpmiError::OutOfTime {
                step,
                limit: self.config.timing.total,
            },
        };
        let result = self.result.take().unwrap_or(Err(error));
        if !matches!(self.state, State::Closing) {
            self.say_goodbye(out);
        }
        self.done(result, out);
    }

    /// The error for the open question, now that it is given up.
    fn silence(&self, now: Instant) -> IpmiError {
        let Some(pending) = &self.pending else {
            return IpmiError::NoAnswer {
                step: Step::AuthCapabilities,
                waited: Duration::ZERO,
                sent: 0,
            };
        };
        let step = pending.step;
        let waited = now.saturating_duration_since(pending.since);
        match pending.fault {
            None => IpmiError::NoAnswer {
                step,
                waited,
                sent: pending.sent,
            },
            Some(Fault::Passing(completion)) => IpmiError::Command { step, completion },
            Some(Fault::NoSession(refusal)) => IpmiError::NoSession { step, refusal },
            Some(Fault::Damaged(reason)) => IpmiError::BadPacket { step, reason },
            Some(Fault::Unreachable) => IpmiError::Unreachable { step, waited },
        }
    }

    /// The open question has been sent as often as it may be.
    fn unanswered(&mut self, now: Instant, out: &mut Vec<Action>) {
        let error = self.silence(now);
        let quiet = matches!(error, IpmiError::NoAnswer { .. });
        match &self.state {
            State::CipherSuites { .. } => self.open_session(now, out),
            State::OpenSession { suite, .. } if quiet && self.suites.len() > 1 => {
                let id = suite.id();
                self.tried.push(id);
                self.suites.pop_front();
                self.open_session(now, out);
            }
            State::Rakp1 { .. } | State::Rakp3 { .. } if quiet => self.login_again(error, now, out),
            State::ActivateSession { auth, .. } if quiet => {
                let error = match auth {
                    AuthType::None => error,
                    _ => IpmiError::WrongPassword {
                        evidence: PasswordEvidence::LoginIgnored,
                    },
                };
                self.login_again(error, now, out);
            }
            State::Closing => {
                let result = self.result.take().unwrap_or(Err(error));
                self.done(result, out);
            }
            State::Idle
            | State::AuthCapabilities { .. }
            | State::OpenSession { .. }
            | State::Rakp1 { .. }
            | State::Rakp3 { .. }
            | State::SessionChallenge { .. }
            | State::ActivateSession { .. }
            | State::Working { .. }
            | State::Done => self.finish(Err(error), now, out),
        }
    }

    // ---- packets ----

    fn on_packet(
        &mut self,
        bytes: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        match packet::parse(bytes)? {
            Datagram::Asf(_) => Err(DropReason::OtherAsf),
            Datagram::V15(packet) => self.on_v15(&packet, now, out),
            Datagram::V20(packet) => self.on_v20(&packet, now, out),
        }
    }

    fn on_v15(
        &mut self,
        packet: &V15<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        match &self.state {
            State::AuthCapabilities { .. }
            | State::CipherSuites { .. }
            | State::SessionChallenge { .. } => {
                if packet.auth != AuthType::None {
                    return Err(DropReason::AuthType);
                }
                if packet.session != 0 {
                    return Err(DropReason::Session);
                }
                let answer = self.answer(packet.payload)?;
                self.on_plain_answer(&answer, now, out)
            }
            State::ActivateSession { .. } => self.on_activation(packet, now, out),
            State::Working { .. } | State::Closing => {
                let idzero = self.has(Workaround::IdZero);
                let Some(Channel::V15(channel)) = &mut self.channel else {
                    return Err(DropReason::Unexpected);
                };
                if packet.session != channel.session && !(idzero && packet.session == 0) {
                    return Err(DropReason::Session);
                }
                channel.check(packet)?;
                let answer = self.answer(packet.payload)?;
                self.on_session_answer(&answer, now, out)
            }
            State::Idle
            | State::OpenSession { .. }
            | State::Rakp1 { .. }
            | State::Rakp3 { .. }
            | State::Done => Err(DropReason::Unexpected),
        }
    }

    fn on_v20(
        &mut self,
        packet: &V20<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        match &self.state {
            // A BMC may answer the commands before the session in either format.
            State::AuthCapabilities { .. }
            | State::CipherSuites { .. }
            | State::SessionChallenge { .. } => {
                if packet.payload_type != packet::PayloadType::Ipmi {
                    return Err(DropReason::PayloadType);
                }
                if packet.session != 0 || packet.encrypted || packet.authenticated {
                    return Err(DropReason::Session);
                }
                let answer = self.answer(packet.payload)?;
                self.on_plain_answer(&answer, now, out)
            }
            State::OpenSession { .. } | State::Rakp1 { .. } | State::Rakp3 { .. } => {
                if packet.session != 0 || packet.encrypted || packet.authenticated {
                    return Err(DropReason::Session);
                }
                self.on_handshake(packet.payload_type, packet.payload, now, out)
            }
            State::Working { .. } | State::Closing => {
                let idzero = self.has(Workaround::IdZero);
                let Some(Channel::V20 { own_session, inner }) = &mut self.channel else {
                    return Err(DropReason::Unexpected);
                };
                if packet.session != *own_session && !(idzero && packet.session == 0) {
                    return Err(DropReason::Session);
                }
                let payload = inner.open(packet)?;
                let answer = self.answer(&payload)?;
                self.on_session_answer(&answer, now, out)
            }
            State::Idle | State::ActivateSession { .. } | State::Done => {
                Err(DropReason::Unexpected)
            }
        }
    }

    /// The message, if it answers the open question.
    fn answer(&self, payload: &[u8]) -> Result<Message, DropReason> {
        let message = Message::decode(payload, self.checksums())?;
        let pending = self.pending.as_ref().ok_or(DropReason::Unexpected)?;
        let (net_fn, command) = pending.step.command();
        if message.net_fn != net_fn | 1
            || message.command != command
            || message.sequence != pending.number
        {
            return Err(DropReason::Unexpected);
        }
        if message.data.is_empty() {
            return Err(DropReason::TooShort);
        }
        Ok(message)
    }

    // ---- the end ----

    /// Ends with this result, after closing the session if there is one.
    fn finish(&mut self, result: Result<Outcome, IpmiError>, now: Instant, out: &mut Vec<Action>) {
        let session = match (&self.channel, &result) {
            (None, _) => None,
            // Whoever was silent will not answer to this either.
            (Some(_), Err(IpmiError::NoAnswer { .. } | IpmiError::Unreachable { .. })) => {
                self.say_goodbye(out);
                None
            }
            (Some(Channel::V15(channel)), _) => Some(channel.session),
            (Some(Channel::V20 { inner, .. }), _) => Some(inner.remote_session),
        };
        match session {
            Some(session) => {
                self.result = Some(result);
                self.state = State::Closing;
                self.ask_in_session(
                    Step::CloseSession,
                    &Request::CloseSession { session },
                    CLOSE_TRIES_MAX,
                    now,
                    out,
                );
            }
            None => self.done(result, out),
        }
    }

    /// Sends Close Session without waiting for an answer: BMCs have few sessions.
    fn say_goodbye(&mut self, out: &mut Vec<Action>) {
        let number = self.next_number();
        let iv = self.random();
        let seal = |session: u32| {
            let request = Request::CloseSession { session };
            let (net_fn, command) = request.code();
            Message::request(number, net_fn, command, request.data()).encode()
        };
        let bytes = match &mut self.channel {
            None => return,
            Some(Channel::V15(channel)) => channel.seal(&seal(channel.session)),
            Some(Channel::V20 { inner, .. }) => inner.seal(iv, &seal(inner.remote_session)),
        };
        out.push(Action::Send(bytes));
    }

    fn done(&mut self, result: Result<Outcome, IpmiError>, out: &mut Vec<Action>) {
        self.state = State::Done;
        self.pending = None;
        self.channel = None;
        out.push(Action::Done(result));
    }
}
