//! The page that links the pages of many images: one HTML file, the small pictures within it.
//!
//! Knows text and JPEG files only; text is data here as on [`super::page`].

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::page::{fill, harmless};

/// The longest side of a small picture, in pixels.
pub const THUMBNAIL_SIDE: u32 = 256;

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it is called: its path below the folder that was named.
    pub image: String,
    /// The folder of its page, a single name within the gallery's folder.
    pub folder: String,
    /// What each model says of it.
    pub captions: Vec<String>,
    /// A small JPEG file.
    pub jpeg: Vec<u8>,
}

const TEMPLATE: &str = include_str!("gallery.html");

#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    models: &'a [String],
    /// Images that could not be read.
    failed: usize,
    images: Vec<DataEntry<'a>>,
}

#[derive(Serialize)]
struct DataEntry<'a> {
    image: &'a str,
    link: String,
    captions: &'a [String],
    picture: String,
}

/// The gallery as HTML.
pub fn render(entries: &[Entry], models: &[String], failed: usize) -> String {
    let images = entries.iter().map(|entry| DataEntry {
        image: &entry.image,
        link: format!("{}/index.html", percent_encoded(&entry.folder)),
        captions: &entry.captions,
        picture: format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(&entry.jpeg)),
    });
    let data =
        Data { version: env!("CARGO_PKG_VERSION"), models, failed, images: images.collect() };
    // Serializing plain structs of numbers and strings does not fail.
    let json = harmless(&serde_json::to_string(&data).unwrap_or_else(|_| "null".into()));
    fill(TEMPLATE, &[("{{DATA}}", &json)])
}

/// A name as part of a link.
fn percent_encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Most bytes of a folder's name.
const LONGEST_NAME: usize = 100;

/// A name for the folder of an image that any file system takes, after the image's own and unlike all
/// in `taken` (which holds small letters, for file systems that know no others), where it is put.
pub fn folder_name(image: &str, taken: &mut std::collections::HashSet<String>) -> String {
    let stem = match image.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => image,
    };
    let mut name = String::new();
    for letter in stem.chars() {
        let letter =
            if letter.is_alphanumeric() || matches!(letter, '-' | '.') { letter } else { '_' };
        if name.len() + letter.len_utf8() > LONGEST_NAME {
            break;
        }
        name.push(letter);
    }
    let name = match name.trim_matches('.') {
        "" => "image",
        // Names that Windows keeps for devices.
        reserved if is_device(reserved) => &format!("{reserved}_"),
        name => name,
    };
    let mut unlike = name.to_owned();
    let mut number = 1;
    while !taken.insert(unlike.to_lowercase()) {
        number += 1;
        unlike = format!("{name}-{number}");
    }
    unlike
}

fn is_device(name: &str) -> bool {
    let name = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = |kind: &str| {
        name.strip_prefix(kind).is_some_and(|rest| matches!(rest.as_bytes(), [b'0'..=b'9']))
    };
    matches!(name.as_str(), "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn folders_have_names_that_any_file_system_takes() {
        let mut taken = HashSet::new();
        let long = "é".repeat(200) + ".jpg";
        let names = [
            ("holiday/dog.jpg", "holiday_dog"),
            ("holiday/DOG.png", "holiday_DOG-2"),
            ("</script>\"'.jpg", "__script___"),
            ("犬 🐕.jpg", "犬__"),
            ("..jpg", "image"),
            ("con.jpg", "con_"),
            (".hidden", "hidden"),
        ];
        for (image, expected) in names {
            assert_eq!(folder_name(image, &mut taken), expected, "{image}");
        }
        assert_eq!(folder_name(&long, &mut taken).len(), LONGEST_NAME);
        assert!(folder_name(&long, &mut taken).ends_with("-2"));
    }

    #[test]
    fn text_is_data_and_links_are_whole() {
        let hostile = "</script><b>\"'& \u{202e}अ 🐕.jpg";
        let entry = Entry {
            image: hostile.into(),
            folder: "a b%c\"é".into(),
            captions: vec![hostile.into()],
            jpeg: vec![1],
        };
        let html = render(&[entry], &[hostile.into()], 2);
        assert!(!html.contains("<b>"));
        assert_eq!(html.matches("</script>").count(), 2);
        let start = html.find("type=\"application/json\">").unwrap() + 24;
        let end = start + html[start..].find("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&html[start..end]).unwrap();
        assert_eq!(data["images"][0]["captions"][0], hostile);
        assert_eq!(data["images"][0]["link"], "a%20b%25c%22%C3%A9/index.html");
        for bad in ["http://", "https://", "url(", "@import", "fetch(", "innerHTML", "eval("] {
            assert!(!TEMPLATE.contains(bad), "{bad}");
        }
    }
}
