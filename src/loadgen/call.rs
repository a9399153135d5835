//! One call: carries messages, packets and time between the sockets and the parts that decide.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audio::{SampleRate, Threshold, VoiceDetector};
use base::limit::{RELAY_BATCH, RELAY_PORT_TRIES, RTP_PACKET_BYTES};
use base::{Clock as _, Instant};
use sdp::Direction;
use sip::{Host, Message, NameAddr, Uri, ids};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::config::Config;
use crate::line::Line;
use crate::load::{Cancelled, Tracker};
use crate::media::{Media, Packet, Port};
use crate::os::{OsClock, OsRandom, wake_at};
use crate::pacer::Pacer;
use crate::report::{CallReport, Ending, millis};
use crate::talk::{Act, FRAME, Heard, Talker};
use crate::user_agent::{Agreed, Description, End, Parties, UserAgent, UserAgentOutput};
use crate::wav;

/// Sound above this is audible: far above the noise of G.711, far below speech.
const AUDIBLE_DBFS: f32 = -50.0;
/// Ticks heard after a pause in which nothing was sent.
const LISTEN_MAX: u32 = 500;
/// How long a call over UDP answers what the far end repeats, once it is over.
const LINGER: Duration = Duration::from_secs(1);

/// The two sockets of a call.
struct Ports {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

impl Ports {
    /// An even port and the next one (RFC 3550 section 11), from the ephemeral range.
    async fn open(address: IpAddr) -> io::Result<Self> {
        let mut error = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..RELAY_PORT_TRIES.get() {
            let first = UdpSocket::bind((address, 0)).await?;
            let port = first.local_addr()?.port();
            match UdpSocket::bind((address, port ^ 1)).await {
                Ok(second) if port % 2 == 0 => return Ok(Self { rtp: first, rtcp: second }),
                Ok(second) => return Ok(Self { rtp: second, rtcp: first }),
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    fn numbers(&self) -> io::Result<(u16, u16)> {
        Ok((self.rtp.local_addr()?.port(), self.rtcp.local_addr()?.port()))
    }

    fn send(&self, packet: &Packet) -> io::Result<usize> {
        let socket = match packet.port {
            Port::Rtp => &self.rtp,
            Port::Rtcp => &self.rtcp,
        };
        socket.try_send_to(&packet.bytes, packet.to)
    }
}

/// What every call of a load has in common.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) tracker: Tracker,
}

/// One call, from its INVITE to its end.
pub(crate) struct Call {
    plan: Arc<Plan>,
    line: Arc<Line>,
    inbox: mpsc::Receiver<Message>,
    is_cut_off: bool,
    cancelled: Cancelled,
    ua: UserAgent,
    ports: Ports,
    media: Option<Media>,
    /// Running while media may flow.
    pacer: Option<Pacer>,
    talker: Talker,
    ear: Option<VoiceDetector>,
    heard: Heard,
    writer: Option<wav::Writer>,
    started: Instant,
    answered: Option<Instant>,
    end: Option<End>,
    report: CallReport,
}

/// Places a call on `line` and follows it to its end. `permit` is given back once it is over.
pub(crate) async fn place(
    plan: Arc<Plan>,
    line: Result<Arc<Line>, &'static str>,
    cancelled: Cancelled,
    mut report: CallReport,
    permit: OwnedSemaphorePermit,
) -> CallReport {
    plan.tracker.placed();
    let call = match line {
        Ok(line) => Call::new(Arc::clone(&plan), line, cancelled, report.clone()).await,
        Err(reason) => Err(reason),
    };
    let mut call = match call {
        Ok(call) => call,
        Err(reason) => {
            report.reason = Some(reason.to_owned());
            plan.tracker.over(&report);
            return report;
        }
    };
    call.run().await;
    plan.tracker.over(&call.report);
    drop(permit);
    if !plan.config.target.transport.is_reliable() {
        call.linger().await;
    }
    call.line.release(&call.report.call_id);
    call.report
}

impl Call {
    async fn new(
        plan: Arc<Plan>,
        line: Arc<Line>,
        cancelled: Cancelled,
        mut report: CallReport,
    ) -> Result<Self, &'static str> {
        let config = &plan.config;
        let address = config.media_address.unwrap_or(line.local().ip());
        let ports = Ports::open(address).await.map_err(|_| "load.no_media_port")?;
        let numbers = ports.numbers().map_err(|_| "load.no_media_port")?;
        let mut random = OsRandom;
        let mut description = Description::new(
            address,
            numbers,
            &config.codecs,
            config.protection,
            &config.suites,
            &mut random,
        );
        if !config.rtcp_mux {
            description = description.without_rtcp_mux();
        }
        let parties = parties(config, line.local());
        report.call_id = ids::new_call_id(&mut random);
        let now = OsClock.now();
        let inbox = line.register(&report.call_id);
        let mut ua = UserAgent::new(parties, description, Box::new(random));
        ua.start(now, &report.call_id);
        let talker = Talker::new(config.script.clone());
        let listens = config.script.listens();
        let ear = listens.then(|| VoiceDetector::new(SampleRate::Hz16000, Threshold::default()));
        Ok(Self {
            plan,
            line,
            inbox,
            is_cut_off: false,
            cancelled,
            ua,
            ports,
            media: None,
            pacer: None,
            talker,
            ear,
            heard: Heard {
                is_speech: false,
                hangover: Duration::from_millis(Threshold::default().hangover_ms.into()),
            },
            writer: None,
            started: now,
            answered: None,
            end: None,
            report,
        })
    }

    async fn run(&mut self) {
        let mut buffer = vec![0; RTP_PACKET_BYTES.get()];
        let mut is_cancelled = false;
        loop {
            self.drain(OsClock.now());
            if self.end.is_some() {
                break;
            }
            let wake = wake_at(self.poll_timeout());
            let has_media = self.pacer.is_some();
            let arrived = tokio::select! {
                message = self.inbox.recv(), if !self.is_cut_off => {
                    self.on_message(message);
                    None
                }
                Ok(()) = self.ports.rtp.readable(), if has_media => Some(Port::Rtp),
                Ok(()) = self.ports.rtcp.readable(), if has_media => Some(Port::Rtcp),
                () = tokio::time::sleep_until(wake) => None,
                () = self.cancelled.wait(), if !is_cancelled => {
                    is_cancelled = true;
                    self.ua.end(OsClock.now(), End::Over(Ending::Cancelled));
                    None
                }
            };
            if let Some(port) = arrived {
                self.read(port, &mut buffer);
            }
            let now = OsClock.now();
            if self.pacer.as_ref().is_some_and(|pacer| pacer.is_behind(now)) {
                // What waits in the sockets came in time; it was us who were late.
                self.read(Port::Rtp, &mut buffer);
            }
            self.handle_timeout(now);
        }
        self.finish();
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

    /// Does what the user agent asks for.
    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.ua.poll_output() {
            match output {
                UserAgentOutput::Send(bytes) => {
                    if self.line.send(bytes).is_err() && !self.is_cut_off {
                        self.is_cut_off = true;
                        self.ua.flow_failed(now);
                    }
                }
                UserAgentOutput::Agreed(agreed) => {
                    if let Err(reason) = self.agree(now, &agreed) {
                        let reason = reason.to_owned();
                        self.ua.end(now, End::Failed { status: Some(200), reason });
                    }
                }
                // Here media begins with the answer.
                UserAgentOutput::Early(_) | UserAgentOutput::Digit(_) => {}
                UserAgentOutput::Released => self.stop_media(now),
                UserAgentOutput::Ended(end) => self.end = Some(end),
            }
        }
    }

    fn agree(&mut self, now: Instant, agreed: &Agreed) -> Result<(), &'static str> {
        if let Some(media) = &mut self.media {
            return media.update(agreed);
        }
        self.media = Some(Media::new(now, agreed, &mut OsRandom)?);
        self.pacer = Some(Pacer::new(now));
        self.answered = Some(now);
        self.report.setup_ms = Some(millis(now.since(self.started)));
        self.plan.tracker.answered();
        if let Some(path) = save_path(&self.plan.config, self.report.index) {
            match wav::Writer::create(&path) {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => self.report.save_error = Some(error.to_string()),
            }
            self.report.saved = self.writer.is_some().then_some(path);
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Instant {
        let config = &self.plan.config;
        let limit = match self.answered {
            None => self.started + config.setup_timeout,
            Some(answered) => answered + config.hold,
        };
        // Once it has passed, the user agent's own time to give up counts.
        let limit = Some(limit).filter(|it| *it > OsClock.now());
        let tick = self.pacer.as_ref().map(Pacer::poll_timeout);
        let earliest = [limit, tick, self.ua.poll_timeout()].into_iter().flatten().min();
        earliest.unwrap_or_else(|| OsClock.now() + Duration::from_secs(1))
    }

    fn handle_timeout(&mut self, now: Instant) {
        let config = &self.plan.config;
        match self.answered {
            None if now >= self.started + config.setup_timeout => {
                let reason = "setup.timeout".to_owned();
                self.ua.end(now, End::Failed { status: self.ua.status(), reason });
            }
            Some(answered) if now >= answered + config.hold => {
                self.ua.end(now, End::Over(Ending::Hold));
            }
            _ => {}
        }
        if self.ua.poll_timeout().is_some_and(|at| at <= now) {
            self.ua.handle_timeout(now);
        }
        let Some(due) = self.pacer.as_mut().map(|pacer| pacer.handle_timeout(now)) else { return };
        for skipped in 0..due.skipped {
            // What is heard keeps its time, but for a machine that slept.
            if skipped < LISTEN_MAX {
                self.listen(now);
            }
            if let Some(media) = &mut self.media {
                media.skip_tick();
            }
        }
        for _ in 0..due.ticks {
            self.listen(now);
            self.speak(now);
        }
    }

    /// Hears 20 ms of the call.
    fn listen(&mut self, now: Instant) {
        let Some(media) = &mut self.media else { return };
        let sound = media.play(now);
        let since_answer = self.answered.map(|at| millis(now.since(at)));
        if self.report.first_sound_ms.is_none() && audio::level::dbfs(&sound) > AUDIBLE_DBFS {
            self.report.first_sound_ms = since_answer;
        }
        if let Some(ear) = &mut self.ear {
            self.heard.is_speech = ear.push(&sound).is_speech;
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.write(&sound)
        {
            self.report.save_error = Some(error.to_string());
            self.writer = None;
        }
    }

    /// Goes on with the script for 20 ms, and sends.
    fn speak(&mut self, now: Instant) {
        let Some(media) = &mut self.media else { return };
        let mut frame = [0; FRAME];
        let act = self.talker.tick(now, self.heard, media.is_pressing(), &mut frame);
        if let Some(Act::Digits(digits)) = &act {
            media.press(digits);
        }
        let packet = media.tick(now, &frame);
        let report = media.poll_report(now, OsClock.wall(), false, &mut OsRandom);
        for packet in [packet, report].into_iter().flatten() {
            if self.ports.send(&packet).is_err() {
                media.note_unsent();
            }
        }
        match act {
            Some(Act::Hold) => self.ua.hold(now, Direction::SendOnly),
            Some(Act::Resume) => self.ua.hold(now, Direction::SendRecv),
            Some(Act::Hangup) => self.ua.end(now, End::Over(Ending::Script)),
            Some(Act::Digits(_)) | None => {}
        }
    }

    /// Reads what has arrived at a port.
    fn read(&mut self, port: Port, buffer: &mut [u8]) {
        let Some(media) = &mut self.media else { return };
        let socket = match port {
            Port::Rtp => &self.ports.rtp,
            Port::Rtcp => &self.ports.rtcp,
        };
        for _ in 0..RELAY_BATCH.get() {
            match socket.try_recv_from(buffer) {
                Ok((length, from)) => {
                    media.receive(OsClock.now(), OsClock.wall(), from, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP message about a packet that we sent.
                Err(_) => {}
            }
        }
    }

    fn stop_media(&mut self, now: Instant) {
        let Some(pacer) = self.pacer.take() else { return };
        self.report.saturation.add(&pacer.saturation());
        self.report.duration_ms = self.answered.map(|at| millis(now.since(at)));
        let Some(media) = &mut self.media else { return };
        if let Some(report) = media.poll_report(now, OsClock.wall(), true, &mut OsRandom)
            && self.ports.send(&report).is_err()
        {
            media.note_unsent();
        }
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.finish()
        {
            self.report.save_error = Some(error.to_string());
        }
    }

    fn finish(&mut self) {
        self.stop_media(OsClock.now());
        let report = &mut self.report;
        report.status = self.ua.status();
        report.steps_begun = self.talker.steps_begun();
        report.waits_timed_out = self.talker.waits_timed_out();
        if let Some(media) = &self.media {
            media.report(report);
            let first = media.first_packet();
            report.first_audio_ms =
                first.zip(self.answered).map(|(first, answered)| millis(first.since(answered)));
        }
        if let Some(end) = self.end.take() {
            end.tell(report);
        }
    }

    /// Over UDP an answer or ACK of ours may be lost; it is repeated for a while.
    async fn linger(&mut self) {
        let end = OsClock.now() + LINGER;
        while !self.is_cut_off && OsClock.now() < end {
            tokio::select! {
                message = self.inbox.recv() => self.on_message(message),
                () = tokio::time::sleep_until(wake_at(end)) => {}
            }
            self.drain(OsClock.now());
        }
    }
}

fn parties(config: &Config, local: SocketAddr) -> Parties {
    let (host, port) = (Host::from(local.ip()), local.port());
    let transport = config.target.transport;
    let us = Uri::sip(Some("load"), &host, None);
    let contact = Uri::sip(Some("load"), &host, Some(port));
    Parties {
        target: config.target.uri.clone(),
        from: config.from.clone().unwrap_or_else(|| NameAddr::new(us)),
        contact: contact.with_param("transport", Some(transport.name())),
        via: transport.via(),
        host,
        port,
        is_reliable: transport.is_reliable(),
        offer: config.offer,
    }
}

/// `heard.wav`, or `heard-N.wav` where there are several calls.
fn save_path(config: &Config, index: u32) -> Option<PathBuf> {
    let path = config.save.as_deref()?;
    if config.calls == 1 {
        return Some(path.to_owned());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let name = match extension.as_ref() {
        "" => format!("{stem}-{index}"),
        extension => format!("{stem}-{index}.{extension}"),
    };
    Some(path.parent().unwrap_or(Path::new("")).join(name))
}
