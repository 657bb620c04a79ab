//! The head of a model card: YAML between two lines of `---`, which says the licence.

use std::path::Path;

use super::Location;

/// The licence of a model, if the head of its card says it.
pub fn license_of(model: &Path) -> Option<String> {
    // A file of weights has no card of its own: what lies beside it may be anything's.
    let files = Location::named(model).files().ok()?;
    license(&String::from_utf8_lossy(&files.read("README.md").ok()?))
}

/// A head that says `license`, as [`license_of`] has it.
pub fn head(license: &str) -> String {
    // In double quotes nothing else means anything to YAML.
    let license = license.replace(['"', '\\'], "'");
    format!(
        "---\nlicense: other\nlicense_name: \"{license}\"\ntags: [image-captioning, patchword]\n---\n"
    )
}

/// `text` as code on one line, in which nothing means anything to Markdown or HTML. A text with backticks
/// stands in `<code>` with entities: a longer fence is a code span to CommonMark alone, and other readers end
/// it at the first backtick.
pub fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if !text.contains('`') {
        let pad = if text.trim().is_empty() { " " } else { "" };
        return format!("`{pad}{text}{pad}`");
    }
    let mut entities = String::with_capacity(2 * text.len());
    for c in text.chars() {
        // All signs but those of ordinary names: within tags Markdown still reads its own.
        match c {
            '-' | '.' | '/' | ',' => entities.push(c),
            _ if c.is_ascii_punctuation() => {
                entities.push_str(&format!("&#{};", u32::from(c)));
            }
            _ => entities.push(c),
        }
    }
    format!("<code>{entities}</code>")
}

/// `text` as a fenced block of `language`, whatever fences stand in it.
pub fn block(language: &str, text: &str) -> String {
    let fence = "`".repeat(longest_run(text, '`').max(2) + 1);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}{language}\n{text}{end}{fence}\n")
}

/// `text` as plain words on one line: what means something to Markdown or HTML is escaped.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '&' | '$' => {
                plain.extend(['\\', c]);
            }
            _ if c.is_control() => plain.push(' '),
            _ => plain.push(c),
        }
    }
    plain
}

/// How many of `wanted` stand in a row at most.
fn longest_run(text: &str, wanted: char) -> usize {
    text.split(|c| c != wanted).map(str::len).max().unwrap_or(0)
}

/// A card's head, with its lines of dashes, and the rest; the head of a card that has none is empty.
pub(super) fn split(card: &str) -> (&str, &str) {
    let card = card.trim_start_matches('\u{feff}');
    let mut end = 0;
    for (number, line) in card.split_inclusive('\n').enumerate() {
        let dashes = line.trim_end() == "---";
        if number == 0 && !dashes {
            break;
        }
        end += line.len();
        if number > 0 && dashes {
            return card.split_at(end);
        }
    }
    ("", card)
}

/// The licence in the YAML head of a model card: `license: mit`, a list of them, or `license: other`
/// with a `license_name`.
pub(super) fn license(card: &str) -> Option<String> {
    let head: Vec<&str> = split(card).0.lines().collect();
    let clean = |text: &str| -> String {
        let text = text.split(" #").next().unwrap_or_default();
        text.trim()
            .trim_matches(['"', '\''])
            .chars()
            .filter(|c| !c.is_control())
            .take(100)
            .collect()
    };
    let value = |key: &str| -> Option<String> {
        let place = head
            .iter()
            .position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))?;
        let own = clean(&head[place][key.len() + 1..]);
        let listed: Vec<String> = match own.strip_prefix('[').and_then(|own| own.strip_suffix(']'))
        {
            Some(inner) => inner.split(',').map(clean).collect(),
            None if own.is_empty() => head[place + 1..]
                .iter()
                .map_while(|line| line.trim_start().strip_prefix("- ").map(clean))
                .collect(),
            None => vec![own],
        };
        let text = listed.join(", ");
        (!text.is_empty()).then_some(text)
    };
    match value("license") {
        Some(license) if license == "other" => value("license_name").or(Some(license)),
        license => license,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_is_found_in_the_head_of_a_card_only() {
        for (card, expected) in [
            ("---\nlicense: mit\n---\n# A", Some("mit")),
            ("---\ntags:\n- x\nlicense: \"bsd-3-clause\" # note\n---\n", Some("bsd-3-clause")),
            ("---\nlicense:\n- mit\n- apache-2.0\nlanguage: en\n---\n", Some("mit, apache-2.0")),
            ("---\nlicense: [mit, 'gpl-3.0']\n---\n", Some("mit, gpl-3.0")),
            ("---\r\nlicense: mit\r\n---\r\n", Some("mit")),
            ("---\nlicense: other\nlicense_name: own-1\n---\n", Some("own-1")),
            ("---\nlicense_name: own-1\n---\n", None),
            ("# A card\nlicense: mit\n", None),
            ("---\ntags: []\n---\nlicense: mit\n", None),
            ("---\nlicense:\n---\n", None),
            ("", None),
        ] {
            assert_eq!(license(card).as_deref(), expected, "{card:?}");
        }
    }

    #[test]
    fn what_a_card_quotes_cannot_leave_its_place() {
        for (text, expected) in [
            ("photo.jpg", "`photo.jpg`"),
            ("a <b>.png", "`a <b>.png`"),
            ("q`<b>.png", "<code>q&#96;&#60;b&#62;.png</code>"),
            ("d`<img src=x>`", "<code>d&#96;&#60;img src&#61;x&#62;&#96;</code>"),
            (
                "`*a*` &amp; [b](c)",
                "<code>&#96;&#42;a&#42;&#96; &#38;amp&#59; &#91;b&#93;&#40;c&#41;</code>",
            ),
            ("two\nlines\u{1b}[31m", "`two lines [31m`"),
            ("", "`  `"),
        ] {
            assert_eq!(code(text), expected);
        }
        assert_eq!(plain("a <img> [x](y) *b* `c`\nd"), "a \\<img\\> \\[x\\](y) \\*b\\* \\`c\\` d");
        assert_eq!(block("toml", "a = 1\n"), "```toml\na = 1\n```\n");
        assert_eq!(block("toml", "a = '''\n```\n<b>'''"), "````toml\na = '''\n```\n<b>'''\n````\n");
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        for license in ["mit", "research only (trained on Flickr8k)", "a: b, [c] - d's"] {
            let card = format!("{}# A card\n", head(license));
            assert_eq!(super::license(&card).as_deref(), Some(license));
            assert_eq!(split(&card), (head(license).as_str(), "# A card\n"));
        }
        assert_eq!(super::license(&head("a \"b\" \\ c")).as_deref(), Some("a 'b' ' c"));
        assert_eq!(split("# A card\n---\n"), ("", "# A card\n---\n"));
    }
}
