//! Tape: the recording of a call between two trunks. It runs while two legs talk with each other,
//! both may be recorded, and what they say can be decoded.

use media::LegPlan;
use policy::Destination;

use crate::bridge::Call;
use crate::contract::Output;
use crate::desk::Desk;
use crate::leg::{Leg, Stage};

impl Call {
    /// Begins or ends the recording, where what the legs do now wants another.
    pub(crate) fn follow_tape(&mut self, desk: &mut Desk<'_>) {
        let wanted = self.recordable(desk);
        if wanted == self.taped {
            return;
        }
        if self.taped.take().is_some() {
            desk.output(Output::StopTape { call: self.id });
        }
        if let Some([caller, callee]) = wanted {
            let leg = |index| base::LegId { call: self.id, index };
            desk.output(Output::Tape { call: self.id, caller: leg(caller), callee: leg(callee) });
        }
        self.taped = wanted;
    }

    /// Whether this call may be recorded once these two legs talk.
    pub(crate) fn may_tape(&self, desk: &Desk<'_>, one: &Leg, other: &Leg) -> bool {
        let is_allowed = |leg: &Leg| {
            let plan = leg.media.as_ref().and_then(|media| media.plan());
            leg.terms.recording == policy::Keep::Allowed && plan.is_some_and(LegPlan::is_decodable)
        };
        let is_routed = matches!(self.accepted.destination, Destination::Trunk { .. });
        let is_wanted = is_routed && self.accepted.record && desk.setup.recording;
        is_wanted && is_allowed(one) && is_allowed(other)
    }

    /// The two that talk, the caller's side first, where they are to be recorded.
    fn recordable(&self, desk: &Desk<'_>) -> Option<[u8; 2]> {
        let is_up = |leg: &&Leg| leg.stage == Stage::Talking;
        let one = self.legs.iter().filter(is_up).find(|leg| leg.partner.is_some())?;
        let at = self.partner(self.place(one.id.index)?)?;
        let other = self.legs.get(at).filter(is_up)?;
        let is_ending = self.ending.is_some();
        let pair = [one.id.index, other.id.index];
        (!is_ending && self.may_tape(desk, one, other)).then_some(pair)
    }
}
