//! The messages of RFC 2131 and what the engine makes of them.

mod support;

use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use std::net::Ipv4Addr;
use support::*;
use wire_dhcp::record::LeaseLog;
use wire_dhcp::{
    Action, Dest, DropReason, Engine, LinkId, Mac, ObservedKind, Received, RecordState, SubnetId,
    Timestamp,
};

#[test]
fn discover_to_ack_carries_the_subnets_options() {
    let mut rack = Rack::new(&ordinary());
    let wanted = [1, 3, 6, 15, 26, 28, 42, 51, 58, 59, 119, 121];
    let outcome = rack.send(&Packet::discover(mac(1)).wanting(&wanted));
    let offer = outcome.reply();
    assert_eq!(outcome.offered(), ip("10.77.0.100"));
    assert_eq!(offer.xid(), 0x1234_5678);
    assert_eq!(offer.siaddr(), RACK);
    assert_eq!(offer.chaddr(), mac(1).0);
    assert_eq!(
        offer.opts().get(OptionCode::ServerIdentifier),
        Some(&DhcpOption::ServerIdentifier(RACK))
    );
    assert_eq!(outcome.persisted().len(), 0, "an offer is not written down");

    let outcome = rack.send(&Packet::select(mac(1), ip("10.77.0.100"), RACK).wanting(&wanted));
    assert_eq!(outcome.acked(), ip("10.77.0.100"));
    let ack = outcome.reply();
    for (code, bytes) in [
        (1, &[255, 255, 255, 0][..]),
        (3, &[10, 77, 0, 254]),
        (6, &[10, 77, 0, 1]),
        (15, b"maas"),
        (26, &9000u16.to_be_bytes()),
        (28, &[10, 77, 0, 255]),
        (42, &[10, 77, 0, 1]),
        (51, &600u32.to_be_bytes()),
        (58, &300u32.to_be_bytes()),
        (59, &525u32.to_be_bytes()),
        (119, b"\x04maas\0\x07example\x03com\0"),
    ] {
        assert_eq!(option(&ack, code).as_deref(), Some(bytes), "option {code}");
    }
    assert_eq!(option(&ack, 121), None);
    assert_eq!(
        outcome.dest(),
        Dest::Hardware {
            mac: mac(1),
            address: ip("10.77.0.100")
        }
    );
    assert_eq!(outcome.sent()[0].source, RACK);
    assert_eq!(
        rack.engine.holder(ip("10.77.0.100"), rack.now),
        Some(mac(1))
    );
}

#[test]
fn message_type_comes_first_and_short_messages_are_padded() {
    let mut rack = Rack::new(&ordinary());
    let outcome = rack.send(&Packet::discover(mac(1)).wanting(&[1]));
    let bytes = &outcome.sent()[0].bytes;
    assert_eq!(bytes[240..243], [53, 1, 2]);
    assert!(bytes.len() >= 300);
}

#[test]
fn the_record_comes_before_the_ack() {
    let mut rack = Rack::new(&ordinary());
    let offered = rack.send(&Packet::discover(mac(1))).offered();
    let packet = Packet::select(mac(1), offered, RACK).with(DhcpOption::Hostname("Node-1".into()));
    let outcome = rack.send(&packet);
    assert!(matches!(
        outcome.0[..],
        [Action::Persist(_), Action::Send(_), Action::Observed(_)]
    ));
    let record = outcome.persisted()[0];
    assert_eq!(
        (record.state, record.address, record.mac),
        (RecordState::Bound, offered, mac(1))
    );
    assert_eq!(record.subnet, SubnetId(1));
    assert_eq!(record.expires, rack.now.plus_s(600));
    assert_eq!(record.hostname.as_deref(), Some("node-1"));
    let observed = outcome.observed()[0];
    assert_eq!(observed.kind, ObservedKind::Granted);
    assert_eq!((observed.address, observed.mac), (Some(offered), mac(1)));
    assert_eq!(observed.client.hostname.as_deref(), Some("node-1"));
}

#[test]
fn machines_that_boot_together_are_offered_different_addresses() {
    let mut rack = Rack::new(&ordinary());
    let mut offered: Vec<Ipv4Addr> = (0..10)
        .map(|n| rack.send(&Packet::discover(mac(n))).offered())
        .collect();
    assert_eq!(
        rack.send(&Packet::discover(mac(10))).dropped(),
        Some(DropReason::NoFreeAddress)
    );
    let again = rack.send(&Packet::discover(mac(3))).offered();
    assert_eq!(again, offered[3], "a repeated DISCOVER gets the same offer");
    offered.sort_unstable();
    offered.dedup();
    assert_eq!(offered.len(), 10);
}

#[test]
fn an_offer_is_held_for_a_minute_and_then_free() {
    let mut rack = Rack::new(&ordinary());
    for n in 0..10 {
        rack.send(&Packet::discover(mac(n))).offered();
    }
    rack.sleep_s(59);
    assert_eq!(
        rack.send(&Packet::discover(mac(50))).dropped(),
        Some(DropReason::NoFreeAddress)
    );
    rack.sleep_s(1);
    assert_eq!(
        rack.send(&Packet::discover(mac(50))).offered(),
        ip("10.77.0.100")
    );
    let late = rack.send(&Packet::select(mac(0), ip("10.77.0.100"), RACK));
    late.naked();
    assert_eq!(
        rack.send(&Packet::select(mac(1), ip("10.77.0.101"), RACK))
            .acked(),
        ip("10.77.0.101")
    );
}

#[test]
fn an_offer_outlasts_the_lease_it_was_made_on() {
    let mut stated = ordinary();
    stated.links[0].subnets[0].dynamic = vec![range("10.77.0.100", "10.77.0.100")];
    let mut rack = Rack::new(&stated);
    let address = rack.lease(mac(1));
    rack.sleep_s(595);
    assert_eq!(rack.send(&Packet::discover(mac(1))).offered(), address);
    rack.sleep_s(10);
    assert_eq!(
        rack.engine.holder(address, rack.now),
        None,
        "the lease is over"
    );
    let other = rack.send(&Packet::discover(mac(2)));
    assert_eq!(other.dropped(), Some(DropReason::NoFreeAddress));
    assert_eq!(
        rack.send(&Packet::select(mac(1), address, RACK)).acked(),
        address
    );
}

#[test]
fn a_machine_keeps_its_address_through_firmware_initrd_and_system() {
    let mut rack = Rack::new(&ordinary());
    let firmware = Packet::discover(mac(1))
        .pxe(0)
        .with(DhcpOption::ClientIdentifier([0].repeat(17)));
    let address = rack.send(&firmware).offered();
    let outcome = rack.send(&Packet::select(mac(1), address, RACK).pxe(0));
    assert_eq!(
        outcome.persisted()[0].expires,
        rack.now.plus_s(30),
        "boot ROMs get a short lease"
    );
    rack.sleep_s(100);
    rack.lease(mac(2));
    let initrd =
        Packet::discover(mac(1)).with(DhcpOption::ClientIdentifier(vec![255, 1, 2, 3, 4, 5, 6]));
    assert_eq!(rack.send(&initrd).offered(), address);
    let system = Packet::discover(mac(1)).with(DhcpOption::ClientIdentifier(vec![1, 2, 3]));
    assert_eq!(rack.send(&system).offered(), address);
}

#[test]
fn renewing_extends_and_goes_straight_to_the_client() {
    let mut rack = Rack::new(&ordinary());
    let address = rack.lease(mac(1));
    let start = rack.now;
    rack.sleep_s(300);
    let outcome = rack.send_unicast(&Packet::renew(mac(1), address));
    assert_eq!(outcome.acked(), address);
    assert_eq!(outcome.dest(), Dest::Client(address));
    assert_eq!(outcome.reply().ciaddr(), address);
    assert_eq!(outcome.observed()[0].kind, ObservedKind::Renewed);
    assert_eq!(outcome.persisted()[0].expires, rack.now.plus_s(600));
    assert_eq!(outcome.persisted()[0].start, start);
    rack.sleep_s(500);
    let rebinding = rack.send(&Packet::renew(mac(1), address));
    assert_eq!(rebinding.acked(), address);
}

#[test]
fn the_clients_wish_may_shorten_a_lease_but_not_lengthen_it() {
    let mut rack = Rack::new(&ordinary());
    for (wish, granted) in [(86_400, 600), (u32::MAX, 600), (120, 120), (0, 10)] {
        let discover = Packet::discover(mac(wish)).with(DhcpOption::AddressLeaseTime(wish));
        let offer = rack.send(&discover).reply();
        assert_eq!(
            option(&offer, 51),
            Some(u32::to_be_bytes(granted).to_vec()),
            "wish {wish}"
        );
    }
}

#[test]
fn init_reboot_is_granted_refused_or_moved() {
    let mut stated = ordinary();
    reserve(&mut stated, mac(8), "10.77.0.8");
    let mut rack = Rack::new(&stated);
    let address = rack.lease(mac(1));
    assert_eq!(rack.send(&Packet::reboot(mac(1), address)).acked(), address);
    // Free and ours to give, although nothing is known of the client.
    assert_eq!(
        rack.send(&Packet::reboot(mac(2), ip("10.77.0.109")))
            .acked(),
        ip("10.77.0.109")
    );
    let held = rack.send(&Packet::reboot(mac(3), address));
    held.naked();
    assert_eq!(held.dest(), Dest::Broadcast);
    assert!(matches!(held.observed()[0].kind, ObservedKind::Refused(_)));
    for wrong in [
        "192.0.2.7",
        "10.77.0.8",
        "10.77.0.50",
        "10.77.0.1",
        "10.77.0.255",
        "10.77.0.254",
    ] {
        rack.send(&Packet::reboot(mac(4), ip(wrong))).naked();
    }
    rack.send(&Packet::reboot(mac(8), ip("10.77.0.105")))
        .naked();
    assert_eq!(
        rack.send(&Packet::reboot(mac(8), ip("10.77.0.8"))).acked(),
        ip("10.77.0.8")
    );
    assert_eq!(rack.engine.stats().naks, 8);
}

#[test]
fn another_servers_client_frees_our_offer_and_names_the_foreign_server() {
    let mut rack = Rack::new(&ordinary());
    let offered = rack.send(&Packet::discover(mac(1))).offered();
    let outcome = rack.send(&Packet::select(mac(1), ip("10.77.0.200"), ip("10.77.0.9")));
    assert_eq!(outcome.dropped(), Some(DropReason::OtherServer));
    assert_eq!(
        outcome.observed()[0].kind,
        ObservedKind::ChoseOtherServer(ip("10.77.0.9"))
    );
    assert_eq!(outcome.sent().len(), 0);
    assert_eq!(rack.send(&Packet::discover(mac(2))).offered(), offered);
}

#[test]
fn another_servers_client_keeps_the_lease_it_has_with_us() {
    let mut rack = Rack::new(&ordinary());
    let address = rack.lease(mac(1));
    rack.send(&Packet::discover(mac(1))).offered();
    rack.send(&Packet::select(mac(1), ip("10.77.0.200"), ip("10.77.0.9")));
    assert_eq!(rack.engine.holder(address, rack.now), Some(mac(1)));
}

#[test]
fn release_returns_the_address_to_the_pool_but_remembers_its_holder() {
    let mut rack = Rack::new(&ordinary());
    let address = rack.lease(mac(1));
    let stranger = rack.send_unicast(&Packet::release(mac(2), address));
    assert_eq!(stranger.dropped(), Some(DropReason::NotTheHolder));
    let outcome = rack.send_unicast(&Packet::release(mac(1), address));
    assert_eq!(outcome.sent().len(), 0);
    assert_eq!(outcome.persisted()[0].state, RecordState::Released);
    assert_eq!(outcome.observed()[0].kind, ObservedKind::Released);
    assert_eq!(rack.engine.holder(address, rack.now), None);
    assert_eq!(rack.engine.free_count(SubnetId(1)), (9, 1));
    assert_eq!(rack.send(&Packet::discover(mac(1))).offered(), address);
    let twice = rack.send_unicast(&Packet::release(mac(1), ip("10.77.0.104")));
    assert_eq!(twice.dropped(), Some(DropReason::NotTheHolder));
}

#[test]
fn a_declined_address_is_left_alone_for_a_time() {
    let mut stated = ordinary();
    stated.links[0].subnets[0].dynamic = vec![range("10.77.0.100", "10.77.0.101")];
    let mut rack = Rack::new(&stated);
    let address = rack.lease(mac(1));
    let stranger = rack.send(&Packet::decline(mac(2), address));
    assert_eq!(stranger.dropped(), Some(DropReason::NotTheHolder));
    let outcome = rack.send(&Packet::decline(mac(1), address));
    assert_eq!(outcome.persisted()[0].state, RecordState::Declined);
    assert_eq!(outcome.observed()[0].kind, ObservedKind::Declined);
    let next = rack.lease(mac(1));
    assert_ne!(next, address);
    assert_eq!(
        rack.send(&Packet::discover(mac(2))).dropped(),
        Some(DropReason::NoFreeAddress)
    );
    rack.send(&Packet::reboot(mac(2), address)).naked();
    rack.sleep_s(601);
    assert_eq!(rack.send(&Packet::discover(mac(2))).offered(), address);
}

#[test]
fn inform_gets_options_and_no_lease() {
    let mut rack = Rack::new(&ordinary());
    let mut packet = Packet::new(mac(1), MessageType::Inform).wanting(&[1, 3, 6, 51]);
    packet.0.set_ciaddr(ip("10.77.0.33"));
    let outcome = rack.send(&packet);
    let ack = outcome.reply();
    assert_eq!(outcome.answer(), (MessageType::Ack, NONE));
    assert_eq!(outcome.dest(), Dest::Client(ip("10.77.0.33")));
    assert_eq!(option(&ack, 3), Some(vec![10, 77, 0, 254]));
    assert_eq!(option(&ack, 51), None);
    assert_eq!(outcome.persisted().len(), 0);
    packet.0.set_ciaddr(ip("192.0.2.1"));
    assert_eq!(rack.send(&packet).dropped(), Some(DropReason::WrongNetwork));
    packet.0.set_ciaddr(NONE);
    assert_eq!(
        rack.send(&packet).dropped(),
        Some(DropReason::NoAddressNamed)
    );
}

#[test]
fn addresses_are_given_in_order_and_the_longest_dead_is_reused_first() {
    let mut stated = ordinary();
    stated.links[0].subnets[0].dynamic = vec![range("10.77.0.100", "10.77.0.102")];
    let mut rack = Rack::new(&stated);
    for n in 0..3 {
        assert_eq!(
            rack.lease(mac(n)),
            Ipv4Addr::from(u32::from(ip("10.77.0.100")) + n)
        );
        rack.sleep_s(1);
    }
    // The middle one goes on, the others run out.
    rack.sleep_s(300);
    rack.send_unicast(&Packet::renew(mac(1), ip("10.77.0.101")))
        .acked();
    rack.sleep_s(400);
    let expired = rack.tick();
    let kinds: Vec<_> = expired
        .observed()
        .iter()
        .map(|o| (o.kind, o.address.unwrap(), o.mac))
        .collect();
    assert_eq!(
        kinds,
        vec![
            (ObservedKind::Expired, ip("10.77.0.100"), mac(0)),
            (ObservedKind::Expired, ip("10.77.0.102"), mac(2)),
        ]
    );
    assert_eq!(rack.lease(mac(9)), ip("10.77.0.100"));
    assert_eq!(
        rack.lease(mac(2)),
        ip("10.77.0.102"),
        "its own address, although expired"
    );
    assert_eq!(rack.engine.stats().expirations, 2);
}

#[test]
fn the_next_deadline_is_the_next_expiry() {
    let mut rack = Rack::new(&ordinary());
    assert_eq!(rack.engine.next_deadline(), None);
    rack.send(&Packet::discover(mac(1))).offered();
    assert_eq!(rack.engine.next_deadline(), Some(rack.now.plus_s(60)));
    rack.send(&Packet::select(mac(1), ip("10.77.0.100"), RACK))
        .acked();
    assert_eq!(rack.engine.next_deadline(), Some(rack.now.plus_s(600)));
    rack.sleep_s(600);
    assert_eq!(rack.tick().observed().len(), 1);
    assert_eq!(rack.engine.next_deadline(), None);
}

#[test]
fn a_wish_for_a_free_address_is_granted() {
    let mut rack = Rack::new(&ordinary());
    let wish = |n, address: &str| {
        Packet::discover(mac(n)).with(DhcpOption::RequestedIpAddress(ip(address)))
    };
    assert_eq!(
        rack.send(&wish(1, "10.77.0.107")).offered(),
        ip("10.77.0.107")
    );
    assert_eq!(
        rack.send(&wish(2, "10.77.0.107")).offered(),
        ip("10.77.0.100")
    );
    assert_eq!(
        rack.send(&wish(3, "10.77.0.200")).offered(),
        ip("10.77.0.101")
    );
}

#[test]
fn reservations_come_first_and_stay_out_of_the_pool() {
    let mut stated = ordinary();
    reserve(&mut stated, mac(1), "10.77.0.100");
    reserve(&mut stated, mac(2), "10.77.0.20");
    stated.reservations[1].hostname = Some("node-2".into());
    let mut rack = Rack::new(&stated);
    assert_eq!(
        rack.lease(mac(7)),
        ip("10.77.0.101"),
        "the reserved address is skipped"
    );
    assert_eq!(rack.lease(mac(1)), ip("10.77.0.100"));
    rack.send(&Packet::discover(mac(2))).offered();
    let ack = rack.send(&Packet::select(mac(2), ip("10.77.0.20"), RACK).wanting(&[12]));
    assert_eq!(option(&ack.reply(), 12), Some(b"node-2".to_vec()));
    assert_eq!(ack.persisted()[0].hostname.as_deref(), Some("node-2"));
    let wish = Packet::discover(mac(8)).with(DhcpOption::RequestedIpAddress(ip("10.77.0.20")));
    assert_eq!(rack.send(&wish).offered(), ip("10.77.0.102"));
    rack.send(&Packet::select(mac(8), ip("10.77.0.20"), RACK))
        .naked();
}

#[test]
fn a_new_reservation_moves_the_machine_and_frees_its_old_address() {
    let mut rack = Rack::new(&ordinary());
    let old = rack.lease(mac(1));
    let mut stated = ordinary();
    reserve(&mut stated, mac(1), "10.77.0.20");
    rack.configure(&stated);
    rack.send_unicast(&Packet::renew(mac(1), old)).naked();
    assert_eq!(
        rack.send(&Packet::discover(mac(1))).offered(),
        ip("10.77.0.20")
    );
    let outcome = rack.send(&Packet::select(mac(1), ip("10.77.0.20"), RACK));
    let states: Vec<_> = outcome
        .persisted()
        .iter()
        .map(|r| (r.state, r.address))
        .collect();
    assert_eq!(
        states,
        vec![
            (RecordState::Released, old),
            (RecordState::Bound, ip("10.77.0.20"))
        ]
    );
    assert_eq!(rack.engine.holder(old, rack.now), None);
    assert_eq!(rack.lease(mac(2)), old);
}

#[test]
fn a_reservation_waits_for_a_stranger_to_leave() {
    let mut rack = Rack::new(&ordinary());
    let address = rack.lease(mac(1));
    let mut stated = ordinary();
    reserve(&mut stated, mac(2), &address.to_string());
    rack.configure(&stated);
    let other = rack.lease(mac(2));
    assert_ne!(other, address, "two machines never hold one address");
    rack.send_unicast(&Packet::renew(mac(1), address)).naked();
    rack.sleep_s(600);
    assert_eq!(rack.lease(mac(2)), address);
}

#[test]
fn both_cards_of_a_bond_may_use_its_reserved_address() {
    let mut stated = ordinary();
    reserve(&mut stated, mac(1), "10.77.0.20");
    reserve(&mut stated, mac(2), "10.77.0.20");
    let mut rack = Rack::new(&stated);
    assert_eq!(rack.lease(mac(1)), ip("10.77.0.20"));
    assert_eq!(
        rack.send(&Packet::discover(mac(2))).offered(),
        ip("10.77.0.20")
    );
    assert_eq!(
        rack.engine.holder(ip("10.77.0.20"), rack.now),
        Some(mac(1)),
        "an offer takes nothing away"
    );
    assert_eq!(
        rack.send(&Packet::select(mac(2), ip("10.77.0.20"), RACK))
            .acked(),
        ip("10.77.0.20")
    );
    assert_eq!(rack.engine.holder(ip("10.77.0.20"), rack.now), Some(mac(2)));
}

#[test]
fn a_shrunken_range_refuses_renewals_and_a_grown_one_is_used_at_once() {
    let mut rack = Rack::new(&ordinary());
    let address = rack.lease(mac(1));
    let mut stated = ordinary();
    stated.links[0].subnets[0].dynamic = vec![range("10.77.0.105", "10.77.0.105")];
    rack.configure(&stated);
    rack.send_unicast(&Packet::renew(mac(1), address)).naked();
    assert_eq!(rack.lease(mac(2)), ip("10.77.0.105"));
    rack.configure(&ordinary());
    assert_eq!(
        rack.engine.holder(address, rack.now),
        Some(mac(1)),
        "the lease itself was kept"
    );
    assert_eq!(rack.lease(mac(3)), ip("10.77.0.101"));
}

#[test]
fn replaying_the_log_brings_every_lease_back() {
    let mut rack = Rack::new(&ordinary());
    let first = rack.lease(mac(1));
    let second = rack.lease(mac(2));
    let third = rack.lease(mac(3));
    rack.send_unicast(&Packet::release(mac(2), second));
    rack.send(&Packet::decline(mac(3), third));
    let mut log = Vec::new();
    for record in &rack.log {
        LeaseLog::append(record, &mut log);
    }
    let mut restarted = Rack::new(&ordinary());
    restarted.now = rack.now;
    let replay = LeaseLog::replay(&log);
    assert_eq!(restarted.engine.restore(&replay.records, restarted.now), 3);
    restarted.engine.check().unwrap();
    let (before, after): (Vec<_>, Vec<_>) = (
        rack.engine.leases().collect(),
        restarted.engine.leases().collect(),
    );
    assert_eq!(before, after);
    assert_eq!(restarted.engine.holder(first, rack.now), Some(mac(1)));
    assert_eq!(
        restarted
            .send_unicast(&Packet::renew(mac(1), first))
            .acked(),
        first
    );
    assert_eq!(
        restarted.send(&Packet::discover(mac(2))).offered(),
        second,
        "its last address"
    );
    assert_eq!(
        restarted.send(&Packet::discover(mac(4))).offered(),
        ip("10.77.0.103")
    );
}

#[test]
fn an_offer_lost_in_a_crash_is_still_granted_to_its_client() {
    let mut rack = Rack::new(&ordinary());
    let offered = rack.send(&Packet::discover(mac(1))).offered();
    let mut restarted = Rack::new(&ordinary());
    assert_eq!(
        restarted
            .send(&Packet::select(mac(1), offered, RACK))
            .acked(),
        offered
    );
}

#[test]
fn silence_where_dhcp_is_off_or_nothing_is_configured() {
    let mut stated = ordinary();
    stated.links[0].dhcp_on = false;
    let mut rack = Rack::new(&stated);
    for packet in [
        Packet::discover(mac(1)),
        Packet::select(mac(1), ip("10.77.0.100"), RACK),
        Packet::reboot(mac(1), ip("192.0.2.1")),
        Packet::discover(mac(1)).relayed(ip("10.77.0.5")),
    ] {
        let outcome = rack.send(&packet);
        assert_eq!(outcome.dropped(), Some(DropReason::DhcpOff));
        assert_eq!(outcome.0.len(), 1);
    }
    let mut empty = Engine::default();
    let from = Received {
        link: LinkId(9),
        src: NONE,
        dst: Ipv4Addr::BROADCAST,
        src_mac: None,
    };
    let actions = empty.handle(&Packet::discover(mac(1)).bytes(), from, Timestamp(0));
    assert!(
        matches!(&actions[..], [Action::Dropped(dropped)] if dropped.reason == DropReason::UnknownLink)
    );
}

#[test]
fn what_is_not_for_us_is_dropped_with_its_reason() {
    let mut rack = Rack::new(&ordinary());
    let good = Packet::discover(mac(1)).bytes();
    let edit = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    for (bytes, reason) in [
        (vec![], DropReason::Malformed),
        (good[..239].to_vec(), DropReason::Malformed),
        (edit(236, 0), DropReason::Malformed),
        (edit(0, 2), DropReason::NotARequest),
        (edit(1, 32), DropReason::UnsupportedHardware),
        (edit(2, 7), DropReason::UnsupportedHardware),
        (edit(2, 255), DropReason::UnsupportedHardware),
        (edit(28, 0xff), DropReason::BadHardwareAddress),
        (edit(240, 99), DropReason::NotDhcp),
        (edit(242, 2), DropReason::UnsupportedType),
        (edit(242, 200), DropReason::UnsupportedType),
    ] {
        let expected = match reason {
            // A length of seven with a zero byte behind is padding.
            DropReason::UnsupportedHardware if bytes[2] == 7 => None,
            _ => Some(reason),
        };
        assert_eq!(
            rack.send_bytes(&bytes, Ipv4Addr::BROADCAST).dropped(),
            expected
        );
    }
    let nothing_named = Packet::new(mac(2), MessageType::Request);
    assert_eq!(
        rack.send(&nothing_named).dropped(),
        Some(DropReason::NoAddressNamed)
    );
    assert_eq!(rack.engine.stats().dropped(DropReason::Malformed), 3);
    assert_eq!(rack.engine.stats().dropped_total(), 11);
}

#[test]
fn one_malformed_option_costs_only_itself() {
    let mut rack = Rack::new(&ordinary());
    let mut bytes = Packet::discover(mac(1)).bytes();
    bytes.pop();
    // A host name that is no UTF-8, rapid commit with a body, a short FQDN, a requested address of 3 bytes.
    bytes.extend([
        12, 3, 0xff, 0xfe, b'a', 80, 1, 9, 81, 1, 0, 50, 3, 10, 77, 0, 93, 2, 0, 7, 255,
    ]);
    let outcome = rack.send_bytes(&bytes, Ipv4Addr::BROADCAST);
    assert_eq!(outcome.offered(), ip("10.77.0.100"));
    assert_eq!(outcome.observed()[0].client.hostname.as_deref(), Some("a"));
    assert_eq!(outcome.observed()[0].client.architecture, Some(7));
}

#[test]
fn a_client_without_hardware_address_is_known_by_its_frame() {
    let mut rack = Rack::new(&ordinary());
    let mut bytes = Packet::discover(mac(1)).bytes();
    bytes[2] = 0;
    bytes[28..34].fill(0);
    let from = Received {
        link: LINK,
        src: NONE,
        dst: Ipv4Addr::BROADCAST,
        src_mac: Some(mac(5)),
    };
    let outcome = Outcome(rack.engine.handle(&bytes, from, rack.now));
    assert_eq!(
        outcome.dest(),
        Dest::Hardware {
            mac: mac(5),
            address: ip("10.77.0.100")
        }
    );
    assert_eq!(outcome.reply().hlen(), 0);
}

#[test]
fn a_client_that_floods_is_ignored_and_others_are_not() {
    let mut rack = Rack::new(&ordinary());
    let answered = (0..200)
        .filter(|_| rack.send(&Packet::discover(mac(1))).dropped().is_none())
        .count();
    assert_eq!(answered, 40);
    assert_eq!(rack.engine.stats().dropped(DropReason::RateLimited), 160);
    rack.send(&Packet::discover(mac(2))).offered();
    rack.sleep_s(1);
    rack.send(&Packet::discover(mac(1))).offered();
}

#[test]
fn the_lease_table_forgets_the_dead_before_it_refuses_the_living() {
    let mut engine = Engine::with_leases_max(4);
    engine.set_config(compile(&ordinary()));
    let mut now = Timestamp(1_000_000);
    let from = Received {
        link: LINK,
        src: NONE,
        dst: Ipv4Addr::BROADCAST,
        src_mac: None,
    };
    let discover = |engine: &mut Engine, n, now| {
        Outcome(engine.handle(&Packet::discover(mac(n)).bytes(), from, now))
    };
    for n in 0..4 {
        let address = discover(&mut engine, n, now).offered();
        engine.handle(&Packet::select(mac(n), address, RACK).bytes(), from, now);
    }
    assert_eq!(
        discover(&mut engine, 9, now).dropped(),
        Some(DropReason::TableFull)
    );
    now.0 += 601_000;
    assert_eq!(discover(&mut engine, 9, now).offered(), ip("10.77.0.104"));
    assert_eq!(engine.lease_count(), 4);
    engine.check().unwrap();
}

#[test]
fn broadcast_flag_is_honoured() {
    let mut rack = Rack::new(&ordinary());
    let outcome = rack.send(&Packet::discover(mac(1)).broadcast());
    assert_eq!(outcome.dest(), Dest::Broadcast);
    assert!(outcome.reply().flags().broadcast());
}

#[test]
fn replies_fit_the_client_and_lose_the_least_wanted_first() {
    let mut stated = ordinary();
    stated.links[0].subnets[0].search = (0..20)
        .map(|n| format!("{}-{n}.example.com", "x".repeat(20)))
        .collect();
    stated.links[0].subnets[0].search.truncate(12);
    let mut rack = Rack::new(&stated);
    let small = rack.send(&Packet::discover(mac(1)).wanting(&[3, 119, 6]));
    assert!(small.sent()[0].bytes.len() <= 548);
    assert_eq!(option(&small.reply(), 119), None);
    assert!(option(&small.reply(), 6).is_some());
    let large = rack.send(
        &Packet::discover(mac(1))
            .wanting(&[3, 119, 6])
            .with(DhcpOption::MaxMessageSize(1500)),
    );
    let reply = large.reply();
    let Some(DhcpOption::DomainSearch(names)) = reply.opts().get(OptionCode::DomainSearch) else {
        panic!("no search list in {reply:?}");
    };
    assert_eq!(names.len(), 12);
}

#[test]
fn a_clock_set_back_or_far_ahead_breaks_nothing() {
    let mut rack = Rack::new(&ordinary());
    let address = rack.lease(mac(1));
    for now in [0, u64::MAX, 5, u64::MAX / 2, 1_700_000_000_000] {
        rack.now = Timestamp(now);
        rack.tick();
        rack.send(&Packet::discover(mac(1)));
        rack.send(&Packet::select(mac(1), address, RACK));
    }
    let none: Option<Mac> = None;
    assert_ne!(rack.engine.holder(address, rack.now), none);
}
