//! An announced transfer: the new party is told of the caller, who hears nothing meanwhile, and
//! takes it by a key or by staying. Where it does not, the voice agent is back with its caller.

use std::sync::Arc;

use base::{Instant, Personal, limit};

use crate::contract::Output;
use crate::dialogue::{Dialogue, State};
use crate::flow::{Action, Announcement};
use crate::provider::{Role, SpeechId};
use crate::turn::{Speaking, Turn};

/// What the new party is told, and how often it was.
#[derive(Debug)]
pub(crate) struct Told {
    /// While it is being said.
    speech: Option<SpeechId>,
    samples: u64,
    since: Instant,
    times: u8,
}

impl Dialogue {
    pub(crate) fn on_target_reached(&mut self, now: Instant) {
        let State::Transferring(step) = self.state else {
            // It was given up: nobody waits for the new party any more.
            return self.outputs.push_back(Output::TransferAnswer(false));
        };
        self.state = State::Announcing(step);
        self.announce(now, 1);
    }

    /// What is to be said.
    fn announcement(&self) -> Option<&Announcement> {
        let State::Announcing(step) = self.state else { return None };
        match &self.flow.step(step)?.action {
            Action::Transfer { announcement, .. } => announcement.as_ref(),
            _ => None,
        }
    }

    fn announce(&mut self, now: Instant, times: u8) {
        let Some(text) = self.announcement().map(|it| it.text.clone()) else {
            return self.answer(now, true);
        };
        let speech = SpeechId(self.next_id());
        self.told = Some(Told { speech: Some(speech), samples: 0, since: now, times });
        self.deadline = Some(now + limit::PROVIDER_REPLY_MS.millis());
        self.outputs.push_back(Output::Speak { speech, text });
    }

    /// Whether this is the speech that the new party hears.
    pub(crate) fn is_announcing(&self, speech: SpeechId) -> bool {
        self.told.as_ref().is_some_and(|told| told.speech == Some(speech))
    }

    /// A piece of it is there.
    pub(crate) fn on_announcement(
        &mut self,
        now: Instant,
        speech: SpeechId,
        samples: Arc<[i16]>,
        last: bool,
    ) {
        let Some(told) = &mut self.told else { return };
        told.samples += samples.len() as u64;
        let queued = told.samples;
        if last && queued == 0 {
            return self.on_announced(now, speech);
        }
        // The caller's hold has nothing to do with the new party's ear.
        self.deadline = Some(now + crate::turn::at(queued) + limit::PROVIDER_REPLY_MS.millis());
        self.outputs.push_back(Output::Announce { speech, samples, last });
    }

    /// The new party has heard it.
    pub(crate) fn on_announced(&mut self, now: Instant, speech: SpeechId) {
        if !self.is_announcing(speech) {
            return;
        }
        self.write_announcement(now);
        match self.announcement().and_then(|announcement| announcement.accept) {
            Some(_) => self.deadline = Some(now + self.flow.reprompt_after),
            None => self.answer(now, true),
        }
    }

    pub(crate) fn on_target_digit(&mut self, now: Instant, digit: char) {
        let accept = self.announcement().and_then(|announcement| announcement.accept);
        // Without a key of its own it cannot be told what keys mean.
        let Some(accept) = accept else { return };
        self.write_announcement(now);
        self.answer(now, digit == accept);
    }

    /// Neither a speech that was asked for nor a key has come.
    pub(crate) fn on_target_silent(&mut self, now: Instant) {
        let Some(told) = &self.told else { return self.decline(now) };
        if told.speech.is_some() {
            self.fail(Role::Speaker);
            return self.decline(now);
        }
        match told.times < self.flow.silences {
            true => self.announce(now, told.times + 1),
            false => self.decline(now),
        }
    }

    /// The new party does not get the caller; that the transfer failed is told next.
    pub(crate) fn decline(&mut self, now: Instant) {
        self.answer(now, false);
    }

    fn answer(&mut self, now: Instant, is_accepted: bool) {
        let State::Announcing(step) = self.state else { return };
        self.told = None;
        self.state = State::Transferring(step);
        self.deadline = Some(now + limit::PROVIDER_REPLY_MS.millis());
        self.outputs.push_back(Output::TransferAnswer(is_accepted));
    }

    /// Puts what the new party was told into the transcript, once.
    fn write_announcement(&mut self, now: Instant) {
        let text = self.announcement().map(|it| format!("[to the new party] {}", it.text));
        let since = self.told.as_mut().and_then(|told| told.speech.take().map(|_| told.since));
        let (Some(text), Some(since)) = (text, since) else { return };
        let (start, end) = (self.place_of(since), self.place_of(now));
        self.write_turn(Turn {
            speaking: Speaking::Agent,
            text: Personal::new(text),
            start,
            end,
            interrupted: false,
            latency: None,
        });
    }
}
