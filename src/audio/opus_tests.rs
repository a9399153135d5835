use super::*;
use crate::level::dbfs;
use crate::signals::{largest_step, noise, power_db, sine, speech};

const RATE: SampleRate = SampleRate::Hz16000;

fn encoder(settings: OpusSettings) -> OpusEncoder {
    OpusEncoder::new(&settings).unwrap()
}

/// The payloads of `pcm` in frames of 20 ms.
fn payloads(encoder: &mut OpusEncoder, pcm: &[i16]) -> Vec<Vec<u8>> {
    pcm.chunks_exact(encoder.sample_rate().samples(20))
        .map(|frame| {
            let mut out = [0; 1500];
            let bytes = encoder.encode(frame, &mut out).unwrap();
            out[..bytes].to_vec()
        })
        .collect()
}

fn decode(rate: SampleRate, payloads: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = OpusDecoder::new(rate).unwrap();
    let mut pcm = vec![0; decoder.sample_rate().samples(120)];
    let mut all = Vec::new();
    for payload in payloads {
        let samples = decoder.decode(payload, &mut pcm).unwrap();
        all.extend_from_slice(&pcm[..samples]);
    }
    all
}

#[test]
fn a_tone_arrives_at_every_rate_from_every_rate() {
    for from in SampleRate::ALL {
        let mut encoder = encoder(OpusSettings { sample_rate: from, ..OpusSettings::default() });
        let tone =
            sine(encoder.sample_rate().hz(), 1000.0, 8000.0, encoder.sample_rate().samples(600));
        let payloads = payloads(&mut encoder, &tone);
        for to in SampleRate::ALL {
            let rate = OpusDecoder::new(to).unwrap().sample_rate();
            assert_eq!(rate, if to == SampleRate::Hz32000 { SampleRate::Hz48000 } else { to });
            let out = decode(to, &payloads);
            assert_eq!(out.len(), rate.samples(600));
            let gain = power_db(&out[rate.samples(100)..], rate.hz(), 1000.0) - 78.06;
            assert!(gain.abs() < 1.0, "{from:?} to {to:?}: {gain:.2} dB");
        }
    }
}

#[test]
fn the_bitrate_is_about_what_was_asked_for() {
    let pcm = speech(16_000, 4.0, 12_000.0, 1);
    let payloads = payloads(&mut encoder(OpusSettings::default()), &pcm);
    let bits: usize = payloads.iter().map(|payload| payload.len() * 8).sum();
    let per_second = bits / 4;
    assert!((10_000..30_000).contains(&per_second), "{per_second}");
}

#[test]
fn every_frame_length_is_taken_and_no_other() {
    let mut encoder = encoder(OpusSettings::default());
    let mut out = [0; 1500];
    for tenths in [25, 50, 100, 200, 300, 400, 600] {
        let pcm = sine(16_000, 300.0, 5000.0, 16 * tenths / 10);
        let bytes = encoder.encode(&pcm, &mut out).unwrap();
        assert_eq!(payload_samples(&out[..bytes], RATE), Some(pcm.len()));
        assert_eq!(payload_samples(&out[..bytes], SampleRate::Hz32000), Some(pcm.len() * 2));
        let mut decoded = [0; 1920];
        let samples = OpusDecoder::new(RATE).unwrap().decode(&out[..bytes], &mut decoded);
        assert_eq!(samples, Ok(pcm.len()));
    }
    for samples in [0, 1, 160 + 1, 800, 1920, 16_000] {
        let error = encoder.encode(&vec![0; samples], &mut out);
        assert_eq!(error, Err(EncodeError::FrameSize(samples)));
    }
    let short = encoder.encode(&noise(320, 9000.0, 1), &mut []);
    assert!(matches!(short, Err(EncodeError::ShortOutput(_) | EncodeError::Opus(_))), "{short:?}");
}

#[test]
fn a_packet_of_several_frames_is_decoded_whole() {
    let mut encoder = encoder(OpusSettings { bitrate: 16_000, ..OpusSettings::default() });
    let frames = payloads(&mut encoder, &speech(16_000, 0.06, 9000.0, 2));
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let mut packet = [0; 1500];
    let bytes = ::opus::Repacketizer::new().unwrap().combine(&frames, &mut packet).unwrap();
    let mut pcm = [0; 1920];
    let mut decoder = OpusDecoder::new(RATE).unwrap();
    assert_eq!(decoder.decode(&packet[..bytes], &mut pcm), Ok(960));
    let short = decoder.decode(&packet[..bytes], &mut pcm[..959]);
    assert_eq!(short, Err(DecodeError::ShortOutput(ShortOutput { needed: 960 })));
}

#[test]
fn stereo_is_mixed_down() {
    let tone = sine(48_000, 500.0, 8000.0, 960 * 20);
    let mut encoder = ::opus::Encoder::new(48_000, Channels::Stereo, Application::Audio).unwrap();
    let payloads: Vec<Vec<u8>> = tone
        .chunks_exact(960)
        .map(|frame| {
            // Left only.
            let both: Vec<i16> = frame.iter().flat_map(|&sample| [sample, 0]).collect();
            encoder.encode_vec(&both, 1500).unwrap()
        })
        .collect();
    let out = decode(RATE, &payloads);
    let gain = power_db(&out[1600..], 16_000, 500.0) - 78.06;
    assert!((gain + 6.0).abs() < 1.5, "half of it: {gain:.1} dB");
}

#[test]
fn a_lost_packet_is_recovered_from_the_next_one() {
    let pcm = speech(16_000, 2.0, 12_000.0, 3);
    let settings = OpusSettings { expected_loss_percent: 25, ..OpusSettings::default() };
    let payloads = payloads(&mut encoder(settings), &pcm);
    let whole = decode(RATE, &payloads);
    let error = |with_fec: bool| {
        let mut decoder = OpusDecoder::new(RATE).unwrap();
        let (mut buffer, mut sum) = ([0; 1920], 0.0);
        for (i, payload) in payloads.iter().enumerate() {
            let lost = i % 5 == 4 && i + 1 < payloads.len();
            let samples = match (lost, with_fec) {
                (true, true) => decoder.recover(&payloads[i + 1], &mut buffer[..320]),
                (true, false) => decoder.conceal(&mut buffer[..320]),
                (false, _) => decoder.decode(payload, &mut buffer).unwrap(),
            };
            assert_eq!(samples, 320);
            if lost {
                let difference: Vec<i16> =
                    (0..320).map(|n| buffer[n].saturating_sub(whole[i * 320 + n])).collect();
                sum += 10f64.powf(f64::from(dbfs(&difference)) / 10.0);
            }
        }
        10.0 * sum.log10()
    };
    let (recovered, concealed) = (error(true), error(false));
    assert!(recovered < concealed - 3.0, "{recovered:.1} dB against {concealed:.1} dB");
}

#[test]
fn a_packet_says_whether_it_repeats_the_last() {
    for sample_rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
        for expected_loss_percent in [0, 25] {
            let settings =
                OpusSettings { sample_rate, expected_loss_percent, ..OpusSettings::default() };
            let pcm = speech(sample_rate.hz(), 3.0, 12_000.0, 1);
            let payloads = payloads(&mut encoder(settings), &pcm);
            let repeating = payloads.iter().filter(|it| repeats_the_last(it)).count();
            let share = repeating * 100 / payloads.len();
            assert_eq!(share > 50, expected_loss_percent > 0, "{sample_rate:?} {share} %");
            assert_eq!(share == 0, expected_loss_percent == 0, "{sample_rate:?} {share} %");
        }
    }
    assert!(!repeats_the_last(&[]) && !repeats_the_last(&[0]) && !repeats_the_last(&[0xf8; 9]));
}

#[test]
fn a_long_loss_fades_and_its_end_does_not_click() {
    let tone = sine(16_000, 300.0, 9000.0, 32_000);
    let payloads = payloads(&mut encoder(OpusSettings::default()), &tone);
    let mut decoder = OpusDecoder::new(RATE).unwrap();
    let mut buffer = [0; 1920];
    let mut all = Vec::new();
    for (i, payload) in payloads.iter().enumerate() {
        let samples = if (20..60).contains(&i) {
            decoder.conceal(&mut buffer[..320])
        } else {
            decoder.decode(payload, &mut buffer).unwrap()
        };
        all.extend_from_slice(&buffer[..samples]);
    }
    assert!(dbfs(&all[50 * 320..59 * 320]) < -40.0);
    assert!(largest_step(&all) < largest_step(&tone) * 2);
}

#[test]
fn silence_is_not_sent_when_discontinuous() {
    let settings = OpusSettings { is_discontinuous: true, ..OpusSettings::default() };
    let payloads = payloads(&mut encoder(settings), &[0; 32_000]);
    let sent = payloads.iter().filter(|payload| !payload.is_empty()).count();
    assert!(sent < 40, "{sent} of 100");
    let continuous = OpusSettings::default();
    assert!(self::payloads(&mut encoder(continuous), &[0; 32_000]).iter().all(|p| !p.is_empty()));
}

#[test]
fn settings_out_of_range_are_an_error() {
    for wrong in [
        OpusSettings { complexity: 11, ..OpusSettings::default() },
        OpusSettings { bitrate: 0, ..OpusSettings::default() },
        OpusSettings { expected_loss_percent: 101, ..OpusSettings::default() },
    ] {
        assert!(OpusEncoder::new(&wrong).is_err(), "{wrong:?}");
    }
    encoder(OpusSettings::default()).set_expected_loss(255);
}

#[test]
fn concealing_odd_lengths_rounds_down_to_frames() {
    let mut decoder = OpusDecoder::new(RATE).unwrap();
    let mut out = [1; 5000];
    assert_eq!(decoder.conceal(&mut out[..39]), 0);
    assert_eq!(decoder.conceal(&mut out[..100]), 80);
    assert_eq!(decoder.conceal(&mut out), 1920);
    assert_eq!(decoder.recover(&[0xff, 0xff, 0xff], &mut out[..320]), 320);
}
