//! What a checkpoint keeps beyond the model, so that a run can go on as if it had never stopped.
//!
//! The order of images, augmentation, dropout and the learning rate are functions of the seed and
//! the step: the step, the optimizer's moments and the weights are the whole state.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TrainError;
use super::config::TrainConfig;
use super::folder::{BEST, LAST, RECENT, is_of_checkpoint, recent_weights};
use super::optimizer::AdamW;
use super::plan::Plan;
use crate::checkpoint::weight_file::WeightFile;
use crate::checkpoint::{
    self, Architecture, CheckpointError, ConfigFile, Contents, adapter, atomic,
    tensors::{self, HostTensors},
};
use crate::model::Captioner;
use crate::text::Tokenizer;

/// `training/state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunState {
    /// Steps taken.
    pub step: u64,
    /// Validation loss of the best checkpoint so far, in nats a token.
    pub best_loss: Option<f64>,
    /// The CIDEr of that checkpoint, where it was chosen by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_cider: Option<f64>,
    /// Its step.
    pub best_step: Option<u64>,
    /// The steps whose weights it is the mean of, if it is one; `best_step` is then the best single
    /// one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub best_average: Vec<u64>,
    /// With which other settings it went on, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// [`Plan::fingerprint`], in hexadecimal.
    pub data: String,
    /// The licence of what the run began with, if its card named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The run's config; its `init` is what the run began with.
    pub config: TrainConfig,
}

impl RunState {
    /// Makes the next validation's checkpoint the best; the step of the one that was, if there was one.
    pub fn forget_best(&mut self) -> Option<u64> {
        (self.best_loss, self.best_cider) = (None, None);
        self.best_average.clear();
        self.best_step.take()
    }
}

/// Settings that a run was resumed with and had not had before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// Steps taken until then.
    pub step: u64,
    /// As [`changed_settings`] names them.
    pub settings: Vec<String>,
}

/// Writes `last`: weights for captioning, and all that resuming needs.
pub(super) fn save_last(
    plan: &Plan,
    model: &Captioner,
    optimizer: &AdamW,
    state: &RunState,
    card: &str,
) -> Result<(), TrainError> {
    let differs = trains_other_weights(&plan.config);
    let raw = tensors::parameters(model);
    atomic::replace_folder(&plan.config.output.join(LAST), is_of_checkpoint, |folder| {
        write_model(folder, plan, model, optimizer, card)?;
        let training = folder.join("training");
        fs::create_dir(&training).map_err(|source| CheckpointError::io(&training, source))?;
        checkpoint::write_json(&training.join("state.json"), state)?;
        let none = Default::default;
        tensors::write(&training.join("optimizer.safetensors"), &optimizer.state(), none())?;
        if differs {
            tensors::write(&training.join("weights.safetensors"), &raw, none())?;
        }
        Ok(())
    })
}

/// Whether what is captioned with is not what is trained, whose weights `last` then has besides.
fn trains_other_weights(config: &TrainConfig) -> bool {
    config.optimizer.ema_decay > 0.0 || config.lora.is_some()
}

/// Writes `best`: weights for captioning only.
pub(super) fn save_best(
    plan: &Plan,
    model: &Captioner,
    optimizer: &AdamW,
    card: &str,
) -> Result<(), TrainError> {
    atomic::replace_folder(&plan.config.output.join(BEST), is_of_checkpoint, |folder| {
        write_model(folder, plan, model, optimizer, card)
    })
}

/// Writes `average` or `best` from weights by name.
pub(super) fn save_weights(
    plan: &Plan,
    name: &str,
    weights: &HostTensors,
    card: &str,
) -> Result<(), TrainError> {
    Ok(atomic::replace_folder(&plan.config.output.join(name), is_of_checkpoint, |folder| {
        checkpoint::write_into(folder, &contents(plan, card), weights)
    })?)
}

/// Keeps the weights of `step` for captioning in `recent`, and no more of those before than are wanted.
pub(super) fn save_recent(
    plan: &Plan,
    model: &Captioner,
    optimizer: &AdamW,
    step: u64,
) -> Result<(), TrainError> {
    let folder = plan.config.output.join(RECENT);
    fs::create_dir_all(&folder).map_err(|source| CheckpointError::io(&folder, source))?;
    let weights = whole_weights(plan, optimizer.averaged(model.clone()));
    atomic::replace_file_by(&folder.join(format!("{step}.safetensors")), |file| {
        tensors::write(file, &weights, Default::default())
    })?;
    let kept = recent_weights(&plan.config.output);
    let surplus = kept.len().saturating_sub(plan.config.train.average_last);
    for (_, file) in &kept[..surplus] {
        fs::remove_file(file).map_err(|source| CheckpointError::io(file, source))?;
    }
    Ok(())
}

/// All weights of a model that has no adapters, or is to have them added to what they adapt.
fn whole_weights(plan: &Plan, model: Captioner) -> HostTensors {
    match plan.config.lora {
        None => tensors::parameters(&model),
        Some(_) => tensors::parameters(&model.valid().materialize()),
    }
}

/// Writes the averaged model, adapters added to what they adapt or in a file of their own.
fn write_model(
    folder: &Path,
    plan: &Plan,
    model: &Captioner,
    optimizer: &AdamW,
    card: &str,
) -> Result<(), TrainError> {
    let model = optimizer.averaged(model.clone());
    let (weights, adapters) = match &plan.config.lora {
        Some(lora) if !lora.merge => {
            let (adapters, weights) = tensors::parameters(&model)
                .into_iter()
                .partition(|(name, _)| adapter::belongs_to_one(name));
            (weights, Some((lora, adapters)))
        }
        _ => (whole_weights(plan, model), None),
    };
    checkpoint::write_into(folder, &contents(plan, card), &weights)?;
    if let Some((lora, adapters)) = adapters {
        let (scale, base) = ((lora.rank, lora.alpha), plan.config.init.name());
        adapter::write(folder, &adapters, scale, &contents(plan, card), base)?;
    }
    Ok(())
}

fn contents<'a>(plan: &'a Plan, card: &'a str) -> Contents<'a> {
    Contents {
        model: &plan.config.model,
        generate: &plan.generate,
        tokenizer: &plan.tokenizer,
        preprocess: &plan.config.image,
        architecture: plan.architecture,
        card,
    }
}

/// Reads the state of the run in `folder`.
pub(super) fn read_state(folder: &Path) -> Result<RunState, TrainError> {
    Ok(checkpoint::read_json(&folder.join("training").join("state.json"))?)
}

/// The share of images that the run of `checkpoint` held out, if it was trained on the data set at `data` and
/// its run is there. `checkpoint` is what the run's folder holds, `best` for instance.
pub fn held_out(checkpoint: &Path, data: &Path) -> Option<f64> {
    let RunState { config, .. } = read_state(&checkpoint.parent()?.join(LAST)).ok()?;
    let place = |path: &Path| fs::canonicalize(path).ok();
    (place(&config.data.path)? == place(data)?).then_some(config.data.val_share)
}

/// Reads the tokenizer of the run in `folder`, and which public model it began with.
pub(super) fn read_tokenizer(
    folder: &Path,
) -> Result<(Tokenizer, Option<Architecture>), TrainError> {
    let file: ConfigFile = checkpoint::read_json(&folder.join("config.json"))?;
    Ok((checkpoint::read_tokenizer(folder, &file)?, file.architecture))
}

/// Whether a run can go on under `plan`: same data, same model, same seed. Anything else may differ
/// (a longer run, another rate), and then the result does too.
pub(super) fn check_same(folder: &Path, state: &RunState, plan: &Plan) -> Result<(), TrainError> {
    let problem =
        |problem: String| Err(TrainError::CannotResume { folder: folder.into(), problem });
    let (old, new) = (&state.config, &plan.config);
    // What makes another data set or model of the same files, where it was changed.
    let because = |sections: &[&str], otherwise: &str| {
        let is_of = |setting: &&String| sections.iter().any(|section| setting.starts_with(section));
        let changed = changed_settings(old, new);
        let causes: Vec<&str> = changed.iter().filter(is_of).map(String::as_str).collect();
        if causes.is_empty() { otherwise.to_string() } else { causes.join("; ") }
    };
    if old.model != new.model {
        let cause = because(&["model.", "image.", "tokenizer."], "its parts or sizes differ");
        return problem(format!("the model is another: {cause}"));
    }
    if old.seed != new.seed {
        return problem(format!("the seed was {} and is now {}", old.seed, new.seed));
    }
    if state.data != format!("{:016x}", plan.fingerprint) {
        let cause = because(
            &["data.val_share", "data.format", "tokenizer."],
            "images or captions were added, removed or changed",
        );
        return problem(format!("the training data are others: {cause}"));
    }
    Ok(())
}

/// The settings that change what a resumed run computes, as `key: was, is now`; where the data and the
/// run's folder lie does not.
pub(super) fn changed_settings(old: &TrainConfig, new: &TrainConfig) -> Vec<String> {
    const SAME_RUN: [&str; 5] =
        ["output", "data.path", "data.images", "data.workers", "data.allow_bad"];
    let leaves = |config: &TrainConfig| {
        let mut leaves = BTreeMap::new();
        collect_leaves("", &serde_json::to_value(config).unwrap_or_default(), &mut leaves);
        leaves
    };
    let (old, mut new) = (leaves(old), leaves(new));
    let mut changed = Vec::new();
    for (key, was) in old {
        let now = new.remove(&key).unwrap_or_default();
        if was != now && !SAME_RUN.contains(&key.as_str()) {
            changed.push(format!("{key} was {was} and is now {now}"));
        }
    }
    changed
}

fn collect_leaves(key: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    let Value::Object(fields) = value else {
        leaves.insert(key.into(), value.clone());
        return;
    };
    for (name, field) in fields {
        let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        collect_leaves(&path, field, leaves);
    }
}

/// Restores weights and optimizer of the run in `folder`, whose state is `state`.
pub(super) fn restore(
    folder: &Path,
    model: Captioner,
    optimizer: &mut AdamW,
    state: &RunState,
    device: &Device,
) -> Result<Captioner, TrainError> {
    let training = folder.join("training");
    // Averaged weights in their place would go unnoticed, and the run would be another.
    let weights_file = match trains_other_weights(&state.config) {
        true => training.join("weights.safetensors"),
        false => folder.join("model.safetensors"),
    };
    let weights = WeightFile::open(&weights_file)?;
    let file = training.join("optimizer.safetensors");
    let moments = WeightFile::open(&file)?.read_all()?;
    for (tensor, moment) in &moments {
        let parameter = tensor.split_once('.').and_then(|(_, path)| weights.shape(path));
        let Some(parameter) = parameter else {
            return Err(CheckpointError::UnexpectedTensor {
                file,
                tensor: tensor.clone(),
                others: 0,
            }
            .into());
        };
        let expected = parameter.iter().product();
        if moment.values.len() != expected {
            return Err(CheckpointError::TensorShape {
                file,
                tensor: tensor.clone(),
                found: moment.shape.clone(),
                expected: vec![expected],
            }
            .into());
        }
    }
    let model = tensors::apply(model, weights, &weights_file)?;
    let averages = moments.keys().filter(|name| name.starts_with("average.")).count();
    let firsts = moments.keys().filter(|name| name.starts_with("first.")).count();
    if state.config.optimizer.ema_decay > 0.0 && averages < firsts {
        return Err(TrainError::CannotResume {
            folder: folder.into(),
            problem: format!(
                "optimizer.safetensors has {averages} moving averages of {firsts} weights"
            ),
        });
    }
    let left_over = optimizer.restore(moments, state.step, device);
    match left_over.first() {
        Some(name) => Err(TrainError::CannotResume {
            folder: folder.into(),
            problem: format!("optimizer.safetensors: tensor `{name}` belongs to nothing"),
        }),
        None => Ok(model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_settings_are_named_and_places_are_not() {
        let old = TrainConfig::default();
        let mut new = TrainConfig { output: "elsewhere".into(), ..old.clone() };
        new.data.path = "moved".into();
        assert_eq!(changed_settings(&old, &new), Vec::<String>::new());
        new.train.max_steps = Some(12);
        new.schedule.learning_rate = 0.5;
        let changed = changed_settings(&old, &new);
        assert_eq!(
            changed,
            [
                "schedule.learning_rate was 0.001 and is now 0.5",
                "train.max_steps was null and is now 12"
            ]
        );
    }
}
