//! Addresses of an interface, over rtnetlink (rtnetlink(7)).

use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Time for the kernel's answer; it answers at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const HEADER: usize = 16;

/// What is done with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

pub(super) fn open() -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(socket)
}

/// One request, alone in flight on the socket.
pub(super) fn change(
    mut socket: &Socket,
    change: Change,
    interface: u32,
    address: Ipv4Addr,
) -> io::Result<()> {
    let request = message(change, interface, address);
    // Without a destination a netlink message goes to the kernel.
    socket.write_all(&request)?;
    let mut answer = [0u8; 1024];
    let n = socket.read(&mut answer)?;
    // An error message with number 0 is an acknowledgement.
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let code = answer
        .get(HEADER..HEADER + 4)
        .map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match (n >= HEADER + 4, kind, code) {
        (true, Some(2), Some(0)) => Ok(()),
        // It was there already, or gone already.
        (true, Some(2), Some(code)) if change == Change::Add && code == -libc::EEXIST => Ok(()),
        (true, Some(2), Some(code)) if change == Change::Remove && code == -libc::EADDRNOTAVAIL => {
            Ok(())
        }
        (true, Some(2), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `nlmsghdr`, `ifaddrmsg`, and the address twice: as local and as interface address.
fn message(change: Change, interface: u32, address: Ipv4Addr) -> Vec<u8> {
    let acknowledged = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let (kind, flags) = match change {
        Change::Add => (
            libc::RTM_NEWADDR,
            acknowledged | libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        ),
        Change::Remove => (libc::RTM_DELADDR, acknowledged),
    };
    let mut out = Vec::with_capacity(40);
    out.extend(40u32.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags as u16).to_ne_bytes());
    // Sequence number and port: one request at a time, and the kernel fills in the port.
    out.extend([0; 8]);
    // A network of its own: taking one address off must not take others along.
    out.extend([libc::AF_INET as u8, 32, 0, 0]);
    out.extend(interface.to_ne_bytes());
    for attribute in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        out.extend(8u16.to_ne_bytes());
        out.extend(attribute.to_ne_bytes());
        out.extend(address.octets());
    }
    out
}
