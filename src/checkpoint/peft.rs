//! Adapters of peft: `adapter_config.json` and `adapter_model.safetensors` (or `.bin`), in a folder of
//! their own or within that of the model that they adapt.
//!
//! LoRA (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>) on linear maps is read: a module's matrix becomes
//! `W + s·B·A`, with `s` of `lora_alpha` and the rank. What would compute anything else is refused by its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex_automata::meta::Regex;
use serde_json::{Map, Value, json};

use super::tensors::{self, HostTensor, HostTensors};
use super::weight_file::WeightFile;
use super::{CheckpointError, read_json, write_json};

/// The file that says what an adapter is.
pub(super) const CONFIG: &str = "adapter_config.json";

/// Files of an adapter's tensors.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// What peft puts before the names of the model's modules.
const PREFIX: &str = "base_model.model.";

/// The factors of one module.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Factors {
    /// `[rank, in]`, row by row.
    pub a: Vec<f32>,
    /// `[out, rank]`, row by row, the scale within it.
    pub b: Vec<f32>,
    /// Columns of `a`.
    pub input: usize,
    /// Rows of `b`.
    pub output: usize,
    /// Rows of `a`, columns of `b`.
    pub rank: usize,
}

/// An adapter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PeftAdapter {
    /// The file of its tensors, for errors.
    pub file: PathBuf,
    /// By the public names of the modules.
    pub modules: BTreeMap<String, Factors>,
}

/// Kinds of LoRA that compute something else, and keys that change weights besides, by the value that
/// leaves them off.
const OFF: [&str; 9] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "modules_to_save",
];

/// Ways to begin that leave the model's own weights as they are. The others (PiSSA, OLoRA, LoftQ, …) change
/// them.
const PLAIN_BEGINNINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// Reads the adapter in a folder; nothing where there is none.
///
/// # Errors
/// A file that is missing or damaged, or the key that asks for what is not done.
pub(super) fn read(folder: &Path) -> Result<Option<PeftAdapter>, CheckpointError> {
    let config_file = folder.join(CONFIG);
    if !config_file.is_file() {
        return Ok(None);
    }
    let config: Map<String, Value> = read_json(&config_file)?;
    let invalid = |problem: String| CheckpointError::Invalid { file: config_file.clone(), problem };
    check(&config).map_err(invalid)?;
    let Some(file) = WEIGHTS.map(|name| folder.join(name)).into_iter().find(|file| file.is_file())
    else {
        let problem = "is not here, nor adapter_model.bin: the adapter's tensors".into();
        return Err(CheckpointError::Invalid { file: folder.join(WEIGHTS[0]), problem });
    };
    let scales = Scales::new(&config).map_err(invalid)?;
    let weights = WeightFile::open(&file)?;
    let mut halves: BTreeMap<String, [Option<HostTensor>; 2]> = BTreeMap::new();
    for name in weights.names() {
        let plain = name.strip_prefix(PREFIX).unwrap_or(name);
        // The second form is that of a whole state dict, which names the adapter.
        let half = [".lora_A", ".lora_B"].iter().enumerate().find_map(|(half, part)| {
            let module = plain
                .strip_suffix(&format!("{part}.weight"))
                .or_else(|| plain.strip_suffix(&format!("{part}.default.weight")))?;
            Some((half, module))
        });
        let Some((half, module)) = half else {
            return Err(CheckpointError::Invalid {
                file,
                problem: format!(
                    "tensor `{name:.200}` is no low-rank factor of a linear map (`….lora_A.weight`, \
                     `….lora_B.weight`), and nothing else of an adapter is read"
                ),
            });
        };
        halves.entry(module.into()).or_default()[half] = Some(weights.read(name)?);
    }
    let mut modules = BTreeMap::new();
    for (module, halves) in halves {
        let [Some(a), Some(b)] = halves else {
            return Err(CheckpointError::MissingTensor {
                file,
                tensor: format!("{PREFIX}{module}.lora_A.weight and .lora_B.weight"),
                shape: Vec::new(),
            });
        };
        let rank = a.shape.first().copied().unwrap_or(0);
        let output = b.shape.first().copied().unwrap_or(0);
        if rank == 0 || b.values.len() != output * rank {
            return Err(CheckpointError::TensorShape {
                file,
                tensor: format!("{PREFIX}{module}.lora_B.weight"),
                found: b.shape,
                expected: vec![output, rank],
            });
        }
        let scale = scales.of(&module, rank);
        let factors = Factors {
            input: a.values.len() / rank,
            a: a.values,
            b: b.values.iter().map(|value| (f64::from(*value) * scale) as f32).collect(),
            output,
            rank,
        };
        modules.insert(module, factors);
    }
    Ok(Some(PeftAdapter { file, modules }))
}

/// The folder of the model that the adapter in `folder` adapts, as far as it lies on this machine: where
/// its config says, or beside the adapter.
///
/// # Errors
/// The config names none, or it is not here.
pub(super) fn base(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let config_file = folder.join(CONFIG);
    let config: Map<String, Value> = read_json(&config_file)?;
    let invalid = |problem: String| CheckpointError::Invalid { file: config_file.clone(), problem };
    let named = config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default();
    if named.is_empty() {
        return Err(invalid(
            "`base_model_name_or_path` is missing; expected the model that the adapter adapts"
                .into(),
        ));
    }
    let parent = folder.parent().unwrap_or(Path::new(".."));
    let last = Path::new(named).file_name().unwrap_or_default();
    [named.into(), folder.join(named), parent.join(named), folder.join(last), parent.join(last)]
        .into_iter()
        .find(|place: &PathBuf| place.join("config.json").is_file())
        .ok_or_else(|| {
            invalid(format!(
                "`base_model_name_or_path` is \"{named:.200}\": this is an adapter, and the model that it adapts \
                 is neither there nor beside it; put that model's folder beside the adapter's"
            ))
        })
}

/// Writes an adapter as peft reads it, into a folder that may hold other files.
///
/// # Errors
/// The file that could not be written.
pub(super) fn write(
    folder: &Path,
    modules: &BTreeMap<String, Factors>,
    base: Option<&Path>,
) -> Result<(), CheckpointError> {
    // The scale is in the factors: alpha is the rank.
    let rank = modules.values().map(|factors| factors.rank).min().unwrap_or(1);
    let others: Map<String, Value> = modules
        .iter()
        .filter(|(_, factors)| factors.rank != rank)
        .map(|(module, factors)| (module.clone(), factors.rank.into()))
        .collect();
    let config = json!({
        "peft_type": "LORA",
        "base_model_name_or_path": base.map(|base| base.to_string_lossy()),
        "task_type": null,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": modules.keys().collect::<Vec<_>>(),
        "lora_dropout": 0.0,
        "bias": "none",
        // GPT-2's maps are of this kind; peft sees by itself where others are not.
        "fan_in_fan_out": modules.keys().any(|module| module.contains(".transformer.h.")),
    });
    write_json(&folder.join(CONFIG), &config)?;
    let mut all = HostTensors::new();
    for (module, Factors { a, b, input, output, rank }) in modules {
        let a = HostTensor { shape: vec![*rank, *input], values: a.clone() };
        let b = HostTensor { shape: vec![*output, *rank], values: b.clone() };
        all.insert(format!("{PREFIX}{module}.lora_A.weight"), a);
        all.insert(format!("{PREFIX}{module}.lora_B.weight"), b);
    }
    let metadata = [("format".to_string(), "pt".to_string())].into();
    tensors::write(&folder.join(WEIGHTS[0]), &all, metadata)
}

fn check(config: &Map<String, Value>) -> Result<(), String> {
    let shown = |value: &Value| value.to_string().chars().take(80).collect::<String>();
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if kind != "LORA" {
        return Err(format!("`peft_type` is \"{kind:.60}\"; of peft's adapters, LORA is read"));
    }
    for key in OFF {
        let is_off = match config.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(values)) => values.is_empty(),
            Some(Value::Object(values)) => values.is_empty(),
            Some(_) => false,
        };
        if !is_off {
            let value = shown(&config[key]);
            return Err(format!("`{key}` is {value}, which patchword does not compute"));
        }
    }
    match config.get("bias") {
        None | Some(Value::Null) => {}
        Some(Value::String(bias)) if bias == "none" => {}
        Some(other) => return Err(format!("`bias` is {}; expected \"none\"", shown(other))),
    }
    match config.get("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(way)) if PLAIN_BEGINNINGS.contains(&way.as_str()) => Ok(()),
        Some(other) => Err(format!(
            "`init_lora_weights` is {}, which changes the model's own weights; convert the adapter with \
             `path_initial_model_for_weight_conversion` when it is saved",
            shown(other)
        )),
    }
}

/// What `B·A` is multiplied by.
struct Scales {
    alpha: f64,
    /// Of modules whose names match, the first that does.
    patterns: Vec<(Regex, f64)>,
    by_root: bool,
}

impl Scales {
    fn new(config: &Map<String, Value>) -> Result<Self, String> {
        let number = |key: &str| config.get(key).and_then(Value::as_f64);
        let alpha = number("lora_alpha").ok_or("`lora_alpha` is missing; expected a number")?;
        let mut patterns = Vec::new();
        if let Some(Value::Object(listed)) = config.get("alpha_pattern") {
            for (pattern, value) in listed {
                let wrong = || format!("`alpha_pattern`: `{pattern:.100}` is not understood");
                // As peft matches them: from some dot on, to the end.
                let regex =
                    Regex::new(&format!("^(?:.*\\.)?(?:{pattern})$")).map_err(|_| wrong())?;
                patterns.push((regex, value.as_f64().ok_or_else(wrong)?));
            }
        }
        let by_root = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { alpha, patterns, by_root })
    }

    fn of(&self, module: &str, rank: usize) -> f64 {
        let pattern = self.patterns.iter().find(|(pattern, _)| pattern.is_match(module));
        let alpha = pattern.map_or(self.alpha, |(_, alpha)| *alpha);
        // rank_pattern need not be read: the factors have their ranks.
        alpha / if self.by_root { (rank as f64).sqrt() } else { rank as f64 }
    }
}
