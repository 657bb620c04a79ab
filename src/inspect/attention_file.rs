//! `attention.json`: an inspection as a file for programs.
//!
//! One JSON object. Format version 1:
//!
//! | key | what |
//! |---|---|
//! | `format`, `format_version` | `"patchword attention"`, `1`; a change that breaks a reader raises the version, new keys do not |
//! | `patchword` | the version of the program that wrote it |
//! | `model` | `name` as it was given, `hash` (BLAKE3 of the model's files, hexadecimal) |
//! | `image` | `file` as it was given, `width` and `height` of the upright photo in pixels |
//! | `caption`, `generated`, `log_probability` | the caption; whether the model wrote it or it was given; its log-probability in nats, end token included |
//! | `rows`, `cols`, `region` | the patch grid, and the part of the photo it covers, `[x0, y0, x1, y1]` in photo pixels; it exceeds the photo where the image was padded |
//! | `words[i]` | `word`, `token_ids`, `probability`; `mean` (`rows` × `cols` values, row by row), `elsewhere` (class and register tokens) and `layers[layer][head]` (as `mean`): cross-attention, mean over the word's tokens; `content`; `alternatives` (`text`, `probability`); `to_words` (self-attention of the decoder, a value a word); `region` (a box as above, or null) and `region_share` of the first map; `evidence` (`blank`, `blurred`, `hidden`: probabilities in `[0, 1]`) or null |
//! | `maps[m]` | `method`, `layer`, `head`, `pool`, `position`, `window`; `words[i]`: `map` (`rows` × `cols` values, signed; the magnitudes sum to 1 with `elsewhere`), `elsewhere`, `total` (what they were divided by) |
//! | `phrases` | runs of words that name one thing: `start` and `end`, exclusive |

use serde::Serialize;

use super::Inspection;

/// What the file is.
const FORMAT: &str = "patchword attention";
/// The version of its format.
pub const FORMAT_VERSION: u32 = 1;

/// An inspection and what it is of.
#[derive(Debug, Clone, Serialize)]
pub struct AttentionFile<'a> {
    format: &'static str,
    format_version: u32,
    patchword: &'static str,
    model: Model<'a>,
    image: Image<'a>,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

#[derive(Debug, Clone, Serialize)]
struct Model<'a> {
    name: &'a str,
    hash: &'a str,
}

#[derive(Debug, Clone, Serialize)]
struct Image<'a> {
    file: &'a str,
    width: u32,
    height: u32,
}

impl<'a> AttentionFile<'a> {
    /// Of an image of `size` (width, height) and a model by its name and hash.
    pub fn new(
        inspection: &'a Inspection,
        [name, hash]: [&'a str; 2],
        file: &'a str,
        (width, height): (u32, u32),
    ) -> Self {
        Self {
            format: FORMAT,
            format_version: FORMAT_VERSION,
            patchword: env!("CARGO_PKG_VERSION"),
            model: Model { name, hash },
            image: Image { file, width, height },
            inspection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_is_of_and_keeps_every_digit() {
        let inspection = Inspection {
            caption: "a \"dog\"".into(),
            generated: false,
            log_probability: -0.1,
            rows: 2,
            cols: 3,
            region: [0.1, -1.0, 7.0, 9.0],
            words: Vec::new(),
            maps: Vec::new(),
            phrases: vec![1..3, 4..6],
        };
        let file = AttentionFile::new(&inspection, ["tiny", "ab12"], "dog.jpg", (640, 480));
        let json = serde_json::to_string(&file).unwrap();
        // The shortest digits that give the same f32 back.
        assert!(json.contains("\"log_probability\":-0.1,"), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["format"], "patchword attention");
        assert_eq!(value["format_version"], 1);
        assert_eq!(value["model"], serde_json::json!({"name": "tiny", "hash": "ab12"}));
        assert_eq!(value["image"]["width"], 640);
        assert_eq!(value["caption"], "a \"dog\"");
        assert_eq!(value["phrases"][0]["end"], 3);
    }
}
