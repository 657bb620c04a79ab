//! The grid game: photos of the data set lie side by side as one image, a person's caption of one of them is
//! read, and each word's map should lie on that photo. It takes no labels, and real photos.

use std::collections::BTreeSet;

use ::image::{Rgb, RgbImage, imageops};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ratio::Ratio;
use super::{EvaluateError, Event, MapScores, Observer, Setup};
use crate::caption::ModelInput;
use crate::data::{ImageRecord, SkippedImage, SkippedImages};
use crate::image::PreprocessConfig;
use crate::inspect::pointing::{coverage, share_inside};
use crate::inspect::{InspectConfig, RelevanceConfig, View, is_content};

/// A map in the grid game.
#[derive(Debug, Clone, Default)]
pub struct GridScores {
    /// The share of the map on its own photo, of all that lies on photos: words of content that no caption of
    /// the other photos holds.
    pub own: Ratio,
    /// The same of words that captions of every photo hold: near chance, unless the words around them draw
    /// them.
    pub shared: Ratio,
}

/// Photos side by side as one image.
struct Canvas {
    image: RgbImage,
    /// Where each photo lies in it, `[x0, y0, x1, y1]` in its pixels.
    boxes: Vec<[f32; 4]>,
}

impl Canvas {
    /// Two photos in the middle, a quarter of the image each, or four over all of it, each brought to its
    /// size as the model's photos are. What no photo covers has the mean colour.
    fn new(photos: &[RgbImage], preprocess: &PreprocessConfig) -> Self {
        let (height, width) = (preprocess.height, preprocess.width);
        let small = preprocess.with_size((height / 2).max(1), (width / 2).max(1));
        let fill = Rgb(preprocess.mean.map(|mean| (mean * 255.0 + 0.5) as u8));
        let mut image = RgbImage::from_pixel(width as u32, height as u32, fill);
        let mut boxes = Vec::new();
        for (place, photo) in photos.iter().enumerate() {
            let left = place % 2 * small.width;
            let top = match photos.len() {
                2 => (height - small.height) / 2,
                _ => place / 2 * small.height,
            };
            imageops::replace(&mut image, &small.resize(photo), left as i64, top as i64);
            boxes.push([left, top, left + small.width, top + small.height].map(|edge| edge as f32));
        }
        Self { image, boxes }
    }
}

/// Which photos lie side by side, and whose caption is read.
struct Round<'a> {
    photos: Vec<&'a ImageRecord>,
    /// Place of the photo whose caption is read.
    own: usize,
}

/// A round for each of `records`, which all follow from the seed.
fn rounds<'a>(records: &[&'a ImageRecord], count: usize, seed: u64) -> Vec<Round<'a>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ count as u64);
    let each = records.iter().enumerate().map(|(at, record)| {
        let mut others: Vec<&ImageRecord> = Vec::new();
        while others.len() + 1 < count {
            let other = random.random_range(0..records.len());
            if other != at && others.iter().all(|one| one.id != records[other].id) {
                others.push(records[other]);
            }
        }
        others.shuffle(&mut random);
        let own = random.random_range(0..count);
        others.insert(own, record);
        Round { photos: others, own }
    });
    each.collect()
}

/// The words of captions, in lower case.
fn words_of(captions: &[String]) -> BTreeSet<String> {
    let words = captions.iter().flat_map(|caption| caption.split(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Adds rounds of two photos and of four, as far as there are so many, to the scores of each map.
pub(super) fn measure(
    setup: &Setup<'_>,
    records: &[&ImageRecord],
    maps: &mut [MapScores],
    skipped: &mut SkippedImages,
    observer: Observer<'_>,
) -> Result<(), EvaluateError> {
    for (count, what) in [(2, "two photos"), (4, "four photos")] {
        if records.len() < count {
            continue;
        }
        let mut scores = vec![GridScores::default(); maps.len()];
        observer(Event::Measure { what, images: records.len() });
        for round in rounds(records, count, setup.seed) {
            play(setup, &round, maps, &mut scores, skipped)?;
            observer(Event::Image);
        }
        observer(Event::Done);
        for (map, scores) in maps.iter_mut().zip(scores) {
            match count {
                2 => map.pairs = Some(scores),
                _ => map.fours = Some(scores),
            }
        }
    }
    Ok(())
}

fn play(
    setup: &Setup<'_>,
    round: &Round<'_>,
    maps: &[MapScores],
    scores: &mut [GridScores],
    skipped: &mut SkippedImages,
) -> Result<(), EvaluateError> {
    let mut photos = Vec::with_capacity(round.photos.len());
    for record in &round.photos {
        match record.image.decode(&setup.limits) {
            Ok(photo) => photos.push(photo),
            Err(error) => {
                let path = record.image.path().to_owned();
                if skipped.reason(&path).is_none() {
                    skipped.add(SkippedImage { path, reason: error.to_string() });
                }
                return Ok(());
            }
        }
    }
    let checkpoint = setup.checkpoint;
    let preprocess = &checkpoint.preprocess;
    let canvas = Canvas::new(&photos, preprocess);
    let Some(ids) = given(setup, &round.photos[round.own].captions)? else { return Ok(()) };
    let wanted: Vec<RelevanceConfig> = maps.iter().map(|map| map.map.clone()).collect();
    let what = InspectConfig { maps: wanted, ..InspectConfig::default() };
    let region = [0.0, 0.0, preprocess.width as f32, preprocess.height as f32];
    // Nothing is sampled.
    let input = ModelInput { values: preprocess.normalize(&canvas.image), identity: 0 };
    let view = View::of_input(checkpoint, setup.device, input, region, &what.maps);
    let inspection = view.read(&ids, &what, &mut |_| ())?;
    let others: Vec<BTreeSet<String>> = round
        .photos
        .iter()
        .enumerate()
        .filter(|(place, _)| *place != round.own)
        .map(|(_, record)| words_of(&record.captions))
        .collect();
    let kind = |word: &str| {
        let word = word.to_lowercase();
        let (some, all) = (
            others.iter().any(|words| words.contains(&word)),
            others.iter().all(|words| words.contains(&word)),
        );
        match (some, all) {
            (false, _) if is_content(&word) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    };
    let kinds: Vec<Option<bool>> = inspection.words.iter().map(|word| kind(&word.word)).collect();
    let covered: Vec<Vec<f32>> = canvas
        .boxes
        .iter()
        .map(|bbox| coverage(inspection.rows, inspection.cols, region, *bbox))
        .collect();
    for (map, scores) in inspection.maps.iter().zip(scores) {
        let (mut sums, mut counts) = ([0.0; 2], [0; 2]);
        for (word, kind) in map.words.iter().zip(&kinds) {
            let Some(is_own) = kind else { continue };
            sums[usize::from(*is_own)] += share_of(&word.map, &covered, round.own);
            counts[usize::from(*is_own)] += 1;
        }
        scores.shared.push(sums[0], counts[0]);
        scores.own.push(sums[1], counts[1]);
    }
    Ok(())
}

/// The share of a map on photo `own` of all that lies on photos; that of chance where nothing does.
fn share_of(map: &[f32], covered: &[Vec<f32>], own: usize) -> f64 {
    let inside = |photo: &Vec<f32>| share_inside(map, photo).unwrap_or(0.0);
    let all: f64 = covered.iter().map(inside).sum();
    if all > 0.0 { inside(&covered[own]) / all } else { 1.0 / covered.len() as f64 }
}

/// The first caption that the model can read, as token ids.
fn given(setup: &Setup<'_>, captions: &[String]) -> Result<Option<Vec<u32>>, EvaluateError> {
    let (tokenizer, decoder) =
        (&setup.checkpoint.tokenizer, &setup.checkpoint.model.config().decoder);
    let special = tokenizer.special_tokens();
    for caption in captions {
        let mut ids = vec![special.bos];
        ids.extend(tokenizer.encode(caption)?);
        ids.push(special.eos);
        if ids.len() > 2 && ids.len() - 1 <= decoder.max_positions {
            return Ok(Some(ids));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preprocess() -> PreprocessConfig {
        PreprocessConfig { height: 40, width: 60, mean: [0.0; 3], ..PreprocessConfig::default() }
    }

    #[test]
    fn two_photos_lie_in_the_middle_and_four_cover_all() {
        let photo = |value| RgbImage::from_pixel(100, 100, Rgb([value; 3]));
        let two = Canvas::new(&[photo(100), photo(200)], &preprocess());
        assert_eq!(two.boxes, [[0.0, 10.0, 30.0, 30.0], [30.0, 10.0, 60.0, 30.0]]);
        assert_eq!(two.image.get_pixel(15, 20).0, [100; 3]);
        assert_eq!(two.image.get_pixel(45, 20).0, [200; 3]);
        assert_eq!(two.image.get_pixel(45, 5).0, [0; 3]);
        let four = Canvas::new(&[10, 20, 30, 40].map(photo), &preprocess());
        assert_eq!(four.boxes[3], [30.0, 20.0, 60.0, 40.0]);
        for (at, value) in [((5, 5), 10), ((50, 5), 20), ((5, 35), 30), ((50, 35), 40)] {
            assert_eq!(four.image.get_pixel(at.0, at.1).0, [value; 3]);
        }
    }

    #[test]
    fn a_share_is_of_what_lies_on_photos() {
        let covered = [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]];
        assert!((share_of(&[0.3, 0.1, 0.6], &covered, 0) - 0.75).abs() < 1e-6);
        assert_eq!(share_of(&[-1.0, 0.2, 0.0], &covered, 0), 0.0);
        assert_eq!(share_of(&[0.0, -0.2, 0.0], &covered, 1), 0.5);
    }

    #[test]
    fn words_are_told_apart_whatever_their_case() {
        let words = words_of(&["A dog's ball, RED .".into(), "red".into()]);
        assert_eq!(
            words.iter().map(String::as_str).collect::<Vec<_>>(),
            ["a", "ball", "dog", "red", "s"]
        );
    }
}
