//! The machines' end of the cable: raw frames for clients without an address, and leased addresses on the
//! interface. One socket for the whole fleet; frames find their machine by its hardware address.

mod netlink;
mod sys;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use metal::MacAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire_dhcp::Mac;
use wire_dhcp::raw::{self, Envelope};

use crate::dhcp::{self, CLIENT_PORT, Reply, SERVER_PORT};

/// Largest frame that is read.
const FRAME_MAX: usize = 2_048;
/// Answers that may wait for one machine.
const QUEUE: usize = 8;
/// Receive buffer: hundreds of answers at once.
const RECEIVE_BUFFER: usize = 4 << 20;
const ETHERTYPE_IPV4: u16 = 0x0800;

/// The cable.
pub(crate) struct Wire {
    fd: AsyncFd<OwnedFd>,
    interface: u32,
    clients: Mutex<HashMap<MacAddr, mpsc::Sender<(Reply, Mac)>>>,
    netlink: Mutex<Socket>,
    /// Held so that unicast answers to renewals meet an open port.
    _sink: Option<UdpSocket>,
}

/// Passes only UDP over IPv4 to the client's port: machines' other traffic crosses the same interface.
fn filter() -> [SockFilter; 11] {
    // Loads: half word 0x28, byte 0x30, IP header length 0xb1, half word behind it 0x48. Jumps: equal 0x15, set 0x45. Return 0x06.
    [
        SockFilter::new(0x28, 0, 0, 12),
        SockFilter::new(0x15, 0, 7, 0x0800),
        SockFilter::new(0x30, 0, 0, 23),
        SockFilter::new(0x15, 0, 5, 17),
        SockFilter::new(0x28, 0, 0, 20),
        SockFilter::new(0x45, 3, 0, 0x1fff),
        SockFilter::new(0xb1, 0, 0, 14),
        SockFilter::new(0x48, 0, 0, 16),
        SockFilter::new(0x15, 1, 0, 68),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, FRAME_MAX as u32),
    ]
}

impl Wire {
    /// Opens the interface of that name in the namespace of the calling thread.
    pub(crate) fn open(name: &str) -> io::Result<Arc<Self>> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        // A smaller buffer loses answers in a rush; clients ask again.
        socket.set_recv_buffer_size(RECEIVE_BUFFER).ok();
        let interface = rustix::net::netdevice::name_to_index(socket.as_fd(), name)?;
        socket.attach_filter(&filter())?;
        sys::bind_packet(socket.as_fd(), interface, ETHERTYPE_IPV4)?;
        // Answers go to the machines' addresses, not to the interface's own.
        sys::promiscuous(socket.as_fd(), interface)?;
        let sink = std::net::UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT))
            .and_then(|s| s.set_nonblocking(true).map(|()| s))
            .and_then(UdpSocket::from_std)
            .ok();
        Ok(Arc::new(Self {
            fd: sys::register(socket.into())?,
            interface,
            clients: Mutex::default(),
            netlink: Mutex::new(netlink::open()?),
            _sink: sink,
        }))
    }

    /// Hands arriving answers to their machines until cancelled.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let mut frame = vec![0; FRAME_MAX];
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => return,
                r = self.fd.async_io(Interest::READABLE, |fd| rustix::io::read(fd, &mut frame[..]).map_err(Into::into)) => r,
            };
            match received {
                Ok(n) => self.arrived(&frame[..n]),
                Err(error) => {
                    tracing::warn!(%error, "the fleet's interface cannot be read");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn arrived(&self, frame: &[u8]) {
        // Checksums are not looked at: on virtual cables they are left to cards that do not exist.
        let Ok(datagram) = raw::parse(frame) else {
            return;
        };
        let Some(reply) = dhcp::read(datagram.payload) else {
            return;
        };
        let from = datagram.envelope.src_mac;
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&reply.mac) {
            // A machine that does not read any more has had its answers.
            client.try_send((reply, from)).ok();
        }
    }

    /// The answers for one hardware address from now on.
    pub(crate) fn listen(self: &Arc<Self>, mac: MacAddr) -> Ear {
        let (to, replies) = mpsc::channel(QUEUE);
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(mac, to.clone());
        Ear {
            wire: Arc::clone(self),
            mac,
            replies,
            to,
        }
    }

    /// Broadcasts a client's message from nowhere.
    pub(crate) async fn broadcast(&self, mac: MacAddr, payload: &[u8]) -> io::Result<()> {
        let envelope = Envelope {
            src_mac: Mac(mac.0),
            dst_mac: Mac::BROADCAST,
            src: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
            dst: SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT),
        };
        self.send(&envelope, payload).await
    }

    /// Sends a client's message from its address to a server whose card is known.
    pub(crate) async fn unicast(
        &self,
        mac: MacAddr,
        from: Ipv4Addr,
        server: (Ipv4Addr, Mac),
        payload: &[u8],
    ) -> io::Result<()> {
        let envelope = Envelope {
            src_mac: Mac(mac.0),
            dst_mac: server.1,
            src: SocketAddrV4::new(from, CLIENT_PORT),
            dst: SocketAddrV4::new(server.0, SERVER_PORT),
        };
        self.send(&envelope, payload).await
    }

    async fn send(&self, envelope: &Envelope, payload: &[u8]) -> io::Result<()> {
        let frame = raw::build(envelope, payload).map_err(io::Error::other)?;
        self.fd
            .async_io(Interest::WRITABLE, |fd| {
                rustix::io::write(fd, &frame).map_err(Into::into)
            })
            .await?;
        Ok(())
    }

    /// Puts a leased address on the interface, until the guard is dropped.
    pub(crate) fn hold(self: &Arc<Self>, address: Ipv4Addr) -> io::Result<HeldAddress> {
        self.change(netlink::Change::Add, address)?;
        Ok(HeldAddress {
            wire: Arc::clone(self),
            address,
        })
    }

    fn change(&self, change: netlink::Change, address: Ipv4Addr) -> io::Result<()> {
        let socket = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        netlink::change(&socket, change, self.interface, address)
    }
}

/// Where one machine's answers arrive.
pub(crate) struct Ear {
    wire: Arc<Wire>,
    mac: MacAddr,
    replies: mpsc::Receiver<(Reply, Mac)>,
    /// The other end, to know it by.
    to: mpsc::Sender<(Reply, Mac)>,
}

impl Ear {
    /// The next answer, and the card it came from. Cancel-safe: yes.
    pub(crate) async fn next(&mut self) -> Option<(Reply, Mac)> {
        self.replies.recv().await
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut clients = self
            .wire
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A later ear of the same machine stays.
        if clients
            .get(&self.mac)
            .is_some_and(|c| c.same_channel(&self.to))
        {
            clients.remove(&self.mac);
        }
    }
}

/// A leased address on the interface.
pub(crate) struct HeldAddress {
    wire: Arc<Wire>,
    address: Ipv4Addr,
}

impl Drop for HeldAddress {
    fn drop(&mut self) {
        if let Err(error) = self.wire.change(netlink::Change::Remove, self.address) {
            tracing::debug!(%error, address = %self.address, "an address could not be taken off the interface");
        }
    }
}
