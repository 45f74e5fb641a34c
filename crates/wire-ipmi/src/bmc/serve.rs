//! The commands that the BMC side answers.

use std::net::SocketAddr;
use std::time::Instant;

use super::session::Session;
use super::{BOOT_FLAGS_LIMIT, Bmc, BmcAction, PerMessageAuth, SuiteListing};
use crate::command::{
    self, AuthCapabilities, AuthTypes, BootFlags, ChassisControl, ChassisStatus, Power, Privilege,
    Request, SUITE_CHUNK, boot_parameter,
};
use crate::completion::Completion;
use crate::drops::DropReason;
use crate::message::{Checksums, Message};

/// Version of the boot option parameters (spec §28.13).
const BOOT_OPTIONS_VERSION: u8 = 1;
/// The number that this BMC's LAN channel has.
const LAN_CHANNEL: u8 = 1;

type Answer = Result<Vec<u8>, Completion>;

/// Whether the session goes on after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    Closed,
}

fn lowest_level(request: &Request) -> Privilege {
    match request {
        Request::GetAuthCapabilities { .. }
        | Request::GetCipherSuites { .. }
        | Request::GetSessionChallenge { .. }
        | Request::ActivateSession { .. }
        | Request::SetPrivilege { .. }
        | Request::CloseSession { .. }
        | Request::GetSystemGuid => Privilege::Callback,
        Request::GetDeviceId | Request::GetChassisStatus | Request::Other { .. } => Privilege::User,
        Request::ChassisControl(_)
        | Request::SetBootOptions { .. }
        | Request::GetBootOptions { .. } => Privilege::Operator,
    }
}

impl Bmc {
    /// A command outside a session.
    pub(super) fn outside(
        &mut self,
        payload: &[u8],
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Vec<u8>, DropReason> {
        let message = Message::decode(payload, Checksums::Check)?;
        if message.net_fn & 1 == 1 {
            return Err(DropReason::Unexpected);
        }
        let answer = match Request::decode(message.net_fn, message.command, &message.data) {
            Err(completion) => Err(completion),
            Ok(Request::GetAuthCapabilities {
                extended,
                channel,
                privilege,
            }) => self.capabilities(extended, channel, privilege),
            Ok(Request::GetCipherSuites { channel, index }) => match self.config.suite_listing {
                SuiteListing::Silence => return Err(DropReason::Unexpected),
                SuiteListing::Error => Err(Completion::INVALID_COMMAND),
                SuiteListing::List => self.cipher_suites(channel, index),
            },
            Ok(Request::GetSessionChallenge { auth, user }) => {
                self.give_challenge(auth, &user, peer, now)
            }
            Ok(Request::GetSystemGuid) => Ok(self.config.guid.to_vec()),
            Ok(_) => Err(Completion::PRIVILEGE),
        };
        Ok(reply(&message, answer).encode())
    }

    /// A command inside a session; also says whether the session lives on.
    pub(super) fn inside(
        &mut self,
        session: &mut Session,
        message: &Message,
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> (Message, bool) {
        if let Some((request, answer)) = &session.last_switch
            && request == message
        {
            return (answer.clone(), true);
        }
        let request = Request::decode(message.net_fn, message.command, &message.data);
        let switching = matches!(request, Ok(Request::ChassisControl(_)));
        let (answer, after) = match request {
            Err(completion) => (Err(completion), After::Open),
            Ok(request) if session.level < lowest_level(&request) => {
                (Err(Completion::PRIVILEGE), After::Open)
            }
            Ok(request) => self.carry_out(session, request, now, out),
        };
        let answer = reply(message, answer);
        // Any other command in between means that the console did not repeat itself.
        session.last_switch = switching.then(|| (message.clone(), answer.clone()));
        (answer, after == After::Open)
    }

    fn carry_out(
        &mut self,
        session: &mut Session,
        request: Request,
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> (Answer, After) {
        let answer = match request {
            Request::GetAuthCapabilities {
                extended,
                channel,
                privilege,
            } => self.capabilities(extended, channel, privilege),
            Request::GetCipherSuites { channel, index } => self.cipher_suites(channel, index),
            Request::SetPrivilege { level } => set_privilege(session, level),
            Request::CloseSession { session: number } => {
                if number == session.number {
                    // A console that goes away in the middle must not lock the others out.
                    self.boot_progress = 0;
                    return (Ok(Vec::new()), After::Closed);
                }
                // Closing somebody else's is for administrators.
                let before = self.sessions.len();
                if session.level >= Privilege::Admin {
                    self.sessions.retain(|s| s.number != number);
                }
                if self.sessions.len() < before {
                    Ok(Vec::new())
                } else {
                    Err(Completion(0x87))
                }
            }
            Request::GetDeviceId => Ok(self.config.device.encode()),
            Request::GetSystemGuid => Ok(self.config.guid.to_vec()),
            Request::GetChassisStatus => Ok(self.chassis_status()),
            Request::ChassisControl(control) => self.control(control, now, out),
            Request::SetBootOptions { parameter, data } => {
                self.set_boot(parameter, &data, now, out)
            }
            Request::GetBootOptions { parameter } => self.get_boot(parameter),
            Request::GetSessionChallenge { .. } | Request::ActivateSession { .. } => {
                Err(Completion::PRESENT_STATE)
            }
            Request::Other { .. } => Err(Completion::INVALID_COMMAND),
        };
        (answer, After::Open)
    }

    fn capabilities(&self, extended: bool, channel: u8, privilege: u8) -> Answer {
        if channel != command::CHANNEL_PRESENT && channel != LAN_CHANNEL {
            return Err(Completion::INVALID_FIELD);
        }
        if Privilege::from_code(privilege).is_none() {
            return Err(Completion::INVALID_FIELD);
        }
        let v20 = !self.config.suites.is_empty();
        if extended && !v20 {
            // The bit is reserved in IPMI 1.5.
            return Err(Completion::INVALID_FIELD);
        }
        let mut status = 0;
        if self.config.users.iter().any(|u| !u.name.is_empty()) {
            status |= command::STATUS_NAMED_USERS;
        }
        if self.config.users.iter().any(|u| u.name.is_empty()) {
            status |= command::STATUS_UNNAMED_USERS;
        }
        if self.config.k_g.is_some() {
            status |= command::STATUS_K_G;
        }
        if self.config.per_message_auth == PerMessageAuth::Off {
            status |= command::STATUS_PER_MESSAGE_OFF;
        }
        let v15 = u8::from(!self.config.auth_types.is_empty());
        let capabilities = AuthCapabilities {
            channel: LAN_CHANNEL,
            auth_types: AuthTypes::of(&self.config.auth_types),
            status,
            extended: extended.then_some(if v20 { 2 | v15 } else { v15 }),
        };
        Ok(capabilities.encode())
    }

    fn cipher_suites(&self, channel: u8, index: u8) -> Answer {
        if channel != command::CHANNEL_PRESENT && channel != LAN_CHANNEL {
            return Err(Completion::INVALID_FIELD);
        }
        let records = command::encode_suite_records(&self.config.suites);
        let mut data = vec![LAN_CHANNEL];
        data.extend(
            records
                .chunks(SUITE_CHUNK)
                .nth(usize::from(index))
                .unwrap_or(&[]),
        );
        Ok(data)
    }

    fn chassis_status(&self) -> Vec<u8> {
        ChassisStatus {
            power: self.power,
            power_bits: 0,
            last_event: 0,
            misc: 0,
        }
        .encode()
    }

    fn control(
        &mut self,
        control: ChassisControl,
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> Answer {
        let after = match (control, self.power) {
            (ChassisControl::PowerUp, _)
            | (ChassisControl::PowerCycle | ChassisControl::HardReset, Power::On) => Power::On,
            (ChassisControl::PowerDown, _) => Power::Off,
            (ChassisControl::SoftShutdown | ChassisControl::DiagnosticInterrupt, Power::On) => {
                Power::On
            }
            // Spec §28.3: not possible on a machine without power.
            (_, Power::Off) => return Err(Completion::PRESENT_STATE),
        };
        let keeps_flags = self.boot_keep & 0x08 != 0;
        if !keeps_flags
            && self
                .boot_set_at
                .is_some_and(|at| now.saturating_duration_since(at) > BOOT_FLAGS_LIMIT)
        {
            self.boot.valid = false;
        }
        self.boot_set_at = None;
        self.power = after;
        out.push(BmcAction::Chassis(control));
        Ok(Vec::new())
    }

    fn set_boot(
        &mut self,
        parameter: u8,
        data: &[u8],
        now: Instant,
        out: &mut Vec<BmcAction>,
    ) -> Answer {
        match (parameter, data) {
            // The top bit only marks a parameter as locked; without data that is all.
            (_, []) => {}
            (boot_parameter::SET_IN_PROGRESS, [state, ..]) => match state & 3 {
                1 if self.boot_progress == 1 => return Err(Completion::SPECIFIC_81),
                state => self.boot_progress = state & 1,
            },
            (boot_parameter::VALID_BIT_CLEARING, [keep, ..]) => self.boot_keep = *keep,
            (boot_parameter::ACKNOWLEDGE, [mask, data, ..]) => {
                self.boot_acknowledge = [*mask, *data]
            }
            (boot_parameter::ACKNOWLEDGE, [_]) => return Err(Completion::WRONG_LENGTH),
            (boot_parameter::FLAGS, data) if data.len() >= 5 => {
                self.boot = BootFlags::decode(data).ok_or(Completion::WRONG_LENGTH)?;
                self.boot_set_at = Some(now);
                out.push(BmcAction::BootDevice(self.boot));
            }
            (boot_parameter::FLAGS, _) => return Err(Completion::WRONG_LENGTH),
            (_, _) => return Err(Completion::SPECIFIC_80),
        }
        Ok(Vec::new())
    }

    fn get_boot(&self, parameter: u8) -> Answer {
        let value: &[u8] = match parameter {
            boot_parameter::SET_IN_PROGRESS => &[self.boot_progress],
            boot_parameter::VALID_BIT_CLEARING => &[self.boot_keep],
            boot_parameter::ACKNOWLEDGE => &self.boot_acknowledge,
            boot_parameter::FLAGS => &self.boot.encode(),
            _ => return Err(Completion::SPECIFIC_80),
        };
        let mut data = vec![BOOT_OPTIONS_VERSION, parameter];
        data.extend_from_slice(value);
        Ok(data)
    }
}

fn set_privilege(session: &mut Session, level: u8) -> Answer {
    if level != 0 {
        let wanted = Privilege::from_code(level).ok_or(Completion::INVALID_FIELD)?;
        if wanted > session.user_limit {
            return Err(Completion::SPECIFIC_80);
        }
        if wanted > session.limit {
            return Err(Completion::SPECIFIC_81);
        }
        session.level = wanted;
    }
    Ok(vec![session.level.code()])
}

fn reply(message: &Message, answer: Answer) -> Message {
    match answer {
        Ok(data) => message.answer(Completion::OK.0, &data),
        Err(completion) => message.answer(completion.0, &[]),
    }
}
