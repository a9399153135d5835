//! A leg that a voice agent listens and speaks to, on the session's 20 ms clock.
//!
//! In each frame the caller is heard first, then it is decided whether the agent stops, then the
//! agent's frame is filled: the frame of the decision already holds no speech of a cut one. What
//! the codec has in its own look-ahead (Opus, some milliseconds) still leaves.

use audio::{Codec, SampleRate, Tone, ToneGenerator};
use base::Instant;
use media::{BargeIn, Channel, FRAME_SAMPLES, LegPlan, MediaEvent, StopCause, TapFrame};
use rtp::packet::Packet;

use super::super::PlanError;
use super::super::counters::{DropReason, Meter, Tally};
use super::super::numbers::Numbered;
use super::super::tap::Taps;
use super::ear::Ear;
use super::hear::Hear;
use super::keys::Keys;
use super::playout::Playout;
use super::speak::Speak;

/// See the module.
pub(crate) struct Agent {
    pub(crate) hear: Hear,
    keys: Keys,
    pub(crate) speak: Speak,
    ear: Ear,
    pub(crate) barge_in: Option<BargeIn>,
    /// The tone that the caller hears while somebody's telephone rings.
    ring: Option<Box<ToneGenerator>>,
}

/// What the rest of the session lends for one frame.
pub(crate) struct Frame<'a> {
    pub(crate) now: Instant,
    pub(crate) position: u64,
    pub(crate) plan: &'a LegPlan,
    pub(crate) playout: &'a mut Playout,
    pub(crate) taps: &'a mut Taps,
}

/// Where a frame's results go.
pub(crate) trait Output {
    fn event(&mut self, event: MediaEvent);
    fn packet(&mut self, header: &Numbered, payload: &[u8]);
    fn tally(&mut self) -> &mut Tally;
}

impl Agent {
    pub(crate) fn new(plan: &LegPlan, barge_in: Option<BargeIn>) -> Result<Self, PlanError> {
        let send = plan.send.ok_or(PlanError::Opaque)?;
        let noise = plan.comfort_noise.map(|noise| noise.receive);
        Ok(Self {
            hear: Hear::new(&plan.accept, noise, SampleRate::Hz16000),
            keys: Keys::new(plan.telephone_event.as_ref()),
            speak: Speak::new(plan, send)?,
            ear: Ear::new(),
            barge_in,
            ring: None,
        })
    }

    /// The caller hears that somebody's telephone rings, or no longer.
    pub(crate) fn ring(&mut self, on: bool) {
        if !on {
            self.ring = None;
        } else if self.ring.is_none() {
            let tone = ToneGenerator::new(&Tone::RINGBACK_EU, SampleRate::Hz16000);
            self.ring = Some(Box::new(tone));
        }
    }

    pub(crate) fn update(&mut self, plan: &LegPlan) -> Result<(), PlanError> {
        self.speak.update(plan, plan.send.ok_or(PlanError::Opaque)?)?;
        self.hear.set_formats(&plan.accept, plan.comfort_noise.map(|noise| noise.receive));
        self.keys.update(plan.telephone_event.as_ref());
        Ok(())
    }

    /// Takes a packet to be heard.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        event: &mut dyn FnMut(MediaEvent),
    ) -> Result<(), DropReason> {
        if self.keys.knows(packet.payload_type()) {
            self.keys.push(now, packet, event);
            return Ok(());
        }
        self.hear.push(now, packet)
    }

    /// Another source speaks.
    pub(crate) fn reset(&mut self) {
        self.hear.reset();
        self.keys.reset();
    }

    /// Cuts the agent's speech at `position`.
    pub(crate) fn stop(
        &mut self,
        playout: &mut Playout,
        position: u64,
        cause: StopCause,
        event: &mut dyn FnMut(MediaEvent),
    ) {
        let unsent = self.speak.cut() as u64;
        playout.stop(unsent, position, cause, event);
        self.ear.acted();
    }

    /// One frame of 20 ms, both ways.
    pub(crate) fn frame(&mut self, with: Frame<'_>, out: &mut dyn Output) {
        let Frame { now, position, plan, playout, taps } = with;
        let narrowband = plan.is_narrowband();
        let mut caller = [0; FRAME_SAMPLES];
        self.hear_caller(now, plan, &mut caller, out.tally());

        let barge_in = self.barge_in.filter(|_| playout.is_playing());
        let heard = self.ear.heard(&caller, position, barge_in, &mut |event| out.event(event));
        if heard.barge_in {
            let event = &mut |event| out.event(event);
            self.stop(playout, position, StopCause::BargeIn, event);
        }

        let mut agent = [0; FRAME_SAMPLES];
        if plan.direction.send && !self.speak.is_pressing() {
            playout.fill(&mut agent, position, &mut |event| out.event(event));
            if let Some(ring) = self.ring.as_mut().filter(|_| !playout.is_playing()) {
                ring.fill(&mut agent);
            }
        }
        self.ear.said(&agent);

        let heard_narrow = self
            .hear
            .format()
            .map_or(narrowband, |format| matches!(format.codec, Codec::Pcmu | Codec::Pcma));
        let tap = |channel, speech, narrowband, samples| TapFrame {
            channel,
            position,
            speech,
            narrowband,
            samples,
        };
        taps.push(tap(Channel::Caller, heard.speech, heard_narrow, caller), out.tally());
        taps.push(tap(Channel::Agent, false, narrowband, agent), out.tally());

        if plan.direction.send {
            self.speak.frame(&agent, &mut |header, payload| out.packet(header, payload));
        } else {
            self.speak.skip(1);
        }
        out.tally().count(Meter::Frames, 1);
    }

    fn hear_caller(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        caller: &mut [i16; FRAME_SAMPLES],
        tally: &mut Tally,
    ) {
        let before = self.hear.concealed;
        for _ in 0..self.hear.frame(now, caller).undecodable {
            tally.drop(DropReason::Undecodable);
        }
        tally.count(Meter::Concealed, self.hear.concealed - before);
        // A key is its event, never also a sound; on hold we do not listen.
        if self.keys.is_down(now) || !plan.direction.receive {
            caller.fill(0);
        }
    }
}
