//! What DEPENDENCIES.md section 4 lists, and the kinds of message that RFC 4475 torments parsers
//! with, in our own words.

use super::*;
use crate::fields::Contacts;
use crate::uri::Scheme;
use crate::via::Via;

/// Every `\n` of `text` becomes CRLF.
fn raw(text: &str) -> Bytes {
    text.replace('\n', "\r\n").into()
}

fn head(start: &str, extra: &str) -> String {
    let method = start.split(' ').next().unwrap_or_default();
    format!(
        "{start}\nVia: SIP/2.0/TLS a.example;branch=z9hG4bK1;rport\nFrom: <sip:a@h>;tag=1\n\
         To: <sip:b@h>\nCall-ID: c1\nCSeq: 1 {method}\nMax-Forwards: 70\n{extra}"
    )
}

fn invite(extra: &str) -> Bytes {
    raw(&(head("INVITE sip:b@h SIP/2.0", extra) + "\n"))
}

fn request(bytes: &Bytes) -> Request {
    match datagram(bytes) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn fault(bytes: &Bytes) -> ParseFault {
    datagram(bytes).expect_err("a fault").error.fault
}

fn malformed(name: Name) -> ParseFault {
    ParseFault::Header(HeaderError { name, fault: HeaderFault::Malformed })
}

#[test]
fn compact_folded_and_oddly_spaced_fields_are_read() {
    let it = request(&raw("INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\n\
         TO :\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\n\
         f   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\n  ;\n  tag = 98asjd8\n\
         MaX-fOrWaRdS: 0068\ni: wsinv.ndaksdj@192.0.2.1\n\
         cseq: 0009\n  INVITE\n\
         V  : SIP  /   2.0\n /UDP\n    192.0.2.2;branch=390skdjuw\n\
         s :\nNewFangledHeader:   newfangled value\n continued newfangled value\n\
         UnknownHeaderWithUnusualValue: ;;,,;;,;\n\
         k: timer,100rel\nl:  0\n\
         Route:\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\n\
         v:  SIP  / 2.0  / TCP     spindle.example.com   ;\n  branch  =   z9hG4bK9ikj8  ,\n \
         SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n z9hG4bK30239\n\
         m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\n      newvalue ;\n  \
         secondparam ; q = 0.33\n\n"));
    assert_eq!(it.headers.to_tag().as_deref(), Some("1918181833n"));
    assert_eq!(it.headers.from().unwrap().display.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(it.headers.max_forwards(), Ok(Some(68)));
    assert_eq!(it.headers.cseq().unwrap().number, 9);
    let vias = it.headers.vias().unwrap();
    let branches: Vec<_> = vias.iter().filter_map(Via::branch).collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]);
    assert!(it.headers.routes().unwrap()[0].uri.is_loose_router());
    assert_eq!(it.headers.text(Name::Subject), Some(""));
    let unfolded = "newfangled value continued newfangled value";
    assert_eq!(it.headers.named("newfangledheader").next().unwrap().text(), Some(unfolded));
    assert!(it.headers.has_token(Name::Supported, "timer"));
    assert_eq!(it.headers.contact().unwrap().params.value("q"), Some("0.33"));
    assert_eq!(it.uri.params().count(), 1);
}

#[test]
fn request_uris_of_every_kind_are_taken() {
    for (uri, scheme) in [
        ("sip:[2001:db8::1]:5061", Scheme::Sip),
        ("sip:a%40b;x=y@h;lr?Subject=hi", Scheme::Sip),
        ("sips:b@h", Scheme::Sips),
        ("tel:+1-201-555-0123", Scheme::Tel),
        ("urn:service:sos", Scheme::Urn),
        ("soap.beep://192.0.2.103:3002", Scheme::Other),
    ] {
        let it = request(&raw(&(head(&format!("OPTIONS {uri} SIP/2.0"), "") + "\n")));
        assert_eq!((it.uri.as_str(), it.uri.scheme()), (uri, scheme));
    }
}

#[test]
fn an_unknown_method_a_star_and_odd_bytes_are_kept() {
    let it = request(&raw(&(head("!Odd-Method~'` sip:b@h SIP/2.0", "Contact: *\n") + "\n")));
    assert!(matches!(&it.method, Method::Other(name) if name.as_str() == "!Odd-Method~'`"));
    assert_eq!(it.headers.contacts(), Ok(Contacts::Every));

    let mut bytes = head("INVITE sip:b@h SIP/2.0", "Subject: ").replace('\n', "\r\n").into_bytes();
    bytes.extend_from_slice(b"caf\xe9 \0 \xff\r\nX-Next: kept\r\n\r\n\0\xff\r\n\r\n");
    let it = request(&bytes.into());
    let subject = it.headers.first(Name::Subject).unwrap();
    assert_eq!(subject.bytes().as_ref(), b"caf\xe9 \0 \xff");
    assert_eq!((subject.text(), subject.lossy().as_ref()), (None, "caf\u{fffd} \0 \u{fffd}"));
    assert_eq!(it.headers.named("x-next").count(), 1);
    assert_eq!(it.body.as_ref(), b"\0\xff\r\n\r\n");
}

#[test]
fn line_ends_before_the_message_are_skipped() {
    let mut bytes = b"\r\n\r\n".to_vec();
    bytes.extend_from_slice(&invite(""));
    assert_eq!(request(&bytes.into()).method, Method::Invite);
    assert!(is_keep_alive(b"\r\n\r\n") && is_keep_alive(b"") && !is_keep_alive(b"\r\nI"));
    assert_eq!(fault(&raw("\n\n")), ParseFault::Empty);
}

#[test]
fn content_length_rules_differ_between_datagrams_and_streams() {
    let with = |length: &str, body: &str| {
        let mut bytes = invite(length).to_vec();
        bytes.extend_from_slice(body.as_bytes());
        Bytes::from(bytes)
    };
    assert_eq!(request(&with("", "to the end")).body, "to the end");
    assert_eq!(request(&with("l: 4\n", "bodyrest")).body, "body");
    assert_eq!(fault(&with("Content-Length: 9\n", "short")), ParseFault::BodyTruncated);
    for wrong in ["-5", "x", "1,1", "", "18446744073709551617"] {
        let bytes = with(&format!("Content-Length: {wrong}\n"), "body");
        assert_eq!(fault(&bytes), malformed(Name::ContentLength), "{wrong}");
    }
    let two = with("Content-Length: 4\nl: 3\n", "body");
    let repeated = HeaderError { name: Name::ContentLength, fault: HeaderFault::Repeated };
    assert_eq!(fault(&two), ParseFault::Header(repeated));

    let missing = stream(&with("", "")).expect_err("a fault").error;
    assert_eq!(missing.to_string(), "missing Content-Length");
    assert!(stream(&with("Content-Length: 4\n", "body")).is_ok());
}

#[test]
fn line_breaks_that_could_be_read_two_ways_are_refused() {
    for text in [
        "INVITE sip:b@h SIP/2.0\nVia: x\n\n",
        "INVITE sip:b@h SIP/2.0\r\nSubject: a\nVia: x\r\n\r\n",
        "INVITE sip:b@h SIP/2.0\r\nSubject: a\rVia: x\r\n\r\n",
    ] {
        let bytes = Bytes::from_static(text.as_bytes());
        assert_eq!(fault(&bytes), ParseFault::BareLineBreak, "{text:?}");
    }
}

#[test]
fn bad_start_lines_are_named() {
    for (start, expected) in [
        ("INVITE", ParseFault::StartLine),
        ("INVITE sip:b@h", ParseFault::StartLine),
        ("INVITE  sip:b@h  SIP/2.0", ParseFault::Uri(UriError::Scheme)),
        ("INVITE sip:b@h; lr SIP/2.0", ParseFault::Uri(UriError::Byte)),
        ("INVITE <sip:b@h> SIP/2.0", ParseFault::Uri(UriError::Scheme)),
        ("INVITE sip:b@h> SIP/2.0", ParseFault::Uri(UriError::Byte)),
        ("INVITE sip:b@h SIP/2.0 ", ParseFault::StartLine),
        ("IN@VITE sip:b@h SIP/2.0", ParseFault::StartLine),
        ("INVITE sip:b@h SIP/7.0", ParseFault::Version),
        ("GET / HTTP/1.1", ParseFault::StartLine),
        ("INVITE \u{fc} SIP/2.0", ParseFault::Uri(UriError::Scheme)),
        ("SIP/2.0 4294967301 better not break the receiver", ParseFault::StartLine),
        ("SIP/2.0 099 too low", ParseFault::StartLine),
        ("SIP/3.0 200 OK", ParseFault::Version),
        ("SIP/2.0 200OK", ParseFault::StartLine),
        ("\u{0}\u{1}", ParseFault::StartLine),
    ] {
        assert_eq!(fault(&raw(&(head(start, "") + "\n"))), expected, "{start}");
    }
}

#[test]
fn responses_without_a_phrase_or_with_any_bytes_in_it_are_read() {
    for (start, phrase) in [
        ("SIP/2.0 200", ""),
        ("SIP/2.0 200 ", ""),
        ("sip/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e}", "= 2**3 * 5**2 \u{43d}\u{43e}"),
    ] {
        let text = head("INVITE", "").replacen("INVITE\n", &format!("{start}\n"), 1) + "\n";
        match datagram(&raw(&text)) {
            Ok(Message::Response(response)) => assert_eq!(response.phrase(), phrase),
            other => panic!("{start}: {other:?}"),
        }
    }
}

#[test]
fn what_a_request_must_have_is_asked_for() {
    let good = head("INVITE sip:b@h SIP/2.0", "");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let prefix = format!("{name}:");
        let lines = good.lines().filter(|line| !line.starts_with(&prefix));
        let text = lines.collect::<Vec<_>>().join("\n") + "\n\n";
        let missing = HeaderError {
            name: Name::parse(name.as_bytes()).unwrap(),
            fault: HeaderFault::Missing,
        };
        assert_eq!(fault(&raw(&text)), ParseFault::Header(missing), "{name}");
    }
    // RFC 2543 had no Max-Forwards.
    assert!(datagram(&raw(&(good.replace("Max-Forwards: 70\n", "") + "\n"))).is_ok());
}

#[test]
fn malformed_and_repeated_fields_are_named() {
    for (from, to, expected) in [
        ("CSeq: 1 INVITE", "CSeq: 1 OPTIONS", ParseFault::CSeqMethod),
        ("CSeq: 1 INVITE", "CSeq: 36893488147419103232 INVITE", malformed(Name::CSeq)),
        ("Max-Forwards: 70", "Max-Forwards: 300", malformed(Name::MaxForwards)),
        ("Max-Forwards: 70", "Max-Forwards: -1", malformed(Name::MaxForwards)),
        ("SIP/2.0/TLS a.example", "SIP/7.0/TLS a.example", malformed(Name::Via)),
        (";rport", ";;,;,,", malformed(Name::Via)),
        ("From: <sip:a@h>", "From: \"open <sip:a@h>", malformed(Name::From)),
        ("To: <sip:b@h>", "To: <sip:b@h>>", malformed(Name::To)),
        ("Call-ID: c1", "Call-ID: ", malformed(Name::CallId)),
        ("Call-ID: c1", "No colon here", ParseFault::HeaderLine),
        ("Call-ID: c1", ": no name", ParseFault::HeaderLine),
        ("Call-ID: c1", "Bad name: x", ParseFault::HeaderLine),
    ] {
        let text = head("INVITE sip:b@h SIP/2.0", "").replace(from, to) + "\n";
        assert_eq!(fault(&raw(&text)), expected, "{to}");
    }
    for line in ["f: <sip:x@h>;tag=2", "t: <sip:x@h>", "i: c2", "CSeq: 2 INVITE", "Max-Forwards: 1"]
    {
        let bytes = invite(&format!("{line}\n"));
        let ParseFault::Header(error) = fault(&bytes) else { panic!("{line}") };
        assert_eq!(error.fault, HeaderFault::Repeated, "{line}");
    }
}

#[test]
fn each_limit_has_its_status() {
    let long_uri = format!("INVITE sip:{}@h SIP/2.0", "a".repeat(SIP_URI_BYTES.get()));
    let cases = [
        (raw(&(head(&long_uri, "") + "\n")), Status::REQUEST_URI_TOO_LONG, Reason::UriTooLong),
        (
            invite(&format!("Subject: {}\n", "x".repeat(SIP_HEADER_BYTES.get()))),
            Status::MESSAGE_TOO_LARGE,
            Reason::MessageTooLarge,
        ),
        (
            invite(&"X: y\n".repeat(SIP_HEADERS.get())),
            Status::MESSAGE_TOO_LARGE,
            Reason::MessageTooLarge,
        ),
        (
            raw(&(head("INVITE sip:b@h SIP/2.0", "\n") + &"b".repeat(SIP_BODY_BYTES.get() + 1))),
            Status::REQUEST_ENTITY_TOO_LARGE,
            Reason::BodyTooLarge,
        ),
        (
            invite(&format!("{}\n", "Subject: x\n".repeat(6_000).trim_end())),
            Status::MESSAGE_TOO_LARGE,
            Reason::MessageTooLarge,
        ),
        (
            raw(&(head("INVITE sip:b@h SIP/5.0", "") + "\n")),
            Status::VERSION_NOT_SUPPORTED,
            Reason::VersionNotSupported,
        ),
    ];
    for (bytes, status, reason) in cases {
        let failure = datagram(&bytes).expect_err("a fault");
        assert_eq!((failure.error.status(), failure.error.reason()), (status, reason));
        assert_eq!(reason.sip_status(), status.code());
        let answer = failure.response("t1").expect("an answer");
        assert_eq!((answer.status, answer.phrase().as_ref()), (status, status.phrase()));
    }
}

#[test]
fn a_refused_request_can_still_be_answered() {
    let text = head("INVITE <sip:b@h> SIP/2.0", "Broken\nContent-Length: -1\n") + "\n";
    let failure = datagram(&raw(&text)).expect_err("a fault");
    assert_eq!(failure.error.offset, Some(7));
    let answer = failure.response("t1").expect("an answer");
    assert_eq!(answer.status, Status::BAD_REQUEST);
    assert!(answer.phrase().starts_with("malformed Request-URI"), "{}", answer.phrase());
    assert_eq!(answer.headers.to_tag().as_deref(), Some("t1"));
    assert_eq!(answer.headers.text(Name::CSeq), Some("1 INVITE"));
    assert!(datagram(&answer.to_bytes()).is_ok());
}

#[test]
fn no_answer_goes_to_an_ack_a_response_or_the_unreadable() {
    for text in [
        head("ACK <sip:b@h> SIP/2.0", "") + "\n",
        head("SIP/2.0 200 OK", "Broken\n") + "\n",
        head("INVITE <sip:b@h> SIP/2.0", "").replace("Via:", "X:") + "\n",
        head("INVITE <sip:b@h> SIP/2.0", "").replace("Call-ID:", "X:") + "\n",
        "INVITE".to_owned(),
        String::new(),
    ] {
        assert_eq!(datagram(&raw(&text)).expect_err("a fault").response("t1"), None, "{text}");
    }
}

#[test]
fn a_head_that_does_not_end_is_refused() {
    let text = head("INVITE sip:b@h SIP/2.0", "");
    assert_eq!(fault(&raw(&text)), ParseFault::Unterminated);
    assert_eq!(fault(&Bytes::from_static(b"INVITE sip:b@h SIP/2.0")), ParseFault::Unterminated);
}
