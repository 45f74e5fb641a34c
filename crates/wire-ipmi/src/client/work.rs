//! The commands inside the session.

use std::time::Instant;

use super::{Action, Client, Fault, Goal, IpmiError, Outcome, Refusal, State, Step, Task, Warning};
use crate::command::{BootFlags, ChassisStatus, DeviceId};
use crate::completion::Completion;
use crate::drops::DropReason;
use crate::message::Message;

impl Client {
    /// Sends the next command, or ends with success when there is none.
    pub(super) fn next_task(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self.tasks.pop_front() {
            Some(task) => {
                self.state = State::Working { task };
                let request = task.request(self.config.privilege.code());
                self.ask_in_session(task.step(), &request, self.config.timing.tries, now, out);
            }
            None => {
                let Some(login) = self.login else { return };
                let outcome = Outcome {
                    login,
                    status: self.status,
                    sent: self.sent,
                    boot: self.boot,
                    device: self.device.take(),
                    warnings: std::mem::take(&mut self.warnings),
                };
                self.finish(Ok(outcome), now, out);
            }
        }
    }

    /// An answer to a command in the session.
    pub(super) fn on_session_answer(
        &mut self,
        answer: &Message,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), DropReason> {
        let (completion, body) = answer.data.split_first().ok_or(DropReason::TooShort)?;
        match self.state {
            State::Working { task } => {
                self.on_task_answer(task, Completion(*completion), body, now, out)
            }
            State::Closing => {
                // Whatever it says, there is nothing more to do.
                if let Some(result) = self.result.take() {
                    self.done(result, out);
                }
            }
            State::Idle
            | State::AuthCapabilities { .. }
            | State::CipherSuites { .. }
            | State::OpenSession { .. }
            | State::Rakp1 { .. }
            | State::Rakp3 { .. }
            | State::SessionChallenge { .. }
            | State::ActivateSession { .. }
            | State::Done => return Err(DropReason::Unexpected),
        }
        Ok(())
    }

    fn on_task_answer(
        &mut self,
        task: Task,
        completion: Completion,
        body: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if completion.is_passing() {
            return self.fault(Fault::Passing(completion));
        }
        let step = task.step();
        let result = if completion.is_ok() {
            self.on_success(task, body)
        } else {
            Err(self.refused(task, completion))
        };
        match result {
            Ok(()) => self.next_task(now, out),
            Err(error @ IpmiError::PrivilegeTooLow { .. }) => self.finish(Err(error), now, out),
            Err(_) if task.is_courtesy() => self.next_task(now, out),
            Err(error)
                if step == Step::SetBootOptions && !matches!(self.goal, Goal::SetBoot(_)) =>
            {
                self.warnings.push(Warning::BootNotSet(error));
                self.next_task(now, out);
            }
            Err(error) => self.finish(Err(error), now, out),
        }
    }

    fn refused(&self, task: Task, completion: Completion) -> IpmiError {
        let step = task.step();
        let refusal = Refusal::Completion(completion);
        match (task, completion) {
            (Task::SetPrivilege, Completion::SPECIFIC_80 | Completion::SPECIFIC_81)
            | (_, Completion::PRIVILEGE) => IpmiError::PrivilegeTooLow {
                step,
                wanted: self.config.privilege,
                refusal,
            },
            _ => IpmiError::Command { step, completion },
        }
    }

    fn on_success(&mut self, task: Task, body: &[u8]) -> Result<(), IpmiError> {
        let short = IpmiError::ShortAnswer { step: task.step() };
        match task {
            Task::SetPrivilege | Task::BootBegin | Task::BootAcknowledge | Task::BootEnd => {}
            Task::DeviceId => self.device = Some(DeviceId::decode(body).ok_or(short)?),
            Task::Status => {
                let status = ChassisStatus::decode(body).ok_or(short)?;
                self.status = Some(status);
                self.tasks
                    .extend(self.goal.switch(status.power).map(Task::Control));
            }
            Task::Control(control) => self.sent = Some(control),
            Task::BootFlags(flags) => self.boot = Some(flags),
            Task::GetBoot => {
                // Version, parameter with "invalid" in bit 7, value.
                let [_, parameter, value @ ..] = body else {
                    return Err(short);
                };
                self.boot = Some(if parameter & 0x80 != 0 {
                    BootFlags::NONE
                } else {
                    BootFlags::decode(value).ok_or(short)?
                });
            }
        }
        Ok(())
    }
}
