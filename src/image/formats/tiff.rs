//! TIFF and BigTIFF: the tiff crate undoes strips, tiles and compression, which it is told are plain
//! samples; what the samples mean is said here and in [`tiff_samples`](super::tiff_samples).

use std::io::{Cursor, Read, Seek, SeekFrom};

use ::image::RgbImage;
use ::image::metadata::Orientation;
use ::tiff::TiffError;
use ::tiff::decoder::{Decoder, DecodingResult, Limits};
use ::tiff::tags::Tag;
use jpeg_decoder::ColorTransform;

use super::super::orientation;
use super::tiff_samples::{Meaning, Photometric};
use super::{Failure, Job, Stored, jpeg, raw};

const COMPRESSION_JPEG: u32 = 7;
const COMPRESSION_OLD_JPEG: u32 = 6;
/// In bytes: strips and tiles of the largest images, and palettes, need less.
const LONGEST_LIST: usize = 8 << 20;
const TAG_PHOTOMETRIC: u16 = 262;
const TAG_XMP: Tag = Tag::Unknown(700);

type Tiff<'a> = Decoder<AsPlainSamples<'a>>;

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let (patched, photometric) = AsPlainSamples::new(bytes);
    // A vendor's sensor data begin as a TIFF does, and often with a thumbnail.
    if raw::is_tiff_of_a_camera(bytes) {
        return raw::decode(bytes, job);
    }
    if photometric.is_none() {
        return Err(Failure::Unsupported(
            "TIFF that does not say how its colours are stored".into(),
        ));
    }
    let mut decoder = Decoder::new(patched).map_err(failed)?.with_limits(limits(bytes, job));
    let (width, height) = decoder.dimensions().map_err(failed)?;
    job.check_size(width, height)?;
    let orientation = orientation_of(&mut decoder);
    let compression = tag(&mut decoder, Tag::Compression, 1);
    if let Some(name) = unread_compression(compression) {
        return Err(Failure::Unsupported(format!("TIFF compressed as {name}")));
    }
    let meaning = Meaning::of(&mut decoder, photometric.unwrap_or(1))?;
    let (chunk_width, chunk_height) = decoder.chunk_dimensions();
    let chunk = u64::from(chunk_width) * u64::from(chunk_height.min(height.max(1)));
    let share = chunk.div_ceil(u64::from(width) * u64::from(height)).max(1);
    let of_chunk = meaning.bytes_a_pixel() * chunk / (u64::from(width) * u64::from(height)).max(1);
    let turning = orientation::bytes_to_turn(orientation);
    job.admit(width, height, share * 3 + of_chunk + 1 + turning)?;
    let pixels = match compression {
        COMPRESSION_OLD_JPEG => decode_old_jpeg(bytes, &mut decoder, (width, height))?,
        COMPRESSION_JPEG => decode_jpeg_chunks(bytes, &mut decoder, &meaning)?,
        _ => decode_chunks(&mut decoder, &meaning)?,
    };
    Ok(Stored::new(pixels, orientation))
}

/// What people call a compression that is not undone here.
fn unread_compression(number: u32) -> Option<&'static str> {
    Some(match number {
        2 => "CCITT Huffman codes",
        3 => "fax (CCITT Group 3)",
        32809 => "ThunderScan",
        33003 | 33005 | 34712 => "JPEG 2000",
        34661 => "JBIG",
        34676 | 34677 => "LogLuv",
        34887 => "LERC",
        34925 => "LZMA",
        50000 => "Zstandard",
        50001 => "WebP",
        50002 | 52546 => "JPEG XL",
        _ => return None,
    })
}

/// No list in a directory is longer than the file, whatever its count says.
fn limits(bytes: &[u8], job: &Job<'_>) -> Limits {
    let most = usize::try_from(job.limits.memory.total()).unwrap_or(usize::MAX);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most;
    limits.ifd_value_size = bytes.len().min(LONGEST_LIST);
    limits
}

fn orientation_of(decoder: &mut Tiff<'_>) -> Option<Orientation> {
    let tagged = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
    tagged.and_then(Orientation::from_exif).or_else(|| {
        let packet = decoder.find_tag_unsigned_vec::<u8>(TAG_XMP).ok().flatten()?;
        orientation::of_xmp(&packet)
    })
}

/// The first number of a tag: of those that have one for each sample, all are the same, or the tiff crate
/// refuses the file.
pub(super) fn tag(decoder: &mut Tiff<'_>, tag: Tag, default: u32) -> u32 {
    let numbers = decoder.find_tag_unsigned_vec::<u32>(tag).ok().flatten();
    numbers.and_then(|numbers| numbers.first().copied()).unwrap_or(default)
}

/// Where a strip or tile stands: its left and top, and its size within the image.
struct Place {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

fn places(decoder: &mut Tiff<'_>) -> Result<Vec<Place>, Failure> {
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let (chunk_width, chunk_height) = decoder.chunk_dimensions();
    if chunk_width == 0 || chunk_height == 0 {
        return Err(Failure::Damaged("strips or tiles without a size".into()));
    }
    let mut places = Vec::new();
    for top in (0..height).step_by(chunk_height as usize) {
        for left in (0..width).step_by(chunk_width as usize) {
            let (width, height) = (chunk_width.min(width - left), chunk_height.min(height - top));
            places.push(Place { left, top, width, height });
        }
    }
    Ok(places)
}

fn decode_chunks(decoder: &mut Tiff<'_>, meaning: &Meaning) -> Result<RgbImage, Failure> {
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let mut pixels = RgbImage::new(width, height);
    let places = places(decoder)?;
    let count = places.len() as u32;
    for (index, place) in (0..).zip(places) {
        let planes = if meaning.is_planar { u32::from(meaning.samples) } else { 1 };
        let chunks = (0..planes)
            .map(|plane| decoder.read_chunk(plane * count + index).map_err(failed))
            .collect::<Result<Vec<DecodingResult>, Failure>>()?;
        meaning.write(&chunks, place.width, place.height, |x, y, rgb| {
            pixels.put_pixel(place.left + x, place.top + y, rgb);
        })?;
    }
    Ok(pixels)
}

/// JPEG strips and tiles are JPEG files without their tables, and without a word about their colours.
fn decode_jpeg_chunks(
    bytes: &[u8],
    decoder: &mut Tiff<'_>,
    meaning: &Meaning,
) -> Result<RgbImage, Failure> {
    let transform = match (meaning.photometric, meaning.samples) {
        _ if meaning.is_planar => {
            return Err(Failure::Unsupported("TIFF of JPEG with a plane a colour".into()));
        }
        (Photometric::Ycbcr, 3) => ColorTransform::YCbCr,
        (Photometric::Rgb, 3) => ColorTransform::RGB,
        (Photometric::BlackIsZero, 1) => ColorTransform::Grayscale,
        (Photometric::Cmyk, 4) => ColorTransform::CMYK,
        (photometric, samples) => {
            let what = format!("TIFF of JPEG with {samples} samples of {photometric:?}");
            return Err(Failure::Unsupported(what));
        }
    };
    let tables = decoder.find_tag_unsigned_vec::<u8>(Tag::JPEGTables).ok().flatten();
    // Without their end marker, which stands in the middle now.
    let tables = tables
        .as_deref()
        .map_or(&[][..], |tables| tables.strip_suffix(&[0xFF, 0xD9]).unwrap_or(tables));
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let mut pixels = RgbImage::new(width, height);
    let ranges = chunk_ranges(decoder)?;
    let places = places(decoder)?;
    if ranges.len() < places.len() {
        return Err(Failure::Damaged("fewer strips or tiles than its size asks for".into()));
    }
    for (place, (start, length)) in places.into_iter().zip(ranges) {
        let end = start.saturating_add(length).min(bytes.len());
        let chunk = bytes.get(start..end).unwrap_or_default();
        let stream = match chunk.strip_prefix(&[0xFF, 0xD8]) {
            Some(rest) if tables.len() > 2 => [tables, rest].concat(),
            _ => chunk.to_vec(),
        };
        let image = jpeg::decode_part(&stream, transform)?;
        if image.width() < place.width || image.height() < place.height {
            return Err(Failure::Damaged("a JPEG in it is smaller than its strip or tile".into()));
        }
        for y in 0..place.height {
            for x in 0..place.width {
                pixels.put_pixel(place.left + x, place.top + y, *image.get_pixel(x, y));
            }
        }
    }
    Ok(pixels)
}

/// JPEG as TIFF 6.0 first had it: most writers put a whole file in.
fn decode_old_jpeg(
    bytes: &[u8],
    decoder: &mut Tiff<'_>,
    size: (u32, u32),
) -> Result<RgbImage, Failure> {
    let start = tag(decoder, Tag::Unknown(513), 0) as usize;
    let strips = chunk_ranges(decoder).unwrap_or_default();
    let starts = [start].into_iter().chain(strips.first().map(|strip| strip.0));
    let mut streams = starts.filter_map(|start| bytes.get(start..));
    let stream = streams
        .find(|stream| stream.starts_with(&[0xFF, 0xD8]) && jpeg::size_of(stream) == Some(size));
    let stream = stream.ok_or_else(|| {
        Failure::Unsupported("TIFF of old-style JPEG without a whole JPEG in it".into())
    })?;
    let limits = super::super::decode::DecodeLimits {
        max_pixels: u64::MAX,
        memory: super::super::MemoryBudget::of_bytes(u64::MAX),
        enough: None,
    };
    // Its memory is counted already.
    Ok(jpeg::decode(stream, &mut Job::new(&limits, 0))?.pixels)
}

fn chunk_ranges(decoder: &mut Tiff<'_>) -> Result<Vec<(usize, usize)>, Failure> {
    let mut both = |strips: Tag, tiles: Tag| {
        let found = decoder.find_tag_unsigned_vec::<u64>(strips).map_err(failed)?;
        let found = match found {
            Some(found) => Some(found),
            None => decoder.find_tag_unsigned_vec::<u64>(tiles).map_err(failed)?,
        };
        found.ok_or_else(|| Failure::Damaged("it does not say where its pixels are".into()))
    };
    let starts = both(Tag::StripOffsets, Tag::TileOffsets)?;
    let lengths = both(Tag::StripByteCounts, Tag::TileByteCounts)?;
    let in_memory = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(starts.into_iter().map(in_memory).zip(lengths.into_iter().map(in_memory)).collect())
}

pub(super) fn failed(error: TiffError) -> Failure {
    match error {
        TiffError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Failure::Truncated("the file ends before its pixels do".into())
        }
        TiffError::UnsupportedError(error) => Failure::Unsupported(format!("TIFF ({error})")),
        error => Failure::Damaged(error.to_string()),
    }
}

/// The file, with another photometric interpretation in its first directory: the tiff crate reads plain
/// grey samples of any number and width, and refuses palettes and much else.
pub(super) struct AsPlainSamples<'a> {
    bytes: Cursor<&'a [u8]>,
    /// Where the two bytes stand that are replaced, and by what.
    patch: Option<(u64, [u8; 2])>,
}

impl<'a> AsPlainSamples<'a> {
    /// The reader, and the photometric interpretation that is really there.
    fn new(bytes: &'a [u8]) -> (Self, Option<u16>) {
        let place = Directory::first(bytes).and_then(|first| first.value_at(TAG_PHOTOMETRIC));
        let found = place.and_then(|(at, is_big)| {
            let value = *bytes.get(at..)?.first_chunk::<2>()?;
            let read = if is_big { u16::from_be_bytes } else { u16::from_le_bytes };
            let grey = if is_big { [0, 1] } else { [1, 0] };
            Some((read(value), (at as u64, grey)))
        });
        let patch = found.map(|(_, patch)| patch);
        (Self { bytes: Cursor::new(bytes), patch }, found.map(|(value, _)| value))
    }
}

impl Read for AsPlainSamples<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let start = self.bytes.position();
        let count = self.bytes.read(buffer)?;
        if let Some((at, value)) = self.patch {
            for (at, value) in (at..).zip(value) {
                if (start..start + count as u64).contains(&at) {
                    buffer[(at - start) as usize] = value;
                }
            }
        }
        Ok(count)
    }
}

impl Seek for AsPlainSamples<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// One directory of a TIFF, as far as this module must look into it before the tiff crate does.
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    is_big_tiff: bool,
    first_entry: usize,
    count: usize,
}

impl<'a> Directory<'a> {
    /// Of any file that begins as TIFF does; vendors put other numbers where 42 stands.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let is_big_endian = bytes.starts_with(b"MM");
        let is_big_tiff = matches!(bytes.get(..4)?, b"II\x2B\0" | b"MM\0\x2B");
        let directory = Self { bytes, is_big_endian, is_big_tiff, first_entry: 0, count: 0 };
        let at =
            directory.number(if is_big_tiff { 8 } else { 4 }, if is_big_tiff { 8 } else { 4 })?;
        directory.go_to(at)
    }

    /// Another one of the same file.
    pub(super) fn at(&self, at: u64) -> Option<Self> {
        let (bytes, is_big_endian, is_big_tiff) =
            (self.bytes, self.is_big_endian, self.is_big_tiff);
        Self { bytes, is_big_endian, is_big_tiff, first_entry: 0, count: 0 }.go_to(at)
    }

    fn go_to(mut self, at: u64) -> Option<Self> {
        let at = usize::try_from(at).ok()?;
        let width = if self.is_big_tiff { 8 } else { 2 };
        self.count = usize::try_from(self.number(at, width)?).ok()?.min(4096);
        self.first_entry = at.checked_add(width)?;
        Some(self)
    }

    fn number(&self, at: usize, width: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(width)?)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(if self.is_big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }

    /// Where the value of a tag, or its offset, stands, and whether numbers are big-endian.
    fn value_at(&self, tag: u16) -> Option<(usize, bool)> {
        let (size, value) = if self.is_big_tiff { (20, 12) } else { (12, 8) };
        let mut entries = (0..self.count).map(|index| self.first_entry + index * size);
        let entry = entries.find(|&at| self.number(at, 2) == Some(u64::from(tag)))?;
        Some((entry + value, self.is_big_endian))
    }

    /// The first number of a tag that holds 16- or 32-bit numbers.
    pub(super) fn value(&self, tag: u16) -> Option<u64> {
        let (at, _) = self.value_at(tag)?;
        let (kind, count) = if self.is_big_tiff {
            (self.number(at - 10, 2)?, self.number(at - 8, 8)?)
        } else {
            (self.number(at - 6, 2)?, self.number(at - 4, 4)?)
        };
        let width = match kind {
            1 | 2 | 6 | 7 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            _ => return None,
        };
        let inline = if self.is_big_tiff { 8 } else { 4 };
        let place = if count.saturating_mul(width as u64) > inline as u64 {
            usize::try_from(self.number(at, inline)?).ok()?
        } else {
            at
        };
        self.number(place, width)
    }

    pub(super) fn has(&self, tag: u16) -> bool {
        self.value_at(tag).is_some()
    }
}
