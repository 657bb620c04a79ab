//! What a text file of others is encoded in, told from its bytes. Reads as something else than UTF-8 only what
//! cannot be mistaken; everything else stays as it is, to be named line by line, or is [`text`] all the same.
use std::borrow::Cow;

use encoding_rs::{EUC_JP, Encoding, SHIFT_JIS, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// A text as UTF-8, if it could be told what it is.
pub(crate) struct Decoded {
    /// UTF-8 without a byte-order mark; or the bytes as they were.
    pub bytes: Vec<u8>,
    /// What it was converted from.
    pub converted_from: Option<&'static str>,
    /// What it may be, where that is not sure enough to convert it.
    pub looks_like: Option<&'static str>,
}

impl Decoded {
    fn converted(text: String, from: &'static str) -> Self {
        Self { bytes: text.into_bytes(), converted_from: Some(from), looks_like: None }
    }

    fn as_is(bytes: Vec<u8>, looks_like: Option<&'static str>) -> Self {
        Self { bytes, converted_from: None, looks_like }
    }
}

/// Converts what is not UTF-8.
pub(crate) fn decode(mut bytes: Vec<u8>) -> Decoded {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    for (mark, name, read) in [
        (b"\xff\xfe\0\0".as_slice(), "UTF-32LE", u32::from_le_bytes as fn([u8; 4]) -> u32),
        (b"\0\0\xfe\xff", "UTF-32BE", u32::from_be_bytes),
    ] {
        if let Some(rest) = bytes.strip_prefix(mark) {
            let units = rest.as_chunks::<4>().0.iter().map(|unit| char::from_u32(read(*unit)));
            return match units.collect::<Option<String>>() {
                Some(text) => Decoded::converted(text, name),
                None => Decoded::as_is(bytes, Some(name)),
            };
        }
    }
    for (mark, encoding) in [(b"\xff\xfe", UTF_16LE), (b"\xfe\xff", UTF_16BE)] {
        if let Some(rest) = bytes.strip_prefix(mark) {
            return match strictly(encoding, rest) {
                Some(text) => Decoded::converted(text, encoding.name()),
                None => Decoded::as_is(bytes, Some(encoding.name())),
            };
        }
    }
    if bytes.contains(&0) {
        return match utf16_without_mark(&bytes) {
            Some((text, name)) => Decoded::converted(text, name),
            None => Decoded::as_is(bytes, None),
        };
    }
    if std::str::from_utf8(&bytes).is_ok() {
        return Decoded::as_is(bytes, None);
    }
    // Where some of it is UTF-8 beyond ASCII, the rest is damage and no other encoding.
    let (mut valid, mut invalid) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        valid += chunk.valid().chars().filter(|character| !character.is_ascii()).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    // Of other encodings a pair of bytes may happen to be UTF-8.
    if valid >= invalid {
        return Decoded::as_is(bytes, None);
    }
    if let Some((text, name)) = japanese(&bytes) {
        return Decoded::converted(text, name);
    }
    match western(&bytes) {
        Some(text) => Decoded::converted(text, WINDOWS_1252.name()),
        None => Decoded::as_is(bytes, None),
    }
}

/// The text of a file, without its byte-order mark, whatever its bytes are: what [`decode`] cannot tell is read as
/// Windows-1252 (a superset of Latin-1, in which any byte is a character).
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.starts_with(b"\xef\xbb\xbf")
        && let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains('\0')
    {
        return text.into();
    }
    match String::from_utf8(decode(bytes.to_vec()).bytes) {
        Ok(text) => text.into(),
        Err(error) => {
            WINDOWS_1252.decode_without_bom_handling(error.as_bytes()).0.into_owned().into()
        }
    }
}

/// The text, if every byte fits.
fn strictly(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
    Some(text.into_owned())
}

/// UTF-16 without a byte-order mark: most of its zeros stand at one parity, and it reads as text.
fn utf16_without_mark(bytes: &[u8]) -> Option<(String, &'static str)> {
    if bytes.len() < 4 || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let zeros =
        |parity: usize| bytes.iter().skip(parity).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    // Blanks and line ends have a zero byte in every script; of ASCII every other byte is one.
    let encoding = match (even, odd) {
        _ if odd > 4 * even => UTF_16LE,
        _ if even > 4 * odd => UTF_16BE,
        _ => return None,
    };
    let text = strictly(encoding, bytes)?;
    let is_text = |character: char| {
        matches!(character, '\n' | '\r' | '\t')
            || !(character.is_control() || is_unassigned(character))
    };
    // A zero that strayed into ASCII makes pairs of letters into signs of all scripts.
    let is_plain = |character: char| {
        character.is_alphanumeric()
            || character.is_whitespace()
            || character.is_ascii()
            || matches!(character, '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ffef}')
    };
    let is_mostly_ascii = 3 * even.max(odd) >= bytes.len() / 2;
    let is_believed = text.chars().all(is_text) && (is_mostly_ascii || text.chars().all(is_plain));
    is_believed.then_some((text, encoding.name()))
}

/// Characters that no text has: private ones and noncharacters.
fn is_unassigned(character: char) -> bool {
    matches!(character, '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}')
}

/// Shift-JIS or EUC-JP: every byte fits, and a good part of what is not ASCII is kana, which no sentence in
/// Japanese goes without and which stray bytes do not make.
fn japanese(bytes: &[u8]) -> Option<(String, &'static str)> {
    let candidates = [SHIFT_JIS, EUC_JP].into_iter().filter_map(|encoding| {
        let text = strictly(encoding, bytes)?;
        let wide = text.chars().filter(|character| !character.is_ascii()).count();
        let kana = text.chars().filter(|c| matches!(c, '\u{3041}'..='\u{30ff}')).count();
        // Half-width kana are single high bytes, as every letter of a code page is.
        let half = text.chars().any(|c| matches!(c, '\u{ff61}'..='\u{ff9f}'));
        (kana >= 2 && 4 * kana >= wide && !half).then_some((text, encoding.name()))
    });
    let found: Vec<_> = candidates.collect();
    match <[_; 1]>::try_from(found) {
        Ok([only]) => Some(only),
        Err(_) => None,
    }
}

/// Letters and signs that Western European texts in windows-1252 and Latin-1 have.
const WESTERN: &str = "éèêëàâäáãåçîïíìôöóòõøùûüúœæñßÉÈÊËÀÂÄÁÃÅÇÎÏÍÌÔÖÓÒÕØÙÛÜÚŒÆÑ’‘“”„‚«»‹›–—…•·°€£§¿¡½¼¾×²³©®™´ºª\u{a0}";

/// windows-1252, of which Latin-1 is a part: every byte is defined and one that such texts have, accented
/// letters stand beside others and in no long rows (as they do where the text is in another code page).
fn western(bytes: &[u8]) -> Option<String> {
    let text = strictly(WINDOWS_1252, bytes)?;
    let characters: Vec<char> = text.chars().collect();
    let (mut letters, mut beside_letters, mut row) = (0, 0, 0);
    for (at, &character) in characters.iter().enumerate() {
        if character.is_ascii() {
            row = 0;
            continue;
        }
        if !WESTERN.contains(character) {
            return None;
        }
        if !character.is_alphabetic() {
            row = 0;
            continue;
        }
        letters += 1;
        row += 1;
        if row > 2 {
            return None;
        }
        let is_letter = |at: Option<usize>| {
            at.and_then(|at| characters.get(at)).is_some_and(char::is_ascii_alphabetic)
        };
        beside_letters += usize::from(is_letter(at.checked_sub(1)) || is_letter(Some(at + 1)));
    }
    // `à` is a word; most accented letters are not.
    (2 * beside_letters >= letters && (letters > 0 || !text.is_ascii())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Option<String>, Option<&'static str>) {
        let decoded = decode(bytes.to_vec());
        (String::from_utf8(decoded.bytes).ok(), decoded.converted_from)
    }

    fn encoded(encoding: &'static Encoding, text: &str) -> Vec<u8> {
        let (bytes, _, has_errors) = encoding.encode(text);
        assert!(!has_errors);
        bytes.into_owned()
    }

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn texts_in_unicode_are_read_with_and_without_a_mark() {
        let text = "a brown dog\r\nünd 犬 \u{1f600}\n";
        let ok = |name| (Some(text.to_owned()), name);
        assert_eq!(read(text.as_bytes()), ok(None));
        assert_eq!(read(&[b"\xef\xbb\xbf", text.as_bytes()].concat()), ok(None));
        for (to_bytes, mark, name) in [
            (u16::to_le_bytes as fn(u16) -> [u8; 2], b"\xff\xfe", "UTF-16LE"),
            (u16::to_be_bytes, b"\xfe\xff", "UTF-16BE"),
        ] {
            let bytes = utf16(text, to_bytes);
            assert_eq!(read(&bytes), ok(Some(name)));
            assert_eq!(read(&[mark.as_slice(), &bytes].concat()), ok(Some(name)));
        }
        let wide: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert_eq!(read(&[b"\xff\xfe\0\0".as_slice(), &wide].concat()), ok(Some("UTF-32LE")));
        // Zeros that no UTF-16 explains stay.
        assert_eq!(read(b"a\0b c d\n"), (Some("a\0b c d\n".to_owned()), None));
        assert_eq!(read(b"\0\0\0\0").1, None);
    }

    #[test]
    fn code_pages_are_read_only_when_they_cannot_be_mistaken() {
        for text in
            ["un café crème", "“a dog” – it’s brown", "Größe à la carte", "El niño ¿qué?", "créée"]
        {
            let bytes = encoded(WINDOWS_1252, text);
            assert_eq!(read(&bytes), (Some(text.to_owned()), Some("windows-1252")), "{text}");
        }
        let text = "茶色の犬が走っている";
        assert_eq!(read(&encoded(SHIFT_JIS, text)), (Some(text.to_owned()), Some("Shift_JIS")));
        assert_eq!(read(&encoded(EUC_JP, text)), (Some(text.to_owned()), Some("EUC-JP")));
        // Cyrillic, Polish, Chinese and stray bytes are named, never guessed at.
        for encoding in [encoding_rs::WINDOWS_1251, encoding_rs::KOI8_R] {
            assert_eq!(read(&encoded(encoding, "коричневая собака бежит")).1, None);
        }
        assert_eq!(read(&encoded(encoding_rs::WINDOWS_1250, "łąka i pies")).1, None);
        assert_eq!(read(&encoded(encoding_rs::GBK, "一只棕色的狗在跑")).1, None);
        assert_eq!(read(b"a.jpg#2\t\xff\n").1, None);
        assert_eq!(
            read(
                "déjà vu"
                    .as_bytes()
                    .iter()
                    .copied()
                    .chain(*b"\xe9t")
                    .collect::<Vec<_>>()
                    .as_slice()
            )
            .1,
            None
        );
    }

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
