//! GIF: the first frame on its canvas.

use std::io::Cursor;

use ::image::{Rgb, RgbImage};
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::{Failure, Job, Stored};

const WHITE: Rgb<u8> = Rgb([255; 3]);

/// Of the canvas; and of the frame, whose pixels are numbers of colours.
const CANVAS_BYTES: u64 = 3;
const FRAME_BYTES: u64 = 1;

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    job.check_size(width, height)?;
    let none = || Failure::Truncated("it has no frame".into());
    let frame = decoder.next_frame_info().map_err(failed)?.ok_or_else(none)?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (columns, lines) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    job.check_size(columns, lines)?;
    let larger = if columns * lines > width * height { (columns, lines) } else { (width, height) };
    job.admit(larger.0, larger.1, CANVAS_BYTES + FRAME_BYTES)?;
    let palette = decoder.palette().map_err(failed)?.to_vec();
    let colours = palette.as_chunks::<3>().0;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;
    let mut pixels = RgbImage::from_pixel(width, height, WHITE);
    for (y, line) in (top..height).zip(indices.chunks_exact(columns as usize)) {
        for (x, &index) in (left..width).zip(line) {
            if Some(index) != transparent {
                // As browsers do: an index beyond the palette is black.
                let colour = colours.get(usize::from(index)).copied().unwrap_or_default();
                pixels.put_pixel(x, y, Rgb(colour));
            }
        }
    }
    Ok(Stored::new(pixels, None))
}

fn failed(error: DecodingError) -> Failure {
    Failure::Damaged(error.to_string())
}
