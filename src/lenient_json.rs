//! JSON as Python writes it and strict readers refuse it: `NaN` and `Infinity`, and halves of surrogate
//! pairs in strings.

use serde::de::DeserializeOwned;

/// Parses JSON, and what Python writes in its place: `NaN` and `Infinity`, which become `null`, and halves of
/// surrogate pairs, which become U+FFFD (the second value says whether there were any).
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<(T, bool), serde_json::Error> {
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok((value, false)),
        Err(error) => error,
    };
    let Some((mended, has_half_pairs)) = mend(text) else { return Err(error) };
    serde_json::from_str(&mended).map(|value| (value, has_half_pairs))
}

/// The text with Python's additions to JSON replaced, and whether half pairs were among them; `None` where
/// there are none. What is replaced keeps its length where it can, so that columns stay true.
fn mend(text: &str) -> Option<(String, bool)> {
    const NUMBERS: [(&str, &str); 3] =
        [("-Infinity", "null     "), ("Infinity", "null    "), ("NaN", "null")];
    let mut mended = String::with_capacity(text.len());
    let (mut has_half_pairs, mut has_numbers, mut is_quoted) = (false, false, false);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        if !is_quoted {
            is_quoted = first == '"';
            if let Some((number, null)) =
                NUMBERS.iter().find(|(number, _)| rest.starts_with(number))
            {
                mended.push_str(null);
                has_numbers = true;
                rest = &rest[number.len()..];
                continue;
            }
        } else if first == '"' {
            is_quoted = false;
        } else if first == '\\' {
            match code_unit(rest) {
                Some(0xd800..=0xdbff)
                    if rest
                        .get(6..)
                        .and_then(code_unit)
                        .is_some_and(|unit| (0xdc00..=0xdfff).contains(&unit)) =>
                {
                    taken = 12;
                }
                Some(0xd800..=0xdfff) => {
                    mended.push_str("\\ufffd");
                    has_half_pairs = true;
                    rest = &rest[6..];
                    continue;
                }
                // Whatever is escaped, its character does not end the text.
                _ => taken = 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            }
        }
        let (token, others) = rest.split_at(taken);
        mended.push_str(token);
        rest = others;
    }
    (has_half_pairs || has_numbers).then_some((mended, has_half_pairs))
}

/// The UTF-16 unit of an escape `\uXXXX` that the text begins with.
fn code_unit(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    fn parse(text: &str) -> Result<(Value, bool), serde_json::Error> {
        super::parse(text)
    }

    #[test]
    fn what_python_writes_is_read() {
        let text = r#"{"a": NaN, "b": [Infinity, -Infinity, -1.5], "NaN": "NaN \"Infinity\" é",
            "half": "\ud83d x \udc15", "whole": "\ud83d\udc15 \u00e9 \\ud83d"}"#;
        let (value, has_half_pairs) = parse(text).unwrap();
        assert!(has_half_pairs);
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
        assert_eq!(parse("{\"a\": NaN,\n  b}").unwrap_err().line(), 2);
    }

    #[test]
    fn json_as_python_writes_it() {
        let (value, has_half_pairs) =
            parse(r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" Infinity"}"#).unwrap();
        assert_eq!(value, json!({"a": null, "b": [null, null], "c": "NaN \" Infinity"}));
        assert!(!has_half_pairs);
        let (value, has_half_pairs) =
            parse(r#"["\ud83d dog", "\ud83d\ude00", "\\ud83d", "x\udc00"]"#).unwrap();
        assert_eq!(value, json!(["\u{fffd} dog", "\u{1f600}", "\\ud83d", "x\u{fffd}"]));
        assert!(has_half_pairs);
        assert!(parse("[NaN, }").is_err() && parse("[1, ]").is_err());
        assert!(parse("[\"\\ud83d").is_err() && parse("\\").is_err());
    }
}
