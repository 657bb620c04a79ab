//! A page that shows every image of an evaluation with its caption, what people wrote and its scores:
//! one HTML file that needs nothing else, to sort, search and filter in a browser.
//!
//! It knows text, numbers and JPEG files. The template beside this file has `{{…}}` where something is
//! filled in; the same input gives the same bytes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Component, Path};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rayon::prelude::*;

use crate::image::Thumbnail;
use crate::plural::counted;

const TEMPLATE: &str = include_str!("gallery.html");

/// Pictures made side by side and held until they are written.
const PICTURES_AT_A_TIME: usize = 64;

/// What stands above the images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The title.
    pub title: String,
    /// Scores of all images together.
    pub scores: Vec<Score>,
    /// What else there is to know, as label and value.
    pub facts: Vec<(String, String)>,
    /// What is known of each image in numbers.
    pub columns: Vec<Column>,
    /// Whether pictures are links, [`Picture::Link`]: those the page may then load.
    pub linked: bool,
}

/// A score of all images together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    /// What it is called.
    pub name: String,
    /// Its value.
    pub value: String,
    /// In small letters below: its interval, say.
    pub below: String,
}

/// A number that images have.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The attribute `data-KEY` of an image: lower-case letters, digits and `-`.
    pub key: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub note: &'static str,
    /// The value at which its bar is full; 0 for no bar.
    pub full: f64,
    /// Digits after the point that a reader is shown.
    pub digits: usize,
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// What it is called: its path in the data set.
    pub name: String,
    /// What the model said, or why it said nothing.
    pub caption: Result<&'a str, &'a str>,
    /// What people wrote.
    pub references: &'a [String],
    /// As many as there are columns; `None` where there is no such number.
    pub values: Vec<Option<f64>>,
    /// What a reader should notice about the caption.
    pub remarks: Vec<String>,
}

/// How an image is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A picture in the page.
    Embedded(Thumbnail),
    /// A file that the page loads, as [`link`] has it.
    Link(String),
    /// Why there is none.
    Lost(String),
}

/// Writes the page. `picture` is called for each entry's place, from several threads; a few pictures
/// are held at a time.
///
/// # Errors
/// What `out` cannot be written with.
pub fn write(
    page: &Page,
    entries: &[Entry<'_>],
    picture: impl Fn(usize) -> Picture + Sync,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut same: HashMap<&str, usize> = HashMap::new();
    for caption in entries.iter().filter_map(|entry| entry.caption.ok()) {
        *same.entry(caption).or_default() += 1;
    }
    for piece in TEMPLATE.split("{{") {
        // The first piece closes nothing; every other one begins with a name.
        let (name, rest) = piece.split_once("}}").unwrap_or(("", piece));
        match name {
            "version" => out.write_all(env!("CARGO_PKG_VERSION").as_bytes())?,
            "title" => out.write_all(escaped(&page.title).as_bytes())?,
            "image-sources" if page.linked => out.write_all(b"data: 'self' file:")?,
            "image-sources" => out.write_all(b"data:")?,
            "scores" => out.write_all(scores(&page.scores).as_bytes())?,
            "facts" => out.write_all(facts(&page.facts).as_bytes())?,
            "columns" => out.write_all(options(&page.columns).as_bytes())?,
            "entries" => {
                for (chunk, some) in entries.chunks(PICTURES_AT_A_TIME).enumerate() {
                    let first = chunk * PICTURES_AT_A_TIME;
                    let cards: Vec<String> = some
                        .par_iter()
                        .enumerate()
                        .map(|(place, entry)| {
                            let said = entry.caption.ok().and_then(|caption| same.get(caption));
                            card(page, entry, said.copied(), &picture(first + place))
                        })
                        .collect();
                    cards.iter().try_for_each(|card| out.write_all(card.as_bytes()))?;
                }
            }
            _ => {}
        }
        out.write_all(rest.as_bytes())?;
    }
    Ok(())
}

fn scores(scores: &[Score]) -> String {
    let each = scores.iter().map(|Score { name, value, below }| {
        let [name, value, below] = [name, value, below].map(|text| escaped(text));
        format!("<div><dt>{name}</dt><dd>{value}</dd><dd class=\"below\">{below}</dd></div>\n")
    });
    each.collect()
}

fn facts(facts: &[(String, String)]) -> String {
    let each = facts.iter().map(|(label, value)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(label), escaped(value))
    });
    each.collect()
}

/// The columns as choices, with what every page counts itself.
fn options(columns: &[Column]) -> String {
    let own = [("words", "words"), ("same", "same caption")];
    let all = columns.iter().map(|column| (column.key, column.name)).chain(own);
    all.map(|(key, name)| format!("<option value=\"{key}\">{}</option>", escaped(name))).collect()
}

/// One image; `same` is how many images have its caption.
fn card(page: &Page, entry: &Entry<'_>, same: Option<usize>, picture: &Picture) -> String {
    // A full stop between blanks is none.
    let is_word = |piece: &&str| piece.contains(char::is_alphanumeric);
    let words =
        entry.caption.map_or(0, |caption| caption.split_whitespace().filter(is_word).count());
    let mut text = String::from("<li");
    // Writing to a string cannot fail.
    for (column, value) in page.columns.iter().zip(&entry.values) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let _ = write!(text, " data-{}=\"{}\"", column.key, attribute(value));
        }
    }
    if let Some(same) = same {
        let _ = write!(text, " data-words=\"{words}\" data-same=\"{same}\"");
    }
    text.push_str(">\n<div class=\"picture\">");
    let alt = escaped(entry.caption.unwrap_or(&entry.name));
    write_picture(&mut text, picture, &alt);
    text.push_str("</div>\n<div class=\"said\">\n");
    write_caption(&mut text, entry);
    let shown = page.columns.iter().zip(&entry.values);
    let shown: String = shown.filter_map(|(column, value)| number(column, (*value)?)).collect();
    if !shown.is_empty() {
        let _ = writeln!(text, "<dl class=\"of-image\">{shown}</dl>");
    }
    if !entry.remarks.is_empty() {
        text.push_str("<ul class=\"remarks\">");
        entry.remarks.iter().for_each(|remark| {
            let _ = write!(text, "<li>{}</li>", escaped(remark));
        });
        text.push_str("</ul>\n");
    }
    if !entry.references.is_empty() {
        text.push_str("<ul class=\"references\">\n");
        entry.references.iter().for_each(|reference| {
            let _ = writeln!(text, "<li dir=\"auto\">{}</li>", escaped(reference));
        });
        text.push_str("</ul>\n");
    }
    let _ = write!(text, "<p class=\"name\"><bdi>{}</bdi>", escaped(&entry.name));
    if let Some(same) = same {
        let _ = write!(text, " · {}", counted(words, "word"));
        if same > 1 {
            let _ = write!(text, " · same caption on {same} images");
        }
    }
    text.push_str("</p>\n</div>\n</li>\n");
    text
}

fn write_picture(text: &mut String, picture: &Picture, alt: &str) {
    // Writing to a string cannot fail.
    match picture {
        Picture::Embedded(Thumbnail { jpeg, width, height }) => {
            let _ = write!(
                text,
                "<img alt=\"{alt}\" width=\"{width}\" height=\"{height}\" loading=\"lazy\" \
                 decoding=\"async\" src=\"data:image/jpeg;base64,"
            );
            BASE64_STANDARD.encode_string(jpeg, text);
            text.push_str("\">");
        }
        Picture::Link(link) => {
            let link = escaped(link);
            let _ = write!(
                text,
                "<a href=\"{link}\"><img alt=\"{alt}\" loading=\"lazy\" decoding=\"async\" \
                 src=\"{link}\"></a>"
            );
        }
        Picture::Lost(reason) => {
            let _ = write!(text, "<div class=\"lost\">{}</div>", escaped(reason));
        }
    }
}

fn write_caption(text: &mut String, entry: &Entry<'_>) {
    // Writing to a string cannot fail.
    match entry.caption {
        Ok(caption) if caption.trim().is_empty() => {
            text.push_str("<p class=\"caption empty\">(an empty caption)</p>\n");
        }
        Ok(caption) => {
            let caption = marked(caption, entry.references);
            let _ = writeln!(text, "<p class=\"caption\" dir=\"auto\">{caption}</p>");
        }
        Err(reason) => {
            let reason = escaped(reason);
            let _ = writeln!(text, "<p class=\"caption failed\">no caption: {reason}</p>");
        }
    }
}

/// A number with its name and its bar, as a reader sees it.
fn number(column: &Column, value: f64) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let Column { name, note, full, digits, .. } = column;
    let share = if *full > 0.0 { (value / full).clamp(0.0, 1.0) } else { 0.0 };
    let bar = if share > 0.0 {
        format!(" style=\"--share:{:.0}%\"", 100.0 * share)
    } else {
        String::new()
    };
    let value = format!("{value:.digits$}");
    Some(format!(
        "<div title=\"{}\"><dt>{}</dt><dd{bar}>{value}</dd></div>",
        escaped(note),
        escaped(name)
    ))
}

/// What is sorted by: a whole number as it is, any other to four digits.
fn attribute(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

/// Words that say nothing of an image, which nobody wants to see marked.
const SMALL_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "being", "by", "for", "from", "has", "have", "her",
    "his", "in", "into", "is", "it", "its", "of", "on", "or", "that", "the", "their", "there",
    "this", "to", "was", "were", "while", "with",
];

/// A caption with the words underlined that no reference has, save small ones. Of a text without blanks, whose words
/// cannot be told apart, none is.
fn marked(caption: &str, references: &[String]) -> String {
    let bare =
        |word: &str| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
    let known: HashSet<String> =
        references.iter().flat_map(|reference| reference.split_whitespace().map(bare)).collect();
    if known.is_empty() || caption.split_whitespace().nth(1).is_none() {
        return escaped(caption);
    }
    let mut text = String::new();
    for piece in caption.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let (blank, key) = (&piece[word.len()..], bare(word));
        let word = escaped(word);
        if key.is_empty() || known.contains(&key) || SMALL_WORDS.contains(&key.as_str()) {
            text.push_str(&word);
        } else {
            let _ = write!(text, "<u>{word}</u>");
        }
        text.push_str(&escaped(blank));
    }
    text
}

/// Text that means itself in HTML, between tags and in attributes with quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            // HTML has no way to write these.
            control if control.is_control() => safe.push('\u{FFFD}'),
            other => safe.push(other),
        }
    }
    safe
}

/// The address of the file `to` for a page in the folder `from`, both absolute: relative where there
/// is a way.
pub fn link(from: &Path, to: &Path) -> String {
    let (own, other): (Vec<Component>, Vec<Component>) =
        (from.components().collect(), to.components().collect());
    let shared = own.iter().zip(&other).take_while(|(own, other)| own == other).count();
    let mut parts: Vec<String> = Vec::new();
    if shared == 0 {
        // On another drive.
        parts.push("file://".to_owned());
        parts.extend(other.iter().filter(|part| !matches!(part, Component::RootDir)).map(encoded));
    } else {
        parts.extend(own[shared..].iter().map(|_| "..".to_owned()));
        parts.extend(other[shared..].iter().map(encoded));
    }
    parts.join("/")
}

/// One part of a path as it stands in an address.
fn encoded(part: &Component<'_>) -> String {
    let part = part.as_os_str();
    let mut text = String::new();
    for byte in part.as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIDER: Column =
        Column { key: "cider", name: "CIDEr", note: "one & all", full: 2.0, digits: 2 };

    fn page() -> Page {
        Page {
            title: "<i>\"mine\"</i> {{entries}}".into(),
            scores: vec![Score {
                name: "CIDEr".into(),
                value: "0.5000".into(),
                below: "0.4 to 0.6".into(),
            }],
            facts: vec![("model".into(), "a&b".into())],
            columns: vec![CIDER],
            linked: false,
        }
    }

    fn html(
        page: &Page,
        entries: &[Entry<'_>],
        picture: impl Fn(usize) -> Picture + Sync,
    ) -> String {
        let mut out = Vec::new();
        write(page, entries, picture, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn entry<'a>(caption: Result<&'a str, &'a str>, references: &'a [String]) -> Entry<'a> {
        let (name, values) = ("a b.jpg".to_owned(), vec![Some(0.5)]);
        Entry { name, caption, references, values, remarks: Vec::new() }
    }

    #[test]
    fn text_from_outside_stays_text() {
        let evil = "<script>alert(1)</script> \"quoted\" 'too' & {{title}} \u{0}";
        let references = [evil.to_owned()];
        let entries = [
            Entry { name: evil.into(), remarks: vec![evil.into()], ..entry(Ok(evil), &references) },
            Entry { name: evil.into(), ..entry(Err(evil), &references) },
        ];
        let picture = |place| match place {
            0 => Picture::Embedded(Thumbnail { jpeg: vec![1, 2, 3], width: 4, height: 5 }),
            _ => Picture::Lost(evil.into()),
        };
        let html = html(&page(), &entries, picture);
        assert_eq!(html.matches("<script>").count(), 1, "the page's own");
        assert!(!html.contains("alert(1)</script>") && !html.contains("<i>"));
        assert!(html.contains(
            "alt=\"&lt;script&gt;alert(1)&lt;/script&gt; &quot;quoted&quot; &#39;too&#39; &amp; \
             {{title}} \u{FFFD}\" width=\"4\" height=\"5\""
        ));
        assert!(html.contains("src=\"data:image/jpeg;base64,AQID\""));
        // What is filled in is not filled in again.
        assert_eq!(html.matches("&lt;i&gt;&quot;mine&quot;&lt;/i&gt; {{entries}}").count(), 2);
        assert!(html.contains("<dt>model</dt><dd>a&amp;b</dd>"));
        assert!(html.contains("title=\"one &amp; all\""));
        assert!(html.ends_with("</html>\n"));
    }

    #[test]
    fn nothing_of_the_template_is_left_to_fill_in_and_nothing_comes_from_elsewhere() {
        let html = html(&Page { title: "t".into(), ..page() }, &[], |_| Picture::Lost("".into()));
        assert!(!html.contains("{{"), "{html}");
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("src="));
        assert!(html.contains("default-src 'none'; img-src data:;"));
        let linked = Page { linked: true, ..page() };
        assert!(self::html(&linked, &[], |_| Picture::Lost("".into())).contains("'self'"));
    }

    #[test]
    fn what_is_sorted_by_stands_at_each_image_and_is_a_choice() {
        let references = ["a dog".to_owned()];
        let mut entries: Vec<Entry> = ["a dog", "A red dog .", "a dog"]
            .map(|caption| entry(Ok(caption), &references))
            .into_iter()
            .collect();
        entries[1].values = vec![Some(1.0 / 3.0)];
        entries[2].values = vec![None];
        entries.push(Entry { values: vec![Some(f64::NAN)], ..entry(Err("gone"), &references) });
        let html = html(&page(), &entries, |place| Picture::Link(format!("{place}.jpg")));
        let items: Vec<&str> = html.lines().filter(|line| line.starts_with("<li data")).collect();
        assert_eq!(
            items,
            [
                "<li data-cider=\"0.5000\" data-words=\"2\" data-same=\"2\">",
                "<li data-cider=\"0.3333\" data-words=\"3\" data-same=\"1\">",
                "<li data-words=\"2\" data-same=\"2\">"
            ]
        );
        assert!(html.contains("\n<li>\n"), "no caption, no numbers");
        for (key, count) in [("cider", 2), ("words", 2), ("same", 2)] {
            assert_eq!(html.matches(&format!("<option value=\"{key}\">")).count(), count);
        }
        assert!(html.contains("<dd style=\"--share:25%\">0.50</dd>"));
        assert!(html.contains("A <u>red</u> dog ."));
        assert!(html.contains("no caption: gone"));
        assert!(html.contains("src=\"3.jpg\""));
    }

    #[test]
    fn pictures_come_in_the_order_of_the_entries() {
        let references = Vec::new();
        let entries = vec![entry(Ok("a"), &references); 3 * PICTURES_AT_A_TIME + 1];
        let html = html(&page(), &entries, |place| Picture::Lost(format!("[{place}]")));
        let found: Vec<usize> = html
            .split("class=\"lost\">[")
            .skip(1)
            .map(|rest| rest.split(']').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(found, (0..entries.len()).collect::<Vec<_>>());
    }

    #[test]
    fn words_that_no_reference_has_are_underlined() {
        let references = ["Two dogs, running".to_owned(), "a dog's ball".to_owned()];
        assert_eq!(
            marked("two  dogs chase the 'ball' .", &references),
            "two  dogs <u>chase</u> the &#39;ball&#39; ."
        );
        assert_eq!(marked("two cats", &[]), "two cats");
        assert_eq!(marked("二匹の犬", &["犬".to_owned()]), "二匹の犬");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative_and_safe() {
        let link = |from: &str, to: &str| super::link(Path::new(from), Path::new(to));
        assert_eq!(link("/a/b", "/a/b/c.jpg"), "c.jpg");
        assert_eq!(link("/a/b", "/a/c/d e.jpg"), "../c/d%20e.jpg");
        assert_eq!(link("/a", "/b/100%#?\"é.jpg"), "../b/100%25%23%3F%22%C3%A9.jpg");
    }
}
