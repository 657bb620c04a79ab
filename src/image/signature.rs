//! What a file is, judged by its content alone, and whether it was cut short.

use std::path::Path;

use ::image::ImageFormat;

use super::error::ImageError;

/// Bytes from the start of a file that [`recognise`] needs.
pub(super) const HEAD_LENGTH: usize = 64;

/// The image format of `head`, the first [`HEAD_LENGTH`] bytes of a file (or all of a shorter one).
pub(super) fn recognise(head: &[u8], path: &Path) -> Result<ImageFormat, ImageError> {
    if let Some(format) = known_but_undecodable(head) {
        return Err(ImageError::Unsupported { path: path.to_owned(), format });
    }
    if let Ok(format) = ::image::guess_format(head) {
        return Ok(format);
    }
    if looks_like_tga(head) {
        return Ok(ImageFormat::Tga);
    }
    Err(ImageError::Unrecognised { path: path.to_owned(), found: describe(head) })
}

/// The name of a format, as people write it.
pub(super) fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tga => "TGA",
        ImageFormat::Dds => "DDS",
        ImageFormat::Ico => "ICO",
        ImageFormat::Hdr => "HDR",
        ImageFormat::OpenExr => "OpenEXR",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Qoi => "QOI",
        ImageFormat::Farbfeld => "farbfeld",
        _ => "image",
    }
}

/// Why the file is known to be cut short, where its decoder would fill the hole with grey and say
/// nothing.
pub(super) fn missing_end(format: ImageFormat, bytes: &[u8]) -> Option<String> {
    match format {
        ImageFormat::Jpeg if !jpeg_reaches_its_end(bytes) => {
            Some(format!("no end-of-image marker in its {} bytes", bytes.len()))
        }
        ImageFormat::WebP => {
            let size = bytes.get(4..8).and_then(|size| size.try_into().ok());
            let promised = u64::from(size.map_or(0, u32::from_le_bytes)) + 8;
            // The last chunk's padding byte is often left out.
            (promised > bytes.len() as u64 + 1)
                .then(|| format!("{} bytes of the {promised} its header promises", bytes.len()))
        }
        _ => None,
    }
}

/// Walks the markers of a JPEG to its end-of-image marker. Segments are skipped by their length, so
/// the end of an embedded thumbnail is not taken for the end of the image.
fn jpeg_reaches_its_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        let Some(at) = rest.iter().position(|&byte| byte == 0xFF) else { return false };
        rest = &rest[at..];
        // Any number of 0xFF may stand before a marker.
        let Some(fill) = rest.iter().position(|&byte| byte != 0xFF) else { return false };
        let marker = rest[fill];
        rest = &rest[fill + 1..];
        match marker {
            0xD9 => return true,
            0xD0..=0xD8 => {} // restart markers stand in the middle of pixel data
            0xC0..=0xFE => {
                let &[high, low, ..] = rest else { return false };
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(after) = rest.get(length..) else { return false };
                rest = after;
            }
            _ => {} // 0xFF 0x00 is a data byte; the others mean nothing
        }
    }
}

fn known_but_undecodable(head: &[u8]) -> Option<&'static str> {
    if head.get(4..8) == Some(b"ftyp") {
        return match head.get(8..12) {
            Some(b"avif" | b"avis") => Some("AVIF"),
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1") => {
                Some("HEIC")
            }
            _ => None,
        };
    }
    let signatures: [(&[u8], &str); 5] = [
        (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
        (b"\xFF\x0A", "JPEG XL"),
        (b"\0\0\0\x0CjP  ", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"%PDF", "PDF"),
    ];
    signatures.iter().find(|(signature, _)| head.starts_with(signature)).map(|&(_, name)| name)
}

/// TGA has no signature: all that can be asked is that every field of its header makes sense.
fn looks_like_tga(head: &[u8]) -> bool {
    let Some(header) = head.first_chunk::<18>() else { return false };
    let map = &header[3..8];
    let map_is_right = match (header[1], header[2]) {
        (1, 1 | 9) => matches!(map[4], 15 | 16 | 24 | 32),
        (0, 2 | 3 | 10 | 11) => map.iter().all(|&byte| byte == 0),
        _ => false,
    };
    let width = u16::from_le_bytes([header[12], header[13]]);
    let height = u16::from_le_bytes([header[14], header[15]]);
    let depth_is_right = matches!(header[16], 8 | 15 | 16 | 24 | 32);
    let descriptor_is_right = header[17] & 0b1100_0000 == 0;
    map_is_right && depth_is_right && descriptor_is_right && width > 0 && height > 0
}

fn describe(head: &[u8]) -> String {
    if head.is_empty() {
        return "the file is empty".to_owned();
    }
    let start = &head[..head.len().min(24)];
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if start.iter().all(is_text) {
        return format!("it starts with the text {:?}", String::from_utf8_lossy(start));
    }
    let bytes: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02X}")).collect();
    format!("it starts with the bytes {}", bytes.join(" "))
}
