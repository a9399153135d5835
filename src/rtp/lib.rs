//! Tier 1, media packets without I/O: [RTP](packet) and [RTCP](rtcp), [which of the protocols on
//! one port](demux) a datagram is, [statistics](stats) and [estimated quality](quality), the
//! [jitter buffer](jitter), [key presses](dtmf), [SDES keys](sdes) and [ICE](ice).
//!
//! Nothing here encrypts, decodes audio, reads a clock or allocates per packet.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod demux;
pub mod dtmf;
pub mod ice;
pub mod jitter;
pub mod packet;
pub mod quality;
pub mod rtcp;
pub mod sdes;
pub mod sequence;
pub mod stats;

pub use demux::{Datagram, classify};
pub use dtmf::{
    Digit, DigitQueueFull, DtmfEvent, DtmfReceiver, DtmfSender, EventPacket, TelephoneEvent,
};
pub use jitter::{JitterBuffer, JitterConfig, JitterStats, Pace, Played, Pull, Pushed};
pub use packet::{Header, Packet, PacketError, PacketMut};
pub use quality::{Impairment, mos};
pub use rtcp::{Compound, NtpTime, Report, ReportBlock, Rtcp, RtcpError, SenderInfo};
pub use sdes::{Choice, CryptoLine, KeySalt, Skip, Suite};
pub use sequence::{Arrival, Sequence};
pub use stats::{ReceiveStats, RemoteReport, SendStats};
