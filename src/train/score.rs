//! How good captions of the validation images are: CIDEr as coco-caption computes it.

use burn::tensor::Device;
use rayon::prelude::*;

use super::TrainError;
use super::gradients::memory;
use super::plan::Plan;
use super::trained::FrozenPart;
use crate::data::{Batch, LoaderConfig};
use crate::generate::generate_from_memory;
use crate::image::{DecodeLimits, decode_file};
use crate::metrics::{SCORE_NAMES, ScoreConfig, ScoredImage, score};
use crate::model::Captioner;

/// CIDEr of what `model`, on a device without autodiff, says of the validation images, decoding as
/// the plan has it. Document frequencies are those of the images' references. Images that cannot be
/// read are left out.
pub(super) fn cider(
    model: &Captioner,
    plan: &Plan,
    loader: &LoaderConfig,
    device: &Device,
    bucket: usize,
) -> Result<f64, TrainError> {
    let limits = DecodeLimits { max_pixels: plan.config.data.max_pixels };
    let device = device.clone().inner();
    let special = plan.tokenizer.special_tokens();
    let prompt = [&[special.bos], plan.prompt.as_slice()].concat();
    let mut decode = plan.generate.clone();
    let room = plan.config.model.decoder.max_positions - prompt.len();
    decode.max_new_tokens = decode.max_new_tokens.min(room);
    decode.num_captions = 1;
    let mut scored = Vec::with_capacity(plan.val.len());
    let examples: Vec<_> = plan.val.iter().zip(&plan.val_references).collect();
    for examples in examples.chunks(loader.batch_size) {
        let read: Vec<Option<Vec<f32>>> = examples
            .par_iter()
            .map(|(example, _)| match &loader.features {
                Some(features) => features.read(&example.path, 0).ok(),
                None => {
                    let image = decode_file(&example.path, &limits).ok()?;
                    Some(plan.config.image.apply(&image))
                }
            })
            .collect();
        let there = examples.iter().zip(&read).filter(|(_, values)| values.is_some());
        let images = there.clone().count();
        if images == 0 {
            continue;
        }
        let pixels = read.iter().flatten().flatten().copied().collect();
        let mut batch = Batch { images, pixels, ..Batch::default() };
        let memory = memory(model, &mut batch, loader, FrozenPart::Nothing, &device);
        let said = generate_from_memory(model, &memory, &prompt, special.eos, &decode, bucket)?;
        for (((example, references), _), said) in there.zip(said) {
            scored.push(ScoredImage {
                id: example.path.display().to_string(),
                caption: plan.tokenizer.decode(&said.ids[prompt.len()..]),
                references: (*references).clone(),
            });
        }
    }
    let settings = ScoreConfig { tokenized: false, meteor_data: None, training: None };
    let scores = score(&scored, settings)?;
    let place = SCORE_NAMES.iter().position(|name| *name == "CIDEr");
    Ok(place.map_or(0.0, |place| scores.corpus()[place]))
}
