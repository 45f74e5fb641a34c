//! What commissioning found on a machine as one document: the hardware listing as it is, and the same again
//! with the prefix `lshw:`, beside what the neighbours said with the prefix `lldp:`.

use metal::xpath::{Document, NodeId};
use quick_xml::Reader;
use quick_xml::events::Event;

/// Most bytes of one listing that are read.
pub const MAX_XML: usize = 16 << 20;
/// Deepest element that is kept.
const MAX_DEPTH: usize = 256;

/// Whether the outermost element is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outer {
    Keep,
    /// Its children stand in its place when it has this name.
    Open(&'static str),
}

/// The document of these listings. What cannot be read ends where it cannot.
#[must_use]
pub fn document(lshw: Option<&[u8]>, lldp: Option<&[u8]>) -> Document {
    let mut doc = Document::default();
    let Some(list) = doc.element(Document::ROOT, "list") else {
        return doc;
    };
    if let Some(xml) = lshw {
        graft(&mut doc, list, xml, "", Outer::Open("list"));
        graft(&mut doc, list, xml, "lshw:", Outer::Keep);
    }
    if let Some(xml) = lldp {
        graft(&mut doc, list, xml, "lldp:", Outer::Keep);
    }
    doc
}

fn graft(doc: &mut Document, below: NodeId, xml: &[u8], prefix: &str, outer: Outer) {
    let Ok(text) = std::str::from_utf8(xml.get(..MAX_XML).unwrap_or(xml)) else {
        return;
    };
    let mut reader = Reader::from_str(text);
    // Where the next node goes; an element that is left out counts with its parent.
    let mut open: Vec<NodeId> = vec![below];
    loop {
        let event = match reader.read_event() {
            Ok(e) => e,
            Err(e) => {
                tracing::debug!(error = %e, "a hardware listing is not well-formed; the rest is left out");
                return;
            }
        };
        let parent = *open.last().unwrap_or(&below);
        match event {
            Event::Start(ref e) | Event::Empty(ref e) => {
                let name = e.name().as_ref().to_owned();
                let is_outer = open.len() == 1;
                let id = if open.len() > MAX_DEPTH
                    || is_outer && matches!(outer, Outer::Open(n) if n == name)
                {
                    parent
                } else {
                    let Some(id) = doc.element(parent, &format!("{prefix}{name}")) else {
                        return;
                    };
                    for a in e.attributes().flatten() {
                        let value = quick_xml::escape::unescape(&a.value).unwrap_or_default();
                        doc.attribute(id, a.key.as_ref(), &value);
                    }
                    id
                };
                if matches!(event, Event::Start(_)) {
                    open.push(id);
                }
            }
            Event::End(_) if open.len() > 1 => {
                open.pop();
            }
            Event::Text(t) if open.len() > 1 && !t.trim().is_empty() => doc.text(parent, &t),
            Event::CData(t) if open.len() > 1 => doc.text(parent, &t),
            Event::GeneralRef(r) if open.len() > 1 => {
                let written = format!("&{};", &*r);
                if let Ok(meant) = quick_xml::escape::unescape(&written) {
                    doc.text(parent, &meant);
                }
            }
            Event::Eof => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metal::xpath::Expression;

    const LSHW: &[u8] = br#"<?xml version="1.0"?><!-- made by hand --><list><node id="host" class="system"><product>A &amp; B</product>
        <node id="cpu:0" class="processor"><capabilities><capability id="vmx">V</capability></capabilities><size units="Hz">100</size></node>
        </node></list>"#;
    const LLDP: &[u8] =
        b"<lldp><interface name=\"eth0\"><chassis>switch</chassis></interface></lldp>";

    #[test]
    fn a_definition_sees_the_listing_with_and_without_its_prefix() {
        let doc = document(Some(LSHW), Some(LLDP));
        for (text, expected) in [
            ("/list/node/@id", "host"),
            (
                "//node[@id='cpu:0']/capabilities/capability/@id = 'vmx'",
                "true",
            ),
            ("//product", "A & B"),
            ("count(//node)", "2"),
            ("count(//lshw:node)", "2"),
            ("//lshw:list/lshw:node/@class", "system"),
            ("//lldp:interface[@name='eth0']/lldp:chassis", "switch"),
            ("//node[@id='cpu:0']/size > 50", "true"),
        ] {
            let e: Expression = text.parse().unwrap();
            assert_eq!(e.string(&doc).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_listing_is_an_empty_document() {
        for xml in [&b""[..], b"\xff", b"<list", b"plain text", b"</list>"] {
            let e: Expression = "count(//node)".parse().unwrap();
            assert_eq!(e.string(&document(Some(xml), None)).unwrap(), "0");
        }
    }
}
