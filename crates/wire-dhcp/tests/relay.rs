//! Relay agents: RFC 2131 §4.1, RFC 3046, RFC 3527, RFC 5107.

mod support;

use dhcproto::v4::{DhcpOption, OptionCode};
use std::net::Ipv4Addr;
use support::*;
use wire_dhcp::spec;
use wire_dhcp::{Dest, DropReason, LinkId, Received};

/// The ordinary VLAN, one relayed VLAN found by its subnet, one by its agent's address.
fn relayed() -> spec::Config {
    let mut stated = ordinary();
    let mut near = subnet(2, "10.88.0.0/24");
    near.gateway = Some(ip("10.88.0.254"));
    near.dynamic = vec![range("10.88.0.10", "10.88.0.19")];
    let mut second = subnet(3, "10.89.0.0/24");
    second.dynamic = vec![range("10.89.0.10", "10.89.0.19")];
    let mut far = subnet(4, "10.90.0.0/24");
    far.dynamic = vec![range("10.90.0.10", "10.90.0.19")];
    stated.links[0].relayed = vec![
        spec::Relayed {
            giaddrs: vec![],
            subnets: vec![near, second],
        },
        spec::Relayed {
            giaddrs: vec![ip("172.16.0.1")],
            subnets: vec![far],
        },
    ];
    stated
}

#[test]
fn the_relay_agents_address_chooses_the_subnet() {
    let mut rack = Rack::new(&relayed());
    for (n, giaddr, address) in [
        (1, "10.88.0.1", "10.88.0.10"),
        (2, "10.89.0.1", "10.89.0.10"),
        (3, "172.16.0.1", "10.90.0.10"),
        (4, "10.77.0.5", "10.77.0.100"),
    ] {
        let outcome = rack.send_unicast(&Packet::discover(mac(n)).relayed(ip(giaddr)));
        assert_eq!(outcome.offered(), ip(address));
        assert_eq!(outcome.dest(), Dest::Relay(ip(giaddr)));
        assert_eq!(outcome.dest().socket().port(), 67);
        let reply = outcome.reply();
        assert_eq!(reply.giaddr(), ip(giaddr));
        assert_eq!(reply.siaddr(), RACK);
        let ack = rack.send_unicast(&Packet::select(mac(n), ip(address), RACK).relayed(ip(giaddr)));
        assert_eq!(ack.acked(), ip(address));
    }
    let unknown = rack.send_unicast(&Packet::discover(mac(5)).relayed(ip("192.0.2.1")));
    assert_eq!(unknown.dropped(), Some(DropReason::UnknownRelay));
    let own = rack.send_unicast(&Packet::discover(mac(5)).relayed(RACK));
    assert_eq!(own.dropped(), Some(DropReason::RelayIsSelf));
}

#[test]
fn relay_information_is_copied_back_unchanged_as_the_last_option() {
    let mut rack = Rack::new(&relayed());
    let info = [1, 4, b'p', b'o', b'r', b't', 2, 2, 0, 9, 200, 0];
    for packet in [
        Packet::discover(mac(1)),
        Packet::select(mac(1), ip("10.88.0.10"), RACK),
        Packet::reboot(mac(2), ip("10.88.0.10")),
    ] {
        let outcome = rack.send_unicast(&packet.raw(82, &info).relayed(ip("10.88.0.1")));
        let bytes = &outcome.sent()[0].bytes;
        let end = bytes.iter().rposition(|&byte| byte == 255).unwrap();
        assert_eq!(bytes[end - info.len()..end], info);
        assert_eq!(
            bytes[end - info.len() - 2..end - info.len()],
            [82, info.len() as u8]
        );
    }
}

#[test]
fn a_full_reply_leaves_room_for_the_relay_information() {
    let mut stated = relayed();
    let subnet = &mut stated.links[0].relayed[0].subnets[0];
    subnet.search = (0..10)
        .map(|n| format!("{}{n}.example.com", "x".repeat(20)))
        .collect();
    let mut rack = Rack::new(&stated);
    let info = [[1, 250].as_slice(), &[7; 250]].concat();
    let packet = Packet::discover(mac(1))
        .wanting(&[119, 3])
        .raw(82, &info)
        .relayed(ip("10.88.0.1"));
    let outcome = rack.send_unicast(&packet);
    let bytes = &outcome.sent()[0].bytes;
    assert!(bytes.len() <= 548, "{}", bytes.len());
    assert!(bytes.windows(info.len()).any(|window| window == info));
    assert_eq!(option(&outcome.reply(), 3), Some(vec![10, 88, 0, 254]));
}

#[test]
fn link_selection_overrides_the_agents_address() {
    let mut rack = Rack::new(&relayed());
    let info = [5, 4, 10, 89, 0, 0];
    let outcome = rack.send_unicast(
        &Packet::discover(mac(1))
            .raw(82, &info)
            .relayed(ip("10.88.0.1")),
    );
    assert_eq!(outcome.offered(), ip("10.89.0.10"));
    assert_eq!(outcome.dest(), Dest::Relay(ip("10.88.0.1")));
    let unknown = [5, 4, 192, 0, 2, 0];
    let outcome = rack.send_unicast(
        &Packet::discover(mac(1))
            .raw(82, &unknown)
            .relayed(ip("10.88.0.1")),
    );
    assert_eq!(outcome.dropped(), Some(DropReason::UnknownRelay));
    let option_118 = Packet::discover(mac(2)).with(DhcpOption::SubnetSelection(ip("10.90.0.0")));
    assert_eq!(
        rack.send_unicast(&option_118.relayed(ip("10.88.0.1")))
            .offered(),
        ip("10.90.0.10")
    );
}

#[test]
fn server_identifier_override_is_taken_over_and_recognised() {
    let mut rack = Rack::new(&relayed());
    let info = [11, 4, 10, 88, 0, 1];
    let offer = rack.send_unicast(
        &Packet::discover(mac(1))
            .raw(82, &info)
            .relayed(ip("10.88.0.1")),
    );
    let server = ip("10.88.0.1");
    assert_eq!(
        offer.reply().opts().get(OptionCode::ServerIdentifier),
        Some(&DhcpOption::ServerIdentifier(server))
    );
    let select = Packet::select(mac(1), offer.offered(), server)
        .raw(82, &info)
        .relayed(server);
    assert_eq!(rack.send_unicast(&select).acked(), ip("10.88.0.10"));
    let without = Packet::select(mac(1), ip("10.88.0.10"), server).relayed(server);
    assert_eq!(
        rack.send_unicast(&without).dropped(),
        Some(DropReason::OtherServer)
    );
}

#[test]
fn a_relayed_nak_asks_the_agent_to_broadcast() {
    let mut rack = Rack::new(&relayed());
    let outcome =
        rack.send_unicast(&Packet::reboot(mac(1), ip("10.77.0.100")).relayed(ip("10.88.0.1")));
    outcome.naked();
    assert_eq!(outcome.dest(), Dest::Relay(ip("10.88.0.1")));
    assert!(outcome.reply().flags().broadcast());
}

#[test]
fn a_client_behind_the_relay_renews_by_unicast() {
    let mut rack = Rack::new(&relayed());
    let giaddr = ip("10.88.0.1");
    let address = rack
        .send_unicast(&Packet::discover(mac(1)).relayed(giaddr))
        .offered();
    rack.send_unicast(&Packet::select(mac(1), address, RACK).relayed(giaddr))
        .acked();
    let outcome = rack.send_unicast(&Packet::renew(mac(1), address));
    assert_eq!(outcome.acked(), address);
    assert_eq!(outcome.dest(), Dest::Client(address));
    // By broadcast it is a machine that was moved to the other VLAN.
    rack.send(&Packet::renew(mac(1), address)).naked();
    let unknown = rack.send_unicast(&Packet::renew(mac(1), ip("192.0.2.7")));
    assert_eq!(unknown.dropped(), Some(DropReason::WrongNetwork));
    let released = rack.send_unicast(&Packet::release(mac(1), address));
    assert_eq!(released.persisted().len(), 1);
}

#[test]
fn subnets_of_one_wire_share_their_addresses_and_a_full_one_overflows() {
    let mut rack = Rack::new(&relayed());
    let giaddr = ip("10.88.0.1");
    let offered: Vec<Ipv4Addr> = (0..20)
        .map(|n| {
            rack.send_unicast(&Packet::discover(mac(n)).relayed(giaddr))
                .offered()
        })
        .collect();
    assert!(
        offered[..10]
            .iter()
            .all(|address| address.octets()[1] == 88),
        "the agent's own subnet first"
    );
    assert!(
        offered[10..]
            .iter()
            .all(|address| address.octets()[1] == 89)
    );
    let full = rack.send_unicast(&Packet::discover(mac(20)).relayed(giaddr));
    assert_eq!(full.dropped(), Some(DropReason::NoFreeAddress));
}

#[test]
fn a_reservation_holds_on_its_own_network_only() {
    let mut stated = relayed();
    reserve(&mut stated, mac(1), "10.88.0.200");
    reserve(&mut stated, mac(1), "10.77.0.200");
    reserve(&mut stated, mac(2), "10.90.0.200");
    let mut rack = Rack::new(&stated);
    assert_eq!(
        rack.send(&Packet::discover(mac(1))).offered(),
        ip("10.77.0.200")
    );
    let there = rack.send_unicast(&Packet::discover(mac(1)).relayed(ip("10.88.0.1")));
    assert_eq!(there.offered(), ip("10.88.0.200"));
    assert_eq!(
        rack.send(&Packet::discover(mac(2))).offered(),
        ip("10.77.0.100")
    );
}

#[test]
fn a_machine_on_two_networks_has_a_lease_on_each() {
    let mut rack = Rack::new(&relayed());
    let here = rack.lease(mac(1));
    let giaddr = ip("10.88.0.1");
    let there = rack
        .send_unicast(&Packet::discover(mac(1)).relayed(giaddr))
        .offered();
    rack.send_unicast(&Packet::select(mac(1), there, RACK).relayed(giaddr))
        .acked();
    assert_eq!(rack.engine.holder(here, rack.now), Some(mac(1)));
    assert_eq!(rack.engine.holder(there, rack.now), Some(mac(1)));
}

#[test]
fn replies_leave_by_the_interface_they_were_asked_on() {
    let mut stated = relayed();
    stated.links.push(spec::Link {
        id: LinkId(4),
        addresses: vec![ip("10.91.0.1")],
        dhcp_on: true,
        subnets: vec![],
        relayed: vec![],
    });
    let mut rack = Rack::new(&stated);
    let from = Received {
        link: LinkId(4),
        src: ip("10.88.0.1"),
        dst: RACK,
        src_mac: None,
    };
    let packet = Packet::discover(mac(1)).relayed(ip("10.88.0.1")).bytes();
    let outcome = Outcome(rack.engine.handle(&packet, from, rack.now));
    assert_eq!(outcome.sent()[0].link, LinkId(4));
    assert_eq!(outcome.offered(), ip("10.88.0.10"));
}
