//! The XML in the manner of `lshw`, by which tags choose machines.

use serde_json::Map;

use super::{Report, live, report};
use crate::machines::{qemu, server};

/// Every node of the XML as a path of ids, with its texts.
fn nodes(xml: &str) -> Vec<(String, String, std::collections::BTreeMap<String, String>)> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut open: Vec<usize> = Vec::new();
    let mut out: Vec<(String, String, std::collections::BTreeMap<String, String>)> = Vec::new();
    let mut element = String::new();
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(e) if e.name().as_ref() == "node" => {
                let attribute = |n: &str| {
                    e.try_get_attribute(n)
                        .unwrap()
                        .map(|a| a.value.into_owned())
                        .unwrap()
                };
                let above = open
                    .last()
                    .map(|at| format!("{}/", out[*at].0))
                    .unwrap_or_default();
                out.push((
                    format!("{above}{}", attribute("id")),
                    attribute("class"),
                    Default::default(),
                ));
                open.push(out.len() - 1);
            }
            Event::End(e) if e.name().as_ref() == "node" => drop(open.pop()),
            Event::Start(e) => element = e.name().as_ref().to_owned(),
            Event::Empty(e) if e.name().as_ref() == "capability" => {
                let id = e
                    .try_get_attribute("id")
                    .unwrap()
                    .unwrap()
                    .value
                    .into_owned();
                out[*open.last().unwrap()]
                    .2
                    .entry("capabilities".into())
                    .or_default()
                    .push_str(&format!("{id} "));
            }
            Event::Text(t) => {
                let text: &str = &t;
                if let (Some(at), false) = (open.last(), text.trim().is_empty()) {
                    out[*at]
                        .2
                        .entry(element.clone())
                        .or_default()
                        .push_str(text);
                }
            }
            Event::Eof => return out,
            _ => {}
        }
    }
}

#[test]
fn lshw_xml_answers_what_tags_ask() {
    let dir = tempfile::tempdir().unwrap();
    let sys = server(dir.path());
    let xml = report(Report::Lshw, &sys, &live(Vec::new()), Map::new());
    assert!(xml.starts_with("<?xml version=\"1.0\" standalone=\"yes\" ?>\n<list>\n<node id=\"host\" claimed=\"true\" class=\"system\">"), "{xml}");
    let all = nodes(&xml);
    let text = |path: &str, element: &str| {
        let node = all.iter().find(|(p, _, _)| p == path).unwrap_or_else(|| {
            panic!(
                "no {path} in {:?}",
                all.iter().map(|(p, _, _)| p).collect::<Vec<_>>()
            )
        });
        node.2.get(element).cloned().unwrap_or_default()
    };
    assert_eq!(
        (
            text("host", "vendor"),
            text("host", "product"),
            text("host", "serial")
        ),
        (
            "Dell Inc.".into(),
            "PowerEdge R650".into(),
            "7Q0RJN2".into()
        )
    );
    assert!(text("host/core/cpu:1", "capabilities").contains("vmx "));
    assert_eq!(text("host/core/cpu:0", "capacity"), "3100000000");
    assert_eq!(text("host/core/memory", "size"), (32u64 << 30).to_string());
    assert_eq!(
        text("host/core/pci/display", "vendor"),
        "NVIDIA Corporation"
    );
    assert_eq!(
        text("host/core/pci/nvme/disk", "logicalname"),
        "/dev/nvme0n1"
    );
    assert_eq!(
        text("host/core/pci/nvme/disk/volume", "size"),
        (2048 * 512).to_string()
    );
    assert_eq!(text("host/core/pci/sata/disk:0", "serial"), "ZC1ABCDE");
    assert_eq!(
        text("host/core/pci/network/network:0", "size"),
        "25000000000"
    );
    assert!(
        xml.contains("<vendor>Dell &lt;iDRAC&gt; &amp; Co</vendor>")
            && xml.contains("<product>iDRAC &quot;NIC&quot;</product>"),
        "{xml}"
    );
}

#[test]
fn lshw_xml_of_a_virtual_machine_has_its_port_on_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let all = nodes(&report(
        Report::Lshw,
        &qemu(dir.path()),
        &live(Vec::new()),
        Map::new(),
    ));
    let node = |path: &str| {
        all.iter()
            .find(|(p, _, _)| p == path)
            .unwrap_or_else(|| panic!("no {path}"))
            .2
            .clone()
    };
    assert_eq!(
        (
            node("host/core/pci/network")["logicalname"].as_str(),
            node("host/core/pci/network")["serial"].as_str()
        ),
        ("eth0", "52:54:00:12:34:56")
    );
    assert_eq!(
        node("host/core/memory/bank")["size"],
        (1200u64 << 20).to_string()
    );
    assert_eq!(
        node("host/core/pci/storage/disk")["logicalname"],
        "/dev/vda"
    );
}
