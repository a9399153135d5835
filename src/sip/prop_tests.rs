//! Properties over arbitrary and mutated input.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::transaction::{FlowId, Transactions};
use crate::{Frame, Framer, Message, Opened, Uri, parse, redact};

const SEEDS: [&[u8]; 3] = [
    b"INVITE sip:a%40b;x=y@[2001:db8::1]:5061;lr?Subject=hi SIP/2.0\r\n\
     v: SIP/2.0/TLS a;branch=z9hG4bK1;rport, SIP / 2.0 / UDP b : 5060;branch=z9hG4bK2\r\n\
     f: \"A \\\"<;>\" <sip:a@h>;tag=1\r\nt: <tel:+1-555-0100>\r\ni: c1\r\nCSeq: 1 INVITE\r\n\
     Max-Forwards: 70\r\nSubject: folded\r\n  line\r\nm: <sip:a@h;lr>;q=0.5, sip:b@h\r\n\
     Record-Route: <sip:p1;lr>,<sip:p2;lr>\r\nSession-Expires: 1800;refresher=uac\r\n\
     P-Asserted-Identity: <sip:+1@h>\r\nc: application/sdp\r\nl: 10\r\n\r\nv=0\r\nk=\xff\0x",
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: sip:a@h;tag=1\r\n\
     To: sip:b@h;tag=2\r\nCall-ID: c\r\nCSeq: 4 BYE\r\nReason: Q.850;cause=16\r\n\
     Content-Length: 0\r\n\r\n",
    b"ODD urn:x:y SIP/2.0\r\nVia: SIP/2.0/TCP [::1];branch=old\r\nFrom: <sip:a@h>\r\n\
     To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 2147483647 ODD\r\nContact: *\r\nX : y\r\n\
     Content-Length: 4\r\n\r\nbody",
];

/// A seed with some bytes replaced, taken out or doubled.
fn mutated() -> impl Strategy<Value = Bytes> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0_u8..16);
    (0..SEEDS.len(), vec(edit, 0..6)).prop_map(|(seed, edits)| {
        let mut bytes = SEEDS[seed].to_vec();
        for (index, byte, kind) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match kind {
                0..=5 => bytes[at] = byte,
                6..=10 => bytes.insert(at, b"\r\n:;,<>\"@ []%"[usize::from(byte) % 13]),
                11..=14 => drop(bytes.drain(at..(at + usize::from(byte) % 8).min(bytes.len()))),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes.into()
    })
}

/// Writing makes Content-Length right; all else must stay.
fn without_length(mut message: Message) -> Message {
    match &mut message {
        Message::Request(request) => request.headers.remove(crate::Name::ContentLength),
        Message::Response(response) => response.headers.remove(crate::Name::ContentLength),
    }
    message
}

/// Reads all that can be read of a message.
fn exercise(message: &Message) {
    let headers = message.headers();
    let _ = (headers.vias(), headers.contacts(), headers.routes(), headers.record_routes());
    let _ = (headers.content_type(), headers.reasons(), headers.to_tag(), message.body());
    let _ = crate::identity::Caller::of(headers, true);
    let _ = crate::SessionTerms::default().answer(headers);
    let _ = redact(message);
    let _ = crate::body::find(headers, message.body(), "application/sdp");
    if let Message::Request(request) = message {
        let _ = (request.uri.number(), request.uri.without_headers());
        let _ = crate::Dialog::uas(request, "t").map(|mut it| it.request(crate::Method::Bye));
    }
}

fn cut(stream: &[u8], sizes: &[usize]) -> Vec<Result<Frame, parse::ParseFault>> {
    let mut framer = Framer::new(Opened::ByPeer);
    let mut seen = Vec::new();
    let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        framer.push(&rest[..size]);
        rest = &rest[size..];
        loop {
            match framer.poll_message() {
                Ok(Some(frame)) => seen.push(Ok(frame)),
                Ok(None) => break,
                Err(failure) => {
                    seen.push(Err(failure.error.fault));
                    return seen;
                }
            }
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn no_input_panics(bytes in vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        match parse::datagram(&bytes) {
            Ok(message) => exercise(&message),
            Err(failure) => drop(failure.response("t")),
        }
    }

    #[test]
    fn what_is_written_is_read_back_equal(bytes in mutated()) {
        if let Ok(message) = parse::syntax(&bytes, parse::Delivery::Datagram) {
            exercise(&message);
            let written = message.to_bytes();
            let read = parse::syntax(&written, parse::Delivery::Stream);
            let read = read.map_err(|failure| TestCaseError::fail(failure.to_string()))?;
            prop_assert_eq!(&read.to_bytes(), &written);
            prop_assert_eq!(without_length(read), without_length(message));
        }
    }

    #[test]
    fn an_intact_message_survives_the_round_trip(seed in 0..SEEDS.len()) {
        let bytes = Bytes::from_static(SEEDS[seed]);
        let Ok(message) = parse::datagram(&bytes) else {
            return Err(TestCaseError::fail("a seed does not parse"));
        };
        prop_assert_eq!(parse::stream(&message.to_bytes()), Ok(message));
    }

    #[test]
    fn an_answer_to_bad_input_is_itself_good(bytes in mutated()) {
        if let Err(failure) = parse::datagram(&bytes)
            && let Some(answer) = failure.response("t")
        {
            let read = parse::syntax(&answer.to_bytes(), parse::Delivery::Stream);
            prop_assert_eq!(read.map(|it| it.headers().len()), Ok(answer.headers.len() + 1));
        }
    }

    #[test]
    fn the_framer_sees_the_same_however_the_stream_is_chunked(
        parts in vec(mutated(), 1..4),
        sizes in vec(1_usize..200, 1..8),
    ) {
        let stream = parts.concat();
        let whole = cut(&stream, &[stream.len()]);
        prop_assert_eq!(&cut(&stream, &sizes), &whole);
        prop_assert_eq!(&cut(&stream, &[1]), &whole);
    }

    #[test]
    fn a_framed_message_is_what_the_parser_reads_of_the_stream(seed in 0..SEEDS.len()) {
        let bytes = Bytes::from_static(SEEDS[seed]);
        prop_assert_eq!(cut(&bytes, &[7]), vec![Ok(Frame::Message(bytes.clone()))]);
    }

    #[test]
    fn a_uri_prints_as_it_was_parsed(text in "(sips?|tel|urn|x):[ -~]{0,40}") {
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert_eq!(uri.as_str(), &text);
            prop_assert!(uri.equivalent(&uri));
            let more = uri.with_param("p", Some("1 2"));
            prop_assert!(Uri::parse(more.as_str()).is_ok());
            prop_assert!(!more.without_param("p").has_param("p"));
        }
    }

    #[test]
    fn transactions_survive_any_valid_message_and_end(messages in vec(mutated(), 1..12)) {
        let mut random = base::SeededRandom::new(1);
        let mut transactions = Transactions::new(0, &mut random);
        let mut now = base::Instant::ZERO;
        for (index, bytes) in messages.iter().enumerate() {
            if let Ok(message) = parse::datagram(bytes) {
                let answer = match &message {
                    Message::Request(it) => crate::Response::to(it, crate::Status::GONE, Some("t")),
                    Message::Response(_) => crate::Response::new(crate::Status::OK),
                };
                let (flow, is_reliable) = (FlowId(index as u64 % 2), index % 3 == 0);
                let received = transactions.receive(now, flow, is_reliable, message);
                if let crate::Received::Request { key, .. } = received {
                    prop_assert_eq!(transactions.respond(now, key, &answer), Ok(()));
                }
            }
        }
        while let Some(due) = transactions.poll_timeout() {
            prop_assert!(due >= now);
            now = due;
            transactions.handle_timeout(now);
            while transactions.poll_output().is_some() {}
        }
        prop_assert!(transactions.is_empty());
    }
}
