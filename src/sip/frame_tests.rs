use super::*;
use crate::status::Status;

const OPTIONS: &str = "OPTIONS sip:h SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bK1\r\n\
    From: <sip:a@h>;tag=1\r\nTo: <sip:h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n";

fn message(length: &str, body: &str) -> Vec<u8> {
    format!("{OPTIONS}{length}\r\n{body}").into_bytes()
}

fn frames(framer: &mut Framer) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = framer.poll_message().expect("no fault") {
        frames.push(frame);
    }
    frames
}

fn failure(bytes: &[u8]) -> ParseFailure {
    let mut framer = Framer::new(Opened::ByPeer);
    framer.push(bytes);
    let failure = framer.poll_message().expect_err("a fault");
    framer.push(b"\r\n\r\n");
    assert_eq!(framer.poll_message().expect_err("the same fault"), failure);
    failure
}

#[test]
fn messages_and_pings_are_cut_at_every_split() {
    let first = message("Content-Length: 6\r\n", "\r\n\r\n\0\n");
    let second = message("l : \r\n 0\r\n", "");
    let stream = [&first[..], PING, b"\r\n", &second[..], PING].concat();
    let expected =
        [Frame::Message(first.into()), Frame::Ping, Frame::Message(second.into()), Frame::Ping];
    for chunk in 1..stream.len() {
        let mut framer = Framer::new(Opened::ByPeer);
        let mut seen = Vec::new();
        for part in stream.chunks(chunk) {
            framer.push(part);
            seen.extend(frames(&mut framer));
        }
        assert_eq!(seen, expected, "chunks of {chunk}");
        assert!(!framer.is_mid_message());
    }
}

#[test]
fn on_a_connection_of_ours_each_line_end_is_a_pong() {
    let mut framer = Framer::new(Opened::ByUs);
    framer.push(PONG);
    assert_eq!(frames(&mut framer), [Frame::Pong]);
    framer.push(b"\r");
    assert_eq!(frames(&mut framer), []);
    framer.push(b"\nOPT");
    assert_eq!(frames(&mut framer), [Frame::Pong]);
    assert!(framer.is_mid_message());
}

#[test]
fn a_stream_that_cannot_be_followed_is_answered_and_given_up() {
    for (bytes, status) in [
        (message("", ""), Status::BAD_REQUEST),
        (message("Content-Length: x\r\n", ""), Status::BAD_REQUEST),
        (message("Content-Length: 1\r\nl: 2\r\n", ""), Status::BAD_REQUEST),
        (message("Content-Length: 99999\r\n", ""), Status::REQUEST_ENTITY_TOO_LARGE),
        (message("Content-Length 5\r\n", ""), Status::BAD_REQUEST),
        (message("Subject: a\nContent-Length: 5\r\n", ""), Status::BAD_REQUEST),
        (message("Subject: a\rContent-Length: 5\r\nl: 0\r\n", ""), Status::BAD_REQUEST),
    ] {
        let failure = failure(&bytes);
        assert_eq!(failure.error.status(), status, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(failure.response("t").map(|answer| answer.status), Some(status));
    }
}

#[test]
fn endless_lines_and_heads_are_cut_off_before_they_end() {
    let long_uri = format!("INVITE sip:{}", "a".repeat(SIP_URI_BYTES.get() + 200));
    assert_eq!(failure(long_uri.as_bytes()).error.status(), Status::REQUEST_URI_TOO_LONG);
    let long_line = message(&format!("X: {}", "a".repeat(SIP_HEADER_BYTES.get())), "");
    assert_eq!(failure(&long_line).error.fault, ParseFault::HeaderTooLong);
    let long_head = message(&format!("X: {}\r\n", "a".repeat(1000)).repeat(66), "");
    assert!(matches!(failure(&long_head).error.status(), Status::MESSAGE_TOO_LARGE));
    let mut framer = Framer::new(Opened::ByPeer);
    framer.push(OPTIONS.as_bytes());
    let mut pushed = 0;
    while framer.poll_message().is_ok() {
        framer.push(b"X: y\r\n");
        pushed += 6;
        assert!(pushed < 2 * SIP_MESSAGE_BYTES.get());
    }
}

#[test]
fn a_fault_that_does_not_hide_the_end_leaves_the_stream_usable() {
    let bad = b"OPTIONS <sip:h> SIP/2.0\r\nContent-Length: 0\r\n\r\n";
    let good = message("Content-Length: 0\r\n", "");
    let mut framer = Framer::new(Opened::ByPeer);
    framer.push(&[&bad[..], &good].concat());
    let seen = frames(&mut framer);
    assert_eq!(seen.len(), 2);
    let parsed: Vec<_> = seen
        .iter()
        .map(|frame| match frame {
            Frame::Message(bytes) => crate::parse::stream(bytes).is_ok(),
            _ => panic!("a message"),
        })
        .collect();
    assert_eq!(parsed, [false, true]);
}

#[test]
fn the_short_way_to_a_length_never_says_another_one_than_the_long_way() {
    let starts = ["", "OPTIONS sip:h SIP/2.0", "OPTIONS sip:h\rX SIP/2.0", "\0"];
    let lines = [
        "Content-Length: 7",
        "l : 8",
        "content-LENGTH:7",
        "Content-Length: ",
        "Content-Length: +7",
        "Subject: a\rl: 9",
        " l: 9",
        "\tfolded",
        ": 1",
        "X y: 1",
        "no colon",
        "Ü: 1",
        "X: l: 3",
        "X:",
    ];
    let (mut short, mut both) = (0, 0);
    for start in starts {
        for first in lines {
            for second in lines {
                let head = format!("{start}\r\n{first}\r\n{second}\r\nVia: a\r\n\r\n");
                let mut framer = Framer::new(Opened::ByPeer);
                framer.push(head.as_bytes());
                let (plain, long) = (plain_length(head.as_bytes()), framer.length_in(head.len()));
                short += usize::from(plain.is_some());
                both += usize::from(long.is_ok());
                assert!(plain.is_none_or(|plain| long == Ok(plain)), "{head:?}");
            }
        }
    }
    assert!(short > 0 && short < both);
    let many = "X: y\r\n".repeat(SIP_HEADERS.get());
    assert_eq!(plain_length(format!("A b c\r\n{many}l: 1\r\n\r\n").as_bytes()), None);
}
