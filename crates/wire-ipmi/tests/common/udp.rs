//! A small UDP loop around client and BMC, for tests over real sockets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use wire_ipmi::bmc::{Bmc, BmcAction, BmcConfig};
use wire_ipmi::client::{Action, Client, Config, Goal, Input, IpmiError, Outcome};
use wire_ipmi::packet::DATAGRAM_MAX;

/// One conversation with the BMC at `address`.
pub async fn call(address: SocketAddr, config: Config, goal: Goal) -> Result<Outcome, IpmiError> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    socket.connect(address).await.expect("an address");
    let mut client =
        Client::new(config, goal, rand::random()).expect("the test's configuration is sound");
    let mut actions = client.handle(Input::Start, Instant::now());
    let mut buffer = [0; DATAGRAM_MAX + 1];
    loop {
        for action in actions.drain(..) {
            match action {
                // A failure shows as silence, or as "unreachable" with the next receive.
                Action::Send(bytes) => drop(socket.send(&bytes).await),
                Action::SetTimer(at) => assert_eq!(Some(at), client.next_timeout()),
                Action::Done(result) => return result,
            }
        }
        let at = client
            .next_timeout()
            .expect("a client at work has a time limit");
        actions = tokio::select! {
            received = socket.recv(&mut buffer) => match received {
                Ok(length) => client.handle(Input::Packet(&buffer[..length]), Instant::now()),
                Err(_) => client.handle(Input::Unreachable, Instant::now()),
            },
            () = tokio::time::sleep_until(at.into()) => client.handle(Input::Timeout, Instant::now()),
        };
    }
}

/// A fake BMC on a socket; gone when dropped.
pub struct Server {
    pub address: SocketAddr,
    bmc: Arc<Mutex<Bmc>>,
    actions: Arc<Mutex<Vec<BmcAction>>>,
    task: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub async fn start(config: BmcConfig) -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let bmc = Arc::new(Mutex::new(Bmc::new(config, rand::random())));
        let actions = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(socket, bmc.clone(), actions.clone()));
        Server {
            address,
            bmc,
            actions,
            task,
        }
    }

    /// Looks at the BMC.
    pub fn with<T>(&self, look: impl FnOnce(&mut Bmc) -> T) -> T {
        look(&mut lock(&self.bmc))
    }

    /// What consoles asked for since the last call.
    pub fn take_actions(&self) -> Vec<BmcAction> {
        std::mem::take(&mut *lock(&self.actions))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, bmc: Arc<Mutex<Bmc>>, actions: Arc<Mutex<Vec<BmcAction>>>) {
    let mut buffer = [0; DATAGRAM_MAX + 1];
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let todo = lock(&bmc).handle(&buffer[..length], peer, Instant::now());
        for action in todo {
            match action {
                BmcAction::Send { to, bytes } => drop(socket.send_to(&bytes, to).await),
                other => lock(&actions).push(other),
            }
        }
    }
}
