use proptest::prelude::*;

use super::*;

/// A small machine: a bus with two displays and a memory of two banks.
fn machine() -> Document {
    let mut d = Document::default();
    let list = d.element(Document::ROOT, "list").unwrap();
    let node = |d: &mut Document, parent: NodeId, id: &str, class: &str| {
        let n = d.element(parent, "node").unwrap();
        d.attribute(n, "id", id);
        d.attribute(n, "class", class);
        n
    };
    let say = |d: &mut Document, parent: NodeId, name: &str, text: &str| {
        let n = d.element(parent, name).unwrap();
        d.text(n, text);
        n
    };
    let host = node(&mut d, list, "host", "system");
    say(&mut d, host, "vendor", "QEMU");
    let memory = node(&mut d, host, "memory", "memory");
    let size = say(&mut d, memory, "size", "4294967296");
    d.attribute(size, "units", "bytes");
    for (id, bytes) in [("bank:0", "2147483648"), ("bank:1", "2147483648")] {
        let bank = node(&mut d, memory, id, "memory");
        say(&mut d, bank, "size", bytes);
    }
    for (id, vendor) in [
        ("display:0", "NVIDIA Corporation"),
        ("display:1", "Matrox  Electronics"),
    ] {
        let display = node(&mut d, host, id, "display");
        say(&mut d, display, "vendor", vendor);
    }
    let lldp = d.element(list, "lldp:lldp").unwrap();
    say(&mut d, lldp, "lldp:port", "eth7");
    d
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let e: Expression = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(e.string(&machine()).unwrap(), expected, "{text}");
}

#[test]
fn paths_and_predicates_find_what_they_name() {
    for (text, expected) in [
        ("//node[@id='display:0']/vendor", "NVIDIA Corporation"),
        ("//node[@class=\"system\"]/vendor = 'QEMU'", "true"),
        ("count(//node[@class='display'])", "2"),
        ("count(//node)", "6"),
        ("/list/node/node[2]/@id", "display:0"),
        ("/list/node/node[last()]/@id", "display:1"),
        ("//node[position() = 3]/@id", "display:1"),
        ("(//node)[3]/@id", "bank:0"),
        ("//size[@units]", "4294967296"),
        ("//node[vendor[contains(., 'NVIDIA')]]/@class", "display"),
        ("//vendor/../@id", "host"),
        ("//node[@id='bank:1']/ancestor::node[1]/@id", "memory"),
        ("//node[@id='bank:1']/ancestor::node[last()]/@id", "host"),
        ("//node[@id='bank:1']/preceding-sibling::node/@id", "bank:0"),
        (
            "//node[@id='memory']/following-sibling::node[1]/@id",
            "display:0",
        ),
        (
            "//node[@id='bank:1']/following::vendor",
            "NVIDIA Corporation",
        ),
        ("count(//node[@id='display:1']/preceding::node)", "4"),
        (
            "descendant::node[self::node[@id='memory']]/size",
            "4294967296",
        ),
        ("//lldp:port", "eth7"),
        ("local-name(//lldp:*[2])", ""),
        ("local-name(/list/lldp:*)", "lldp"),
        ("name(//@units)", "units"),
        ("//node/text()", ""),
        ("string(//node[@id='display:1'])", "Matrox  Electronics"),
        ("//*[@id='nothing']", ""),
        (
            "/",
            "QEMU429496729621474836482147483648NVIDIA CorporationMatrox  Electronicseth7",
        ),
        (
            "count(//node[@id='host'] | //node[@id='host'] | //vendor)",
            "4",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn operators_bind_as_the_standard_says() {
    for (text, expected) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("10 div 4", "2.5"),
        ("-7 mod 3", "-1"),
        ("- - 3", "3"),
        ("2 - 1 - 1", "0"),
        ("1 = 1 = 1", "true"),
        ("true() or false() and false()", "true"),
        ("3 > 2 > 1", "false"),
        ("//size > 4000000000", "true"),
        ("4000000000 < //size", "true"),
        ("//size != 2147483648", "true"),
        ("not(//size = 1)", "true"),
        (
            "sum(//node[@id='memory']/node/size) = //node[@id='memory']/size",
            "true",
        ),
        ("'a' = 'a'", "true"),
        ("1 div 0", "Infinity"),
        ("number('x')", "NaN"),
        ("boolean('')", "false"),
        ("//vendor = true()", "true"),
    ] {
        check(text, expected);
    }
}

#[test]
fn functions_do_what_the_standard_says() {
    for (text, expected) in [
        ("concat('a', 1, true())", "a1true"),
        ("substring('12345', 2, 3)", "234"),
        ("substring('12345', 1.5, 2.6)", "234"),
        ("substring('12345', 0 div 0)", ""),
        ("substring('12345', -1)", "12345"),
        ("substring-before('1999/04/01', '/')", "1999"),
        ("substring-after('1999/04/01', '/')", "04/01"),
        ("string-length('äb')", "2"),
        ("normalize-space('  a  b ')", "a b"),
        ("translate('--aaa--', 'abc-', 'ABC')", "AAA"),
        ("starts-with('abc', 'ab')", "true"),
        ("round(-1.5)", "-1"),
        ("floor(2.7) + ceiling(2.1)", "5"),
        (
            "//node[normalize-space(vendor) = 'Matrox Electronics']/@id",
            "display:1",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    for text in [
        "",
        "//",
        "node[",
        "node]",
        "foo(",
        "nope()",
        "count()",
        "count(1, 2)",
        "1 +",
        "'open",
        "a b",
        "sideways::node",
        "@",
        "$x",
        "a/'b'",
        "\u{0}",
    ] {
        assert!(text.parse::<Expression>().is_err(), "{text}");
    }
    let e = "//node[@id = ]".parse::<Expression>().unwrap_err();
    assert!(matches!(e, XPathError::Syntax { at: 14, .. }), "{e:?}");
    assert_eq!("(".repeat(500).parse::<Expression>(), Err(XPathError::Deep));
    assert_eq!(
        " ".repeat(MAX_EXPRESSION + 1).parse::<Expression>(),
        Err(XPathError::Long)
    );
    let e: Expression = "count(1)".parse().unwrap();
    assert_eq!(e.is_true(&machine()), Err(XPathError::NotNodes("count()")));
}

#[test]
fn an_expression_that_looks_at_too_much_is_stopped() {
    let mut d = Document::default();
    let list = d.element(Document::ROOT, "list").unwrap();
    for _ in 0..2_000 {
        d.element(list, "node").unwrap();
    }
    let e: Expression = "//node[//node[//node[//nothing]]]".parse().unwrap();
    assert_eq!(e.is_true(&d), Err(XPathError::Work));
}

proptest! {
    /// Whatever is written is read or refused, and what is read is answered or refused.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-c/@\\[\\]()*|<>=.:'\"0-9 +-]{0,40}") {
        if let Ok(e) = text.parse::<Expression>() {
            let _ = e.is_true(&machine()).ok();
        }
    }

    /// A comparison and its mirror agree.
    #[test]
    fn comparisons_have_a_mirror(a in -100i32..100, b in -100i32..100) {
        let d = Document::default();
        for (op, mirror) in [("<", ">"), ("<=", ">="), ("=", "="), ("!=", "!=")] {
            let one: Expression = format!("{a} {op} {b}").parse().unwrap();
            let other: Expression = format!("{b} {mirror} {a}").parse().unwrap();
            prop_assert_eq!(one.is_true(&d), other.is_true(&d));
        }
    }
}
