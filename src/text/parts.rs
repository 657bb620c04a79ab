//! What the reader of `tokenizer.json` takes on trust: parts with which it would panic, or with which a
//! short text would fill the memory.

use serde_json::{Map, Value};

use super::TokenizerFault;

/// How many times longer all replacements together may make a text.
const MOST_GROWTH: usize = 1 << 12;

/// Looks through a tokenizer's JSON.
///
/// # Errors
/// The part at fault.
pub(super) fn check(tokenizer: &Value) -> Result<(), TokenizerFault> {
    if let Some(Value::Object(model)) = tokenizer.get("model") {
        check_merges(model)?;
    }
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let mut growth = 1;
        if let Some(value) = tokenizer.get(part) {
            check_part(part, value, &mut growth)?;
        }
    }
    Ok(())
}

/// Every merge must make a token.
fn check_merges(model: &Map<String, Value>) -> Result<(), TokenizerFault> {
    let (Some(Value::Array(merges)), Some(Value::Object(vocab))) =
        (model.get("merges"), model.get("vocab"))
    else {
        return Ok(());
    };
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("");
    for merge in merges {
        let pair = match merge {
            Value::String(merge) => merge.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => {
                    Some((left.as_str(), right.as_str()))
                }
                _ => None,
            },
            _ => None,
        };
        // Old files open their merges with the version of their form.
        if merge.as_str().is_some_and(|merge| merge.starts_with("#version")) {
            continue;
        }
        let whole =
            pair.and_then(|(left, right)| Some(format!("{left}{}", right.strip_prefix(prefix)?)));
        if whole.is_none_or(|whole| !vocab.contains_key(&whole)) {
            let merge: String = merge.to_string().chars().take(80).collect();
            return Err(TokenizerFault::Merge { merge });
        }
    }
    Ok(())
}

/// A part and those within it. JSON is at most 128 levels deep.
fn check_part(path: &str, part: &Value, growth: &mut usize) -> Result<(), TokenizerFault> {
    match part {
        Value::Array(parts) => {
            for part in parts {
                check_part(path, part, growth)?;
            }
        }
        Value::Object(fields) => {
            match fields.get("type").and_then(Value::as_str) {
                // Its table is followed without a look at its bounds.
                Some("Precompiled") => {
                    return Err(TokenizerFault::Precompiled { part: path.into() });
                }
                Some("FixedLength") if fields.get("length").and_then(Value::as_u64) == Some(0) => {
                    return Err(TokenizerFault::NoLength { part: path.into() });
                }
                Some("Replace") => {
                    *growth = growth.saturating_mul(replacement(fields));
                    if *growth > MOST_GROWTH {
                        return Err(TokenizerFault::Growth {
                            part: path.into(),
                            most: MOST_GROWTH,
                        });
                    }
                }
                _ => {}
            }
            for part in fields.values() {
                check_part(path, part, growth)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// How many times longer a replacement may make a text.
fn replacement(fields: &Map<String, Value>) -> usize {
    let content = fields.get("content").and_then(Value::as_str).map_or(0, str::len);
    let text = fields.get("pattern").and_then(|pattern| pattern.get("String"));
    match text.and_then(Value::as_str).map_or(0, str::len) {
        // A regular expression may match between any two characters.
        0 => content + 1,
        length => content.div_ceil(length).max(1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;

    #[test]
    fn parts_that_would_do_harm_are_refused() {
        let replace = |content: usize| json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(content)});
        let precompiled = json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="});
        let bpe = |merges| {
            let vocab = json!({"a": 0, "##b": 1, "ab": 2, "b": 3});
            json!({"model": {"type": "BPE", "vocab": vocab, "continuing_subword_prefix": "##", "merges": merges}})
        };
        let cases = [
            (json!({"normalizer": precompiled}), "`Precompiled`"),
            (
                json!({"normalizer": {"type": "Sequence", "normalizers": [precompiled]}}),
                "`normalizer`",
            ),
            (json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}), "`length` is 0"),
            (
                json!({"decoder": {"type": "Sequence", "decoders": [replace(100), replace(100)]}}),
                "times",
            ),
            (
                json!({"normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "a".repeat(5000)}}),
                "times",
            ),
            (bpe(json!([["a", "b"]])), "makes no token"),
            (bpe(json!(["a ##b", "ab ##b"])), "\"ab ##b\" makes no token"),
            (bpe(json!([["a"]])), "makes no token"),
            (bpe(json!([5])), "makes no token"),
        ];
        for (tokenizer, words) in cases {
            let said = check(&tokenizer).unwrap_err().to_string();
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn usual_parts_are_not() {
        let usual = json!({
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
            ]},
            "pre_tokenizer": {"type": "FixedLength", "length": 3},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["#version: 0.2", "a b", ["a", "b"]]},
        });
        check(&usual).unwrap();
        check(&json!({"model": {"type": "WordPiece", "vocab": {}}})).unwrap();
        check(&json!([])).unwrap();
    }
}
