//! Stories of two legs whose sound is decoded and encoded on the way, and measurements of it.

use std::f64::consts::TAU;

use audio::{Codec, DtmfDetector, DtmfEvent, Encoder, OpusSettings, SampleRate, level};
use base::{Random, SeededRandom};
use media::{ComfortNoise, Format, KeyForm, LegPlan, MediaEvent, Rule};
use rtp::TelephoneEvent;

use super::counters::{DropReason, Meter};
use super::pair::*;
use crate::speech;

/// Every pair of codecs between which sound is decoded.
fn transcoded() -> Vec<(Codec, Codec)> {
    let is_g711 = |codec| matches!(codec, Codec::Pcmu | Codec::Pcma);
    let pairs = Codec::ALL.into_iter().flat_map(|from| Codec::ALL.map(|to| (from, to)));
    pairs.filter(|(from, to)| from != to && !(is_g711(*from) && is_g711(*to))).collect()
}

/// How the caller's packets travel.
#[derive(Clone, Copy)]
struct Way {
    loss_percent: u32,
    jitter_ms: u32,
}

const CLEAN: Way = Way { loss_percent: 0, jitter_ms: 0 };

/// A one-way carriage of sound.
struct Carriage {
    pair: Pair,
    from: Format,
    to: Format,
    encoder: Encoder,
}

impl Carriage {
    fn new(from: Format, to: Format, rule: Rule, change: impl FnOnce(&mut [LegPlan; 2])) -> Self {
        let mut legs = [leg(0, plain(), &[from]), leg(1, plain(), &[to])];
        change(&mut legs);
        let mut pair = Pair::new(legs, [rule, EVENTS]);
        // Both are latched.
        pair.say(1, to.payload_type, &[0xff; 4], 0);
        Self { pair, from, to, encoder: encoder(from.codec) }
    }

    /// The payloads of a sound at the caller's rate.
    fn encode(&mut self, sound: &[i16]) -> Vec<Vec<u8>> {
        let samples = self.from.codec.samples_per_packet(self.from.packet_ms.into());
        let mut out = [0; 1400];
        let payloads = sound.chunks_exact(samples).map(|frame| {
            let length = self.encoder.encode(frame, &mut out).unwrap();
            out[..length].to_vec()
        });
        payloads.collect()
    }

    /// Says a sound; what the callee hears, at its codec's rate, silence where no packet was.
    fn carry(&mut self, sound: &[i16], way: Way) -> Vec<i16> {
        let mut random = SeededRandom::new(7);
        let packet_ms = u32::from(self.from.packet_ms);
        let step = self.from.codec.timestamp_step(packet_ms);
        let mut flying: Vec<(u32, Vec<u8>)> = Vec::new();
        let payloads = self.encode(sound);
        let mut clock = 0;
        for (n, payload) in (0..).zip(payloads) {
            let packet = self.pair.sides[0].peer.packet(self.from.payload_type, false, &payload);
            self.pair.sides[0].peer.timestamp += step;
            // An empty payload is one that is not sent.
            if random.below(100) >= way.loss_percent && !payload.is_empty() {
                flying.push((n * packet_ms + random.below(way.jitter_ms.max(1)), packet));
            }
            while clock < (n + 1) * packet_ms {
                let due: Vec<_> = flying.extract_if(.., |(at, _)| *at <= clock).collect();
                due.iter().for_each(|(_, packet)| self.pair.deliver(0, address(0), packet));
                self.pair.wait(5 * MS);
                clock += 5;
            }
        }
        self.pair.wait(100 * MS);
        self.listen()
    }

    fn listen(&mut self) -> Vec<i16> {
        let heard = self.pair.heard(1);
        play(&heard, self.to)
    }
}

/// What a listener plays of its packets, silence where there is none.
fn play(heard: &[Heard], format: Format) -> Vec<i16> {
    let (mut decoder, rate) = decoder(format.codec);
    let mut sound = Vec::new();
    let sounds = heard.iter().filter(|it| it.payload_type == format.payload_type);
    let first = heard.first().map_or(0, |it| it.timestamp);
    for packet in sounds {
        let ticks = u64::from(packet.timestamp.wrapping_sub(first));
        let at = ticks * u64::from(rate.hz()) / u64::from(format.codec.clock_rate());
        sound.resize((at as usize).max(sound.len()), 0);
        let mut out = [0; 5760];
        let length = decoder.decode(&packet.payload, &mut out).unwrap();
        sound.extend_from_slice(&out[..length]);
    }
    sound
}

/// What a listener would hear of a sound without us.
fn direct(from: Format, sound: &[i16]) -> Vec<i16> {
    let mut carriage = Carriage::new(from, usual(Codec::Pcmu), EVENTS, |_| {});
    let (mut decoder, mut heard) = (decoder(from.codec).0, Vec::new());
    for payload in carriage.encode(sound) {
        let mut out = [0; 5760];
        let length = decoder.decode(&payload, &mut out).unwrap();
        heard.extend_from_slice(&out[..length]);
    }
    heard
}

fn tone(rate: SampleRate, hz: f64, peak: f64, millis: u32) -> Vec<i16> {
    let turn = TAU * hz / f64::from(rate.hz());
    (0..rate.samples(millis)).map(|n| ((n as f64 * turn).sin() * peak) as i16).collect()
}

/// The level of one frequency, in dB of the square of its amplitude.
fn level_at(sound: &[i16], rate: SampleRate, hz: f64) -> f64 {
    let turn = TAU * hz / f64::from(rate.hz());
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (n, sample) in sound.iter().enumerate() {
        // A window, so that what is beside the frequency does not count.
        let w = 0.5 - 0.5 * (TAU * n as f64 / sound.len() as f64).cos();
        let (sin, cos) = (n as f64 * turn).sin_cos();
        re += f64::from(*sample) * w * cos;
        im += f64::from(*sample) * w * sin;
        weight += w;
    }
    20.0 * (2.0 * re.hypot(im) / weight).max(1e-3).log10()
}

/// The middle of a sound, where nothing begins or ends.
fn middle(sound: &[i16], rate: SampleRate) -> &[i16] {
    &sound[rate.samples(400)..rate.samples(900)]
}

#[test]
fn the_telephone_band_is_flat_and_the_gain_is_one_through_every_pair() {
    for (from, to) in transcoded() {
        let (from, to) = (usual(from), usual(to));
        let gain = |hz: f64| {
            let rate = from.codec.sample_rate();
            let said = tone(rate, hz, 8_000.0, 1_200);
            let mut carriage = Carriage::new(from, to, EVENTS, |_| {});
            let heard = carriage.carry(&said, CLEAN);
            assert_eq!(carriage.pair.all_drops(0), []);
            let direct = direct(from, &said);
            let out = to.codec.sample_rate();
            level_at(middle(&heard, out), out, hz) - level_at(middle(&direct, rate), rate, hz)
        };
        let middle = gain(1_000.0);
        assert!(middle.abs() < 0.5, "{from:?} to {to:?}: gain {middle:.2} dB");
        for hz in [300.0, 400.0, 600.0, 800.0, 1_500.0, 2_000.0, 2_500.0, 3_000.0, 3_400.0] {
            let off = gain(hz) - middle;
            assert!(off.abs() < 1.0, "{:?} to {:?} at {hz}: {off:.2} dB", from.codec, to.codec);
        }
    }
}

/// `sound` at another rate.
fn at_rate(sound: &[i16], from: SampleRate, to: SampleRate) -> Vec<i16> {
    let mut resampler = audio::Resampler::new(from, to);
    let mut out = vec![0; resampler.output_len(sound.len())];
    let length = resampler.process(sound, &mut out).unwrap();
    out.truncate(length);
    out
}

/// The mean over pieces of 20 ms that hold speech of their signal-to-noise ratio, in dB.
fn segmental_snr(said: &[i16], heard: &[i16]) -> f64 {
    let pieces = said.chunks_exact(160).zip(heard.chunks_exact(160));
    let spoken = pieces.filter(|(said, _)| level::dbfs(said) > -45.0);
    let ratios: Vec<_> =
        spoken.map(|(said, heard)| level::snr_db(said, heard).clamp(-10.0, 35.0)).collect();
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

/// How far the spectra of pieces of 32 ms that hold speech differ, in dB (root mean square over
/// the telephone band and time).
fn spectral_distance(said: &[i16], heard: &[i16]) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (said, heard) in said.chunks_exact(256).zip(heard.chunks_exact(256)) {
        if level::dbfs(said) < -40.0 {
            continue;
        }
        for band in 0..16 {
            let hz = 320.0 + f64::from(band) * 190.0;
            let at = |sound: &[i16]| level_at(sound, SampleRate::Hz8000, hz).max(20.0);
            sum += (at(said) - at(heard)).powi(2);
            count += 1.0;
        }
    }
    f64::sqrt(sum / count)
}

/// `heard` without its delay, by the best match.
fn aligned<'a>(said: &[i16], heard: &'a [i16]) -> &'a [i16] {
    let start = 160 * 30;
    let piece = &said[start..start + 8_000];
    let likeness = |delay: usize| {
        let other = &heard[start + delay..start + delay + 8_000];
        let product = |a: &[i16], b: &[i16]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        product(piece, other) / product(other, other).sqrt().max(1.0)
    };
    let delay = (0..1_600).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap();
    &heard[delay..]
}

#[test]
fn speech_keeps_its_shape_through_every_pair() {
    let wide = speech::caller();
    let narrow = at_rate(&wide, SampleRate::Hz16000, SampleRate::Hz8000);
    for (from, to) in transcoded() {
        let said = at_rate(&wide, SampleRate::Hz16000, from.sample_rate());
        let mut carriage = Carriage::new(usual(from), usual(to), EVENTS, |_| {});
        let heard = carriage.carry(&said, CLEAN);
        let heard = at_rate(&heard, to.sample_rate(), SampleRate::Hz8000);
        let heard = aligned(&narrow, &heard);
        let (snr, distance) = (segmental_snr(&narrow, heard), spectral_distance(&narrow, heard));
        // A waveform is kept by waveform codecs; Opus keeps what is heard.
        let has_opus = from == Codec::Opus || to == Codec::Opus;
        let (least, most) = if has_opus { (4.0, 3.0) } else { (30.0, 2.0) };
        assert!(snr > least && distance < most, "{from:?} to {to:?}: {snr:.1} {distance:.1}");
    }
}

/// Windows of 20 ms of a continuous tone in which there is less than a tenth of it.
fn dropouts(heard: &[i16], rate: SampleRate) -> usize {
    let tone = level::dbfs(middle(heard, rate));
    let sounding = &heard[rate.samples(300)..heard.len() - rate.samples(200)];
    let windows = sounding.chunks_exact(rate.samples(20));
    windows.filter(|window| level::dbfs(window) < tone - 20.0).count()
}

#[test]
fn a_tone_has_no_holes_through_any_pair() {
    for (from, to) in transcoded() {
        for way in [CLEAN, Way { loss_percent: 5, jitter_ms: 40 }] {
            let said = tone(from.sample_rate(), 440.0, 8_000.0, 6_000);
            let mut carriage = Carriage::new(usual(from), usual(to), EVENTS, |_| {});
            let heard = carriage.carry(&said, way);
            let rate = to.sample_rate();
            assert!(heard.len() > rate.samples(5_800), "{from:?} to {to:?}");
            assert_eq!(dropouts(&heard, rate), 0, "{from:?} to {to:?} {}", way.loss_percent);
            let tally = &carriage.pair.sides[0].world.tally;
            let concealed = tally.total(Meter::Concealed);
            // The end of a sound is concealed too, for 60 ms.
            assert_eq!(concealed > 3, way.loss_percent > 0, "{from:?} to {to:?} {concealed}");
        }
    }
}

#[test]
fn packet_times_are_converted_both_ways() {
    let times = [10, 20, 30, 40, 60];
    let pairs = [
        (Codec::Pcmu, Codec::Pcmu),
        (Codec::Pcma, Codec::G722),
        (Codec::Pcmu, Codec::Opus),
        (Codec::Opus, Codec::Pcma),
        (Codec::Opus, Codec::Opus),
    ];
    for (codec, to) in pairs {
        for (one, other) in times.into_iter().flat_map(|a| times.map(|b| (a, b))) {
            if codec == to && one == other {
                continue;
            }
            let from = Format { packet_ms: one, ..usual(codec) };
            let to = Format { packet_ms: other, ..usual(to) };
            let said = tone(codec.sample_rate(), 440.0, 8_000.0, 2_400);
            let mut carriage = Carriage::new(from, to, EVENTS, |_| {});
            carriage.carry(&[], CLEAN);
            let payloads = carriage.encode(&said);
            for payload in &payloads {
                carriage.pair.say(
                    0,
                    from.payload_type,
                    payload,
                    from.codec.timestamp_step(one.into()),
                );
                carriage.pair.wait(u32::from(one) * MS);
            }
            carriage.pair.wait(100 * MS);
            let heard = carriage.pair.heard(1);
            let millis = u32::from(other);
            let step = to.codec.timestamp_step(millis);
            assert!(heard.len() as u32 >= 2_300 / millis, "{one} to {other}: {}", heard.len());
            for pair in heard.windows(2) {
                assert_eq!(pair[1].timestamp.wrapping_sub(pair[0].timestamp), step);
                assert_eq!(pair[1].sequence.wrapping_sub(pair[0].sequence), 1);
            }
            if to.codec != Codec::Opus {
                assert!(heard.iter().all(|it| it.payload.len() as u32 == 8 * millis));
            }
            let (sound, rate) = (play(&heard, to), to.codec.sample_rate());
            assert_eq!(dropouts(&sound, rate), 0, "{codec:?} {one} to {other}");
            let purity = purity(middle(&sound, rate), rate, 440.0);
            assert!(purity > 20.0, "{codec:?} {one} to {:?} {other}: {purity:.1}", to.codec);
        }
    }
}

/// How far a tone stands above all else in a sound, in dB.
fn purity(sound: &[i16], rate: SampleRate, hz: f64) -> f64 {
    let turn = TAU * hz / f64::from(rate.hz());
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, sample) in sound.iter().enumerate() {
        let ((sin, cos), sample) = ((n as f64 * turn).sin_cos(), f64::from(*sample));
        (re, im, all) = (re + sample * cos, im + sample * sin, all + sample * sample);
    }
    let tone = 2.0 * re.hypot(im).powi(2) / sound.len() as f64;
    10.0 * (tone / (all - tone).max(1e-3)).log10()
}

#[test]
fn opus_in_packets_of_any_length_is_heard_whole() {
    let rate = SampleRate::Hz48000;
    let said = tone(rate, 440.0, 8_000.0, 2_400);
    for (samples, jitter) in [120, 240, 480, 960, 1_440, 1_920, 2_880]
        .into_iter()
        .flat_map(|samples| [0, 30].map(|jitter| (samples, jitter)))
    {
        for to in [Codec::Pcmu, Codec::G722] {
            let mut carriage = Carriage::new(usual(Codec::Opus), usual(to), EVENTS, |_| {});
            let mut random = SeededRandom::new(11);
            let mut out = [0; 1400];
            let mut flying = Vec::new();
            for (n, sound) in said.chunks_exact(samples).enumerate() {
                let length = carriage.encoder.encode(sound, &mut out).unwrap();
                let packet = carriage.pair.sides[0].peer.packet(111, n == 0, &out[..length]);
                carriage.pair.sides[0].peer.timestamp += samples as u32;
                // In eighths of a millisecond.
                let late = random.below(jitter * 8 + 1);
                flying.push((n as u32 * samples as u32 / 6 + late, packet));
            }
            flying.sort_by_key(|(at, _)| *at);
            let start = carriage.pair.now;
            for (at, packet) in flying {
                let due = start + MS * at / 8;
                carriage.pair.wait(due.since(carriage.pair.now));
                carriage.pair.deliver(0, address(0), &packet);
            }
            carriage.pair.wait(200 * MS);
            let what = format!("{samples} samples, {jitter} ms, {to:?}");
            if jitter == 0 {
                assert_eq!(carriage.pair.all_drops(0), [], "{what}");
            }
            let heard = carriage.pair.heard(1);
            assert!(
                heard.windows(2).all(|it| it[1].timestamp.wrapping_sub(it[0].timestamp) == 160)
            );
            let (sound, rate) = (play(&heard, usual(to)), to.sample_rate());
            assert!(sound.len() >= rate.samples(2_380), "{what}: {}", sound.len());
            assert_eq!(dropouts(&sound, rate), 0, "{what}");
            if jitter == 0 {
                let purity = purity(middle(&sound, rate), rate, 440.0);
                assert!(purity > 20.0, "{what}: {purity:.1} dB");
            }
        }
    }
}

#[test]
fn a_source_that_leaves_silence_out_is_continued_for_one_that_cannot() {
    let from = Format { dtx: true, ..usual(Codec::Opus) };
    let mut carriage = Carriage::new(from, usual(Codec::Pcmu), EVENTS, |_| {});
    let settings = OpusSettings {
        sample_rate: SampleRate::Hz48000,
        is_discontinuous: true,
        ..OpusSettings::default()
    };
    carriage.encoder = Encoder::new(Codec::Opus, &settings).unwrap();
    let rate = SampleRate::Hz48000;
    let speech = at_rate(&speech::caller(), SampleRate::Hz16000, rate);
    let sound = [
        &speech[..rate.samples(1_000)],
        &vec![0; rate.samples(3_000)],
        &speech[..rate.samples(1_000)],
    ]
    .concat();
    let payloads = carriage.encode(&sound);
    assert!(
        payloads.iter().filter(|payload| payload.is_empty()).count() > 80,
        "silence is left out"
    );
    let mut carriage =
        Carriage { encoder: Encoder::new(Codec::Opus, &settings).unwrap(), ..carriage };
    carriage.carry(&sound, CLEAN);
    carriage.pair.wait(2_000 * MS);
    let tally = &carriage.pair.sides[1].world.tally;
    assert!((270..=320).contains(&tally.total(Meter::Sent)), "{}", tally.total(Meter::Sent));
    let heard = carriage.pair.sides[1].session.flow.as_ref().unwrap().quality().sent;
    assert!(heard > 250, "{heard}");
}

#[test]
fn a_source_that_stops_is_left_after_a_second_and_time_goes_on() {
    let mut carriage = Carriage::new(usual(Codec::Pcmu), usual(Codec::G722), EVENTS, |_| {});
    let mut heard = Vec::new();
    for _ in 0..2 {
        for payload in carriage.encode(&tone(SampleRate::Hz8000, 440.0, 8_000.0, 1_000)) {
            carriage.pair.say(0, 0, &payload, 160);
            carriage.pair.wait(20 * MS);
        }
        carriage.pair.wait(3_000 * MS);
        let flow = carriage.pair.sides[0].session.flow.as_ref().unwrap();
        assert!(!flow.needs_frames(), "its clock stands still");
        carriage.pair.sides[0].peer.timestamp += 8 * 3_000;
        heard.extend(carriage.pair.heard(1));
    }
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    let gap = heard.windows(2).find(|it| it[1].timestamp.wrapping_sub(it[0].timestamp) != 160);
    let gap = gap.unwrap();
    let (passed, ticks) =
        (gap[1].at.since(gap[0].at), gap[1].timestamp.wrapping_sub(gap[0].timestamp));
    assert_eq!((passed.as_millis() * 8) as u32, ticks);
    assert!(gap[1].marker && passed > 1_800 * MS && passed < 2_300 * MS, "{passed:?}");
}

#[test]
fn a_caller_on_hold_is_silent_at_once() {
    let mut carriage = Carriage::new(usual(Codec::Pcmu), usual(Codec::G722), EVENTS, |_| {});
    let said = tone(SampleRate::Hz8000, 440.0, 8_000.0, 400);
    talk(&mut carriage, &said);
    carriage.pair.sides[0].plan.direction.receive = false;
    carriage.pair.apply(0, Some(1));
    carriage.pair.heard(1);
    talk(&mut carriage, &said);
    assert!(carriage.pair.heard(1).len() <= 2);
    carriage.pair.sides[0].plan.direction.receive = true;
    carriage.pair.apply(0, Some(1));
    talk(&mut carriage, &said);
    assert!(carriage.pair.heard(1).len() > 15);
}

fn noise() -> Option<ComfortNoise> {
    Some(ComfortNoise { send: 13, receive: 13 })
}

#[test]
fn comfort_noise_becomes_sound_for_whom_it_was_not_agreed_with() {
    let from = usual(Codec::Pcmu);
    let mut carriage =
        Carriage::new(from, usual(Codec::G722), EVENTS, |legs| legs[0].comfort_noise = noise());
    let said = tone(SampleRate::Hz8000, 440.0, 8_000.0, 500);
    for payload in carriage.encode(&said) {
        carriage.pair.say(0, 0, &payload, 160);
        carriage.pair.wait(20 * MS);
    }
    // One description at -50 dBov, and nothing for three seconds.
    carriage.pair.say(0, 13, &[50], 160 * 150);
    carriage.pair.wait(3_000 * MS);
    let sound = carriage.listen();
    let rate = SampleRate::Hz16000;
    let quiet = &sound[rate.samples(1_000)..rate.samples(3_300)];
    assert!((level::dbfs(quiet) + 50.0).abs() < 3.0, "{}", level::dbfs(quiet));
    assert!(quiet.chunks_exact(320).all(|window| level::dbfs(window) > -60.0));
}

#[test]
fn silence_is_described_where_that_was_agreed_on() {
    let mut carriage = Carriage::new(usual(Codec::G722), usual(Codec::Pcmu), EVENTS, |legs| {
        legs[1].comfort_noise = noise();
    });
    let rate = SampleRate::Hz16000;
    let voice = tone(rate, 440.0, 8_000.0, 500);
    let sound = [&voice[..], &vec![0; rate.samples(2_000)], &voice].concat();
    for payload in carriage.encode(&sound) {
        carriage.pair.say(0, 9, &payload, 160);
        carriage.pair.wait(20 * MS);
    }
    let heard = carriage.pair.heard(1);
    let described: Vec<_> = heard.iter().filter(|it| it.payload_type == 13).collect();
    assert!((3..=5).contains(&described.len()), "{}", described.len());
    assert!(described[0].payload[0] > 60, "{:?}", described[0].payload);
    let sounds = heard.iter().filter(|it| it.payload_type == 0).count();
    assert!((55..=70).contains(&sounds), "{sounds} packets of sound, silence left out");
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    let back = heard.iter().rposition(|it| it.payload_type == 13).unwrap() + 1;
    assert!(heard[back].marker);
}

#[test]
fn silence_is_sent_as_sound_where_nothing_else_was_agreed_on() {
    let mut carriage = Carriage::new(usual(Codec::G722), usual(Codec::Pcmu), EVENTS, |_| {});
    let heard = carriage.carry(&[0; 32_000], CLEAN);
    assert!(heard.len() > 15_000);
    assert_eq!(carriage.pair.drops(0, DropReason::PayloadType), 0);
}

/// A press as events, in the middle of a sound that may hold its tone as well.
fn press(carriage: &mut Carriage, packets: u16, also_tone: bool) {
    let clock = carriage.from.codec.clock_rate();
    let step = clock / 50;
    let tone = audio::Tone::dtmf(audio::Key::from_char('5').unwrap(), 2_000, 0);
    let rate = carriage.from.codec.sample_rate();
    let mut tone = audio::ToneGenerator::new(&tone, rate);
    let start = carriage.pair.sides[0].peer.timestamp;
    for n in 1..=packets + 2 {
        let duration = u16::try_from(u32::from(n.min(packets)) * step).unwrap();
        let event = TelephoneEvent { event: 5, end: n >= packets, volume: 10, duration };
        let now = carriage.pair.sides[0].peer.timestamp;
        carriage.pair.sides[0].peer.timestamp = start;
        let packet = carriage.pair.sides[0].peer.packet(101, n == 1, &event.to_bytes());
        carriage.pair.sides[0].peer.timestamp = now;
        carriage.pair.deliver(0, address(0), &packet);
        if also_tone && n <= packets {
            let mut sound = vec![0; rate.samples(20)];
            tone.fill(&mut sound);
            let payload = carriage.encode(&sound).remove(0);
            carriage.pair.say(0, carriage.from.payload_type, &payload, step);
        } else {
            carriage.pair.sides[0].peer.timestamp += step;
        }
        carriage.pair.wait(20 * MS);
    }
}

fn talk(carriage: &mut Carriage, sound: &[i16]) {
    let step = carriage.from.codec.timestamp_step(20);
    for payload in carriage.encode(sound) {
        carriage.pair.say(0, carriage.from.payload_type, &payload, step);
        carriage.pair.wait(20 * MS);
    }
}

/// The keys in a sound, and how long each was down.
fn keys_in(sound: &[i16], rate: SampleRate) -> Vec<(char, u32)> {
    let (mut detector, mut keys) = (DtmfDetector::new(rate), Vec::new());
    detector.push(sound, |event| {
        if let DtmfEvent::Released { key, millis } = event {
            keys.push((key.as_char(), millis));
        }
    });
    keys
}

#[test]
fn a_key_as_events_keeps_its_time_in_the_sound_that_is_made_anew() {
    for (from, to) in
        [(Codec::Pcmu, Codec::Opus), (Codec::Opus, Codec::Pcma), (Codec::G722, Codec::Pcmu)]
    {
        let mut carriage = Carriage::new(usual(from), usual(to), EVENTS, |_| {});
        let said = tone(from.sample_rate(), 440.0, 8_000.0, 400);
        talk(&mut carriage, &said);
        press(&mut carriage, 10, false);
        talk(&mut carriage, &said);
        let heard = carriage.pair.heard(1);
        let clock = to.clock_rate();
        let (events, sounds): (Vec<_>, Vec<_>) =
            heard.iter().partition(|it| it.payload_type == 101);
        assert_eq!(events.len(), 12);
        for (n, packet) in (1..).zip(&events) {
            let event = TelephoneEvent::parse(&packet.payload).unwrap();
            let duration = n.min(10) * u32::from(to.timestamp_step(20) as u16);
            assert_eq!((event.event, event.end), (5, n >= 10));
            assert_eq!(u32::from(event.duration), duration);
            assert_eq!(packet.timestamp, events[0].timestamp, "{from:?} to {to:?}");
        }
        assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
        // The event lies between the sounds, and its time is that of its first packet.
        let since = |packet: &Heard| packet.timestamp.wrapping_sub(heard[0].timestamp);
        let pressed = (events[0].at.since(heard[0].at).as_millis() as u32) * clock / 1_000;
        assert!(since(events[0]).abs_diff(pressed) <= clock / 50, "{} {pressed}", since(events[0]));
        let during = sounds.iter().filter(|it| it.at > events[0].at && it.at < events[8].at);
        assert_eq!(during.count(), 0, "the key has the line");
        assert!(sounds.windows(2).all(|it| it[1].timestamp.wrapping_sub(it[0].timestamp) < clock));
    }
}

#[test]
fn a_key_becomes_a_clean_tone_and_the_sources_own_is_not_heard() {
    let to_tones = Rule { keys_to: KeyForm::Tones, ..EVENTS };
    for (from, to, also) in [
        (Codec::Pcmu, Codec::Pcmu, true),
        (Codec::Pcmu, Codec::G722, false),
        (Codec::Opus, Codec::Pcma, true),
    ] {
        let mut carriage = Carriage::new(usual(from), usual(to), to_tones, |_| {});
        let said = vec![0; from.sample_rate().samples(300)];
        for _ in 0..3 {
            talk(&mut carriage, &said);
            press(&mut carriage, 10, also);
        }
        talk(&mut carriage, &said);
        let sound = carriage.listen();
        let keys = keys_in(&sound, to.sample_rate());
        assert_eq!(keys.len(), 3, "{from:?} to {to:?}: {keys:?}");
        for (key, millis) in keys {
            assert_eq!(key, '5');
            assert!((180..=240).contains(&millis), "{from:?} to {to:?}: {millis} ms");
        }
        let flow = carriage.pair.sides[0].session.flow.as_ref().unwrap();
        assert!(from != to || !flow.needs_frames());
        let decoded = carriage.pair.sides[0].world.tally.total(Meter::Frames) > 0;
        assert_eq!(decoded, from != to, "a tone is no reason to decode all the rest");
    }
}

#[test]
fn a_key_whose_release_is_lost_ends_all_the_same() {
    let to_tones = Rule { keys_to: KeyForm::Tones, ..EVENTS };
    for gone in [false, true] {
        let mut carriage = Carriage::new(usual(Codec::Pcmu), usual(Codec::Pcmu), to_tones, |_| {});
        talk(&mut carriage, &[0; 1_600]);
        let event = TelephoneEvent { event: 9, end: false, volume: 10, duration: 160 };
        let packet = carriage.pair.sides[0].peer.packet(101, true, &event.to_bytes());
        carriage.pair.deliver(0, address(0), &packet);
        if gone {
            let now = carriage.pair.now;
            let Side { session, world, .. } = &mut carriage.pair.sides[0];
            session.release(now, world);
        }
        carriage.pair.wait(12_000 * MS);
        let sound = carriage.listen();
        let keys = keys_in(&sound, SampleRate::Hz8000);
        let most = if gone { 10_100 } else { 300 };
        assert!(keys.len() == 1 && keys[0].1 < most, "{keys:?}");
        assert!(!carriage.pair.sides[1].session.flow.as_ref().unwrap().needs_frames());
    }
}

/// A caller who takes no events and presses 7 and * into its sound.
fn presses_into_the_sound(keys_to: KeyForm) -> Carriage {
    let rule = Rule { keys_from: KeyForm::Tones, keys_to };
    let mut carriage = Carriage::new(usual(Codec::Pcmu), usual(Codec::Pcmu), rule, |legs| {
        legs[0].telephone_event = None;
    });
    let rate = SampleRate::Hz8000;
    let mut sound = at_rate(&speech::caller(), SampleRate::Hz16000, rate);
    sound.truncate(8_000);
    for key in ['7', '*'] {
        let tone = audio::Tone::dtmf(audio::Key::from_char(key).unwrap(), 150, 100);
        let mut key = vec![0; rate.samples(260)];
        audio::ToneGenerator::new(&tone, rate).fill(&mut key);
        sound.extend(key);
    }
    talk(&mut carriage, &sound);
    talk(&mut carriage, &[0; 4_000]);
    carriage
}

#[test]
fn keys_in_the_sound_become_events_and_the_tones_are_taken_out() {
    let mut carriage = presses_into_the_sound(KeyForm::Events);
    let heard = carriage.pair.heard(1);
    let events: Vec<_> = heard.iter().filter(|it| it.payload_type == 101).collect();
    let began: Vec<_> = events.iter().filter(|it| it.marker).map(|it| it.payload[0]).collect();
    assert_eq!(began, [7, 10]);
    for code in [7, 10] {
        let last = events.iter().rfind(|it| it.payload[0] == code).unwrap();
        let last = TelephoneEvent::parse(&last.payload).unwrap();
        let millis = last.duration / 8;
        assert!(last.end && (100..=200).contains(&millis), "{code}: {millis} ms");
    }
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    let sound = play(&heard, usual(Codec::Pcmu));
    assert_eq!(keys_in(&sound, SampleRate::Hz8000), []);
    assert!(level::dbfs(&sound[4_000..8_000]) > -35.0, "the speech before it is heard");
}

#[test]
fn keys_in_the_sound_are_reported_for_signalling() {
    let mut carriage = presses_into_the_sound(KeyForm::Info);
    let digits: Vec<_> = carriage
        .pair
        .events(0)
        .into_iter()
        .filter_map(|event| match event {
            MediaEvent::Digit { digit, .. } => Some(digit),
            _ => None,
        })
        .collect();
    assert_eq!(digits, ['7', '*']);
    let sound = carriage.listen();
    assert_eq!(keys_in(&sound, SampleRate::Hz8000), []);
}

#[test]
fn keys_that_stay_in_the_sound_need_no_decoding() {
    let mut carriage = presses_into_the_sound(KeyForm::Tones);
    assert_eq!(carriage.pair.sides[0].world.tally.total(Meter::Frames), 0);
    let sound = carriage.listen();
    let keys = keys_in(&sound, SampleRate::Hz8000);
    assert_eq!(keys.iter().map(|(key, _)| *key).collect::<String>(), "7*");
}

#[test]
fn keys_by_signalling_are_tones_for_a_peer_without_events() {
    for codec in [Codec::Pcmu, Codec::G722, Codec::Opus] {
        let mut carriage = Carriage::new(usual(codec), usual(codec), EVENTS, |legs| {
            legs[1].telephone_event = None;
        });
        // Without a key the sound goes on as it is.
        let said = vec![0; codec.sample_rate().samples(300)];
        talk(&mut carriage, &said);
        let now = carriage.pair.now;
        assert!(carriage.pair.sides[1].session.send_digits(now, "90#"));
        talk(&mut carriage, &vec![0; codec.sample_rate().samples(1_000)]);
        let heard = carriage.pair.heard(1);
        assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
        let keys = keys_in(&play(&heard, usual(codec)), codec.sample_rate());
        assert_eq!(keys.iter().map(|(key, _)| *key).collect::<String>(), "90#", "{codec:?}");
    }
}

#[test]
fn another_codec_on_either_side_keeps_the_numbers() {
    let said = tone(SampleRate::Hz8000, 440.0, 8_000.0, 400);
    let mut carriage = Carriage::new(usual(Codec::Pcmu), usual(Codec::G722), EVENTS, |_| {});
    talk(&mut carriage, &said);
    // The callee changes to Opus, then to what the caller has.
    for codec in [Codec::Opus, Codec::Pcmu, Codec::G722] {
        let plan = &mut carriage.pair.sides[1].plan;
        plan.send = Some(usual(codec));
        (plan.accept, plan.sendable) = (vec![usual(codec)], vec![usual(codec)]);
        carriage.pair.bridge(1, 0, EVENTS);
        carriage.pair.bridge(0, 1, EVENTS);
        talk(&mut carriage, &said);
    }
    let heard = carriage.pair.heard(1);
    let mut types: Vec<_> = heard.iter().map(|it| it.payload_type).collect();
    types.dedup();
    assert_eq!(types, [9, 111, 0, 9]);
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    for pair in heard.windows(2) {
        let clock = if pair[1].payload_type == 111 { 48 } else { 8 };
        let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        let passed = pair[1].at.since(pair[0].at).as_millis() as u32 * clock;
        assert!(ticks.abs_diff(passed) <= 20 * clock, "{ticks} {passed}");
    }
    assert!(heard.iter().all(|it| it.ssrc == heard[0].ssrc));
}

#[test]
fn a_caller_that_changes_its_codec_is_heard_on() {
    let formats = [usual(Codec::Pcmu), usual(Codec::Opus)];
    let mut pair = Pair::of(leg(0, plain(), &formats), leg(1, plain(), &[usual(Codec::G722)]));
    pair.say(1, 9, &[0; 160], 160);
    for codec in [Codec::Pcmu, Codec::Opus, Codec::Pcmu] {
        let mut encoder = encoder(codec);
        for frame in tone(codec.sample_rate(), 440.0, 8_000.0, 600)
            .chunks_exact(codec.samples_per_packet(20))
        {
            let mut out = [0; 500];
            let length = encoder.encode(frame, &mut out).unwrap();
            pair.say(0, usual(codec).payload_type, &out[..length], codec.timestamp_step(20));
            pair.wait(20 * MS);
        }
    }
    let heard = pair.heard(1);
    assert!(heard.len() > 80, "{}", heard.len());
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    let sound = play(&heard, usual(Codec::G722));
    let rate = SampleRate::Hz16000;
    let quiet = sound[rate.samples(200)..].chunks_exact(320).filter(|it| level::dbfs(it) < -40.0);
    assert!(quiet.count() <= 10, "two changes of clock, each a jitter buffer that fills");
}

#[test]
fn what_a_listener_loses_is_told_to_whom_encodes_for_it() {
    let mut carriage = Carriage::new(usual(Codec::Pcmu), usual(Codec::Opus), EVENTS, |_| {});
    let said = at_rate(&speech::caller(), SampleRate::Hz16000, SampleRate::Hz8000);
    let size = |carriage: &mut Carriage| {
        talk(carriage, &said);
        let heard = carriage.pair.heard(1);
        let fec = heard.iter().filter(|it| audio::opus::repeats_the_last(&it.payload)).count();
        fec * 100 / heard.len()
    };
    let before = size(&mut carriage);
    let block = rtp::ReportBlock {
        ssrc: carriage.pair.sides[1].plan.source.ssrc,
        fraction_lost: 60,
        ..rtp::ReportBlock::default()
    };
    let report =
        rtp::Report { ssrc: 701, sender: None, blocks: &[block], cname: "x", goodbye: false };
    let mut bytes = [0; 200];
    let length = report.write(&mut bytes).unwrap();
    carriage.pair.deliver(1, address(1), &bytes[..length]);
    let after = size(&mut carriage);
    assert!(
        after > before.max(20),
        "{before} % of the packets repeat the one before, then {after} %"
    );
}
