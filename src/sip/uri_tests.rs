use super::*;

fn uri(text: &str) -> Uri {
    Uri::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn what_was_parsed_is_printed_byte_for_byte() {
    for text in [
        "sip:a%40b;x=y@h;lr?Subject=hi",
        "SIP:User:pa%20ss@Example.COM:05060;Transport=TCP;lr?X=1&Y=",
        "sips:[2001:db8::1]:5061;transport=tls",
        "sip:[::ffff:192.0.2.1]",
        "tel:+1-(201)-555-0123;phone-context=example.com",
        "urn:service:sos.fire",
        "nobodyKnowsThisScheme:totallyopaquecontent",
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com",
        "sip:host",
    ] {
        assert_eq!(uri(text).to_string(), text);
    }
}

#[test]
fn the_parts_of_a_hard_uri_are_found() {
    let it = uri("sip:a%40b;x=y@h;lr?Subject=hi");
    assert_eq!(it.user(), Some("a%40b;x=y"));
    assert_eq!(it.user_unescaped().as_deref(), Some("a@b;x=y"));
    assert_eq!(it.host(), Host::parse("h").as_ref());
    assert!(it.is_loose_router());
    assert_eq!(it.headers().collect::<Vec<_>>(), [("Subject", "hi")]);
    assert_eq!(it.without_headers().to_string(), "sip:a%40b;x=y@h;lr");

    let it = uri("sips:bob:secret@[2001:db8::9]:5061;transport=tls;maddr=x");
    assert_eq!(it.scheme(), Scheme::Sips);
    assert_eq!(it.password(), Some("secret"));
    assert_eq!(it.host().and_then(Host::ip), "2001:db8::9".parse().ok());
    assert_eq!(it.port(), Some(5061));
    assert_eq!(it.param("TRANSPORT"), Some("tls"));
    assert_eq!(it.params().count(), 2);
}

#[test]
fn malformed_uris_are_refused_with_the_part_that_is_wrong() {
    for (text, error) in [
        ("", UriError::Scheme),
        ("example.com", UriError::Scheme),
        ("1sip:a@b", UriError::Scheme),
        ("sip:", UriError::Host),
        ("sip:@host", UriError::User),
        ("sip:a@b@c", UriError::User),
        ("sip:a@", UriError::Host),
        ("sip:a@host:", UriError::Host),
        ("sip:a@host:0", UriError::Host),
        ("sip:a@host:65536", UriError::Host),
        ("sip:a@host:-5", UriError::Host),
        ("sip:a@[::1", UriError::Host),
        ("sip:a@[fe80::1%25eth0]", UriError::Host),
        ("sip:a@ho%00st", UriError::Host),
        ("sip:a@host;;lr", UriError::Params),
        ("sip:a@host;=x", UriError::Params),
        ("sip:a@host>", UriError::Byte),
        ("sip:a b@host", UriError::Byte),
        ("sip:a@host\r\nX: y", UriError::Byte),
        ("tel:", UriError::User),
        ("urn:", UriError::User),
    ] {
        assert_eq!(Uri::parse(text).err(), Some(error), "{text:?}");
    }
    assert_eq!(Uri::parse(&format!("sip:{}@h", "a".repeat(70_000))).err(), Some(UriError::TooLong));
}

#[test]
fn equality_follows_the_examples_of_rfc_3261_section_19_1_4() {
    for (a, b) in [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("tel:+1-201-555-0123", "tel:+1(201)5550123"),
        ("sip:a@[2001:DB8::1]", "sip:a@[2001:db8:0::1]"),
    ] {
        assert!(uri(a).equivalent(&uri(b)) && uri(b).equivalent(&uri(a)), "{a} {b}");
    }
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@c.com;security=on", "sip:carol@c.com;security=off"),
        ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
        ("tel:+12015550123", "tel:+12015550124"),
    ] {
        assert!(!uri(a).equivalent(&uri(b)), "{a} {b}");
    }
}

#[test]
fn dialled_numbers_lose_their_visual_separators() {
    for (text, number) in [
        ("tel:+1-(201)-555.0123;ext=5", Some("+12015550123")),
        ("sip:+12015550123;phone-context=x@h;user=phone", Some("+12015550123")),
        ("sip:*72%23@h", Some("*72#")),
        ("sip:alice@h", None),
        ("sip:+@h", None),
        ("sip:h", None),
        ("urn:service:112", None),
    ] {
        assert_eq!(uri(text).number().as_deref(), number, "{text}");
    }
}

#[test]
fn a_built_uri_escapes_what_could_break_it() {
    let host = Host::parse("h.example").unwrap();
    let it = Uri::sip(Some("a b@c\r\nd>"), &host, Some(5061));
    assert_eq!(it.to_string(), "sip:a%20b%40c%0D%0Ad%3E@h.example:5061");
    assert_eq!(Uri::parse(it.as_str()).unwrap().user_unescaped(), it.user_unescaped());
    assert_eq!(Uri::sip(None, &Host::Name("x\r\ny".into()), None).to_string(), "sip:invalid");
    assert_eq!(Uri::sips(None, &Host::V6(Ipv6Addr::LOCALHOST), None).to_string(), "sips:[::1]");
}

#[test]
fn parameters_are_added_replaced_and_removed_before_the_headers() {
    let it = uri("sip:a@h;x=1;lr?Subject=hi");
    assert_eq!(it.with_param("X", Some("2;3")).to_string(), "sip:a@h;lr;X=2%3B3?Subject=hi");
    assert_eq!(it.without_param("lr").to_string(), "sip:a@h;x=1?Subject=hi");
    assert_eq!(
        uri("sip:a@h").with_param("transport", Some("tls")).to_string(),
        "sip:a@h;transport=tls"
    );
    assert_eq!(uri("urn:x:y").with_param("lr", None).to_string(), "urn:x:y");
}

#[test]
fn debug_output_names_nobody() {
    let printed = format!("{:?} {:?}", uri("sip:alice:pw@h"), uri("tel:+15550100"));
    assert_eq!(printed, "sip:[user]@h tel:[user]");
}
