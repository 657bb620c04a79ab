//! Which way up an image is, from the places where programs write it: EXIF and XMP, in each container.

use std::io::Read;

use ::image::metadata::Orientation;
use flate2::read::ZlibDecoder;

/// The tag of the orientation, and the types that its number may have.
const TAG: u16 = 274;
const SHORT: u16 = 3;
const LONG: u16 = 4;

/// No text about an image is as long; what inflates to more is no such text.
const LONGEST_TEXT: u64 = 4 << 20;

/// Bytes a pixel that turning an 8-bit RGB image takes beside it: mirroring needs none.
pub(super) fn bytes_to_turn(orientation: Option<Orientation>) -> u64 {
    match orientation {
        Some(
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH,
        ) => 3,
        _ => 0,
    }
}

/// From EXIF: a TIFF directory, with or without the `Exif\0\0` that JPEG puts before it and that many
/// programs put before it elsewhere too.
pub(super) fn of_exif(exif: &[u8]) -> Option<Orientation> {
    let exif = exif.strip_prefix(b"Exif\0").and_then(|rest| rest.get(1..)).unwrap_or(exif);
    let is_big_endian = match exif.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<2>()?;
        Some(if is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<4>()?;
        Some(if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let count = usize::from(short(directory)?);
    let entries = (0..count).map(|index| directory.saturating_add(2 + 12 * index));
    let entry = entries.take_while(|&entry| entry < exif.len()).find(|&e| short(e) == Some(TAG))?;
    let value = match short(entry + 2)? {
        SHORT => short(entry + 8)?.into(),
        // Some programs write it so, and Pillow turns by it.
        LONG => long(entry + 8)?,
        _ => return None,
    };
    Orientation::from_exif(u8::try_from(value).ok()?)
}

/// From an XMP packet: `tiff:Orientation`, as an attribute or as an element.
pub(super) fn of_xmp(packet: &[u8]) -> Option<Orientation> {
    const KEY: &[u8] = b"tiff:Orientation";
    let at = packet.windows(KEY.len()).position(|window| window == KEY)?;
    let mut rest = packet[at + KEY.len()..].iter().skip_while(|byte| byte.is_ascii_whitespace());
    if !matches!(rest.next()?, b'=' | b'>') {
        return None;
    }
    let digit = rest.find(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\''))?;
    Orientation::from_exif(digit.checked_sub(b'0')?)
}

/// From the chunks of a PNG, wherever they stand: `eXIf`, then the older forms that ImageMagick and
/// exiftool write as text, then XMP.
pub(super) fn of_png(bytes: &[u8]) -> Option<Orientation> {
    let mut places = [None; 4];
    let mut rest = bytes.get(8..)?;
    while let Some((&[a, b, c, d], after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some((kind, after)) = after.split_first_chunk::<4>() else { break };
        let Some(content) = after.get(..length) else { break };
        match kind {
            b"eXIf" => places[0] = places[0].or_else(|| of_exif(content)),
            b"tEXt" | b"zTXt" | b"iTXt" => {
                if let Some((place, orientation)) = of_png_text(*kind, content) {
                    places[place] = places[place].or(Some(orientation));
                }
            }
            _ => {}
        }
        let Some(after) = after.get(length + 4..) else { break };
        rest = after;
    }
    places.into_iter().flatten().next()
}

fn of_png_text(kind: [u8; 4], content: &[u8]) -> Option<(usize, Orientation)> {
    let (keyword, rest) = split_at_nul(content)?;
    let place = match keyword {
        b"Raw profile type exif" => 1,
        b"Raw profile type APP1" => 2,
        b"XML:com.adobe.xmp" | b"Raw profile type xmp" => 3,
        _ => return None,
    };
    let text = match &kind {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => inflated(rest.get(1..)?),
        _ => {
            let (&[is_compressed, _], rest) = rest.split_first_chunk::<2>()?;
            let (_language, rest) = split_at_nul(rest)?;
            let (_translated, rest) = split_at_nul(rest)?;
            if is_compressed == 1 { inflated(rest) } else { rest.to_vec() }
        }
    };
    let orientation = match keyword {
        b"XML:com.adobe.xmp" => of_xmp(&text),
        _ => {
            let profile = raw_profile(&text)?;
            if profile.starts_with(b"http") || place == 3 {
                of_xmp(&profile)
            } else {
                of_exif(&profile)
            }
        }
    };
    Some((place, orientation?))
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // What came before damage may hold what is looked for.
    let _ = ZlibDecoder::new(bytes).take(LONGEST_TEXT).read_to_end(&mut text);
    text
}

/// A raw profile: a line with a name, a line with a length, lines of hexadecimal digits.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let mut lines = text.trim_ascii_start().splitn(3, |&byte| byte == b'\n');
    let (_name, _length, digits) = (lines.next()?, lines.next()?, lines.next()?);
    let digits: Vec<u8> = digits
        .iter()
        .filter_map(|&byte| char::from(byte).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    Some(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

/// From the chunks of a WebP.
pub(super) fn of_webp(bytes: &[u8]) -> Option<Orientation> {
    let (mut exif, mut xmp) = (None, None);
    let mut rest = bytes.get(12..)?;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [_, _, _, _, a, b, c, d] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some(content) = after.get(..length) else { break };
        match &head[..4] {
            b"EXIF" => exif = exif.or_else(|| of_exif(content)),
            b"XMP " => xmp = xmp.or_else(|| of_xmp(content)),
            _ => {}
        }
        let Some(after) = after.get(length + length % 2..) else { break };
        rest = after;
    }
    exif.or(xmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that holds nothing but an orientation, in either byte order.
    fn exif(orientation: u8, is_big_endian: bool) -> Vec<u8> {
        if is_big_endian {
            let mut exif = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
            exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
            return exif;
        }
        let mut exif = b"II\x2A\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    #[test]
    fn exif_is_read_with_and_without_a_prefix() {
        for is_big_endian in [false, true] {
            let plain = exif(6, is_big_endian);
            assert_eq!(of_exif(&plain), Some(Orientation::Rotate90));
            let prefixed = [b"Exif\0\0", plain.as_slice()].concat();
            assert_eq!(of_exif(&prefixed), Some(Orientation::Rotate90));
        }
        // As a number of four bytes, in either order.
        let long = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06\0\0\0\0";
        assert_eq!(of_exif(long), Some(Orientation::Rotate90));
        let long = b"II\x2A\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0";
        assert_eq!(of_exif(long), Some(Orientation::Rotate270));
        assert_eq!(of_exif(b""), None);
        assert_eq!(of_exif(b"Exif\0"), None);
    }

    #[test]
    fn xmp_is_read_as_attribute_and_as_element() {
        let cases: [(&str, Option<Orientation>); 6] = [
            ("<rdf:Description tiff:Orientation=\"6\"/>", Some(Orientation::Rotate90)),
            ("<rdf:Description tiff:Orientation = '8' />", Some(Orientation::Rotate270)),
            ("<tiff:Orientation>3</tiff:Orientation>", Some(Orientation::Rotate180)),
            ("<tiff:Orientation>\n 5 \n</tiff:Orientation>", Some(Orientation::Rotate90FlipH)),
            ("<rdf:Description tiff:Orientation=\"9\"/>", None),
            ("<rdf:Description/>", None),
        ];
        for (packet, expected) in cases {
            assert_eq!(of_xmp(packet.as_bytes()), expected, "{packet}");
        }
    }

    #[test]
    fn a_raw_profile_is_hexadecimal() {
        let text = b"\nexif\n       4\n4578\n6966\n";
        assert_eq!(raw_profile(text).unwrap(), b"Exif");
        assert_eq!(raw_profile(b"exif"), None);
    }
}
