//! `patchword model pull`: get a public model.

use std::io::Write;

use clap::Args;

use super::Outcome;
use super::console::Console;
use super::error::CliError;
use super::model_args::{Download, as_cli_error};
use crate::hub::{Event, Hub, HubSettings, MAIN, ModelId};

/// Download a model of the Hugging Face Hub into its cache, or bring it up to date
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword model pull Salesforce/blip-image-captioning-base
  patchword model pull nlpconnect/vit-gpt2-image-captioning --revision main
  cp -rL \"$(patchword model pull Salesforce/blip-image-captioning-base)\" blip

Prints the model's folder, which is a --model too. Only what captioning needs is downloaded: the \
configs, the tokenizer, the card, and the weights once (safetensors if there are any). The cache is \
that of Hugging Face's own tools; HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HTTPS_PROXY count. \
A download that breaks off goes on where it stopped.")]
pub(super) struct PullArgs {
    /// The model's id
    #[arg(value_name = "OWNER/NAME", value_parser = parse_id)]
    model: ModelId,
    /// A branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = MAIN)]
    revision: String,
}

fn parse_id(text: &str) -> Result<ModelId, String> {
    ModelId::parse(text).ok_or_else(|| {
        "expected the id of a model, as in Salesforce/blip-image-captioning-base".to_string()
    })
}

pub(super) fn run(arguments: &PullArgs, console: &Console) -> Result<Outcome, CliError> {
    let hub = Hub::new(HubSettings::from_environment()?)?;
    let mut download = Download::new(console);
    let (id, revision) = (&arguments.model, arguments.revision.as_str());
    let mut on_event = |event: Event<'_>| download.show(event);
    let folder = if hub.settings().offline {
        // There is nothing to bring up to date with.
        hub.folder(id, revision, &mut on_event)
    } else {
        hub.pull(id, revision, &mut on_event).map(|pulled| pulled.folder)
    };
    writeln!(console.stdout(), "{}", folder.map_err(as_cli_error)?.display())?;
    Ok(Outcome::Complete)
}
