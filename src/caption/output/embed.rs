//! XMP packets within photos: JPEG's APP1 segment, PNG's `iTXt` chunk `XML:com.adobe.xmp`, WebP's chunk `XMP `
//! (ISO 16684-3). Only the packet is replaced or put in: every other byte stays, and so does every pixel. Knows
//! containers, and not what packets say.

use std::io::Read;
use std::ops::Range;

use flate2::Crc;
use flate2::read::ZlibDecoder;

const JPEG_XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const JPEG_EXTENDED: &[u8] = b"http://ns.adobe.com/xmp/extension/\0";
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const PNG_KEYWORD: &[u8] = b"XML:com.adobe.xmp\0";
/// The most bytes of a packet that is compressed.
const MAX_PACKET: u64 = 16 << 20;
/// What a JPEG's segment can hold beside its own length and the name of XMP.
const JPEG_ROOM: usize = 65_533 - JPEG_XMP.len();

/// Why a photo is not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EmbedError {
    /// It is of another format.
    #[error("neither JPEG, PNG nor WebP: its format takes no caption into it here")]
    Format,
    /// It ends too soon.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// There is more than one packet.
    #[error("it holds two XMP packets; expected one")]
    TwoPackets,
    /// A packet that cannot be decompressed.
    #[error("its XMP cannot be decompressed")]
    Compressed,
    /// A packet that has no room.
    #[error("its XMP would have {length} bytes; a segment of a JPEG holds {JPEG_ROOM}")]
    TooLong {
        /// Bytes of the packet.
        length: usize,
    },
    /// A second photo behind the first, which is found by its distance from a place before the packet.
    #[error(
        "its XMP lies behind an index of further images in the file, which would no longer find them"
    )]
    Indexed,
}

/// The XMP of a photo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    /// The packet.
    pub main: Option<Vec<u8>>,
    /// What did not fit into it (extended XMP, JPEG only).
    pub extended: Option<Vec<u8>>,
}

/// The XMP of a photo.
pub(crate) fn packets(photo: &[u8]) -> Result<Packets, EmbedError> {
    let layout = Layout::of(photo)?;
    let main = layout.packet.as_ref().map(|packet| packet.content(photo)).transpose()?;
    Ok(Packets { main, extended: layout.extended(photo) })
}

/// The photo with another packet.
pub(crate) fn with_packet(photo: &[u8], packet: &str) -> Result<Vec<u8>, EmbedError> {
    let layout = Layout::of(photo)?;
    match layout.format {
        Format::Jpeg => jpeg_with(photo, &layout, packet),
        Format::Png => Ok(png_with(photo, &layout, packet)),
        Format::Webp => webp_with(photo, &layout, packet),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    Webp,
}

/// Where what is in a photo.
struct Layout {
    format: Format,
    /// The segment or chunk with the packet.
    packet: Option<Part>,
    /// Where a new one goes.
    site: usize,
    /// JPEG: parts of extended XMP.
    extended: Vec<Range<usize>>,
    /// JPEG: where an index of further images (MPF) is.
    index: Option<usize>,
    /// WebP: the first chunk, and the end of all.
    webp: Option<(Range<usize>, usize)>,
}

/// A segment or chunk.
struct Part {
    whole: Range<usize>,
    packet: Range<usize>,
    is_compressed: bool,
}

impl Part {
    fn content(&self, photo: &[u8]) -> Result<Vec<u8>, EmbedError> {
        let bytes = &photo[self.packet.clone()];
        if !self.is_compressed {
            return Ok(bytes.to_vec());
        }
        let mut content = Vec::new();
        let read = ZlibDecoder::new(bytes).take(MAX_PACKET).read_to_end(&mut content);
        match read {
            Ok(_) if (content.len() as u64) < MAX_PACKET => Ok(content),
            _ => Err(EmbedError::Compressed),
        }
    }
}

impl Layout {
    fn new(format: Format, site: usize) -> Self {
        let (packet, extended, index, webp) = (None, Vec::new(), None, None);
        Self { format, packet, site, extended, index, webp }
    }

    fn of(photo: &[u8]) -> Result<Self, EmbedError> {
        if photo.starts_with(b"\xFF\xD8\xFF") {
            Self::of_jpeg(photo)
        } else if photo.starts_with(PNG_SIGNATURE) {
            Self::of_png(photo)
        } else if photo.starts_with(b"RIFF") && photo.get(8..12) == Some(b"WEBP") {
            Self::of_webp(photo)
        } else {
            Err(EmbedError::Format)
        }
    }

    fn take(&mut self, part: Part) -> Result<(), EmbedError> {
        if self.packet.is_some() {
            return Err(EmbedError::TwoPackets);
        }
        self.packet = Some(part);
        Ok(())
    }

    fn of_jpeg(photo: &[u8]) -> Result<Self, EmbedError> {
        const CUT: EmbedError = EmbedError::Damaged("its headers are cut short");
        let (mut layout, mut at) = (Self::new(Format::Jpeg, 2), 2);
        let mut leads = true;
        loop {
            let start = at;
            if *photo.get(at).ok_or(CUT)? != 0xFF {
                return Err(EmbedError::Damaged("its headers do not follow one another"));
            }
            // Any number of fill bytes may stand before a marker.
            while *photo.get(at).ok_or(CUT)? == 0xFF {
                at += 1;
            }
            let marker = photo[at];
            at += 1;
            match marker {
                // The scan, or the end.
                0xDA | 0xD9 => return Ok(layout),
                0x01 | 0xD0..=0xD7 => continue,
                _ => {}
            }
            let length = photo.get(at..at + 2).ok_or(CUT)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            if length < 2 {
                return Err(EmbedError::Damaged("a segment of no length"));
            }
            let content = photo.get(at + 2..at + length).ok_or(CUT)?;
            let (content_at, end) = (at + 2, at + length);
            let is_exif = marker == 0xE1 && content.starts_with(b"Exif\0");
            leads = leads && (marker == 0xE0 || is_exif);
            if leads {
                layout.site = end;
            }
            if marker == 0xE1 && content.starts_with(JPEG_XMP) {
                let packet = content_at + JPEG_XMP.len()..end;
                layout.take(Part { whole: start..end, packet, is_compressed: false })?;
            } else if marker == 0xE1 && content.starts_with(JPEG_EXTENDED) {
                layout.extended.push(content_at + JPEG_EXTENDED.len()..end);
            } else if marker == 0xE2 && content.starts_with(b"MPF\0") {
                layout.index = layout.index.or(Some(start));
            }
            at = end;
        }
    }

    /// Parts of extended XMP, put together: each has a digest of 32 bytes, the length of all, its offset.
    fn extended(&self, photo: &[u8]) -> Option<Vec<u8>> {
        let mut parts: Vec<(u32, &[u8])> = Vec::new();
        for range in &self.extended {
            let part = &photo[range.clone()];
            let offset = part.get(36..40)?;
            let offset = u32::from_be_bytes([offset[0], offset[1], offset[2], offset[3]]);
            parts.push((offset, &part[40..]));
        }
        parts.sort_by_key(|(offset, _)| *offset);
        let all: Vec<u8> = parts.iter().flat_map(|(_, part)| part.iter().copied()).collect();
        (!parts.is_empty()).then_some(all)
    }

    fn of_png(photo: &[u8]) -> Result<Self, EmbedError> {
        let mut layout = Self::new(Format::Png, PNG_SIGNATURE.len());
        let mut at = PNG_SIGNATURE.len();
        while let Some(head) = photo.get(at..at + 8) {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let kind = &head[4..8];
            let end = at + 12 + length;
            let Some(content) = photo.get(at + 8..at + 8 + length).filter(|_| end <= photo.len())
            else {
                return Err(EmbedError::Damaged("a chunk is cut short"));
            };
            if kind == b"IHDR" {
                layout.site = end;
            }
            if kind == b"iTXt" && content.starts_with(PNG_KEYWORD) {
                let rest = &content[PNG_KEYWORD.len()..];
                let is_compressed = rest.first() == Some(&1);
                // Flag, method, language, NUL, translated keyword, NUL.
                let texts = rest.get(2..).unwrap_or_default();
                let mut ends = texts.iter().enumerate().filter(|(_, byte)| **byte == 0);
                let Some((text, _)) = ends.nth(1) else {
                    return Err(EmbedError::Damaged("its XMP has no text"));
                };
                let packet = at + 8 + PNG_KEYWORD.len() + 2 + text + 1..at + 8 + length;
                layout.take(Part { whole: at..end, packet, is_compressed })?;
            }
            at = end;
            if kind == b"IEND" {
                return Ok(layout);
            }
        }
        Err(EmbedError::Damaged("it has no end"))
    }

    fn of_webp(photo: &[u8]) -> Result<Self, EmbedError> {
        const CUT: EmbedError = EmbedError::Damaged("a chunk is cut short");
        let number = |at: usize| {
            let bytes = photo.get(at..at + 4).ok_or(CUT)?;
            Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        };
        let end = number(4)? + 8;
        if end > photo.len() {
            return Err(CUT);
        }
        let mut layout = Self::new(Format::Webp, end);
        let mut at = 12;
        while at + 8 <= end {
            let length = number(at + 4)?;
            if at + 8 + length > end {
                return Err(CUT);
            }
            // Chunks have even lengths; the last one may have lost what makes it so.
            let whole = at..(at + 8 + length + length % 2).min(end);
            let content = at + 8..at + 8 + length;
            if layout.webp.is_none() {
                layout.webp = Some((content.clone(), end));
            }
            if &photo[at..at + 4] == b"XMP " {
                let is_compressed = false;
                layout.take(Part { whole: whole.clone(), packet: content, is_compressed })?;
            }
            at = whole.end;
        }
        if layout.webp.is_none() { Err(CUT) } else { Ok(layout) }
    }
}

/// The photo with `new` in place of a part of it.
fn spliced(photo: &[u8], old: Range<usize>, new: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(photo.len() + new.len());
    all.extend_from_slice(&photo[..old.start]);
    all.extend_from_slice(new);
    all.extend_from_slice(&photo[old.end..]);
    all
}

/// Where the packet is, or goes.
fn place(layout: &Layout) -> Range<usize> {
    layout.packet.as_ref().map_or(layout.site..layout.site, |part| part.whole.clone())
}

fn jpeg_with(photo: &[u8], layout: &Layout, packet: &str) -> Result<Vec<u8>, EmbedError> {
    let place = place(layout);
    let mut packet = packet.to_owned();
    if layout.index.is_some_and(|index| index < place.start) {
        // Nothing behind it may move: the blanks that packets end with make up for it.
        let room = layout.packet.as_ref().map_or(0, |part| part.packet.len());
        packet = padded_to(&packet, room).ok_or(EmbedError::Indexed)?;
    } else if packet.len() > JPEG_ROOM {
        packet = without_padding(&packet);
    }
    let length = packet.len();
    if length > JPEG_ROOM {
        return Err(EmbedError::TooLong { length });
    }
    let length = u16::try_from(2 + JPEG_XMP.len() + length);
    let length = length.map_err(|_| EmbedError::TooLong { length: packet.len() })?;
    let mut segment = vec![0xFF, 0xE1];
    segment.extend_from_slice(&length.to_be_bytes());
    segment.extend_from_slice(JPEG_XMP);
    segment.extend_from_slice(packet.as_bytes());
    Ok(spliced(photo, place, &segment))
}

/// The blanks before `<?xpacket end`, which are there to be used up.
fn padding(packet: &str) -> Option<Range<usize>> {
    let end = packet.rfind("<?xpacket end")?;
    let start = packet[..end].trim_end_matches([' ', '\t', '\r', '\n']).len();
    Some(start..end)
}

fn without_padding(packet: &str) -> String {
    match padding(packet) {
        Some(blanks) => format!("{}\n{}", &packet[..blanks.start], &packet[blanks.end..]),
        None => packet.to_owned(),
    }
}

fn padded_to(packet: &str, room: usize) -> Option<String> {
    let blanks = padding(packet)?;
    let (before, after) = (&packet[..blanks.start], &packet[blanks.end..]);
    let missing = room.checked_sub(before.len() + after.len())?;
    Some(format!("{before}{}{after}", " ".repeat(missing)))
}

fn png_with(photo: &[u8], layout: &Layout, packet: &str) -> Vec<u8> {
    let mut body = b"iTXt".to_vec();
    body.extend_from_slice(PNG_KEYWORD);
    // Not compressed; no language, no translated keyword.
    body.extend_from_slice(&[0, 0, 0, 0]);
    body.extend_from_slice(packet.as_bytes());
    let mut crc = Crc::new();
    crc.update(&body);
    let length = u32::try_from(body.len() - 4).unwrap_or(u32::MAX);
    let mut chunk = length.to_be_bytes().to_vec();
    chunk.extend_from_slice(&body);
    chunk.extend_from_slice(&crc.sum().to_be_bytes());
    spliced(photo, place(layout), &chunk)
}

fn webp_with(photo: &[u8], layout: &Layout, packet: &str) -> Result<Vec<u8>, EmbedError> {
    const XMP_FLAG: u8 = 0x04;
    let Some((first, end)) = &layout.webp else {
        return Err(EmbedError::Damaged("no chunk"));
    };
    let mut chunk = b"XMP ".to_vec();
    let length = u32::try_from(packet.len()).map_err(|_| EmbedError::Damaged("too long"))?;
    chunk.extend_from_slice(&length.to_le_bytes());
    chunk.extend_from_slice(packet.as_bytes());
    if packet.len() % 2 == 1 {
        chunk.push(0);
    }
    let place = place(layout);
    if place.start == *end && end % 2 == 1 {
        // The chunk before it lacks the byte that makes it even.
        chunk.insert(0, 0);
    }
    let grown = chunk.len();
    let mut new = spliced(photo, place.clone(), &chunk);
    let mut length = end - 8 + grown - place.len();
    match &photo[first.start - 8..first.start - 4] {
        b"VP8X" => {
            let flags = new.get_mut(first.start);
            *flags.ok_or(EmbedError::Damaged("its first chunk is cut short"))? |= XMP_FLAG;
        }
        kind => {
            let header = extended_header(kind, &photo[first.clone()])?;
            length += header.len();
            new = spliced(&new, 12..12, &header);
        }
    }
    let length = u32::try_from(length).map_err(|_| EmbedError::Damaged("too long"))?;
    new[4..8].copy_from_slice(&length.to_le_bytes());
    Ok(new)
}

/// The chunk that a WebP with metadata begins with; one without has none.
fn extended_header(kind: &[u8], content: &[u8]) -> Result<Vec<u8>, EmbedError> {
    const UNKNOWN: EmbedError = EmbedError::Damaged("its first chunk is no image");
    let number = |at: usize| {
        let bytes = content.get(at..at + 2).ok_or(UNKNOWN)?;
        Ok(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    };
    let (width, height, has_alpha) = match kind {
        b"VP8 " if content.get(3..6) == Some(b"\x9d\x01\x2a") => {
            (number(6)? & 0x3FFF, number(8)? & 0x3FFF, false)
        }
        b"VP8L" if content.first() == Some(&0x2F) => {
            let bits = number(1)? | (number(3)? << 16);
            ((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1, bits >> 28 & 1 == 1)
        }
        _ => return Err(UNKNOWN),
    };
    let mut header = b"VP8X\x0A\0\0\0".to_vec();
    header.extend_from_slice(&[if has_alpha { 0x14 } else { 0x04 }, 0, 0, 0]);
    for side in [width, height] {
        let side = side.checked_sub(1).ok_or(UNKNOWN)?;
        header.extend_from_slice(&side.to_le_bytes()[..3]);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, marker], &length[..], content].concat()
    }

    fn jpeg(segments: &[Vec<u8>]) -> Vec<u8> {
        [b"\xFF\xD8".to_vec(), segments.concat(), b"\xFF\xDA\0\x02scan\xFF\xD9trailer".to_vec()]
            .concat()
    }

    fn xmp(packet: &str) -> Vec<u8> {
        segment(0xE1, &[JPEG_XMP, packet.as_bytes()].concat())
    }

    #[test]
    fn a_jpeg_gets_its_packet_behind_exif_and_keeps_all_else() {
        let (jfif, exif) = (segment(0xE0, b"JFIF\0"), segment(0xE1, b"Exif\0\0MM"));
        let (icc, mpf) = (segment(0xE2, b"ICC_PROFILE\0"), segment(0xE2, b"MPF\0II"));
        let bare = jpeg(&[jfif.clone(), exif.clone(), icc.clone(), mpf.clone()]);
        let new = with_packet(&bare, "<x/>").unwrap();
        assert_eq!(new, jpeg(&[jfif.clone(), exif.clone(), xmp("<x/>"), icc.clone(), mpf.clone()]));
        assert_eq!(packets(&new).unwrap().main.as_deref(), Some(&b"<x/>"[..]));
        let other = with_packet(&new, "<other/>").unwrap();
        assert_eq!(other, jpeg(&[jfif, exif, xmp("<other/>"), icc, mpf.clone()]));
        // Fill bytes are bytes too.
        let filled = [b"\xFF\xD8\xFF\xFF".to_vec(), jpeg(&[])[2..].to_vec()].concat();
        assert_eq!(with_packet(&filled, "").unwrap().len(), filled.len() + 4 + JPEG_XMP.len());
        // Behind an index of further images nothing moves.
        let indexed = jpeg(&[mpf.clone(), xmp("<a/>       <?xpacket end='w'?>")]);
        let new = with_packet(&indexed, "<abc/><?xpacket end='w'?>").unwrap();
        assert_eq!(new, jpeg(&[mpf, xmp("<abc/>     <?xpacket end='w'?>")]));
        assert_eq!(
            with_packet(&indexed, "<longer than that/><?xpacket end='w'?>"),
            Err(EmbedError::Indexed)
        );
        let two = jpeg(&[xmp("<a/>"), xmp("<b/>")]);
        assert_eq!(with_packet(&two, ""), Err(EmbedError::TwoPackets));
        let long = format!("<a>{}</a>{}<?xpacket end='w'?>", "x".repeat(65_000), " ".repeat(4000));
        let new = with_packet(&bare, &long).unwrap();
        assert!(packets(&new).unwrap().main.unwrap().len() < JPEG_ROOM);
        let length = 70_000;
        let error = with_packet(&bare, &"x".repeat(length));
        assert_eq!(error, Err(EmbedError::TooLong { length }));
        for end in 3..bare.len() - b"scan\xFF\xD9trailer".len() - 4 {
            assert!(with_packet(&bare[..end], "").is_err(), "{end}");
        }
        assert_eq!(with_packet(b"GIF89a", ""), Err(EmbedError::Format));
    }

    #[test]
    fn extended_xmp_is_put_together() {
        let part = |offset: u32, text: &str| {
            let head = [JPEG_EXTENDED, &[b'0'; 32], &6_u32.to_be_bytes(), &offset.to_be_bytes()];
            segment(0xE1, &[head.concat(), text.as_bytes().to_vec()].concat())
        };
        let photo = jpeg(&[xmp("<x/>"), part(3, "def"), part(0, "abc")]);
        assert_eq!(packets(&photo).unwrap().extended.as_deref(), Some(&b"abcdef"[..]));
    }

    #[test]
    fn what_the_image_library_writes_it_reads_again() {
        use ::image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
        let mut pixels =
            RgbaImage::from_fn(31, 17, |x, y| Rgba([x as u8 * 8, y as u8 * 15, 3, 255]));
        for alpha in [255, 100] {
            pixels.put_pixel(0, 0, Rgba([1, 2, 3, alpha]));
            for format in [ImageFormat::Png, ImageFormat::WebP] {
                let mut photo = std::io::Cursor::new(Vec::new());
                DynamicImage::from(pixels.clone()).write_to(&mut photo, format).unwrap();
                let mut photo = photo.into_inner();
                photo.extend_from_slice(if format == ImageFormat::Png { b"trailer" } else { b"" });
                let mut new = photo.clone();
                for packet in ["<odd/>!", "<even/>!", "<longer than before/>"] {
                    new = with_packet(&new, packet).unwrap();
                    assert_eq!(packets(&new).unwrap().main.as_deref(), Some(packet.as_bytes()));
                    let read = ::image::load_from_memory_with_format(&new, format).unwrap();
                    assert_eq!(read.to_rgba8(), pixels);
                    assert_eq!(read.width(), 31);
                }
                for end in 0..photo.len().saturating_sub(12) {
                    let _ = with_packet(&photo[..end], "<x/>");
                }
            }
        }
    }
}
