//! Power orders against BMCs that speak IPMI on loopback.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use link::message::{Outcome, Parameters, PowerAction, PowerOrder, PowerState};
use metal::timeline::{Entry, PowerFaultClass, What};
use rack::power::{Power, PowerConfig};
use rack::shared::Shared;
use serde_json::json;
use support::until;
use tokio::net::UdpSocket;
use wire_ipmi::Secret;
use wire_ipmi::bmc::{Bmc, BmcAction, BmcConfig, User};
use wire_ipmi::client::Timing;
use wire_ipmi::command::{ChassisControl, Power as Chassis, Privilege};

const PASSWORD: &str = "hunter2-hunter2";

struct FakeBmc {
    address: SocketAddr,
    bmc: Arc<Mutex<Bmc>>,
    seen: Arc<Mutex<Vec<ChassisControl>>>,
    sessions_seen: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeBmc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A BMC on loopback; its machine ignores the first `ignored` commands.
async fn a_bmc(sessions_max: usize, ignored: usize) -> FakeBmc {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let user = User {
        name: b"maas".to_vec(),
        password: Secret::from(PASSWORD),
        privilege: Privilege::Admin,
    };
    let config = BmcConfig {
        users: vec![user],
        sessions_max,
        ..BmcConfig::default()
    };
    let bmc = Arc::new(Mutex::new(Bmc::new(
        config,
        [address.port().to_le_bytes()[0]; 32],
    )));
    let (seen, sessions_seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let task = tokio::spawn({
        let (bmc, seen, sessions_seen) = (
            Arc::clone(&bmc),
            Arc::clone(&seen),
            Arc::clone(&sessions_seen),
        );
        async move {
            let mut buffer = [0; 2048];
            while let Ok((n, peer)) = socket.recv_from(&mut buffer).await {
                let before = bmc.lock().unwrap().power();
                let actions = bmc
                    .lock()
                    .unwrap()
                    .handle(&buffer[..n], peer, Instant::now());
                {
                    let mut most = sessions_seen.lock().unwrap();
                    *most = (*most).max(bmc.lock().unwrap().session_count());
                }
                for action in actions {
                    match action {
                        BmcAction::Send { to, bytes } => {
                            socket.send_to(&bytes, to).await.unwrap();
                        }
                        BmcAction::Chassis(control) => {
                            let mut seen = seen.lock().unwrap();
                            seen.push(control);
                            if seen.len() <= ignored {
                                bmc.lock().unwrap().set_power(before);
                            }
                        }
                        BmcAction::BootDevice(_) => {}
                    }
                }
            }
        }
    });
    FakeBmc {
        address,
        bmc,
        seen,
        sessions_seen,
        task,
    }
}

fn a_power(sessions: usize) -> (Power, tokio::sync::mpsc::Receiver<link::message::Report>) {
    let (shared, reports) = Shared::new(Default::default());
    let timing = Timing {
        first: Duration::from_millis(300),
        ceiling: Duration::from_millis(600),
        tries: 3,
        total: Duration::from_secs(10),
    };
    let config = PowerConfig {
        sessions,
        verify: vec![Duration::from_millis(1); 4],
        timing,
    };
    (Power::new(config, shared), reports)
}

fn order(action: PowerAction, address: SocketAddr, password: &str) -> PowerOrder {
    let parameters = json!({
        "power_address": address.to_string(), "power_user": "maas", "power_pass": password,
        "power_driver": "LAN_2_0", "cipher_suite_id": "3", "privilege_level": "OPERATOR",
        "workaround_flags": ["opensesspriv"], "power_boot_type": "efi",
    });
    let parameters = Parameters(
        parameters
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .collect(),
    );
    PowerOrder {
        system_id: "4y3h7n".into(),
        action,
        driver: "ipmi".into(),
        parameters,
    }
}

fn entries(reports: &mut tokio::sync::mpsc::Receiver<link::message::Report>) -> Vec<Entry> {
    let mut all = Vec::new();
    while let Ok(report) = reports.try_recv() {
        if let link::message::Report::Timeline { entries } = report {
            all.extend(entries);
        }
    }
    all
}

fn state(outcome: Outcome) -> PowerState {
    match outcome {
        Outcome::Power { state } => state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_is_switched_on_from_the_network_asked_and_switched_off() {
    let (bmc, (power, mut reports)) = (a_bmc(4, 0).await, a_power(4));
    let (power, address) = (&power, bmc.address);
    let run = |action| async move { state(power.execute(&order(action, address, PASSWORD)).await) };
    assert_eq!(run(PowerAction::Query).await, PowerState::Off);
    assert_eq!(run(PowerAction::On { pxe: true }).await, PowerState::On);
    let flags = bmc.bmc.lock().unwrap().take_boot();
    assert!(flags.valid && flags.efi && flags.device == wire_ipmi::command::BootDevice::Pxe);
    assert_eq!(run(PowerAction::Query).await, PowerState::On);
    assert_eq!(run(PowerAction::On { pxe: false }).await, PowerState::On);
    assert_eq!(run(PowerAction::Cycle { pxe: true }).await, PowerState::On);
    assert_eq!(run(PowerAction::Off).await, PowerState::Off);
    use ChassisControl::{PowerCycle, PowerDown, PowerUp};
    assert_eq!(*bmc.seen.lock().unwrap(), [PowerUp, PowerCycle, PowerDown]);
    let commands: Vec<String> = entries(&mut reports)
        .into_iter()
        .filter_map(|e| {
            if let What::Power {
                command,
                error: None,
                ..
            } = e.what
            {
                Some(command)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(commands, ["on", "on", "cycle", "off"]);
}

#[tokio::test]
async fn a_machine_that_does_not_obey_is_told_again_and_in_the_end_reported() {
    let (slow, dead, (power, _reports)) = (a_bmc(4, 2).await, a_bmc(4, 99).await, a_power(4));
    assert_eq!(
        state(
            power
                .execute(&order(
                    PowerAction::On { pxe: false },
                    slow.address,
                    PASSWORD
                ))
                .await
        ),
        PowerState::On
    );
    assert_eq!(slow.seen.lock().unwrap().len(), 3);
    let Outcome::PowerFault(fault) = power
        .execute(&order(
            PowerAction::On { pxe: false },
            dead.address,
            PASSWORD,
        ))
        .await
    else {
        panic!("it did not obey");
    };
    assert_eq!(fault.class, PowerFaultClass::Action);
    assert!(fault.message.contains("still off"), "{}", fault.message);
}

#[tokio::test]
async fn failures_are_told_apart_and_say_no_secret() {
    let (bmc, (power, mut reports)) = (a_bmc(4, 0).await, a_power(4));
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let cases = [
        (
            order(
                PowerAction::On { pxe: true },
                bmc.address,
                "not-the-password",
            ),
            PowerFaultClass::Auth,
        ),
        (
            order(PowerAction::Query, nobody, PASSWORD),
            PowerFaultClass::Connection,
        ),
        (
            order(PowerAction::Query, bmc.address, &"x".repeat(21)),
            PowerFaultClass::Settings,
        ),
        (
            PowerOrder {
                driver: "steam".into(),
                ..order(PowerAction::Query, bmc.address, PASSWORD)
            },
            PowerFaultClass::Settings,
        ),
    ];
    for (order, class) in cases {
        let Outcome::PowerFault(fault) = power.execute(&order).await else {
            panic!("{order:?}")
        };
        assert_eq!(fault.class, class, "{}", fault.message);
    }
    assert_eq!(bmc.bmc.lock().unwrap().power(), Chassis::Off);
    let noted = entries(&mut reports);
    assert_eq!(
        noted
            .iter()
            .filter(|e| matches!(e.what, What::Power { error: Some(_), .. }))
            .count(),
        4
    );
    let words = format!("{noted:?}");
    assert!(!words.contains("hunter2") && !words.contains("not-the-password"));
}

#[tokio::test]
async fn orders_for_one_bmc_never_overlap() {
    let (bmc, (power, _reports)) = (a_bmc(1, 0).await, a_power(64));
    let orders = (0..16).map(|i| {
        let action = if i % 2 == 0 {
            PowerAction::On { pxe: false }
        } else {
            PowerAction::Query
        };
        let (power, order) = (power.clone(), order(action, bmc.address, PASSWORD));
        async move { power.execute(&order).await }
    });
    for outcome in futures::future::join_all(orders).await {
        assert!(matches!(outcome, Outcome::Power { .. }), "{outcome:?}");
    }
    assert_eq!(*bmc.sessions_seen.lock().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_bmcs_are_asked_from_one_task_set() {
    let mut bmcs = Vec::new();
    for _ in 0..2_000 {
        bmcs.push(a_bmc(2, 0).await);
    }
    let (power, _reports) = a_power(256);
    let asked = bmcs.iter().map(|b| {
        let (power, order) = (
            power.clone(),
            order(PowerAction::Query, b.address, PASSWORD),
        );
        async move { power.execute(&order).await }
    });
    for outcome in futures::future::join_all(asked).await {
        assert_eq!(
            outcome,
            Outcome::Power {
                state: PowerState::Off
            }
        );
    }
    until("every session is closed", || {
        bmcs.iter()
            .all(|b| b.bmc.lock().unwrap().session_count() == 0)
    })
    .await;
}
