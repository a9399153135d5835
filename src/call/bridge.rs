//! Bridge: what joins the legs of a call. A call is a caller and whoever it talks with: a voice
//! agent, or another leg. Each leg negotiates for itself; here their media is joined, and what
//! one leg does is carried to the other.

use base::{CallId, Event, Instant, LegId, Reason, VoiceAgentName};
use media::{Bridge, KeyForm, Purpose, Rule};
use policy::{Accepted, Destination, DtmfMethod};
use rtp::Suite;
use sip::DialogId;
use sip::transaction::ServerKey;

use crate::contract::{Keep, Output, Record, Unrecorded};
use crate::desk::Desk;
use crate::dial::{Caller, Route};
use crate::leg::{Leg, Stage};
use crate::negotiate::{self, Agreed, LegMedia};
use crate::pass::Passing;
use crate::transfer::Transfer;

/// One call.
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) accepted: Box<Accepted>,
    /// The voice agent that has a part in it, or is to have.
    pub(crate) agent: Option<VoiceAgentName>,
    /// When the voice agent's speech stops for the caller's.
    pub(crate) barge_in: Option<media::BargeIn>,
    pub(crate) keep: Keep,
    /// The legs that are being recorded as they talk with each other.
    pub(crate) taped: Option<[u8; 2]>,
    /// Whether it is or was recorded, and why it is not, as was said last.
    pub(crate) is_recorded: bool,
    pub(crate) unrecorded: Option<Unrecorded>,
    /// Whether a transcript is or was kept.
    pub(crate) is_transcribed: bool,
    pub(crate) keys_exposed: bool,
    /// The caller is the first; legs that are gone leave.
    pub(crate) legs: Vec<Leg>,
    /// Legs made so far, so that an index is never used twice.
    pub(crate) legs_made: u8,
    /// Who calls.
    pub(crate) caller: Caller,
    /// The number that is dialled, after normalisation. Personal.
    pub(crate) called: String,
    /// What is still to be dialled, where the call goes to a trunk.
    pub(crate) route: Option<Route>,
    pub(crate) transfer: Option<Transfer>,
    /// A REFER that went on to the other party.
    pub(crate) passing: Option<Passing>,
    /// Whether its voice agent has begun.
    pub(crate) is_agent_there: bool,
    pub(crate) arrived: Instant,
    pub(crate) answered: Option<Instant>,
    /// Why the call ends, once it does.
    pub(crate) ending: Option<Reason>,
    /// The dialogs by which the table finds the call.
    pub(crate) indexed: Vec<(DialogId, u8)>,
    /// The INVITE that a CANCEL may name.
    pub(crate) unanswered: Option<ServerKey>,
}

impl std::fmt::Debug for Call {
    /// Leaves the parties out: they are people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.id, self.legs)
    }
}

impl Call {
    /// A call that a leg begins.
    pub(crate) fn new(
        id: CallId,
        accepted: Box<Accepted>,
        caller: Caller,
        legs: Vec<Leg>,
        arrived: Instant,
    ) -> Self {
        Self {
            id,
            called: accepted.called.clone(),
            agent: match &accepted.destination {
                Destination::Agent { name } => Some(name.clone()),
                Destination::Trunk { .. } => None,
            },
            accepted,
            barge_in: None,
            keep: Keep { recording: false, transcript: false },
            taped: None,
            is_recorded: false,
            unrecorded: None,
            is_transcribed: false,
            keys_exposed: false,
            caller,
            legs,
            legs_made: 1,
            route: None,
            transfer: None,
            passing: None,
            is_agent_there: false,
            arrived,
            answered: None,
            ending: None,
            indexed: Vec::new(),
            unanswered: None,
        }
    }

    /// Where the leg of that index stands in `legs`.
    pub(crate) fn place(&self, index: u8) -> Option<usize> {
        self.legs.iter().position(|leg| leg.id.index == index)
    }

    /// Where the leg stands that this one talks with; both must think so.
    pub(crate) fn partner(&self, at: usize) -> Option<usize> {
        let leg = self.legs.get(at)?;
        let other = self.place(leg.partner?)?;
        (self.legs[other].partner == Some(leg.id.index)).then_some(other)
    }

    /// When this call next needs time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let legs = self.legs.iter().filter_map(Leg::deadline).min();
        let ends = self.ends_at().filter(|_| self.ending.is_none());
        let passing = self.passing.as_ref().and_then(Passing::deadline);
        let joined = self.transfer.as_ref().and_then(|transfer| transfer.joined_by);
        [legs, ends, passing, joined].into_iter().flatten().min()
    }

    /// When the longest duration is over: the shortest that any leg's trunk allows.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let longest = self.legs.iter().map(|leg| leg.terms.max_duration).min()?;
        self.answered.map(|answered| answered + longest)
    }

    /// What was agreed on a leg begins to flow.
    pub(crate) fn apply(&mut self, desk: &mut Desk<'_>, at: usize, agreed: &Agreed) {
        self.apply_told(desk, at, agreed, None);
    }

    /// The same, where the peer was told a direction that its partner wants.
    pub(crate) fn apply_told(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        agreed: &Agreed,
        told: Option<sdp::Direction>,
    ) {
        // It says no more than that it has understood; who asked may have left meanwhile.
        let is_echo = told.is_some_and(|told| {
            told != sdp::Direction::SendRecv && told == negotiate::worded(agreed.plan.direction)
        });
        let held = !agreed.plan.direction.send;
        let changed = std::mem::replace(&mut self.legs[at].is_held, held) != held;
        self.join(desk, at);
        match self.partner(at) {
            Some(_) if is_echo => {}
            Some(other) => {
                // The partner learns what it may expect, unless it asked for it itself.
                let media = self.legs[at].media.as_ref();
                if let Some(wanted) = media.and_then(|media| media.partner_direction()) {
                    self.legs[other].tell_direction(desk, wanted);
                }
            }
            None if changed
                && self.legs[at].partner.is_none()
                && !self.is_target(self.legs[at].id.index) =>
            {
                desk.output(Output::Held { call: self.id, held })
            }
            None => {}
        }
    }

    /// Hands the plans of a leg and of its partner to the relay, joined as they now are.
    pub(crate) fn join(&mut self, desk: &mut Desk<'_>, at: usize) {
        let partner = self.partner(at);
        let has_plan =
            |at: usize| self.legs[at].media.as_ref().is_some_and(|it| it.plan().is_some());
        if partner.is_some_and(|partner| has_plan(partner) && has_plan(at)) {
            self.ring_caller(desk, false);
        }
        // Whoever has changed is followed; were both offered what the other has, they would swap.
        let is_followed = partner.is_some_and(|partner| self.refit(desk, partner, Some(at)));
        if !is_followed {
            self.refit(desk, at, partner);
        }
        for (from, to) in [(Some(at), partner), (partner, Some(at))] {
            let Some(from) = from else { continue };
            let purpose = match self.legs[from].partner {
                // Who is told of a caller says "hello" first; that must not cut it short.
                None if self.is_target(self.legs[from].id.index) => {
                    Purpose::Agent { barge_in: None }
                }
                None => Purpose::Agent { barge_in: self.barge_in },
                Some(_) => Purpose::Bridge(to.and_then(|to| self.between(from, to))),
            };
            let Some(plan) = self.legs[from].media.as_ref().and_then(|media| media.plan()) else {
                continue;
            };
            let plan = media::LegPlan { purpose, ..plan.clone() };
            desk.output(Output::Apply { plan: Box::new(plan) });
        }
        self.follow_tape(desk);
    }

    /// Lets a leg agree anew where it speaks what its partner can no longer hear; whether it does.
    fn refit(&mut self, desk: &mut Desk<'_>, at: usize, partner: Option<usize>) -> bool {
        let speaks_to_agent = self.legs[at].partner.is_none();
        if partner.is_none() && !speaks_to_agent {
            return false; // it waits for another party
        }
        let Some(mut media) = self.legs[at].media.take() else { return false };
        let is_stale = media.refit(partner.and_then(|it| self.legs[it].media.as_ref()));
        let present = media.plan().map(|plan| plan.direction);
        let leg = &mut self.legs[at];
        leg.media = Some(media);
        if let (true, Some(present)) = (is_stale, present) {
            leg.tell_direction(desk, present);
        }
        is_stale
    }

    fn between(&self, from: usize, to: usize) -> Option<Bridge> {
        let plan = |at: usize| self.legs[at].media.as_ref().and_then(|media| media.plan());
        let rule =
            Rule { keys_from: self.legs[from].key_form(), keys_to: self.legs[to].key_form() };
        Some(media::between(plan(from)?, plan(to)?, rule))
    }

    /// A key that a leg pressed by signalling, or whose tone the relay reports.
    pub(crate) fn on_digit(&mut self, desk: &mut Desk<'_>, at: usize, digit: char) {
        let Some(other) = self.partner(at) else {
            if self.legs[at].partner.is_none() {
                desk.output(Output::Digit { leg: self.legs[at].id, digit });
            }
            return;
        };
        let other = &mut self.legs[other];
        match other.key_form() {
            KeyForm::Info => other.send_digit(desk, digit),
            KeyForm::Events | KeyForm::Tones => {
                desk.output(Output::Press { leg: other.id, digit });
            }
        }
    }

    /// The caller's leg is up for the first time.
    pub(crate) fn answered(&mut self, desk: &mut Desk<'_>, agreed: &Agreed) {
        let call = self.id;
        let Agreed { codec, protection, .. } = *agreed;
        let setup = desk.now.since(self.arrived);
        desk.event(Event::CallAnswered { call, setup, codec, protection });
        let keys_exposed = self.keys_exposed && agreed.has_told_keys();
        if keys_exposed {
            desk.event(Event::KeysExposed { call });
        }
        self.judge_recording(desk);
        self.is_transcribed = self.keep.transcript;
        let (wall, keep, unrecorded) = (desk.wall, self.keep, self.unrecorded);
        desk.record(Record::Answered {
            call,
            wall,
            codec,
            protection,
            keys_exposed,
            keep,
            unrecorded,
        });
    }

    /// Both sides know that a leg is up.
    pub(crate) fn confirm(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &mut self.legs[at];
        if leg.stage != Stage::Answered {
            return;
        }
        leg.stage = Stage::Talking;
        if self.begin_agent(desk, at) {
            return;
        }
        // What waited until both were up.
        self.legs[at].tell_pending(desk);
        self.follow_tape(desk);
    }

    /// Whether a leg is up whose voice agent has not begun.
    fn awaits_agent(&self, at: usize) -> bool {
        let leg = &self.legs[at];
        let is_up = leg.stage == Stage::Talking && leg.partner.is_none();
        self.agent.is_some() && is_up && !self.is_agent_there && !self.is_target(leg.id.index)
    }

    /// Lets the voice agent begin that a leg waits for; `false` where it waits for none.
    pub(crate) fn begin_agent(&mut self, desk: &mut Desk<'_>, at: usize) -> bool {
        let awaits = self.awaits_agent(at);
        if awaits {
            self.start_agent(desk, at);
        }
        awaits
    }

    /// Lets the voice agent begin, as soon as it is heard.
    fn start_agent(&mut self, desk: &mut Desk<'_>, at: usize) {
        let Some(name) = &self.agent else { return };
        let leg = &self.legs[at];
        if leg.media.as_ref().is_some_and(LegMedia::is_heard) {
            self.is_agent_there = true;
            let (call, leg, agent, keep) = (self.id, leg.id, name.clone(), self.keep);
            desk.output(Output::StartAgent { call, leg, agent, keep });
        }
    }

    /// The handshake of a leg is complete: what is spoken there from now on is heard.
    pub(crate) fn on_secured(&mut self, desk: &mut Desk<'_>, at: usize, suite: Suite) {
        let Leg { id, media: Some(media), .. } = &mut self.legs[at] else { return };
        media.secure(suite);
        let (leg, suite) = (*id, suite.name());
        desk.event(Event::MediaSecured { leg, suite });
        if let Some(Agreed { protection, .. }) = media.agreed() {
            desk.record(Record::Secured { leg, protection });
        }
        self.begin_agent(desk, at);
        self.target_is_secured(desk, at);
    }

    /// A leg of this call that is to be dialled.
    pub(crate) fn next_leg(&mut self) -> Option<LegId> {
        let index = self.legs_made;
        self.legs_made = index.checked_add(1)?;
        Some(LegId { call: self.id, index })
    }
}

impl Leg {
    /// How the peer sends and wants keys: the first of its trunk's forms that was agreed on.
    fn key_form(&self) -> KeyForm {
        let forms = &self.terms.dtmf;
        let plan = self.media.as_ref().and_then(|media| media.plan());
        if plan.is_some_and(|plan| plan.telephone_event.is_some()) {
            let is_first = forms.first() == Some(&DtmfMethod::Info);
            return if is_first { KeyForm::Info } else { KeyForm::Events };
        }
        let form = forms.iter().find(|form| **form != DtmfMethod::Rfc4733);
        match form {
            Some(DtmfMethod::Info) => KeyForm::Info,
            Some(_) => KeyForm::Tones,
            None => KeyForm::Events,
        }
    }
}
