//! IPMI over the network: [`wire_ipmi::client`] with a socket and a clock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use link::message::Parameters;
use metal::timeline::{PowerFault, PowerFaultClass};
use tokio::net::UdpSocket;
use wire_ipmi::client::{
    Action, BootType, Client, Config, Driver, Goal, Input, IpmiError, OffMode, Outcome,
    SuiteChoice, Timing, Warning, Workarounds,
};
use wire_ipmi::command::Privilege;
use wire_ipmi::{PORT, Secret};

use super::text;

/// Time for the name of a BMC to become an address.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer of a BMC; LAN interfaces send at most some hundred bytes.
const MAX_DATAGRAM: usize = 2_048;
/// Pause after the network said that nobody listens: it says so again at once.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);

/// One BMC, as its power parameters describe it.
pub(super) struct Bmc {
    host: String,
    port: u16,
    config: Config,
    /// Firmware mode for a boot from the network.
    pub boot_type: BootType,
    /// How `off` switches off.
    pub off_mode: OffMode,
}

fn settings(message: impl Into<String>) -> PowerFault {
    PowerFault {
        class: PowerFaultClass::Settings,
        message: message.into(),
    }
}

impl Bmc {
    pub(super) fn new(parameters: &Parameters, timing: Timing) -> Result<Self, PowerFault> {
        let address = text(parameters, "power_address")
            .ok_or_else(|| settings("power_address is missing"))?;
        let (host, port) = split_address(&address)
            .ok_or_else(|| settings(format!("power_address '{address}' is no address")))?;
        let choice = |key: &str| text(parameters, key);
        let unknown =
            |key: &str, value: &str| settings(format!("{key} has the unknown value '{value}'"));

        let mut config = Config {
            timing,
            ..Config::default()
        };
        if let Some(user) = choice("power_user") {
            config.user = user.into_bytes();
        }
        if let Some(serde_json::Value::String(password)) = parameters.0.get("power_pass") {
            config.password = Secret::from(password.as_str());
        }
        if let Some(k_g) = choice("k_g") {
            config.k_g = Secret::parse_k_g(&k_g).map_err(|e| settings(format!("k_g: {e}")))?;
        }
        if let Some(driver) = choice("power_driver") {
            config.driver =
                Driver::from_name(&driver).ok_or_else(|| unknown("power_driver", &driver))?;
        }
        // Present but empty is a choice of its own: no preference.
        if parameters.0.contains_key("cipher_suite_id") {
            let suite = choice("cipher_suite_id").unwrap_or_default();
            config.suites = SuiteChoice::from_id_text(&suite)
                .ok_or_else(|| unknown("cipher_suite_id", &suite))?;
        }
        if let Some(level) = choice("privilege_level") {
            config.privilege =
                Privilege::from_name(&level).ok_or_else(|| unknown("privilege_level", &level))?;
        }
        if let Some(flags) = parameters.0.get("workaround_flags") {
            let names = flag_names(flags);
            config.workarounds = Workarounds::from_names(names.iter().map(String::as_str))
                .map_err(|name| unknown("workaround_flags", name))?;
        }
        let boot_type = match choice("power_boot_type") {
            Some(name) => {
                BootType::from_name(&name).ok_or_else(|| unknown("power_boot_type", &name))?
            }
            None => BootType::Auto,
        };
        let off_mode = match choice("power_off_mode") {
            Some(name) => {
                OffMode::from_name(&name).ok_or_else(|| unknown("power_off_mode", &name))?
            }
            None => OffMode::Hard,
        };
        Ok(Self {
            host,
            port,
            config,
            boot_type,
            off_mode,
        })
    }

    pub(super) async fn resolve(&self) -> Result<SocketAddr, PowerFault> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let failed = |why: String| PowerFault {
            class: PowerFaultClass::Connection,
            message: format!("the BMC's name {} has no address: {why}", self.host),
        };
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
            Ok(Ok(mut found)) => found.next().ok_or_else(|| failed("none found".into())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {RESOLVE_TIMEOUT:?}"))),
        }
    }

    /// One conversation. The socket is connected, so that only this BMC's datagrams arrive and the
    /// network's "nobody listens" does.
    pub(super) async fn reach(
        &self,
        address: SocketAddr,
        goal: Goal,
    ) -> Result<Outcome, PowerFault> {
        let network = |e: std::io::Error| PowerFault {
            class: PowerFaultClass::Connection,
            message: format!("the BMC at {address} cannot be reached: {e}"),
        };
        let any: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).await.map_err(network)?;
        socket.connect(address).await.map_err(network)?;

        let mut client = Client::new(self.config.clone(), goal, rand::random()).map_err(|e| {
            settings(format!(
                "the BMC at {address} could not accept these parameters: {e}"
            ))
        })?;
        let mut actions = client.handle(Input::Start, Instant::now());
        let mut timer: Option<Instant> = None;
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let mut unreachable = false;
            for action in std::mem::take(&mut actions) {
                match action {
                    // A datagram that cannot be sent is one that was lost.
                    Action::Send(bytes) => unreachable |= socket.send(&bytes).await.is_err(),
                    Action::SetTimer(at) => timer = Some(at),
                    Action::Done(result) => return result.map_err(|e| fault(address, &e)),
                }
            }
            if unreachable {
                actions = client.handle(Input::Unreachable, Instant::now());
                if !actions.is_empty() {
                    continue;
                }
            }
            let until = timer.map_or_else(
                || tokio::time::Instant::now() + UNREACHABLE_PAUSE,
                tokio::time::Instant::from_std,
            );
            tokio::select! {
                received = socket.recv(&mut datagram) => match received {
                    Ok(n) => actions = client.handle(Input::Packet(&datagram[..n]), Instant::now()),
                    Err(_) => {
                        actions = client.handle(Input::Unreachable, Instant::now());
                        tokio::time::sleep(UNREACHABLE_PAUSE).await;
                    }
                },
                () = tokio::time::sleep_until(until) => {
                    actions = client.handle(Input::Timeout, Instant::now());
                }
            }
        }
    }
}

/// The class and the sentence of a failure.
fn fault(address: SocketAddr, error: &IpmiError) -> PowerFault {
    let class = match error {
        IpmiError::WrongUser { .. }
        | IpmiError::WrongPassword { .. }
        | IpmiError::WrongKg
        | IpmiError::PrivilegeTooLow { .. } => PowerFaultClass::Auth,
        IpmiError::NoAnswer { .. }
        | IpmiError::Unreachable { .. }
        | IpmiError::BadPacket { .. }
        | IpmiError::OutOfTime { .. } => PowerFaultClass::Connection,
        IpmiError::SuiteRefused { .. }
        | IpmiError::DriverRefused(_)
        | IpmiError::NoAuthType { .. }
        | IpmiError::Config(_) => PowerFaultClass::Settings,
        IpmiError::NoSession { .. }
        | IpmiError::HandshakeRefused { .. }
        | IpmiError::Command { .. }
        | IpmiError::ShortAnswer { .. } => PowerFaultClass::Action,
    };
    PowerFault {
        class,
        message: format!("the BMC at {address}: {error}"),
    }
}

/// What a person should know although it worked; a fall-back to another cipher suite is everyday.
pub(super) fn warning(warning: &Warning) -> Option<String> {
    match warning {
        Warning::KgIgnored => {
            Some("the BMC has another K_g than configured; the login worked without".into())
        }
        Warning::BootNotSet(error) => {
            Some(format!("the BMC did not take the boot device: {error}"))
        }
        Warning::SuiteFellBack { .. } => None,
    }
}

fn flag_names(flags: &serde_json::Value) -> Vec<String> {
    match flags {
        serde_json::Value::String(s) => s.split([',', ' ']).map(str::to_owned).collect(),
        serde_json::Value::Array(all) => all
            .iter()
            .filter_map(|f| f.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
fn split_address(text: &str) -> Option<(String, u16)> {
    let valid = |host: &str| {
        (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| host.to_owned())
    };
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if rest.is_empty() => PORT,
            None => return None,
        };
        return Some((host.parse::<Ipv6Addr>().ok()?.to_string(), port));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((valid(host)?, port.parse().ok()?)),
        Some(_) => Some((text.parse::<Ipv6Addr>().ok()?.to_string(), PORT)),
        None => Some((valid(text)?, PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), serde_json::Value::from(*v)))
                .collect(),
        )
    }

    #[test]
    fn addresses_with_and_without_port() {
        for (text, expected) in [
            ("10.0.0.1", Some(("10.0.0.1", 623))),
            ("10.0.0.1:6230", Some(("10.0.0.1", 6230))),
            ("bmc7.example.com", Some(("bmc7.example.com", 623))),
            ("fd00::7", Some(("fd00::7", 623))),
            ("[fd00::7]:99", Some(("fd00::7", 99))),
            ("[fd00::7]", Some(("fd00::7", 623))),
            ("[fd00::7]x", None),
            ("10.0.0.1:http", None),
            ("fd00::zz::1", None),
            (":623", None),
        ] {
            assert_eq!(
                split_address(text),
                expected.map(|(h, p)| (h.to_owned(), p)),
                "{text}"
            );
        }
    }

    #[test]
    fn parameters_that_make_no_sense_are_named_without_their_secrets() {
        for (pairs, word) in [
            (&[("power_pass", "hunter2")][..], "power_address"),
            (
                &[("power_address", "10.0.0.1"), ("power_driver", "LAN_3")],
                "power_driver",
            ),
            (
                &[("power_address", "10.0.0.1"), ("cipher_suite_id", "99")],
                "cipher_suite_id",
            ),
            (
                &[("power_address", "10.0.0.1"), ("privilege_level", "ROOT")],
                "privilege_level",
            ),
            (
                &[("power_address", "10.0.0.1"), ("workaround_flags", "magic")],
                "workaround_flags",
            ),
            (
                &[("power_address", "10.0.0.1"), ("k_g", "0xhunter2")],
                "k_g",
            ),
        ] {
            let fault = Bmc::new(&parameters(pairs), Timing::default())
                .err()
                .expect("refused");
            assert_eq!(fault.class, PowerFaultClass::Settings);
            assert!(
                fault.message.contains(word) && !fault.message.contains("hunter2"),
                "{}",
                fault.message
            );
        }
    }
}
