//! SIP: datagrams and streams.

use bytes::Bytes;
use sip::parse::{self, Delivery, ParseFault};
use sip::{Frame, Framer, Message, Name, Opened};

/// One datagram. What parses is written and read back equal; what does not is answered with a
/// response that parses.
pub fn sip_message(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    match parse::datagram(&bytes) {
        Ok(message) => read_all(&message),
        Err(failure) => {
            if let Some(answer) = failure.response("t") {
                let read = parse::syntax(&answer.to_bytes(), Delivery::Stream);
                assert!(read.is_ok(), "our answer does not parse: {read:?}");
            }
        }
    }
    for delivery in [Delivery::Datagram, Delivery::Stream] {
        if let Ok(message) = parse::syntax(&bytes, delivery) {
            read_all(&message);
            round_trip(message);
        }
    }
}

/// A stream in chunks: the first byte says who opened the connection, the next four are sizes of
/// chunks. However it is cut, the same frames come out.
pub fn sip_framing(data: &[u8]) {
    let Some(([opened, sizes @ ..], stream)) = data.split_first_chunk::<5>() else { return };
    let opened = if opened & 1 == 0 { Opened::ByPeer } else { Opened::ByUs };
    let sizes = sizes.map(|size| usize::from(size) + 1);
    let whole = cut(opened, stream, &[stream.len()]);
    assert_eq!(cut(opened, stream, &sizes), whole);
    let mut framed = 0;
    for frame in whole.into_iter().flatten() {
        if let Frame::Message(bytes) = frame {
            framed += bytes.len();
            // The framer has found the end; what else is wrong is the parser's to say.
            match parse::stream(&bytes) {
                Ok(message) => read_all(&message),
                Err(failure) => drop(failure.response("t")),
            }
        }
    }
    assert!(framed <= stream.len());
}

fn cut(opened: Opened, stream: &[u8], sizes: &[usize]) -> Vec<Result<Frame, ParseFault>> {
    let mut framer = Framer::new(opened);
    let mut seen = Vec::new();
    let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        framer.push(chunk);
        rest = after;
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

fn round_trip(message: Message) {
    let written = message.to_bytes();
    match parse::syntax(&written, Delivery::Stream) {
        Ok(read) => {
            assert_eq!(read.to_bytes(), written, "written twice, it differs");
            assert_eq!(without_length(read), without_length(message), "read back, it differs");
        }
        // Writing adds Content-Length and spaces, which may carry what is nearly too large over
        // a limit.
        Err(failure) => assert!(
            matches!(
                failure.error.fault,
                ParseFault::MessageTooLarge
                    | ParseFault::HeaderTooLong
                    | ParseFault::TooManyHeaders
            ),
            "not read back: {failure}"
        ),
    }
}

fn without_length(mut message: Message) -> Message {
    match &mut message {
        Message::Request(request) => request.headers.remove(Name::ContentLength),
        Message::Response(response) => response.headers.remove(Name::ContentLength),
    }
    message
}

/// Reads whatever a call could read of a message.
fn read_all(message: &Message) {
    let headers = message.headers();
    let _ = (message.vias(), headers.contacts(), headers.routes(), headers.record_routes());
    let _ = (headers.content_type(), headers.reasons(), headers.to_tag(), headers.from_tag());
    let _ = (headers.max_forwards(), headers.contact(), headers.call_id(), headers.cseq());
    let _ = sip::identity::Caller::of(headers, true).and_then(|caller| caller.number());
    let _ = sip::SessionTerms::default().answer(headers);
    let _ = sip::redact(message);
    if let Ok(Some(found)) = sip::body::find(headers, message.body(), "application/sdp") {
        assert!(found.len() <= message.body().len());
    }
    match message {
        Message::Request(request) => {
            let _ = (request.uri.number(), request.uri.without_headers());
            let _ = sip::Response::to(request, sip::Status::OK, Some("t")).to_bytes();
            if let Ok(mut dialog) = sip::Dialog::uas(request, "t") {
                round_trip(dialog.request(sip::Method::Bye).into());
            }
        }
        Message::Response(response) => drop(response.phrase()),
    }
}
