//! ICE: whatever comes at a browser's port that looks like STUN, with and without our password.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use base::{Instant, Secret, limit};
use hmac::{Hmac, Mac};
use rtp::ice::stun::{ANSWER_BYTES, Message};
use rtp::ice::{Change, Credentials, Lite, Route};
use sha1::Sha1;

const PASSWORD: &str = "fuzzfuzzfuzzfuzzfuzzfuzz";
/// Different addresses from which something comes.
const PEERS: u8 = 32;

/// The life of a leg's agent: a list of `(length, what, from, wait, bytes)`, each of the first
/// four one byte. The lowest bits of `what` say whether the bytes are a datagram as it is (0), or
/// the attributes of a check that is signed with our password (1), or whether ICE restarts (2) or
/// the connection that `from` names closes (3).
pub fn stun(data: &[u8]) {
    let mut leg = Leg::new();
    let mut rest = data;
    while let [length, what, from, wait, after @ ..] = rest {
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        leg.now += Duration::from_millis(10 * u64::from(*wait));
        let route = route(*from);
        match what & 3 {
            0 => leg.take(route, bytes, false),
            1 => leg.take(route, &leg.signed(bytes), true),
            2 => leg.restart(),
            _ => leg.agent.close(route.socket),
        }
        leg.check();
    }
}

fn route(from: u8) -> Route {
    let remote = IpAddr::from(Ipv4Addr::new(192, 0, 2, from % PEERS));
    Route { socket: u32::from(from / PEERS) % 4, remote: SocketAddr::new(remote, 40_000) }
}

fn credentials(number: u8, side: char) -> Credentials {
    let number = char::from(b'a' + number % 26);
    let ufrag = [side, number, 'a', 'a'].iter().collect();
    Credentials { ufrag, pwd: Secret::new(PASSWORD.into()) }
}

struct Leg {
    now: Instant,
    agent: Lite,
    restarts: u8,
}

impl Leg {
    fn new() -> Self {
        let agent = Lite::new(credentials(0, 'e'), &credentials(0, 'b'));
        Self { now: Instant::from_nanos(1_000_000_000), agent, restarts: 0 }
    }

    fn restart(&mut self) {
        self.restarts = self.restarts.wrapping_add(1);
        let number = self.restarts;
        self.agent.restart(credentials(number, 'e'), &credentials(number, 'b'));
    }

    /// A check with these attributes behind its user name (RFC 8489 sections 5 and 14.5).
    fn signed(&self, attributes: &[u8]) -> Vec<u8> {
        let [asked, asking] = ['e', 'b'].map(|side| credentials(self.restarts, side).ufrag);
        let mut body = vec![0, 6, 0, 9];
        body.extend_from_slice(format!("{asked}:{asking}").as_bytes());
        body.resize(16, 0);
        body.extend_from_slice(&attributes[..attributes.len() & !3]);
        let length = u16::try_from(body.len() + 24).unwrap_or(u16::MAX).to_be_bytes();
        let mut message = [&[0, 1][..], &length, &[0x21, 0x12, 0xa4, 0x42], &[7; 12]].concat();
        message.extend_from_slice(&body);
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(PASSWORD.as_bytes()) else {
            unreachable!("a key of any length will do");
        };
        mac.update(&message);
        message.extend_from_slice(&[0, 8, 0, 20]);
        message.extend_from_slice(&mac.finalize().into_bytes());
        message
    }

    fn take(&mut self, route: Route, datagram: &[u8], is_signed: bool) {
        let mut answer = [0; ANSWER_BYTES];
        let before = self.agent.selected();
        let Ok(taken) = self.agent.handle(self.now, route, datagram, &mut answer) else {
            assert_eq!(self.agent.selected(), before, "what is refused changes nothing");
            return;
        };
        assert!(is_signed, "answered without our password");
        let Ok(answer) = Message::parse(&answer[..taken.answer]) else {
            unreachable!("our own answer is none");
        };
        assert!(answer.is_signed_with(PASSWORD.as_bytes()));
        assert_eq!(answer.transaction(), [7; 12]);
        match taken.change {
            Some(Change::Selected(selected)) => assert_eq!(self.agent.selected(), Some(selected)),
            Some(Change::Heard) | None => assert_eq!(self.agent.selected(), before),
        }
    }

    fn check(&self) {
        if let Some(selected) = self.agent.selected() {
            assert!(self.agent.knows(selected), "media goes where nobody was proved");
        }
        let known = (0..4 * PEERS).filter(|from| self.agent.knows(route(*from))).count();
        assert!(known <= limit::ICE_PAIRS.get(), "{known} routes");
        assert!(!self.agent.is_confirmed() || self.agent.expires().is_some());
    }
}
