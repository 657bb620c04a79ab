//! The bytes of a text file of others as text: whatever byte-order mark and encoding it has.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// The text of a file, without its byte-order mark: UTF-8 or UTF-16 as the mark says, without one UTF-16
/// where every other byte of the beginning is 0, UTF-8 where the bytes are that, and Windows-1252 (a
/// superset of Latin-1, in which any byte is a character) otherwise.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    let (encoding, skipped) = Encoding::for_bom(bytes).unwrap_or_else(|| (guess(bytes), 0));
    encoding.decode_without_bom_handling(&bytes[skipped..]).0
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    const LOOKED_AT: usize = 512;
    let beginning = &bytes[..bytes.len().min(LOOKED_AT)];
    let zeros = |first: usize| {
        let places = beginning.iter().skip(first).step_by(2);
        2 * places.clone().filter(|byte| **byte == 0).count() > places.count()
    };
    match (zeros(0), zeros(1)) {
        (true, false) if bytes.len().is_multiple_of(2) => UTF_16BE,
        (false, true) if bytes.len().is_multiple_of(2) => UTF_16LE,
        _ if std::str::from_utf8(bytes).is_ok() => UTF_8,
        _ => WINDOWS_1252,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_encoding_gives_its_text() {
        let caption = "a café, “quoted”";
        let utf_16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            caption.encode_utf16().flat_map(order).collect()
        };
        let windows = b"a caf\xE9, \x93quoted\x94";
        for (bytes, what) in [
            (caption.as_bytes().to_vec(), "UTF-8"),
            ([b"\xEF\xBB\xBF", caption.as_bytes()].concat(), "UTF-8 with a mark"),
            (utf_16(u16::to_le_bytes), "UTF-16LE"),
            (utf_16(u16::to_be_bytes), "UTF-16BE"),
            ([&b"\xFF\xFE"[..], &utf_16(u16::to_le_bytes)].concat(), "UTF-16LE with a mark"),
            ([&b"\xFE\xFF"[..], &utf_16(u16::to_be_bytes)].concat(), "UTF-16BE with a mark"),
            (windows.to_vec(), "Windows-1252"),
        ] {
            assert_eq!(text(&bytes), caption, "{what}");
        }
        assert_eq!(text(b""), "");
    }
}
