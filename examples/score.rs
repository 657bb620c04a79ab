//! Scores two captions against what people said: `cargo run --release --example score`

use std::error::Error;

use patchword::metrics::{SCORE_NAMES, ScoreConfig, ScoredImage, score};

fn main() -> Result<(), Box<dyn Error>> {
    let image = |id: &str, caption: &str, references: &[&str]| ScoredImage {
        id: id.to_string(),
        caption: caption.to_string(),
        references: references.iter().map(|text| text.to_string()).collect(),
    };
    let images = [
        image(
            "dog",
            "a dog runs on grass",
            &["a brown dog runs across the grass", "a dog is running"],
        ),
        image("sea", "two boats on the sea", &["two boats sail", "boats on a calm sea"]),
    ];
    let scores = score(&images, ScoreConfig::default())?;
    for (name, value) in SCORE_NAMES.iter().zip(scores.corpus()) {
        println!("{name:<8} {value:.3}");
    }
    Ok(())
}
