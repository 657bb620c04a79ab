//! JSON as Python writes it and strict readers refuse it: `NaN` and `Infinity`, and halves of surrogate
//! pairs in strings.

use serde_json::Value;

/// Parses a document. Numbers that JSON does not have are read as null, half a surrogate pair as U+FFFD.
///
/// # Errors
/// What a strict reader says, where that is not all that is wrong.
pub(crate) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
        .or_else(|error| serde_json::from_str(&mended(text)).map_err(|_| error))
}

fn mended(text: &str) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find(['"', 'N', 'I', '-']) {
        mended.push_str(&rest[..place]);
        rest = &rest[place..];
        if rest.starts_with('"') {
            rest = string(rest, &mut mended);
            continue;
        }
        match ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                mended.push_str("null");
                rest = &rest[word.len()..];
            }
            None => {
                mended.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    mended.push_str(rest);
    mended
}

/// Copies the string that `text` begins with; returns what is behind it.
fn string<'a>(text: &'a str, mended: &mut String) -> &'a str {
    mended.push('"');
    let mut rest = &text[1..];
    while let Some(place) = rest.find(['"', '\\']) {
        mended.push_str(&rest[..place]);
        rest = &rest[place..];
        if let Some(behind) = rest.strip_prefix('"') {
            mended.push('"');
            return behind;
        }
        let length = match unit(rest) {
            Some(0xD800..=0xDBFF) if matches!(unit(&rest[6..]), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                mended.push_str("\\uFFFD");
                rest = &rest[6..];
                continue;
            }
            Some(_) => 6,
            None => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    ""
}

/// The UTF-16 unit of an escape `\uXXXX` at the beginning of `text`.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn what_python_writes_is_read() {
        let text = r#"{"a": NaN, "b": [Infinity, -Infinity, -1.5], "NaN": "NaN \"Infinity\" é",
            "half": "\ud83d x \udc15", "whole": "\ud83d\udc15 \u00e9 \\ud83d"}"#;
        let value = parse(text).unwrap();
        assert_eq!(
            value,
            json!({"a": null, "b": [null, null, -1.5], "NaN": "NaN \"Infinity\" é",
                "half": "\u{FFFD} x \u{FFFD}", "whole": "🐕 é \\ud83d"})
        );
    }

    #[test]
    fn what_nobody_writes_is_refused_where_it_is() {
        for text in ["{\"a\": Nan}", "{\"a\"", "", "\"\\ud83d", "{\"a\": NaN", "\"\\", "\"\\u12é\""]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("{\"a\": NaN,\n  b}").unwrap_err().line(), 1);
    }
}
