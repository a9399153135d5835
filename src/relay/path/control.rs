//! RTCP, which ends here: reports out (RFC 3550 section 6), reports in, quality and inactivity.

use std::time::Duration;

use audio::Codec;
use base::{Instant, Random, SeededRandom, WallTime};
use media::Quality;
use rtp::rtcp::{Compound, Report, Rtcp, RtcpError};
use rtp::{Impairment, ReceiveStats, SendStats, mos};
use sdp::OpaqueCodec;

/// RFC 3550 section 6.2: no interval shorter than 5 s before it is randomised.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often quality is reported to the call.
const QUALITY_EVERY: Duration = media::REPORT_EVERY;

/// How long a source is not heard after another has followed it: its late packets, or two that
/// speak at one time, must not break the sound at each packet.
const SUPERSEDED: Duration = Duration::from_secs(1);
/// Shortest time between two changes of the source: a flood of sources is not sound.
const SETTLED: Duration = Duration::from_millis(100);

/// Figures of what we receive, over all sources that followed each other.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) present: Option<ReceiveStats>,
    /// The source before the present one, and when it was followed.
    past: Option<(u32, Instant)>,
    packets: u64,
    lost: u64,
}

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The present source's.
    Present,
    /// One's that is to follow it, or the first.
    New,
    /// One's that was followed just now, or that follows too soon.
    Superseded,
}

impl Received {
    /// Whose packet it is.
    pub(crate) fn source(&self, now: Instant, ssrc: u32) -> Source {
        if self.present.as_ref().is_some_and(|stats| stats.ssrc() == ssrc) {
            return Source::Present;
        }
        let is_early = |(past, at): (u32, Instant)| {
            now.since(at) < if past == ssrc { SUPERSEDED } else { SETTLED }
        };
        if self.past.is_some_and(is_early) { Source::Superseded } else { Source::New }
    }

    /// Another source follows.
    pub(crate) fn begin(&mut self, now: Instant, stats: ReceiveStats) {
        if let Some(past) = self.present.replace(stats) {
            self.past = Some((past.ssrc(), now));
            self.packets += past.packets();
            self.lost += past.lost();
        }
    }

    fn packets(&self) -> u64 {
        self.packets + self.present.as_ref().map_or(0, ReceiveStats::packets)
    }

    fn lost(&self) -> u64 {
        self.lost + self.present.as_ref().map_or(0, ReceiveStats::lost)
    }
}

/// The timers of one leg.
#[derive(Debug)]
pub(crate) struct Timers {
    report: Instant,
    quality: Instant,
    /// When to see whether the peer is silent; moved only then, so that a packet costs no timer.
    inactive: Instant,
    heard: Instant,
}

impl Timers {
    pub(crate) fn new(now: Instant, inactive: Duration, random: &mut SeededRandom) -> Self {
        Self {
            // RFC 3550 section 6.2: half the minimum before the first report.
            report: now + randomised(INTERVAL / 2, random),
            quality: now + QUALITY_EVERY,
            inactive: now + inactive,
            heard: now,
        }
    }

    pub(crate) fn next(&self) -> Instant {
        self.report.min(self.quality).min(self.inactive)
    }

    /// Something authentic arrived.
    pub(crate) const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The plan changed, and with it perhaps our patience.
    pub(crate) fn wait(&mut self, now: Instant, inactive: Duration) {
        (self.heard, self.inactive) = (now, now + inactive);
    }

    pub(crate) fn is_report_due(&mut self, now: Instant, random: &mut SeededRandom) -> bool {
        let due = self.report <= now;
        if due {
            self.report = now + randomised(INTERVAL, random);
        }
        due
    }

    pub(crate) fn is_quality_due(&mut self, now: Instant) -> bool {
        let due = self.quality <= now;
        if due {
            self.quality = now + QUALITY_EVERY;
        }
        due
    }

    pub(crate) fn is_inactive(&mut self, now: Instant, inactive: Duration) -> bool {
        if self.inactive > now {
            return false;
        }
        let due = self.heard + inactive;
        let is_silent = due <= now;
        // A plan without patience must not keep the worker busy.
        let again = now + inactive.max(Duration::from_millis(100));
        self.inactive = if is_silent { again } else { due };
        is_silent
    }
}

/// RFC 3550 section 6.3.1: between half and one and a half times, over e - 3/2.
fn randomised(interval: Duration, random: &mut SeededRandom) -> Duration {
    let factor = 0.5 + f64::from(random.u32()) / f64::from(u32::MAX);
    interval.mul_f64(factor / 1.218_28)
}

/// Writes our report, with a goodbye if we leave.
pub(crate) fn write_report(
    now: Instant,
    wall: WallTime,
    cname: &[u8; 12],
    sent: &SendStats,
    received: &mut Received,
    goodbye: bool,
    out: &mut [u8],
) -> Result<usize, RtcpError> {
    let block = received.present.as_mut().map(|stats| stats.report_block(now));
    let report = Report {
        ssrc: sent.ssrc(),
        sender: sent.sender_info(now, wall),
        blocks: block.as_slice(),
        cname: core::str::from_utf8(cname).unwrap_or("callgate"),
        goodbye,
    };
    report.write(out)
}

/// Takes the peer's reports.
pub(crate) fn read_report(
    now: Instant,
    wall: WallTime,
    bytes: &[u8],
    sent: &mut SendStats,
    received: &mut Received,
) -> Result<(), RtcpError> {
    for packet in Compound::parse(bytes)?.packets() {
        if let Rtcp::Report { ssrc, sender, blocks } = packet {
            if let Some(sender) = sender
                && let Some(stats) = received.present.as_mut().filter(|s| s.ssrc() == ssrc)
            {
                stats.on_sender_report(now, &sender);
            }
            blocks.for_each(|block| sent.on_report_block(wall, &block));
        }
    }
    Ok(())
}

/// What a codec costs.
pub(crate) const fn impairment(codec: Codec) -> Impairment {
    match codec {
        Codec::Pcmu | Codec::Pcma => Impairment::G711,
        Codec::G722 => Impairment::G722,
        Codec::Opus => Impairment::OPUS,
    }
}

/// What a codec costs that goes through undecoded; those of wide band have figures on another
/// scale only (ITU-T G.113 appendix IV), and iLBC and Speex none.
pub(crate) const fn opaque_impairment(codec: OpaqueCodec) -> Option<Impairment> {
    match codec {
        OpaqueCodec::Amr => Some(Impairment::AMR),
        OpaqueCodec::G729 => Some(Impairment::G729),
        OpaqueCodec::G723 => Some(Impairment::G723),
        OpaqueCodec::AmrWb | OpaqueCodec::Evs | OpaqueCodec::Ilbc | OpaqueCodec::Speex => None,
    }
}

/// What else goes into a report to the call.
pub(crate) struct Heard {
    /// What the codec costs; `None` where nobody has measured that on this scale.
    pub(crate) impairment: Option<Impairment>,
    pub(crate) late: u64,
    pub(crate) dropped: u64,
    pub(crate) delay: Duration,
    pub(crate) concealed: u64,
}

pub(crate) fn quality(received: &Received, sent: &SendStats, heard: &Heard) -> Quality {
    let present = received.present.as_ref();
    let remote = sent.remote();
    let round_trip = remote.and_then(|remote| remote.round_trip);
    let one_way = round_trip.unwrap_or_default() / 2 + heard.delay;
    Quality {
        received: received.packets(),
        lost: received.lost(),
        late: heard.late,
        dropped: heard.dropped,
        jitter: present.map(ReceiveStats::jitter).unwrap_or_default(),
        delay: heard.delay,
        sent: sent.packets(),
        remote_loss: remote.map_or(0.0, |remote| remote.fraction_lost),
        remote_jitter: remote.map(|remote| remote.jitter).unwrap_or_default(),
        round_trip,
        mos: heard
            .impairment
            .map(|impairment| mos(impairment, present.map_or(0.0, ReceiveStats::loss), one_way)),
        impairment: heard.impairment,
        concealed: heard.concealed,
    }
}
