//! The client's side of a WebSocket (RFC 6455) that carries SIP (RFC 7118), by hand: what the edge
//! makes of frames is its library's, what it is sent is not.
//!
//! Not here: fragmented messages (ours are small, and those of the edge must be), extensions.

use base::Random as _;
use base::limit::SIP_MESSAGE_BYTES;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::os::OsRandom;

/// The longest answer to the request for a WebSocket.
const HEAD_BYTES: usize = 8_192;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// RFC 6455 section 5.2: the first byte's and the second byte's highest bits.
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A message.
    Message(Bytes),
    /// To be answered with [`WebSocket::pong`].
    Ping(Bytes),
    /// The answer to a ping of ours.
    Pong,
    /// The far end is done, with this status.
    Close(Option<u16>),
}

/// See the module.
pub(crate) struct WebSocket<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks for one; a stable code where there is none.
    pub(crate) async fn open(
        mut stream: S,
        authority: &str,
        path: &str,
    ) -> Result<Self, &'static str> {
        let mut nonce = [0; 16];
        OsRandom.fill(&mut nonce);
        let key = encode(&nonce);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: sip\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(|_| "connect.lost")?;
        let mut buffer = BytesMut::new();
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            let more = stream.read_buf(&mut buffer).await.map_err(|_| "connect.lost")?;
            if more == 0 || buffer.len() > HEAD_BYTES {
                return Err("websocket.refused");
            }
        };
        let head = buffer.split_to(end);
        let head = std::str::from_utf8(&head).map_err(|_| "websocket.refused")?;
        let value = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            let mut found = lines.filter(|(it, _)| it.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.trim())
        };
        let is_right = head.starts_with("HTTP/1.1 101")
            && value("sec-websocket-accept") == Some(&*accept(&key))
            && value("sec-websocket-protocol") == Some("sip");
        is_right.then_some(Self { stream, buffer }).ok_or("websocket.refused")
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.write(TEXT, message).await
    }

    /// Asks whether somebody is there.
    pub(crate) async fn ping(&mut self) -> std::io::Result<()> {
        self.write(PING, &[]).await
    }

    /// Answers a ping.
    pub(crate) async fn pong(&mut self, said: &[u8]) -> std::io::Result<()> {
        self.write(PONG, said).await
    }

    /// Says goodbye; the status is that of an ordinary end.
    pub(crate) async fn close(&mut self) -> std::io::Result<()> {
        self.write(CLOSE, &1_000u16.to_be_bytes()).await
    }

    async fn write(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut mask = [0; 4];
        OsRandom.fill(&mut mask);
        self.stream.write_all(&frame(kind, payload, Some(mask))).await?;
        self.stream.flush().await
    }

    /// The next frame; `None` where the connection or the protocol is broken. Losing the future
    /// loses nothing.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        loop {
            match take(&mut self.buffer) {
                Ok(Some(frame)) => {
                    // What is idle shall hold nothing.
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    return Some(frame);
                }
                Ok(None) => {}
                Err(Broken) => return None,
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// Not what RFC 6455 or we allow.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// Takes a frame off the front of what was read; a server's has no mask.
fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, Broken> {
    let &[first, second, ..] = &buffer[..] else { return Ok(None) };
    if first & FINAL == 0 || first & 0x70 != 0 || second & MASKED != 0 {
        return Err(Broken);
    }
    let (length, head) = match (second, &buffer[2..]) {
        (126, &[a, b, ..]) => (usize::from(u16::from_be_bytes([a, b])), 4),
        (126, _) => return Ok(None),
        (127, _) => return Err(Broken),
        (length, _) => (usize::from(length), 2),
    };
    if length > SIP_MESSAGE_BYTES.get() {
        return Err(Broken);
    }
    if buffer.len() < head + length {
        return Ok(None);
    }
    let mut whole = buffer.split_to(head + length).freeze();
    let payload = whole.split_off(head);
    match first & 0x0f {
        TEXT | BINARY => Ok(Some(Frame::Message(payload))),
        PING => Ok(Some(Frame::Ping(payload))),
        PONG => Ok(Some(Frame::Pong)),
        CLOSE => {
            let status = payload.get(..2).map(|it| u16::from_be_bytes([it[0], it[1]]));
            Ok(Some(Frame::Close(status)))
        }
        _ => Err(Broken),
    }
}

/// A frame (RFC 6455 section 5.2); a client's has a mask.
fn frame(kind: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { MASKED } else { 0 };
    let mut bytes = vec![FINAL | kind];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => bytes.push(masked | length),
        (_, Ok(length)) => {
            bytes.push(masked | 126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(masked | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let Some(mask) = mask else {
        bytes.extend(payload);
        return bytes;
    };
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What the server must answer to a key (RFC 6455 section 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    encode(aws_lc_rs::digest::digest(algorithm, text.as_bytes()).as_ref())
}

/// Base64 (RFC 4648 section 4).
fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_the_one_of_the_rfc() {
        // RFC 6455 section 1.3.
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_read_however_they_come_in_pieces() {
        let long = vec![7; 300];
        let bytes = [frame(TEXT, b"one", None), frame(PING, b"", None), frame(BINARY, &long, None)]
            .concat();
        for piece in [1, 2, 5, 1_000] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take(&mut buffer).unwrap() {
                    found.push(frame);
                }
            }
            let one = Frame::Message(Bytes::from_static(b"one"));
            assert_eq!(
                found,
                [one, Frame::Ping(Bytes::new()), Frame::Message(long.clone().into())]
            );
        }
    }

    #[test]
    fn what_a_server_must_not_send_breaks() {
        let masked = frame(TEXT, b"x", Some([1, 2, 3, 4]));
        assert_eq!(masked[..], [0x81, 0x81, 1, 2, 3, 4, b'x' ^ 1]);
        let huge = vec![0; SIP_MESSAGE_BYTES.get() + 1];
        for bytes in [&masked[..], &[0x01, 0], &[0xc1, 0], &[0x83, 0], &frame(TEXT, &huge, None)] {
            assert_eq!(take(&mut BytesMut::from(bytes)), Err(Broken));
        }
    }
}
