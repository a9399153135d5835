//! What the relay needs to transcode beside libopus itself: once with its sockets, and once the
//! sessions alone, with the codecs, jitter buffers and clocks of as many calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use audio::opus::{OpusDecoder, OpusEncoder};
use audio::{Codec, OpusSettings, SampleRate};
use base::{CallId, Instant, LegId, SeededRandom, SessionId, WallTime};
use benches::rig::cpu;
use media::{
    Direction, Format, KeyForm, LegPlan, MediaEvent, Protection, Purpose, Rule, SourceIdentity,
    TelephoneEvent,
};
use relay::path::counters::Tally;
use relay::path::{Driver, FRAME, Outbox, PHASES, Passing, Port, Session};
use rtp::Header;

use crate::anchor::{EVENTS_TYPE, OPUS};
use crate::figure::{Bar, Figure};
use crate::media::{Bench, TESTED_CORE};
use crate::traffic::{Speech, Traffic, Work, window};

/// Steps of 20 ms in each turn of the sessions and of libopus.
const STEPS: usize = 100;
const CODECS: [Codec; 2] = [Codec::Pcmu, Codec::Opus];
const BAR: Bar = Bar::AtMost(1.1);
const FLOOR: &str = "libopus: a packet decoded to 8 kHz for each of the other side's that is \
                     encoded, of the same speech and at the same complexity, with the codecs of \
                     all calls in turns";

impl Bench {
    /// With the sockets, and without.
    pub(crate) fn opus_overhead(&self, calls: u32) -> anyhow::Result<Vec<Figure>> {
        Ok(vec![self.over_libopus(calls)?, self.sessions_over_libopus(calls)?])
    }

    fn over_libopus(&self, calls: u32) -> anyhow::Result<Figure> {
        eprintln!("Opus, {calls} calls, over libopus alone");
        let mut ours = self.relay()?;
        let mut traffic = Traffic::open(&mut ours, &self.speech, Work::Opus, 0..calls)?;
        traffic.run(calls, &window(1.0))?;
        let mut floor = Floor::new(&self.speech, calls)?;
        let (mut pairs, mut windows) = (Vec::new(), Vec::new());
        for _ in 0..self.pairs {
            let it = self.window("callgate", &mut traffic, calls)?;
            let bare = on_tested_core(|| floor.turn())?;
            eprintln!("  libopus    {bare:.2} us/packet");
            windows.push(it);
            pairs.push((it.cpu_us, bare));
        }
        traffic.close(&mut ours)?;
        let what = format!("CPU per packet, Opus <-> PCMU, {calls} calls, over libopus alone");
        let figure = Figure::ratio(what, "us", Bar::None, "libopus", &pairs).note(FLOOR);
        Ok(figure.windows(windows))
    }

    fn sessions_over_libopus(&self, calls: u32) -> anyhow::Result<Figure> {
        eprintln!("Opus, {calls} calls without sockets, over libopus alone");
        let (mut crowd, mut floor) =
            (Crowd::new(&self.speech, calls)?, Floor::new(&self.speech, calls)?);
        let pairs = on_tested_core(|| {
            let mut pairs = Vec::new();
            // The first turn warms up.
            for _ in 0..=self.pairs {
                let pair = (crowd.turn()?, floor.turn()?);
                eprintln!("  sessions {:.2}, libopus {:.2} us/packet", pair.0, pair.1);
                pairs.push(pair);
            }
            Ok(pairs.split_off(1))
        })?;
        let what =
            format!("CPU per packet, Opus <-> PCMU, {calls} calls without sockets, over libopus");
        Ok(Figure::ratio(what, "us", BAR, "libopus", &pairs).note(FLOOR))
    }
}

/// On a thread of its own, since the caller's belongs on the generator's core.
fn on_tested_core<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let pinned = || {
        cpu::pin(None, TESTED_CORE)?;
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(pinned).join());
    done.ok().context("the thread on the tested core has panicked")?
}

/// Microseconds of this thread for each packet of a turn.
fn timed(calls: usize, mut step: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = cpu::own_thread();
    (0..STEPS).try_for_each(&mut step)?;
    let spent = cpu::own_thread() - began;
    Ok(spent.as_secs_f64() * 1e6 / (STEPS * calls * 2) as f64)
}

/// The codecs of all calls, and what their parties say.
struct Floor<'a> {
    speech: &'a Speech,
    codecs: Vec<(OpusEncoder, OpusDecoder)>,
    /// The sound of the PCMU packets.
    sound: Vec<[i16; 160]>,
    done: usize,
}

impl<'a> Floor<'a> {
    fn new(speech: &'a Speech, calls: u32) -> anyhow::Result<Self> {
        // As `relay/path/transform` encodes for a leg whose other one is narrow.
        let rate = SampleRate::Hz8000;
        let settings = OpusSettings {
            sample_rate: rate,
            complexity: media::BRIDGED_COMPLEXITY,
            ..OpusSettings::default()
        };
        let codec = |_| Ok((OpusEncoder::new(&settings)?, OpusDecoder::new(rate)?));
        let heard = |at| {
            let mut sound = [0; 160];
            audio::g711::Law::Mu.decode(speech.frame(Codec::Pcmu, at), &mut sound);
            sound
        };
        Ok(Self {
            speech,
            codecs: (0..calls).map(codec).collect::<anyhow::Result<_>>()?,
            sound: (0..150).map(heard).collect(),
            done: 0,
        })
    }

    fn turn(&mut self) -> anyhow::Result<f64> {
        let Self { speech, codecs, sound, done } = self;
        let (mut pcm, mut packet) = ([0; 160], [0; 1_000]);
        timed(codecs.len(), |_| {
            for (at, (encoder, decoder)) in codecs.iter_mut().enumerate() {
                // As `Crowd` speaks.
                let [first, second] = [0, 1].map(|leg| *done + (2 * at + leg) * 7);
                decoder.decode(speech.frame(Codec::Opus, second), &mut pcm)?;
                encoder.encode(&sound[first % sound.len()], &mut packet)?;
            }
            *done += 1;
            Ok(())
        })
    }
}

/// A worker's hands, less the sockets.
#[derive(Default)]
struct Hands {
    tally: Tally,
    outbox: Outbox,
    sent: usize,
}

impl Driver for Hands {
    fn send(&mut self, _: Port, _: SocketAddr, datagram: &[u8]) -> bool {
        std::hint::black_box(datagram);
        self.sent += 1;
        true
    }
    fn event(&mut self, event: MediaEvent) {
        std::hint::black_box(event);
    }
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        assert!(self.outbox.push(passing, payload), "a step leaves more than there is room for");
    }
}

/// Sessions of calls, legs of one call beside each other, on a clock that jumps.
struct Crowd<'a> {
    speech: &'a Speech,
    now: Instant,
    legs: Vec<Leg>,
    /// When each is due, as a worker remembers it.
    due: Vec<Option<Instant>>,
    buffer: [u8; 1_500],
    hands: Hands,
    done: usize,
}

struct Leg {
    id: SessionId,
    session: Session,
    header: Header,
}

impl<'a> Crowd<'a> {
    fn new(speech: &'a Speech, calls: u32) -> anyhow::Result<Self> {
        let now = Instant::from_nanos(1_000_000_000);
        let hands = Hands { outbox: Outbox::new(), ..Hands::default() };
        let mut it = Self {
            speech,
            now,
            legs: Vec::new(),
            due: Vec::new(),
            buffer: [0; 1_500],
            hands,
            done: 0,
        };
        let mut random = SeededRandom::new(3);
        for call in 0..u64::from(calls) {
            it.open(call, &mut random)?;
        }
        Ok(it)
    }

    fn open(&mut self, call: u64, random: &mut SeededRandom) -> anyhow::Result<()> {
        let id = CallId::random(random);
        let mut plans = [0, 1].map(|index| plan(LegId { call: id, index }, random));
        let [Ok(first), Ok(second)] = &mut plans else { anyhow::bail!("no plan") };
        let rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };
        let there = media::between(first, second, rule);
        let back = media::between(second, first, rule);
        first.purpose = Purpose::Bridge(Some(there));
        second.purpose = Purpose::Bridge(Some(back));
        let ids = [0, 1].map(|index| SessionId::new(call, index));
        for (plan, at) in plans.into_iter().flatten().zip([0, 1]) {
            // As a worker sets them: both legs in one phase.
            let mut session = Session::new(self.now, WallTime::default(), call, false);
            let header = Header {
                marker: false,
                payload_type: plan.accept[0].payload_type,
                sequence: 0,
                timestamp: 0,
                ssrc: 9,
            };
            session.apply(self.now, plan, Some(ids[1 - at]), &mut self.hands)?;
            self.due.push(session.poll_timeout());
            self.legs.push(Leg { id: ids[at], session, header });
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<f64> {
        let before = self.hands.sent;
        let count = self.legs.len();
        let spent = timed(count / 2, |_| {
            self.step();
            Ok(())
        })?;
        let sent = self.hands.sent - before;
        // The first packets wait in the jitter buffers; reports are sent as well.
        anyhow::ensure!(sent >= STEPS * count * 9 / 10, "{sent} packets came out");
        Ok(spent)
    }

    /// 20 ms, in which each leg's packet comes at its own time.
    fn step(&mut self) {
        let phases = PHASES as usize;
        for phase in 0..phases {
            self.now += FRAME / PHASES as u32;
            for at in (0..self.legs.len()).filter(|at| at * 7 % phases == phase) {
                self.arrive(at);
            }
            for at in 0..self.legs.len() {
                if self.due[at].is_some_and(|due| due <= self.now) {
                    self.legs[at].session.tick(self.now, &mut self.hands);
                    self.carry(at);
                }
            }
        }
        self.done += 1;
    }

    fn arrive(&mut self, at: usize) {
        let (leg, codec) = (&mut self.legs[at], CODECS[at % 2]);
        let frame = self.speech.frame(codec, self.done + at * 7);
        let length = leg.header.write(frame, &mut self.buffer).unwrap_or(0);
        leg.header.sequence = leg.header.sequence.wrapping_add(1);
        leg.header.timestamp = leg.header.timestamp.wrapping_add(codec.timestamp_step(20));
        let packet = &mut self.buffer[..length];
        leg.session.on_datagram(self.now, Port::Rtp, peer(), packet, &mut self.hands);
        self.carry(at);
    }

    /// Hands on what the session at that place left for its partner.
    fn carry(&mut self, at: usize) {
        let mut outbox = std::mem::take(&mut self.hands.outbox);
        let from = self.legs[at].id;
        self.due[at] = self.legs[at].session.poll_timeout();
        for parcel in outbox.drain() {
            let partner = at ^ 1;
            self.legs[partner].session.pass(self.now, from, parcel, &mut self.hands);
            self.due[partner] = self.legs[partner].session.poll_timeout();
        }
        self.hands.outbox = outbox;
    }
}

fn peer() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4_000)
}

/// PCMU of the caller, Opus of the callee.
fn plan(leg: LegId, random: &mut SeededRandom) -> anyhow::Result<LegPlan> {
    let codec = CODECS[usize::from(leg.index)];
    let payload_type = codec.payload_type().unwrap_or(OPUS);
    let format = Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 };
    Ok(LegPlan {
        leg,
        remote: peer(),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Plain { from: vec!["127.0.0.0/8".parse()?] },
        send: Some(format),
        sendable: vec![format],
        accept: vec![format],
        opaque: Vec::new(),
        telephone_event: Some(TelephoneEvent {
            send: EVENTS_TYPE,
            receive: EVENTS_TYPE,
            clock_rate: 8_000,
        }),
        comfort_noise: None,
        inactive: Duration::from_secs(3_600),
        source: SourceIdentity::random(random),
        purpose: Purpose::Bridge(None),
    })
}
