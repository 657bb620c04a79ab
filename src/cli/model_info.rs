//! `patchword model info`: what a model is.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use super::model_args::{Download, SourceArgs, as_cli_error, megabytes, shipped_by_default};
use crate::checkpoint::{self, Location, ModelInfo, TokenInfo, shipped};
use crate::generate::GenerateConfig;
use crate::hub::{Hub, HubSettings, MAIN, Reference, RemoteFile};
use crate::plural::counted;

/// Show what a model is: sizes, parameters, weights, tokens, preprocessing, decoding, licence
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword model info
  patchword model info checkpoints/mine
  patchword model info Salesforce/blip-image-captioning-base
  patchword model info ~/models/blip --json

Reads a folder of ours or a Hugging Face one, without its weights' data. Of an id that is not in the \
cache only the small files are downloaded.")]
pub(super) struct InfoArgs {
    /// The model: a folder, or a Hugging Face id (owner/name) [default: the captioner that ships]
    #[arg(value_name = "DIR|ID")]
    model: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed of a model.
#[derive(Serialize)]
struct Described {
    /// As it was named.
    name: String,
    #[serde(flatten)]
    info: ModelInfo,
    /// Weights that are on the Hub only.
    not_downloaded: Vec<RemoteFile>,
}

pub(super) fn run(arguments: &InfoArgs, console: &Console) -> Result<Outcome, CliError> {
    let model = arguments.model.as_deref();
    let (location, not_downloaded) = match model.map(Reference::parse) {
        None => (shipped_by_default(console)?, Vec::new()),
        Some(Reference::Id(id)) => {
            arguments.source.refuse_missing_folder(model.unwrap_or(Path::new("")))?;
            let mut settings = HubSettings::from_environment()?;
            settings.offline |= arguments.source.offline;
            let mut download = Download::new(console);
            let revision = arguments.source.revision.as_deref().unwrap_or(MAIN);
            let pulled = Hub::new(settings)?
                .describe(&id, revision, &mut |event| download.show(event))
                .map_err(as_cli_error)?;
            (Location::Path(pulled.folder), pulled.left_out)
        }
        Some(Reference::Folder(folder)) => {
            (Location::named(&arguments.source.locate(&folder, console)?), Vec::new())
        }
    };
    let name = model.unwrap_or(Path::new(shipped::NAME)).display().to_string();
    let described = Described { name, info: checkpoint::info(&location)?, not_downloaded };
    let mut stdout = console.stdout();
    if arguments.json {
        serde_json::to_writer_pretty(&mut stdout, &described)?;
        writeln!(stdout)?;
    } else {
        stdout.write_all(text(&described).as_bytes())?;
    }
    Ok(Outcome::Complete)
}

fn text(described: &Described) -> String {
    let Described { name, info, not_downloaded } = described;
    let count = |number: usize| match number {
        0..1_000_000 => format!("{:.1} k", number as f64 / 1e3),
        _ => format!("{:.1} M", number as f64 / 1e6),
    };
    let parameters = &info.parameters;
    let projection = match parameters.memory_projection {
        0 => String::new(),
        number => format!(", {} between them", count(number)),
    };
    let folder = match &info.folder {
        Some(folder) => folder.display().to_string(),
        None => "part of this program".into(),
    };
    let mut rows = vec![
        ("model", name.clone()),
        ("folder", folder),
        ("family", info.family.clone()),
        ("encoder", info.model.encoder.to_string()),
        ("decoder", info.model.decoder.to_string()),
        (
            "parameters",
            format!(
                "{}: encoder {}, decoder {}{projection}",
                count(parameters.total),
                count(parameters.encoder),
                count(parameters.decoder)
            ),
        ),
    ];
    if let Some(weights) = &info.weights {
        let types: Vec<String> = match weights.dtypes.len() {
            1 => weights.dtypes.keys().cloned().collect(),
            _ => {
                let each = weights.dtypes.iter();
                each.map(|(name, number)| format!("{name} ({})", count(*number as usize))).collect()
            }
        };
        let file = weights.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (types, size) = (types.join(", "), megabytes(weights.bytes));
        rows.push((
            "weights",
            format!("{types}, {}, {size} in {file}", counted(weights.num_tensors, "tensor")),
        ));
    }
    for RemoteFile { name, size } in not_downloaded {
        let size = size.map_or("size unknown".into(), megabytes);
        rows.push(("weights", format!("{name} ({size}), not downloaded")));
    }
    if info.weights.is_none() && not_downloaded.is_empty() {
        rows.push(("weights", "not here".into()));
    }
    let token = |TokenInfo { id, token }: &TokenInfo| match token {
        Some(token) => format!("{token} ({id})"),
        None => format!("{id}"),
    };
    let tokens = &info.tokens;
    rows.push((
        "tokens",
        format!(
            "{}; begin {}, end {}, padding {}",
            tokens.vocab_size,
            token(&tokens.bos),
            token(&tokens.eos),
            token(&tokens.pad)
        ),
    ));
    rows.push(("preprocessing", settings(&info.preprocess)));
    rows.push(("decoding", decoding(&info.generate)));
    rows.push(("licence", info.license.clone().unwrap_or("the card does not say".into())));
    let files: Vec<String> = info
        .files
        .iter()
        .map(|file| format!("{} ({})", file.name, megabytes(file.bytes)))
        .collect();
    rows.push(("files", files.join(", ")));
    rows.iter().map(|(label, value)| format!("{label:<14} {value}\n")).collect()
}

/// How a model decodes: beams and tokens, and what else is not as usual; shared with `patchword evaluate`.
pub(super) fn decoding(config: &GenerateConfig) -> String {
    let usual = serde_json::to_value(GenerateConfig::default()).unwrap_or_default();
    let Ok(Value::Object(mut fields)) = serde_json::to_value(config) else { return String::new() };
    let always = |key: &str| ["num_beams", "max_new_tokens"].contains(&key);
    fields.retain(|key, value| always(key) || usual.get(key) != Some(value));
    settings(&fields)
}

/// All values of a config with their names, on one line.
fn settings(config: &impl Serialize) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(config) else { return String::new() };
    let each = fields.iter().filter(|(_, value)| !value.is_null());
    each.map(|(key, value)| format!("{key} {}", plain(value))).collect::<Vec<_>>().join(", ")
}

/// A value as people write it. Settings are single-precision numbers, which JSON would show with the
/// digits of double ones.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, |number| (number as f32).to_string())
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(plain).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}
