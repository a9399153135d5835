//! The acoustic model as a telephone line would have shown it.
//!
//! The model was trained on 25 bands up to 6.8 kHz; a G.711 line carries the lower 20. Filling
//! the empty bands with noise or copies of the lower ones only guesses. Instead every Gaussian of
//! the model is projected onto the 20 bands: its mean through the inverse transform over 25 bands
//! and the transform over 20, its variance likewise, plus the variance of what the inverse does
//! not know (it is smooth, a frame is not). What the line does not carry then has no say at all.
//!
//! Of 105 isolated words of a human voice through G.711, in seven grammars of 15, nothing known
//! of voice or line: 101. The model as it is: 92; with the highest band repeated upwards: 99; with
//! the missing bands estimated from the model: 100. (The library's own front end: 47, with noise
//! in the upper band 85; wideband 96 there and 104 here.)

use crate::cepstra::{COEFFICIENTS, Transform, Width};
use crate::mel::BANDS;

/// The variance of one band's log power around its smooth course.
const ROUGHNESS: f32 = 1.0;
/// What of it remains in the features' changes in time.
const ROUGHNESS_OF_CHANGES: f32 = 0.5;

/// A model file that is not as the one that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an acoustic model file is not of the known form")]
pub(crate) struct ModelError;

/// The model's `means` and `variances` files, projected onto the bands of `width`.
///
/// # Errors
/// Where they are not of the form described at [`Parameters`].
pub(crate) fn project(
    means: &[u8],
    variances: &[u8],
    width: Width,
) -> Result<(Vec<u8>, Vec<u8>), ModelError> {
    let (means, variances) = (Parameters::parse(means)?, Parameters::parse(variances)?);
    if means.shape != variances.shape {
        return Err(ModelError);
    }
    let projection = Projection::new(width);
    let (mut out_means, mut out_variances) = (means.header(), variances.header());
    let pairs = means.vectors.as_chunks::<VECTOR>().0.iter();
    for (i, (mean, variance)) in pairs.zip(variances.vectors.as_chunks::<VECTOR>().0).enumerate() {
        let is_static = (i / means.shape.densities).is_multiple_of(STREAMS);
        let (mean, variance) = (floats(mean), floats(variance));
        write(&mut out_means, &projection.mean(&mean));
        write(&mut out_variances, &projection.variance(&variance, is_static));
    }
    Ok((out_means, out_variances))
}

/// Bytes of one vector.
const VECTOR: usize = COEFFICIENTS * 4;
/// Streams of features: the cepstra, their changes, and the changes of these.
const STREAMS: usize = 3;

type Vector = [f32; COEFFICIENTS];

struct Projection {
    /// From the model's coefficients to those over fewer bands.
    matrix: [Vector; COEFFICIENTS],
    roughness: Vector,
}

impl Projection {
    fn new(width: Width) -> Self {
        let bands = width.bands();
        let (full, part) = (Transform::new(BANDS), Transform::new(bands));
        let cell = |row, column| -> f32 {
            (0..bands).map(|band| part.weight(row, band) * full.inverse(band, column)).sum()
        };
        let rough = |row| (0..bands).map(|band| part.weight(row, band).powi(2)).sum::<f32>();
        Self {
            matrix: std::array::from_fn(|row| std::array::from_fn(|column| cell(row, column))),
            roughness: std::array::from_fn(|row| ROUGHNESS * rough(row)),
        }
    }

    fn mean(&self, mean: &Vector) -> Vector {
        self.matrix.map(|row| row.iter().zip(mean).map(|(a, b)| a * b).sum())
    }

    fn variance(&self, variance: &Vector, is_static: bool) -> Vector {
        let share = if is_static { 1.0 } else { ROUGHNESS_OF_CHANGES };
        std::array::from_fn(|i| {
            let row = self.matrix[i].iter().zip(variance);
            row.map(|(a, b)| a * a * b).sum::<f32>() + share * self.roughness[i]
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    codebooks: usize,
    densities: usize,
}

/// A parameter file: `s3`, lines of a text header up to `endhdr`, a byte-order mark, the numbers
/// of codebooks, streams and densities, each stream's length, the number of floats, the floats,
/// and a checksum if the header has a line `chksum0`.
struct Parameters<'a> {
    shape: Shape,
    vectors: &'a [u8],
}

impl<'a> Parameters<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, ModelError> {
        const END: &[u8] = b"endhdr\n";
        let end = file.windows(END.len()).position(|it| it == END).ok_or(ModelError)?;
        let (numbers, floats) =
            file[end + END.len()..].split_at_checked(HEADER_NUMBERS * 4).ok_or(ModelError)?;
        let numbers = numbers.as_chunks::<4>().0;
        let number = |i: usize| u32::from_le_bytes(numbers[i]) as usize;
        let shape = Shape { codebooks: number(1), densities: number(3) };
        let vectors = [shape.codebooks, STREAMS, shape.densities, VECTOR];
        let length = vectors.into_iter().try_fold(1usize, usize::checked_mul).ok_or(ModelError)?;
        let is_known = number(0) == BYTE_ORDER
            && number(2) == STREAMS
            && (4..4 + STREAMS).all(|i| number(i) == COEFFICIENTS)
            && number(4 + STREAMS).checked_mul(4) == Some(length)
            && shape.densities > 0;
        let vectors = floats.get(..length).filter(|_| is_known).ok_or(ModelError)?;
        Ok(Self { shape, vectors })
    }

    /// The head of a file of this shape, without a checksum.
    fn header(&self) -> Vec<u8> {
        let mut out = b"s3\nversion 1.0\nendhdr\n".to_vec();
        let lengths = [COEFFICIENTS; STREAMS];
        let head = [BYTE_ORDER, self.shape.codebooks, STREAMS, self.shape.densities];
        let floats = self.vectors.len() / 4;
        for number in head.into_iter().chain(lengths).chain([floats]) {
            out.extend_from_slice(&(number as u32).to_le_bytes());
        }
        out
    }
}

const BYTE_ORDER: usize = 0x1122_3344;
const HEADER_NUMBERS: usize = 4 + STREAMS + 1;

fn floats(bytes: &[u8; VECTOR]) -> Vector {
    let cells = bytes.as_chunks::<4>().0;
    std::array::from_fn(|i| f32::from_le_bytes(cells[i]))
}

fn write(out: &mut Vec<u8>, vector: &Vector) {
    out.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(codebooks: u32, densities: u32, value: f32) -> Vec<u8> {
        let mut out = b"s3\nversion 1.0\nchksum0 yes\nendhdr\n".to_vec();
        let floats = codebooks * 3 * densities * 13;
        for number in [0x1122_3344, codebooks, 3, densities, 13, 13, 13, floats] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        (0..floats).for_each(|_| out.extend_from_slice(&value.to_le_bytes()));
        out.extend_from_slice(&[1, 2, 3, 4]);
        out
    }

    #[test]
    fn over_all_bands_the_means_stay_and_the_variances_only_grow() {
        let (means, variances) = project(&file(2, 4, 3.0), &file(2, 4, 5.0), Width::Wide).unwrap();
        let read = |file: &[u8]| {
            let file = Parameters::parse(file).unwrap();
            file.vectors.as_chunks::<VECTOR>().0.iter().map(floats).collect::<Vec<_>>()
        };
        assert_eq!(read(&means).len(), 24);
        assert!(read(&means).iter().flatten().all(|value| (value - 3.0).abs() < 1e-3));
        assert!(read(&variances).iter().flatten().all(|value| *value > 5.0));
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let good = file(2, 4, 1.0);
        assert!(project(&good, &file(3, 4, 1.0), Width::Narrow).is_err());
        for cut in 0..good.len() - 4 {
            assert!(project(&good[..cut], &good, Width::Narrow).is_err(), "{cut}");
        }
        assert!(project(&file(0, 0, 1.0), &file(0, 0, 1.0), Width::Narrow).is_err());
        assert!(project(b"", &good, Width::Narrow).is_err());
    }
}
