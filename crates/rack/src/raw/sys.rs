//! The system calls that neither `socket2` nor `rustix` has a safe face for. All `unsafe` of the rack is here.
#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

use metal::MacAddr;
use tokio::io::unix::AsyncFd;

/// Room for the control messages of one datagram: two `in6_pktinfo` and change.
const CONTROL_LEN: usize = 128;

/// Aligned room for control messages.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// What came with a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    /// Bytes of the datagram that were read.
    pub(super) len: usize,
    /// Sender; none where the socket's family is not IP.
    pub(super) from: Option<SocketAddr>,
    /// Destination in the IP header and our address that it came to, with `PKTINFO` on.
    pub(super) to: Option<(IpAddr, IpAddr)>,
    /// Interface it came in on, with `PKTINFO` on.
    pub(super) interface: Option<u32>,
    /// Hop limit, with `IPV6_RECVHOPLIMIT` on.
    pub(super) hop_limit: Option<u8>,
    /// The checksum was left to the card that never saw it (`PACKET_AUXDATA`).
    pub(super) checksum_pending: bool,
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives a socket to the runtime. Must be called within one.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and names the same descriptor until it is dropped, which only the
    // `AsyncFd` that now owns it does.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// Length of a plain C structure, for a system call.
#[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
const fn c_len<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}

fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` is a valid reference for the whole call and the length is that of its type; the
    // callers below pass the plain C type that the option expects.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            c_len::<T>(),
        )
    })
}

/// Has the kernel run `program` on everything that arrives.
pub(super) fn attach_filter(fd: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads the program; the pointer is mutable in C's type alone.
    let wanted = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &wanted)
}

/// Asks for `PACKET_AUXDATA`.
pub(super) fn want_auxdata(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)
}

/// Asks for `IP_PKTINFO` or `IPV6_RECVPKTINFO`.
pub(super) fn want_pktinfo(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    if v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &on)
    } else {
        set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, &on)
    }
}

/// Lets only this ICMPv6 type through to the socket.
pub(super) fn only_icmp6_type(fd: BorrowedFd<'_>, icmp_type: u8) -> io::Result<()> {
    /// `ICMPV6_FILTER` of `linux/icmpv6.h`.
    const ICMPV6_FILTER: libc::c_int = 1;
    // A set bit blocks (RFC 3542 §3.2).
    let mut filter = [u32::MAX; 8];
    filter[usize::from(icmp_type >> 5)] &= !(1 << (icmp_type & 31));
    set_option(fd, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &filter)
}

/// Binds a packet socket to one interface and protocol; from then on it receives.
pub(super) fn bind_packet(fd: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: an all-zero `sockaddr_ll` is valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to a `sockaddr_ll` of the given length, alive during the call.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            c_len::<libc::sockaddr_ll>(),
        )
    })
}

/// Receives one datagram without waiting, with what the kernel says about it.
pub(super) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Meta> {
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: an all-zero `sockaddr_storage` is valid.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: an all-zero `msghdr` is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = ptr::from_mut(&mut name).cast();
    message.msg_namelen = c_len::<libc::sockaddr_storage>();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    // SAFETY: every pointer in `message` is to memory of the stated length that outlives the call.
    let received = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut meta = Meta {
        len,
        from: address_of(&name),
        to: None,
        interface: None,
        hop_limit: None,
        checksum_pending: false,
    };
    // SAFETY: `message` was filled in by `recvmsg` and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return only headers that lie wholly in the buffer, which is
        // aligned for them.
        let head = unsafe { *header };
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: CMSG_LEN only computes.
        let empty = unsafe { libc::CMSG_LEN(0) } as usize;
        let data_len = (head.cmsg_len as usize).saturating_sub(empty);
        match (head.cmsg_level, head.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: `data` points to `data_len` bytes inside the control buffer.
                if let Some(info) = unsafe { read::<libc::in_pktinfo>(data, data_len) } {
                    meta.to = Some((v4(info.ipi_addr).into(), v4(info.ipi_spec_dst).into()));
                    meta.interface = u32::try_from(info.ipi_ifindex).ok();
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above.
                if let Some(info) = unsafe { read::<libc::in6_pktinfo>(data, data_len) } {
                    let to = IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                    meta.to = Some((to, to));
                    meta.interface = Some(info.ipi6_ifindex);
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: as above.
                let limit = unsafe { read::<libc::c_int>(data, data_len) };
                meta.hop_limit = limit.and_then(|limit| u8::try_from(limit).ok());
            }
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: as above.
                if let Some(aux) = unsafe { read::<libc::tpacket_auxdata>(data, data_len) } {
                    meta.checksum_pending = aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
                }
            }
            _ => {}
        }
        // SAFETY: `header` came from this message and both are alive.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(meta)
}

/// Reads a plain C structure from control data.
///
/// # Safety
/// `data` points to `len` readable bytes, and any bit pattern is a valid `T`.
unsafe fn read<T>(data: *const u8, len: usize) -> Option<T> {
    // SAFETY: the caller vouches for `len` bytes, and they are enough; no alignment is assumed.
    (len >= mem::size_of::<T>()).then(|| unsafe { ptr::read_unaligned(data.cast::<T>()) })
}

/// Sends a datagram from one of our addresses, without waiting. An interface other than 0 is the one that
/// it leaves by.
pub(super) fn send_from(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    source: IpAddr,
    interface: u32,
    dest: SocketAddr,
) -> io::Result<()> {
    let dest = socket2::SockAddr::from(dest);
    let mut control = Control([0; CONTROL_LEN]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: an all-zero `msghdr` is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = dest.as_ptr().cast_mut().cast();
    message.msg_namelen = dest.len();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    match source {
        IpAddr::V4(source) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(source.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(source) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: source.octets(),
                },
                ipi6_ifindex: interface,
            };
            put(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
    // SAFETY: every pointer in `message` is to memory of the stated length that outlives the call, and
    // sendmsg only reads it.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Writes the one control message of `message`, whose control buffer holds [`CONTROL_LEN`] bytes.
fn put<T>(message: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) {
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) = unsafe { (libc::CMSG_SPACE(c_len::<T>()), libc::CMSG_LEN(c_len::<T>())) };
    assert!(
        space as usize <= CONTROL_LEN,
        "the control buffer is large enough for one address"
    );
    message.msg_controllen = space as _;
    // SAFETY: the control buffer has `space` bytes, so there is a first header and room for its data; it is
    // aligned for the header, and the data is written without assuming alignment.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(ptr::from_ref(message));
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = len as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), value);
    }
}

fn v4(address: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage, large enough for each, holds.
            let a = unsafe { *ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some(SocketAddrV4::new(v4(a.sin_addr), u16::from_be(a.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let a = unsafe { *ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            Some(
                SocketAddrV6::new(
                    ip,
                    u16::from_be(a.sin6_port),
                    a.sin6_flowinfo,
                    a.sin6_scope_id,
                )
                .into(),
            )
        }
        _ => None,
    }
}

/// One line of what `getifaddrs` says.
#[derive(Clone, Debug)]
pub(super) struct InterfaceAddress {
    /// Kernel name.
    pub(super) name: String,
    /// `IFF_*`.
    pub(super) flags: u32,
    /// What is said.
    pub(super) what: Said,
}

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    /// Kernel index and, for Ethernet, hardware address.
    Link(u32, Option<MacAddr>),
    /// Address and its mask.
    Address(IpAddr, IpAddr),
}

/// Everything `getifaddrs` says of the network namespace that this thread is in.
pub(super) fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list = MaybeUninit::<*mut libc::ifaddrs>::uninit();
    // SAFETY: the pointer is to writable room for one pointer.
    check(unsafe { libc::getifaddrs(list.as_mut_ptr()) })?;
    // SAFETY: getifaddrs succeeded, so it has written the head of the list.
    let head = unsafe { list.assume_init() };
    let mut out = Vec::new();
    let mut next = head.cast_const();
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list, which is freed only below.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_name.is_null() {
            continue;
        }
        // SAFETY: `ifa_name` is a terminated string that lives as long as the list.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
        // SAFETY: `ifa_addr` was checked; every socket address begins with its family.
        let family = i32::from(unsafe { (*entry.ifa_addr).sa_family });
        let what = if family == libc::AF_PACKET {
            // SAFETY: the family says that this is a `sockaddr_ll`.
            let link = unsafe { ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_ll>()) };
            let [a, b, c, d, e, f, ..] = link.sll_addr;
            let ethernet = link.sll_hatype == libc::ARPHRD_ETHER && link.sll_halen == 6;
            let index = u32::try_from(link.sll_ifindex).unwrap_or(0);
            Said::Link(index, ethernet.then_some(MacAddr([a, b, c, d, e, f])))
        } else if let (Some(address), Some(mask)) =
            // SAFETY: both are null or valid for their family, and live as long as the list.
            unsafe {
                (
                    plain_address(entry.ifa_addr),
                    plain_address(entry.ifa_netmask),
                )
            }
        {
            Said::Address(address, mask)
        } else {
            continue;
        };
        out.push(InterfaceAddress {
            name: name.to_string_lossy().into_owned(),
            flags: entry.ifa_flags,
            what,
        });
    }
    // SAFETY: `head` came from getifaddrs and nothing refers to the list any more.
    unsafe { libc::freeifaddrs(head) };
    Ok(out)
}

/// The IP address in a socket address.
///
/// # Safety
/// `address` is null or points to a socket address of the length of its family.
unsafe fn plain_address(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null, so it has a family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is.
            let a = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            Some(v4(a.sin_addr).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let a = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(a.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
