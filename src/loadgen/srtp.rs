//! SRTP through `webrtc-srtp`, with guards against what it does not bear: short SRTCP (it
//! panics), SRTCP that says it is not encrypted (it takes that without looking at the tag), state
//! kept for whoever sends a packet, and replay windows spoilt by forged ones.

use base::limit::RTP_SSRCS;
use bytes::Bytes;
use rtp::{KeySalt, Packet, Suite};
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

/// Packets of one source that may arrive out of order; RFC 3711 section 3.3.2 asks for 64 at
/// least.
const REPLAY_WINDOW: usize = 128;
/// The fixed header of SRTCP that is sent in the clear, and the index word.
const SRTCP_HEADER_BYTES: usize = 8;
const SRTCP_INDEX_BYTES: usize = 4;

/// Why a packet was not protected or not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SrtpError {
    /// Shorter than its own overhead, or malformed.
    #[error("the packet is malformed")]
    Malformed,
    /// Not authentic, or seen before.
    #[error("the packet is not authentic or was seen before")]
    Rejected,
    /// The key could not be used.
    #[error("the key could not be used")]
    Key,
}

const fn profile(suite: Suite) -> ProtectionProfile {
    match suite {
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
    }
}

fn context(key: &KeySalt) -> Result<Context, SrtpError> {
    Context::new(
        key.key(),
        key.salt(),
        profile(key.suite()),
        Some(srtp_replay_protection(REPLAY_WINDOW)),
        Some(srtcp_replay_protection(REPLAY_WINDOW)),
    )
    .map_err(|_| SrtpError::Key)
}

/// Protects what we send.
pub(crate) struct Protect(Context);

impl Protect {
    /// With our key.
    pub(crate) fn new(key: &KeySalt) -> Result<Self, SrtpError> {
        context(key).map(Self)
    }

    /// Protects an RTP packet.
    pub(crate) fn rtp(&mut self, packet: &[u8]) -> Result<Bytes, SrtpError> {
        self.0.encrypt_rtp(packet).map_err(|_| SrtpError::Malformed)
    }

    /// Protects an RTCP compound.
    pub(crate) fn rtcp(&mut self, compound: &[u8]) -> Result<Bytes, SrtpError> {
        self.0.encrypt_rtcp(compound).map_err(|_| SrtpError::Malformed)
    }
}

/// Opens what we receive. Each source has a context of its own, which is kept only once a packet
/// of it has proved authentic: forged ones cost no memory and spoil no replay window.
pub(crate) struct Unprotect {
    key: KeySalt,
    /// The sources, the latest one to prove itself last.
    sources: Vec<(u32, Context)>,
}

impl Unprotect {
    /// With the far end's key.
    pub(crate) const fn new(key: KeySalt) -> Self {
        Self { key, sources: Vec::new() }
    }

    /// Opens an SRTP packet.
    pub(crate) fn rtp(&mut self, packet: &[u8]) -> Result<Bytes, SrtpError> {
        let ssrc = Packet::parse_protected(packet).map_err(|_| SrtpError::Malformed)?.ssrc();
        self.open(ssrc, |context| context.decrypt_rtp(packet))
    }

    /// Opens an SRTCP compound.
    pub(crate) fn rtcp(&mut self, compound: &[u8]) -> Result<Bytes, SrtpError> {
        let suite = self.key.suite();
        let least = SRTCP_HEADER_BYTES + SRTCP_INDEX_BYTES + suite.rtcp_tag_len();
        let Some(&[a, b, c, d]) = compound.get(4..8).filter(|_| compound.len() >= least) else {
            return Err(SrtpError::Malformed);
        };
        // The index stands before the tag, with AEAD behind it (RFC 3711 section 3.4, RFC 7714
        // section 9.3). Its first bit must say `encrypted`: no line of ours asks for less.
        let tail = if suite.is_aead() { 0 } else { suite.rtcp_tag_len() };
        let index = compound.len() - tail - SRTCP_INDEX_BYTES;
        if compound[index] & 0x80 == 0 {
            return Err(SrtpError::Rejected);
        }
        self.open(u32::from_be_bytes([a, b, c, d]), |context| context.decrypt_rtcp(compound))
    }

    fn open(
        &mut self,
        ssrc: u32,
        decrypt: impl FnOnce(&mut Context) -> Result<Bytes, webrtc_srtp::Error>,
    ) -> Result<Bytes, SrtpError> {
        if let Some((_, context)) = self.sources.iter_mut().find(|(known, _)| *known == ssrc) {
            return decrypt(context).map_err(|_| SrtpError::Rejected);
        }
        let mut trial = context(&self.key)?;
        let opened = decrypt(&mut trial).map_err(|_| SrtpError::Rejected)?;
        if self.sources.len() >= RTP_SSRCS.get() {
            self.sources.remove(0);
        }
        self.sources.push((ssrc, trial));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededRandom;
    use rtp::{Header, Report};

    fn keys(suite: Suite) -> (Protect, Unprotect) {
        let key = KeySalt::generate(suite, &mut SeededRandom::new(3));
        (Protect::new(&key).unwrap(), Unprotect::new(key))
    }

    fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
        let header = Header { marker: false, payload_type: 0, sequence, timestamp: 1, ssrc };
        let mut out = vec![0; 32];
        let len = header.write(&[7; 20], &mut out).unwrap();
        out.truncate(len);
        out
    }

    fn compound(ssrc: u32) -> Vec<u8> {
        let report = Report { ssrc, sender: None, blocks: &[], cname: "c", goodbye: false };
        let mut out = vec![0; 100];
        let len = report.write(&mut out).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn every_suite_opens_what_it_protects_once() {
        for suite in Suite::PREFERENCE {
            let (mut protect, mut unprotect) = keys(suite);
            let sealed = protect.rtp(&packet(1, 5)).unwrap();
            assert_eq!(sealed.len(), 32 + suite.rtp_tag_len(), "{suite}");
            assert_eq!(unprotect.rtp(&sealed).unwrap(), packet(1, 5), "{suite}");
            assert_eq!(unprotect.rtp(&sealed), Err(SrtpError::Rejected), "{suite}");
            let sealed = protect.rtcp(&compound(1)).unwrap();
            assert_eq!(unprotect.rtcp(&sealed).unwrap(), compound(1), "{suite}");
            assert_eq!(unprotect.rtcp(&sealed), Err(SrtpError::Rejected), "{suite}");
        }
    }

    #[test]
    fn short_and_senseless_packets_are_refused() {
        for suite in Suite::PREFERENCE {
            let (mut protect, mut unprotect) = keys(suite);
            let sealed = protect.rtcp(&compound(1)).unwrap();
            for len in 0..sealed.len() {
                assert!(unprotect.rtcp(&sealed[..len]).is_err(), "{suite} {len}");
            }
            let sealed = protect.rtp(&packet(1, 5)).unwrap();
            for len in 0..sealed.len() {
                assert!(unprotect.rtp(&sealed[..len]).is_err(), "{suite} {len}");
            }
        }
    }

    #[test]
    fn srtcp_that_says_it_is_not_encrypted_is_refused() {
        for suite in Suite::PREFERENCE {
            let (_, mut unprotect) = keys(suite);
            let mut forged = compound(1);
            forged.extend([0; 14]);
            forged.extend([0; 16]);
            assert_eq!(unprotect.rtcp(&forged), Err(SrtpError::Rejected), "{suite}");
        }
    }

    #[test]
    fn forged_packets_leave_no_trace() {
        for suite in Suite::PREFERENCE {
            let (mut protect, mut unprotect) = keys(suite);
            // Of a source before its first packet, of one that is known, and of many strangers.
            for (ssrc, sequence) in [(1, 20_000), (2, 1), (3, 1)] {
                let mut forged = packet(ssrc, sequence);
                forged.extend([0; 16]);
                assert_eq!(unprotect.rtp(&forged), Err(SrtpError::Rejected));
            }
            assert_eq!(unprotect.sources.len(), 0);
            for sequence in 0..3 {
                let sealed = protect.rtp(&packet(1, sequence)).unwrap();
                assert!(unprotect.rtp(&sealed).is_ok(), "{suite}");
                let mut forged = packet(1, 30_000);
                forged.extend([0; 16]);
                assert_eq!(unprotect.rtp(&forged), Err(SrtpError::Rejected));
            }
            assert_eq!(unprotect.sources.len(), 1);
        }
    }

    #[test]
    fn sources_are_bounded_and_the_oldest_gives_way() {
        let (mut protect, mut unprotect) = keys(Suite::AeadAes128Gcm);
        for ssrc in 0..100 {
            let sealed = protect.rtp(&packet(ssrc, 1)).unwrap();
            assert!(unprotect.rtp(&sealed).is_ok());
        }
        assert_eq!(unprotect.sources.len(), RTP_SSRCS.get());
        assert_eq!(unprotect.sources.last().map(|(ssrc, _)| *ssrc), Some(99));
    }
}
