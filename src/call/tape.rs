//! Tape: the recording of a call between two trunks. It runs while two legs talk with each other,
//! where what brought each of them into the call wants it (a route's `record`, or the voice agent
//! whose caller it was), both may be recorded, and what they say can be decoded.

use media::LegPlan;

use crate::bridge::Call;
use crate::contract::{Output, Record, Unrecorded};
use crate::desk::Desk;
use crate::keep;
use crate::leg::{Leg, Stage};

impl Call {
    /// Begins or ends the recording, where what the legs do now wants another.
    pub(crate) fn follow_tape(&mut self, desk: &mut Desk<'_>) {
        let talking = self.talking();
        let judged = talking.and_then(|[one, other]| {
            may_tape(desk, self.legs.get(self.place(one)?)?, self.legs.get(self.place(other)?)?)
        });
        let wanted = talking.filter(|_| judged == Some(Ok(())));
        if wanted != self.taped {
            if self.taped.take().is_some() {
                desk.output(Output::StopTape { call: self.id });
            }
            if let Some([caller, callee]) = wanted {
                let leg = |index| base::LegId { call: self.id, index };
                let (caller, callee) = (leg(caller), leg(callee));
                desk.output(Output::Tape { call: self.id, caller, callee });
            }
            self.taped = wanted;
        }
        let is_recorded = self.is_recorded || judged == Some(Ok(()));
        let unrecorded = judged.and_then(Result::err).or(self.unrecorded);
        if (is_recorded, unrecorded) != (self.is_recorded, self.unrecorded) {
            (self.is_recorded, self.unrecorded) = (is_recorded, unrecorded);
            let (call, recording) = (self.id, is_recorded);
            let transcript = self.is_transcribed;
            desk.record(Record::Recorded { call, recording, transcript, unrecorded });
        }
    }

    /// What is said of the recording when the call is answered.
    pub(crate) fn judge_recording(&mut self, desk: &Desk<'_>) {
        let judged = match (self.legs.first(), self.partner(0)) {
            (Some(caller), Some(callee)) => may_tape(desk, caller, &self.legs[callee]),
            (Some(caller), None) if caller.is_to_be_recorded => {
                Some(keep::forbids(desk.setup, [&self.accepted.terms]).map_or(Ok(()), Err))
            }
            _ => None,
        };
        self.keep.recording = judged == Some(Ok(()));
        self.is_recorded = self.keep.recording;
        self.unrecorded = judged.and_then(Result::err);
    }

    /// The two that talk with each other, the caller's side first.
    fn talking(&self) -> Option<[u8; 2]> {
        let is_up = |leg: &&Leg| leg.stage == Stage::Talking;
        let one = self.legs.iter().filter(is_up).find(|leg| leg.partner.is_some())?;
        let at = self.partner(self.place(one.id.index)?)?;
        let other = self.legs.get(at).filter(is_up)?;
        self.ending.is_none().then_some([one.id.index, other.id.index])
    }
}

/// Whether these two may be recorded once they talk; `None` where nobody wants that.
fn may_tape(desk: &Desk<'_>, one: &Leg, other: &Leg) -> Option<Result<(), Unrecorded>> {
    let is_decodable = |leg: &Leg| {
        let plan = leg.media.as_ref().and_then(|media| media.plan());
        plan.is_some_and(LegPlan::is_decodable)
    };
    let is_wanted = one.is_to_be_recorded && other.is_to_be_recorded;
    let judge = || match keep::forbids(desk.setup, [&one.terms, &other.terms]) {
        Some(forbidden) => Err(forbidden),
        None if is_decodable(one) && is_decodable(other) => Ok(()),
        None => Err(Unrecorded::Codec),
    };
    is_wanted.then(judge)
}
