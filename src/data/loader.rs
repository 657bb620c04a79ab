//! Batches for training and validation: images decoded, augmented and normalised ahead on threads,
//! captions as token ids.
//!
//! The stream of batches is a function of the seed alone: batch `n` is the same whether a run was
//! interrupted or not, and whatever the threads do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::features::{FeatureError, Features};
use super::record::{Dataset, Split};
use super::skipped::SkippedImage;
use super::source::ImageSource;
use crate::image::{AugmentConfig, DecodeLimits, ImageError, PreprocessConfig, augment};
use crate::text::{SpecialTokens, TextError, Tokenizer};

/// An image with its captions as token ids, specials not included.
#[derive(Debug, Clone)]
pub struct Example {
    /// Where the image is.
    pub image: ImageSource,
    /// Token ids of each caption.
    pub captions: Vec<Vec<u32>>,
    /// Whether a mirror image would make a caption false.
    pub has_direction: bool,
}

/// The images of a split, their captions as token ids.
///
/// # Errors
/// A caption that the tokenizer refuses.
pub fn examples(
    dataset: &Dataset,
    split: Split,
    tokenizer: &Tokenizer,
) -> Result<Vec<Example>, TextError> {
    let mut examples = Vec::new();
    for record in dataset.records_of(split) {
        let mut captions = Vec::with_capacity(record.captions.len());
        for caption in &record.captions {
            let ids = tokenizer.encode(caption)?;
            if !ids.is_empty() {
                captions.push(ids);
            }
        }
        if !captions.is_empty() {
            examples.push(Example {
                image: record.image.clone(),
                captions,
                has_direction: record.captions.iter().any(|caption| says_direction(caption)),
            });
        }
    }
    Ok(examples)
}

/// Captions that are longer than a model's positions leave room for, and so are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutCaptions {
    /// How many.
    pub count: usize,
    /// Of how many captions.
    pub total: usize,
    /// Positions that the longest of all captions needs: its begin token, the prompt, and its own tokens.
    pub longest: usize,
}

/// Counts the captions that are cut where a text may have `positions` of which `given` are taken by the begin
/// token and the prompt.
pub fn cut_captions(examples: &[Example], positions: usize, given: usize) -> CutCaptions {
    let lengths =
        examples.iter().flat_map(|example| &example.captions).map(|ids| ids.len() + given);
    let mut cut = CutCaptions { count: 0, total: 0, longest: 0 };
    for length in lengths {
        cut.total += 1;
        cut.count += usize::from(length > positions);
        cut.longest = cut.longest.max(length);
    }
    cut
}

/// How batches are made.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Images a batch.
    pub batch_size: usize,
    /// Captions of an image that share one pass of the encoder.
    pub captions_per_image: usize,
    /// Longest input in tokens, begin token included; longer captions are cut.
    pub max_tokens: usize,
    /// Lengths are rounded up to a multiple of this (1 on a CPU; a GPU wants few shapes).
    pub bucket: usize,
    /// Begin, end and padding ids.
    pub special: SpecialTokens,
    /// Token ids that every caption begins with and that are not to be learned.
    pub prompt: Vec<u32>,
    /// Features to use instead of pixels.
    pub features: Option<Arc<Features>>,
    /// Geometry and normalisation.
    pub preprocess: PreprocessConfig,
    /// Random crops and flips; `None` for validation.
    pub augment: Option<AugmentConfig>,
    /// Largest image decoded.
    pub limits: DecodeLimits,
    /// Whether a batch's captions are of about the same length, so that less of it is padding.
    pub group_by_length: bool,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Decoding threads, at least 1.
    pub workers: usize,
}

/// One batch on the host.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Images that could be read.
    pub images: usize,
    /// Rows of text an image, side by side.
    pub captions_per_image: usize,
    /// Columns of text.
    pub seq: usize,
    /// What the encoder, or what is left of it, is given: pixels, `[images, 3, height, width]`, or features,
    /// `[images, positions, width]`, where there are any.
    pub encoder_inputs: Vec<f32>,
    /// `[images × captions_per_image, seq]`, padded on the right.
    pub inputs: Vec<i32>,
    /// Positions of `inputs`, flattened, whose next token is a target; padded by position 0.
    pub positions: Vec<i32>,
    /// The next token at each of `positions`.
    pub targets: Vec<i32>,
    /// The example that each image is, by its place in the list given.
    pub examples: Vec<usize>,
    /// How many of `positions` are real; the rest is padding.
    pub tokens: usize,
    /// Images left out.
    pub skipped: Vec<SkippedImage>,
}

/// An image with some of its captions: what is drawn without repeating within an epoch.
#[derive(Debug, Clone, Copy)]
struct Unit {
    example: usize,
    first: usize,
    count: usize,
}

struct Source {
    examples: Vec<Example>,
    units: Vec<Unit>,
    config: LoaderConfig,
}

/// The endless stream of training batches.
pub struct TrainLoader {
    receivers: Vec<Receiver<Batch>>,
    next: u64,
    waited: Duration,
    units: usize,
}

/// Units of an epoch: every caption of every image once.
pub fn units_per_epoch(examples: &[Example], captions_per_image: usize) -> usize {
    examples.iter().map(|example| example.captions.len().div_ceil(captions_per_image)).sum()
}

fn units(examples: &[Example], captions_per_image: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    for (example, Example { captions, .. }) in examples.iter().enumerate() {
        for first in (0..captions.len()).step_by(captions_per_image) {
            let count = captions_per_image.min(captions.len() - first);
            units.push(Unit { example, first, count });
        }
    }
    units
}

impl TrainLoader {
    /// Starts decoding at batch `start`. `examples` must not be empty.
    pub fn new(examples: Vec<Example>, config: LoaderConfig, start: u64) -> Self {
        let units = units(&examples, config.captions_per_image);
        let count = units.len();
        let workers = config.workers.max(1);
        let source = Arc::new(Source { examples, units, config });
        let receivers = (0..workers)
            .map(|worker| {
                let (sender, receiver) = sync_channel(2);
                let source = Arc::clone(&source);
                let first = start + worker as u64;
                thread::spawn(move || produce(&source, first, workers as u64, &sender));
                receiver
            })
            .collect();
        Self { receivers, next: 0, waited: Duration::ZERO, units: count }
    }

    /// Units in an epoch.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The next batch; `None` if the decoding threads have died.
    pub fn next_batch(&mut self) -> Option<Batch> {
        let worker = (self.next % self.receivers.len() as u64) as usize;
        self.next += 1;
        let start = Instant::now();
        let batch = self.receivers[worker].recv().ok();
        self.waited += start.elapsed();
        batch
    }

    /// Time spent waiting for data since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

/// Makes batches `first`, `first + stride`, … until nobody listens.
fn produce(source: &Source, first: u64, stride: u64, sender: &SyncSender<Batch>) {
    let mut order = EpochOrder::default();
    let size = source.config.batch_size as u64;
    let count = source.units.len() as u64;
    let mut index = first;
    loop {
        let units: Vec<(u64, Unit)> = (index * size..(index + 1) * size)
            .map(|place| {
                let unit = order.at(place / count, (place % count) as usize, source);
                (place, unit)
            })
            .collect();
        if sender.send(source.batch(&units)).is_err() {
            return;
        }
        index += stride;
    }
}

/// The order of the epoch last asked for.
#[derive(Default)]
struct EpochOrder {
    epoch: Option<u64>,
    units: Vec<Unit>,
}

impl EpochOrder {
    fn at(&mut self, epoch: u64, place: usize, source: &Source) -> Unit {
        if self.epoch != Some(epoch) {
            let mut rng = ChaCha8Rng::seed_from_u64(mix(source.config.seed, epoch));
            self.units = source.units.clone();
            self.units.shuffle(&mut rng);
            if source.config.group_by_length {
                let size = source.config.batch_size;
                // Batches do not begin with the epoch: the last one may have taken some units.
                let begun = (epoch * self.units.len() as u64 % size as u64) as usize;
                let rest = self.units.get_mut((size - begun) % size..).unwrap_or_default();
                group_by_length(rest, size, |unit| source.length(unit), &mut rng);
            }
            self.epoch = Some(epoch);
        }
        self.units[place]
    }
}

/// Batches that are sorted by length together: few enough that their order stays random.
const GROUPED_BATCHES: usize = 16;

/// Sorts units by length within groups of a few batches, and shuffles the group's batches.
fn group_by_length(
    units: &mut [Unit],
    batch_size: usize,
    length: impl Fn(&Unit) -> usize,
    rng: &mut ChaCha8Rng,
) {
    for group in units.chunks_mut(batch_size * GROUPED_BATCHES) {
        group.sort_by_key(&length);
        let mut batches: Vec<Vec<Unit>> = group.chunks(batch_size).map(<[Unit]>::to_vec).collect();
        // The last batch of an epoch may be a short one: it stays where it is.
        let full = group.len() / batch_size;
        batches[..full].shuffle(rng);
        for (place, unit) in group.iter_mut().zip(batches.into_iter().flatten()) {
            *place = unit;
        }
    }
}

/// Validation batches, every caption of every image once, in order; images are decoded by `workers`
/// threads ahead of `visit`.
pub fn for_each_batch<E>(
    examples: &[Example],
    config: &LoaderConfig,
    mut visit: impl FnMut(Batch) -> Result<(), E>,
) -> Result<(), E> {
    let source = Source {
        examples: examples.to_vec(),
        units: units(examples, config.captions_per_image),
        config: config.clone(),
    };
    let chunks: Vec<&[Unit]> = source.units.chunks(config.batch_size).collect();
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(2);
        let (source, chunks) = (&source, &chunks);
        scope.spawn(move || {
            for chunk in chunks {
                let units: Vec<(u64, Unit)> = chunk.iter().map(|&unit| (0, unit)).collect();
                if sender.send(source.batch(&units)).is_err() {
                    return;
                }
            }
        });
        receiver.into_iter().try_for_each(&mut visit)
    })
}

impl LoaderConfig {
    /// Single images as they are, a caption a row, in their order, of exactly their length.
    pub fn plain(preprocess: PreprocessConfig, special: SpecialTokens, max_tokens: usize) -> Self {
        Self {
            batch_size: 1,
            captions_per_image: 1,
            max_tokens,
            bucket: 1,
            special,
            prompt: Vec::new(),
            features: None,
            preprocess,
            augment: None,
            limits: DecodeLimits::default(),
            group_by_length: false,
            seed: 0,
            workers: 1,
        }
    }

    /// Reads the pixels or features of an image, varied, if it is to be, as its place in the run says.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read_image(&self, example: &Example, place: u64) -> Result<Vec<f32>, ReadImageError> {
        let seed = mix(self.seed ^ 0x5eed, place);
        if let Some(features) = &self.features {
            let varied = self.augment.is_some();
            let view = if varied { seed % u64::from(features.views()) } else { 0 };
            // Of an image that cannot be read there are none: say why.
            return features.read(example.image.path(), view as u32).map_err(|error| {
                example.image.decode(&self.limits).err().map_or(error.into(), Into::into)
            });
        }
        let image = example.image.decode(&self.limits)?;
        let image = match &self.augment {
            Some(augmentation) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                augment(&image, augmentation, &mut rng, !example.has_direction)
            }
            None => image,
        };
        Ok(self.preprocess.apply(&image))
    }
}

/// Why there is nothing to give to the encoder for an image; the message names it.
#[derive(Debug, thiserror::Error)]
pub enum ReadImageError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its features cannot.
    #[error(transparent)]
    Features(#[from] FeatureError),
}

impl Source {
    fn batch(&self, units: &[(u64, Unit)]) -> Batch {
        let config = &self.config;
        let mut batch = Batch { captions_per_image: config.captions_per_image, ..Batch::default() };
        let mut chosen = Vec::with_capacity(units.len());
        for &(place, unit) in units {
            let example = &self.examples[unit.example];
            match config.read_image(example, place) {
                Ok(values) => {
                    batch.encoder_inputs.extend(values);
                    chosen.push(unit);
                }
                Err(reason) => {
                    batch.skipped.push(SkippedImage {
                        path: example.image.path().to_owned(),
                        reason: reason.to_string(),
                    });
                }
            }
        }
        batch.images = chosen.len();
        batch.examples = chosen.iter().map(|unit| unit.example).collect();
        self.fill_text(&mut batch, &chosen);
        batch
    }

    fn fill_text(&self, batch: &mut Batch, units: &[Unit]) {
        let config = &self.config;
        let given = 1 + config.prompt.len();
        let cut = |caption: &'_ [u32]| caption.len().min(config.max_tokens.saturating_sub(given));
        let longest = units
            .iter()
            .flat_map(|unit| self.captions(unit))
            .map(|caption| given + cut(caption))
            .max()
            .unwrap_or(1);
        batch.seq = longest.next_multiple_of(config.bucket).min(config.max_tokens);
        for unit in units {
            let captions = self.captions(unit);
            for row in 0..config.captions_per_image {
                let start = batch.inputs.len();
                batch.inputs.push(config.special.bos as i32);
                batch.inputs.extend(config.prompt.iter().map(|&id| id as i32));
                let first = batch.inputs.len() - 1;
                if let Some(caption) = captions.get(row) {
                    let length = cut(caption);
                    batch.inputs.extend(caption[..length].iter().map(|&id| id as i32));
                    batch.positions.extend((first..=first + length).map(|at| at as i32));
                    batch.targets.extend(caption[..length].iter().map(|&id| id as i32));
                    // A caption that was cut has a next token that is not the end.
                    let next = caption.get(length).copied().unwrap_or(config.special.eos);
                    batch.targets.push(next as i32);
                }
                batch.inputs.resize(start + batch.seq, config.special.pad as i32);
            }
        }
        batch.tokens = batch.targets.len();
        // A GPU also wants few numbers of targets.
        let bucket = if config.bucket > 1 { config.bucket * 16 } else { 1 };
        batch.positions.resize(batch.tokens.next_multiple_of(bucket), 0);
        batch.targets.resize(batch.positions.len(), 0);
    }

    /// Tokens of a unit's longest caption.
    fn length(&self, unit: &Unit) -> usize {
        self.captions(unit).iter().map(Vec::len).max().unwrap_or(0)
    }

    fn captions(&self, unit: &Unit) -> &[Vec<u32>] {
        &self.examples[unit.example].captions[unit.first..unit.first + unit.count]
    }
}

/// A well-mixed seed from two numbers (SplitMix64's finaliser).
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether a caption says left or right, so that a mirror image would make it false. Knows the words
/// of some European languages.
pub fn says_direction(caption: &str) -> bool {
    const WORDS: [&str; 14] = [
        "left",
        "right",
        "leftmost",
        "rightmost",
        "lefthand",
        "righthand",
        "links",
        "rechts",
        "gauche",
        "droite",
        "izquierda",
        "derecha",
        "sinistra",
        "destra",
    ];
    caption
        .split(|c: char| !c.is_alphanumeric())
        .any(|word| WORDS.contains(&word.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests;
