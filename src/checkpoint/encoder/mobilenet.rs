//! torchvision's MobileNetV2 as the backbone of a hybrid.
//!
//! Each convolution's batch norm, with the statistics of its training, is folded into it: an output
//! channel's weights are scaled by `γ/√(σ² + ε)` and its bias becomes `β − μ·γ/√(σ² + ε)`.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::CheckpointError;
use super::super::tensors::{HostTensor, HostTensors};
use super::super::weight_file::WeightFile;
use super::{EncoderPart, IMAGENET_MEAN, IMAGENET_STD, PretrainedEncoder};
use crate::image::{PreprocessConfig, ResizeFilter, ResizeMode};
use crate::model::{EncoderConfig, MobileNetV2Shape, PatchSource};

/// ε of torchvision's batch norms.
const EPSILON: f64 = 1e-5;

/// Reads such a file; none where it is of another model.
pub(super) fn load(
    path: &Path,
    source: &WeightFile,
) -> Result<Option<PretrainedEncoder>, CheckpointError> {
    let Some(width) = width(source) else { return Ok(None) };
    let shape = MobileNetV2Shape::new(width);
    let mut folding = Folding { source, used: BTreeSet::new(), tensors: HostTensors::new() };
    folding.layer("stem", ["features.0.0", "features.0.1"], [shape.stem, 3, 3, 3])?;
    for (index, block) in shape.blocks.iter().enumerate() {
        let theirs = |part: String| format!("features.{}.conv.{part}", index + 1);
        let ours = |part: &str| format!("blocks.{index}.{part}");
        let mut stage = 0;
        if block.hidden != block.input {
            let names = [theirs("0.0".into()), theirs("0.1".into())];
            folding.layer(&ours("expand"), names, [block.hidden, block.input, 1, 1])?;
            stage = 1;
        }
        let names = [theirs(format!("{stage}.0")), theirs(format!("{stage}.1"))];
        folding.layer(&ours("depthwise"), names, [block.hidden, 1, 3, 3])?;
        let names = [theirs(format!("{}", stage + 1)), theirs(format!("{}", stage + 2))];
        folding.layer(&ours("project"), names, [block.output, block.hidden, 1, 1])?;
    }
    let last = shape.blocks.last().map_or(shape.stem, |block| block.output);
    let names = ["0", "1"].map(|part| format!("features.{}.{part}", shape.blocks.len() + 1));
    folding.layer("head", names, [shape.channels, last, 1, 1])?;
    let Folding { used, tensors, .. } = folding;
    // Its classes, and how many batches its statistics saw.
    let of_no_use =
        |name: &str| name.starts_with("classifier.") || name.ends_with(".num_batches_tracked");
    let left: Vec<&str> =
        source.names().filter(|name| !used.contains(*name) && !of_no_use(name)).collect();
    if let Some((first, others)) = left.split_first() {
        return Err(CheckpointError::UnexpectedTensor {
            file: path.into(),
            tensor: (*first).into(),
            others: others.len(),
        });
    }
    Ok(Some(PretrainedEncoder {
        origin: path.into(),
        config: EncoderConfig {
            patches: PatchSource::MobileNetV2 { width },
            patch_size: 32,
            ..EncoderConfig::default()
        },
        part: EncoderPart::Backbone,
        tensors,
        preprocess: PreprocessConfig {
            resize: ResizeMode::Squash,
            filter: ResizeFilter::Bilinear,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            ..PreprocessConfig::default()
        },
    }))
}

/// The width whose channels these are: 1, or another multiple of 0.05.
fn width(source: &WeightFile) -> Option<f64> {
    let channels = |name: &str| source.shape(name).and_then(|shape| shape.first().copied());
    let stem = channels("features.0.0.weight")?;
    let fits = |width: &f64| {
        let shape = MobileNetV2Shape::new(*width);
        let head = format!("features.{}.0.weight", shape.blocks.len() + 1);
        shape.stem == stem
            && channels(&head) == Some(shape.channels)
            && shape.blocks.iter().enumerate().all(|(index, block)| {
                let stage = 1 + usize::from(block.hidden != block.input);
                channels(&format!("features.{}.conv.{stage}.weight", index + 1))
                    == Some(block.output)
            })
    };
    std::iter::once(20).chain(1..=80).map(|part| f64::from(part) / 20.0).find(fits)
}

struct Folding<'a> {
    source: &'a WeightFile,
    used: BTreeSet<String>,
    tensors: HostTensors,
}

impl Folding<'_> {
    fn read(&mut self, name: String, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let HostTensor { shape, values } = self.source.read(&name)?;
        if shape != expected {
            return Err(CheckpointError::TensorShape {
                file: self.source.origin().into(),
                tensor: name,
                found: shape,
                expected: expected.into(),
            });
        }
        self.used.insert(name);
        Ok(values)
    }

    /// A convolution without a bias and the batch norm behind it as a convolution with one.
    fn layer(
        &mut self,
        ours: &str,
        [conv, norm]: [impl std::fmt::Display; 2],
        shape: [usize; 4],
    ) -> Result<(), CheckpointError> {
        let [channels, rest @ ..] = shape;
        let mut weight = self.read(format!("{conv}.weight"), &shape)?;
        let mut of_norm = |part: &str| self.read(format!("{norm}.{part}"), &[channels]);
        let (gamma, beta) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let mut bias = Vec::with_capacity(channels);
        let rows = weight.chunks_mut(rest.iter().product());
        for (channel, row) in rows.enumerate() {
            let scale = f64::from(gamma[channel]) / (f64::from(variance[channel]) + EPSILON).sqrt();
            row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
            bias.push((f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32);
        }
        let name = format!("encoder.backbone.{ours}");
        let weight = HostTensor { shape: shape.to_vec(), values: weight };
        self.tensors.insert(format!("{name}.weight"), weight);
        let bias = HostTensor { shape: vec![channels], values: bias };
        self.tensors.insert(format!("{name}.bias"), bias);
        Ok(())
    }
}
