//! What a data set in any of the formats holds, as it is read: a line of JSON for each image, with its split, its
//! captions, its size and the mean of its colours.
//!
//! ```text
//! cargo run --release --example dataset -- FOLDER_OR_FILE
//! ```
//!
//! `tests/datasets_round_trip.py` compares it with what other programs wrote.

use std::path::PathBuf;
use std::process::ExitCode;

use patchword::data::{LoadOptions, load};
use patchword::image::DecodeLimits;
use serde_json::json;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: dataset FOLDER_OR_FILE");
        return ExitCode::from(2);
    };
    // No validation split is drawn: what is printed is what the data set says.
    let options = LoadOptions { val_share: 0.0, ..LoadOptions::default() };
    let dataset = match load(&path, &options) {
        Ok(dataset) => dataset,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for record in &dataset.records {
        let image = record.image.decode(&DecodeLimits::default());
        let image = match image {
            Ok(image) => {
                let sums = image.pixels().fold([0_u64; 3], |sums, pixel| {
                    [0, 1, 2].map(|channel| sums[channel] + u64::from(pixel.0[channel]))
                });
                let count = f64::from(image.width()) * f64::from(image.height());
                json!({ "size": image.dimensions(), "mean": sums.map(|sum| sum as f64 / count) })
            }
            Err(error) => json!(error.to_string()),
        };
        let captions = &record.captions;
        let split = record.split.to_string();
        println!(
            "{}",
            json!({ "id": record.id, "split": split, "captions": captions, "image": image })
        );
    }
    for problem in &dataset.problems {
        eprintln!("problem: {problem}");
    }
    for note in &dataset.notes {
        eprintln!("note: {note}");
    }
    ExitCode::SUCCESS
}
