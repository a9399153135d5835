//! Stage: which protocol a datagram belongs to (RFC 7983, RFC 5761).

use rtp::Datagram;

use super::Port;
use super::counters::DropReason;

/// What the rest of the path knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Rtp,
    Rtcp,
}

/// Sorts a datagram. What ICE and DTLS send has been taken before on a leg that speaks them, and is
/// dropped on others; so is RTP at a port that is for RTCP.
pub(crate) fn demux(port: Port, datagram: &[u8]) -> Result<Media, DropReason> {
    match (rtp::classify(datagram), port) {
        (Datagram::Rtp, Port::Rtp | Port::Beside | Port::Stream(_)) => Ok(Media::Rtp),
        (Datagram::Rtcp, _) => Ok(Media::Rtcp),
        _ => Err(DropReason::NotMedia),
    }
}
