//! What others are told of a DHCP exchange: the boot timeline, the region, and whose address it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use link::message::{Lease, LeaseEvent, Report};
use metal::timeline::{Entry, What};
use metal::{MacAddr, Timestamp};
use wire_dhcp::{
    ClientInfo, LeaseRecord, LeaseState, LeaseView, Mac, Observation, ObservedKind, RecordState,
};

use crate::shared::Shared;

/// What happens beside a reply, once its lease is on disk.
#[derive(Default)]
pub struct Effects {
    shared: Option<Shared>,
    /// Addresses and whose they are now; none when nobody's.
    owners: Vec<(IpAddr, MacAddr, Timestamp, Owner)>,
    leases: Vec<Lease>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Is,
    WasUntilNow,
}

impl Effects {
    /// Makes known whose the addresses are.
    pub fn remember(&self) {
        let Some(shared) = &self.shared else { return };
        for &(ip, mac, at, owner) in &self.owners {
            match owner {
                Owner::Is => shared.saw_client(ip, mac, at),
                Owner::WasUntilNow if shared.client_mac(ip) == Some(mac) => {
                    shared.forget_client(ip)
                }
                Owner::WasUntilNow => {}
            }
        }
    }

    /// Tells timeline and region. Waits where the spool is slow. Cancel-safe: no (some may not be told).
    pub async fn tell(self) {
        let Some(shared) = self.shared else { return };
        for entry in self.entries {
            shared.note(entry);
        }
        for lease in self.leases {
            shared.report(Report::Lease(lease)).await;
        }
    }
}

/// Turns what the engine observed into effects.
pub struct Observer {
    shared: Shared,
    /// What the region was told last of each address, since this program started. Nothing is known of
    /// before, so the first renewal of each lease is told as well.
    told: HashMap<Ipv4Addr, (Mac, Option<String>)>,
}

impl Observer {
    /// An observer that has told nothing yet.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self {
            shared,
            told: HashMap::new(),
        }
    }

    /// Makes known whose the addresses in the log are.
    pub fn restore(&self, leases: impl Iterator<Item = LeaseView>, now: wire_dhcp::Timestamp) {
        for lease in leases.filter(|l| l.state == LeaseState::Bound && l.expires > now) {
            self.shared
                .saw_client(lease.address.into(), mac(lease.mac), time(lease.start));
        }
    }

    /// The effects of a packet's observations. `records` are what the same packet has written to the log.
    pub fn effects(&mut self, observed: Vec<Observation>, records: &[LeaseRecord]) -> Effects {
        let mut effects = Effects {
            shared: Some(self.shared.clone()),
            ..Effects::default()
        };
        for observation in observed {
            self.one(observation, records, &mut effects);
        }
        effects
    }

    fn one(&mut self, o: Observation, records: &[LeaseRecord], effects: &mut Effects) {
        let at = time(o.at);
        let place = o.address.zip(o.subnet);
        match o.kind {
            ObservedKind::Granted | ObservedKind::Renewed => {
                if let Some((address, subnet)) = place {
                    effects
                        .owners
                        .push((address.into(), mac(o.mac), at, Owner::Is));
                    let stored = records
                        .iter()
                        .find(|r| r.address == address && r.state == RecordState::Bound);
                    let hostname = stored
                        .and_then(|r| r.hostname.clone())
                        .or_else(|| o.client.hostname.clone());
                    let now = (o.mac, hostname.clone());
                    if self.told.get(&address) != Some(&now) {
                        self.told.insert(address, now);
                        let until = o.expires.map_or(at, time);
                        effects.leases.push(lease(
                            address,
                            o.mac,
                            subnet.0,
                            hostname,
                            until,
                            LeaseEvent::Commit,
                        ));
                    }
                }
            }
            ObservedKind::Expired | ObservedKind::Released | ObservedKind::Declined => {
                if let Some((address, subnet)) = place {
                    self.told.remove(&address);
                    let event = if o.kind == ObservedKind::Expired {
                        LeaseEvent::Expiry
                    } else {
                        LeaseEvent::Release
                    };
                    // A boot loader never renews, and its machine goes on with the address: only a word from
                    // the client, or another client, ends what is known of it.
                    if event == LeaseEvent::Release {
                        effects
                            .owners
                            .push((address.into(), mac(o.mac), at, Owner::WasUntilNow));
                    }
                    let until = match o.kind {
                        ObservedKind::Declined => at,
                        _ => o.expires.map_or(at, time),
                    };
                    effects.leases.push(lease(
                        address,
                        o.mac,
                        subnet.0,
                        o.client.hostname.clone(),
                        until,
                        event,
                    ));
                }
            }
            ObservedKind::Offered
            | ObservedKind::Informed
            | ObservedKind::Refused(_)
            | ObservedKind::ChoseOtherServer(_) => {}
        }
        let messages: &[&str] = match o.kind {
            ObservedKind::Offered => &["discover", "offer"],
            ObservedKind::Granted => &["request", "ack"],
            ObservedKind::Refused(_) => &["request", "nak"],
            ObservedKind::Informed => &["inform", "ack"],
            ObservedKind::Released if o.link.is_some() => &["release"],
            ObservedKind::Declined => &["decline"],
            ObservedKind::ChoseOtherServer(server) => {
                let text =
                    format!("took the offer of another DHCP server, {server}, instead of ours");
                effects.entries.push(entry(&o, at, What::Note { text }));
                &[]
            }
            // Renewals of a running machine are no part of its boot.
            ObservedKind::Renewed | ObservedKind::Expired | ObservedKind::Released => &[],
        };
        for (place, message) in messages.iter().enumerate() {
            let ours = place > 0;
            let what = What::Dhcp {
                message: (*message).to_owned(),
                arch: o.client.architecture,
                speaker: speaker(&o.client).to_owned(),
                boot_file: o.boot_file.clone().filter(|_| ours),
            };
            effects.entries.push(entry(&o, at, what));
        }
        if let ObservedKind::Refused(why) = o.kind {
            let text = format!("the address asked for was refused: {why}");
            effects.entries.push(entry(&o, at, What::Note { text }));
        }
    }

    /// A client that could not be given anything, because no address is left.
    #[must_use]
    pub fn no_address(&self, client: Mac, now: wire_dhcp::Timestamp) -> Effects {
        let text = String::from(
            "asked for an address and got none: the subnet has no free address in a dynamic range, and none is reserved",
        );
        let mut entry = Entry::new(time(now), What::Note { text });
        entry.mac = Some(mac(client));
        Effects {
            shared: Some(self.shared.clone()),
            entries: vec![entry],
            ..Effects::default()
        }
    }
}

fn entry(o: &Observation, at: Timestamp, what: What) -> Entry {
    let mut entry = Entry::new(at, what);
    entry.mac = Some(mac(o.mac));
    entry.ip = o.address.map(IpAddr::from);
    entry
}

fn lease(
    address: Ipv4Addr,
    client: Mac,
    subnet_id: i64,
    hostname: Option<String>,
    until: Timestamp,
    event: LeaseEvent,
) -> Lease {
    Lease {
        mac: mac(client),
        ip: address.into(),
        subnet_id,
        hostname,
        until,
        event,
    }
}

fn mac(mac: Mac) -> MacAddr {
    MacAddr(mac.0)
}

/// The engine counts milliseconds, everything else microseconds.
fn time(at: wire_dhcp::Timestamp) -> Timestamp {
    Timestamp(
        i64::try_from(at.0)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000),
    )
}

/// Who speaks: iPXE calls itself `PXEClient` too, so its user class is looked at first.
#[must_use]
pub fn speaker(client: &ClientInfo) -> &'static str {
    let starts =
        |text: &Option<String>, with: &str| text.as_ref().is_some_and(|t| t.starts_with(with));
    if starts(&client.user_class, "iPXE") {
        "ipxe"
    } else if starts(&client.vendor_class, "PXEClient")
        || starts(&client.vendor_class, "HTTPClient")
    {
        "firmware"
    } else {
        "os"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::snapshot::Snapshot;
    use wire_dhcp::{LinkId, SubnetId};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn observation(kind: ObservedKind, client: u8, at_s: u64) -> Observation {
        Observation {
            kind,
            at: wire_dhcp::Timestamp(at_s * 1_000),
            link: Some(LinkId(1)),
            relay: None,
            mac: Mac([2, 0, 0, 0, 0, client]),
            address: Some(ADDRESS),
            subnet: Some(SubnetId(4)),
            expires: Some(wire_dhcp::Timestamp((at_s + 600) * 1_000)),
            boot_method: None,
            boot_file: Some("lpxelinux.0".into()),
            client: ClientInfo {
                vendor_class: Some("PXEClient:Arch:00000".into()),
                architecture: Some(0),
                ..ClientInfo::default()
            },
        }
    }

    fn events(effects: &Effects) -> Vec<LeaseEvent> {
        effects.leases.iter().map(|l| l.event).collect()
    }

    #[test]
    fn the_region_hears_of_a_lease_once_and_of_its_end() {
        let (shared, _reports) = Shared::new(Snapshot::default());
        let mut observer = Observer::new(shared.clone());
        let mut see = |kind, client, at| {
            let effects = observer.effects(vec![observation(kind, client, at)], &[]);
            effects.remember();
            events(&effects)
        };
        assert_eq!(see(ObservedKind::Granted, 1, 10), [LeaseEvent::Commit]);
        assert_eq!(
            shared.client_mac(ADDRESS.into()),
            Some(MacAddr([2, 0, 0, 0, 0, 1]))
        );
        assert_eq!(see(ObservedKind::Renewed, 1, 20), [], "nothing changed");
        assert_eq!(
            see(ObservedKind::Granted, 1, 30),
            [],
            "the next stage of the same boot"
        );
        assert_eq!(see(ObservedKind::Expired, 1, 700), [LeaseEvent::Expiry]);
        assert_eq!(see(ObservedKind::Granted, 2, 710), [LeaseEvent::Commit]);
        assert_eq!(see(ObservedKind::Released, 2, 720), [LeaseEvent::Release]);
        assert_eq!(shared.client_mac(ADDRESS.into()), None);
    }

    #[test]
    fn an_address_is_known_until_it_is_given_back_or_given_to_another() {
        let (shared, _reports) = Shared::new(Snapshot::default());
        let mut observer = Observer::new(shared.clone());
        observer
            .effects(vec![observation(ObservedKind::Granted, 1, 10)], &[])
            .remember();
        observer
            .effects(vec![observation(ObservedKind::Expired, 1, 700)], &[])
            .remember();
        assert_eq!(
            shared.client_mac(ADDRESS.into()),
            Some(MacAddr([2, 0, 0, 0, 0, 1])),
            "boot loaders do not renew"
        );
        observer
            .effects(vec![observation(ObservedKind::Granted, 2, 710)], &[])
            .remember();
        observer
            .effects(vec![observation(ObservedKind::Released, 1, 720)], &[])
            .remember();
        assert_eq!(
            shared.client_mac(ADDRESS.into()),
            Some(MacAddr([2, 0, 0, 0, 0, 2])),
            "only its holder gives it back"
        );
    }

    #[test]
    fn after_a_restart_the_first_renewal_is_told() {
        let (shared, _reports) = Shared::new(Snapshot::default());
        let effects =
            Observer::new(shared).effects(vec![observation(ObservedKind::Renewed, 1, 10)], &[]);
        assert_eq!(events(&effects), [LeaseEvent::Commit]);
        assert!(effects.entries.is_empty(), "a renewal is no part of a boot");
    }

    #[test]
    fn the_timeline_has_question_and_answer_with_the_boot_file() {
        let (shared, _reports) = Shared::new(Snapshot::default());
        let effects =
            Observer::new(shared).effects(vec![observation(ObservedKind::Offered, 1, 10)], &[]);
        let seen: Vec<_> = effects
            .entries
            .into_iter()
            .map(|e| (e.first, e.what))
            .collect();
        let dhcp = |message: &str, boot_file: Option<&str>| What::Dhcp {
            message: message.into(),
            arch: Some(0),
            speaker: "firmware".into(),
            boot_file: boot_file.map(str::to_owned),
        };
        let at = Timestamp(10_000_000);
        assert_eq!(
            seen,
            [
                (at, dhcp("discover", None)),
                (at, dhcp("offer", Some("lpxelinux.0")))
            ]
        );
    }

    #[test]
    fn speakers_are_told_apart() {
        let client = |user: Option<&str>, vendor: Option<&str>| ClientInfo {
            user_class: user.map(str::to_owned),
            vendor_class: vendor.map(str::to_owned),
            ..ClientInfo::default()
        };
        assert_eq!(
            speaker(&client(Some("iPXE"), Some("PXEClient:Arch:00007"))),
            "ipxe"
        );
        assert_eq!(
            speaker(&client(None, Some("HTTPClient:Arch:00016"))),
            "firmware"
        );
        assert_eq!(speaker(&client(None, Some("udhcp 1.36"))), "os");
        assert_eq!(speaker(&client(None, None)), "os");
    }
}
