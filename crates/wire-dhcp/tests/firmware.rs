//! Packets of real clients (see `testdata/README.md`), from the frame on the wire to the boot file.

mod support;

use dhcproto::v4::DhcpOption;
use std::net::{Ipv4Addr, SocketAddrV4};
use support::*;
use wire_dhcp::boot::BootMethod;
use wire_dhcp::raw::{self, Envelope, UdpChecksum};
use wire_dhcp::{Dest, LinkId, Mac, probe, spec};

fn payload(frame: &[u8]) -> &[u8] {
    let parsed = raw::parse(frame).unwrap();
    assert_eq!(
        parsed.envelope.dst,
        SocketAddrV4::new(Ipv4Addr::BROADCAST, 67)
    );
    assert_eq!(parsed.envelope.src, SocketAddrV4::new(NONE, 68));
    assert_eq!(parsed.checksum, UdpChecksum::Valid);
    parsed.payload
}

fn file_field(outcome: &Outcome) -> String {
    let bytes = &outcome.sent()[0].bytes[108..236];
    let end = bytes.iter().position(|&byte| byte == 0).unwrap();
    String::from_utf8(bytes[..end].to_vec()).unwrap()
}

fn discover(rack: &mut Rack, name: &str) -> Outcome {
    let frame = frame(name);
    rack.send_bytes(payload(&frame), Ipv4Addr::BROADCAST)
}

#[test]
fn an_ipxe_rom_is_sent_to_its_script() {
    let mut rack = Rack::new(&ordinary());
    let outcome = discover(&mut rack, "ipxe_bios_discover");
    assert_eq!(file_field(&outcome), "http://10.77.0.1:5248/ipxe.cfg");
    let offer = outcome.reply();
    assert_eq!(
        option(&offer, 67),
        Some(b"http://10.77.0.1:5248/ipxe.cfg".to_vec())
    );
    assert_eq!(option(&offer, 66), Some(b"10.77.0.1".to_vec()));
    assert_eq!(
        option(&offer, 175),
        Some(vec![176, 1, 1]),
        "no waiting for ProxyDHCP"
    );
    assert_eq!(option(&offer, 51), Some(30u32.to_be_bytes().to_vec()));
    let observed = outcome.observed()[0];
    assert_eq!(observed.boot_method, Some(BootMethod::Ipxe));
    assert_eq!(observed.client.user_class.as_deref(), Some("iPXE"));
    assert_eq!(
        observed.client.vendor_class.as_deref(),
        Some("PXEClient:Arch:00000:UNDI:002001")
    );
    assert_eq!(observed.client.architecture, Some(0));
    let uuid = observed.client.uuid.unwrap();
    assert_eq!(uuid[..4], [0x11; 4]);
    assert_eq!(uuid[15], 1);
    assert_eq!(
        outcome.dest(),
        Dest::Hardware {
            mac: "52:54:00:12:34:01".parse().unwrap(),
            address: outcome.offered()
        }
    );
}

#[test]
fn an_ipxe_rom_gets_pxelinux_where_the_ipxe_method_is_disabled() {
    let mut stated = ordinary();
    stated.links[0].subnets[0].disabled_boot_methods = vec!["ipxe".into()];
    let mut rack = Rack::new(&stated);
    let outcome = discover(&mut rack, "ipxe_bios_discover");
    assert_eq!(file_field(&outcome), "lpxelinux.0");
    assert_eq!(
        option(&outcome.reply(), 210),
        Some(b"http://10.77.0.1:5248/".to_vec()),
        "although not asked for"
    );
    assert_eq!(
        outcome.observed()[0]
            .boot_method
            .unwrap()
            .bios_boot_method(),
        "pxe"
    );
}

#[test]
fn the_ipxe_roms_own_request_is_recognised_as_taking_another_servers_offer() {
    let mut rack = Rack::new(&ordinary());
    discover(&mut rack, "ipxe_bios_discover").offered();
    // Recorded with QEMU's built-in server, 10.77.0.2.
    let outcome = discover(&mut rack, "ipxe_bios_request");
    assert_eq!(outcome.sent().len(), 0);
    assert_eq!(rack.engine.leases().count(), 0);
    // The same beside our own address 10.77.0.2 is a request to us.
    let mut stated = ordinary();
    stated.links[0].addresses = vec![ip("10.77.0.2")];
    stated.links[0].subnets[0].dynamic = vec![range("10.77.0.15", "10.77.0.15")];
    let mut rack = Rack::new(&stated);
    assert_eq!(
        discover(&mut rack, "ipxe_bios_request").acked(),
        ip("10.77.0.15")
    );
}

#[test]
fn uefi_gets_a_loader_over_tftp_or_http_as_it_can() {
    let mut rack = Rack::new(&ordinary());
    let outcome = discover(&mut rack, "ovmf_pxe_discover");
    assert_eq!(file_field(&outcome), "bootx64.efi");
    assert_eq!(option(&outcome.reply(), 67), Some(b"bootx64.efi".to_vec()));
    assert_eq!(option(&outcome.reply(), 60), None);
    assert_eq!(outcome.reply().siaddr(), RACK);
    assert_eq!(outcome.dest(), Dest::Broadcast);
    assert_eq!(
        outcome.observed()[0].boot_method,
        Some(BootMethod::UefiAmd64Tftp)
    );

    let outcome = discover(&mut rack, "ovmf_http_discover");
    assert_eq!(
        file_field(&outcome),
        "http://10.77.0.1:5248/images/bootx64.efi"
    );
    assert_eq!(option(&outcome.reply(), 60), Some(b"HTTPClient".to_vec()));
    assert_eq!(
        option(&outcome.reply(), 51),
        Some(600u32.to_be_bytes().to_vec()),
        "not of the PXE class"
    );
    assert_eq!(
        outcome.observed()[0].boot_method,
        Some(BootMethod::UefiAmd64Http)
    );
}

#[test]
fn linux_clients_get_their_options_and_no_surprises() {
    let mut rack = Rack::new(&ordinary());
    for (name, hostname) in [
        ("udhcpc_discover", "node-04"),
        ("dhclient_discover", "node-05"),
    ] {
        let outcome = discover(&mut rack, name);
        let offer = outcome.reply();
        for code in [1, 3, 6, 15, 28] {
            assert!(option(&offer, code).is_some(), "{name}: option {code}");
        }
        for code in [43, 60, 66, 67, 82, 97, 175, 210] {
            assert_eq!(option(&offer, code), None, "{name}: option {code}");
        }
        assert_eq!(
            outcome.observed()[0].client.hostname.as_deref(),
            Some(hostname)
        );
        assert!(outcome.sent()[0].bytes.len() <= 548);
    }
}

#[test]
fn the_port_of_the_boot_service_is_configurable() {
    let mut stated = ordinary();
    stated.settings.http_port = 8080;
    let mut rack = Rack::new(&stated);
    assert_eq!(
        file_field(&discover(&mut rack, "ipxe_bios_discover")),
        "http://10.77.0.1:8080/ipxe.cfg"
    );
}

#[test]
fn machines_are_sent_to_the_racks_address_on_their_own_subnet() {
    let mut stated = ordinary();
    stated.links[0].addresses = vec![RACK, ip("10.92.0.1")];
    stated.links[0].subnets[0].dynamic = vec![];
    let mut second = subnet(2, "10.92.0.0/24");
    second.dynamic = vec![range("10.92.0.10", "10.92.0.19")];
    stated.links[0].subnets.push(second);
    let mut rack = Rack::new(&stated);
    let outcome = discover(&mut rack, "ipxe_bios_discover");
    assert_eq!(outcome.offered(), ip("10.92.0.10"));
    assert_eq!(outcome.reply().siaddr(), ip("10.92.0.1"));
    assert_eq!(file_field(&outcome), "http://10.92.0.1:5248/ipxe.cfg");
}

#[test]
fn the_user_class_is_read_with_and_without_length_bytes() {
    let mut rack = Rack::new(&ordinary());
    for class in [&b"iPXE"[..], b"\x04iPXE", b"\x04iPXE\x03foo"] {
        let outcome = rack.send(&Packet::discover(mac(1)).pxe(7).raw(77, class));
        assert_eq!(
            outcome.observed()[0].boot_method,
            Some(BootMethod::Ipxe),
            "{class:?}"
        );
    }
    let outcome = rack.send(&Packet::discover(mac(1)).pxe(7).raw(77, b"gPXE"));
    assert_eq!(
        outcome.observed()[0].boot_method,
        Some(BootMethod::UefiAmd64Tftp)
    );
    let features = rack.send(
        &Packet::discover(mac(1))
            .pxe(7)
            .raw(175, &[19, 1, 1, 36, 1, 1]),
    );
    assert_eq!(features.observed()[0].boot_method, Some(BootMethod::Ipxe));
    let without = rack.send(
        &Packet::discover(mac(1))
            .pxe(7)
            .raw(175, &[19, 1, 0, 36, 1, 1]),
    );
    assert_eq!(
        without.observed()[0].boot_method,
        Some(BootMethod::UefiAmd64Tftp)
    );
}

#[test]
fn the_reply_to_a_client_without_address_survives_the_frame() {
    let mut rack = Rack::new(&ordinary());
    let outcome = discover(&mut rack, "ipxe_bios_discover");
    let sent = outcome.sent()[0];
    let Dest::Hardware { mac, .. } = sent.dest else {
        panic!("{:?}", sent.dest)
    };
    let envelope = Envelope {
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        dst_mac: mac,
        src: SocketAddrV4::new(sent.source, 67),
        dst: sent.dest.socket(),
    };
    let frame = raw::build(&envelope, &sent.bytes).unwrap();
    let parsed = raw::parse(&frame).unwrap();
    assert_eq!(
        (parsed.envelope, parsed.payload),
        (envelope, &sent.bytes[..])
    );
}

#[test]
fn a_foreign_server_is_told_from_our_own() {
    let card = mac(77);
    let discover = probe::discover(card, 0xfeed_beef).unwrap();
    let mut foreign_spec = ordinary();
    foreign_spec.links[0].addresses = vec![ip("10.77.0.9")];
    let mut foreign = Rack::new(&foreign_spec);
    let outcome = foreign.send_bytes(&discover, Ipv4Addr::BROADCAST);
    assert_eq!(outcome.dest(), Dest::Broadcast);
    let bytes = &outcome.sent()[0].bytes;
    let sender = ip("10.77.0.9");
    let probe::ProbeAnswer::Foreign(found) =
        probe::inspect(bytes, sender, card, 0xfeed_beef, &[RACK])
    else {
        panic!("not seen as foreign");
    };
    assert_eq!(found.server, sender);
    assert_eq!(found.offered, ip("10.77.0.100"));
    assert_eq!(found.next_server, sender);
    assert_eq!(found.boot_file.as_deref(), Some("lpxelinux.0"));
    let ours = probe::inspect(bytes, sender, card, 0xfeed_beef, &[RACK, sender]);
    assert_eq!(ours, probe::ProbeAnswer::Ours(sender));
    for (bytes, xid, mac, why) in [
        (&bytes[..], 1, card, probe::Unrelated::OtherExchange),
        (
            &bytes[..],
            0xfeed_beef,
            support::mac(1),
            probe::Unrelated::OtherExchange,
        ),
        (
            &bytes[..200],
            0xfeed_beef,
            card,
            probe::Unrelated::Malformed,
        ),
        (
            &discover[..],
            0xfeed_beef,
            card,
            probe::Unrelated::NotAReply,
        ),
    ] {
        assert_eq!(
            probe::inspect(bytes, sender, mac, xid, &[]),
            probe::ProbeAnswer::Unrelated(why)
        );
    }
    let mut nak = foreign.send(&Packet::reboot(card, ip("192.0.2.1"))).sent()[0]
        .bytes
        .clone();
    nak[4..8].copy_from_slice(&0xfeed_beefu32.to_be_bytes());
    let answer = probe::inspect(&nak, sender, card, 0xfeed_beef, &[]);
    assert_eq!(
        answer,
        probe::ProbeAnswer::Unrelated(probe::Unrelated::NotAnOffer)
    );
}

#[test]
fn a_link_without_dhcp_leaves_firmware_to_other_servers() {
    let mut stated = ordinary();
    stated.links.push(spec::Link {
        id: LinkId(8),
        addresses: vec![],
        dhcp_on: false,
        subnets: vec![],
        relayed: vec![],
    });
    stated.links[0].dhcp_on = false;
    let mut rack = Rack::new(&stated);
    for name in [
        "ipxe_bios_discover",
        "ovmf_pxe_discover",
        "ovmf_http_discover",
        "udhcpc_discover",
    ] {
        assert_eq!(discover(&mut rack, name).sent().len(), 0);
    }
    let named = Packet::discover(mac(1)).with(DhcpOption::Hostname("x".into()));
    assert_eq!(rack.send(&named).sent().len(), 0);
}
