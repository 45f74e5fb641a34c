//! Sockets below UDP: raw Ethernet frames for clients without an address, raw ICMPv6, and UDP sockets that
//! know which of our addresses a datagram came to.
//!
//! The only module of the rack with `unsafe` code, all of it in `sys`.

mod sys;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, OwnedFd};

use ipnet::IpNet;
use metal::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes of a frame or datagram that are looked at. DHCP and router solicitations are far smaller; jumbo
/// frames are cut.
pub const FRAME_MAX: usize = 2_048;
/// Receive buffer of packet sockets in bytes: some thousand clients that start at once.
const RECEIVE_BUFFER: usize = 4 << 20;
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Router solicitation (RFC 4861 §4.1).
const ICMP6_ROUTER_SOLICITATION: u8 = 133;
/// All routers of the link (RFC 4291 §2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What neighbour discovery is sent and accepted with: it has crossed no router (RFC 4861 §6.1).
const HOPS_ON_LINK: u8 = 255;

/// A privilege that a socket needs, by its name on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// `CAP_NET_RAW`: raw frames and raw ICMP.
    NetRaw,
    /// `CAP_NET_BIND_SERVICE`: ports below 1024.
    NetBindService,
}

impl Privilege {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetRaw => "CAP_NET_RAW",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
        }
    }
}

impl std::fmt::Display for Privilege {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The program may not do that.
    #[error("{what} needs root or the privilege {privilege}")]
    Privilege {
        /// Which socket.
        what: String,
        /// What is missing.
        privilege: Privilege,
    },
    /// Another program has the port.
    #[error("{what} is taken by another program on this host")]
    InUse {
        /// Which socket.
        what: String,
    },
    /// Anything else.
    #[error("{what} cannot be opened")]
    Failed {
        /// Which socket.
        what: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl OpenError {
    fn new(what: String, privilege: Privilege, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::PermissionDenied => Self::Privilege { what, privilege },
            io::ErrorKind::AddrInUse => Self::InUse { what },
            _ => Self::Failed { what, cause },
        }
    }

    /// The sentence with its cause, for a service's state.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Failed { cause, .. } => format!("{self}: {cause}"),
            Self::Privilege { .. } | Self::InUse { .. } => self.to_string(),
        }
    }

    /// Whether trying again cannot help until someone acts.
    #[must_use]
    pub const fn is_privilege(&self) -> bool {
        matches!(self, Self::Privilege { .. })
    }
}

/// An interface as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInterface {
    /// Kernel index, unique while the interface exists.
    pub index: u32,
    /// Kernel name.
    pub name: String,
    /// Ethernet address; none for other kinds.
    pub mac: Option<MacAddr>,
    /// Addresses with the prefix lengths of their networks.
    pub addresses: Vec<IpNet>,
    /// Switched on (`IFF_UP`).
    pub up: bool,
    /// The loopback interface.
    pub loopback: bool,
}

/// The interfaces of the network namespace that the calling thread is in, by index.
///
/// # Errors
/// When the kernel does not answer.
pub fn interfaces() -> io::Result<Vec<KernelInterface>> {
    let mut out: Vec<KernelInterface> = Vec::new();
    let lines = sys::interface_addresses()?;
    // The kernel lists the links first; addresses are matched by name.
    for line in &lines {
        if let sys::Said::Link(index, mac) = line.what {
            out.push(KernelInterface {
                index,
                name: line.name.clone(),
                mac,
                addresses: Vec::new(),
                up: line.flags & libc::IFF_UP as u32 != 0,
                loopback: line.flags & libc::IFF_LOOPBACK as u32 != 0,
            });
        }
    }
    for line in &lines {
        let sys::Said::Address(address, mask) = line.what else {
            continue;
        };
        // An alias address is labelled `eth0:1`.
        let name = line.name.split(':').next().unwrap_or(&line.name);
        let Some(interface) = out.iter_mut().find(|i| i.name == name) else {
            continue;
        };
        if let Ok(net) = IpNet::with_netmask(address, mask) {
            interface.addresses.push(net);
        }
    }
    out.sort_by_key(|i| i.index);
    Ok(out)
}

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the instruction codes are below 256"
    )]
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF_AT_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const X_IP_HEADER_LEN: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE` of `linux/filter.h`: who the frame is for.
const PACKET_TYPE: u32 = 0xffff_f004;

/// Whole UDP datagrams over IPv4 to `port`, for this host or for all. Frames for others (a port in
/// promiscuous mode, a VLAN that has no interface here) and our own are left out.
#[must_use]
fn udp_to_port(port: u16) -> [libc::sock_filter; 12] {
    [
        step(LOAD_WORD, 0, 0, PACKET_TYPE),
        // PACKET_HOST 0, PACKET_BROADCAST 1, PACKET_MULTICAST 2; PACKET_OTHERHOST 3 and up are not for us.
        step(IF_GREATER, 9, 0, 2),
        step(LOAD_HALF, 0, 0, 12),
        step(IF_EQUAL, 0, 7, ETHERTYPE_IPV4 as u32),
        step(LOAD_BYTE, 0, 0, 23),
        step(IF_EQUAL, 0, 5, 17),
        // More fragments, or an offset.
        step(LOAD_HALF, 0, 0, 20),
        step(IF_ANY_BIT, 3, 0, 0x3fff),
        step(X_IP_HEADER_LEN, 0, 0, 14),
        step(LOAD_HALF_AT_X, 0, 0, 16),
        // To the last but one or the last.
        step(IF_EQUAL, 1, 0, port as u32),
        step(RETURN, 0, 0, 0),
    ]
}

/// A packet socket on one Ethernet interface that receives UDP datagrams to one port, and sends frames.
#[derive(Debug)]
pub struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
}

/// A frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes in the buffer.
    pub len: usize,
    /// The sender's kernel left the UDP checksum to a card that never saw it (veth, bridges, virtio).
    pub checksum_pending: bool,
}

impl PacketSocket {
    /// Opens the socket. Receives nothing from before, and nothing of other interfaces.
    ///
    /// # Errors
    /// [`OpenError`]; without `CAP_NET_RAW` its variant `Privilege`.
    pub fn open(interface: u32, name: &str, port: u16) -> Result<Self, OpenError> {
        let open = || -> io::Result<Self> {
            // Protocol 0: nothing arrives before the filter is in place and the socket is bound.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            let mut filter = Vec::from(udp_to_port(port));
            filter.push(step(RETURN, 0, 0, FRAME_MAX as u32));
            sys::attach_filter(socket.as_fd(), &filter)?;
            sys::want_auxdata(socket.as_fd())?;
            // Best effort: the system may allow less.
            socket.set_recv_buffer_size(RECEIVE_BUFFER).ok();
            sys::bind_packet(socket.as_fd(), interface, ETHERTYPE_IPV4)?;
            Ok(Self {
                fd: sys::register(socket.into())?,
            })
        };
        open().map_err(|cause| {
            OpenError::new(
                format!("receiving raw frames on {name}"),
                Privilege::NetRaw,
                cause,
            )
        })
    }

    /// Receives a frame. Cancel-safe: yes.
    ///
    /// # Errors
    /// From the kernel; `ENETDOWN` once when the interface goes down.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Frame> {
        let meta = self
            .fd
            .async_io(Interest::READABLE, |fd| sys::receive(fd.as_fd(), buffer))
            .await?;
        Ok(Frame {
            len: meta.len,
            checksum_pending: meta.checksum_pending,
        })
    }

    /// Sends a frame, or drops it where the kernel's queue is full.
    ///
    /// # Errors
    /// From the kernel.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(self.fd.get_ref(), frame, rustix::net::SendFlags::DONTWAIT)?;
        Ok(())
    }
}

/// A UDP socket that knows which of our addresses each datagram came to.
#[derive(Debug)]
pub struct UdpSocket {
    fd: AsyncFd<OwnedFd>,
}

/// How a datagram came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes in the buffer.
    pub len: usize,
    /// Sender.
    pub from: SocketAddr,
    /// Destination in the IP header: an address of ours, or a broadcast or multicast address.
    pub to: IpAddr,
    /// Our address that it came to; equal to `to` for unicast.
    pub local: IpAddr,
    /// Interface it came in on.
    pub interface: u32,
}

impl UdpSocket {
    /// Binds to an address, on one interface when `device` names it. The address may be shared with a
    /// socket on another interface.
    ///
    /// # Errors
    /// [`OpenError`]; for a port below 1024 without the privilege its variant `Privilege`.
    pub fn bind(address: SocketAddr, device: Option<&str>) -> Result<Self, OpenError> {
        let open = || -> io::Result<Self> {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            socket.set_nonblocking(true)?;
            if let Some(device) = device {
                socket.set_reuse_address(true)?;
                socket.set_broadcast(true)?;
                socket.bind_device(Some(device.as_bytes()))?;
            }
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            sys::want_pktinfo(socket.as_fd(), address.is_ipv6())?;
            socket.bind(&address.into())?;
            Ok(Self {
                fd: sys::register(socket.into())?,
            })
        };
        let place = device.map_or_else(String::new, |device| format!(" on {device}"));
        open().map_err(|cause| {
            OpenError::new(
                format!("UDP port {}{place}", address.port()),
                Privilege::NetBindService,
                cause,
            )
        })
    }

    /// Receives a datagram. Cancel-safe: yes.
    ///
    /// # Errors
    /// From the kernel; among them errors of datagrams sent before.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        let meta = self
            .fd
            .async_io(Interest::READABLE, |fd| sys::receive(fd.as_fd(), buffer))
            .await?;
        match (meta.from, meta.to, meta.interface) {
            (Some(from), Some((to, local)), Some(interface)) => Ok(Datagram {
                len: meta.len,
                from,
                to,
                local,
                interface,
            }),
            _ => Err(io::Error::other(
                "the kernel did not say where a datagram came in",
            )),
        }
    }

    /// Sends a datagram from our address `source` through `interface` (0: as the routes say), or drops it
    /// where the kernel's queue is full.
    ///
    /// # Errors
    /// From the kernel.
    pub fn send_from(
        &self,
        bytes: &[u8],
        source: IpAddr,
        interface: u32,
        dest: SocketAddr,
    ) -> io::Result<()> {
        sys::send_from(self.fd.get_ref().as_fd(), bytes, source, interface, dest)
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// From the kernel.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getsockname(self.fd.get_ref())?;
        SocketAddr::try_from(address).map_err(Into::into)
    }
}

/// A raw ICMPv6 socket for router discovery on one interface: receives solicitations, sends advertisements.
#[derive(Debug)]
pub struct RouterSocket {
    fd: AsyncFd<OwnedFd>,
    interface: u32,
}

impl RouterSocket {
    /// Opens the socket and joins the group of all routers.
    ///
    /// # Errors
    /// [`OpenError`]; without `CAP_NET_RAW` its variant `Privilege`.
    pub fn open(interface: u32, name: &str) -> Result<Self, OpenError> {
        let open = || -> io::Result<Self> {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            socket.set_nonblocking(true)?;
            sys::only_icmp6_type(socket.as_fd(), ICMP6_ROUTER_SOLICITATION)?;
            socket.bind_device(Some(name.as_bytes()))?;
            socket.set_recv_hoplimit_v6(true)?;
            socket.set_multicast_hops_v6(u32::from(HOPS_ON_LINK))?;
            socket.set_unicast_hops_v6(u32::from(HOPS_ON_LINK))?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_if_v6(interface)?;
            socket.join_multicast_v6(&ALL_ROUTERS, interface)?;
            Ok(Self {
                fd: sys::register(socket.into())?,
                interface,
            })
        };
        open().map_err(|cause| {
            OpenError::new(
                format!("sending router advertisements on {name}"),
                Privilege::NetRaw,
                cause,
            )
        })
    }

    /// Waits for a solicitation that comes from this link. Cancel-safe: yes.
    ///
    /// # Errors
    /// From the kernel.
    pub async fn solicitation(&self) -> io::Result<Ipv6Addr> {
        let mut buffer = [0; FRAME_MAX];
        loop {
            let meta = self
                .fd
                .async_io(Interest::READABLE, |fd| {
                    sys::receive(fd.as_fd(), &mut buffer)
                })
                .await?;
            let solicits =
                meta.len >= 8 && buffer[0] == ICMP6_ROUTER_SOLICITATION && buffer[1] == 0;
            if let (true, Some(HOPS_ON_LINK), Some(SocketAddr::V6(from))) =
                (solicits, meta.hop_limit, meta.from)
            {
                return Ok(*from.ip());
            }
        }
    }

    /// Sends an ICMPv6 message (its checksum is the kernel's) from our link-local address.
    ///
    /// # Errors
    /// From the kernel.
    pub fn send(&self, message: &[u8], source: Ipv6Addr, dest: Ipv6Addr) -> io::Result<()> {
        let dest = SocketAddr::V6(SocketAddrV6::new(dest, 0, 0, self.interface));
        sys::send_from(
            self.fd.get_ref().as_fd(),
            message,
            source.into(),
            self.interface,
            dest,
        )
    }
}

/// Tells when the kernel's interfaces or their addresses have changed.
#[derive(Debug)]
pub struct ChangeSocket {
    fd: AsyncFd<OwnedFd>,
}

impl ChangeSocket {
    /// Opens the socket. Needs no privilege.
    ///
    /// # Errors
    /// From the kernel.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        socket.set_nonblocking(true)?;
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let groups = u32::try_from(groups).map_err(|_| io::ErrorKind::InvalidInput)?;
        rustix::net::bind(
            &socket,
            &rustix::net::netlink::SocketAddrNetlink::new(0, groups),
        )?;
        Ok(Self {
            fd: sys::register(socket.into())?,
        })
    }

    /// Waits for a change; the messages themselves are thrown away. Cancel-safe: yes.
    ///
    /// # Errors
    /// From the kernel; `ENOBUFS` means that changes were missed, which is a change too.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; FRAME_MAX];
        let read = |fd: &OwnedFd| sys::receive(fd.as_fd(), &mut buffer).map(|_| ());
        self.fd.async_io(Interest::READABLE, read).await
    }
}

/// A UDP socket for one transfer: bound to our address with a port of the kernel's choice, connected to the
/// client, so that datagrams from elsewhere do not reach it.
///
/// # Errors
/// From the kernel.
pub fn transfer_socket(local: IpAddr, peer: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let local = match (local, peer) {
        // A link-local address means nothing without its interface.
        (IpAddr::V6(ip), SocketAddr::V6(peer)) => {
            SocketAddrV6::new(ip, 0, 0, peer.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, 0),
    };
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    socket.connect(&peer.into())?;
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Whether an address can be the destination of a datagram for one host.
#[must_use]
pub fn is_unicast(address: Ipv4Addr) -> bool {
    !address.is_broadcast() && !address.is_multicast() && !address.is_unspecified()
}
