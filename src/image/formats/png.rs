//! PNG, row by row, so that one row at a time is held as it is stored. Of an animated PNG, the image that
//! viewers without animation show. Colour profiles and texts are not inflated.

use std::io::Cursor;

use ::image::RgbImage;
use png::{
    BitDepth, ColorType, DecodeOptions, DecodingError, InterlaceInfo, Limits, Transformations,
};

use super::super::colour::row_to_rgb8;
use super::super::orientation;
use super::{Failure, Job, Stored};

/// Pixels, and what a row and the inflater take.
const BYTES_A_PIXEL: u64 = 3;

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let mut options = DecodeOptions::default();
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_text_chunk(true);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), options);
    // Rows and palettes; pixels are counted by the budget.
    decoder.set_limits(Limits { bytes: 256 << 20 });
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(failed)?;
    let (width, height, is_interlaced) = (header.width, header.height, header.interlaced);
    let orientation = orientation::of_png(bytes);
    job.admit(width, height, BYTES_A_PIXEL + orientation::bytes_to_turn(orientation))?;
    let mut reader = decoder.read_info().map_err(failed)?;
    let (colour, depth) = reader.output_color_type();
    let channels = match colour {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb | ColorType::Indexed => 3,
        ColorType::Rgba => 4,
    };
    let mut pixels = RgbImage::new(width, height);
    let stride = 3 * width as usize;
    let mut line = vec![0; stride];
    let mut next_line = 0;
    let mut rows_left = rows_of(width, height, is_interlaced);
    while rows_left > 0
        && let Some(row) = reader.next_interlaced_row().map_err(failed)?
    {
        // What follows the last row is not asked for: the end may be missing though all pixels are there.
        rows_left -= 1;
        let wide;
        let samples = row.data();
        let written = if depth == BitDepth::Sixteen {
            let pairs = samples.as_chunks::<2>().0;
            wide = pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect::<Vec<u16>>();
            row_to_rgb8(&wide, channels, &mut line)
        } else {
            row_to_rgb8(samples, channels, &mut line)
        };
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                let target = pixels.chunks_exact_mut(stride).nth(next_line);
                if let Some(target) = target {
                    target[..written].copy_from_slice(&line[..written]);
                }
                next_line += 1;
            }
            InterlaceInfo::Adam7(info) => {
                png::expand_interlaced_row(&mut pixels, stride, &line[..written], info, 24);
            }
        }
    }
    Ok(Stored::new(pixels, orientation))
}

/// How many rows are stored: of an interlaced image those of all seven passes.
fn rows_of(width: u32, height: u32, is_interlaced: bool) -> u64 {
    /// First column, first line, and every how many lines.
    const PASSES: [(u32, u32, u32); 7] =
        [(0, 0, 8), (4, 0, 8), (0, 4, 8), (2, 0, 4), (0, 2, 4), (1, 0, 2), (0, 1, 2)];
    if !is_interlaced {
        return height.into();
    }
    let passes = PASSES.iter().filter(|&&(left, top, _)| left < width && top < height);
    passes.map(|&(_, top, step)| u64::from((height - top).div_ceil(step))).sum()
}

fn failed(error: DecodingError) -> Failure {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Failure::Truncated("the file ends before its pixels do".into())
        }
        error => Failure::Damaged(error.to_string()),
    }
}
