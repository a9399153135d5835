//! SRTP: ours against `webrtc-srtp`, which shares no code with it. What one protects the other
//! reads, RTP to the same bytes; what is changed on the way, or comes twice, is refused and
//! changes nothing.

use base::SeededRandom;
use relay::srtp::{OVERHEAD, Receiver, Sender, SrtpError};
use rtp::sdes::{KeySalt, Suite};
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

const SSRC: u32 = 0x5eed_0001;
/// How far packets may overtake each other: within the windows of both sides.
const REORDERED: usize = 8;

/// A byte for suite and key, then a list of `(kind, argument, length, payload)`, each of the first
/// three one byte.
pub fn srtp_differential(data: &[u8]) {
    let Some((choice, mut rest)) = data.split_first() else { return };
    let suite = Suite::PREFERENCE[usize::from(choice & 3)];
    let world = World::new(suite, u64::from(choice >> 2));
    assert!(world.is_some(), "a key that fits is taken");
    let Some(mut world) = world else { return };
    while let [kind, argument, length, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        match kind & 7 {
            0..=3 => world.rtp(*kind, *argument, payload),
            4 => world.deliver(usize::from(*argument)),
            5 => world.forge(*argument, payload),
            6 => world.rtcp(*argument, payload),
            _ => world.garbage(payload),
        }
    }
    while !world.flying.is_empty() {
        world.deliver(0);
    }
}

/// Both implementations, both ways, under one key.
struct World {
    suite: Suite,
    keys: KeySalt,
    ours: (Sender, Receiver),
    theirs: (Context, Context),
    sequence: u16,
    /// Plain and protected packets on their way.
    flying: Vec<(Vec<u8>, Vec<u8>)>,
    last: Option<Vec<u8>>,
}

impl World {
    fn new(suite: Suite, seed: u64) -> Option<Self> {
        let keys = KeySalt::generate(suite, &mut SeededRandom::new(seed));
        let ours = (Sender::new(suite, &keys).ok()?, Receiver::new(suite, &keys).ok()?);
        let theirs = (peer(suite, &keys)?, peer(suite, &keys)?);
        // Below 2^15, as every sender of ours begins.
        let sequence = 0x7ff0 - seed as u16 * 100;
        Some(Self { suite, keys, ours, theirs, sequence, flying: Vec::new(), last: None })
    }

    /// Protects a packet with both: the bytes are the same.
    fn rtp(&mut self, kind: u8, argument: u8, payload: &[u8]) {
        // A step that lets the numbers wrap within a few hundred packets. What was sent before
        // arrives before, or it would be too old for the peer's window.
        let step = if kind & 8 != 0 { 997 } else { 1 };
        while step > 1 && !self.flying.is_empty() {
            self.deliver(0);
        }
        self.sequence = self.sequence.wrapping_add(step);
        let plain = packet(self.sequence, argument, payload);
        let mut protected = plain.clone();
        protected.resize(plain.len() + OVERHEAD, 0);
        let length = self.ours.0.protect_rtp(&mut protected, plain.len());
        protected.truncate(length.unwrap_or(0));
        let theirs = self.theirs.0.encrypt_rtp(&plain).ok();
        assert_eq!(Some(&protected[..]), theirs.as_deref(), "{:?}", self.suite);
        self.flying.push((plain, protected));
        if self.flying.len() > REORDERED {
            self.deliver(0);
        }
    }

    /// One of the packets under way arrives: both read it.
    fn deliver(&mut self, which: usize) {
        if self.flying.is_empty() {
            return;
        }
        let (plain, protected) = self.flying.remove(which % self.flying.len());
        let theirs = self.theirs.1.decrypt_rtp(&protected);
        assert_eq!(theirs.ok().as_deref(), Some(&plain[..]), "they read what we protect");
        let mut packet = protected.clone();
        let read = self.ours.1.unprotect_rtp(&mut packet).map(|seen| seen.length);
        assert_eq!(read, Ok(plain.len()));
        assert_eq!(packet[..plain.len()], plain[..]);
        let again = self.ours.1.unprotect_rtp(&mut protected.clone());
        assert_eq!(again, Err(SrtpError::Replayed));
        self.last = Some(protected);
    }

    /// A packet changed on its way is refused, and changes nothing.
    fn forge(&mut self, at: u8, change: &[u8]) {
        let Some(mut packet) = self.flying.first().map(|(_, protected)| protected.clone()) else {
            return;
        };
        let honest = packet.clone();
        let start = usize::from(at) % packet.len();
        packet[start..].iter_mut().zip(change).for_each(|(byte, change)| *byte ^= change);
        if packet == honest {
            return;
        }
        let before = self.ours.1.state();
        assert!(self.ours.1.unprotect_rtp(&mut packet).is_err(), "{:?}", self.suite);
        assert_eq!(self.ours.1.state(), before, "a forged packet leaves no trace");
    }

    /// A report, both ways: the indices differ, so the bytes do.
    fn rtcp(&mut self, packet_type: u8, payload: &[u8]) {
        let words = payload.len() / 4;
        let mut plain = vec![0x80, 200 + packet_type % 4, 0, words as u8 + 1];
        plain.extend(SSRC.to_be_bytes());
        plain.extend(&payload[..words * 4]);
        let mut protected = plain.clone();
        protected.resize(plain.len() + OVERHEAD, 0);
        let length = self.ours.0.protect_rtcp(&mut protected, plain.len());
        // Theirs panics where a packet is too short for its tag.
        assert!(length.is_ok_and(|length| length > plain.len()));
        protected.truncate(length.unwrap_or(0));
        let theirs = self.theirs.1.decrypt_rtcp(&protected);
        assert_eq!(theirs.ok().as_deref(), Some(&plain[..]));
        let theirs = self.theirs.0.encrypt_rtcp(&plain);
        let mut packet = theirs.map(|packet| packet.to_vec()).unwrap_or_default();
        let copy = packet.clone();
        let read = self.ours.1.unprotect_rtcp(&mut packet).map(|(length, _)| length);
        assert_eq!(read, Ok(plain.len()), "{:?}", self.suite);
        assert_eq!(packet[..plain.len()], plain[..]);
        assert_eq!(self.ours.1.unprotect_rtcp(&mut copy.clone()), Err(SrtpError::Replayed));
    }

    /// Bytes that nobody protected.
    fn garbage(&mut self, bytes: &[u8]) {
        let before = self.ours.1.state();
        let (mut rtp, mut rtcp) = (bytes.to_vec(), bytes.to_vec());
        assert!(self.ours.1.unprotect_rtp(&mut rtp).is_err());
        assert!(self.ours.1.unprotect_rtcp(&mut rtcp).is_err());
        assert_eq!(self.ours.1.state(), before);
        // A context that moves reads the same as one that stayed.
        let moved = Receiver::resume(self.suite, &self.keys, before.clone());
        assert_eq!(moved.map(|moved| moved.state()), Ok(before));
        if let Some(last) = &self.last {
            assert!(self.ours.1.unprotect_rtp(&mut last.clone()).is_err());
        }
    }
}

fn peer(suite: Suite, keys: &KeySalt) -> Option<Context> {
    let profile = match suite {
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    let rtp = Some(srtp_replay_protection(64));
    let rtcp = Some(srtcp_replay_protection(64));
    Context::new(keys.key(), keys.salt(), profile, rtp, rtcp).ok()
}

/// A valid packet: contributors and an extension as `shape` says.
fn packet(sequence: u16, shape: u8, payload: &[u8]) -> Vec<u8> {
    let contributors = shape & 3;
    let extension = shape >> 2 & 3;
    let mut packet = vec![0x80 | contributors, shape >> 1 & 0x7f];
    if extension > 0 {
        packet[0] |= 0x10;
    }
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(SSRC.to_be_bytes());
    packet.extend((0..contributors).flat_map(|at| [at; 4]));
    if extension > 0 {
        packet.extend([0xab, 0xcd, 0, extension]);
        packet.extend((0..extension).flat_map(|at| [0x40 | at; 4]));
    }
    packet.extend(payload);
    packet
}
