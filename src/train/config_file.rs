//! Reading a config: a TOML file or one that is built in, with overrides, and errors that name the line and the
//! key that was meant.

use std::fs;
use std::path::{Path, PathBuf};

use super::builtin;
use super::config::{TrainConfig, TrainConfigError};
use super::init::refuse_what_comes_with_the_model;

impl TrainConfig {
    /// Reads the file that `name` names, else the config of that name that is built in (`finetune`), and applies
    /// overrides as [`Self::read`]; with what errors are to call it.
    ///
    /// # Errors
    /// As [`Self::read`]; a name that is neither, with those that are known.
    pub fn named(name: &Path, overrides: &[String]) -> Result<(Self, PathBuf), TrainConfigError> {
        let name = with_home(name);
        if let Some(built_in) = builtin::find(&name).filter(|_| !name.exists()) {
            let origin = PathBuf::from(format!("{} (built in)", built_in.name));
            return Ok((Self::parse(built_in.text, &origin, overrides)?, origin));
        }
        let is_name = name.components().count() == 1 && name.extension().is_none();
        if is_name && !name.exists() {
            return Err(TrainConfigError::Unknown { name });
        }
        Ok((Self::read(&name, overrides)?, name))
    }

    /// Reads a config and applies `key=value` overrides (dotted keys, TOML values; a bare word is a
    /// string).
    ///
    /// # Errors
    /// The file and line, or the override, with the key and what was expected.
    pub fn read(file: &Path, overrides: &[String]) -> Result<Self, TrainConfigError> {
        let text = fs::read_to_string(file)
            .map_err(|source| TrainConfigError::Io { file: file.into(), source })?;
        Self::parse(&text, file, overrides)
    }

    /// As [`Self::read`], from text; `file` is named in errors.
    ///
    /// # Errors
    /// The line, or the override, with the key and what was expected.
    pub fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<Self, TrainConfigError> {
        let located = |error: &toml::de::Error| match error.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                match key_before(before) {
                    Some(key) => format!("{}:{line}: `{key}`", file.display()),
                    None => format!("{}:{line}", file.display()),
                }
            }
            None => file.display().to_string(),
        };
        // Parsed once by itself, so that an error has its line.
        let _: Self = toml::from_str(text).map_err(|error| explain(located(&error), &error))?;
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| explain(located(&error), &error))?;
        for setting in overrides {
            apply_override(&mut table, setting)?;
            // One after the other, so that an error names the right one.
            let _: Self = table
                .clone()
                .try_into()
                .map_err(|error| explain(format!("--set {setting}"), &error))?;
        }
        let mut config: Self =
            table.clone().try_into().map_err(|error| explain(located(&error), &error))?;
        config.overrides = overrides.to_vec();
        config.expand_home();
        refuse_what_comes_with_the_model(&table, |key, problem| {
            config.value_error(file, &key, problem)
        })?;
        config.model.encoder.image_height = config.image.height;
        config.model.encoder.image_width = config.image.width;
        Ok(config)
    }

    /// Paths that begin with `~/` lead to the home folder: quotes keep a shell from saying so.
    pub fn expand_home(&mut self) {
        self.data.cache_features.take_if(|path| path.as_os_str().is_empty());
        let own = [&mut self.output, &mut self.data.path].into_iter();
        let optional = [
            self.data.images.as_mut(),
            self.data.cache_features.as_mut(),
            self.tokenizer.file.as_mut(),
            self.init.model.as_mut(),
            self.init.encoder.as_mut(),
        ];
        for path in own.chain(optional.into_iter().flatten()) {
            *path = with_home(path);
        }
    }
}

/// `path` with the home folder in place of a leading `~`, unless there is a folder of that name.
fn with_home(path: &Path) -> PathBuf {
    let rest = path.strip_prefix("~");
    match (rest, std::env::home_dir()) {
        (Ok(rest), Some(home)) if !Path::new("~").exists() => home.join(rest),
        _ => path.into(),
    }
}

fn apply_override(table: &mut toml::Table, setting: &str) -> Result<(), TrainConfigError> {
    let problem = |problem: &str| TrainConfigError::Toml {
        origin: format!("--set {setting}"),
        problem: problem.into(),
        suggestion: None,
    };
    let (key, value) = setting
        .split_once('=')
        .ok_or_else(|| problem("expected key=value, for example train.epochs=3"))?;
    let value = value.trim();
    let parsed: toml::Value = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.into()));
    let mut place = table;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last =
        parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| problem("the key is empty"))?;
    for part in parts {
        place = place
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| problem(&format!("`{part}` is a value, not a section")))?;
    }
    place.insert(last.into(), parsed);
    Ok(())
}

/// The dotted key of the value that begins where `before` ends, if one does.
fn key_before(before: &str) -> Option<String> {
    let (above, line) = before.rsplit_once('\n').unwrap_or(("", before));
    let (key, _) = line.rsplit_once('=')?;
    // In an inline table the key stands after a brace or a comma.
    let key = key.rsplit(['{', ',']).next()?.trim();
    let section = above.lines().rev().map(str::trim).find(|line| line.starts_with('['));
    match section.map(|line| line.trim_matches(['[', ']'])) {
        Some(section) => Some(format!("{section}.{key}")),
        None => Some(key.into()),
    }
}

/// Keys as other trainers call them.
const ELSEWHERE: [(&str, &str); 22] = [
    ("lr", "schedule.learning_rate"),
    ("base_lr", "schedule.learning_rate"),
    ("min_lr", "schedule.final_fraction"),
    ("warmup", "schedule.warmup_steps"),
    ("warmup_ratio", "schedule.warmup_steps"),
    ("wd", "optimizer.weight_decay"),
    ("max_grad_norm", "optimizer.clip_norm"),
    ("grad_clip", "optimizer.clip_norm"),
    ("ema", "optimizer.ema_decay"),
    ("bs", "train.batch_size"),
    ("batch", "train.batch_size"),
    ("per_device_train_batch_size", "train.batch_size"),
    ("gradient_accumulation_steps", "train.accumulation"),
    ("num_epochs", "train.epochs"),
    ("num_train_epochs", "train.epochs"),
    ("steps", "train.max_steps"),
    ("early_stopping", "train.patience"),
    ("eval_steps", "train.validate_every"),
    ("save_steps", "train.checkpoint_every"),
    ("image_size", "image.height"),
    ("num_workers", "data.workers"),
    ("max_length", "model.decoder.max_positions"),
];

/// The dotted name of a key that stands in a section, as in `train.epochs`.
pub(crate) fn in_a_section(key: &str) -> Option<String> {
    let all = toml::Table::try_from(TrainConfig::default()).ok()?;
    all.iter().find_map(|(section, values)| {
        // What has no default is in no table.
        let found =
            values.as_table()?.contains_key(key) || (section == "train" && key == "max_steps");
        found.then(|| format!("{section}.{key}"))
    })
}

/// Makes a parser's message ours: the types in words, and the key that may have been meant.
fn explain(origin: String, error: &toml::de::Error) -> TrainConfigError {
    let mut message = error.message().to_string();
    for (theirs, ours) in [
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected path string", "expected a path in quotes"),
        ("expected a boolean", "expected true or false"),
    ] {
        message = message.replace(theirs, ours);
    }
    if let Some((found, _)) = message.split_once("expected struct ") {
        message = format!("{found}expected a section");
    }
    let suggestion = message.strip_prefix("unknown field `").and_then(|rest| {
        let (unknown, known) = rest.split_once('`')?;
        let elsewhere = ELSEWHERE.iter().find(|(theirs, _)| *theirs == unknown);
        let elsewhere = elsewhere.map(|(_, ours)| (*ours).to_string());
        let like = known
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|known| (strsim::jaro_winkler(unknown, known), known))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        // The very name in another section is meant rather than one that is like it in this.
        elsewhere
            .or_else(|| in_a_section(unknown))
            .or_else(|| like.map(|(_, known)| known.to_string()))
    });
    TrainConfigError::Toml { origin, problem: message, suggestion }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, overrides: &[&str]) -> Result<TrainConfig, TrainConfigError> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let config = TrainConfig::parse(text, Path::new("run.toml"), &overrides)?;
        config.validate(Path::new("run.toml"))?;
        Ok(config)
    }

    const GOOD: &str = "output = 'out'\n[data]\npath = 'data'\n";

    #[test]
    fn overrides_change_values_of_any_type() {
        let config = parse(
            GOOD,
            &[
                "train.epochs=3",
                "schedule.learning_rate=1e-4",
                "data.path=else/where",
                "train.max_steps=7",
            ],
        )
        .unwrap();
        assert_eq!(config.train.epochs, 3.0);
        assert_eq!(config.schedule.learning_rate, 1e-4);
        assert_eq!(config.data.path, Path::new("else/where"));
        assert_eq!(config.train.max_steps, Some(7));
    }

    #[test]
    fn the_image_size_reaches_the_encoder() {
        let config = parse(GOOD, &["image.height=64", "image.width=96"]).unwrap();
        let encoder = &config.model.encoder;
        assert_eq!((encoder.image_height, encoder.image_width), (64, 96));
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line_and_a_suggestion() {
        let text = format!("{GOOD}[train]\nepohcs = 3\n");
        let Err(TrainConfigError::Toml { origin, problem, suggestion }) = parse(&text, &[]) else {
            panic!("accepted")
        };
        assert_eq!(origin, "run.toml:5");
        assert!(problem.contains("epohcs"), "{problem}");
        assert_eq!(suggestion.as_deref(), Some("epochs"));
        for (setting, meant) in
            [("epochs=3", "train.epochs"), ("learning_rate=1e-4", "schedule.learning_rate")]
        {
            let Err(TrainConfigError::Toml { suggestion, .. }) = parse(GOOD, &[setting]) else {
                panic!("accepted")
            };
            assert_eq!(suggestion.as_deref(), Some(meant));
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (setting, key) in [
            ("train.epochs=nan", "train.epochs"),
            ("train.epochs=-1", "train.epochs"),
            ("train.batch_size=0", "train.batch_size"),
            ("train.label_smoothing=1.0", "train.label_smoothing"),
            ("schedule.learning_rate=-1e-3", "schedule.learning_rate"),
            ("schedule.learning_rate=inf", "schedule.learning_rate"),
            ("optimizer.beta_2=1.5", "optimizer.beta_2"),
            ("optimizer.clip_norm=nan", "optimizer.clip_norm"),
            ("train.r_drop=-1.0", "train.r_drop"),
            ("model.encoder.num_heads=7", "model.encoder.num_heads"),
            ("model.encoder.patch_size=13", "model.encoder.image_height"),
            ("model.decoder.dropout=nan", "model.decoder.dropout"),
            ("data.val_share=0", "data.val_share"),
            ("tokenizer.vocab_size=10", "tokenizer.vocab_size"),
        ] {
            let error = parse(GOOD, &[setting]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{setting}: {error}");
            assert!(error.contains("expected") || error.contains("divide"), "{setting}: {error}");
        }
    }

    #[test]
    fn the_override_that_set_a_value_is_blamed_for_it() {
        for (setting, origin) in [
            ("train.epochs=-1", "--set train.epochs=-1: `train.epochs`"),
            ("train.epochs=many", "--set train.epochs=many: "),
            ("image={height=0}", "--set image={height=0}: `image`"),
            (
                "model.encoder.num_heads=7",
                "--set model.encoder.num_heads=7: `model.encoder.num_heads`",
            ),
            // Its own is right.
            ("seed=2", "run.toml: `train.batch_size`"),
        ] {
            let text = format!("{GOOD}[train]\nbatch_size = 0\n");
            let text = if setting == "seed=2" { &text } else { GOOD };
            let error = parse(text, &["seed=1", setting, "data.workers=1"]).unwrap_err();
            assert!(error.to_string().starts_with(origin), "{error}");
        }
        let started = "output = 'out'\ninit = 'model'\n[data]\npath = 'data'\n";
        let error = parse(started, &["image.height=16"]).unwrap_err().to_string();
        assert!(error.starts_with("--set image.height=16: `image.height`"), "{error}");
    }

    #[test]
    fn keys_of_other_trainers_and_other_sections_are_pointed_out() {
        for (setting, meant) in [
            ("train.lr=1e-4", "schedule.learning_rate"),
            ("lr=1e-4", "schedule.learning_rate"),
            ("train.learning_rate=1e-4", "schedule.learning_rate"),
            ("schedule.epochs=3", "train.epochs"),
            ("train.weight_decay=0.1", "optimizer.weight_decay"),
            ("data.batch_size=4", "train.batch_size"),
            ("train.bs=4", "train.batch_size"),
            ("model.image_size=64", "image.height"),
        ] {
            let Err(TrainConfigError::Toml { suggestion, .. }) = parse(GOOD, &[setting]) else {
                panic!("accepted {setting}")
            };
            assert_eq!(suggestion.as_deref(), Some(meant), "{setting}");
        }
    }

    #[test]
    fn one_pattern_needs_no_list() {
        for setting in ["train.freeze=encoder", "train.freeze=[\"encoder\"]"] {
            assert_eq!(parse(GOOD, &[setting]).unwrap().train.freeze, ["encoder"], "{setting}");
        }
        let error = parse(GOOD, &["train.freeze=3"]).unwrap_err().to_string();
        assert!(error.contains("a name in quotes, or a list of them"), "{error}");
    }

    #[test]
    fn a_tilde_is_the_home_folder() {
        let home = std::env::home_dir().unwrap();
        let config = parse(GOOD, &["data.path=~/photos", "output=~/run", "init=~/model"]).unwrap();
        assert_eq!(config.data.path, home.join("photos"));
        assert_eq!(config.output, home.join("run"));
        assert_eq!(config.init.model, Some(home.join("model")));
        let config = parse(GOOD, &["data.path=a~b/~c"]).unwrap();
        assert_eq!(config.data.path, Path::new("a~b/~c"));
    }

    #[test]
    fn configs_that_are_built_in_go_by_their_names() {
        for name in ["finetune", "finetune.toml", "flickr8k"] {
            let overrides = ["data.path=x".to_string()];
            let (config, origin) = TrainConfig::named(Path::new(name), &overrides).unwrap();
            config.validate(&origin).unwrap();
            assert!(origin.to_string_lossy().ends_with("(built in)"));
        }
        let error = TrainConfig::named(Path::new("finetun"), &[]).unwrap_err().to_string();
        assert!(error.contains("finetune") && error.contains("flickr8k"), "{error}");
        let error = TrainConfig::named(Path::new("no/such.toml"), &[]).unwrap_err();
        assert!(matches!(error, TrainConfigError::Io { .. }), "{error}");
    }

    #[test]
    fn wrong_types_name_the_line() {
        let error = parse("output = 'out'\nseed = 'one'\n", &[]).unwrap_err().to_string();
        assert!(error.starts_with("run.toml:2:"), "{error}");
    }

    #[test]
    fn the_configs_that_ship_are_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for entry in fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                continue;
            }
            let config =
                TrainConfig::read(&file, &["data.path=x".into(), "output=x".into()]).unwrap();
            config.validate(&file).unwrap();
        }
    }
}
