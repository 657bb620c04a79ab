//! Text of others on a line of ours: names and captions that would break the line, steer a terminal, or
//! are no text.
//!
//! [`escape`] loses nothing and [`unescape`] gives it back: tab, line feed, carriage return and
//! backslash become `\t`, `\n`, `\r` and `\\`, any other byte that must not stand there `\xNN`.
//! [`visible`] is for messages, which nobody reads back.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

/// Whether a character does something other than being seen: controls (C0, DEL, C1), line and paragraph
/// separators, and marks that turn the direction of what follows.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// One field of a line of fields between tabs.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    let hexadecimal = |escaped: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(escaped, "\\x{byte:02X}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => escaped.push_str("\\t"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\\' => escaped.push_str("\\\\"),
                _ if is_control(character) => {
                    hexadecimal(&mut escaped, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => escaped.push(character),
            }
        }
        hexadecimal(&mut escaped, chunk.invalid());
    }
    escaped
}

/// A path as a field: on Unix its bytes, elsewhere its text.
pub(crate) fn escape_path(path: &Path) -> String {
    escape(bytes_of(path.as_os_str()).as_ref())
}

#[cfg(unix)]
fn bytes_of(name: &OsStr) -> Cow<'_, [u8]> {
    use std::os::unix::ffi::OsStrExt;
    name.as_bytes().into()
}

#[cfg(not(unix))]
fn bytes_of(name: &OsStr) -> Cow<'_, [u8]> {
    match name.to_string_lossy() {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}

/// What [`escape`] was given. A backslash that begins no escape stands for itself.
pub(crate) fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some(place) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..place]);
        rest = &rest[place + 1..];
        let (byte, length) = match rest.as_bytes() {
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (u8::from_str_radix(&rest[1..3], 16).unwrap_or(b'?'), 3)
            }
            _ => (b'\\', 0),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The longest run of characters without white space that a message shows whole.
const LONGEST_WORD: usize = 300;

/// The longest message.
const LONGEST_MESSAGE: usize = 2000;

/// A message as one line that a terminal shows and does not obey: controls stand as `\u{1b}`, line breaks
/// within as `\n`, those around it are gone, and of what is very long the middle is left out.
pub(crate) fn visible(message: &str) -> String {
    let message = message.trim_matches(['\n', '\r']);
    let words = message.split_inclusive(char::is_whitespace);
    let cut: String = words.map(|word| without_middle(word, LONGEST_WORD)).collect();
    let mut shown = String::with_capacity(cut.len());
    for character in without_middle(&cut, LONGEST_MESSAGE).chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if is_control(character) => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// The first and the last characters of a text that has more than `longest`.
fn without_middle(text: &str, longest: usize) -> Cow<'_, str> {
    // Never more characters than bytes.
    if text.len() <= longest {
        return text.into();
    }
    let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
    if starts.len() <= longest {
        return text.into();
    }
    let (head, tail) = (longest * 2 / 3, longest / 6);
    let hidden = starts.len() - head - tail;
    let (head, tail) = (&text[..starts[head]], &text[starts[starts.len() - tail]..]);
    format!("{head}… ({hidden} characters) …{tail}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_field_of_one_line_and_comes_back() {
        let fields: [(&[u8], &str); 9] = [
            (b"plain.jpg", "plain.jpg"),
            ("café 犬 👨‍👩‍👧.jpg".as_bytes(), "café 犬 👨‍👩‍👧.jpg"),
            (b"two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
            (b"C:\\new\\x41", "C:\\\\new\\\\x41"),
            (b"caf\xE9.jpg", "caf\\xE9.jpg"),
            (b"\x1b[31mred\x07", "\\x1B[31mred\\x07"),
            ("\u{202e}gpj".as_bytes(), "\\xE2\\x80\\xAEgpj"),
            ("a\u{85}b\u{2028}c".as_bytes(), "a\\xC2\\x85b\\xE2\\x80\\xA8c"),
            (b"", ""),
        ];
        for (bytes, field) in fields {
            assert_eq!(escape(bytes), field);
            assert_eq!(unescape(field), bytes);
        }
        // Any bytes.
        let mut state = 3_u32;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    [b'\\', b'x', b'4', b'\n', (state >> 8) as u8][(state >> 20) as usize % 5]
                })
                .collect();
            let field = escape(&bytes);
            assert!(!field.contains(char::is_control), "{field:?}");
            assert_eq!(unescape(&field), bytes);
        }
        // Lines that nobody escaped.
        assert_eq!(unescape("a\\b\\"), b"a\\b\\");
        assert_eq!(unescape("\\xZZ"), b"\\xZZ");
        assert_eq!(unescape("\\x4é"), "\\x4é".as_bytes());
    }

    #[cfg(unix)]
    #[test]
    fn the_bytes_of_a_path_are_kept() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"a/caf\xE8.jpg"));
        assert_eq!(escape_path(path), "a/caf\\xE8.jpg");
    }

    #[test]
    fn messages_are_one_line_without_controls() {
        assert_eq!(visible("evil\u{1b}]0;owned\u{7}.hdr"), "evil\\u{1b}]0;owned\\u{7}.hdr");
        assert_eq!(visible("\nit ends early\n\n"), "it ends early");
        assert_eq!(visible("first\nsecond\r\n"), "first\\nsecond");
        assert_eq!(visible("a\u{9b}31m \u{202e}b"), "a\\u{9b}31m \\u{202e}b");
        assert_eq!(visible("héllo 犬, \"x\\y\""), "héllo 犬, \"x\\y\"");
    }

    #[test]
    fn what_is_very_long_loses_its_middle() {
        let long = format!("the column `{}` of 5", "a".repeat(500_000));
        let shown = visible(&long);
        assert!(shown.starts_with("the column `aaa") && shown.ends_with("aa` of 5"), "{shown}");
        assert!(shown.contains("characters) …") && shown.len() < 400, "{}", shown.len());
        let words = "word ".repeat(5000);
        assert!(visible(&words).len() < 2100);
        let japanese = "犬".repeat(250);
        assert_eq!(visible(&japanese), japanese);
    }
}
