//! What the samples of a TIFF mean: photometric interpretation, width, alpha, planes.

use ::image::Rgb;
use ::tiff::decoder::DecodingResult;
use ::tiff::tags::Tag;

use super::super::colour::{float_to_8, of_ink};
use super::Failure;
use super::tiff::{AsPlainSamples, failed, tag};

/// TIFF's word for what the colours are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    Ycbcr,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Alpha {
    None,
    /// Colours are multiplied by it.
    Associated,
    Unassociated,
}

#[derive(Debug)]
pub(super) struct Meaning {
    pub(super) photometric: Photometric,
    bits: u32,
    pub(super) samples: u16,
    pub(super) is_planar: bool,
    is_float: bool,
    alpha: Alpha,
    /// Red, green and blue of each index.
    palette: Vec<[u8; 3]>,
}

impl Meaning {
    pub(super) fn of(
        decoder: &mut ::tiff::decoder::Decoder<AsPlainSamples<'_>>,
        photometric: u16,
    ) -> Result<Self, Failure> {
        let refused = |what: String| Err(Failure::Unsupported(format!("TIFF with {what}")));
        let photometric = match photometric {
            0 => Photometric::WhiteIsZero,
            1 => Photometric::BlackIsZero,
            2 => Photometric::Rgb,
            3 => Photometric::Palette,
            5 => Photometric::Cmyk,
            6 => Photometric::Ycbcr,
            8..=10 => return refused("L*a*b* colours".into()),
            other => return refused(format!("photometric interpretation {other}")),
        };
        let bits = tag(decoder, Tag::BitsPerSample, 1);
        let samples = tag(decoder, Tag::SamplesPerPixel, 1) as u16;
        let colours = match photometric {
            Photometric::Rgb | Photometric::Ycbcr => 3,
            Photometric::Cmyk => 4,
            _ => 1,
        };
        if samples < colours {
            return Err(Failure::Damaged(format!(
                "{samples} samples a pixel for {colours} colours"
            )));
        }
        let is_float = match tag(decoder, Tag::SampleFormat, 1) {
            1 | 4 => false,
            2 => return refused("signed samples".into()),
            3 => true,
            other => return refused(format!("sample format {other}")),
        };
        let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(failed)?;
        let alpha = match extra.as_deref() {
            _ if samples == colours => Alpha::None,
            Some([1, ..]) => Alpha::Associated,
            Some([2, ..]) | None => Alpha::Unassociated,
            Some(_) => Alpha::None,
        };
        let compression = tag(decoder, Tag::Compression, 1);
        let subsampling = decoder.find_tag_unsigned_vec::<u16>(Tag::ChromaSubsampling);
        let subsampling = subsampling.map_err(failed)?.unwrap_or(vec![2, 2]);
        if photometric == Photometric::Ycbcr
            && !matches!(compression, 6 | 7)
            && subsampling != [1, 1]
        {
            return refused("subsampled YCbCr that is not JPEG".into());
        }
        if photometric == Photometric::Cmyk && tag(decoder, Tag::Unknown(332), 1) != 1 {
            return refused("inks other than CMYK".into());
        }
        if tag(decoder, Tag::FillOrder, 1) == 2 && bits < 8 {
            return refused("bits in reversed order (FillOrder 2)".into());
        }
        let palette = match photometric {
            Photometric::Palette => palette(decoder, bits)?,
            _ => Vec::new(),
        };
        let is_planar = tag(decoder, Tag::PlanarConfiguration, 1) == 2 && samples > 1;
        Ok(Self { photometric, bits, samples, is_planar, is_float, alpha, palette })
    }

    /// As the tiff crate hands them out, and as they are read here.
    pub(super) fn bytes_a_pixel(&self) -> u64 {
        u64::from(self.samples) * u64::from(self.bits.div_ceil(8))
    }

    /// Gives each pixel of a strip or tile of this size, which `chunks` hold, a chunk for each plane.
    pub(super) fn write(
        &self,
        chunks: &[DecodingResult],
        width: u32,
        height: u32,
        mut put: impl FnMut(u32, u32, Rgb<u8>),
    ) -> Result<(), Failure> {
        let samples = usize::from(self.samples);
        let a_chunk = if self.is_planar { 1 } else { samples };
        // Rows of less than a byte a sample begin at a byte.
        let stride = if self.bits < 8 {
            (width as usize * a_chunk * self.bits as usize).div_ceil(8)
        } else {
            width as usize * a_chunk
        };
        let readers: Vec<Samples<'_>> =
            chunks.iter().map(|chunk| Samples::new(chunk, self.bits)).collect::<Result<_, _>>()?;
        let mut pixel = vec![0.0; samples];
        for y in 0..height {
            for x in 0..width {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let (chunk, at) = if self.is_planar {
                        (channel, x as usize)
                    } else {
                        (0, x as usize * samples + channel)
                    };
                    let reader = readers.get(chunk);
                    let found = reader.and_then(|reader| reader.get(y as usize, stride, at));
                    *value = found
                        .ok_or_else(|| Failure::Truncated("a strip or tile is short".into()))?;
                }
                put(x, y, Rgb(self.colour(&pixel)));
            }
        }
        Ok(())
    }

    /// The colour of a pixel, over white.
    fn colour(&self, pixel: &[f64]) -> [u8; 3] {
        let scale = if self.is_float { 1.0 } else { 255.0 / ((1u128 << self.bits) - 1) as f64 };
        let unit = |value: f64| value * scale;
        let rounded = |value: f64| match self.is_float {
            true => float_to_8(value as f32),
            false => (value + 0.5) as u8,
        };
        let alpha_at = |colours: usize| match self.alpha {
            Alpha::None => None,
            _ => pixel.get(colours).map(|&alpha| unit(alpha)),
        };
        let white = if self.is_float { 1.0 } else { 255.0 };
        let over = |value: f64, alpha: Option<f64>| match (alpha, self.alpha) {
            (None, _) | (_, Alpha::None) => rounded(value),
            (Some(alpha), Alpha::Associated) => rounded(value + white - alpha.clamp(0.0, white)),
            (Some(alpha), Alpha::Unassociated) => {
                let alpha = alpha.clamp(0.0, white) / white;
                rounded(value * alpha + white * (1.0 - alpha))
            }
        };
        match (self.photometric, pixel) {
            (Photometric::WhiteIsZero, &[grey, ..]) => [over(white - unit(grey), alpha_at(1)); 3],
            (Photometric::BlackIsZero, &[grey, ..]) => [over(unit(grey), alpha_at(1)); 3],
            (Photometric::Rgb, &[r, g, b, ..]) => {
                [r, g, b].map(|value| over(unit(value), alpha_at(3)))
            }
            (Photometric::Palette, &[index, ..]) => {
                self.palette.get(index as usize).copied().unwrap_or_default()
            }
            (Photometric::Cmyk, &[c, m, y, k, ..]) => {
                let [c, m, y, k] = [c, m, y, k].map(|ink| rounded(unit(ink)));
                [c, m, y].map(|ink| of_ink(ink, k))
            }
            (Photometric::Ycbcr, &[y, cb, cr, ..]) => {
                let [y, cb, cr] = [unit(y), unit(cb) - 128.0, unit(cr) - 128.0];
                [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(rounded)
            }
            _ => [0; 3],
        }
    }
}

fn palette(
    decoder: &mut ::tiff::decoder::Decoder<AsPlainSamples<'_>>,
    bits: u32,
) -> Result<Vec<[u8; 3]>, Failure> {
    let map = decoder.find_tag_unsigned_vec::<u16>(Tag::ColorMap).map_err(failed)?;
    let map = map.unwrap_or_default();
    let count = map.len() / 3;
    if count == 0 || bits > 16 {
        return Err(Failure::Damaged("a palette without colours".into()));
    }
    // Some writers fill in 8-bit numbers, and libtiff takes them as such.
    let shift = if map.iter().all(|&value| value < 256) { 0 } else { 8 };
    let of = |at: usize| (map[at] >> shift) as u8;
    Ok((0..count).map(|index| [of(index), of(count + index), of(2 * count + index)]).collect())
}

/// The samples of a chunk, one by one.
enum Samples<'a> {
    Packed(&'a [u8], usize),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    /// Widened already.
    Owned(Vec<f32>),
}

impl<'a> Samples<'a> {
    fn new(chunk: &'a DecodingResult, bits: u32) -> Result<Self, Failure> {
        Ok(match chunk {
            DecodingResult::U8(samples) if bits < 8 => Self::Packed(samples, bits as usize),
            DecodingResult::U8(samples) => Self::U8(samples),
            DecodingResult::U16(samples) => Self::U16(samples),
            DecodingResult::U32(samples) => Self::U32(samples),
            DecodingResult::U64(samples) => Self::U64(samples),
            DecodingResult::F32(samples) => Self::F32(samples),
            DecodingResult::F64(samples) => Self::F64(samples),
            DecodingResult::F16(samples) => {
                Self::Owned(samples.iter().map(|sample| sample.to_f32()).collect())
            }
            _ => return Err(Failure::Unsupported("TIFF with signed samples".into())),
        })
    }

    fn get(&self, row: usize, stride: usize, at: usize) -> Option<f64> {
        if let Self::Packed(bytes, bits) = *self {
            let first = at * bits;
            // Of 1, 2 and 4 bits none crosses a byte; others take two.
            let high = u16::from(*bytes.get(row * stride + first / 8)?);
            let low = u16::from(bytes.get(row * stride + first / 8 + 1).copied().unwrap_or(0));
            let window = high << 8 | low;
            let value = window << (first % 8) >> (16 - bits);
            return Some(f64::from(value));
        }
        let at = row * stride + at;
        Some(match self {
            Self::Packed(..) => return None,
            Self::U8(samples) => f64::from(*samples.get(at)?),
            Self::U16(samples) => f64::from(*samples.get(at)?),
            Self::U32(samples) => f64::from(*samples.get(at)?),
            Self::U64(samples) => *samples.get(at)? as f64,
            Self::F32(samples) => f64::from(*samples.get(at)?),
            Self::F64(samples) => *samples.get(at)?,
            Self::Owned(samples) => f64::from(*samples.get(at)?),
        })
    }
}
