//! What a file is, judged by its content alone, and whether it was cut short.

use std::ffi::OsStr;
use std::path::Path;

use ::image::ImageFormat;

use super::error::ImageError;
use crate::lfs;

/// Bytes from the start of a file that [`recognise`] needs.
pub(super) const HEAD_LENGTH: usize = 64;

/// Extensions (lower case, no dot) that image files commonly have, also those of formats that are
/// refused: they are looked at, and named. They choose which files of a folder are images; the format
/// of a file is always told from its content.
pub const EXTENSIONS: &[&str] = &[
    "3fr", "apng", "arw", "avif", "avifs", "bmp", "cr2", "cr3", "crw", "dcr", "dds", "dib", "dng",
    "erf", "exr", "farbfeld", "ff", "gif", "hdr", "heic", "heics", "heif", "heifs", "hif", "ico",
    "iiq", "j2c", "j2k", "jfif", "jif", "jp2", "jpc", "jpe", "jpeg", "jpf", "jpg", "jps", "jpx",
    "jxl", "jxr", "kdc", "mef", "mos", "mpo", "mrw", "nef", "nrw", "orf", "pam", "pbm", "pef",
    "pgm", "png", "pnm", "ppm", "psb", "psd", "qoi", "raf", "rw2", "rwl", "sr2", "srf", "srw",
    "tga", "tif", "tiff", "wdp", "webp", "x3f", "xcf",
];

/// Whether the path has one of [`EXTENSIONS`], in any case.
pub fn is_image_path(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.binary_search(&extension.as_str()).is_ok())
}

/// A format that is known here, read or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
    Tiff,
    Bmp,
    Tga,
    Dds,
    Ico,
    Hdr,
    OpenExr,
    Pnm,
    Qoi,
    Farbfeld,
    Heif,
    JpegXl,
    Jpeg2000,
    /// What a camera's sensor saw; TIFF-based ones begin as TIFF.
    Raw,
}

impl Format {
    /// The name, as people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Tga => "TGA",
            Self::Dds => "DDS",
            Self::Ico => "ICO",
            Self::Hdr => "HDR",
            Self::OpenExr => "OpenEXR",
            Self::Pnm => "PNM",
            Self::Qoi => "QOI",
            Self::Farbfeld => "farbfeld",
            Self::Heif => "HEIC",
            Self::JpegXl => "JPEG XL",
            Self::Jpeg2000 => "JPEG 2000",
            Self::Raw => "camera RAW",
        }
    }

    /// What the image crate calls it, if that reads it.
    pub(super) fn in_image_crate(self) -> Option<ImageFormat> {
        Some(match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::Gif => ImageFormat::Gif,
            Self::WebP => ImageFormat::WebP,
            Self::Tiff => ImageFormat::Tiff,
            Self::Bmp => ImageFormat::Bmp,
            Self::Tga => ImageFormat::Tga,
            Self::Dds => ImageFormat::Dds,
            Self::Ico => ImageFormat::Ico,
            Self::Hdr => ImageFormat::Hdr,
            Self::OpenExr => ImageFormat::OpenExr,
            Self::Pnm => ImageFormat::Pnm,
            Self::Qoi => ImageFormat::Qoi,
            Self::Farbfeld => ImageFormat::Farbfeld,
            Self::Heif | Self::JpegXl | Self::Jpeg2000 | Self::Raw => return None,
        })
    }

    fn from_image_crate(format: ImageFormat) -> Option<Self> {
        Some(match format {
            ImageFormat::Jpeg => Self::Jpeg,
            ImageFormat::Png => Self::Png,
            ImageFormat::Gif => Self::Gif,
            ImageFormat::WebP => Self::WebP,
            ImageFormat::Tiff => Self::Tiff,
            ImageFormat::Bmp => Self::Bmp,
            ImageFormat::Tga => Self::Tga,
            ImageFormat::Dds => Self::Dds,
            ImageFormat::Ico => Self::Ico,
            ImageFormat::Hdr => Self::Hdr,
            ImageFormat::OpenExr => Self::OpenExr,
            ImageFormat::Pnm => Self::Pnm,
            ImageFormat::Qoi => Self::Qoi,
            ImageFormat::Farbfeld => Self::Farbfeld,
            _ => return None,
        })
    }
}

/// The image format of `head`, the first [`HEAD_LENGTH`] bytes of a file (or all of a shorter one).
pub(super) fn recognise(head: &[u8], path: &Path) -> Result<Format, ImageError> {
    if lfs::is_pointer(head) {
        return Err(ImageError::LfsPointer { path: path.to_owned() });
    }
    if let Some(format) = known_but_undecodable(head) {
        return Err(ImageError::Unsupported { path: path.to_owned(), format: format.into() });
    }
    if let Some(format) = of_signature(head) {
        return Ok(format);
    }
    let known = ::image::guess_format(head).ok().and_then(Format::from_image_crate);
    if let Some(format) = known {
        return Ok(format);
    }
    if looks_like_cursor(head) {
        return Ok(Format::Ico);
    }
    if looks_like_tga(head) {
        return Ok(Format::Tga);
    }
    Err(ImageError::Unrecognised { path: path.to_owned(), found: describe(head) })
}

/// Why the file is known to be cut short, where its decoder would fill the hole with grey and say
/// nothing.
pub(super) fn missing_end(format: Format, bytes: &[u8]) -> Option<String> {
    if format != Format::WebP {
        return None;
    }
    let size = bytes.get(4..8).and_then(|size| size.try_into().ok());
    let promised = u64::from(size.map_or(0, u32::from_le_bytes)) + 8;
    // The last chunk's padding byte is often left out.
    (promised > bytes.len() as u64 + 1)
        .then(|| format!("{} bytes of the {promised} its header promises", bytes.len()))
}

/// Formats that the image crate does not know, and BigTIFF.
fn of_signature(head: &[u8]) -> Option<Format> {
    let signatures: [(&[u8], Format); 13] = [
        (b"\0\0\0\x0CJXL \r\n\x87\n", Format::JpegXl),
        (b"\xFF\x0A", Format::JpegXl),
        (b"\0\0\0\x0CjP  ", Format::Jpeg2000),
        (b"\xFF\x4F\xFF\x51", Format::Jpeg2000),
        (b"II\x2B\0", Format::Tiff),
        (b"MM\0\x2B", Format::Tiff),
        (b"FUJIFILMCCD-RAW", Format::Raw),
        (b"IIU\0", Format::Raw),
        (b"IIRO", Format::Raw),
        (b"IIRS", Format::Raw),
        (b"MMOR", Format::Raw),
        (b"\0MRM", Format::Raw),
        (b"FOVb", Format::Raw),
    ];
    if head.get(4..8) == Some(b"ftyp") {
        return match head.get(8..12) {
            Some(b"crx ") => Some(Format::Raw),
            Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx") => Some(Format::Heif),
            Some(b"mif1" | b"msf1") => Some(Format::Heif),
            _ => None,
        };
    }
    signatures.iter().find(|(signature, _)| head.starts_with(signature)).map(|&(_, found)| found)
}

fn known_but_undecodable(head: &[u8]) -> Option<&'static str> {
    if head.get(4..8) == Some(b"ftyp") {
        // A HEIF container says what is in it by the brands behind the first.
        let brands =
            head.get(8..12).into_iter().chain(head.get(16..).unwrap_or_default().chunks(4));
        let is_avif = brands.take(12).any(|brand| brand == b"avif" || brand == b"avis");
        return match head.get(8..12) {
            _ if is_avif => Some("AVIF"),
            _ => None,
        };
    }
    let start = text_of(head).trim_start().to_ascii_lowercase();
    let is_xml = start.starts_with("<?xml") || start.starts_with("<!--");
    if start.starts_with("<svg") || (is_xml && start.contains("<svg")) {
        return Some("SVG");
    }
    // Apple's tools write it for telephones; the chunk is none of PNG's.
    if head.get(12..16) == Some(b"CgBI") {
        return Some("PNG of Apple's own kind (CgBI)");
    }
    let signatures: [(&[u8], &str); 23] = [
        (b"8BPS", "Photoshop"),
        (b"%PDF", "PDF"),
        (b"%!PS", "PostScript"),
        (b"\xC5\xD0\xD3\xC6", "PostScript"),
        (b"/* XPM */", "XPM"),
        (b"PF\n", "PFM"),
        (b"Pf\n", "PFM"),
        (b"\x01\xDA", "SGI"),
        (b"\x59\xA6\x6A\x95", "Sun raster"),
        (b"\x0A\x05\x01", "PCX"),
        (b"\xD7\xCD\xC6\x9A", "Windows metafile"),
        (b"AT&TFORM", "DjVu"),
        (b"\xABKTX ", "KTX"),
        (b"SIMPLE  =", "FITS"),
        (b"\x8AMNG", "MNG"),
        (b"\x8BJNG", "JNG"),
        (b"\x97JB2", "JBIG2"),
        (b"II\xBC\x01", "JPEG XR"),
        (b"II\xBC\x00", "JPEG XR"),
        (b"gimp xcf", "GIMP (XCF)"),
        (b"BPG\xFB", "BPG"),
        (b"FLIF", "FLIF"),
        (b"icns", "ICNS"),
    ];
    signatures.iter().find(|(signature, _)| head.starts_with(signature)).map(|&(_, name)| name)
}

/// A cursor begins as a TGA may, but for the number of its pictures.
fn looks_like_cursor(head: &[u8]) -> bool {
    head.starts_with(b"\0\0\x02\0")
        && head.get(4).is_some_and(|&count| count > 0)
        && head.get(5) == Some(&0)
        && head.get(9) == Some(&0)
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

/// The first bytes as text, of UTF-16 as well; what is no text is left out.
fn text_of(head: &[u8]) -> String {
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    if head.starts_with(b"\xFF\xFE") || head.starts_with(b"\xFE\xFF") {
        return head[2..]
            .iter()
            .filter(|byte| byte.is_ascii() && **byte != 0)
            .map(|&byte| char::from(byte))
            .collect();
    }
    String::from_utf8_lossy(head).into_owned()
}

/// What a file is that was never meant to be an image, as far as its first bytes tell.
fn other_content(head: &[u8]) -> Option<&'static str> {
    if head.get(4..8) == Some(b"ftyp") {
        return Some("a video or a sound (MP4 or QuickTime)");
    }
    if head.starts_with(b"RIFF") {
        return Some("a sound or a video (RIFF)");
    }
    if head.iter().all(|&byte| byte == 0) {
        return Some("it begins with nothing but zero bytes (a copy that failed?)");
    }
    let signatures: [(&[u8], &str); 14] = [
        (b"PK\x03\x04", "a ZIP archive or an office document"),
        (b"\x1F\x8B", "a gzip archive"),
        (b"Rar!", "a RAR archive"),
        (b"7z\xBC\xAF", "a 7-Zip archive"),
        (b"BZh", "a bzip2 archive"),
        (b"\xFD7zXZ", "an xz archive"),
        (b"\x28\xB5\x2F\xFD", "a Zstandard archive"),
        (b"\x1A\x45\xDF\xA3", "a video (WebM or Matroska)"),
        (b"OggS", "a sound or a video (Ogg)"),
        (b"ID3", "a sound (MP3)"),
        (b"MZ", "a program"),
        (b"\x7FELF", "a program"),
        (b"SQLite format 3", "a database (SQLite)"),
        (b"bplist00", "a property list of Apple's"),
    ];
    let known = signatures.iter().find(|(signature, _)| head.starts_with(signature));
    known.map(|&(_, name)| name).or_else(|| {
        let text = text_of(head).trim_start().to_ascii_lowercase();
        let begins = |beginnings: &[&str]| beginnings.iter().any(|start| text.starts_with(start));
        if begins(&["<!doctype html", "<html", "<head", "<body"]) {
            Some("a web page (a download that failed?)")
        } else if begins(&["<?xml", "<!doctype"]) {
            Some("an XML document")
        } else if begins(&["{", "["]) {
            Some("JSON (a download that failed?)")
        } else if begins(&["data:image/"]) {
            Some("an image as the text of a data: address")
        } else {
            None
        }
    })
}

fn describe(head: &[u8]) -> String {
    if head.is_empty() {
        return "the file is empty".to_owned();
    }
    if let Some(name) = other_content(head) {
        return name.to_owned();
    }
    let start = &head[..head.len().min(24)];
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if start.iter().all(is_text) {
        return format!("it starts with the text {:?}", String::from_utf8_lossy(start));
    }
    let bytes: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02X}")).collect();
    format!("it starts with the bytes {}", bytes.join(" "))
}
