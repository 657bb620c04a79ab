//! Which weights a run changes: all, all but the frozen ones, or low-rank adapters on top of some.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Lora, Module, Param, ParamGroup};
use burn::tensor::{Tensor, TensorData};
use glob::Pattern;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::config::{TrainConfig, TrainConfigError, one_or_many};
use crate::model::{
    Captioner, EncoderStage, MapParameters, ParameterPath, ParameterRole, VisitParameters,
    map_parameters, visit_parameters,
};

/// Low-rank adaptation (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>): the weights stay as they
/// are, and what is learned is `alpha / rank · A·B` on top of some of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Columns of `A` and rows of `B`.
    pub rank: usize,
    /// What the product is scaled by, times `rank`.
    pub alpha: f64,
    /// The matrices that are adapted, named as in `train.freeze`.
    #[serde(deserialize_with = "one_or_many")]
    pub targets: Vec<String>,
    /// Whether checkpoints hold the sum, to be used like any other, or the weights as they were and
    /// `A` and `B` beside them, in adapter.safetensors.
    pub merge: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let targets = ["*attention.query", "*attention.key_value"];
        Self { rank: 8, alpha: 16.0, targets: targets.map(String::from).into(), merge: true }
    }
}

/// The parameters of a model, divided by what training does to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Names of the parameters that stay as they are.
    frozen: Vec<String>,
    /// Names of the matrices that get an adapter.
    adapted: Vec<String>,
    /// Numbers that are learned.
    pub parameters: usize,
    /// How far the encoder is frozen from its beginning: so far nothing is kept for a backward pass, and
    /// features can be computed once. `Pixels` where its first weights are learned, or there are none
    /// before the patch embedding.
    pub frozen_until: EncoderStage,
}

/// A setting that names no parameter.
#[derive(Debug, Clone, PartialEq)]
struct NoSuchParameter {
    key: &'static str,
    problem: String,
}

impl Trained {
    /// Reads `train.freeze`, `train.freeze_encoder` and `lora` against the parameters of `model`; errors name
    /// `file`.
    ///
    /// # Errors
    /// A pattern that names no parameter, or leaves none to train.
    pub fn new(
        config: &TrainConfig,
        file: &Path,
        model: &Captioner,
    ) -> Result<Self, TrainConfigError> {
        let mut shapes = Shapes(Vec::new());
        visit_parameters(model, &mut shapes);
        Self::of(config, &shapes.0)
            .map_err(|error| config.value_error(file, error.key, error.problem))
    }

    fn of(config: &TrainConfig, shapes: &[(String, Vec<usize>)]) -> Result<Self, NoSuchParameter> {
        let mut patterns = config.train.freeze.clone();
        if config.train.freeze_encoder {
            patterns.push("encoder".into());
        }
        let names: Vec<&str> = shapes.iter().map(|(name, _)| name.as_str()).collect();
        let mut frozen = matching("train.freeze", &patterns, &names)?;
        let mut adapted = BTreeSet::new();
        let mut parameters = 0;
        if let Some(lora) = &config.lora {
            let matrices: Vec<&str> = shapes
                .iter()
                .filter(|(_, s)| s.len() == 2)
                .map(|(name, _)| name.as_str())
                .collect();
            adapted = matching("lora.targets", &lora.targets, &matrices)?;
            adapted.retain(|name| !frozen.contains(name));
            frozen = names.iter().map(|name| (*name).to_string()).collect();
            let sides = shapes.iter().filter(|(name, _)| adapted.contains(name));
            parameters = sides.map(|(_, shape)| lora.rank * shape.iter().sum::<usize>()).sum();
        }
        let learned = |name: &String| !frozen.contains(name) || adapted.contains(name);
        let are_frozen = |parts: &[String]| {
            let inside = |name: &str| parts.iter().any(|part| name.starts_with(part));
            let mut of_parts = shapes.iter().filter(|(name, _)| inside(name)).peekable();
            of_parts.peek().is_some() && !of_parts.any(|(name, _)| learned(name))
        };
        let frozen_until = [EncoderStage::States, EncoderStage::Patches, EncoderStage::Block(0)]
            .into_iter()
            .find(|&stage| are_frozen(&parts_before(stage)));
        let frozen_until = match frozen_until {
            Some(EncoderStage::Block(_)) => {
                EncoderStage::Block((0..).take_while(|&index| are_frozen(&[block(index)])).count())
            }
            stage => stage.unwrap_or(EncoderStage::Pixels),
        };
        let rest = shapes.iter().filter(|(name, _)| !frozen.contains(name));
        parameters += rest.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
        if parameters == 0 {
            let problem = "leaves nothing to train; expected fewer patterns".into();
            return Err(NoSuchParameter { key: "train.freeze", problem });
        }
        let (frozen, adapted) = (frozen.into_iter().collect(), adapted.into_iter().collect());
        Ok(Self { frozen, adapted, parameters, frozen_until })
    }

    /// Freezes and adapts `model`, which then computes what it did before.
    pub(super) fn apply(&self, model: Captioner, config: &TrainConfig) -> Captioner {
        let Some(lora) = &config.lora else {
            return model.freeze_group(ParamGroup::from_paths(self.frozen.clone()));
        };
        let targets = ParamGroup::from_paths(self.adapted.clone());
        let adapted = model.apply_lora(Lora::new(lora.rank, lora.alpha).set_param_group(targets));
        let rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0x10_4a);
        map_parameters(adapted, &mut StartAdapters(rng))
    }
}

/// What the names of the parameters before `stage` begin with.
pub(super) fn parts_before(stage: EncoderStage) -> Vec<String> {
    match stage {
        EncoderStage::Pixels => Vec::new(),
        EncoderStage::Block(blocks) => {
            std::iter::once("encoder.backbone.stem.".into()).chain((0..blocks).map(block)).collect()
        }
        EncoderStage::Patches => vec!["encoder.backbone.".into(), "encoder.stem.".into()],
        EncoderStage::States => vec!["encoder.".into()],
    }
}

fn block(index: usize) -> String {
    format!("encoder.backbone.blocks.{index}.")
}

/// The `names` that match one of `patterns` or lie below something that does.
fn matching(
    key: &'static str,
    patterns: &[String],
    names: &[&str],
) -> Result<BTreeSet<String>, NoSuchParameter> {
    let mut found = BTreeSet::new();
    for text in patterns {
        let problem = |problem: String| NoSuchParameter { key, problem };
        let pattern = Pattern::new(text)
            .map_err(|error| problem(format!("\"{text}\" is not a pattern: {}", error.msg)))?;
        let covers = |name: &str| {
            let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|end| pattern.matches(&name[..end]))
        };
        let before = found.len();
        found.extend(names.iter().filter(|name| covers(name)).map(|name| (*name).to_string()));
        if found.len() == before && !names.iter().any(|name| covers(name)) {
            let like = names
                .iter()
                .max_by(|a, b| {
                    strsim::jaro_winkler(text, a).total_cmp(&strsim::jaro_winkler(text, b))
                })
                .copied()
                .unwrap_or_default();
            return Err(problem(format!(
                "\"{text}\" is the name of nothing here; expected a name such as \"{like}\", or a \
                 part of one, with * for anything"
            )));
        }
    }
    Ok(found)
}

/// Names and shapes.
struct Shapes(Vec<(String, Vec<usize>)>);

impl VisitParameters for Shapes {
    fn visit<const D: usize>(&mut self, path: &ParameterPath, param: &Param<Tensor<D>>) {
        self.0.push((path.dotted(), param.lazy_shape().to_vec()));
    }
}

/// Draws the first factor of each adapter on the host, so that it is the same on every device; the
/// second one stays at zero.
struct StartAdapters(ChaCha8Rng);

impl MapParameters for StartAdapters {
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        param: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        if path.role(D) != ParameterRole::AdapterA {
            return param;
        }
        let dims: [usize; D] = param.lazy_shape().dims();
        // Uniform, as He et al. 2015 have it for a linear map of so many inputs.
        let bound = (3.0 / dims[0] as f32).sqrt();
        let count = dims.iter().product();
        let values: Vec<f32> =
            (0..count).map(|_| (self.0.random::<f32>() * 2.0 - 1.0) * bound).collect();
        let device = param.lazy_device();
        param.map(|_| Tensor::from_data(TensorData::new(values, dims), &device).require_grad())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::{CaptionerConfig, PatchSource};
    use EncoderStage::{Block, Patches, Pixels, States};

    fn frozen_until(patches: PatchSource, freeze: &[&str], lora: bool) -> EncoderStage {
        let mut model = CaptionerConfig::default();
        model.encoder.patches = patches;
        model.encoder.patch_size = 32;
        model.decoder.vocab_size = 300;
        let mut config = TrainConfig { model, ..TrainConfig::default() };
        config.train.freeze = freeze.iter().map(ToString::to_string).collect();
        config.lora = lora.then(LoraConfig::default);
        let model = Captioner::new(&config.model, &Device::flex()).unwrap();
        Trained::new(&config, Path::new("run.toml"), &model).unwrap().frozen_until
    }

    #[test]
    fn an_encoder_is_frozen_up_to_its_first_weight_that_is_learned() {
        let mobilenet = || PatchSource::MobileNetV2 { width: 1.0 };
        let hybrid = |freeze: &[&str]| frozen_until(mobilenet(), freeze, false);
        assert_eq!(hybrid(&[]), Pixels);
        assert_eq!(hybrid(&["encoder"]), States);
        assert_eq!(hybrid(&["encoder.backbone"]), Patches);
        assert_eq!(hybrid(&["encoder.backbone.stem"]), Block(0));
        let most = ["encoder.backbone.stem", "encoder.backbone.blocks"];
        assert_eq!(hybrid(&most), Block(17));
        let tail = ["*.stem", "*.blocks.[0-9]", "*.blocks.1[0-2]"];
        assert_eq!(hybrid(&tail), Block(13));
        // Blocks after one that is learned save nothing; nor does one of ten with another's name.
        assert_eq!(hybrid(&["*.stem", "*.blocks.0", "*.blocks.1", "*.blocks.3"]), Block(2));
        assert_eq!(hybrid(&["*.stem", "*.blocks.1?"]), Block(0));
        assert_eq!(hybrid(&["*.blocks", "*.head"]), Pixels);
        assert_eq!(frozen_until(PatchSource::Image, &["encoder.patch_embedding"], false), Pixels);
        // Adapters in the encoder's layers leave the backbone frozen.
        assert_eq!(frozen_until(mobilenet(), &[], true), Patches);
    }
}
