//! Against programs of others: our client against OpenIPMI's `ipmi_sim`, `ipmitool` and FreeIPMI against
//! our BMC. Needs the packages openipmi, ipmitool and freeipmi-tools; a missing program is a failure.

mod consoles;
mod sim;
#[path = "../common/udp.rs"]
mod udp;

use std::time::Duration;

use wire_ipmi::client::Config;
use wire_ipmi::command::Privilege;

/// How long one call of a foreign program may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config {
        user: b"admin".to_vec(),
        password: "secret".into(),
        privilege: Privilege::Admin,
        ..Config::default()
    }
}
