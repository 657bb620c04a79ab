//! Cameras' RAW files: the largest JPEG in them, which the camera made of what its sensor saw.

use ::image::metadata::Orientation;

use super::super::orientation;
use super::jpeg_survey::survey_header;
use super::tiff::Directory;
use super::{Failure, Job, Stored, jpeg};

/// A JPEG with fewer pixels on its longer side is a thumbnail: better an error than a caption of it.
const SHORTEST: u32 = 320;

const TAG_PHOTOMETRIC: u16 = 262;
const TAG_MAKE: u16 = 271;
const TAG_ORIENTATION: u16 = 274;
const TAG_SUB_IFDS: u16 = 330;
const TAG_DNG_VERSION: u16 = 0xC612;
/// Photometric interpretations of sensors: colour filter array, and linear raw.
const OF_SENSORS: [u64; 2] = [32803, 34892];

/// Whether a file that begins as TIFF is a camera's: CR2, NEF, ARW, DNG, PEF, SRW and others.
pub(super) fn is_tiff_of_a_camera(bytes: &[u8]) -> bool {
    let Some(first) = Directory::first(bytes) else { return false };
    let of_sensor = |directory: &Directory<'_>| {
        directory.value(TAG_PHOTOMETRIC).is_some_and(|found| OF_SENSORS.contains(&found))
    };
    let sub = first.value(TAG_SUB_IFDS).and_then(|at| first.at(at));
    let is_thumbnail = first.value(254) == Some(1);
    bytes.get(8..10) == Some(b"CR")
        || first.has(TAG_DNG_VERSION)
        || of_sensor(&first)
        || sub.as_ref().is_some_and(of_sensor)
        || (first.has(TAG_MAKE)
            && first.has(TAG_SUB_IFDS)
            && (is_thumbnail || !first.has(TAG_PHOTOMETRIC)))
}

pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    let mut best: Option<(u64, u32, usize)> = None;
    let mut at = 0;
    while let Some(found) = find(&bytes[at..], &[0xFF, 0xD8, 0xFF]) {
        at += found;
        if let Ok(header) = survey_header(&bytes[at..]) {
            let pixels = u64::from(header.width) * u64::from(header.height);
            if best.is_none_or(|(most, ..)| pixels > most) {
                best = Some((pixels, header.width.max(header.height), at));
            }
        }
        at += 3;
    }
    let Some((_, longest, start)) = best.filter(|&(_, longest, _)| longest >= SHORTEST) else {
        let what = "camera RAW without a JPEG preview in it";
        return Err(Failure::Unsupported(what.into()));
    };
    debug_assert!(longest >= SHORTEST);
    let preview = &bytes[start..];
    let has_its_own = survey_header(preview)?.exif.and_then(orientation::of_exif);
    let mut stored = jpeg::decode(preview, job)?;
    if has_its_own.is_none()
        && let Some(orientation) = orientation_of(bytes)
    {
        stored.orientation = orientation;
    }
    Ok(stored)
}

/// From the file's own directory, or from the one that CR3 keeps in a box.
fn orientation_of(bytes: &[u8]) -> Option<Orientation> {
    let of_directory = |bytes| Directory::first(bytes)?.value(TAG_ORIENTATION);
    let found = if matches!(bytes.get(..2), Some(b"II" | b"MM")) {
        of_directory(bytes)
    } else {
        // Boxes stand before the pixels.
        let head = &bytes[..bytes.len().min(1 << 20)];
        find(head, b"CMT1").and_then(|at| of_directory(head.get(at + 4..)?))
    };
    Orientation::from_exif(u8::try_from(found?).ok()?)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|&byte| byte == wanted[0])?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}
