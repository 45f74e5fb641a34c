//! The system calls that neither `socket2` nor `rustix` has a safe face for. All `unsafe` of the crate is here.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr;

use tokio::io::unix::AsyncFd;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn index(interface: u32) -> io::Result<i32> {
    i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Gives a socket to the runtime. Must be called within one.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and names the same descriptor until it is dropped, which only the
    // `AsyncFd` that now owns it does.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// Binds a packet socket to one interface and protocol; from then on it receives.
pub(super) fn bind_packet(fd: BorrowedFd<'_>, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: an all-zero `sockaddr_ll` is valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index(interface)?;
    let length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a `sockaddr_ll` of the given length, alive during the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), length) })
}

/// Has the interface take frames for other hardware addresses, while the socket is open.
pub(super) fn promiscuous(fd: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    // SAFETY: an all-zero `packet_mreq` is valid.
    let mut wanted: libc::packet_mreq = unsafe { mem::zeroed() };
    wanted.mr_ifindex = index(interface)?;
    wanted.mr_type = libc::PACKET_MR_PROMISC as u16;
    let length = mem::size_of::<libc::packet_mreq>() as libc::socklen_t;
    let value = ptr::from_ref(&wanted).cast();
    // SAFETY: the pointer is to a `packet_mreq` of the given length, alive during the call, which is what
    // this option expects.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            value,
            length,
        )
    })
}
