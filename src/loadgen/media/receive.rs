//! What one caller receives: counts, a jitter buffer, and the sound that comes out of it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use audio::{Codec, Decoder, Resampler, SampleRate};
use base::Instant;
use base::limit::{CALL_DTMF_DIGITS, RTP_PACKET_BYTES};
use rtp::{
    DtmfEvent, DtmfReceiver, JitterBuffer, JitterConfig, Packet, Pull, ReceiveStats, ReportBlock,
    SenderInfo,
};
use sdp::{NegotiatedCodec, TelephoneEvent};

use crate::talk::FRAME;

/// 120 ms at 48 kHz: the most that one packet holds.
const DECODED_MAX: usize = 5_760;
/// Packets pulled in one tick at most; more would be packets of a millisecond each.
const PULLS_MAX: usize = 32;

/// What was received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) packets: u64,
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) jitter: Duration,
}

/// The decoder of one payload type.
struct Voice {
    decoder: Decoder,
    resampler: Resampler,
}

/// The far end's streams, one after the other.
pub(super) struct Receiver {
    codecs: BTreeMap<u8, Codec>,
    event: Option<TelephoneEvent>,
    clock_rate: u32,
    stats: Option<ReceiveStats>,
    /// Counts of streams that ended: the far end changed its SSRC or its clock.
    past: Totals,
    jitter: JitterBuffer,
    voices: BTreeMap<u8, Voice>,
    /// The payload type decoded last, to conceal what is missing after it.
    current: Option<u8>,
    /// Sound to play, 16 kHz.
    ready: Vec<i16>,
    keys: Option<DtmfReceiver>,
    digits: String,
}

impl Receiver {
    pub(super) fn new(codecs: &[NegotiatedCodec], event: Option<TelephoneEvent>) -> Self {
        let clock_rate = codecs.first().map_or(8_000, |codec| codec.clock_rate);
        let mut receiver = Self {
            codecs: BTreeMap::new(),
            event: None,
            clock_rate,
            stats: None,
            past: Totals::default(),
            jitter: buffer(clock_rate),
            voices: BTreeMap::new(),
            current: None,
            ready: Vec::new(),
            keys: None,
            digits: String::new(),
        };
        receiver.update(codecs, event);
        receiver
    }

    pub(super) fn update(&mut self, codecs: &[NegotiatedCodec], event: Option<TelephoneEvent>) {
        let known = |codec: &NegotiatedCodec| {
            Some((codec.receive_payload_type, Codec::from_name(&codec.name)?))
        };
        let codecs: BTreeMap<_, _> = codecs.iter().filter_map(known).collect();
        self.voices
            .retain(|payload_type, _| codecs.get(payload_type) == self.codecs.get(payload_type));
        self.codecs = codecs;
        if event != self.event {
            self.keys = event.map(|event| DtmfReceiver::new(event.clock_rate));
            self.event = event;
        }
    }

    /// Takes a packet; `None` where its payload type was not agreed on.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        is_protected: bool,
    ) -> Option<()> {
        let payload_type = packet.payload_type();
        let is_event = self.event.is_some_and(|it| it.receive_payload_type == payload_type);
        let clock_rate =
            if is_event { self.clock_rate } else { self.codecs.get(&payload_type)?.clock_rate() };
        let is_known = self.stats.as_ref().is_some_and(|it| it.ssrc() == packet.ssrc());
        if !is_known || clock_rate != self.clock_rate {
            self.start_stream(packet.ssrc(), clock_rate, is_protected);
        }
        let (sequence, timestamp) = (packet.sequence(), packet.timestamp());
        let payload = packet.payload();
        if let Some(stats) = &mut self.stats {
            stats.on_packet(now, sequence, timestamp, payload.len());
        }
        if is_event && let Some(keys) = &mut self.keys {
            for event in keys.handle_packet(now, timestamp, payload) {
                if let DtmfEvent::Started { digit } = event
                    && self.digits.len() < CALL_DTMF_DIGITS.get()
                {
                    self.digits.push(digit.to_char());
                }
            }
        }
        self.jitter.push(now, sequence, timestamp, packet.marker(), payload_type, payload);
        Some(())
    }

    fn start_stream(&mut self, ssrc: u32, clock_rate: u32, is_protected: bool) {
        self.past = self.totals();
        // RFC 3550 appendix A.1: two packets in order prove a source that nothing else proves.
        let probation = if is_protected { 1 } else { 2 };
        self.stats = Some(ReceiveStats::new(ssrc, clock_rate, probation));
        self.jitter = buffer(clock_rate);
        self.clock_rate = clock_rate;
        if let Some(keys) = &mut self.keys {
            // The release of a key that was down says nothing that is counted here.
            let _ = keys.reset();
        }
    }

    /// The sound of this tick.
    pub(super) fn play(&mut self, now: Instant) -> [i16; FRAME] {
        for _ in 0..PULLS_MAX {
            if self.ready.len() >= FRAME || !self.pull(now) {
                break;
            }
        }
        let mut frame = [0; FRAME];
        let length = self.ready.len().min(FRAME);
        frame[..length].copy_from_slice(&self.ready[..length]);
        self.ready.drain(..length);
        frame
    }

    /// Makes more sound ready; `false` where there is none.
    fn pull(&mut self, now: Instant) -> bool {
        let mut decoded = [0; DECODED_MAX];
        let (payload_type, samples) = match self.jitter.pull(now) {
            Pull::Empty => return false,
            Pull::Packet(played) => {
                let payload_type = played.payload_type;
                let Some(voice) = voice(&mut self.voices, &self.codecs, payload_type) else {
                    // A key press, or a codec that is no longer agreed on.
                    return true;
                };
                let decoder = &mut voice.decoder;
                let samples = decoder.decode(played.payload, &mut decoded).unwrap_or_else(|_| {
                    let frame = decoder.sample_rate().samples(20);
                    decoder.conceal(frame, &mut decoded)
                });
                (payload_type, samples)
            }
            Pull::Lost { ticks, following } => {
                let Some(payload_type) = self.current else { return true };
                let Some(voice) = voice(&mut self.voices, &self.codecs, payload_type) else {
                    return true;
                };
                let decoder = &mut voice.decoder;
                let rate = u64::from(decoder.sample_rate().hz());
                let samples = u64::from(ticks) * rate / u64::from(self.clock_rate.max(1));
                let samples = usize::try_from(samples).unwrap_or(usize::MAX).min(DECODED_MAX);
                let written = match following {
                    Some(next) => decoder.recover(next, samples, &mut decoded),
                    None => decoder.conceal(samples, &mut decoded),
                };
                (payload_type, written)
            }
        };
        self.current = Some(payload_type);
        let Some(voice) = self.voices.get_mut(&payload_type) else { return true };
        let mut wide = [0; DECODED_MAX];
        let written = voice.resampler.process(&decoded[..samples], &mut wide).unwrap_or(0);
        self.ready.extend_from_slice(&wide[..written]);
        true
    }

    pub(super) fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        self.stats.as_mut().filter(|it| it.packets() > 0).map(|stats| stats.report_block(now))
    }

    pub(super) fn on_sender_report(&mut self, now: Instant, ssrc: u32, sender: &SenderInfo) {
        if let Some(stats) = self.stats.as_mut().filter(|it| it.ssrc() == ssrc) {
            stats.on_sender_report(now, sender);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let late = self.past.late + self.jitter.stats().late + self.jitter.stats().discarded;
        let Some(stats) = &self.stats else { return Totals { late, ..self.past } };
        Totals {
            packets: self.past.packets + stats.packets(),
            lost: self.past.lost + stats.lost(),
            late,
            jitter: stats.jitter(),
        }
    }

    pub(super) fn digits(&self) -> &str {
        &self.digits
    }
}

fn buffer(clock_rate: u32) -> JitterBuffer {
    let payload_bytes = RTP_PACKET_BYTES.get();
    JitterBuffer::new(JitterConfig { payload_bytes, ..JitterConfig::new(clock_rate) })
}

/// The decoder of a payload type, made when it is first needed.
fn voice<'a>(
    voices: &'a mut BTreeMap<u8, Voice>,
    codecs: &BTreeMap<u8, Codec>,
    payload_type: u8,
) -> Option<&'a mut Voice> {
    let codec = *codecs.get(&payload_type)?;
    match voices.entry(payload_type) {
        Entry::Occupied(known) => Some(known.into_mut()),
        Entry::Vacant(room) => {
            let decoder = Decoder::new(codec, SampleRate::Hz16000).ok()?;
            let resampler = Resampler::new(decoder.sample_rate(), SampleRate::Hz16000);
            Some(room.insert(Voice { decoder, resampler }))
        }
    }
}
