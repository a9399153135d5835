//! What the path counts: drops by stage and reason, and a few totals.
//!
//! A worker counts in plain numbers ([`Tally`]) and copies them to atomics now and then
//! (`Published`), from which metrics are read.

use std::sync::atomic::{AtomicU64, Ordering};

/// The stages of a packet's path, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// From the socket.
    Receive,
    /// Which protocol (RFC 7983, RFC 5761).
    Demux,
    /// ICE: whether the peer has proved itself on this route.
    Ice,
    /// The handshake for the keys, and what waits for them.
    Dtls,
    /// SRTP, or the source check of exempted plain RTP.
    Unprotect,
    /// Learning the peer's source.
    Latch,
    /// Jitter buffer, codecs, voice detection, playout.
    Transform,
    /// Copies for recogniser and recorder.
    Tap,
    /// SRTP of what we send.
    Protect,
    /// To the socket.
    Send,
}

impl Stage {
    /// The stage's word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Demux => "demux",
            Self::Ice => "ice",
            Self::Dtls => "dtls",
            Self::Unprotect => "unprotect",
            Self::Latch => "latch",
            Self::Transform => "transform",
            Self::Tap => "tap",
            Self::Protect => "protect",
            Self::Send => "send",
        }
    }
}

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $variant:ident $stage:ident $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every one, in the order of the path.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stage that it belongs to.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }

            /// The word in metrics.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

counted! {
    /// Why something was dropped; metric `relay.stage.drop{stage, reason}`.
    DropReason {
        /// A datagram above limit `rtp.packet_bytes`.
        Oversize Receive "oversize",
        /// It had waited for longer than limit `relay.stale_ms`.
        Stale Receive "stale",
        /// The session has no plan yet.
        NoPlan Receive "no_plan",
        /// STUN, DTLS and the like, which this leg does not speak.
        NotMedia Demux "not_media",
        /// STUN that is no check: broken, an answer or an indication.
        NotCheck Ice "not_check",
        /// A check of another session or under a wrong password.
        Forged Ice "forged",
        /// More checks than limit `ice.checks_per_session`.
        CheckFlood Ice "flood",
        /// DTLS or media from where no check was proved.
        Unchecked Ice "unchecked",
        /// DTLS while no handshake is under way or complete.
        Unexpected Dtls "unexpected",
        /// More DTLS than limit `relay.dtls_datagrams`.
        Flood Dtls "flood",
        /// DTLS that the thread of handshakes has no room for.
        Crowded Dtls "crowded",
        /// Media before the keys, above limit `relay.early_packets`, or without hope of keys.
        Early Dtls "early",
        /// No valid RTP or RTCP.
        Malformed Unprotect "malformed",
        /// The SRTP tag is wrong.
        NotAuthentic Unprotect "not_authentic",
        /// An SRTP packet seen before, or too old to tell.
        Replayed Unprotect "replayed",
        /// SRTCP without encryption.
        Unencrypted Unprotect "unencrypted",
        /// More sources than limit `rtp.ssrcs`.
        TooManySources Unprotect "too_many_sources",
        /// Plain RTP from outside the trunk's media networks.
        SourceNetwork Unprotect "source_network",
        /// Plain RTP from another source than the latched one.
        Stranger Latch "stranger",
        /// A payload type that the plan does not accept.
        PayloadType Transform "payload_type",
        /// Received while the plan says not to listen, or to be sent while it says not to send.
        Held Transform "held",
        /// No other leg is there to hear it, or it is not from the leg that this one hears.
        Unbridged Transform "unbridged",
        /// Sound that made room for key presses.
        Pressed Transform "pressed",
        /// From a source that another has just followed, or that follows another too soon.
        Superseded Transform "superseded",
        /// More than one step of a session may hand to another.
        PassingFull Transform "passing_full",
        /// Too late for the jitter buffer or for its number, or there already.
        Late Transform "late",
        /// No room in the jitter buffer.
        Overflow Transform "overflow",
        /// The codec could not decode it.
        Undecodable Transform "undecodable",
        /// Speech of the agent's beyond limit `relay.playout_ms`, in chunks.
        PlayoutFull Transform "playout_full",
        /// A tap's reader is too slow.
        TapFull Tap "tap_full",
        /// SRTP refused what we send (key used up).
        Unprotected Protect "unprotected",
        /// Nothing proven yet at the address, and limit `relay.unlatched_packets` is reached.
        Unlatched Send "unlatched",
        /// The system refused to send.
        Refused Send "refused",
    }
}

counted! {
    /// Totals that are no drops; metric `relay.stage.count{stage, what}`.
    Meter {
        /// Datagrams received.
        Received Receive "datagrams",
        /// ICE checks answered.
        Checks Ice "checks",
        /// Packets that waited for the keys.
        Waited Dtls "waited",
        /// RTP packets believed.
        Believed Unprotect "packets",
        /// Frames of 20 ms run.
        Frames Transform "frames",
        /// Frames left out because the worker was late.
        Skipped Transform "skipped",
        /// Frames of the caller's that were concealed.
        Concealed Transform "concealed",
        /// Frames copied to taps.
        Tapped Tap "frames",
        /// Datagrams sent.
        Sent Send "datagrams",
        /// Rounds in which the budget for frames was spent and the rest had to wait.
        OverBudget Transform "over_budget",
        /// Sessions ended by a fault of ours.
        Panics Transform "panics",
        /// Commands for sessions that are not there.
        Orphans Receive "orphan_commands",
        /// Commands to press keys that are none, that the peer takes no telephone events for, or
        /// too many.
        Unpressed Transform "unpressed_keys",
        /// Listeners above limit `relay.taps`.
        Untapped Tap "refused_listeners",
    }
}

const DROPS: usize = DropReason::ALL.len();
const METERS: usize = Meter::ALL.len();

/// One worker's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    drops: [u64; DROPS],
    meters: [u64; METERS],
    /// Sessions now.
    pub(crate) sessions: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { drops: [0; DROPS], meters: [0; METERS], sessions: 0 }
    }
}

impl Tally {
    /// Counts a drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts something else.
    pub fn count(&mut self, meter: Meter, by: u64) {
        self.meters[meter as usize] += by;
    }

    /// How often this was dropped.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How much of this there was.
    #[must_use]
    pub const fn total(&self, meter: Meter) -> u64 {
        self.meters[meter as usize]
    }

    /// Sessions at the time of the copy.
    #[must_use]
    pub const fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, one)| *sum += one);
        self.meters.iter_mut().zip(other.meters).for_each(|(sum, one)| *sum += one);
        self.sessions += other.sessions;
    }
}

/// A worker's counts as others see them, a fraction of a second old.
#[derive(Debug)]
pub(crate) struct Published([AtomicU64; DROPS + METERS + 1]);

impl Default for Published {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Published {
    pub(crate) fn store(&self, tally: &Tally) {
        let values = tally.drops.iter().chain(&tally.meters).chain([&tally.sessions]);
        self.0.iter().zip(values).for_each(|(slot, value)| slot.store(*value, Ordering::Relaxed));
    }

    pub(crate) fn load(&self) -> Tally {
        let at = |index: usize| self.0[index].load(Ordering::Relaxed);
        Tally {
            drops: std::array::from_fn(at),
            meters: std::array::from_fn(|index| at(DROPS + index)),
            sessions: at(DROPS + METERS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_the_order_of_the_path() {
        let stages: Vec<_> = DropReason::ALL.iter().map(|reason| reason.stage()).collect();
        assert!(stages.is_sorted());
    }

    #[test]
    fn what_is_published_is_what_was_counted() {
        let mut tally = Tally { sessions: 3, ..Tally::default() };
        tally.drop(DropReason::Refused);
        tally.count(Meter::Sent, 7);
        let published = Published::default();
        published.store(&tally);
        assert_eq!(published.load(), tally);
        assert_eq!(tally.dropped(DropReason::Refused), 1);
    }
}
