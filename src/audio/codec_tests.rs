use super::*;
use crate::level::dbfs;
use crate::signals::{aligned_snr_db, noise, power_db, sine, speech};

#[test]
fn names_types_and_clocks_are_those_of_the_rfcs() {
    let facts: Vec<_> = Codec::ALL
        .iter()
        .map(|c| {
            (c.name(), c.payload_type(), c.clock_rate(), c.sample_rate().hz(), c.rtpmap_channels())
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("PCMU", Some(0), 8000, 8000, 1),
            ("PCMA", Some(8), 8000, 8000, 1),
            ("G722", Some(9), 8000, 16_000, 1),
            ("opus", None, 48_000, 48_000, 2),
        ]
    );
    for codec in Codec::ALL {
        assert_eq!(Codec::from_name(&codec.name().to_lowercase()), Some(codec));
        if let Some(payload_type) = codec.payload_type() {
            assert_eq!(Codec::from_payload_type(payload_type), Some(codec));
        }
    }
    assert_eq!((Codec::from_name("G729"), Codec::from_payload_type(13)), (None, None));
}

#[test]
fn packets_of_20_ms_have_their_size() {
    let sizes = Codec::ALL.map(|codec| (codec.timestamp_step(20), codec.samples_per_packet(20)));
    assert_eq!(sizes, [(160, 160), (160, 160), (160, 320), (960, 960)]);
    assert_eq!(Codec::Opus.timestamp_step(u32::MAX), u32::MAX);
    for (codec, rate, expected) in [
        (Codec::Pcmu, SampleRate::Hz8000, 160),
        (Codec::Pcma, SampleRate::Hz16000, 320),
        (Codec::G722, SampleRate::Hz16000, 320),
        (Codec::G722, SampleRate::Hz48000, 960),
    ] {
        assert_eq!(payload_samples(codec, &[0; 160], rate), Some(expected));
    }
    assert_eq!(payload_samples(Codec::Pcmu, &[], SampleRate::Hz8000), None);
    assert_eq!(payload_samples(Codec::Opus, &[3], SampleRate::Hz8000), None);
}

/// Encodes and decodes `seconds` of `hz`-sampled audio made by `signal`, by packets of 20 ms.
fn through(
    codec: Codec,
    signal: impl Fn(SampleRate) -> Vec<i16>,
) -> (SampleRate, Vec<i16>, Vec<i16>) {
    let mut encoder = Encoder::new(codec, &OpusSettings::default()).unwrap();
    let rate = encoder.sample_rate();
    let mut decoder = Decoder::new(codec, rate).unwrap();
    assert_eq!(decoder.sample_rate(), rate);
    let pcm = signal(rate);
    let (mut payload, mut buffer, mut out) = ([0; 1500], [0; 5760], Vec::new());
    for frame in pcm.chunks_exact(rate.samples(20)) {
        let bytes = encoder.encode(frame, &mut payload).unwrap();
        assert_eq!(payload_samples(codec, &payload[..bytes], rate), Some(frame.len()));
        let samples = decoder.decode(&payload[..bytes], &mut buffer).unwrap();
        out.extend_from_slice(&buffer[..samples]);
    }
    (rate, pcm, out)
}

#[test]
fn speech_survives_every_codec() {
    for codec in Codec::ALL {
        let (rate, pcm, out) = through(codec, |rate| speech(rate.hz(), 2.0, 12_000.0, 1));
        assert_eq!(pcm.len(), out.len());
        let snr = aligned_snr_db(&pcm[..pcm.len() / 2], &out, rate.samples(15));
        let least = if codec == Codec::Opus { 6.0 } else { 20.0 };
        assert!(snr > least, "{codec:?}: {snr:.1} dB");
    }
}

#[test]
fn lost_packets_are_filled_and_fade_in_every_codec() {
    for codec in Codec::ALL {
        let mut encoder = Encoder::new(codec, &OpusSettings::default()).unwrap();
        let rate = encoder.sample_rate();
        let mut decoder = Decoder::new(codec, rate).unwrap();
        let frame_len = rate.samples(20);
        let (mut payload, mut out) = ([0; 1500], vec![0; rate.samples(120)]);
        let tone = sine(rate.hz(), 300.0, 9000.0, rate.samples(400));
        for frame in tone.chunks(frame_len) {
            let bytes = encoder.encode(frame, &mut payload).unwrap();
            decoder.decode(&payload[..bytes], &mut out).unwrap();
        }
        let bytes = encoder.encode(&tone[..frame_len], &mut payload).unwrap();
        assert_eq!(decoder.recover(&payload[..bytes], frame_len, &mut out), frame_len);
        assert!(power_db(&out[..frame_len], rate.hz(), 300.0) > 70.0, "{codec:?}");
        for _ in 0..20 {
            assert_eq!(decoder.conceal(frame_len, &mut out), frame_len);
        }
        assert!(dbfs(&out[..frame_len]) < -40.0, "{codec:?} {}", dbfs(&out[..frame_len]));
        assert_eq!(decoder.conceal(frame_len, &mut []), 0);
    }
}

#[test]
fn a_tone_does_not_fall_silent_when_two_packets_are_lost() {
    for codec in Codec::ALL {
        let rate = codec.sample_rate();
        let settings =
            OpusSettings { sample_rate: rate, bitrate: 32_000, ..OpusSettings::default() };
        for hz in [300.0, 440.0, 1000.0] {
            let mut encoder = Encoder::new(codec, &settings).unwrap();
            let tone = sine(rate.hz(), hz, 9000.0, rate.samples(1_200));
            let payloads: Vec<_> = tone
                .chunks(rate.samples(20))
                .map(|frame| {
                    let mut payload = [0; 1500];
                    let bytes = encoder.encode(frame, &mut payload).unwrap();
                    payload[..bytes].to_vec()
                })
                .collect();
            let heard = SampleRate::Hz8000;
            for lost in 20..58 {
                let mut decoder = Decoder::new(codec, heard).unwrap();
                let samples = decoder.sample_rate().samples(20);
                let mut out = vec![0; samples * 6];
                for payload in &payloads[..lost] {
                    decoder.decode(payload, &mut out).unwrap();
                }
                decoder.conceal(samples, &mut out);
                decoder.recover(&payloads[lost + 2], samples, &mut out);
                let level = dbfs(&out[..samples]);
                assert!(level > -30.0, "{codec:?} {hz} at {lost}: {level:.1}");
            }
        }
    }
}

#[test]
fn the_first_good_frame_after_a_loss_is_blended_in() {
    let mut decoder = Decoder::new(Codec::Pcma, SampleRate::Hz8000).unwrap();
    let mut encoded = [0; 160];
    crate::g711::Law::A.encode(&sine(8000, 100.0, 20_000.0, 160), &mut encoded);
    let mut out = [0; 160];
    decoder.decode(&encoded, &mut out).unwrap();
    let clean = out;
    for _ in 0..4 {
        decoder.conceal(160, &mut out);
    }
    decoder.decode(&encoded, &mut out).unwrap();
    assert_ne!(out, clean);
    assert_eq!(out[80..], clean[80..]);
    decoder.decode(&encoded, &mut out).unwrap();
    assert_eq!(out, clean);
}

#[test]
fn any_payload_is_an_error_or_audio_and_never_a_panic() {
    let bytes: Vec<u8> = noise(60_000, 32_767.0, 9).iter().map(|s| *s as u8).collect();
    let mut out = vec![0; 5760];
    for codec in Codec::ALL {
        for wanted in [SampleRate::Hz8000, SampleRate::Hz16000, SampleRate::Hz48000] {
            let mut decoder = Decoder::new(codec, wanted).unwrap();
            let mut decoded = 0;
            for (i, size) in (0..1500).step_by(7).enumerate() {
                let payload = &bytes[i * 137..][..size];
                if let Ok(samples) = decoder.decode(payload, &mut out) {
                    assert_eq!(
                        payload_samples(codec, payload, decoder.sample_rate()),
                        Some(samples)
                    );
                    decoded += 1;
                } else {
                    decoder.conceal(160, &mut out);
                }
                decoder.recover(payload, 320, &mut out);
            }
            assert!(decoded > 0, "{codec:?}");
            assert_eq!(decoder.decode(&[], &mut out), Err(DecodeError::Empty));
            assert_eq!(decoder.decode(&[0; 1501], &mut out), Err(DecodeError::TooLarge(1501)));
        }
    }
}

#[test]
fn a_short_output_is_told() {
    let short = ShortOutput { needed: 160 };
    let mut encoder = Encoder::new(Codec::Pcmu, &OpusSettings::default()).unwrap();
    assert_eq!(encoder.encode(&[0; 160], &mut [0; 159]), Err(short.into()));
    encoder.set_expected_loss(50);
    let mut decoder = Decoder::new(Codec::Pcmu, SampleRate::Hz48000).unwrap();
    assert_eq!(decoder.sample_rate(), SampleRate::Hz8000);
    assert_eq!(decoder.decode(&[0; 160], &mut [0; 159]), Err(short.into()));
}
