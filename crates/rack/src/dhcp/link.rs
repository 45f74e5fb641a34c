//! The sockets of one interface: what comes in, and how replies leave.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metal::MacAddr;
use tokio::sync::mpsc;
use wire_dhcp::raw::{self as frames, Envelope, UdpChecksum};
use wire_dhcp::{Dest, LinkId, Mac, Outgoing, Received, SERVER_PORT};

use super::journal::Transmit;
use crate::raw::{FRAME_MAX, OpenError, PacketSocket, UdpSocket, is_unicast};

/// Pause after an error of the kernel: an interface that is down reports one at once, again and again.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// A DHCP message as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The UDP payload.
    pub bytes: Vec<u8>,
    /// How it came.
    pub from: Received,
}

/// Packets that went no further, and why.
#[derive(Debug, Default)]
pub struct Counters {
    /// The engine was busy and its queue full.
    pub queue_full: AtomicU64,
    /// Not a UDP datagram in a whole frame, or with a wrong checksum.
    pub bad_frames: AtomicU64,
    /// Replies that the kernel did not take.
    pub send_failures: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The sockets of one interface.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    name: String,
    mac: MacAddr,
    /// Broadcasts in, frames out.
    packet: PacketSocket,
    /// Unicast in and out: relay agents and clients that have their address.
    udp: UdpSocket,
    counters: Arc<Counters>,
}

impl Link {
    /// Opens both sockets. From now on requests are received and replies can be sent.
    ///
    /// # Errors
    /// [`OpenError`], naming the privilege that is missing.
    pub fn open(
        index: u32,
        name: &str,
        mac: MacAddr,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT).into(), Some(name))?;
        let packet = PacketSocket::open(index, name, SERVER_PORT)?;
        Ok(Self {
            id: LinkId(index),
            name: name.to_owned(),
            mac,
            packet,
            udp,
            counters,
        })
    }

    /// Whether these are the sockets of that interface.
    #[must_use]
    pub fn is_for(&self, index: u32, name: &str, mac: MacAddr) -> bool {
        self.id == LinkId(index) && self.name == name && self.mac == mac
    }

    /// Hands on everything that comes in, until dropped. Cancel-safe: yes.
    pub async fn receive(&self, packets: mpsc::Sender<Packet>) {
        tokio::join!(
            self.receive_frames(&packets),
            self.receive_datagrams(&packets)
        );
    }

    async fn receive_frames(&self, packets: &mpsc::Sender<Packet>) {
        let mut buffer = vec![0; FRAME_MAX];
        loop {
            let frame = match self.packet.receive(&mut buffer).await {
                Ok(frame) => frame,
                Err(error) => {
                    self.pause(&error).await;
                    continue;
                }
            };
            let Ok(datagram) = frames::parse(&buffer[..frame.len]) else {
                count(&self.counters.bad_frames);
                continue;
            };
            if datagram.checksum == UdpChecksum::Invalid && !frame.checksum_pending {
                count(&self.counters.bad_frames);
                continue;
            }
            let (src, dst) = (*datagram.envelope.src.ip(), *datagram.envelope.dst.ip());
            // Unicast comes through the other socket as well, and is taken from there.
            if datagram.envelope.dst_mac == Mac(self.mac.0) && is_unicast(dst) {
                continue;
            }
            let from = Received {
                link: self.id,
                src,
                dst,
                src_mac: Some(datagram.envelope.src_mac),
            };
            self.hand_on(
                packets,
                Packet {
                    bytes: datagram.payload.to_vec(),
                    from,
                },
            );
        }
    }

    async fn receive_datagrams(&self, packets: &mpsc::Sender<Packet>) {
        let mut buffer = vec![0; FRAME_MAX];
        loop {
            let datagram = match self.udp.receive(&mut buffer).await {
                Ok(datagram) => datagram,
                Err(error) => {
                    self.pause(&error).await;
                    continue;
                }
            };
            // Broadcasts are the packet socket's, which also hears clients that the kernel would not.
            if let (IpAddr::V4(src), IpAddr::V4(dst)) = (datagram.from.ip(), datagram.to)
                && datagram.to == datagram.local
            {
                let from = Received {
                    link: self.id,
                    src,
                    dst,
                    src_mac: None,
                };
                self.hand_on(
                    packets,
                    Packet {
                        bytes: buffer[..datagram.len].to_vec(),
                        from,
                    },
                );
            }
        }
    }

    fn hand_on(&self, packets: &mpsc::Sender<Packet>, packet: Packet) {
        if packets.try_send(packet).is_err() {
            count(&self.counters.queue_full);
        }
    }

    async fn pause(&self, error: &io::Error) {
        tracing::debug!(interface = self.name, %error, "receiving DHCP messages");
        tokio::time::sleep(ERROR_PAUSE).await;
    }

    fn send(&self, out: &Outgoing) -> io::Result<()> {
        let dst_mac = match out.dest {
            Dest::Broadcast => Mac::BROADCAST,
            Dest::Hardware { mac, .. } => mac,
            Dest::Relay(_) | Dest::Client(_) => {
                let dest = SocketAddr::V4(out.dest.socket());
                return self
                    .udp
                    .send_from(&out.bytes, out.source.into(), self.id.0, dest);
            }
        };
        let envelope = Envelope {
            src_mac: Mac(self.mac.0),
            dst_mac,
            src: SocketAddrV4::new(out.source, SERVER_PORT),
            dst: out.dest.socket(),
        };
        let frame = frames::build(&envelope, &out.bytes).map_err(io::Error::other)?;
        self.packet.send(&frame)
    }
}

impl Transmit for Link {
    fn transmit(&self, out: &Outgoing) {
        if let Err(error) = self.send(out) {
            count(&self.counters.send_failures);
            tracing::debug!(interface = self.name, %error, dest = ?out.dest, "sending a DHCP reply");
        }
    }
}
