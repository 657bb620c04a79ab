//! The page of an inspection: one HTML file with everything in it, which opens from disk.
//!
//! Knows numbers and text only. Whatever comes from captions, models and file names is data in a JSON
//! block, which the page's script shows as text: nothing of it can become markup.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::{Alternative, Evidence, Inspection};

/// What a page shows beside the inspection.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The inspection.
    pub inspection: &'a Inspection,
    /// The file name of the image.
    pub image: &'a str,
    /// The model, as it was named.
    pub model: &'a str,
    /// The photo as a JPEG file.
    pub jpeg: &'a [u8],
    /// Width and height of the original photo in pixels.
    pub size: [u32; 2],
}

/// Where the page's data goes.
const DATA: &str = "/*DATA*/null";
const TEMPLATE: &str = include_str!("page.html");

#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    image: &'a str,
    model: &'a str,
    size: [u32; 2],
    region: [f32; 4],
    rows: usize,
    cols: usize,
    caption: &'a str,
    generated: bool,
    phrases: Vec<[usize; 2]>,
    photo: String,
    maps: Vec<DataMap>,
    words: Vec<DataWord<'a>>,
}

#[derive(Serialize)]
struct DataMap {
    method: &'static str,
    about: String,
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
    region: Option<[f32; 4]>,
    share: Option<f32>,
    to_words: &'a [f32],
    layers: usize,
    heads: usize,
    /// The largest weight of all heads.
    most: f32,
    /// A byte a cell, layer by layer and head by head, as a share of `most`; Base64.
    cells: String,
}

/// The page as HTML.
pub fn render(page: &Page<'_>) -> String {
    let Inspection { rows, cols, region, .. } = *page.inspection;
    let data = Data {
        version: env!("CARGO_PKG_VERSION"),
        image: page.image,
        model: page.model,
        size: page.size,
        region,
        rows,
        cols,
        caption: &page.inspection.caption,
        generated: page.inspection.generated,
        phrases: page.inspection.phrases.iter().map(|run| [run.start, run.end]).collect(),
        photo: format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(page.jpeg)),
        maps: maps(page.inspection),
        words: words(page.inspection),
    };
    // Serializing plain structs of numbers and strings does not fail.
    let json = serde_json::to_string(&data).unwrap_or_else(|_| "null".into());
    TEMPLATE.replacen(DATA, &harmless(&json), 1)
}

/// JSON that no HTML parser sees an end or a comment in: JSON has these characters in strings only.
fn harmless(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn maps(inspection: &Inspection) -> Vec<DataMap> {
    let each = inspection.maps.iter().map(|map| DataMap {
        method: map.config.method.name(),
        about: map.config.to_string(),
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
    let each = inspection.words.iter().map(|word| {
        let cells = || word.layers.iter().flatten().flatten();
        let most = cells().copied().fold(0.0f32, f32::max);
        let by = if most > 0.0 { 255.0 / most } else { 0.0 };
        let bytes: Vec<u8> = cells().map(|value| (value * by + 0.5) as u8).collect();
        DataWord {
            text: &word.word,
            content: word.content,
            probability: word.probability,
            alternatives: &word.alternatives,
            evidence: word.evidence.as_ref(),
            region: word.region,
            share: word.region_share,
            to_words: &word.to_words,
            layers: word.layers.len(),
            heads: word.layers.first().map_or(0, Vec::len),
            most,
            cells: BASE64_STANDARD.encode(bytes),
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_data_and_never_markup() {
        let hostile = "</script><img src=x onerror=alert(1)> \"'`${1}` <!-- \u{202e}अ 🐕 \u{2028}";
        let inspection = Inspection {
            caption: hostile.into(),
            generated: true,
            log_probability: -1.0,
            rows: 1,
            cols: 1,
            region: [0.0, 0.0, 1.0, 1.0],
            words: Vec::new(),
            maps: Vec::new(),
            phrases: Vec::new(),
        };
        let page = Page {
            inspection: &inspection,
            image: hostile,
            model: hostile,
            jpeg: &[1, 2, 3],
            size: [1, 1],
        };
        let html = render(&page);
        assert!(!html.contains("<img src=x") && !html.contains(DATA));
        assert_eq!(html.matches("</script>").count(), TEMPLATE.matches("</script>").count());
        let start = html.find("type=\"application/json\">").unwrap() + 24;
        let end = start + html[start..].find("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(&html[start..end]).unwrap();
        for key in ["caption", "image", "model"] {
            assert_eq!(data[key], hostile, "{key}");
        }
    }

    #[test]
    fn the_page_needs_no_network() {
        for outside in ["http://", "https://", "url(", "@import", "fetch(", "innerHTML", "eval("] {
            assert!(!TEMPLATE.contains(outside), "{outside}");
        }
    }
}
