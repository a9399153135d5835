//! Stage: whether a packet is the peer's. SRTP proves it; of exempted plain RTP only the source's
//! network is known (DESIGN 4.3).

use std::net::{IpAddr, SocketAddr};

use base::{Instant, limit};
use ipnet::IpNet;
use media::Protection;
use rtp::sdes::{KeySalt, Suite};

use super::counters::DropReason;
use crate::driver::ahead::{Depth, prefetch};
use crate::srtp::{Receiver, SrtpError};

/// The receiving side of one leg.
pub(crate) enum Unprotect {
    Srtp(Box<Keyed>),
    Plain(Vec<IpNet>),
}

pub(crate) struct Keyed {
    suite: Suite,
    keys: KeySalt,
    receiver: Receiver,
    previous: Option<(Receiver, Instant)>,
    /// A copy to try again with: a failed attempt may spoil the bytes. It takes memory only while
    /// there are two keys.
    spare: Vec<u8>,
}

/// A packet that is the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Believed {
    /// Its length without tag.
    pub(crate) length: usize,
    /// The newest of its source; always `false` of plain packets, which prove nothing.
    pub(crate) newest: bool,
    /// SRTP said so.
    pub(crate) authentic: bool,
}

impl Unprotect {
    pub(crate) fn new(protection: &Protection) -> Result<Self, SrtpError> {
        Ok(match protection {
            Protection::Srtp { suite, receive, .. } => Self::Srtp(Box::new(Keyed {
                suite: *suite,
                keys: receive.clone(),
                receiver: Receiver::new(*suite, receive)?,
                previous: None,
                spare: Vec::new(),
            })),
            Protection::Plain { from } => Self::Plain(from.clone()),
            Protection::Dtls(_) => return Err(SrtpError::BadKey), // not before its keys are there
        })
    }

    /// Takes a new plan's protection. The same keys go on with the same state; other keys start
    /// anew, while packets under the old ones are taken for a moment longer.
    pub(crate) fn update(&mut self, now: Instant, to: &Protection) -> Result<(), SrtpError> {
        let fresh = match (&mut *self, to) {
            (Self::Srtp(keyed), Protection::Srtp { suite, receive, .. })
                if keyed.suite == *suite && keyed.keys == *receive =>
            {
                return Ok(());
            }
            _ => Self::new(to)?,
        };
        let before = core::mem::replace(self, fresh);
        if let (Self::Srtp(keyed), Self::Srtp(before)) = (self, before) {
            keyed.previous = Some((before.receiver, now + limit::RELAY_OLD_KEYS_MS.millis()));
        }
        Ok(())
    }

    /// Asks for the keys that the next packet needs.
    pub(crate) fn prefetch(&self, depth: Depth) {
        match (self, depth) {
            (Self::Srtp(keyed), Depth::Keys) => prefetch(&keyed.receiver),
            (Self::Srtp(keyed), Depth::Schedule) => keyed.receiver.prefetch(),
            _ => {}
        }
    }

    pub(crate) fn rtp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        packet: &mut [u8],
    ) -> Result<Believed, DropReason> {
        let length = packet.len();
        match self {
            Self::Plain(networks) => from_networks(networks, source, length),
            Self::Srtp(keyed) => keyed.attempt(now, packet, |receiver, packet| {
                receiver.unprotect_rtp(packet).map(|seen| (seen.length, seen.newest))
            }),
        }
    }

    pub(crate) fn rtcp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        packet: &mut [u8],
    ) -> Result<Believed, DropReason> {
        let length = packet.len();
        match self {
            Self::Plain(networks) => from_networks(networks, source, length),
            Self::Srtp(keyed) => keyed.attempt(now, packet, Receiver::unprotect_rtcp),
        }
    }
}

impl Keyed {
    fn attempt(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        unprotect: impl Fn(&mut Receiver, &mut [u8]) -> Result<(usize, bool), SrtpError>,
    ) -> Result<Believed, DropReason> {
        if self.previous.take_if(|(_, until)| *until <= now).is_some() {
            self.spare = Vec::new();
        }
        if self.previous.is_some() {
            self.spare.clear();
            self.spare.extend_from_slice(packet);
        }
        let mut seen = unprotect(&mut self.receiver, packet);
        if seen == Err(SrtpError::NotAuthentic)
            && let Some((previous, _)) = &mut self.previous
        {
            packet.copy_from_slice(&self.spare);
            // Old packets are heard; they are not news about where the peer is.
            seen = unprotect(previous, packet).map(|(length, _)| (length, false));
        }
        let (length, newest) = seen.map_err(reason)?;
        Ok(Believed { length, newest, authentic: true })
    }
}

fn from_networks(
    networks: &[IpNet],
    source: SocketAddr,
    length: usize,
) -> Result<Believed, DropReason> {
    // On a dual-stack socket an IPv4 source looks like IPv6.
    let address: IpAddr = source.ip().to_canonical();
    if networks.iter().any(|network| network.contains(&address)) {
        Ok(Believed { length, newest: false, authentic: false })
    } else {
        Err(DropReason::SourceNetwork)
    }
}

const fn reason(error: SrtpError) -> DropReason {
    match error {
        SrtpError::NotAuthentic | SrtpError::BadKey | SrtpError::NoRoom => DropReason::NotAuthentic,
        SrtpError::Replayed | SrtpError::KeyExhausted => DropReason::Replayed,
        SrtpError::Unencrypted => DropReason::Unencrypted,
        SrtpError::TooManySources => DropReason::TooManySources,
        SrtpError::Malformed => DropReason::Malformed,
    }
}
