//! What the model says of validation images, and how good that is: CIDEr as coco-caption computes it.

use burn::tensor::Device;
use rayon::prelude::*;

use super::TrainError;
use super::gradients::memory;
use super::plan::Plan;
use super::shares::{Shares, ranges};
use crate::data::{Batch, Example, LoaderConfig};
use crate::generate::{GenerateConfig, generate_from_memory};
use crate::metrics::CiderDOfWords;
use crate::metrics::ptb::tokenize;
use crate::model::Captioner;

/// Captions of `examples`; `None` where an image cannot be read. `model` is on a device without
/// autodiff.
pub(super) fn captions(
    model: &Captioner,
    plan: &Plan,
    loader: &LoaderConfig,
    examples: &[&Example],
    decode: &GenerateConfig,
    shares: &Shares,
    device: &Device,
) -> Result<Vec<Option<String>>, TrainError> {
    let parts = ranges(examples.len(), shares.count());
    let parts = parts.map(|part| (model.clone(), &examples[part])).collect();
    let said = shares.map(parts, |_, (model, examples): (Captioner, &[&Example])| {
        captions_of_share(&model, plan, loader, examples, decode, device)
    });
    let said: Result<Vec<_>, _> = said.into_iter().collect();
    Ok(said?.concat())
}

fn captions_of_share(
    model: &Captioner,
    plan: &Plan,
    loader: &LoaderConfig,
    examples: &[&Example],
    decode: &GenerateConfig,
    device: &Device,
) -> Result<Vec<Option<String>>, TrainError> {
    let loader = LoaderConfig { augment: None, ..loader.clone() };
    let device = device.clone().inner();
    let end = plan.tokenizer.special_tokens().eos;
    let begin = plan.begin();
    let mut captions = Vec::with_capacity(examples.len());
    for examples in examples.chunks(loader.batch_size) {
        let read: Vec<Option<Vec<f32>>> =
            examples.par_iter().map(|example| loader.read_image(example, 0).ok()).collect();
        let images = read.iter().flatten().count();
        if images == 0 {
            captions.extend(read.iter().map(|_| None));
            continue;
        }
        let pixels = read.iter().flatten().flatten().copied().collect();
        let mut batch = Batch { images, encoder_inputs: pixels, ..Batch::default() };
        let memory = memory(model, &mut batch, &loader, plan.trained.frozen_until, &device);
        let said = generate_from_memory(model, &memory, &begin, end, decode, loader.bucket)?;
        let text = |ids: &[u32]| plan.tokenizer.decode(&ids[begin.len()..]).trim_start().to_owned();
        let mut said = said.into_iter().map(|said| text(&said.ids));
        captions.extend(read.iter().map(|image| image.as_ref().and_then(|_| said.next())));
    }
    Ok(captions)
}

/// CIDEr of what `model`, on a device without autodiff, says of the validation images, decoding as
/// the plan has it. Document frequencies are those of the images' references. Images that cannot be
/// read are left out.
pub(super) fn cider(
    model: &Captioner,
    plan: &Plan,
    loader: &LoaderConfig,
    shares: &Shares,
    device: &Device,
) -> Result<f64, TrainError> {
    let decode = plan.decoding();
    let examples: Vec<&Example> = plan.val.iter().collect();
    let said = captions(model, plan, loader, &examples, &decode, shares, device)?;
    let (said, references): (Vec<String>, Vec<Vec<String>>) = said
        .par_iter()
        .zip(&plan.val_references)
        .filter_map(|(said, references)| {
            let references = references.iter().map(|reference| tokenize(reference)).collect();
            said.as_ref().map(|said| (tokenize(said), references))
        })
        .unzip();
    let cider = CiderDOfWords::from_references(&references);
    let scores = said.iter().zip(&references).map(|(said, of_it)| cider.score(said, of_it));
    Ok(scores.sum::<f64>() / said.len().max(1) as f64)
}
