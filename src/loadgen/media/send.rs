//! What one caller sends: a packet each tick, with audio or a key press.

use std::time::Duration;

use audio::{Codec, Encoder, OpusSettings, Resampler, SampleRate};
use base::limit::RTP_PACKET_BYTES;
use base::{Instant, Random, WallTime};
use rtp::{Digit, DtmfSender, Header, ReportBlock, SendStats, SenderInfo};
use sdp::{NegotiatedCodec, TelephoneEvent};

use crate::talk::FRAME;

/// How long a key is pressed.
const PRESS: Duration = Duration::from_millis(120);
/// Samples of one tick at the highest rate.
const SAMPLES_MAX: usize = 960;

/// One stream.
pub(super) struct Sender {
    codec: Codec,
    payload_type: u8,
    encoder: Encoder,
    resampler: Resampler,
    keys: Option<(u8, DtmfSender)>,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// Whether the next audio packet is the first one after a pause.
    is_start: bool,
    stats: SendStats,
    digits: u64,
}

impl Sender {
    pub(super) fn new(
        negotiated: &NegotiatedCodec,
        event: Option<TelephoneEvent>,
        random: &mut dyn Random,
    ) -> Result<Self, &'static str> {
        let codec = Codec::from_name(&negotiated.name).ok_or("media.no_common_codec")?;
        let encoder = encoder(codec)?;
        let ssrc = random.u32();
        Ok(Self {
            codec,
            payload_type: negotiated.payload_type,
            resampler: Resampler::new(SampleRate::Hz16000, encoder.sample_rate()),
            encoder,
            keys: event.map(keys),
            ssrc,
            // Below 2^15, so that the loss of the first packets cannot hide a roll-over
            // (RFC 3711 section 3.3.1).
            sequence: (random.u32() & 0x7fff) as u16,
            timestamp: random.u32(),
            is_start: true,
            stats: SendStats::new(ssrc, codec.clock_rate()),
            digits: 0,
        })
    }

    /// Goes on with another codec or other payload types.
    pub(super) fn update(
        &mut self,
        negotiated: &NegotiatedCodec,
        event: Option<TelephoneEvent>,
    ) -> Result<(), &'static str> {
        let codec = Codec::from_name(&negotiated.name).ok_or("media.no_common_codec")?;
        if codec != self.codec {
            self.encoder = encoder(codec)?;
            self.resampler = Resampler::new(SampleRate::Hz16000, self.encoder.sample_rate());
            self.codec = codec;
            self.is_start = true;
        }
        self.payload_type = negotiated.payload_type;
        if self.keys.as_ref().map(|(payload_type, _)| *payload_type)
            != event.map(|event| event.payload_type)
        {
            self.keys = event.map(keys);
        }
        Ok(())
    }

    pub(super) const fn skip(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(self.codec.timestamp_step(20));
        self.is_start = true;
    }

    /// The packet of this tick. While closed (hold) time goes on and nothing is sent.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        pcm: &[i16; FRAME],
        is_open: bool,
    ) -> Option<Vec<u8>> {
        let timestamp = self.timestamp;
        // The encoder hears everything, so that audio goes on without a click.
        let mut payload = [0; RTP_PACKET_BYTES.get()];
        let length = self.encode(pcm, &mut payload);
        let event = self.keys.as_mut().and_then(|(payload_type, keys)| {
            keys.poll_packet(timestamp).map(|event| (*payload_type, event))
        });
        let is_pressing = self.is_pressing();
        self.timestamp = timestamp.wrapping_add(self.codec.timestamp_step(20));
        if !is_open {
            self.is_start = true;
            return None;
        }
        let (header, payload) = match &event {
            Some((payload_type, event)) => {
                self.is_start = true;
                (self.header(event.marker, *payload_type, event.timestamp), &event.payload[..])
            }
            // RFC 4733 section 2.5.1.2: between the packets of a press there is no audio.
            None if is_pressing => return None,
            None => {
                let payload = payload.get(..length?).filter(|it| !it.is_empty())?;
                let marker = std::mem::replace(&mut self.is_start, false);
                (self.header(marker, self.payload_type, timestamp), payload)
            }
        };
        let mut packet = vec![0; rtp::packet::HEADER_BYTES + payload.len()];
        header.write(payload, &mut packet).ok()?;
        self.sequence = self.sequence.wrapping_add(1);
        self.stats.on_packet(now, timestamp, payload.len());
        Some(packet)
    }

    fn encode(&mut self, pcm: &[i16; FRAME], payload: &mut [u8]) -> Option<usize> {
        let mut samples = [0; SAMPLES_MAX];
        let count = self.resampler.process(pcm, &mut samples).ok()?;
        self.encoder.encode(&samples[..count], payload).ok()
    }

    const fn header(&self, marker: bool, payload_type: u8, timestamp: u32) -> Header {
        Header { marker, payload_type, sequence: self.sequence, timestamp, ssrc: self.ssrc }
    }

    pub(super) fn press(&mut self, digit: Digit) {
        if let Some((_, keys)) = &mut self.keys
            && keys.send(digit, PRESS).is_ok()
        {
            self.digits += 1;
        }
    }

    pub(super) fn is_pressing(&self) -> bool {
        self.keys.as_ref().is_some_and(|(_, keys)| keys.is_active())
    }

    pub(super) const fn codec(&self) -> Codec {
        self.codec
    }

    pub(super) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(super) const fn packets(&self) -> u64 {
        self.stats.packets()
    }

    pub(super) const fn digits(&self) -> u64 {
        self.digits
    }

    pub(super) fn info(&self, now: Instant, wall: WallTime) -> Option<SenderInfo> {
        self.stats.sender_info(now, wall)
    }

    pub(super) fn on_report_block(&mut self, wall: WallTime, block: &ReportBlock) {
        self.stats.on_report_block(wall, block);
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.stats.remote().and_then(|remote| remote.round_trip)
    }
}

fn encoder(codec: Codec) -> Result<Encoder, &'static str> {
    Encoder::new(codec, &OpusSettings::default()).map_err(|_| "load.no_encoder")
}

fn keys(event: TelephoneEvent) -> (u8, DtmfSender) {
    (event.payload_type, DtmfSender::new(event.clock_rate))
}
