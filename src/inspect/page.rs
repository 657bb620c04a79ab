//! The page of an inspection: one HTML file with everything in it, which opens from disk.
//!
//! Knows numbers and text only. Whatever comes from captions, models and file names is data in a JSON
//! block, which the page's script shows as text: nothing of it can become markup.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

use super::colour::ColourMap;
use super::{Alternative, Evidence, Inspection};

/// The longest side of the photo on a page, in pixels.
pub const PHOTO_SIDE: u32 = 1024;

/// What one model read in the photo.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// The model, as it was named.
    pub model: &'a str,
    /// The hash of its files.
    pub hash: &'a str,
    /// What it read.
    pub inspection: &'a Inspection,
    /// How far each map of the inspection was found to be faithful, in a few words; none where nobody measured.
    pub faithful: Vec<Option<String>>,
}

/// What a page shows.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// The file name of the image.
    pub image: &'a str,
    /// The photo as a JPEG file, no side longer than [`PHOTO_SIDE`].
    pub jpeg: &'a [u8],
    /// Width and height of the original photo in pixels.
    pub size: [u32; 2],
    /// One reading, or two side by side.
    pub readings: &'a [Reading<'a>],
    /// Whether words without content are small.
    pub only_content: bool,
    /// A relative link to the page of all images.
    pub back: Option<&'a str>,
}

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    image: &'a str,
    size: [u32; 2],
    photo: String,
    only_content: bool,
    back: Option<&'a str>,
    colours: [(&'static str, &'static [[u8; 3]]); ColourMap::ALL.len()],
    views: Vec<DataView<'a>>,
}

#[derive(Serialize)]
struct DataView<'a> {
    model: &'a str,
    hash: &'a str,
    caption: &'a str,
    generated: bool,
    log_probability: f32,
    rows: usize,
    cols: usize,
    region: [f32; 4],
    phrases: Vec<[usize; 2]>,
    methods: Vec<DataMap<'a>>,
    words: Vec<DataWord<'a>>,
    layers: usize,
    heads: usize,
    /// The largest weight of each head, word by word and layer by layer.
    peaks: Vec<f32>,
    /// A byte a cell, as a share of its head's peak: zlib, then Base64.
    cells: String,
}

#[derive(Serialize)]
struct DataMap<'a> {
    method: &'static str,
    about: String,
    faithful: Option<&'a str>,
    /// Cells in hundred-thousandths.
    words: Vec<Vec<i32>>,
    elsewhere: Vec<f32>,
}

#[derive(Serialize)]
struct DataWord<'a> {
    text: &'a str,
    content: bool,
    probability: f32,
    alternatives: &'a [Alternative],
    evidence: Option<&'a Evidence>,
    to_words: &'a [f32],
}

/// The page as HTML.
pub fn render(page: &Page<'_>) -> String {
    let data = Data {
        version: env!("CARGO_PKG_VERSION"),
        image: page.image,
        size: page.size,
        photo: format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(page.jpeg)),
        only_content: page.only_content,
        back: page.back,
        colours: ColourMap::ALL.map(|map| (map.name(), map.stops())),
        views: page.readings.iter().map(view).collect(),
    };
    // Serializing plain structs of numbers and strings does not fail.
    let json = harmless(&serde_json::to_string(&data).unwrap_or_else(|_| "null".into()));
    // The data last: nothing in it is looked at for a place to fill in.
    fill(TEMPLATE, &[("{{STYLE}}", STYLE), ("{{SCRIPT}}", SCRIPT), ("{{DATA}}", &json)])
}

/// A template with each of the places filled in; what is filled in is not looked through.
pub(super) fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    let next = |rest: &str| {
        let found =
            places.iter().filter_map(|(name, text)| Some((rest.find(name)?, name.len(), *text)));
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, length, text)) = next(rest) {
        out.push_str(&rest[..at]);
        out.push_str(text);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

/// JSON that no HTML parser sees an end or a comment in: JSON has these characters in strings only.
pub(super) fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn view<'a>(reading: &'a Reading<'_>) -> DataView<'a> {
    let inspection = reading.inspection;
    let heads = || inspection.words.iter().flat_map(|word| word.layers.iter().flatten());
    let peaks: Vec<f32> = heads().map(|head| head.iter().copied().fold(0.0, f32::max)).collect();
    let bytes: Vec<u8> = heads()
        .zip(&peaks)
        .flat_map(|(head, peak)| {
            let by = if *peak > 0.0 { 255.0 / peak } else { 0.0 };
            head.iter().map(move |value| (value * by + 0.5) as u8)
        })
        .collect();
    let first = inspection.words.first().map(|word| &word.layers);
    DataView {
        model: reading.model,
        hash: reading.hash,
        caption: &inspection.caption,
        generated: inspection.generated,
        log_probability: inspection.log_probability,
        rows: inspection.rows,
        cols: inspection.cols,
        region: inspection.region,
        phrases: inspection.phrases.iter().map(|run| [run.start, run.end]).collect(),
        methods: maps(reading),
        words: words(inspection),
        layers: first.map_or(0, Vec::len),
        heads: first.and_then(|layers| layers.first()).map_or(0, Vec::len),
        peaks,
        cells: BASE64_STANDARD.encode(packed(&bytes)),
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail; a page without heads says so.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn maps<'a>(reading: &'a Reading<'_>) -> Vec<DataMap<'a>> {
    let each = reading.inspection.maps.iter().enumerate().map(|(at, map)| DataMap {
        method: map.config.method.name(),
        about: map.config.to_string(),
        faithful: reading.faithful.get(at).and_then(Option::as_deref),
        words: map
            .words
            .iter()
            .map(|word| word.map.iter().map(|value| (value * 1e5).round() as i32).collect())
            .collect(),
        elsewhere: map.words.iter().map(|word| word.elsewhere).collect(),
    });
    each.collect()
}

fn words(inspection: &Inspection) -> Vec<DataWord<'_>> {
    let each = inspection.words.iter().map(|word| DataWord {
        text: &word.word,
        content: word.content,
        probability: word.probability,
        alternatives: &word.alternatives,
        evidence: word.evidence.as_ref(),
        to_words: &word.to_words,
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "</script><img src=x onerror=alert(1)> \"'`${1}` <!-- {{STYLE}} \u{202e}अ 🐕 \u{2028}";

    #[test]
    fn text_is_data_and_never_markup() {
        let inspection = Inspection {
            caption: HOSTILE.into(),
            generated: true,
            log_probability: -1.0,
            rows: 1,
            cols: 1,
            region: [0.0, 0.0, 1.0, 1.0],
            words: Vec::new(),
            maps: Vec::new(),
            phrases: Vec::new(),
        };
        let reading =
            Reading { model: HOSTILE, hash: "0", inspection: &inspection, faithful: Vec::new() };
        let page = Page {
            image: HOSTILE,
            jpeg: &[1, 2, 3],
            size: [1, 1],
            readings: &[reading],
            only_content: true,
            back: Some(HOSTILE),
        };
        let html = render(&page);
        assert!(!html.contains("<img src=x"));
        assert_eq!(html.matches("</script>").count(), 2);
        let start = html.find("type=\"application/json\">").unwrap() + 24;
        let end = start + html[start..].find("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&html[start..end]).unwrap();
        for place in ["/image", "/back", "/views/0/model", "/views/0/caption"] {
            assert_eq!(data.pointer(place).unwrap(), HOSTILE, "{place}");
        }
    }

    #[test]
    fn the_page_needs_no_network_and_makes_no_markup_of_text() {
        for part in [TEMPLATE, STYLE, SCRIPT] {
            for bad in ["http://", "https://", "url(", "@import", "fetch(", "innerHTML", "eval("] {
                assert!(!part.contains(bad), "{bad}");
            }
        }
        // What would end the elements that they stand in.
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }

    #[test]
    fn what_is_filled_in_is_not_looked_through() {
        let filled = fill("a {{A}} {{B}} {{A}}", &[("{{A}}", "{{B}}"), ("{{B}}", "b")]);
        assert_eq!(filled, "a {{B}} b {{B}}");
    }
}
