//! JPEG, by zune-jpeg; by jpeg-decoder what zune-jpeg 0.5 reads to other colours, and what has no room
//! but at a reduced size.

use std::borrow::Cow;
use std::io::Cursor;

use ::image::codecs::jpeg::JpegDecoder;
use ::image::{DynamicImage, RgbImage};
use jpeg_decoder::{ColorTransform, PixelFormat};

use super::super::orientation;
use super::jpeg_survey::{Survey, survey, survey_header};
use super::{Failure, Job, Stored};

const END_MARKER: [u8; 2] = [0xFF, 0xD9];

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let header = survey_header(bytes)?;
    let full_size = (header.width, header.height);
    job.check_size(header.width, header.height)?;
    let orientation = header.exif.and_then(orientation::of_exif);
    let orientation = orientation.or_else(|| header.xmp.and_then(orientation::of_xmp));
    let scale = reduction(&header, job, orientation::bytes_to_turn(orientation));
    let turning = orientation::bytes_to_turn(orientation).div_ceil(u64::from(scale * scale));
    job.admit(header.width, header.height, bytes_a_pixel(&header, scale) + turning)?;
    let found = survey(bytes)?;
    // What lies behind the image, and what does not: decoders are given neither.
    let mut image = Cow::Borrowed(&bytes[..found.end.min(bytes.len())]);
    if !found.has_end_marker {
        image.to_mut().extend(END_MARKER);
    }
    let pixels = if scale == 1 && suits_zune(&found) {
        DynamicImage::from_decoder(JpegDecoder::new(Cursor::new(image))?)?.into_rgb8()
    } else {
        let target = full_size.0.div_ceil(scale) as u16;
        decode_scaled(&image, Some((target, full_size.1.div_ceil(scale) as u16)), None)?
    };
    Ok(Stored::new(pixels, orientation))
}

/// A JPEG stream within another format, whose colours are what that format says.
pub(super) fn decode_part(image: &[u8], transform: ColorTransform) -> Result<RgbImage, Failure> {
    decode_scaled(image, None, Some(transform))
}

/// The full size of a JPEG stream.
pub(super) fn size_of(bytes: &[u8]) -> Option<(u32, u32)> {
    survey_header(bytes).ok().map(|header| (header.width, header.height))
}

/// zune-jpeg 0.5.15 reads baseline files of one scan a colour to other colours, and doubles chroma
/// unlike libjpeg where it is not 1 or 2 pixels wide and high.
fn suits_zune(found: &Survey<'_>) -> bool {
    if !found.interleaved && !found.is_progressive() {
        return false;
    }
    let sampling: Vec<_> = found.components.iter().map(|component| component.sampling).collect();
    match sampling[..] {
        [_] => true,
        [luma, (1, 1), (1, 1)] => matches!(luma, (1, 1) | (2, 1) | (2, 2) | (1, 2)),
        [(1, 1), (1, 1), (1, 1), (1, 1)] => true,
        _ => false,
    }
}

/// How many times smaller the image is decoded: 1, unless it has no room and less is wanted.
fn reduction(header: &Survey<'_>, job: &Job<'_>, turning: u64) -> u32 {
    let (width, height) = (header.width, header.height);
    let Some(wanted) = job.limits.enough else { return 1 };
    let has_room = |scale| job.has_room(width, height, bytes_a_pixel(header, scale) + turning);
    let is_enough = |scale| width / scale >= wanted.0 && height / scale >= wanted.1;
    let scales = [1, 2, 4, 8].into_iter().take_while(|&scale| scale == 1 || is_enough(scale));
    scales.into_iter().find(|&scale| has_room(scale)).unwrap_or(1)
}

/// Of the full size: the coefficients that progressive files need all at once, planes and pixels.
fn bytes_a_pixel(header: &Survey<'_>, scale: u32) -> u64 {
    let (mut h, mut v) = (1, 1);
    for component in &header.components {
        (h, v) = (component.sampling.0.max(h), component.sampling.1.max(v));
    }
    let samples = header.components.iter().map(|component| component.sampling);
    let samples = u64::from(samples.map(|(own_h, own_v)| own_h * own_v).sum::<u32>())
        .div_ceil(u64::from(h * v));
    let coefficients = if header.is_progressive() { 2 * samples } else { 0 };
    let pixels = 3 + samples + u64::from(header.components.len() == 4) * 4;
    coefficients + pixels.div_ceil(u64::from(scale * scale))
}

fn decode_scaled(
    image: &[u8],
    size: Option<(u16, u16)>,
    transform: Option<ColorTransform>,
) -> Result<RgbImage, Failure> {
    let mut decoder = jpeg_decoder::Decoder::new(image);
    if let Some(transform) = transform {
        decoder.set_color_transform(transform);
    }
    if let Some((width, height)) = size {
        decoder.scale(width, height).map_err(failed)?;
    }
    let samples = decoder.decode().map_err(failed)?;
    let info = decoder.info().ok_or_else(|| Failure::Damaged("it has no header".into()))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    let rgb: Vec<u8> = match info.pixel_format {
        PixelFormat::RGB24 => samples,
        PixelFormat::L8 => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        PixelFormat::CMYK32 => {
            // jpeg-decoder inverts what is stored. A file of its own, as all writers write it, stores 255
            // where there is no ink; a stream within a TIFF stores ink as that does.
            let stored = if transform.is_none() { u8::MAX } else { 0 };
            let pixels = samples.as_chunks::<4>().0.iter();
            let pixels = pixels.map(|inks| inks.map(|ink| ink ^ stored));
            pixels.flat_map(|[c, m, y, k]| [c, m, y].map(|ink| over_black(ink, k))).collect()
        }
        PixelFormat::L16 => return Err(Failure::Unsupported("lossless JPEG".into())),
    };
    RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| Failure::Damaged("fewer pixels than its header says".into()))
}

/// One of red, green and blue of an ink with black over it, where 255 is none.
fn over_black(ink: u8, black: u8) -> u8 {
    ((u32::from(ink) * u32::from(black) + 127) / 255) as u8
}

fn failed(error: jpeg_decoder::Error) -> Failure {
    match error {
        jpeg_decoder::Error::Format(reason) => Failure::Damaged(reason),
        jpeg_decoder::Error::Unsupported(feature) => {
            Failure::Unsupported(format!("JPEG with {feature:?}"))
        }
        error => Failure::Damaged(error.to_string()),
    }
}
