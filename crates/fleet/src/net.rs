//! A machine's link to its network, as each of firmware, loader and system gets it anew.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use wire_dhcp::Mac;

use crate::dhcp::{Client, Kind, Reply, Speaker};
use crate::hardware::Hardware;
use crate::state::{Counting, count};
use crate::wire::{Ear, HeldAddress, Wire};

/// Waits for answers, one after the other; firmware's own are longer (PXE 2.1 §2.2.2: 4, 8, 16, 32 s).
const WAITS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// Shortest time between two renewals, whatever the lease says.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// How the fleet's machines reach their network.
pub(crate) enum Medium {
    /// Loopback addresses from `first` on; the rack is there.
    Loopback { rack: SocketAddr, first: Ipv4Addr },
    /// A cable.
    Cable(Arc<Wire>),
}

/// An address, and how it was got.
pub(crate) struct Link {
    /// The machine's address.
    pub address: Ipv4Addr,
    /// What the server said; none over loopback.
    pub lease: Option<Reply>,
    server_card: Option<Mac>,
    wire: Option<Arc<Wire>>,
    // Before the address on the interface goes, nobody listens for it any more.
    _ear: Option<Ear>,
    _held: Option<HeldAddress>,
}

/// Nobody gave an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("no DHCP server answered")]
    NoAnswer,
    #[error("the DHCP server refused the address it had offered")]
    Refused,
    #[error("the network interface cannot be used: {0}")]
    Interface(String),
}

/// The loopback address of a machine: the last byte is never 0 or 255.
#[must_use]
pub fn loopback_address(first: Ipv4Addr, index: usize) -> Ipv4Addr {
    let [a, b, c, d] = first.octets();
    let n = u32::from(d.saturating_sub(1)) + index as u32;
    let rest = (u32::from(b) << 8 | u32::from(c)) + n / 254;
    let [_, _, b, c] = rest.to_be_bytes();
    Ipv4Addr::new(a, b, c, (n % 254) as u8 + 1)
}

fn uuid_bytes(hardware: &Hardware) -> [u8; 16] {
    hex::decode(hardware.uuid.replace('-', ""))
        .ok()
        .and_then(|b| b.try_into().ok())
        .unwrap_or_default()
}

impl Medium {
    /// Gets an address.
    pub(crate) async fn up(
        &self,
        hardware: &Hardware,
        speaker: Speaker,
        counting: &Counting,
    ) -> Result<Link, LinkError> {
        match self {
            Self::Loopback { first, .. } => {
                let address = loopback_address(*first, hardware.index);
                Ok(Link {
                    address,
                    lease: None,
                    server_card: None,
                    wire: None,
                    _ear: None,
                    _held: None,
                })
            }
            Self::Cable(wire) => {
                let client = Client {
                    mac: hardware.mac(),
                    uuid: uuid_bytes(hardware),
                    xid: rand::random(),
                    speaker,
                };
                let link = lease(wire, &client).await?;
                count(&counting.leases);
                Ok(link)
            }
        }
    }
}

async fn lease(wire: &Arc<Wire>, client: &Client) -> Result<Link, LinkError> {
    let failed = |e: std::io::Error| LinkError::Interface(e.to_string());
    let mut ear = wire.listen(client.mac);
    for wait in WAITS {
        wire.broadcast(client.mac, &client.discover())
            .await
            .map_err(failed)?;
        let Some((offer, _)) = answer(&mut ear, client, &[Kind::Offer], wait).await else {
            continue;
        };
        for wait in WAITS {
            wire.broadcast(client.mac, &client.request(&offer))
                .await
                .map_err(failed)?;
            match answer(&mut ear, client, &[Kind::Ack, Kind::Nak], wait).await {
                Some((ack, card)) if ack.kind == Kind::Ack => {
                    let held = wire.hold(ack.address).map_err(failed)?;
                    return Ok(Link {
                        address: ack.address,
                        lease: Some(ack),
                        server_card: Some(card),
                        wire: Some(Arc::clone(wire)),
                        _ear: Some(ear),
                        _held: Some(held),
                    });
                }
                Some(_) => return Err(LinkError::Refused),
                None => {}
            }
        }
    }
    Err(LinkError::NoAnswer)
}

async fn answer(
    ear: &mut Ear,
    client: &Client,
    kinds: &[Kind],
    wait: Duration,
) -> Option<(Reply, Mac)> {
    let until = Instant::now() + wait;
    loop {
        let (reply, card) = timeout_at(until, ear.next()).await.ok().flatten()?;
        if reply.xid == client.xid && kinds.contains(&reply.kind) {
            return Some((reply, card));
        }
    }
}

impl Link {
    /// A configured address on a cable.
    pub(crate) fn fixed(address: Ipv4Addr, wire: &Arc<Wire>) -> Result<Self, LinkError> {
        let held = wire
            .hold(address)
            .map_err(|e| LinkError::Interface(e.to_string()))?;
        Ok(Self {
            address,
            lease: None,
            server_card: None,
            wire: Some(Arc::clone(wire)),
            _ear: None,
            _held: Some(held),
        })
    }

    /// Renews the lease every so often, or whenever half of it is over; without a lease it just waits.
    /// Returns when the server refuses. Cancel-safe: yes.
    pub(crate) async fn keep(
        &mut self,
        hardware: &Hardware,
        hostname: &str,
        every: Option<Duration>,
        counting: &Counting,
    ) {
        let (Some(lease), Some(wire), Some(card)) =
            (self.lease.clone(), self.wire.clone(), self.server_card)
        else {
            return std::future::pending().await;
        };
        let half = Duration::from_secs(u64::from(lease.lease_seconds) / 2).max(RENEW_MIN);
        loop {
            sleep(every.unwrap_or(half)).await;
            let speaker = Speaker::System {
                hostname: hostname.to_owned(),
            };
            let client = Client {
                mac: hardware.mac(),
                uuid: uuid_bytes(hardware),
                xid: rand::random(),
                speaker,
            };
            let Some(ear) = &mut self._ear else { return };
            // Lost: the next half will do.
            wire.unicast(
                client.mac,
                self.address,
                (lease.server, card),
                &client.renew(self.address),
            )
            .await
            .ok();
            let reply = answer(ear, &client, &[Kind::Ack, Kind::Nak], WAITS[0]).await;
            match reply.map(|(r, _)| r.kind) {
                Some(Kind::Ack) => count(&counting.renewals),
                Some(Kind::Nak) => {
                    tracing::debug!(address = %self.address, "the renewal of a lease was refused");
                    return;
                }
                Some(Kind::Offer) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_machine_has_a_loopback_address_of_its_own() {
        let first = crate::config::LOOPBACK_FIRST;
        let all: BTreeSet<Ipv4Addr> = (0..20_000).map(|i| loopback_address(first, i)).collect();
        assert_eq!(all.len(), 20_000);
        assert!(
            all.iter()
                .all(|a| a.is_loopback() && !matches!(a.octets()[3], 0 | 255))
        );
        assert_eq!(loopback_address(first, 0), first);
        assert_eq!(loopback_address(first, 254), Ipv4Addr::new(127, 1, 1, 1));
    }
}
