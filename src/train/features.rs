//! Fills a file with what the frozen part of an encoder makes of a run's images.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::TrainError;
use super::config::TrainConfig;
use super::plan::Plan;
use super::trained::parts_before;
use crate::checkpoint::tensors::parameters;
use crate::data::{
    Example, FeatureWriter, Features, SkippedImage, SkippedImages, hash, identity, mix,
};
use crate::image::{DecodeLimits, ImageError, augment};
use crate::model::{Captioner, EncoderConfig, EncoderStage};

/// Images that go through the encoder together.
const BATCH: usize = 16;

/// One of the views of an image: as it is (0), or augmented.
struct View<'a> {
    example: &'a Example,
    id: u64,
    number: u32,
}

/// Computes what is not in the file yet, for every image of the run; `progress` hears how many images
/// were added, are done, and there are, and says whether to go on. Images that cannot be read have no features,
/// and come back with the reason.
pub(super) fn compute(
    plan: &Plan,
    model: &Captioner,
    folder: &Path,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize, usize) -> bool,
) -> Result<(Arc<Features>, SkippedImages), TrainError> {
    let config = &plan.config;
    let stage = plan.trained.frozen_until;
    let shape = config.model.encoder.stage_shape(stage);
    let mut writer = FeatureWriter::open(folder, key(plan, model, stage), shape)?;
    let examples: Vec<&Example> = plan.train.iter().chain(&plan.val).collect();
    let mut identities = HashMap::new();
    let mut skipped = SkippedImages::default();
    let device = device.clone().inner();
    for (index, batch) in examples.chunks(BATCH).enumerate() {
        let known = identify(batch, &mut skipped);
        identities.extend(known.iter().map(|(example, id)| (example.image.path().to_owned(), *id)));
        let views = known.iter().flat_map(|&(example, id)| {
            (0..config.data.cache_views).map(move |number| View { example, id, number })
        });
        let missing: Vec<View> =
            views.filter(|view| !writer.contains(view.id, view.number)).collect();
        for views in missing.chunks(BATCH) {
            let (views, pixels) = read_views(views, config, &mut skipped);
            if views.is_empty() {
                continue;
            }
            let shape = [views.len(), 3, config.image.height, config.image.width];
            let pixels = Tensor::from_data(TensorData::new(pixels, shape), &device);
            let values = model.encode_until(pixels, stage).try_into_vec_as::<f32>();
            let values = values.map_err(|error| TrainError::Device(error.to_string()))?;
            let size = values.len() / views.len();
            for (view, values) in views.iter().zip(values.chunks(size)) {
                writer.append(view.id, view.number, values)?;
            }
        }
        let done = index * BATCH + batch.len();
        if !progress(batch.len(), done, examples.len()) && done < examples.len() {
            return Err(TrainError::StoppedEarly { done, total: examples.len() });
        }
    }
    Ok((Arc::new(writer.finish(identities, config.data.cache_views)?), skipped))
}

/// The examples whose files can be read, each with the number of its content.
fn identify<'a>(examples: &[&'a Example], skipped: &mut SkippedImages) -> Vec<(&'a Example, u64)> {
    let read: Vec<_> = examples.par_iter().map(|example| identity(&example.image)).collect();
    let mut known = Vec::with_capacity(examples.len());
    for (&example, id) in examples.iter().zip(read) {
        match id {
            Ok(id) => known.push((example, id)),
            Err(error) => {
                let reason = format!("{}: {error}", example.image.path().display());
                skipped.add(SkippedImage { path: example.image.path().to_owned(), reason });
            }
        }
    }
    known
}

/// The views whose images can be decoded, and their pixels, one after another.
fn read_views<'v, 'a>(
    views: &'v [View<'a>],
    config: &TrainConfig,
    skipped: &mut SkippedImages,
) -> (Vec<&'v View<'a>>, Vec<f32>) {
    let limits = DecodeLimits::of_pixels(config.data.max_pixels).for_input(&config.image);
    let read = |view: &View| {
        let image = view.example.image.decode(&limits)?;
        let image = if view.number == 0 {
            image
        } else {
            let seed = mix(config.seed ^ view.id, u64::from(view.number));
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            augment(&image, &config.augment, &mut rng, !view.example.has_direction)
        };
        Ok::<_, ImageError>(config.image.apply(&image))
    };
    let read: Vec<_> = views.par_iter().map(read).collect();
    let (mut of, mut values) = (Vec::with_capacity(views.len()), Vec::new());
    for (view, pixels) in views.iter().zip(read) {
        match pixels {
            Ok(pixels) => {
                of.push(view);
                values.extend(pixels);
            }
            Err(error) => {
                let (path, reason) = (view.example.image.path().to_owned(), error.to_string());
                skipped.add(SkippedImage { path, reason });
            }
        }
    }
    (of, values)
}

/// A number for everything that features depend on besides the image.
fn key(plan: &Plan, model: &Captioner, stage: EncoderStage) -> u64 {
    let config = &plan.config;
    let encoder = &config.model.encoder;
    let frozen = parts_before(stage);
    let shape = match stage {
        // Neither what is trained after the features nor dropout changes them.
        EncoderStage::States => {
            let still = EncoderConfig { dropout: 0.0, drop_path: 0.0, ..encoder.clone() };
            format!("states {still:?}")
        }
        _ => format!("patches {:?} {}", encoder.patches, encoder.patch_size),
    };
    let mut text = format!("{shape} {:?}", config.image);
    if let EncoderStage::Block(blocks) = stage {
        text.push_str(&format!(" block {blocks}"));
    }
    if config.data.cache_views > 1 {
        text.push_str(&format!(" {:?} {}", config.augment, config.seed));
    }
    let mut key = hash(text.as_bytes());
    for (name, tensor) in parameters(model) {
        if frozen.iter().any(|part| name.starts_with(part.as_str())) {
            let bytes: Vec<u8> = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            key = mix(key, hash(&bytes));
        }
    }
    key
}
