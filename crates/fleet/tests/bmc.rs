//! The machines' BMCs, asked by this product's own IPMI client.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fleet::{BmcFault, Fleet, FleetConfig, Network, Phase};
use support::{LIMIT, Role, World};
use tokio::net::UdpSocket;
use wire_ipmi::client::{
    Action, BootOnce, BootType, Client, Config, Goal, Input, IpmiError, OffMode, Outcome, Timing,
};
use wire_ipmi::command::{BootDevice, Power};

async fn call(address: SocketAddr, password: &str, goal: Goal) -> Result<Outcome, IpmiError> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    let timing = Timing {
        first: Duration::from_millis(100),
        ceiling: Duration::from_millis(200),
        tries: 3,
        total: Duration::from_secs(10),
    };
    let config = Config {
        user: b"maas".to_vec(),
        password: password.into(),
        timing,
        ..Config::default()
    };
    let mut client = Client::new(config, goal, rand::random()).unwrap();
    let mut actions = client.handle(Input::Start, Instant::now());
    let mut buffer = [0; 2048];
    loop {
        for action in actions.drain(..) {
            match action {
                Action::Send(bytes) => drop(socket.send(&bytes).await),
                Action::SetTimer(_) => {}
                Action::Done(result) => return result,
            }
        }
        let at = client
            .next_timeout()
            .expect("a client at work has a time limit");
        actions = tokio::select! {
            received = socket.recv(&mut buffer) => match received {
                Ok(n) => client.handle(Input::Packet(&buffer[..n]), Instant::now()),
                Err(_) => client.handle(Input::Unreachable, Instant::now()),
            },
            () = tokio::time::sleep_until(at.into()) => client.handle(Input::Timeout, Instant::now()),
        };
    }
}

async fn a_fleet(world: &World) -> Fleet {
    Fleet::start(FleetConfig::new(2, Network::loopback(world.address)))
        .await
        .unwrap()
}

async fn power(fleet: &Fleet) -> Power {
    let outcome = call(fleet.bmc(0).address(), "simulated", Goal::Status)
        .await
        .unwrap();
    outcome.status.expect("a question about power").power
}

const PXE: Option<BootOnce> = Some(BootOnce {
    device: BootDevice::Pxe,
    boot_type: BootType::Auto,
});

#[tokio::test]
async fn power_commands_drive_the_machine() {
    let world = World::start(Role::Deploying).await;
    let fleet = a_fleet(&world).await;
    let address = fleet.bmc(0).address();
    assert_eq!(power(&fleet).await, Power::Off);
    call(address, "simulated", Goal::On { boot: PXE })
        .await
        .unwrap();
    let state = fleet.wait_phase(0, Phase::Running, LIMIT).await.unwrap();
    assert_eq!((state.boots, power(&fleet).await), (2, Power::On));
    // On again changes nothing; a cycle is a new boot.
    call(address, "simulated", Goal::On { boot: None })
        .await
        .unwrap();
    call(address, "simulated", Goal::Cycle { boot: None })
        .await
        .unwrap();
    fleet
        .wait(0, LIMIT, |s| s.phase == Phase::Running && s.boots == 3)
        .await
        .unwrap();
    // Asked to shut down, the running system does.
    call(
        address,
        "simulated",
        Goal::Off {
            mode: OffMode::Soft,
        },
    )
    .await
    .unwrap();
    fleet.wait_phase(0, Phase::Off, LIMIT).await.unwrap();
    assert_eq!(power(&fleet).await, Power::Off);
    assert_eq!(fleet.state(1).boots, 0, "the other machine was not asked");
}

#[tokio::test]
async fn a_bmc_with_a_fault_behaves_so_and_heals() {
    let world = World::start(Role::Commissioning).await;
    let fleet = a_fleet(&world).await;
    let address = fleet.bmc(0).address();
    fleet.inject_bmc(0, BmcFault::OtherPassword);
    let error = call(address, "simulated", Goal::Status).await.unwrap_err();
    assert!(
        matches!(error, IpmiError::WrongPassword { .. }),
        "{error:?}"
    );
    fleet.inject_bmc(0, BmcFault::Silent);
    let error = call(address, "simulated", Goal::Status).await.unwrap_err();
    assert!(
        matches!(
            error,
            IpmiError::NoAnswer { .. } | IpmiError::OutOfTime { .. }
        ),
        "{error:?}"
    );
    fleet.inject_bmc(0, BmcFault::Slow(Duration::from_millis(20)));
    assert_eq!(power(&fleet).await, Power::Off);
    fleet.heal(0);
    assert_eq!(power(&fleet).await, Power::Off);
}
