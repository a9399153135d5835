//! G.711: A-law and u-law, and the maps between their bytes, by tables computed at compile time
//! from the rules of ITU-T G.711.

/// One of the two laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// A-law (PCMA).
    A,
    /// u-law (PCMU).
    Mu,
}

impl Law {
    /// The byte that both laws send for silence.
    #[must_use]
    pub const fn silence(self) -> u8 {
        match self {
            Self::A => a_compress(0),
            Self::Mu => mu_compress(0),
        }
    }

    /// Encodes `pcm` to as many bytes; what has no room in `out` is left out.
    pub fn encode(self, pcm: &[i16], out: &mut [u8]) {
        let samples = out.iter_mut().zip(pcm);
        match self {
            Self::A => samples.for_each(|(out, &s)| *out = A_ENCODE[usize::from(s as u16 >> 4)]),
            Self::Mu => samples.for_each(|(out, &s)| *out = MU_ENCODE[usize::from(s as u16 >> 2)]),
        }
    }

    /// Decodes `payload` to as many samples; what has no room in `out` is left out.
    pub fn decode(self, payload: &[u8], out: &mut [i16]) {
        let table = match self {
            Self::A => &A_DECODE,
            Self::Mu => &MU_DECODE,
        };
        for (out, &byte) in out.iter_mut().zip(payload) {
            *out = table[usize::from(byte)];
        }
    }
}

/// Turns u-law bytes into A-law ones in place (G.711 table 3), without passing through PCM.
pub fn mu_to_a(payload: &mut [u8]) {
    payload.iter_mut().for_each(|byte| *byte = MU_TO_A[usize::from(*byte)]);
}

/// Turns A-law bytes into u-law ones in place (G.711 table 4), without passing through PCM.
pub fn a_to_mu(payload: &mut [u8]) {
    payload.iter_mut().for_each(|byte| *byte = A_TO_MU[usize::from(*byte)]);
}

/// Added to the magnitude so that every segment of the u-law starts at a power of two.
const MU_BIAS: i16 = 33;
/// A-law sends every other bit inverted (G.711 section 3.2); the top bit set is positive.
const A_INVERT: u8 = 0x55;

static MU_DECODE: [i16; 256] = decode_table(Law::Mu);
static A_DECODE: [i16; 256] = decode_table(Law::A);
/// Indexed by the upper 14 bits of a sample, all that u-law looks at.
static MU_ENCODE: [u8; 1 << 14] = {
    let mut table = [0; 1 << 14];
    let mut i = 0;
    while i < table.len() {
        table[i] = mu_compress(((i as u16) << 2) as i16);
        i += 1;
    }
    table
};
/// Indexed by the upper 12 bits of a sample, all that A-law looks at.
static A_ENCODE: [u8; 1 << 12] = {
    let mut table = [0; 1 << 12];
    let mut i = 0;
    while i < table.len() {
        table[i] = a_compress(((i as u16) << 4) as i16);
        i += 1;
    }
    table
};
static MU_TO_A: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 128 {
        let a = a_of_mu(i as u8);
        table[0xff ^ i] = 0x80 ^ A_INVERT ^ a;
        table[0x7f ^ i] = A_INVERT ^ a;
        i += 1;
    }
    table
};
static A_TO_MU: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 128 {
        let mu = mu_of_a(i as u8);
        table[0x80 ^ A_INVERT as usize ^ i] = 0xff ^ mu;
        table[A_INVERT as usize ^ i] = 0x7f ^ mu;
        i += 1;
    }
    table
};

const fn decode_table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match law {
            Law::A => a_expand(i as u8),
            Law::Mu => mu_expand(i as u8),
        };
        i += 1;
    }
    table
}

/// The segment of a magnitude: 1 where its leading one is bit 4, 0 below.
const fn segment_of(magnitude: i16) -> u32 {
    12u32.saturating_sub(magnitude.leading_zeros())
}

const fn mu_compress(sample: i16) -> u8 {
    // One's complement: -1 is as near to zero as 0 is.
    let magnitude = if sample < 0 { !sample } else { sample } >> 2;
    let biased = if magnitude > 0x1fff - MU_BIAS { 0x1fff } else { magnitude + MU_BIAS };
    let segment = segment_of(biased) - 2; // the bias makes bit 5 the lowest leading one
    let code = (segment as u8) << 4 | (biased >> (segment + 1)) as u8 & 0x0f;
    if sample < 0 { 0x7f ^ code } else { 0xff ^ code }
}

const fn mu_expand(byte: u8) -> i16 {
    let code = !byte;
    let segment = code >> 4 & 0x07;
    let magnitude = (((code & 0x0f) as i16) * 2 + MU_BIAS) << segment;
    let sample = (magnitude - MU_BIAS) << 2;
    if code & 0x80 == 0 { sample } else { -sample }
}

const fn a_compress(sample: i16) -> u8 {
    let magnitude = if sample < 0 { !sample } else { sample } >> 4;
    let segment = segment_of(magnitude);
    let shift = if segment == 0 { 0 } else { segment - 1 };
    let code = (segment as u8) << 4 | (magnitude >> shift) as u8 & 0x0f;
    if sample < 0 { A_INVERT ^ code } else { 0x80 ^ A_INVERT ^ code }
}

const fn a_expand(byte: u8) -> i16 {
    let code = byte ^ A_INVERT;
    let segment = code >> 4 & 0x07;
    let step = ((code & 0x0f) as i16) * 2 + 1; // the middle of the interval
    let sample = if segment == 0 { step << 3 } else { (step + 32) << (segment + 2) };
    if code & 0x80 == 0 { -sample } else { sample }
}

/// G.711 table 3: the A-law magnitude code of a u-law one, each counted from zero. The gaps at the
/// segment borders are the recommendation's, so that A to u to A loses as little as can be.
const fn a_of_mu(mu: u8) -> u8 {
    match mu {
        0..=15 => mu / 2,
        16..=31 => mu - 8,
        32..=35 => 24 + (mu - 32) * 2,
        36..=47 => mu - 4,
        48 => 45,
        49..=63 => mu - 2,
        64..=80 => mu - 1,
        _ => mu,
    }
}

/// G.711 table 4: the u-law magnitude code of an A-law one, each counted from zero.
const fn mu_of_a(a: u8) -> u8 {
    match a {
        0..=7 => a * 2 + 1,
        8..=23 => a + 8,
        24..=31 => 32 + (a - 24) / 2,
        32..=44 => a + 4,
        45 => 48,
        46 | 47 => 49,
        48..=62 => a + 2,
        63 => 64,
        64..=79 => a + 1,
        _ => a,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::snr_db;
    use crate::signals::sine;

    fn encode_one(law: Law, sample: i16) -> u8 {
        let mut out = [0];
        law.encode(&[sample], &mut out);
        out[0]
    }

    fn decode_one(law: Law, byte: u8) -> i16 {
        let mut out = [0];
        law.decode(&[byte], &mut out);
        out[0]
    }

    /// The compressors of ITU-T G.191, which search the segment in a loop.
    fn reference_encode(law: Law, sample: i16) -> u8 {
        let folded = if sample < 0 { !sample } else { sample };
        match law {
            Law::A => {
                let (mut code, mut segment) = (folded >> 4, 1);
                if code > 15 {
                    while code > 31 {
                        code >>= 1;
                        segment += 1;
                    }
                    code = code - 16 + (segment << 4);
                }
                (code as u8 | if sample >= 0 { 0x80 } else { 0 }) ^ 0x55
            }
            Law::Mu => {
                let magnitude = ((folded >> 2) + 33).min(0x1fff);
                let (mut rest, mut segment) = (magnitude >> 6, 1);
                while rest != 0 {
                    segment += 1;
                    rest >>= 1;
                }
                let code = (8 - segment) << 4 | (15 - (magnitude >> segment & 15));
                code as u8 | if sample >= 0 { 0x80 } else { 0 }
            }
        }
    }

    #[test]
    fn every_sample_encodes_as_the_reference_does() {
        for law in [Law::A, Law::Mu] {
            for sample in i16::MIN..=i16::MAX {
                assert_eq!(encode_one(law, sample), reference_encode(law, sample), "{sample}");
            }
        }
    }

    #[test]
    fn every_byte_survives_decoding_and_encoding() {
        for law in [Law::A, Law::Mu] {
            for byte in 0..=255 {
                let again = encode_one(law, decode_one(law, byte));
                // u-law has two zeros; PCM has one.
                let expected = if law == Law::Mu && byte == 0x7f { 0xff } else { byte };
                assert_eq!(again, expected);
            }
        }
    }

    #[test]
    fn no_sample_is_off_by_more_than_half_a_step() {
        for law in [Law::A, Law::Mu] {
            for sample in i16::MIN..=i16::MAX {
                let decoded = decode_one(law, encode_one(law, sample));
                let error = (i32::from(decoded) - i32::from(sample)).abs();
                // 16 steps to an octave; the lowest bits are not looked at.
                let bound = (i32::from(sample).abs() + 132) / 32 + 12;
                assert!(error <= bound, "{law:?} {sample}: {error}");
            }
        }
    }

    #[test]
    fn known_values_of_the_recommendation() {
        assert_eq!((decode_one(Law::Mu, 0x00), decode_one(Law::Mu, 0x80)), (-32124, 32124));
        assert_eq!((decode_one(Law::Mu, 0xff), decode_one(Law::Mu, 0x7f)), (0, 0));
        assert_eq!((decode_one(Law::A, 0x2a), decode_one(Law::A, 0xaa)), (-32256, 32256));
        assert_eq!((decode_one(Law::A, 0xd5), decode_one(Law::A, 0x55)), (8, -8));
        assert_eq!((Law::A.silence(), Law::Mu.silence()), (0xd5, 0xff));
    }

    #[test]
    fn the_maps_between_the_laws_stay_within_a_step_and_keep_order_and_sign() {
        for byte in 0..=255u8 {
            for (from, to, map) in
                [(Law::Mu, Law::A, mu_to_a as fn(&mut [u8])), (Law::A, Law::Mu, a_to_mu)]
            {
                let mut mapped = [byte];
                map(&mut mapped);
                let source = i32::from(decode_one(from, byte));
                let target = i32::from(decode_one(to, mapped[0]));
                let step = (source.abs() / 16).max(16);
                assert!((source - target).abs() <= step, "{from:?} {byte}: {source} {target}");
                assert_eq!(byte & 0x80, mapped[0] & 0x80, "the sign bit");
            }
        }
        let codes = |of: fn(u8) -> u8| (0..127).all(|i| of(i) <= of(i + 1));
        assert!(codes(a_of_mu) && codes(mu_of_a));
        // A to u and back is lossless but for what two u-law codes cannot tell apart.
        let lost: Vec<u8> = (0..128).filter(|&a| a_of_mu(mu_of_a(a)) != a).collect();
        assert_eq!(lost, [25, 27, 29, 31, 44, 46, 62, 80]);
    }

    #[test]
    fn a_tone_keeps_37_db_through_either_law() {
        let tone = sine(8000, 1004.0, 10_000.0, 8000);
        for law in [Law::A, Law::Mu] {
            let (mut coded, mut decoded) = (vec![0; 8000], vec![0; 8000]);
            law.encode(&tone, &mut coded);
            law.decode(&coded, &mut decoded);
            assert!(snr_db(&tone, &decoded) > 37.0, "{law:?} {}", snr_db(&tone, &decoded));
        }
    }
}
