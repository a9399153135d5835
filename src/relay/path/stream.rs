//! What a leg sends: its source, from numbering to the socket.

use base::{Instant, SessionId};
use media::LegPlan;
use rtp::packet::HEADER_BYTES;
use rtp::{Header, SendStats};

use super::counters::DropReason;
use super::latch::Latch;
use super::numbers::{Numbered, Numbers};
use super::protect::Protect;
use super::{Driver, PlanError, Port, send};

/// See the module. It lives as long as its session: whatever is sent through it, receivers see
/// one source.
pub(crate) struct Stream {
    pub(crate) protect: Protect,
    pub(crate) latch: Latch,
    pub(crate) stats: SendStats,
    numbers: Numbers,
}

impl Stream {
    pub(crate) fn new(plan: &LegPlan) -> Result<Self, PlanError> {
        Ok(Self {
            protect: Protect::new(&plan.protection)?,
            latch: Latch::new(plan.remote),
            stats: SendStats::new(plan.source.ssrc, plan.clock_rate()),
            numbers: Numbers::new(plan.source.sequence, plan.source.timestamp),
        })
    }

    pub(crate) fn update(&mut self, plan: &LegPlan) -> Result<(), PlanError> {
        self.protect.update(&plan.protection)?;
        self.latch.tell(plan.remote);
        Ok(())
    }

    /// Nothing is sent for a while; what follows makes no gap in the numbers.
    pub(crate) const fn interrupt(&mut self) {
        self.numbers.interrupt();
    }

    /// Numbers, protects and sends one packet. `buffer` holds its payload of `length` bytes after
    /// room for the header, and room for the tag behind it.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        origin: Option<SessionId>,
        packet: &Numbered,
        buffer: &mut [u8],
        length: usize,
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let placed = self.numbers.place(now, origin, packet)?;
        let header = Header {
            marker: placed.marker,
            payload_type: packet.payload_type,
            sequence: placed.sequence,
            timestamp: placed.timestamp,
            ssrc: self.stats.ssrc(),
        };
        let front = buffer.first_chunk_mut::<HEADER_BYTES>().ok_or(DropReason::Unprotected)?;
        *front = header.to_bytes();
        let whole = self.protect.rtp(buffer, HEADER_BYTES + length)?;
        send::send(&mut self.latch, Port::Rtp, &buffer[..whole], driver)?;
        if placed.newest && !packet.is_event {
            self.stats.set_clock_rate(packet.clock_rate);
            self.stats.on_packet(now, placed.timestamp, length);
        } else {
            self.stats.on_undated_packet(length);
        }
        Ok(())
    }
}
