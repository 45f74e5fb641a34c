//! A network between one client and one BMC, in virtual time: nothing here sleeps or opens a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wire_ipmi::Suite;
use wire_ipmi::bmc::{Bmc, BmcAction, BmcConfig, PerMessageAuth, User};
use wire_ipmi::client::{
    Action, BootOnce, BootType, Client, Config, Driver, Goal, Input, IpmiError, Login, Outcome,
    SuiteChoice,
};
use wire_ipmi::command::{BootDevice, BootFlags, ChassisControl, Privilege};
use wire_ipmi::packet::AuthType;

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    ToBmc,
    ToClient,
}

/// Deliveries after which a conversation counts as endless.
const EVENTS_MAX: usize = 20_000;
/// One-way delay.
pub const DELAY: Duration = Duration::from_millis(5);

/// What the network does with a datagram: when copies of what arrive.
pub type Fate = Box<dyn FnMut(Way, Vec<u8>) -> Vec<(Duration, Vec<u8>)>>;

pub struct World {
    pub client: Client,
    pub bmc: Bmc,
    pub peer: SocketAddr,
    pub start: Instant,
    pub now: Instant,
    /// When the client was done.
    pub ended: Instant,
    pub fate: Fate,
    pub switched: Vec<ChassisControl>,
    pub boots: Vec<BootFlags>,
    /// Every datagram that was sent, whatever became of it.
    pub sent: Vec<(Way, Vec<u8>)>,
    queue: BTreeMap<(Instant, usize), (Way, Vec<u8>)>,
    serial: usize,
}

pub fn user(name: &str, password: &str, privilege: Privilege) -> User {
    User {
        name: name.into(),
        password: password.into(),
        privilege,
    }
}

/// A BMC with the users that the tests talk about.
pub fn bmc_config() -> BmcConfig {
    BmcConfig {
        guid: *b"0123456789abcdef",
        users: vec![
            user("admin", "secret", Privilege::Admin),
            user("oper", "switch", Privilege::Operator),
            user("guest", "look", Privilege::User),
        ],
        ..BmcConfig::default()
    }
}

pub fn config() -> Config {
    Config {
        user: b"admin".to_vec(),
        password: "secret".into(),
        ..Config::default()
    }
}

impl World {
    pub fn new(config: Config, goal: Goal, bmc: BmcConfig) -> World {
        let client = Client::new(config, goal, [7; 32]).expect("the test's configuration is sound");
        World::with(client, Bmc::new(bmc, [8; 32]))
    }

    pub fn with(client: Client, bmc: Bmc) -> World {
        let now = Instant::now();
        World {
            client,
            bmc,
            peer: "192.0.2.1:40000".parse().expect("an address"),
            start: now,
            now,
            ended: now,
            fate: Box::new(|_, bytes| vec![(DELAY, bytes)]),
            switched: Vec::new(),
            boots: Vec::new(),
            sent: Vec::new(),
            queue: BTreeMap::new(),
            serial: 0,
        }
    }

    fn post(&mut self, way: Way, bytes: Vec<u8>) {
        self.sent.push((way, bytes.clone()));
        for (delay, bytes) in (self.fate)(way, bytes) {
            self.serial += 1;
            self.queue
                .insert((self.now + delay, self.serial), (way, bytes));
        }
    }

    fn act(&mut self, actions: Vec<Action>) -> Option<Result<Outcome, IpmiError>> {
        let mut result = None;
        for action in actions {
            assert!(result.is_none(), "an action after the last");
            match action {
                Action::Send(bytes) => self.post(Way::ToBmc, bytes),
                Action::SetTimer(at) => assert_eq!(self.client.next_timeout(), Some(at)),
                Action::Done(done) => result = Some(done),
            }
        }
        result
    }

    /// Runs the conversation to its end.
    pub fn run(&mut self) -> Result<Outcome, IpmiError> {
        let first = self.client.handle(Input::Start, self.now);
        if let Some(result) = self.act(first) {
            return result;
        }
        for _ in 0..EVENTS_MAX {
            let timeout = self
                .client
                .next_timeout()
                .expect("a client at work has a time limit");
            let actions = match self.queue.first_key_value() {
                Some((&(at, serial), _)) if at <= timeout => {
                    let (way, bytes) = self.queue.remove(&(at, serial)).expect("just seen");
                    self.now = self.now.max(at);
                    match way {
                        Way::ToBmc => {
                            self.deliver(&bytes);
                            continue;
                        }
                        Way::ToClient => self.client.handle(Input::Packet(&bytes), self.now),
                    }
                }
                _ => {
                    self.now = self.now.max(timeout);
                    self.client.handle(Input::Timeout, self.now)
                }
            };
            if let Some(result) = self.act(actions) {
                assert!(self.client.is_done());
                self.ended = self.now;
                self.drain();
                return result;
            }
        }
        panic!("the conversation does not end");
    }

    fn deliver(&mut self, bytes: &[u8]) {
        for action in self.bmc.handle(bytes, self.peer, self.now) {
            match action {
                BmcAction::Send { to, bytes } => {
                    assert_eq!(to, self.peer);
                    self.post(Way::ToClient, bytes);
                }
                BmcAction::Chassis(control) => self.switched.push(control),
                BmcAction::BootDevice(flags) => self.boots.push(flags),
            }
        }
    }

    /// Lets what is under way to the BMC arrive.
    fn drain(&mut self) {
        while let Some(((at, _), (way, bytes))) = self.queue.pop_first() {
            self.now = self.now.max(at);
            if way == Way::ToBmc {
                self.deliver(&bytes);
            }
        }
    }
}

pub fn v15(auth: AuthType) -> (Config, BmcConfig) {
    let config = Config {
        driver: Driver::Lan,
        ..config()
    };
    (
        config,
        BmcConfig {
            auth_types: vec![auth],
            ..bmc_config()
        },
    )
}

/// Another conversation with the same BMC.
pub fn again(world: World, config: Config, goal: Goal, seed: u8) -> World {
    let client = Client::new(config, goal, [seed; 32]).expect("the test's configuration is sound");
    let now = world.now;
    let mut next = World::with(client, world.bmc);
    (next.now, next.start) = (now, now);
    next
}

/// One configuration per kind of session.
pub fn kinds() -> Vec<(Login, Config, BmcConfig)> {
    let mut kinds = Vec::new();
    for suite in Suite::ALL {
        let config = Config {
            suites: SuiteChoice::Only(suite),
            ..config()
        };
        kinds.push((
            Login::V20 { suite },
            config,
            BmcConfig {
                suites: vec![suite],
                ..bmc_config()
            },
        ));
    }
    for auth in [AuthType::Md5, AuthType::Straight, AuthType::None] {
        for per_message_auth in [PerMessageAuth::On, PerMessageAuth::Off] {
            let (config, bmc) = v15(auth);
            kinds.push((
                Login::V15 { auth },
                config,
                BmcConfig {
                    per_message_auth,
                    ..bmc
                },
            ));
        }
    }
    kinds
}

pub const PXE_EFI: BootOnce = BootOnce {
    device: BootDevice::Pxe,
    boot_type: BootType::Efi,
};
