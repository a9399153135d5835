//! How one leg's media becomes another's: the only place that decides on transcoding.
//!
//! [`between`] looks at what was agreed with both peers and says, for each payload type that the
//! one sends, what the other gets. It is a pure function; the relay compiles its result once and
//! follows it packet by packet.

use audio::Codec;
use base::LegId;

use crate::plan::{Format, LegPlan};

/// How much CPU Opus takes for quality between two legs. One step above the cheapest costs 8 % more
/// and keeps the telephone band flat within half a dB at 24 kb/s, where the cheapest is off by more
/// than one; the next step costs twice as much.
pub const BRIDGED_COMPLEXITY: u8 = 1;

/// What becomes of what a leg says, for the leg that hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The leg that hears it.
    pub with: LegId,
    /// By payload type that the leg may send; others are dropped.
    pub audio: Vec<(u8, Passage)>,
    /// What [`Passage::Transcode`] makes; `None` where nothing is transcoded.
    pub to: Option<Format>,
    /// How much CPU Opus may take for quality there, 0 to 10.
    pub complexity: u8,
    /// What becomes of key presses.
    pub keys: KeyPassage,
    /// Whether tones in the sound count as key presses: they are taken out of the sound, which is
    /// then always decoded.
    pub detect_tones: bool,
    /// Under which payload type comfort noise goes on; `None` turns it into sound where the sound
    /// is decoded anyway, and into silence where it is not.
    pub comfort_noise: Option<u8>,
}

/// What becomes of one payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// The payload goes on as it is, under this payload type.
    Forward(u8),
    /// G.711 of the other law, by table, under this payload type.
    Recode(u8),
    /// Decoded, and encoded as [`Bridge::to`].
    Transcode,
}

/// What becomes of key presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPassage {
    /// Telephone events under this payload type, their durations brought to this clock.
    Events {
        /// Payload type.
        payload_type: u8,
        /// In Hz.
        clock_rate: u32,
    },
    /// Each is reported ([`crate::MediaEvent::Digit`]) and goes on by signalling.
    Report,
    /// Dual tones in the sound (ITU-T Q.23).
    Tones,
    /// Events end here; so do tones, where [`Bridge::detect_tones`] finds them.
    Drop,
}

/// How a leg's trunk takes and sends key presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Telephone events (RFC 4733).
    Events,
    /// SIP INFO.
    Info,
    /// Tones in the sound.
    Tones,
}

/// What `between` may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How the leg that speaks sends keys; tones are looked for only where this says so.
    pub keys_from: KeyForm,
    /// How the leg that hears wants them.
    pub keys_to: KeyForm,
}

/// What becomes of what `from` says for `to`.
///
/// A codec that `to` takes as well is never decoded, unless packets would be of another length
/// than it asks for or tones are to be found in the sound. Keys that become tones need no
/// decoding: the sound makes room for them. What goes through undecoded goes to a codec that means
/// the same, or nowhere; no tone is found in it.
#[must_use]
pub fn between(from: &LegPlan, to: &LegPlan, rule: Rule) -> Bridge {
    let keys = keys(from, to, rule);
    // Tones that stay in the sound need not be found.
    let detect_tones = rule.keys_from == KeyForm::Tones
        && from.telephone_event.is_none()
        && keys != KeyPassage::Drop;
    let passage = |format: &Format| {
        let passage = if detect_tones { Passage::Transcode } else { passage(format, to) };
        let is_possible = passage != Passage::Transcode || to.send.is_some();
        is_possible.then_some((format.payload_type, passage))
    };
    let opaque = from.opaque.iter().filter_map(|format| {
        let taken = to.opaque.iter().find(|taken| taken.codec == format.codec)?;
        Some((format.receive, Passage::Forward(taken.send)))
    });
    let audio = from.accept.iter().filter_map(passage).chain(opaque).collect();
    // Noise is told apart from sound only where it can be handed on as it is.
    let comfort_noise = to.comfort_noise.map(|noise| noise.send).filter(|_| !detect_tones);
    Bridge {
        with: to.leg,
        audio,
        to: to.send,
        complexity: BRIDGED_COMPLEXITY,
        keys,
        detect_tones,
        comfort_noise,
    }
}

fn passage(format: &Format, to: &LegPlan) -> Passage {
    let taken = |codec: Codec| {
        let taken = to.sendable.iter().find(|taken| taken.codec == codec);
        taken.filter(|taken| taken.packet_ms == format.packet_ms)
    };
    if let Some(taken) = taken(format.codec) {
        return Passage::Forward(taken.payload_type);
    }
    let other_law = match format.codec {
        Codec::Pcmu => Some(Codec::Pcma),
        Codec::Pcma => Some(Codec::Pcmu),
        Codec::G722 | Codec::Opus => None,
    };
    match other_law.and_then(taken) {
        // A wideband codec that the peer prefers gains nothing from a narrowband source.
        Some(taken) => Passage::Recode(taken.payload_type),
        None => Passage::Transcode,
    }
}

fn keys(from: &LegPlan, to: &LegPlan, rule: Rule) -> KeyPassage {
    match (rule.keys_to, to.telephone_event) {
        (KeyForm::Events, Some(event)) => {
            KeyPassage::Events { payload_type: event.send, clock_rate: event.clock_rate }
        }
        // A peer that agreed on no events hears tones, the form that needs no agreement.
        (KeyForm::Events, None) | (KeyForm::Tones, _) => {
            match from.telephone_event.filter(|_| to.send.is_some()) {
                Some(_) => KeyPassage::Tones,
                // They are in the sound already, come by signalling, or cannot be made.
                None => KeyPassage::Drop,
            }
        }
        (KeyForm::Info, _) => KeyPassage::Report,
    }
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod bridge_tests;
