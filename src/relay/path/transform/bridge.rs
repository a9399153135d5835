//! A leg that another leg of its call hears: each of its packets goes on as it is, as G.711 of
//! the other law, or decoded and encoded anew, as its plan says for its payload type.
//!
//! What goes on as it is touches no jitter buffer, no codec and no clock. The session that hears
//! it numbers it anew ([`super::super::numbers`]) and sends it.

use std::time::Duration;

use audio::codec::SetupError;
use base::{Instant, SessionId};
use media::{Bridge, KeyPassage, LegPlan, MediaEvent, Passage};
use rtp::Digit;
use rtp::dtmf::{DtmfEvent, DtmfReceiver, TelephoneEvent};
use rtp::packet::Packet;

use super::super::Driver;
use super::super::counters::{DropReason, Tally};
use super::super::numbers::{Numbered, ticks};
use super::super::passing::{Passing, What};
use super::agent::Output;
use super::press::Press;
use super::presses::scaled;
use super::transcode::Transcoder;

/// The clock of comfort noise, in Hz (RFC 3389 section 4).
const NOISE_CLOCK: u32 = 8_000;

/// See the module.
pub(crate) struct Bridged {
    /// The session that hears this one.
    with: Option<SessionId>,
    rules: Option<Rules>,
    way: Option<Way>,
    /// Counts what is one piece; see [`Numbered`].
    timeline: u32,
    run: u32,
    /// When the last packet that went straight on arrived, and its timestamp.
    last: (Instant, u32),
    /// The payload type of the sound heard last.
    heard: Option<u8>,
    keys: Option<Keys>,
    pub(crate) transcoder: Option<Box<Transcoder>>,
    /// Whether it had sound in its last frame: known without a look at it.
    is_sounding: bool,
    press: Option<Box<Press>>,
    presses: u32,
}

/// The bridge, compiled.
struct Rules {
    lines: Vec<Line>,
    keys: KeyPassage,
    noise: Option<(u8, Option<u8>)>,
    /// The clock of what the other leg gets by [`Passage::Transcode`].
    made_clock: u32,
}

/// What becomes of a payload type.
#[derive(Clone, Copy)]
struct Line {
    payload_type: u8,
    clock_rate: u32,
    passage: Passage,
    /// The law of G.711 under it, for [`Passage::Recode`].
    is_mu: bool,
}

/// How the present source's sound goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// In its own numbers, on this clock.
    Straight(u32),
    /// In those of the transcoder.
    Made,
}

/// The telephone events of the source.
struct Keys {
    payload_type: u8,
    clock_rate: u32,
    receiver: DtmfReceiver,
    anchor: Option<Anchor>,
}

/// Where the start of a key press lies on either side.
#[derive(Clone, Copy)]
struct Anchor {
    from: u32,
    to: u32,
    event: u8,
}

impl Bridged {
    pub(crate) fn new(
        plan: &LegPlan,
        bridge: Option<&Bridge>,
        with: Option<SessionId>,
    ) -> Result<Self, SetupError> {
        let mut bridged = Self {
            with: None,
            rules: None,
            way: None,
            timeline: 0,
            run: 0,
            last: (Instant::ZERO, 0),
            heard: None,
            keys: None,
            transcoder: None,
            is_sounding: false,
            press: None,
            presses: 0,
        };
        bridged.update(plan, bridge, with)?;
        Ok(bridged)
    }

    /// Follows a new plan. Whom it speaks to hears a new piece only where the listener is another.
    pub(crate) fn update(
        &mut self,
        plan: &LegPlan,
        bridge: Option<&Bridge>,
        with: Option<SessionId>,
    ) -> Result<(), SetupError> {
        if self.with != with || bridge.is_none() {
            self.way = None;
            // Whoever held a key has gone, and who rang has answered.
            self.let_go(Duration::ZERO);
            self.ring(plan, false);
        }
        self.with = with;
        self.rules = bridge.map(|bridge| Rules::compile(plan, bridge));
        let told = plan.telephone_event.map(|event| (event.receive, event.clock_rate));
        // Where it stays so does the state, so that a key held over a re-INVITE goes on.
        if self.keys.as_ref().map(|keys| (keys.payload_type, keys.clock_rate)) != told {
            self.keys = told.map(|(payload_type, clock_rate)| Keys {
                payload_type,
                clock_rate,
                receiver: DtmfReceiver::new(clock_rate),
                anchor: None,
            });
        }
        let stays = match (&mut self.transcoder, bridge) {
            (Some(transcoder), Some(bridge)) => transcoder.update(plan, bridge)?,
            _ => false,
        };
        if !stays {
            self.transcoder = None;
            self.is_sounding = false;
        }
        Ok(())
    }

    /// The RTP clock of a payload type that is accepted.
    pub(crate) fn clock(&self, plan: &LegPlan, payload_type: u8) -> Option<u32> {
        // Nearly always one that goes on, whose rule is needed anyway.
        let lines = self.rules.iter().flat_map(|rules| &rules.lines);
        let mut line = lines.filter(|line| line.payload_type == payload_type);
        line.next().map(|line| line.clock_rate).or_else(|| clock_rate(plan, payload_type))
    }

    /// Whether frames of 20 ms have something to do. A key that is down may never be said to have
    /// gone up, which the listener must know where it makes the key anew.
    pub(crate) fn needs_frames(&self) -> bool {
        let is_tones = self.rules.as_ref().is_some_and(|rules| rules.keys == KeyPassage::Tones);
        self.press.is_some()
            || self.is_sounding
            || self.transcoder.as_ref().is_some_and(|it| !it.is_idle())
            || is_tones && self.is_key_down()
    }

    /// The payload type of the sound heard last.
    pub(crate) const fn heard(&self) -> Option<u8> {
        self.heard
    }

    fn is_key_down(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.receiver.poll_timeout().is_some())
    }

    /// Whether `from` is whom this leg hears.
    pub(crate) fn hears(&self, from: SessionId) -> bool {
        self.with.is_none_or(|with| with == from)
    }

    /// Whether keys are being pressed, for which sound makes room.
    pub(crate) const fn is_pressing(&self) -> bool {
        self.press.is_some()
    }

    /// The listener says what it loses of us, 0 to 1.
    pub(crate) fn set_loss(&mut self, loss: f32) {
        self.transcoder.iter_mut().for_each(|transcoder| transcoder.set_loss(loss));
    }

    /// What this leg's peer loses, for whoever makes what it hears.
    pub(crate) fn tell_loss(&self, loss: f32, driver: &mut dyn Driver) {
        if let Some(to) = self.with {
            driver.pass(Passing { to, what: What::Loss(loss) }, &[]);
        }
    }

    /// Another source speaks.
    pub(crate) fn reset(&mut self, driver: &mut dyn Driver) {
        self.way = None;
        self.transcoder.iter_mut().for_each(|transcoder| transcoder.reset());
        if let Some(keys) = &mut self.keys {
            keys.anchor = None;
            if let Some(ended) = keys.receiver.reset()
                && self.rules.as_ref().is_some_and(|rules| rules.keys == KeyPassage::Tones)
            {
                on_heard_key(self.with, KeyPassage::Tones, ended, driver);
            }
        }
    }

    /// Keys under way are in a form that the peer takes no more.
    pub(crate) fn cut_press(&mut self) {
        self.press = None;
    }

    /// The peer is not listened to.
    pub(crate) fn hold(&mut self) {
        self.interrupt();
        self.transcoder.iter_mut().for_each(|transcoder| transcoder.hold());
        self.is_sounding = false;
    }

    /// Packets were left out on purpose.
    const fn interrupt(&mut self) {
        self.run = self.run.wrapping_add(1);
    }

    /// Takes a packet, which is the whole of `datagram`, and hands it on.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        packet: Fixed,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let Some(rules) = &self.rules else {
            return Err(DropReason::Unbridged);
        };
        let payload_type = packet.payload_type;
        if self.keys.as_ref().is_some_and(|keys| keys.payload_type == payload_type) {
            return self.on_key(now, plan, packet, datagram, driver);
        }
        if let Some((noise, goes_on)) = rules.noise.filter(|(noise, _)| *noise == payload_type) {
            let line = Line {
                payload_type: noise,
                clock_rate: NOISE_CLOCK,
                passage: goes_on.map_or(Passage::Transcode, Passage::Forward),
                is_mu: false,
            };
            return self.on_noise(now, plan, line, packet, datagram, driver);
        }
        let line = rules.lines.iter().find(|line| line.payload_type == payload_type);
        let line = *line.ok_or(DropReason::PayloadType)?;
        self.heard = Some(payload_type);
        self.on_sound(now, plan, line, packet, datagram, driver)
    }

    fn on_sound(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        line: Line,
        packet: Fixed,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let payload_type = match line.passage {
            Passage::Forward(payload_type) => payload_type,
            Passage::Recode(payload_type) => {
                let payload = &mut datagram[packet.payload()];
                if line.is_mu {
                    audio::g711::mu_to_a(payload);
                } else {
                    audio::g711::a_to_mu(payload);
                }
                payload_type
            }
            Passage::Transcode => {
                self.follow(Way::Made);
                let packet = Packet::parse(datagram).map_err(|_| DropReason::Malformed)?;
                return self.transcoder(plan)?.push(now, &packet);
            }
        };
        self.follow(Way::Straight(line.clock_rate));
        self.last = (now, packet.timestamp);
        self.hand_on(packet, payload_type, line.clock_rate, &datagram[packet.payload()], driver);
        Ok(())
    }

    /// Comfort noise goes the way that the sound before it went.
    fn on_noise(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        line: Line,
        packet: Fixed,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        match (self.way.unwrap_or(self.first_way()), line.passage) {
            (Way::Made, _) => {
                let line = Line { passage: Passage::Transcode, ..line };
                self.on_sound(now, plan, line, packet, datagram, driver)
            }
            (Way::Straight(NOISE_CLOCK), Passage::Forward(_)) => {
                self.on_sound(now, plan, line, packet, datagram, driver)
            }
            // Silence, to whom nobody may describe it.
            (Way::Straight(_), _) => {
                self.interrupt();
                Ok(())
            }
        }
    }

    fn hand_on(
        &self,
        packet: Fixed,
        payload_type: u8,
        clock_rate: u32,
        payload: &[u8],
        driver: &mut dyn Driver,
    ) {
        let numbered = Numbered {
            timeline: self.timeline.wrapping_mul(2),
            run: self.run,
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            clock_rate,
            payload_type,
            marker: packet.marker,
            is_event: false,
        };
        pass(self.with, numbered, payload, driver);
    }

    /// The way of a source that has not yet been heard.
    fn first_way(&self) -> Way {
        let first = self.rules.as_ref().and_then(|rules| rules.lines.first());
        first.map_or(Way::Straight(NOISE_CLOCK), |line| match line.passage {
            Passage::Transcode => Way::Made,
            Passage::Forward(_) | Passage::Recode(_) => Way::Straight(line.clock_rate),
        })
    }

    fn follow(&mut self, way: Way) {
        if self.way != Some(way) {
            if self.way == Some(Way::Made) {
                self.transcoder.iter_mut().for_each(|transcoder| transcoder.reset());
            }
            if way != Way::Made {
                self.timeline = self.timeline.wrapping_add(1);
            }
            self.way = Some(way);
        }
    }

    /// The transcoder, made when its first packet comes.
    fn transcoder(&mut self, plan: &LegPlan) -> Result<&mut Transcoder, DropReason> {
        if self.transcoder.is_none() {
            let media::Purpose::Bridge(Some(bridge)) = &plan.purpose else {
                return Err(DropReason::Unbridged);
            };
            self.timeline = self.timeline.wrapping_add(1);
            // Opus fails to set up only where memory is short; the packet is then lost.
            let to = bridge.to.ok_or(DropReason::PayloadType)?;
            let fresh = Transcoder::new(plan, bridge, to, self.timeline.wrapping_shl(8));
            self.transcoder = Some(Box::new(fresh.map_err(|_| DropReason::Undecodable)?));
        }
        self.transcoder.as_deref_mut().ok_or(DropReason::Undecodable)
    }

    /// A telephone event of the source's.
    fn on_key(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        packet: Fixed,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let (Some(rules), Some(keys)) = (&self.rules, &mut self.keys) else {
            return Err(DropReason::PayloadType);
        };
        let payload = &datagram[packet.payload()];
        let (passage, made_clock) = (rules.keys, rules.made_clock);
        let mut seen = [None; 3];
        let events = keys.receiver.handle_packet(now, packet.timestamp, payload);
        seen.iter_mut().zip(events).for_each(|(slot, event)| *slot = Some(event));
        if let KeyPassage::Events { payload_type, clock_rate } = passage {
            let event = TelephoneEvent::parse(payload).ok_or(DropReason::Malformed)?;
            let begins = seen.iter().any(|it| matches!(it, Some(DtmfEvent::Started { .. })));
            let way = self.way.unwrap_or(self.first_way());
            let to = KeyTo { payload_type, clock_rate, way, made_clock, begins };
            return self.hand_on_key(now, plan, packet, event, to, driver);
        }
        for event in seen.into_iter().flatten() {
            on_heard_key(self.with, passage, event, driver);
        }
        self.interrupt();
        Ok(())
    }

    /// Hands a telephone event on: its start on the clock of the sound that goes on, its duration
    /// on the clock of the listener's events.
    fn hand_on_key(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        packet: Fixed,
        event: TelephoneEvent,
        to: KeyTo,
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let from_clock = self.keys.as_ref().map_or(NOISE_CLOCK, |keys| keys.clock_rate);
        self.follow(to.way);
        let (start, sound_clock) = match to.way {
            // The same clock all the way: the start is where the source says.
            Way::Straight(clock) if clock == from_clock => (packet.timestamp, clock),
            Way::Straight(clock) => {
                let present = self.last.1.wrapping_add(ticks(now, self.last.0, clock));
                (self.anchor(packet.timestamp, event.event, present, clock, to.begins), clock)
            }
            Way::Made => {
                let present = self.transcoder(plan)?.packets().timestamp();
                let clock = to.made_clock;
                (self.anchor(packet.timestamp, event.event, present, clock, to.begins), clock)
            }
        };
        let units = scaled(u32::from(event.duration), from_clock, to.clock_rate);
        // What one packet cannot say is a further segment (RFC 4733 section 2.5.1.3).
        let full = units.saturating_sub(1) / u32::from(u16::MAX);
        let before = full * u32::from(u16::MAX);
        let duration = u16::try_from(units - before).unwrap_or(u16::MAX);
        let timestamp = start.wrapping_add(scaled(before, to.clock_rate, sound_clock));
        let numbered = match to.way {
            Way::Straight(_) => Numbered {
                timeline: self.timeline.wrapping_mul(2),
                run: self.run,
                sequence: packet.sequence,
                timestamp,
                clock_rate: sound_clock,
                payload_type: to.payload_type,
                marker: packet.marker,
                is_event: true,
            },
            Way::Made => {
                let packets = self.transcoder(plan)?.packets();
                made(packets.number(to.payload_type, timestamp, packet.marker, true))
            }
        };
        let payload = TelephoneEvent { duration, ..event }.to_bytes();
        pass(self.with, numbered, &payload, driver);
        Ok(())
    }

    /// Where a press that begins at `timestamp` begins on the way out, where it is `present` now
    /// on a clock of `clock_rate`.
    fn anchor(
        &mut self,
        timestamp: u32,
        event: u8,
        present: u32,
        clock_rate: u32,
        begins: bool,
    ) -> u32 {
        let Some(keys) = &mut self.keys else { return present };
        let from_clock = keys.clock_rate;
        let known = keys.anchor.filter(|anchor| {
            let ahead = timestamp.wrapping_sub(anchor.from);
            // Events that are no keys are told apart by their timestamps alone.
            let is_newer = ahead != 0 && ahead <= u32::MAX / 2 && anchor.event != event;
            !begins && !is_newer
        });
        let anchor = known.unwrap_or(Anchor { from: timestamp, to: present, event });
        keys.anchor = Some(anchor);
        let ahead = timestamp.wrapping_sub(anchor.from);
        if ahead > u32::MAX / 2 {
            anchor.to.wrapping_sub(scaled(ahead.wrapping_neg(), from_clock, clock_rate))
        } else {
            anchor.to.wrapping_add(scaled(ahead, from_clock, clock_rate))
        }
    }

    /// Sends keys that came by signalling to this leg's peer; `false` where a character is no key
    /// or too many wait.
    pub(crate) fn press(&mut self, plan: &LegPlan, keys: &str) -> bool {
        let Some(press) = self.pressing(plan, false) else { return false };
        let taken = press.send(keys);
        self.end_press();
        taken
    }

    /// The peer hears that somebody's telephone rings, or no longer.
    pub(crate) fn ring(&mut self, plan: &LegPlan, on: bool) {
        if !on {
            self.press.take_if(|press| press.is_ring());
        } else if self.press.is_none() {
            self.presses = self.presses.wrapping_add(1);
            self.press = Press::ring(plan, self.presses).map(Box::new);
        }
    }

    /// A key goes down.
    pub(crate) fn press_down(&mut self, plan: &LegPlan, digit: Digit, as_tone: bool) {
        if let Some(press) = self.pressing(plan, as_tone) {
            press.press(digit);
        }
    }

    /// The key goes up, after `duration`.
    pub(crate) fn let_go(&mut self, duration: Duration) {
        self.press.iter_mut().for_each(|press| press.release(duration));
    }

    fn pressing(&mut self, plan: &LegPlan, as_tone: bool) -> Option<&mut Press> {
        if self.press.is_none() {
            self.presses = self.presses.wrapping_add(1);
            self.press = Press::new(plan, as_tone, self.presses).map(Box::new);
        }
        self.press.as_deref_mut()
    }

    fn end_press(&mut self) {
        self.press.take_if(|press| !press.is_active());
    }

    /// One frame of 20 ms of keys that are pressed; `out` is this leg's own stream.
    pub(crate) fn press_frame(&mut self, sends: bool, out: &mut dyn Output) {
        if let Some(press) = self.press.as_mut().filter(|_| sends) {
            press.frame(out);
            self.end_press();
        } else {
            self.press = None;
        }
    }

    /// One frame of 20 ms of sound that is decoded and encoded.
    pub(crate) fn transcode_frame(&mut self, now: Instant, driver: &mut dyn Driver) {
        let passage = self.rules.as_ref().map_or(KeyPassage::Drop, |rules| rules.keys);
        let ended = self.keys.as_mut().and_then(|keys| keys.receiver.handle_timeout(now));
        if let Some(ended) = ended.filter(|_| passage == KeyPassage::Tones) {
            on_heard_key(self.with, passage, ended, driver);
        }
        let is_down = self.is_key_down();
        if let Some(transcoder) = &mut self.transcoder {
            let found = transcoder.frame(now, is_down, &mut Handing { with: self.with, driver });
            self.is_sounding = transcoder.is_sounding();
            for event in found.into_iter().flatten() {
                on_heard_key(self.with, passage, event, driver);
            }
        }
    }

    /// Lets `frames` frames pass.
    pub(crate) fn skip(&mut self, frames: u32) {
        self.transcoder.iter_mut().for_each(|transcoder| transcoder.skip(frames));
    }
}

/// The parts of a packet's header that count, and where its payload lies: the bytes themselves
/// may then be changed.
#[derive(Clone, Copy)]
pub(crate) struct Fixed {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) payload_type: u8,
    marker: bool,
    start: usize,
    end: usize,
}

impl Fixed {
    /// Of a packet that is the whole of its datagram.
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        let start = packet.header_len();
        Self {
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            payload_type: packet.payload_type(),
            marker: packet.marker(),
            start,
            end: start + packet.payload().len(),
        }
    }

    const fn payload(&self) -> std::ops::Range<usize> {
        self.start..self.end
    }
}

/// How a telephone event is to go on.
#[derive(Clone, Copy)]
struct KeyTo {
    payload_type: u8,
    clock_rate: u32,
    way: Way,
    made_clock: u32,
    /// Whether it is the first that arrived of its press.
    begins: bool,
}

impl Rules {
    fn compile(plan: &LegPlan, bridge: &Bridge) -> Self {
        let line = |(payload_type, passage): &(u8, Passage)| {
            let format = plan.accept.iter().find(|format| format.payload_type == *payload_type);
            Some(Line {
                payload_type: *payload_type,
                clock_rate: clock_rate(plan, *payload_type)?,
                passage: *passage,
                is_mu: format.is_some_and(|format| format.codec == audio::Codec::Pcmu),
            })
        };
        Self {
            lines: bridge.audio.iter().filter_map(line).collect(),
            keys: bridge.keys,
            noise: plan.comfort_noise.map(|noise| (noise.receive, bridge.comfort_noise)),
            made_clock: bridge.to.map_or(NOISE_CLOCK, |to| to.codec.clock_rate()),
        }
    }
}

/// The RTP clock of a payload type that the plan accepts.
fn clock_rate(plan: &LegPlan, payload_type: u8) -> Option<u32> {
    let decoded = plan.accept.iter().find(|format| format.payload_type == payload_type);
    let opaque = || plan.opaque.iter().find(|format| format.receive == payload_type);
    let clock_rate = decoded.map(|format| format.codec.clock_rate());
    clock_rate.or_else(|| opaque().map(|format| format.codec.clock_rate))
}

/// A key that goes on in another form than the source's.
fn on_heard_key(
    with: Option<SessionId>,
    passage: KeyPassage,
    event: DtmfEvent,
    driver: &mut dyn Driver,
) {
    let what = match (passage, event) {
        (KeyPassage::Drop, _) | (KeyPassage::Report, DtmfEvent::Ended { .. }) => return,
        (KeyPassage::Report, DtmfEvent::Started { digit }) => {
            let digit = digit.to_char();
            return driver.event(MediaEvent::Digit { digit, duration: Duration::ZERO });
        }
        (_, DtmfEvent::Started { digit }) => {
            What::Press { digit, as_tone: passage == KeyPassage::Tones }
        }
        (_, DtmfEvent::Ended { duration, .. }) => What::Release(duration),
    };
    if let Some(to) = with {
        driver.pass(Passing { to, what }, &[]);
    }
}

/// A transcoder's packets on their way to the session that hears them.
struct Handing<'a> {
    with: Option<SessionId>,
    driver: &'a mut dyn Driver,
}

impl Output for Handing<'_> {
    fn event(&mut self, event: MediaEvent) {
        self.driver.event(event);
    }

    fn packet(&mut self, packet: &Numbered, payload: &[u8]) {
        pass(self.with, made(*packet), payload, self.driver);
    }

    fn tally(&mut self) -> &mut Tally {
        self.driver.tally()
    }
}

/// A transcoder's timelines are the odd ones.
const fn made(packet: Numbered) -> Numbered {
    Numbered { timeline: packet.timeline.wrapping_mul(2).wrapping_add(1), ..packet }
}

fn pass(with: Option<SessionId>, packet: Numbered, payload: &[u8], driver: &mut dyn Driver) {
    match with {
        Some(to) => driver.pass(Passing { to, what: What::Packet(packet) }, payload),
        None => driver.tally().drop(DropReason::Unbridged),
    }
}
