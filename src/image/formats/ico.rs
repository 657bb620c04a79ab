//! ICO and CUR: of the pictures in one, the largest. A picture is a PNG, or a BMP without its file header whose
//! second half says, a bit a pixel, what is transparent.

use ::image::{ImageFormat, Rgb};

use super::other::with_image_crate;
use super::{Failure, Job, Stored, png};

const DIRECTORY: usize = 6;
const ENTRY: usize = 16;
const FILE_HEADER: usize = 14;
const WHITE: Rgb<u8> = Rgb([255; 3]);
const PNG_BEGINNING: [u8; 4] = [0x89, b'P', b'N', b'G'];

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let picture = largest(bytes)?;
    if picture.starts_with(&PNG_BEGINNING) {
        return png::decode(picture, job);
    }
    let header = Header::of(picture)
        .ok_or_else(|| Failure::Damaged("its picture is neither a PNG nor a BMP".into()))?;
    let mut stored = with_image_crate(ImageFormat::Bmp, &header.as_bmp_file(picture), None, job)?;
    if let Some(mask) = header.mask(picture) {
        for (y, line) in mask.chunks_exact(header.mask_stride()).enumerate() {
            for (x, byte) in (0..header.width).map(|x| (x, line[x as usize / 8])) {
                // From the bottom up, as the pixels are.
                let y = header.height - 1 - y as u32;
                if byte >> (7 - x % 8) & 1 == 1 && x < stored.pixels.width() {
                    stored.pixels.put_pixel(x, y, WHITE);
                }
            }
        }
    }
    Ok(stored)
}

/// The bytes of the largest picture, of those of one size the one with the most colours.
fn largest(bytes: &[u8]) -> Result<&[u8], Failure> {
    let count = bytes.get(4..6).map_or(0, |count| u16::from_le_bytes([count[0], count[1]]));
    let entries = bytes.get(DIRECTORY..).unwrap_or_default().chunks_exact(ENTRY);
    let is_cursor = bytes.get(2) == Some(&2);
    let side = |byte: u8| if byte == 0 { 256 } else { u32::from(byte) };
    let rank = |entry: &&[u8]| {
        // A cursor has its hot spot where an icon has its bits a pixel.
        let bits = if is_cursor { 0 } else { u16::from_le_bytes([entry[6], entry[7]]) };
        (side(entry[0]) * side(entry[1]), bits)
    };
    let entry = entries.take(count.into()).max_by_key(rank);
    let entry = entry.ok_or_else(|| Failure::Truncated("it holds no picture".into()))?;
    let number = |at: usize| {
        u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) as usize
    };
    let (length, start) = (number(8), number(12));
    let end = start.saturating_add(length).min(bytes.len());
    match bytes.get(start..end) {
        Some(picture) if !picture.is_empty() => Ok(picture),
        _ => Err(Failure::Truncated("the file ends before its picture does".into())),
    }
}

/// What the BMP header says.
struct Header {
    size: usize,
    width: u32,
    /// Of the pixels alone.
    height: u32,
    bits: u32,
    /// Bytes of the palette or the masks of colours between header and pixels.
    between: usize,
}

impl Header {
    fn of(picture: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = picture.get(at..at + 4)?;
            Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let size = number(0)? as usize;
        let (width, doubled) = (number(4)?, number(8)?);
        let bits = number(12)? >> 16;
        let (compression, colours) = (number(16)?, number(32)?);
        let is_known = (40..=124).contains(&size) && matches!(bits, 1 | 4 | 8 | 16 | 24 | 32);
        let is_sized = (1..=65535).contains(&width) && (2..=131_070).contains(&doubled);
        if !is_known || !is_sized || colours > 256 {
            return None;
        }
        let between = match (bits, compression) {
            (1 | 4 | 8, _) => 4 * if colours == 0 { 1 << bits } else { colours as usize },
            (_, 3) if size == 40 => 12,
            _ => 0,
        };
        Some(Self { size, width, height: doubled / 2, bits, between })
    }

    fn stride(&self) -> usize {
        (self.width as usize * self.bits as usize).div_ceil(32) * 4
    }

    fn mask_stride(&self) -> usize {
        (self.width as usize).div_ceil(32) * 4
    }

    /// The picture as a BMP file: a file header before it, the height that of the pixels.
    fn as_bmp_file(&self, picture: &[u8]) -> Vec<u8> {
        let pixels = FILE_HEADER + self.size + self.between;
        let mut file = Vec::with_capacity(FILE_HEADER + picture.len());
        file.extend(b"BM");
        file.extend(u32::try_from(FILE_HEADER + picture.len()).unwrap_or(u32::MAX).to_le_bytes());
        file.extend([0; 4]);
        file.extend((pixels as u32).to_le_bytes());
        file.extend(picture);
        file[FILE_HEADER + 8..FILE_HEADER + 12].copy_from_slice(&self.height.to_le_bytes());
        file
    }

    /// The lines of bits that hide pixels. A picture with an alpha channel in use does without.
    fn mask<'a>(&self, picture: &'a [u8]) -> Option<&'a [u8]> {
        let start = self.size + self.between;
        let end = start.checked_add(self.stride().checked_mul(self.height as usize)?)?;
        let pixels = picture.get(start..end)?;
        if self.bits == 32 && pixels.chunks_exact(4).any(|pixel| pixel[3] != 0) {
            return None;
        }
        picture.get(end..end + self.mask_stride().checked_mul(self.height as usize)?)
    }
}
