use proptest::prelude::*;

use super::spec::*;
use super::*;

fn net(id: i64, cidr: &str, vid: i64) -> Net {
    Net {
        id,
        name: format!("net-{id}"),
        cidr: cidr.parse().unwrap(),
        space: Some((7, "dmz".to_owned())),
        vlan: Vlan {
            id: 100 + id,
            vid,
            name: format!("vlan-{vid}"),
            space: Some((7, "dmz".to_owned())),
            fabric: Fabric {
                id: 2,
                name: "east".to_owned(),
                class: Some("10g".to_owned()),
            },
        },
    }
}

fn facts() -> Facts {
    let n = net(3, "10.1.0.0/16", 5);
    Facts {
        system_id: "abc".to_owned(),
        hostname: "one".to_owned(),
        domain: "maas".to_owned(),
        zone: "z".to_owned(),
        zone_id: 4,
        pool: Some("p".to_owned()),
        pool_id: Some(0),
        status: Status::Ready.code(),
        architecture: "amd64/generic".to_owned(),
        cpu_count: 4,
        memory: 2048,
        tags: vec!["a".to_owned(), "b".to_owned()],
        ports: vec![Port {
            mac: Some("52:54:00:00:00:01".to_owned()),
            link_speed: 1000,
            vlan: Some(n.vlan.clone()),
            nets: vec![n],
        }],
        devices: vec![Device {
            vendor_id: "10de".to_owned(),
            product_id: "1eb8".to_owned(),
            ..Device::default()
        }],
        ..Facts::default()
    }
}

#[test]
fn a_subnet_is_known_by_every_name_it_has() {
    let n = net(3, "10.1.0.0/16", 5);
    for text in [
        "3",
        "id:3",
        "net-3",
        "name:net-3",
        "10.1.0.0/16",
        "cidr:10.1.0.0/16",
        "10.1.2.3/16",
        "ip:10.1.2.3",
        "space:dmz",
        "space:7",
        "vid:5",
        "vlan:5",
        "vlan:id:103",
        "vlan:name:vlan-5",
        "vlan:fabric:east",
        "fabric:2",
        "fabric:class:10g",
    ] {
        assert!(text.parse::<SubnetSpec>().unwrap().is(&n), "{text}");
    }
    for text in [
        "4",
        "net-4",
        "10.2.0.0/16",
        "ip:10.2.0.1",
        "space:x",
        "vid:6",
        "fabric:west",
    ] {
        assert!(!text.parse::<SubnetSpec>().unwrap().is(&n), "{text}");
    }
    assert!("fd00::/64".parse::<SubnetSpec>().is_ok());
    assert!("ip:nowhere".parse::<SubnetSpec>().is_err());
    assert!(
        "rack:1"
            .parse::<SubnetSpec>()
            .unwrap_err()
            .to_string()
            .contains("space")
    );
    let untagged = Vlan::default();
    assert!("untagged".parse::<VlanSpec>().unwrap().is(&untagged));
}

#[test]
fn each_constraint_lets_through_what_meets_it_and_nothing_else() {
    let n = facts();
    type Change = fn(&mut Wanted);
    let met: [Change; 12] = [
        |w| w.name = vec!["one.maas".to_owned()],
        |w| w.zone.any = vec!["4".to_owned()],
        |w| w.pool.any = vec!["other".to_owned(), "p".to_owned()],
        |w| w.arch.any = vec![architecture("x86_64")],
        |w| w.cpu_count = 4.0,
        |w| w.tags.any = vec!["a".to_owned(), "b".to_owned()],
        |w| w.link_speed = 1000.0,
        |w| w.fabric_classes.any = vec!["10g".to_owned()],
        |w| w.subnets.any = vec!["10.1.0.0/16".parse().unwrap()],
        |w| w.devices = DeviceSpec::parse("vendor_id=10DE,product_id=1eb8").unwrap(),
        |w| w.simple_status.any = vec![Simple::Ready],
        |w| w.owner.none = vec!["me".to_owned()],
    ];
    let unmet: [Change; 12] = [
        |w| w.name = vec!["two".to_owned()],
        |w| w.zone.none = vec!["z".to_owned()],
        |w| w.pool.none = vec!["p".to_owned()],
        |w| w.arch.none = vec!["amd64".to_owned()],
        |w| w.mem = 2048.5,
        |w| w.tags.any = vec!["a".to_owned(), "c".to_owned()],
        |w| w.link_speed = 10_000.0,
        |w| w.fabrics.none = vec![FabricSpec::Id(2)],
        |w| w.vlans.any = vec![VlanSpec::Vid(6)],
        |w| w.devices = DeviceSpec::parse("vendor_id=10de;vendor_id=8086").unwrap(),
        |w| w.status.none = vec![Status::Ready],
        |w| w.deployment_target.any = vec![true],
    ];
    for (i, change) in met.iter().enumerate() {
        let mut w = Wanted::default();
        change(&mut w);
        assert!(w.met_by(&n), "{i}: {w:?}");
    }
    for (i, change) in unmet.iter().enumerate() {
        let mut w = Wanted::default();
        change(&mut w);
        assert!(!w.met_by(&n), "{i}: {w:?}");
    }
}

#[test]
fn every_status_has_its_coarse_one() {
    for code in 0..=22 {
        let simple = Simple::of(Status::from_code(code).unwrap());
        assert!(
            Simple::WORDS
                .iter()
                .any(|(w, s)| *s == simple && w.parse() == Ok(simple))
        );
    }
}

proptest! {
    /// A name and the same one negated never meet together, and one of the two always is.
    #[test]
    fn a_negation_is_the_opposite(asked in "[a-c]{1,2}", tags in proptest::collection::vec("[a-c]{1,2}", 0..4)) {
        let n = Facts { zone: asked.clone(), tags: tags.clone(), ..facts() };
        let with = Wanted { tags: OneOf { any: vec![asked.clone()], none: vec![] }, ..Wanted::default() };
        let without = Wanted { tags: OneOf { any: vec![], none: vec![asked.clone()] }, ..Wanted::default() };
        prop_assert_ne!(with.met_by(&n), without.met_by(&n));
        prop_assert_eq!(with.met_by(&n), tags.contains(&asked));
    }

    /// Whatever is written is read or refused; it never ends the program.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = (text.parse::<SubnetSpec>().ok(), text.parse::<VlanSpec>().ok(), text.parse::<FabricSpec>().ok());
        let _ = (DeviceSpec::parse(&text).ok(), architecture(&text));
    }
}
