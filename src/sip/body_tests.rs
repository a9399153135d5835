use proptest::prelude::*;

use super::*;

const SDP: &str = "application/sdp";
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n";

/// A body with the boundary `b`; each part is its header fields and its content.
fn multipart(parts: &[(&str, &str)]) -> String {
    let part = |(fields, content): &(&str, &str)| format!("--b\r\n{fields}\r\n{content}\r\n");
    parts.iter().map(part).collect::<String>() + "--b--\r\n"
}

fn look(kind: &str, body: &str) -> Result<Option<Bytes>, BodyError> {
    find(&headers(&[(Name::ContentType, kind)]), &Bytes::copy_from_slice(body.as_bytes()), SDP)
}

fn headers(fields: &[(Name, &str)]) -> Headers {
    fields.iter().map(|(name, value)| Header::new(*name, value)).collect()
}

fn mixed(parts: &[(&str, &str)]) -> Result<Option<Bytes>, BodyError> {
    look("multipart/mixed;boundary=b", &multipart(parts))
}

fn found() -> Result<Option<Bytes>, BodyError> {
    Ok(Some(Bytes::from_static(OFFER.as_bytes())))
}

const PLAIN_SDP: (&str, &str) = ("Content-Type: application/sdp\r\n", OFFER);
const ISUP: &str = "Content-Type: application/ISUP;version=itu-t92+\r\n";

#[test]
fn a_description_alone_is_found_whatever_its_case() {
    assert_eq!(look("Application/SDP; charset=x", OFFER), found());
    assert_eq!(look("application/sdp", ""), Ok(None), "an empty body is none");
    assert_eq!(look("text/plain", OFFER), Err(BodyError::Unsupported));
    assert_eq!(look("nonsense", OFFER), Err(BodyError::Malformed));
    let untyped = find(&Headers::new(), &Bytes::from_static(b"x"), SDP);
    assert_eq!(untyped, Err(BodyError::Unsupported));
}

#[test]
fn a_body_that_is_optional_may_be_of_any_type() {
    let fields =
        [(Name::ContentType, "text/plain"), (Name::ContentDisposition, "render;handling=optional")];
    assert_eq!(find(&headers(&fields), &Bytes::from_static(b"hi"), SDP), Ok(None));
}

#[test]
fn the_description_next_to_isup_is_found_as_carriers_send_it() {
    let isup = format!("{ISUP}Content-Disposition: signal;handling=optional\r\n");
    let body = multipart(&[PLAIN_SDP, (&isup, "\u{1}\0\r\n--\u{2}")]);
    assert_eq!(look("multipart/mixed; boundary=\"b\"", &body), found());
    let first = multipart(&[(&isup, "\u{1}"), PLAIN_SDP]);
    assert_eq!(look("multipart/mixed;boundary=b;start=x", &first), found());
    assert_eq!(look("multipart/surprise;boundary=b", &first), found(), "as if it were mixed");
}

#[test]
fn a_part_that_must_be_understood_and_is_not_fails_the_whole() {
    for disposition in ["signal;handling=required", "signal", "session;handling=\"required\""] {
        let isup = format!("{ISUP}Content-Disposition: {disposition}\r\n");
        let body = [PLAIN_SDP, (&isup, "x")];
        assert_eq!(mixed(&body), Err(BodyError::Unsupported), "{disposition}");
    }
    // Not even a disposition that cannot be read is passed over.
    let broken = format!("{ISUP}Content-Disposition: render;;handling=optional\r\n");
    assert_eq!(mixed(&[PLAIN_SDP, (&broken, "x")]), Err(BodyError::Unsupported));
}

#[test]
fn what_is_only_shown_or_referred_to_is_passed_over_next_to_a_description() {
    let location = "Content-Type: application/pidf+xml\r\nContent-ID: <t@h>\r\n";
    let by_reference = format!("{location}Content-Disposition: by-reference\r\n");
    for fields in [location, &by_reference, "Content-Type: text/plain\r\n", ""] {
        assert_eq!(mixed(&[(fields, "x"), PLAIN_SDP]), found(), "{fields}");
        assert_eq!(mixed(&[(fields, "x")]), Err(BodyError::Unsupported), "alone: {fields}");
    }
}

#[test]
fn of_alternatives_the_last_one_that_is_understood_counts() {
    let other = ("Content-Type: application/sdp\r\n", "v=0\r\n");
    let unknown = ("Content-Type: application/sdpng\r\n", "x");
    let kind = "multipart/alternative;boundary=b";
    assert_eq!(look(kind, &multipart(&[other, PLAIN_SDP, unknown])), found());
    assert_eq!(look(kind, &multipart(&[unknown])), Err(BodyError::Unsupported));
    let nested = multipart(&[other, unknown]).replace("--b", "--inner");
    let within = ("Content-Type: multipart/alternative;boundary=inner\r\n", nested.as_str());
    assert_eq!(mixed(&[within]).map(|it| it.map(|it| it.len())), Ok(Some(5)));
    let optional = format!("{}Content-Disposition: x;handling=optional\r\n", within.0);
    let none = multipart(&[unknown]).replace("--b", "--inner");
    assert_eq!(mixed(&[(&optional, &none), PLAIN_SDP]), found());
}

#[test]
fn a_description_for_another_purpose_is_no_offer() {
    let early = "Content-Type: application/sdp\r\nContent-Disposition: early-session\r\n";
    let optional = early.replace("early-session", "early-session;handling=optional");
    assert_eq!(mixed(&[(early, "v=1\r\n"), PLAIN_SDP]), Err(BodyError::Unsupported));
    assert_eq!(mixed(&[(&optional, "v=1\r\n"), PLAIN_SDP]), found());
}

#[test]
fn what_would_have_to_be_decoded_is_not_understood() {
    for encoding in ["Content-Transfer-Encoding: base64", "Content-Encoding: gzip"] {
        let fields = format!("{}{encoding}\r\nContent-Disposition: session\r\n", PLAIN_SDP.0);
        assert_eq!(mixed(&[(&fields, OFFER)]), Err(BodyError::Unsupported), "{encoding}");
    }
    let binary = format!("{}Content-Transfer-Encoding: Binary\r\n", PLAIN_SDP.0);
    assert_eq!(mixed(&[(&binary, OFFER)]), found());
    let fields = [(Name::ContentType, SDP), (Name::ContentEncoding, "gzip")];
    let zipped = find(&headers(&fields), &Bytes::from_static(b"x"), SDP);
    assert_eq!(zipped, Err(BodyError::Unsupported));
}

#[test]
fn a_boundary_is_a_whole_line_and_the_last_one_must_be_there() {
    let kind = "multipart/mixed;boundary=b";
    let body = multipart(&[PLAIN_SDP]);
    let wrapped = format!("preamble --b\r\n--bb\r\n{body}epilogue\r\n--b\r\n");
    assert_eq!(look(kind, &wrapped), found(), "preamble, longer boundary and epilogue");
    assert_eq!(look(kind, &body.replace("--b\r\n", "--b \t\r\n")), found(), "padding");
    assert_eq!(look(kind, body.trim_end()), found(), "no line break at the very end");
    for cut in [body.replace("--b--", ""), body.replace("--b--", "--b"), "x".to_owned()] {
        assert_eq!(look(kind, &cut), Err(BodyError::Malformed), "{cut}");
    }
    for wrong in ["multipart/mixed", "multipart/mixed;boundary=\"\"", "multipart/mixed;boundary=@"]
    {
        assert_eq!(look(wrong, &body), Err(BodyError::Malformed), "{wrong}");
    }
    let long = format!("multipart/mixed;boundary={}", "b".repeat(71));
    assert_eq!(look(&long, &body), Err(BodyError::Malformed));
}

#[test]
fn fields_of_a_part_may_be_folded_or_missing_and_must_be_readable() {
    assert_eq!(mixed(&[("Content-Type:\r\n application/sdp\r\n", OFFER)]), found());
    let bare = "--b\r\nContent-Type: text/plain\r\n--b\r\n\r\n--b\r\n\
        Content-Type: application/sdp\r\n\r\nv=0\r\n--b--";
    let v0 = Ok(Some(Bytes::from_static(b"v=0")));
    assert_eq!(look("multipart/mixed;boundary=b", bare), v0, "a part without content");
    assert_eq!(mixed(&[("no colon\r\n", ""), PLAIN_SDP]), Err(BodyError::Malformed));
}

#[test]
fn parts_and_their_nesting_are_bounded() {
    let text = ("Content-Type: text/plain\r\n", "x");
    let mut parts = vec![text; SIP_BODY_PARTS.get() - 1];
    parts.push(PLAIN_SDP);
    assert_eq!(mixed(&parts), found());
    parts.push(text);
    assert_eq!(mixed(&parts), Err(BodyError::TooManyParts));

    let nest = |depth: usize| {
        (1..depth).fold(multipart(&[PLAIN_SDP]), |inner, level| {
            let inner = inner.replace("--b", &format!("--{level}"));
            let fields = format!("Content-Type: multipart/mixed;boundary={level}\r\n");
            multipart(&[(&fields, &inner)])
        })
    };
    let kind = "multipart/mixed;boundary=b";
    assert_eq!(look(kind, &nest(SIP_BODY_NESTING.get())), found());
    assert_eq!(look(kind, &nest(SIP_BODY_NESTING.get() + 1)), Err(BodyError::TooManyParts));
}

proptest! {
    #[test]
    fn what_is_between_the_boundaries_comes_out_byte_for_byte(
        content in prop::collection::vec(any::<u8>(), 0..200),
        boundary in "[A-Za-z0-9'()+_,./:=?-]{8,70}",
        before in "[ -~]{0,40}",
    ) {
        prop_assume!(!content.windows(boundary.len()).any(|it| it == boundary.as_bytes()));
        prop_assume!(!before.contains(&boundary));
        let mut body = format!(
            "{before}\r\n--{boundary}\r\nContent-Type: text/plain\r\n\r\nx\r\n--{boundary}\r\n\
             Content-Type: application/sdp\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(&content);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let kind = format!("multipart/mixed;boundary=\"{boundary}\"");
        let found = find(&headers(&[(Name::ContentType, &kind)]), &body.into(), SDP);
        prop_assert_eq!(found, Ok(Some(content.into())));
    }

    #[test]
    fn nothing_that_arrives_is_too_strange_to_be_read(
        pieces in prop::collection::vec(0_usize..12, 0..60),
        kind in 0_usize..3,
    ) {
        const PIECES: [&str; 12] = [
            "--b", "--b--", "\r\n", "\n", "--", "--c", "Content-Type: application/sdp\r\n",
            "Content-Type: multipart/alternative;boundary=c\r\n", "x", "\0",
            "Content-Disposition: session;handling=optional\r\n", "--b\r\n",
        ];
        const KINDS: [&str; 3] = [
            "multipart/mixed;boundary=b", "multipart/alternative;boundary=b",
            "multipart/related;boundary=b",
        ];
        let body: String = pieces.iter().map(|at| PIECES[*at]).collect();
        if let Ok(Some(found)) = look(KINDS[kind], &body) {
            let part = std::str::from_utf8(&found).unwrap();
            prop_assert!(body.contains(part));
            prop_assert!(!part.starts_with("--b\r\n") && !part.contains("\r\n--b\r\n"));
        }
    }
}
