//! Fills a file with what the frozen part of an encoder makes of a run's images.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::TrainError;
use super::plan::Plan;
use super::trained::parts_before;
use crate::checkpoint::tensors::parameters;
use crate::data::{Example, FeatureWriter, Features, SkippedImage, hash, identity, mix};
use crate::image::{DecodeLimits, augment, decode_file};
use crate::model::{Captioner, EncoderConfig, EncoderStage};

/// Images that go through the encoder together.
const BATCH: usize = 16;

/// Computes what is not in the file yet, for every image of the run; `progress` hears how many images
/// were added, are done, and there are, and says whether to go on. Images that cannot be read have no features,
/// and come back with the reason.
pub(super) fn compute(
    plan: &Plan,
    model: &Captioner,
    folder: &Path,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize, usize) -> bool,
) -> Result<(Arc<Features>, Vec<SkippedImage>), TrainError> {
    let config = &plan.config;
    let encoder = &config.model.encoder;
    let stage = plan.trained.frozen_until;
    let views = config.data.cache_views;
    let key = key(plan, model, stage);
    let mut writer = FeatureWriter::open(folder, key, encoder.stage_shape(stage))?;
    let examples: Vec<&Example> = plan.train.iter().chain(&plan.val).collect();
    let mut identities = HashMap::new();
    let mut skipped = Vec::new();
    let limits = DecodeLimits { max_pixels: config.data.max_pixels };
    let device = device.clone().inner();
    for (index, batch) in examples.chunks(BATCH).enumerate() {
        let read: Vec<_> = batch.par_iter().map(|example| identity(&example.path)).collect();
        let mut wanted = Vec::new();
        for (example, id) in batch.iter().zip(read) {
            let id = match id {
                Ok(id) => id,
                Err(error) => {
                    let reason = format!("{}: {error}", example.path.display());
                    skipped.push(SkippedImage { path: example.path.clone(), reason });
                    continue;
                }
            };
            identities.insert(example.path.clone(), id);
            let missing = (0..views).filter(|&view| !writer.contains(id, view));
            wanted.extend(missing.map(|view| (*example, id, view)));
        }
        let pixels = |(example, id, view): &(&Example, u64, u32)| {
            let image = decode_file(&example.path, &limits).map_err(|error| error.to_string())?;
            let image = if *view == 0 {
                image
            } else {
                let seed = mix(config.seed ^ id, u64::from(*view));
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                augment(&image, &config.augment, &mut rng, !example.has_direction)
            };
            Ok(config.image.apply(&image))
        };
        for wanted in wanted.chunks(BATCH) {
            let pixels: Vec<Result<Vec<f32>, String>> = wanted.par_iter().map(pixels).collect();
            let mut of_views = Vec::with_capacity(wanted.len());
            let mut values = Vec::new();
            for (view, pixels) in wanted.iter().zip(pixels) {
                match pixels {
                    Ok(pixels) => {
                        of_views.push(view);
                        values.extend(pixels);
                    }
                    // Once, whatever views it has.
                    Err(_) if skipped.iter().any(|known| known.path == view.0.path) => {}
                    Err(reason) => skipped.push(SkippedImage { path: view.0.path.clone(), reason }),
                }
            }
            if of_views.is_empty() {
                continue;
            }
            let shape = [of_views.len(), 3, config.image.height, config.image.width];
            let pixels = Tensor::from_data(TensorData::new(values, shape), &device);
            let values = model.encode_until(pixels, stage).try_into_vec_as::<f32>();
            let values = values.map_err(|error| TrainError::Device(error.to_string()))?;
            let size = values.len() / of_views.len();
            for ((_, id, view), values) in of_views.iter().zip(values.chunks(size)) {
                writer.append(*id, *view, values)?;
            }
        }
        let done = index * BATCH + batch.len();
        if !progress(batch.len(), done, examples.len()) && done < examples.len() {
            return Err(TrainError::StoppedEarly { done, total: examples.len() });
        }
    }
    Ok((Arc::new(writer.finish(identities, views)?), skipped))
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
        _ => format!("patches {:?} {} {:?}", encoder.backbone, encoder.patch_size, encoder.stem),
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
