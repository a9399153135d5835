//! What a bad actor does to a call's media: packets of strangers, packets sent again.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::Duration;

use base::Instant;
use rtp::Header;

use super::stamp::{Mark, Role, Stamp};

/// Packets of a call that are kept to be sent again.
const KEPT: usize = 8;
/// Payload of a stranger's packet: 20 ms of G.711.
const PAYLOAD: usize = 160;
/// Strangers' packets carry a source of their own, and sometimes the call's.
const SSRC: u32 = 0x5742_4144;

/// How a call is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Packets from an address that is not the caller's.
    Stranger,
    /// The caller's own packets, sent again from its address and from a stranger's.
    Replay,
}

/// One attack on one call.
pub(crate) struct Attack {
    means: Means,
    /// The stranger's socket; what comes to it is counted.
    pub(crate) socket: UdpSocket,
    every: Duration,
    pub(crate) next: Instant,
    count: u64,
    kept: VecDeque<Vec<u8>>,
}

/// Which socket an attacking packet leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The stranger's.
    Stranger,
    /// The caller's own, as one who can send in its name would.
    Caller,
}

impl Attack {
    /// Sends every `every` from `start` on.
    pub(crate) fn new(means: Means, socket: UdpSocket, every: Duration, start: Instant) -> Self {
        Self { means, socket, every, next: start, count: 0, kept: VecDeque::new() }
    }

    /// Lets a turn pass: there is nowhere to send to.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.next = self.next.max(now + self.every.max(Duration::from_millis(1)));
    }

    /// Keeps a packet of the call.
    pub(crate) fn overhear(&mut self, packet: &[u8]) {
        if self.means == Means::Replay {
            let mut kept = if self.kept.len() == KEPT { self.kept.pop_front() } else { None }
                .unwrap_or_default();
            kept.clear();
            kept.extend_from_slice(packet);
            self.kept.push_back(kept);
        }
    }

    /// Makes the packet that is due in `out`, and says how it is sent.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        mark: Mark,
        header: Header,
        out: &mut Vec<u8>,
    ) -> Option<By> {
        if now < self.next {
            return None;
        }
        self.next = (self.next + self.every).max(now);
        self.count += 1;
        out.clear();
        match self.means {
            Means::Stranger => {
                let number = u32::try_from(self.count).unwrap_or(u32::MAX);
                // Half of them pose as the caller's stream, with the next numbers of it.
                let is_guess = self.count.is_multiple_of(2);
                let ahead = (self.count % 16) as u16;
                let header = Header {
                    ssrc: if is_guess { header.ssrc } else { SSRC },
                    sequence: header.sequence.wrapping_add(ahead),
                    ..header
                };
                let mark = Mark { role: Role::Stranger, ..mark };
                out.extend_from_slice(&header.to_bytes());
                let at = out.len();
                out.resize(at + PAYLOAD, 0xd5);
                Stamp { mark, number, sent: now }.write(&mut out[at..]);
                Some(By::Stranger)
            }
            Means::Replay => {
                let kept = self.kept.get((self.count % 3) as usize)?;
                out.extend_from_slice(kept);
                Some(if self.count.is_multiple_of(2) { By::Stranger } else { By::Caller })
            }
        }
    }
}
