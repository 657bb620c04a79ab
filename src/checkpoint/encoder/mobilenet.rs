//! torchvision's MobileNetV2 as the backbone of a hybrid.
//!
//! Each convolution's batch norm, with the statistics of its training, is folded into it: an output
//! channel's weights are scaled by `γ/√(σ² + ε)` and its bias becomes `β − μ·γ/√(σ² + ε)`.

use std::path::Path;

use super::*;
use crate::image::{ResizeFilter, ResizeMode};
use crate::model::{Backbone, MobileNetV2Shape};

/// ε of torchvision's batch norms.
const EPSILON: f64 = 1e-5;

/// ImageNet's mean and standard deviation, red, green and blue.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

pub(super) fn load(path: &Path) -> Result<PretrainedEncoder, CheckpointError> {
    let mut source = tensors::read(path)?;
    let width = width(&source).ok_or_else(|| CheckpointError::Invalid {
        file: path.into(),
        problem: "not an encoder that is known; expected the weights of torchvision's MobileNetV2"
            .into(),
    })?;
    // Its classes, and how many batches its statistics saw.
    source.retain(|name, _| {
        !name.starts_with("classifier.") && !name.ends_with(".num_batches_tracked")
    });
    let mut folding = Folding { source, tensors: HostTensors::new(), file: path };
    folding.layer("stem", "features.0.0", "features.0.1")?;
    let shape = MobileNetV2Shape::new(width);
    for (index, block) in shape.blocks.iter().enumerate() {
        let theirs = format!("features.{}.conv", index + 1);
        let ours = |part: &str| format!("blocks.{index}.{part}");
        let mut stage = 0;
        let mut within = |part: &str| -> Result<(), CheckpointError> {
            let (conv, norm) = (format!("{theirs}.{stage}.0"), format!("{theirs}.{stage}.1"));
            stage += 1;
            folding.layer(&ours(part), &conv, &norm)
        };
        if block.hidden != block.input {
            within("expand")?;
        }
        within("depthwise")?;
        let (conv, norm) = (format!("{theirs}.{stage}"), format!("{theirs}.{}", stage + 1));
        folding.layer(&ours("project"), &conv, &norm)?;
    }
    let head = shape.blocks.len() + 1;
    folding.layer("head", &format!("features.{head}.0"), &format!("features.{head}.1"))?;
    if let Some(first) = folding.source.keys().next() {
        return Err(CheckpointError::UnexpectedTensor {
            file: path.into(),
            tensor: first.clone(),
            others: folding.source.len() - 1,
        });
    }
    Ok(PretrainedEncoder {
        origin: path.into(),
        config: EncoderConfig {
            backbone: Some(Backbone::MobileNetV2),
            backbone_width: width,
            patch_size: 32,
            ..EncoderConfig::default()
        },
        part: EncoderPart::Backbone,
        tensors: folding.tensors,
        preprocess: PreprocessConfig {
            resize: ResizeMode::Squash,
            filter: ResizeFilter::Bilinear,
            mean: MEAN,
            std: STD,
            ..PreprocessConfig::default()
        },
    })
}

/// The width whose channels these are: 1, or another multiple of 0.05.
fn width(source: &HostTensors) -> Option<f64> {
    let channels = |name: &str| source.get(name).and_then(|tensor| tensor.shape.first().copied());
    let stem = channels("features.0.0.weight")?;
    let fits = |width: &f64| {
        let shape = MobileNetV2Shape::new(*width);
        let block = |index: usize| {
            let output = usize::from(shape.blocks[index].hidden != shape.blocks[index].input) + 1;
            channels(&format!("features.{}.conv.{output}.weight", index + 1))
        };
        let head = format!("features.{}.0.weight", shape.blocks.len() + 1);
        shape.stem == stem
            && channels(&head) == Some(shape.channels)
            && (0..shape.blocks.len()).all(|index| block(index) == Some(shape.blocks[index].output))
    };
    std::iter::once(20).chain(1..=80).map(|part| f64::from(part) / 20.0).find(fits)
}

struct Folding<'a> {
    source: HostTensors,
    tensors: HostTensors,
    file: &'a Path,
}

impl Folding<'_> {
    fn take(&mut self, name: String, channels: Option<usize>) -> Result<HostTensor, CheckpointError> {
        let expected: Vec<usize> = channels.into_iter().collect();
        let Some(tensor) = self.source.remove(&name) else {
            return Err(CheckpointError::MissingTensor {
                file: self.file.into(),
                tensor: name,
                shape: expected,
            });
        };
        if channels.is_some() && tensor.shape != expected {
            return Err(CheckpointError::TensorShape {
                file: self.file.into(),
                tensor: name,
                found: tensor.shape,
                expected,
            });
        }
        Ok(tensor)
    }

    /// A convolution without a bias and the batch norm behind it as a convolution with one.
    fn layer(&mut self, ours: &str, conv: &str, norm: &str) -> Result<(), CheckpointError> {
        let HostTensor { shape, mut values } = self.take(format!("{conv}.weight"), None)?;
        let channels = shape.first().copied().unwrap_or(0);
        let mut of_norm =
            |part: &str| self.take(format!("{norm}.{part}"), Some(channels)).map(|it| it.values);
        let (gamma, beta) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let width = (values.len() / channels.max(1)).max(1);
        let mut bias = Vec::with_capacity(channels);
        for (channel, row) in values.chunks_mut(width).enumerate() {
            let scale = f64::from(gamma[channel]) / (f64::from(variance[channel]) + EPSILON).sqrt();
            row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
            bias.push((f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32);
        }
        let name = format!("encoder.backbone.{ours}");
        self.tensors.insert(format!("{name}.weight"), HostTensor { shape, values });
        let bias = HostTensor { shape: vec![channels], values: bias };
        self.tensors.insert(format!("{name}.bias"), bias);
        Ok(())
    }
}
