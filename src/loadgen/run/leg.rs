//! One end of a call: carries messages and time between its line and its user agent,
//! and has the media threads do the rest.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use audio::Codec;
use base::limit::{LOADGEN_SCRIPT_STEPS, RELAY_PORT_TRIES};
use base::{Clock as _, Instant};
use sdp::Direction;
use sip::{Host, Message, NameAddr, Status, Uri, ids};
use tokio::sync::mpsc;

use super::driver::is_of_actor;
use super::{Shared, browser};
use crate::cause::Cause;
use crate::config::{OfferMode, Target, Transport};
use crate::engine::attack::Attack;
use crate::engine::live::Live;
use crate::engine::stamp::{Mark, Role};
use crate::engine::{Media, Outcome, Terms};
use crate::line::{Arrival, Line};
use crate::load::Cancelled;
use crate::os::{OsClock, OsRandom, wake_at};
use crate::report::{CallReport, Ending, millis};
use crate::scenario::{CalleeKind, CallerKind, KeyForm, Keys, Says, Taking, Voice};
use crate::talk;
use crate::user_agent::{Agreed, Description, End, Parties, UserAgent, UserAgentOutput};

/// How long a key is down.
const PRESS: Duration = Duration::from_millis(120);
/// How long a call over UDP answers what the far end repeats, once it is over.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What is due at a time.
enum Act {
    Ring,
    Early,
    Answer,
    Refuse(u16),
    Cancel,
    GiveUp,
    Hold,
    Resume,
    Keys,
    Hangup(Ending),
}

/// How one end turned out.
pub(super) struct LegEnd {
    pub(super) role: Role,
    pub(super) kind: usize,
    pub(super) token: u32,
    pub(super) report: CallReport,
    pub(super) media: Outcome,
    /// Whether it ended as its kind wants: cancelled by the caller, refused by the callee.
    pub(super) is_planned: bool,
}

impl LegEnd {
    /// One that failed for this reason.
    pub(super) fn failed(role: Role, kind: usize, report: CallReport, reason: &str) -> Self {
        let report = CallReport { reason: Some(reason.to_owned()), ..report };
        let (token, media) = (report.index, Outcome::default());
        Self { role, kind, token, report, media, is_planned: false }
    }
}

/// A bad actor at a call, and how long it is there before the caller's first packet.
pub(super) struct Ambush {
    pub(super) attack: Attack,
    pub(super) before: Duration,
}

/// What is particular to one end.
enum Kind {
    Caller(Box<CallerKind>),
    Callee(Box<CalleeKind>),
}

impl Kind {
    const fn voice(&self) -> &Voice {
        match self {
            Self::Caller(kind) => &kind.voice,
            Self::Callee(kind) => &kind.voice,
        }
    }

    const fn cause(&self) -> Option<Cause> {
        match self {
            Self::Caller(kind) => kind.cause,
            Self::Callee(kind) => kind.cause,
        }
    }
}

/// See the module.
struct Leg {
    shared: Arc<Shared>,
    kind: Kind,
    line: Arc<Line>,
    inbox: mpsc::Receiver<Message>,
    is_cut_off: bool,
    ua: UserAgent,
    media: Option<Media>,
    /// What the script asks for, where the media threads run one.
    acts: Option<mpsc::Receiver<talk::Act>>,
    ambush: Option<Ambush>,
    /// What is due, the latest first.
    agenda: Vec<(Instant, Act)>,
    /// How long it talks.
    talk: Duration,
    started: Instant,
    answered: Option<Instant>,
    is_flowing: bool,
    end: Option<End>,
    is_planned: bool,
    token: u32,
    report: CallReport,
}

/// Places a call of this kind and follows it to its end.
pub(super) async fn call(
    shared: Arc<Shared>,
    kind_index: usize,
    token: u32,
    mut report: CallReport,
    ambush: Option<Ambush>,
    mut cancelled: Cancelled,
) -> LegEnd {
    let kind = shared.scenario.callers[kind_index].clone();
    report.index = token;
    let way = shared.way_of(kind_index, token);
    if let Ok((target, lines)) = &way
        && target.transport == Transport::Whip
    {
        let far = lines.far().clone();
        return browser::call(shared, (kind_index, kind), report, far, target, cancelled).await;
    }
    let made = async {
        let (target, lines) = way?;
        let line = lines.get(token).await?;
        let random = &mut shared.random(token, Role::Caller);
        let talk = kind.talk.draw(random);
        let cancel = kind.cancel_after.as_ref().map(|it| it.draw(random));
        let mut leg = Leg::caller(&shared, kind, line, &target, token, ambush).await?;
        leg.talk = talk;
        let limits = &shared.scenario.limits;
        leg.plan(leg.started + limits.setup_timeout, Act::GiveUp);
        if let Some(cancel) = cancel {
            leg.plan(leg.started + cancel, Act::Cancel);
        }
        Ok::<_, &'static str>(leg)
    };
    let mut leg = match made.await {
        Ok(leg) => leg,
        Err(reason) => return LegEnd::failed(Role::Caller, kind_index, report, reason),
    };
    leg.report.saturation = report.saturation;
    leg.run(&mut cancelled).await;
    leg.finish(Role::Caller, kind_index).await
}

/// Takes a call that arrived, and follows it to its end.
pub(super) async fn take(
    shared: Arc<Shared>,
    kind_index: usize,
    token: u32,
    arrival: Arrival,
    mut cancelled: Cancelled,
) -> Option<LegEnd> {
    let callee = shared.scenario.callee.as_ref()?;
    let kind = callee.kinds.get(kind_index)?.clone();
    let random = &mut shared.random(token, Role::Callee);
    let taking = kind.taking;
    let hang_up = kind.hang_up_after.as_ref().map(|it| it.draw(random));
    let mut leg = Leg::callee(&shared, kind.clone(), arrival, token).await?;
    // Its caller hangs up, unless it does so first.
    leg.talk = hang_up.unwrap_or(shared.scenario.limits.duration);
    let start = leg.started;
    if let Some(after) = kind.ring_after {
        leg.plan(start + after, if kind.early_media { Act::Early } else { Act::Ring });
    }
    match taking {
        Taking::Answer(after) => leg.plan(start + after.draw(random), Act::Answer),
        Taking::Refuse(status, after) => {
            shared.note_planned(token);
            leg.is_planned = true;
            leg.plan(start + after.draw(random), Act::Refuse(status));
        }
        Taking::Never => {
            shared.note_planned(token);
            leg.is_planned = true;
        }
    }
    leg.run(&mut cancelled).await;
    Some(leg.finish(Role::Callee, kind_index).await)
}

/// An even port and the next one (RFC 3550 section 11), from the ephemeral range.
pub(super) fn media_ports(address: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    let mut error = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..RELAY_PORT_TRIES.get() {
        let first = UdpSocket::bind((address, 0))?;
        let port = first.local_addr()?.port();
        match UdpSocket::bind((address, port ^ 1)) {
            Ok(second) => {
                first.set_nonblocking(true)?;
                second.set_nonblocking(true)?;
                return Ok(if port % 2 == 0 { (first, second) } else { (second, first) });
            }
            Err(found) => error = found,
        }
    }
    Err(error)
}

impl Leg {
    async fn caller(
        shared: &Arc<Shared>,
        kind: CallerKind,
        line: Arc<Line>,
        target: &Target,
        token: u32,
        ambush: Option<Ambush>,
    ) -> Result<Self, &'static str> {
        let local = line.local();
        let opened = prepare(shared, &kind.voice, local.ip(), token, Role::Caller).await;
        let (description, media) = opened.map_err(|_| "load.no_media_port")?;
        let call_id = ids::new_call_id(&mut OsRandom);
        let us = Uri::sip(Some("load"), &Host::from(local.ip()), None);
        let from = kind.from.as_ref().or(shared.from());
        let from = from.and_then(|from| address_of(from, target)).unwrap_or(NameAddr::new(us));
        let parties = Parties {
            target: target.uri.clone(),
            from,
            offer: kind.offer,
            cause: kind.cause,
            ..parties(local, target.transport, &target.uri)
        };
        let inbox = line.register(&call_id);
        let now = OsClock.now();
        let mut ua = UserAgent::new(parties, description, Box::new(OsRandom));
        ua.start(now, &call_id);
        let report = CallReport { index: token, call_id, ..CallReport::default() };
        let kind = Kind::Caller(Box::new(kind));
        Ok(Self::new(shared, kind, line, inbox, ua, media, report).with(token, ambush))
    }

    async fn callee(
        shared: &Arc<Shared>,
        kind: CalleeKind,
        arrival: Arrival,
        token: u32,
    ) -> Option<Self> {
        let Arrival { line, invite, inbox } = arrival;
        let local = line.local();
        let callee = shared.scenario.callee.as_ref()?;
        let (description, media) =
            prepare(shared, &kind.voice, local.ip(), token, Role::Callee).await.ok()?;
        let call_id = invite.headers.call_id().ok()?.to_owned();
        let parties =
            Parties { cause: kind.cause, ..parties(local, callee.transport, &invite.uri) };
        let now = OsClock.now();
        let ua = UserAgent::arrived(now, parties, description, Box::new(OsRandom), invite)?;
        let report = CallReport { index: token, call_id, ..CallReport::default() };
        let kind = Kind::Callee(Box::new(kind));
        Some(Self::new(shared, kind, line, inbox, ua, media, report).with(token, None))
    }

    fn new(
        shared: &Arc<Shared>,
        kind: Kind,
        line: Arc<Line>,
        inbox: mpsc::Receiver<Message>,
        ua: UserAgent,
        (media, acts): Opened,
        report: CallReport,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            kind,
            line,
            inbox,
            is_cut_off: false,
            ua,
            media: Some(media),
            acts,
            ambush: None,
            agenda: Vec::new(),
            talk: Duration::ZERO,
            started: OsClock.now(),
            answered: None,
            is_flowing: false,
            end: None,
            is_planned: false,
            token: 0,
            report,
        }
    }

    fn with(mut self, token: u32, ambush: Option<Ambush>) -> Self {
        (self.token, self.ambush) = (token, ambush);
        self
    }

    fn plan(&mut self, at: Instant, act: Act) {
        let place = self.agenda.partition_point(|(known, _)| *known > at);
        self.agenda.insert(place, (at, act));
    }

    async fn run(&mut self, cancelled: &mut Cancelled) {
        let mut is_cancelled = false;
        loop {
            self.drain().await;
            if self.end.is_some() {
                return;
            }
            let due = self.agenda.last().map(|(at, _)| *at);
            let wake = [due, self.ua.poll_timeout()].into_iter().flatten().min();
            let wake = wake.unwrap_or_else(|| OsClock.now() + Duration::from_secs(3_600));
            tokio::select! {
                message = self.inbox.recv(), if !self.is_cut_off => self.on_message(message),
                Some(act) = next_act(&mut self.acts) => self.obey(&act),
                () = tokio::time::sleep_until(wake_at(wake)) => self.handle_timeout().await,
                () = cancelled.wait(), if !is_cancelled => {
                    is_cancelled = true;
                    self.ua.end(OsClock.now(), End::Over(Ending::Cancelled));
                }
            }
        }
    }

    fn on_message(&mut self, message: Option<Message>) {
        let now = OsClock.now();
        match message {
            Some(message) => self.ua.receive(now, message),
            None => {
                self.is_cut_off = true;
                self.ua.flow_failed(now);
            }
        }
    }

    async fn handle_timeout(&mut self) {
        let now = OsClock.now();
        if self.ua.poll_timeout().is_some_and(|at| at <= now) {
            self.ua.handle_timeout(now);
        }
        while let Some((_, act)) = self.agenda.pop_if(|(at, _)| *at <= now) {
            self.act(now, act).await;
        }
    }

    async fn act(&mut self, now: Instant, act: Act) {
        match act {
            Act::Ring => self.ua.ring(now),
            Act::Early => self.ua.early(now),
            Act::Answer => self.ua.answer(now),
            Act::Refuse(status) => {
                let status = Status::new(status).unwrap_or(Status::BUSY_HERE);
                let cause = self.kind.cause();
                self.ua.refuse(now, status, cause);
            }
            Act::Cancel => {
                self.is_planned = true;
                self.ua.end(now, End::Over(Ending::Cancelled));
            }
            Act::GiveUp => {
                let reason = "setup.timeout".to_owned();
                self.ua.end(now, End::Failed { status: self.ua.status(), reason });
            }
            Act::Hold => self.ua.hold(now, Direction::SendOnly),
            Act::Resume => self.ua.hold(now, Direction::SendRecv),
            Act::Keys => self.press(now).await,
            Act::Hangup(ending) => self.ua.end(now, End::Over(ending)),
        }
    }

    /// Does what the script asks for; keys are pressed where it runs.
    fn obey(&mut self, act: &talk::Act) {
        let now = OsClock.now();
        match act {
            talk::Act::Hold => self.ua.hold(now, Direction::SendOnly),
            talk::Act::Resume => self.ua.hold(now, Direction::SendRecv),
            talk::Act::Hangup => self.ua.end(now, End::Over(Ending::Script)),
            talk::Act::Digits(_) => {}
        }
    }

    async fn press(&mut self, now: Instant) {
        let Kind::Caller(kind) = &self.kind else { return };
        let CallerKind { keys: Some(keys), voice, .. } = &**kind else { return };
        let Keys { digits, form, sound, .. } = keys;
        match (form, sound, &self.media) {
            (KeyForm::Rfc4733, _, Some(media)) => media.press(digits).await,
            (KeyForm::Inband, Some(sound), Some(media)) => {
                let codec = self.report.codec.as_deref().and_then(Codec::from_name);
                let codec = codec.unwrap_or(Codec::Pcmu);
                if let Some(clip) = self.shared.clips.clip(*sound, codec, voice.ptime_ms) {
                    media.say(clip).await;
                }
            }
            _ => {
                for digit in digits.chars() {
                    self.ua.press(now, digit, PRESS);
                }
            }
        }
    }

    /// Does what the user agent asks for.
    async fn drain(&mut self) {
        let now = OsClock.now();
        while let Some(output) = self.ua.poll_output() {
            match output {
                UserAgentOutput::Send(bytes) => {
                    if self.line.send(bytes).is_err() && !self.is_cut_off {
                        self.is_cut_off = true;
                        self.ua.flow_failed(now);
                    }
                }
                // A script begins with the answer, and so does what it hears.
                UserAgentOutput::Early(_) if self.acts.is_some() => {}
                UserAgentOutput::Early(agreed) => self.agree(now, agreed, false).await,
                UserAgentOutput::Agreed(agreed) => self.agree(now, agreed, true).await,
                UserAgentOutput::Digit(digit) => self.report.digits_heard.push(digit),
                UserAgentOutput::Released => {
                    self.report.duration_ms = self.answered.map(|at| millis(now.since(at)));
                    if let Some(media) = &self.media {
                        media.release().await;
                    }
                }
                UserAgentOutput::Ended(end) => self.end = Some(end),
            }
            // What was sent early is an answer already; the 200 that follows says no more of media.
            if self.answered.is_none() && self.ua.is_up() {
                self.on_answer(now);
            }
        }
    }

    async fn agree(&mut self, now: Instant, agreed: Box<Agreed>, is_answer: bool) {
        if let Err(reason) = self.flow(now, agreed).await {
            let end = End::Failed { status: Some(200), reason: reason.to_owned() };
            self.ua.end(now, end);
        } else if is_answer && self.answered.is_none() {
            self.on_answer(now);
        }
    }

    async fn flow(&mut self, now: Instant, agreed: Box<Agreed>) -> Result<(), &'static str> {
        let mut terms = terms(&self.shared, self.kind.voice(), now, agreed)?;
        let first = terms.agreed.negotiated.codecs.first();
        self.report.codec = first.map(|first| first.name.clone());
        if let (Some(ambush), Some(media)) = (self.ambush.take(), &self.media) {
            terms.send_from = now + ambush.before;
            media.attack(ambush.attack).await;
        }
        if let Some(media) = &self.media {
            media.flow(terms).await;
        }
        self.is_flowing = true;
        Ok(())
    }

    fn on_answer(&mut self, now: Instant) {
        self.answered = Some(now);
        self.agenda.clear();
        let setup = now.since(self.started);
        self.report.setup_ms = Some(millis(setup));
        let is_caller = matches!(self.kind, Kind::Caller(_));
        if !is_caller || !is_of_actor(self.token) {
            self.shared.board.answered(is_caller, setup);
        }
        let ending = match &self.kind {
            Kind::Caller(kind) if kind.waits => Ending::Hold,
            _ => Ending::Script,
        };
        self.plan(now + self.talk, Act::Hangup(ending));
        if let Kind::Caller(kind) = &self.kind {
            let keys = kind.keys.as_ref().map(|keys| keys.after);
            let hold = kind.on_hold;
            if let Some(after) = keys {
                self.plan(now + after, Act::Keys);
            }
            if let Some((after, time)) = hold {
                self.plan(now + after, Act::Hold);
                self.plan(now + after + time, Act::Resume);
            }
        }
    }

    async fn finish(mut self, role: Role, kind: usize) -> LegEnd {
        let digits = std::mem::take(&mut self.report.digits_heard);
        let media = match self.media.take() {
            Some(media) => media.close().await,
            None => Outcome::default(),
        };
        let mut report = std::mem::take(&mut self.report);
        if self.is_flowing {
            media.report(self.answered, &mut report);
        }
        report.digits_heard.insert_str(0, &digits);
        report.status = self.ua.status();
        report.farewell = self.ua.farewell();
        if let Some(end) = self.end.take() {
            end.tell(&mut report);
        }
        let end = LegEnd {
            role,
            kind,
            token: self.token,
            media,
            is_planned: self.is_planned || self.shared.is_planned(self.token),
            report,
        };
        if !self.is_cut_off {
            tokio::spawn(linger(self, end.report.call_id.clone()));
        }
        end
    }
}

/// What flows once this is agreed on.
pub(super) fn terms(
    shared: &Shared,
    voice: &Voice,
    now: Instant,
    agreed: Box<Agreed>,
) -> Result<Terms, &'static str> {
    let first = agreed.negotiated.codecs.first().ok_or("media.no_common_codec")?;
    let codec = Codec::from_name(&first.name).ok_or("media.no_common_codec")?;
    let asked = agreed.negotiated.ptime;
    let (clip, repeats, ptime_ms) = match voice.says {
        Says::Sound { index, repeats } => {
            let clips = &shared.clips;
            let (clip, ptime_ms) = clips
                .clip(index, codec, asked)
                .map(|clip| (clip, asked))
                .or_else(|| clips.clip(index, codec, 20).map(|clip| (clip, 20)))
                .ok_or("load.no_encoder")?;
            (Some(clip), repeats, ptime_ms)
        }
        Says::Script(_) => (None, false, 20),
    };
    let every_ms = voice.every_ms;
    Ok(Terms { agreed, clip, repeats, ptime_ms, every_ms, send_from: now, upkeep: None })
}

/// Over UDP an answer or ACK of ours may be lost; it is repeated for a while.
async fn linger(mut leg: Leg, call_id: String) {
    let end = OsClock.now() + LINGER;
    while !leg.is_cut_off && OsClock.now() < end {
        tokio::select! {
            message = leg.inbox.recv() => leg.on_message(message),
            () = tokio::time::sleep_until(wake_at(end)) => {}
        }
        leg.drain().await;
    }
    leg.line.release(&call_id);
}

/// The media of an end, and what its script asks for.
pub(super) type Opened = (Media, Option<mpsc::Receiver<talk::Act>>);

/// What the script asks for next; for ever where there is none.
pub(super) async fn next_act(acts: &mut Option<mpsc::Receiver<talk::Act>>) -> Option<talk::Act> {
    match acts {
        Some(acts) => acts.recv().await,
        None => std::future::pending().await,
    }
}

/// A call's sockets, handed over, and the description that names them.
async fn prepare(
    shared: &Shared,
    voice: &Voice,
    address: IpAddr,
    token: u32,
    role: Role,
) -> io::Result<(Description, Opened)> {
    let address = shared.media_address().unwrap_or(address);
    let (rtp, rtcp) = media_ports(address)?;
    let ports = (rtp.local_addr()?.port(), rtcp.local_addr()?.port());
    let opened = open(shared, voice, token, role, (rtp, rtcp)).await;
    let mut description = Description::new(
        address,
        ports,
        &voice.codecs,
        voice.protection,
        &voice.suites,
        &mut OsRandom,
    )
    .with_ptime(voice.ptime_ms);
    if !voice.rtcp_mux {
        description = description.without_rtcp_mux();
    }
    Ok((description, opened))
}

/// Hands the sockets of a call over.
pub(super) async fn open(
    shared: &Shared,
    voice: &Voice,
    token: u32,
    role: Role,
    (rtp, rtcp): (UdpSocket, UdpSocket),
) -> Opened {
    let mark = shared.is_paired(token).then_some(Mark { token, role });
    let (live, acts) = match &voice.says {
        Says::Sound { .. } => (None, None),
        Says::Script(talk) => {
            let (sender, acts) = mpsc::channel(LOADGEN_SCRIPT_STEPS.get());
            (Some(Box::new(Live::new(talk, token, sender))), Some(acts))
        }
    };
    (shared.engine.open(rtp, rtcp, mark, live).await, acts)
}

fn parties(local: SocketAddr, transport: Transport, target: &Uri) -> Parties {
    let (host, port) = (Host::from(local.ip()), local.port());
    let us = Uri::sip(Some("load"), &host, None);
    let contact = Uri::sip(Some("load"), &host, Some(port));
    Parties {
        target: target.clone(),
        from: NameAddr::new(us),
        contact: contact.with_param("transport", Some(transport.name())),
        via: transport.via(),
        host,
        port,
        is_reliable: transport.is_reliable(),
        offer: OfferMode::Early,
        cause: None,
    }
}

/// A number, a user or a whole address.
fn address_of(from: &str, target: &Target) -> Option<NameAddr> {
    if from.contains(':') || from.contains('<') {
        return NameAddr::parse(from).ok();
    }
    NameAddr::parse(&Uri::sip(Some(from), &target.host, None).to_string()).ok()
}
