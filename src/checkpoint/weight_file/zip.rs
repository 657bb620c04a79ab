//! The directory of a zip file whose entries are stored as they are, which is how `torch.save` writes:
//! their bytes can then be read where they lie. Nothing is unpacked, so nothing can swell.

use super::{CheckpointError, Part};

/// An entry's name and where its bytes are.
pub(super) struct Stored {
    pub name: String,
    pub start: u64,
    pub length: u64,
}

const ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const END_LENGTH: u64 = 22;

/// Lists the entries; `damaged` makes the error of a problem.
pub(super) fn entries(
    part: &Part,
    damaged: impl Fn(&str) -> CheckpointError,
) -> Result<Vec<Stored>, CheckpointError> {
    let cut = || damaged("its zip directory is damaged or cut off");
    let (start, length) = directory(part)?.ok_or_else(cut)?;
    let directory = part.bytes(start, length)?.ok_or_else(cut)?;
    let mut rest = directory.as_slice();
    let mut found = Vec::new();
    // Where each entry begins and ends, its own header included.
    let mut spans = Vec::new();
    while !rest.is_empty() {
        let (header, after) = header(rest).ok_or_else(cut)?;
        rest = after;
        if header.method != 0 || header.stored != header.length || header.flags & 1 != 0 {
            let problem = format!(
                "its entry `{}` is compressed, which torch.save does not do",
                header.name.chars().take(80).collect::<String>()
            );
            return Err(damaged(&problem));
        }
        // The entry's own header, which may have other extra fields.
        let local = part.bytes(header.local, 30)?.ok_or_else(cut)?;
        let lengths = (u16_at(&local, 26), u16_at(&local, 28));
        let (Some(name), Some(extra)) = lengths else { return Err(cut()) };
        let begin = header.local + 30 + u64::from(name) + u64::from(extra);
        let end = begin.checked_add(header.length).filter(|&end| end <= part.length);
        let Some(end) = end.filter(|_| local.starts_with(&LOCAL)) else { return Err(cut()) };
        spans.push((header.local, end));
        found.push(Stored { name: header.name, start: begin, length: header.length });
    }
    spans.sort_unstable();
    if spans.windows(2).any(|pair| matches!(pair, [one, next] if next.0 < one.1)) {
        return Err(damaged("entries of its zip directory overlap"));
    }
    Ok(found)
}

/// Where the central directory begins, and its length.
fn directory(part: &Part) -> Result<Option<(u64, u64)>, CheckpointError> {
    // A comment of up to 65535 bytes may follow the last record.
    let tail_length = part.length.min(END_LENGTH + 0xffff);
    let tail_start = part.length - tail_length;
    let Some(tail) = part.bytes(tail_start, tail_length)? else { return Ok(None) };
    let is_end = |bytes: &[u8]| bytes == END;
    let Some(at) = tail.windows(4).rposition(is_end) else { return Ok(None) };
    let end = tail.get(at..).unwrap_or_default();
    let (Some(length), Some(start)) = (u32_at(end, 12), u32_at(end, 16)) else {
        return Ok(None);
    };
    if length != u32::MAX && start != u32::MAX {
        return Ok(Some((start.into(), length.into())));
    }
    // Too large for that record: a wider one lies before it, and its place before that.
    let Some(at) = (tail_start + at as u64).checked_sub(20) else { return Ok(None) };
    let Some(locator) = part.bytes(at, 20)? else { return Ok(None) };
    let Some(at) = u64_at(&locator, 8).filter(|_| locator.starts_with(&LOCATOR_64)) else {
        return Ok(None);
    };
    let Some(end) = part.bytes(at, 56)?.filter(|end| end.starts_with(&END_64)) else {
        return Ok(None);
    };
    Ok(u64_at(&end, 48).zip(u64_at(&end, 40)))
}

struct Header {
    name: String,
    flags: u16,
    method: u16,
    /// Bytes in the file.
    stored: u64,
    /// Bytes unpacked.
    length: u64,
    /// Where the entry's own header is.
    local: u64,
}

/// The first entry of a directory, and what follows it.
fn header(bytes: &[u8]) -> Option<(Header, &[u8])> {
    if !bytes.starts_with(&ENTRY) {
        return None;
    }
    let lengths = [u16_at(bytes, 28)?, u16_at(bytes, 30)?, u16_at(bytes, 32)?].map(usize::from);
    let [name, extra, comment] = lengths;
    let (names, rest) = bytes.get(46..)?.split_at_checked(name)?;
    let (mut extras, rest) = rest.split_at_checked(extra)?;
    let rest = rest.get(comment..)?;
    let mut header = Header {
        name: std::str::from_utf8(names).ok()?.into(),
        flags: u16_at(bytes, 8)?,
        method: u16_at(bytes, 10)?,
        stored: u32_at(bytes, 20)?.into(),
        length: u32_at(bytes, 24)?.into(),
        local: u32_at(bytes, 42)?.into(),
    };
    while extras.len() >= 4 {
        let (kind, length) = (u16_at(extras, 0)?, usize::from(u16_at(extras, 2)?));
        let field = extras.get(4..4 + length)?;
        if kind == 1 {
            // The numbers that had no room, in this order.
            let mut wide = field.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes));
            for value in [&mut header.length, &mut header.stored, &mut header.local] {
                if *value == u64::from(u32::MAX) {
                    *value = wide.next()?;
                }
            }
        }
        extras = extras.get(4 + length..)?;
    }
    // Sums of it must not overflow.
    (header.local < u64::MAX / 2).then_some((header, rest))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
