//! SRTP and SRTCP (RFC 3711, RFC 7714), in place and without an allocation per packet.
//!
//! A [`Sender`] or [`Receiver`] holds one direction under one master key: session keys, the
//! roll-over counter and replay window of each source. It does not exchange keys (SDES and DTLS
//! do), takes no MKI, and keeps no state for a packet that has not authenticated.
//! The load generator stays on `webrtc-srtp`, so that the two ends of a test share no bug; our
//! own tests use that crate as the independent peer as well.

mod derive;
mod mac;
mod replay;
mod transform;

use rtp::sdes::{KeySalt, Suite};

use derive::SessionKeys;
use replay::Sources;
use transform::{Place, Transform};

pub use replay::SourceState;

/// Most bytes that protection adds to a packet: the tag of 16 bytes and RTCP's index word.
pub const OVERHEAD: usize = 20;

/// Why a packet was not protected or not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// It is too short or its header does not add up.
    #[error("too short, or the header does not add up")]
    Malformed,
    /// Its tag is wrong.
    #[error("the authentication tag is wrong")]
    NotAuthentic,
    /// It was seen already, or is too old to tell.
    #[error("seen already, or too old to tell")]
    Replayed,
    /// It is SRTCP without encryption, which is never agreed on.
    #[error("SRTCP without encryption")]
    Unencrypted,
    /// It is authentic, but from one source more than limit `rtp.ssrcs`.
    #[error("more sources than limit rtp.ssrcs")]
    TooManySources,
    /// The key has protected as many packets as it may.
    #[error("the key has reached its lifetime")]
    KeyExhausted,
    /// The buffer has no room for the tag.
    #[error("no room for the tag")]
    NoRoom,
    /// Key or salt is not as long as the suite asks.
    #[error("key or salt of the wrong length")]
    BadKey,
}

/// Where the streams of one direction stand, without keys: plain data that moves a session to
/// another worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextState {
    /// RTP sources.
    pub rtp: Vec<SourceState>,
    /// RTCP sources; a sender has at most one, whose `highest` is the last index used.
    pub rtcp: Vec<SourceState>,
}

/// An RTP packet that was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unprotected {
    /// Length of the RTP packet, tag removed.
    pub length: usize,
    /// Index, 48 bits: roll-over counter and sequence number.
    pub index: u64,
    /// Whether it is the newest packet of its source.
    pub newest: bool,
}

/// What both directions are made of.
struct Context {
    suite: Suite,
    rtp: Transform,
    /// RTCP comes every few seconds: its keys are expanded when they are needed, which keeps a
    /// leg small.
    rtcp: SessionKeys,
    rtp_sources: Sources,
    rtcp_sources: Sources,
}

impl Context {
    fn new(suite: Suite, keys: &KeySalt, state: ContextState) -> Result<Self, SrtpError> {
        if keys.suite() != suite {
            return Err(SrtpError::BadKey);
        }
        let session = |rtcp| SessionKeys::derive(keys.key(), keys.salt(), rtcp);
        Ok(Self {
            suite,
            rtp: Transform::new(suite, &session(false)?, false)?,
            rtcp: session(true)?,
            rtp_sources: Sources::restore(state.rtp),
            rtcp_sources: Sources::restore(state.rtcp),
        })
    }

    /// Asks for the memory that the next RTP packet needs.
    fn prefetch(&self) {
        self.rtp.prefetch();
        self.rtp_sources.prefetch();
    }

    fn rtcp(&self) -> Result<Transform, SrtpError> {
        Transform::new(self.suite, &self.rtcp, true)
    }

    fn state(&self) -> ContextState {
        ContextState { rtp: self.rtp_sources.states(), rtcp: self.rtcp_sources.states() }
    }
}

/// Protects what we send.
pub struct Sender {
    context: Context,
    /// Index of the next SRTCP packet, over all sources: a nonce holds the source as well.
    rtcp_index: u64,
}

impl Sender {
    /// A fresh sender.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] where the key does not fit the suite.
    pub fn new(suite: Suite, keys: &KeySalt) -> Result<Self, SrtpError> {
        Self::resume(suite, keys, ContextState::default())
    }

    /// A sender that goes on where another stopped.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] where the key does not fit the suite.
    pub fn resume(suite: Suite, keys: &KeySalt, state: ContextState) -> Result<Self, SrtpError> {
        let rtcp_index = state.rtcp.iter().map(|source| source.highest + 1).max().unwrap_or(0);
        Ok(Self { context: Context::new(suite, keys, state)?, rtcp_index })
    }

    /// Where the streams stand.
    #[must_use]
    pub fn state(&self) -> ContextState {
        self.context.state()
    }

    /// Asks for the memory that the next RTP packet needs.
    pub(crate) fn prefetch(&self) {
        self.context.prefetch();
    }

    /// Protects the RTP packet `buffer[..length]` in place and returns its new length; `buffer`
    /// needs [`OVERHEAD`] bytes more.
    ///
    /// # Errors
    /// [`SrtpError::Replayed`] for an index that was used: two texts under one nonce would give
    /// both away. [`SrtpError::NoRoom`], [`SrtpError::Malformed`], [`SrtpError::KeyExhausted`],
    /// [`SrtpError::TooManySources`].
    pub fn protect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        let packet = buffer.get(..length).ok_or(SrtpError::Malformed)?;
        let (header, ssrc, sequence) = rtp_header(packet)?;
        let index = self.context.rtp_sources.rtp_index(ssrc, sequence)?;
        self.context.rtp_sources.accept(ssrc, index)?;
        self.context.rtp.protect_rtp(Place { ssrc, index }, buffer, header, length)
    }

    /// Protects the compound RTCP packet `buffer[..length]` in place and returns its new length;
    /// `buffer` needs [`OVERHEAD`] bytes more.
    ///
    /// # Errors
    /// [`SrtpError::NoRoom`], [`SrtpError::Malformed`], [`SrtpError::KeyExhausted`].
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        let ssrc = rtcp_source(buffer.get(..length).ok_or(SrtpError::Malformed)?)?;
        let index = self.rtcp_index;
        // 2^31 packets are the most under one key (RFC 3711 section 9.2).
        if index >> 31 != 0 {
            return Err(SrtpError::KeyExhausted);
        }
        self.context.rtcp_sources.accept(ssrc, index)?;
        self.rtcp_index += 1;
        self.context.rtcp()?.protect_rtcp(Place { ssrc, index }, buffer, length)
    }
}

/// Checks and deciphers what we receive.
pub struct Receiver {
    context: Context,
}

impl Receiver {
    /// A fresh receiver.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] where the key does not fit the suite.
    pub fn new(suite: Suite, keys: &KeySalt) -> Result<Self, SrtpError> {
        Self::resume(suite, keys, ContextState::default())
    }

    /// A receiver that goes on where another stopped.
    ///
    /// # Errors
    /// [`SrtpError::BadKey`] where the key does not fit the suite.
    pub fn resume(suite: Suite, keys: &KeySalt, state: ContextState) -> Result<Self, SrtpError> {
        Ok(Self { context: Context::new(suite, keys, state)? })
    }

    /// Where the streams stand.
    #[must_use]
    pub fn state(&self) -> ContextState {
        self.context.state()
    }

    /// Asks for the memory that the next RTP packet needs.
    pub(crate) fn prefetch(&self) {
        self.context.prefetch();
    }

    /// Deciphers an SRTP packet in place. On an error no state changes, but the bytes may have.
    ///
    /// # Errors
    /// Any but [`SrtpError::NoRoom`] and [`SrtpError::BadKey`].
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<Unprotected, SrtpError> {
        let (header, ssrc, sequence) = rtp_header(packet)?;
        let index = self.context.rtp_sources.rtp_index(ssrc, sequence)?;
        let length = self.context.rtp.unprotect_rtp(Place { ssrc, index }, packet, header)?;
        let newest = self.context.rtp_sources.accept(ssrc, index)?;
        Ok(Unprotected { length, index, newest })
    }

    /// Deciphers an SRTCP packet in place and returns its length and whether it is the newest of
    /// its source. On an error no state changes, but the bytes may have.
    ///
    /// # Errors
    /// Any but [`SrtpError::NoRoom`] and [`SrtpError::BadKey`].
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<(usize, bool), SrtpError> {
        let ssrc = rtcp_source(packet)?;
        let index = transform::rtcp_index(self.context.suite, packet)?;
        self.context.rtcp_sources.check(ssrc, index)?;
        let rtcp = self.context.rtcp()?;
        let length = rtcp.unprotect_rtcp(Place { ssrc, index }, packet)?;
        let newest = self.context.rtcp_sources.accept(ssrc, index)?;
        Ok((length, newest))
    }
}

/// Length of the RTP header that stays clear (with contributing sources and extension), the
/// source and the sequence number.
fn rtp_header(packet: &[u8]) -> Result<(usize, u32, u16), SrtpError> {
    let fixed = packet.first_chunk::<12>().ok_or(SrtpError::Malformed)?;
    let mut length = 12 + usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] & 0x10 != 0 {
        let extension = packet.get(length + 2..length + 4).ok_or(SrtpError::Malformed)?;
        length += 4 + usize::from(u16::from_be_bytes([extension[0], extension[1]])) * 4;
    }
    if fixed[0] >> 6 != 2 || length > packet.len() {
        return Err(SrtpError::Malformed);
    }
    let ssrc = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
    Ok((length, ssrc, u16::from_be_bytes([fixed[2], fixed[3]])))
}

/// The sender of an RTCP packet.
fn rtcp_source(packet: &[u8]) -> Result<u32, SrtpError> {
    let fixed = packet.first_chunk::<8>().ok_or(SrtpError::Malformed)?;
    Ok(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]))
}

#[cfg(test)]
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod peer_tests;
