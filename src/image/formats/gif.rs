//! GIF: the first frame on its canvas, line by line.

use std::io::Cursor;

use ::image::{Rgb, RgbImage};
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::{Failure, Job, Stored};

const WHITE: Rgb<u8> = Rgb([255; 3]);

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    job.admit(width, height, 3)?;
    let none = || Failure::Truncated("it has no frame".into());
    let frame = decoder.next_frame_info().map_err(failed)?.ok_or_else(none)?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let lines = u32::from(frame.height);
    let (transparent, interlaced) = (frame.transparent, frame.interlaced);
    let palette = decoder.palette().map_err(failed)?.to_vec();
    let colours = palette.as_chunks::<3>().0;
    let mut pixels = RgbImage::from_pixel(width, height, WHITE);
    let mut line = vec![0; decoder.line_length()];
    for y in line_order(lines, interlaced) {
        if !decoder.fill_buffer(&mut line).map_err(failed)? && !line.is_empty() {
            let reason = "its pixels stop before the frame is full";
            return Err(Failure::Truncated(reason.into()));
        }
        for (x, &index) in (left..width).zip(&line) {
            if Some(index) != transparent && top + y < height {
                // As browsers do: an index beyond the palette is black.
                let colour = colours.get(usize::from(index)).copied().unwrap_or_default();
                pixels.put_pixel(x, top + y, Rgb(colour));
            }
        }
    }
    Ok(Stored::new(pixels, None))
}

/// The lines in the order in which they are stored.
fn line_order(lines: u32, interlaced: bool) -> Vec<u32> {
    if !interlaced {
        return (0..lines).collect();
    }
    let passes = [(0, 8), (4, 8), (2, 4), (1, 2)];
    passes.into_iter().flat_map(|(first, step)| (first..lines).step_by(step)).collect()
}

fn failed(error: DecodingError) -> Failure {
    Failure::Damaged(error.to_string())
}
