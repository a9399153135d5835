//! A stream whose requests end their lines with CRLF. RFC 9112 section 2.2 lets a recipient take a
//! bare LF as well, and hyper does; a proxy before us that does not would see another request than
//! we. Here a bare LF within a head becomes a byte that no head may hold, and hyper answers 400. So
//! does the end of a head that has both Content-Length and Transfer-Encoding, of which hyper would
//! forget the first (RFC 9112 section 6.3 lets a server refuse it).

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream.
pub(crate) struct Strict<S> {
    stream: S,
    heads: Heads,
    /// Set once something else than HTTP follows.
    lax: Arc<AtomicBool>,
}

impl<S> Strict<S> {
    /// The stream, and the mark to set when it is to be read as it is.
    pub(crate) fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let lax = Arc::new(AtomicBool::new(false));
        (Self { stream, heads: Heads::default(), lax: Arc::clone(&lax) }, lax)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) && !self.lax.load(Ordering::Relaxed) {
            self.heads.check(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows heads and bodies.
#[derive(Debug, Default)]
struct Heads {
    /// Bytes of a body that are still to come.
    body: u64,
    last: u8,
    /// Whether the line has a byte but its end.
    has_text: bool,
    /// Whether the head has a line.
    has_line: bool,
    name: Match,
    /// Content-Length of the head so far.
    length: Option<u64>,
    has_coding: bool,
    is_broken: bool,
}

/// How far a line is `Content-Length: NUMBER` or `Transfer-Encoding:`.
#[derive(Clone, Copy, Debug, Default)]
enum Match {
    /// So many bytes of this name fit.
    Name(&'static [u8], usize),
    /// The first name fits; the number so far.
    Number(u64),
    /// The second name fits.
    Coding,
    /// It is another line.
    #[default]
    Other,
}

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// What no head may hold.
const POISON: u8 = 0;

impl Heads {
    /// Checks what was read, and spoils a bare LF within a head.
    fn check(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while let Some(byte) = bytes.get_mut(at) {
            if self.is_broken {
                return; // hyper reads no further
            }
            if self.body > 0 {
                let left = usize::try_from(self.body).unwrap_or(usize::MAX);
                let skipped = left.min(bytes.len() - at);
                self.body -= skipped as u64;
                at += skipped;
                continue;
            }
            // Whoever says twice where a body ends wants to be understood in two ways.
            let is_double = *byte == b'\n' && self.length.is_some() && self.has_coding;
            if is_double || *byte == b'\n' && self.last != b'\r' {
                *byte = POISON;
                self.is_broken = true;
                return;
            }
            self.step(*byte);
            at += 1;
        }
    }

    fn step(&mut self, byte: u8) {
        let last = core::mem::replace(&mut self.last, byte);
        match byte {
            b'\n' if last == b'\r' => self.end_line(),
            b'\r' => {}
            _ => {
                let is_first = !core::mem::replace(&mut self.has_text, true);
                self.name = if is_first { Match::first(byte) } else { self.name.step(byte) };
            }
        }
    }

    fn end_line(&mut self) {
        match core::mem::take(&mut self.name) {
            Match::Number(number) => self.length = Some(number),
            Match::Coding => self.has_coding = true,
            Match::Name(..) | Match::Other => {}
        }
        if core::mem::take(&mut self.has_text) {
            self.has_line = true;
        } else if core::mem::take(&mut self.has_line) {
            self.body = self.length.take().unwrap_or_default();
            self.has_coding = false;
            self.last = 0;
        }
    }
}

impl Match {
    const fn first(byte: u8) -> Self {
        match byte {
            b'c' | b'C' => Self::Name(LENGTH, 1),
            b't' | b'T' => Self::Name(CODING, 1),
            _ => Self::Other,
        }
    }

    fn step(self, byte: u8) -> Self {
        match self {
            Self::Name(name, fits) if name.get(fits) == Some(&byte.to_ascii_lowercase()) => {
                match fits + 1 {
                    more if more < name.len() => Self::Name(name, more),
                    _ if name == LENGTH => Self::Number(0),
                    _ => Self::Coding,
                }
            }
            Self::Coding => Self::Coding,
            Self::Number(number) => match byte {
                b'0'..=b'9' => {
                    Self::Number(number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
                }
                // What else stands there, hyper refuses.
                _ => Self::Number(number),
            },
            Self::Name(..) | Self::Other => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper sees of these requests, read in pieces of `size`.
    fn seen(text: &str, size: usize) -> Vec<u8> {
        let mut heads = Heads::default();
        let mut bytes = text.as_bytes().to_vec();
        bytes.chunks_mut(size).for_each(|piece| heads.check(piece));
        bytes
    }

    #[test]
    fn honest_requests_pass_as_they_are_whatever_their_bodies_hold() {
        let text = "\r\nPOST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  5\r\n\r\na\nb\n\n\
                    GET / HTTP/1.1\r\nContent-Lengthy: 9\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        for size in [1, 2, 3, 7, 1_000] {
            assert_eq!(seen(text, size), text.as_bytes(), "{size}");
        }
    }

    #[test]
    fn a_head_that_says_twice_where_its_body_ends_is_spoilt() {
        let (length, coding) = ("Content-Length: 5\r\n", "transfer-ENCODING: chunked\r\n");
        for both in [format!("{length}{coding}"), format!("{coding}X: y\r\n{length}")] {
            let seen = seen(&format!("POST / HTTP/1.1\r\n{both}\r\n"), 3);
            assert!(seen.contains(&POISON), "{both:?}");
        }
        for one in [length, coding] {
            let seen = seen(&format!("POST / HTTP/1.1\r\n{one}\r\n"), 3);
            assert!(!seen.contains(&POISON), "{one:?}");
        }
    }

    #[test]
    fn a_bare_lf_in_any_head_is_spoilt() {
        for text in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\nGET /2",
            "GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\n",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab\n",
        ] {
            for size in [1, 4, 1_000] {
                let seen = seen(text, size);
                let at = seen.iter().position(|byte| *byte == POISON);
                let mut pairs = text.as_bytes().windows(2);
                let bare = pairs.position(|it| it[1] == b'\n' && it[0] != b'\r');
                assert_eq!(at, bare.map(|it| it + 1), "{text:?}");
            }
        }
    }
}
