//! ITU-T G.722 at 64 kbit/s: two sub-bands of ADPCM behind a quadrature mirror filter, 16 kHz in
//! and out. Names follow the recommendation's blocks, so that each can be read beside its text.
//! The 56 and 48 kbit/s modes are not done: RFC 3551 section 4.5.2 carries 64 only.

use crate::codec::{DecodeError, EncodeError};
use crate::room;

/// A G.722 encoder.
pub struct Encoder {
    low: Band,
    high: Band,
    mirror: [i32; 24],
}

impl Default for Encoder {
    fn default() -> Self {
        Self { low: Band::low(), high: Band::high(), mirror: [0; 24] }
    }
}

impl Encoder {
    /// Encodes an even number of samples, two to a byte; returns the bytes written.
    ///
    /// # Errors
    /// When the number is odd or `out` is too short; the encoder's state is unchanged then.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        let (pairs, []) = pcm.as_chunks::<2>() else {
            return Err(EncodeError::FrameSize(pcm.len()));
        };
        for (out, pair) in room(out, pairs.len())?.iter_mut().zip(pairs) {
            let (first, second) = split(&mut self.mirror, pair.map(i32::from));
            // Transmit QMF: 14 bits of coefficient, of which the sub-bands drop one more.
            let low = self.low.encode_low((first + second) >> 14);
            let high = self.high.encode_high((first - second) >> 14);
            *out = high << 6 | low;
        }
        Ok(pairs.len())
    }
}

/// A G.722 decoder.
pub struct Decoder {
    low: Band,
    high: Band,
    mirror: [i32; 24],
}

impl Default for Decoder {
    fn default() -> Self {
        Self { low: Band::low(), high: Band::high(), mirror: [0; 24] }
    }
}

impl Decoder {
    /// Decodes `payload`, two samples from each byte; returns the samples written.
    ///
    /// # Errors
    /// When `out` is too short; the decoder's state is unchanged then.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, DecodeError> {
        let out = room(out, payload.len() * 2)?;
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (pair, &byte) in pairs.iter_mut().zip(payload) {
            let low = self.low.decode_low(byte & 0x3f);
            let high = self.high.decode_high(byte >> 6);
            let (first, second) = split(&mut self.mirror, [low + high, low - high]);
            *pair = [saturate(first >> 11) as i16, saturate(second >> 11) as i16];
        }
        Ok(out.len())
    }
}

/// One sub-band: predictor, adaptive quantiser and their state.
struct Band {
    /// The predicted signal, its part from the zeros, and the reconstructed signal r(n-1), r(n-2).
    s: i32,
    sz: i32,
    r: [i32; 2],
    /// The partially reconstructed signal p(n-1), p(n-2).
    p: [i32; 2],
    /// Coefficients of the poles and the zeros.
    a: [i32; 2],
    b: [i32; 6],
    /// The quantised difference d(n-1) to d(n-6).
    d: [i32; 6],
    /// The logarithmic scale factor and the scale factor itself.
    nb: i32,
    det: i32,
}

impl Band {
    const fn new(det: i32) -> Self {
        Self { s: 0, sz: 0, r: [0; 2], p: [0; 2], a: [0; 2], b: [0; 6], d: [0; 6], nb: 0, det }
    }

    const fn low() -> Self {
        Self::new(32)
    }

    const fn high() -> Self {
        Self::new(8)
    }

    /// Blocks SUBTRA, QUANTL, INVQAL, LOGSCL, SCALEL and the predictor; gives the 6-bit code.
    fn encode_low(&mut self, x: i32) -> u8 {
        let e = saturate(x - self.s);
        let magnitude = if e < 0 { !e } else { e };
        let level = Q6.iter().take_while(|&&q| magnitude >= (q * self.det) >> 12).count();
        let code = if e < 0 { LOW_NEGATIVE[level] } else { LOW_POSITIVE[level] };
        self.adapt_low(code);
        code
    }

    /// Blocks INVQBL and LIMIT give the output; the rest adapts as in the encoder.
    fn decode_low(&mut self, code: u8) -> i32 {
        let output = limit(self.s + ((self.det * QM6[usize::from(code)]) >> 15));
        self.adapt_low(code);
        output
    }

    fn adapt_low(&mut self, code: u8) {
        let coarse = usize::from(code >> 2);
        let d = (self.det * QM4[coarse]) >> 15;
        self.scale(WL[RL42[coarse]], 18_432, 8);
        self.predict(d);
    }

    fn encode_high(&mut self, x: i32) -> u8 {
        let e = saturate(x - self.s);
        let magnitude = if e < 0 { !e } else { e };
        let is_large = magnitude >= (564 * self.det) >> 12;
        let code = match (e < 0, is_large) {
            (true, false) => 1,
            (true, true) => 0,
            (false, false) => 3,
            (false, true) => 2,
        };
        self.adapt_high(code);
        code
    }

    fn decode_high(&mut self, code: u8) -> i32 {
        let d = self.adapt_high(code);
        limit(d.0 + d.1)
    }

    /// Returns the prediction and the difference that apply to this code.
    fn adapt_high(&mut self, code: u8) -> (i32, i32) {
        let code = usize::from(code & 3);
        let d = (self.det * QM2[code]) >> 15;
        let s = self.s;
        self.scale(WH[code], 22_528, 10);
        self.predict(d);
        (s, d)
    }

    /// Blocks LOGSCL/LOGSCH and SCALEL/SCALEH.
    fn scale(&mut self, weight: i32, most: i32, shift: i32) {
        self.nb = (((self.nb * 127) >> 7) + weight).clamp(0, most);
        let mantissa = ILB[(self.nb >> 6 & 31) as usize];
        let exponent = shift - (self.nb >> 11);
        let scaled = if exponent < 0 { mantissa << -exponent } else { mantissa >> exponent };
        self.det = scaled << 2;
    }

    /// Blocks RECONS, PARREC, UPPOL2, UPPOL1, UPZERO, DELAYA, FILTEP, FILTEZ and PREDIC.
    fn predict(&mut self, d: i32) {
        let r = saturate(self.s + d);
        let p = saturate(self.sz + d);
        let same = |other: i32| (p < 0) == (other < 0);

        let wd = saturate(self.a[0] << 2);
        let wd = if same(self.p[0]) { saturate(-wd) } else { wd } >> 7;
        let wd = wd + if same(self.p[1]) { 128 } else { -128 };
        let a2 = (wd + ((self.a[1] * 32_512) >> 15)).clamp(-12_288, 12_288);
        let wd = if same(self.p[0]) { 192 } else { -192 };
        let most = 15_360 - a2;
        let a1 = (wd + ((self.a[0] * 32_640) >> 15)).clamp(-most, most);
        self.a = [a1, a2];

        let step = if d == 0 { 0 } else { 128 };
        for (b, &past) in self.b.iter_mut().zip(&self.d) {
            let wd = if (past < 0) == (d < 0) { step } else { -step };
            *b = saturate(wd + ((*b * 32_640) >> 15));
        }

        self.d.copy_within(0..5, 1);
        self.d[0] = d;
        self.r = [r, self.r[0]];
        self.p = [p, self.p[0]];

        let product = |coefficient: i32, value: i32| (coefficient * saturate(value * 2)) >> 15;
        let sp = saturate(product(a1, self.r[0]) + product(a2, self.r[1]));
        self.sz = saturate(self.b.iter().zip(&self.d).map(|(&b, &d)| product(b, d)).sum());
        self.s = saturate(sp + self.sz);
    }
}

/// The quadrature mirror filter: shifts a pair in and gives the sums of the two polyphase branches.
fn split(mirror: &mut [i32; 24], pair: [i32; 2]) -> (i32, i32) {
    mirror.copy_within(2.., 0);
    mirror[22..].copy_from_slice(&pair);
    let (mut odd, mut even) = (0, 0);
    for (i, taps) in mirror.as_chunks::<2>().0.iter().enumerate() {
        odd += taps[0] * QMF[i];
        even += taps[1] * QMF[11 - i];
    }
    (even, odd)
}

const fn saturate(value: i32) -> i32 {
    if value > 32_767 {
        32_767
    } else if value < -32_768 {
        -32_768
    } else {
        value
    }
}

/// Block LIMIT: the sub-bands have 15 bits.
fn limit(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

/// Table 4/G.722, half of the symmetric filter.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// Decision levels of the 6-bit quantiser.
const Q6: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023,
    1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// The codes of a negative and a positive difference by the number of levels it reaches.
const LOW_NEGATIVE: [u8; 30] = [
    63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10,
    9, 8, 7, 6, 5, 4,
];
const LOW_POSITIVE: [u8; 30] = [
    61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38,
    37, 36, 35, 34, 33, 32,
];
/// Inverse quantisers of 6, 4 and 2 bits.
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232,
    -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776,
    -2400, -2032, -1688, -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280,
    11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776,
    2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
const QM4: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584,
    1200, 0,
];
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
/// Log-scale multipliers; those of the high band are by code.
const WL: [i32; 8] = [-60, -30, 58, 172, 334, 538, 1198, 3042];
const RL42: [usize; 16] = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];
const WH: [i32; 4] = [798, -214, 798, -214];
/// 2048 times two to the power of i / 32.
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShortOutput;
    use crate::signals::{aligned_snr_db, noise, power_db, sine, speech};

    fn round_trip(pcm: &[i16]) -> Vec<i16> {
        let mut payload = vec![0; pcm.len() / 2];
        let mut out = vec![0; pcm.len()];
        assert_eq!(Encoder::default().encode(pcm, &mut payload), Ok(pcm.len() / 2));
        assert_eq!(Decoder::default().decode(&payload, &mut out), Ok(pcm.len()));
        out
    }

    #[test]
    fn tones_of_the_low_band_keep_their_quality() {
        for hz in [100.0, 300.0, 1000.0, 2000.0, 3000.0] {
            let tone = sine(16_000, hz, 8000.0, 16_000);
            let snr = aligned_snr_db(&tone[800..], &round_trip(&tone)[800..], 40);
            assert!(snr > 30.0, "{hz} Hz: {snr:.1} dB");
        }
    }

    #[test]
    fn tones_of_the_high_band_are_coarser_but_there() {
        for hz in [5000.0, 6000.0, 6800.0] {
            let tone = sine(16_000, hz, 8000.0, 16_000);
            let out = round_trip(&tone);
            let snr = aligned_snr_db(&tone[800..], &out[800..], 40);
            assert!(snr > 10.0, "{hz} Hz: {snr:.1} dB");
            let gain = power_db(&out[800..], 16_000, hz) - power_db(&tone[800..], 16_000, hz);
            assert!(gain.abs() < 1.0, "{hz} Hz: {gain:.2} dB");
        }
    }

    #[test]
    fn speech_keeps_its_quality_at_every_level() {
        for level in [300.0, 3000.0, 12_000.0] {
            let pcm = speech(16_000, 2.0, level, 1);
            let snr = aligned_snr_db(&pcm, &round_trip(&pcm), 40);
            assert!(snr > 20.0, "{level}: {snr:.1} dB");
        }
    }

    #[test]
    fn silence_stays_silent_and_full_scale_does_not_wrap() {
        assert!(round_trip(&[0; 3200]).iter().all(|s| s.unsigned_abs() < 40));
        let square: Vec<i16> =
            (0..3200).map(|i| if i / 40 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = round_trip(&square);
        let wrapped = square[600..]
            .iter()
            .zip(&out[622..])
            .filter(|(a, b)| (**a > 0) != (**b > 0) && b.unsigned_abs() > 20_000);
        assert!(wrapped.count() < 260, "only the edges may differ");
    }

    #[test]
    fn an_odd_sample_is_refused_and_an_odd_byte_is_two_samples() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.encode(&[0; 3], &mut [0; 9]), Err(EncodeError::FrameSize(3)));
        let short = EncodeError::ShortOutput(ShortOutput { needed: 2 });
        assert_eq!(encoder.encode(&[0; 4], &mut [0; 1]), Err(short));
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&[1, 2, 3], &mut [0; 6]), Ok(6));
        let short = DecodeError::ShortOutput(ShortOutput { needed: 6 });
        assert_eq!(decoder.decode(&[1, 2, 3], &mut [0; 5]), Err(short));
        assert_eq!(decoder.decode(&[], &mut []), Ok(0));
    }

    #[test]
    fn any_bytes_and_any_samples_are_survived() {
        let pcm = noise(200_000, 32_767.0, 5);
        let bytes: Vec<u8> = pcm.iter().map(|s| *s as u8).collect();
        let mut out = vec![0; bytes.len() * 2];
        let mut decoder = Decoder::default();
        for _ in 0..2 {
            assert_eq!(decoder.decode(&bytes, &mut out), Ok(out.len()));
        }
        for byte in [0x00, 0x20, 0x3f, 0x40, 0xc0, 0xff, 0x84] {
            assert_eq!(decoder.decode(&vec![byte; 5000], &mut out), Ok(10_000));
        }
        assert_eq!(Encoder::default().encode(&pcm, &mut vec![0; 100_000]), Ok(100_000));
    }
}
