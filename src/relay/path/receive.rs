//! Stage: a datagram from the socket. What is larger than any media packet goes no further.

use base::limit;

use super::counters::DropReason;

/// Size of a receive buffer: one byte more than a packet may have, so that a larger one shows.
pub const BUFFER_BYTES: usize = limit::RTP_PACKET_BYTES.get() + 1;

/// Checks a datagram's size.
pub(crate) const fn receive(length: usize) -> Result<(), DropReason> {
    if length > limit::RTP_PACKET_BYTES.get() { Err(DropReason::Oversize) } else { Ok(()) }
}
