//! `--model`, for every command that uses a model: a folder, or the id of a public one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::console::Console;
use super::error::{CliError, EXIT_USAGE};
use super::progress::Progress;
use crate::checkpoint::{self, Location, shipped};
use crate::hub::{self, Event, Hub, HubError, HubSettings, MAIN, Reference};

/// Which model is used: flatten it into the arguments of a command.
#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// The model: a checkpoint folder, the folder of a training run, a Hugging Face folder, or a
    /// Hugging Face id (owner/name), which is downloaded once [default: flickr8k, which is part of
    /// this program]
    #[arg(long, short, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
}

impl ModelArgs {
    /// The model, downloaded if need be. The captioner that ships introduces itself where it was not
    /// asked for.
    pub(super) fn locate(&self, console: &Console) -> Result<Location, CliError> {
        match &self.model {
            Some(model) => Ok(Location::named(&self.source.locate(model, console)?)),
            None => shipped_by_default(console),
        }
    }

    /// Another model than `--model`, downloaded if need be.
    pub(super) fn locate_another(
        &self,
        model: &Path,
        console: &Console,
    ) -> Result<Location, CliError> {
        Ok(Location::named(&self.source.locate(model, console)?))
    }

    /// The model as it was named.
    pub(super) fn name(&self) -> String {
        self.model.as_ref().map_or(shipped::NAME.into(), |model| model.display().to_string())
    }
}

/// The captioner that ships, which introduces itself.
pub(super) fn shipped_by_default(console: &Console) -> Result<Location, CliError> {
    if !shipped::is_here() {
        return Err(CliError::usage("no model: this patchword was built without a captioner")
            .hint("name a checkpoint folder or a Hugging Face id (owner/name)"));
    }
    console.note(format_args!("model: {}, {}", shipped::NAME, shipped::ABOUT));
    Ok(Location::Shipped)
}

/// Where a model with an id is taken from.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// A branch, tag or commit of a model id [default: main]
    #[arg(long, value_name = "REVISION", requires = "model")]
    pub(super) revision: Option<String>,
    /// Take a model id from the cache only, as with HF_HUB_OFFLINE=1
    #[arg(long, requires = "model")]
    pub(super) offline: bool,
}

impl SourceArgs {
    /// The folder that `model` names, downloaded if need be.
    pub(super) fn locate(&self, model: &Path, console: &Console) -> Result<PathBuf, CliError> {
        self.refuse_missing_folder(model)?;
        let mut download = Download::new(console);
        let revision = self.revision.as_deref();
        let folder = hub::locate(model, revision, self.offline, &mut |event| download.show(event))
            .map_err(as_cli_error)?;
        if let Ok(found) = checkpoint::locate(&folder)
            && let Some(name) = found.file_name().and_then(OsStr::to_str)
            && name.starts_with("checkpoint-")
            && found != folder
        {
            console.note(format_args!("model: {}, the last of that run", found.display()));
        }
        Ok(folder)
    }

    /// `checkpoints/mien` reads like an id. Where there is a folder `checkpoints` and the cache knows no such
    /// model, it is a slip of the keyboard: that is said before anyone asks the network.
    pub(super) fn refuse_missing_folder(&self, model: &Path) -> Result<(), CliError> {
        let Reference::Id(id) = Reference::parse(model) else { return Ok(()) };
        let is_beside_something = model.parent().is_some_and(Path::is_dir);
        let revision = self.revision.as_deref().unwrap_or(MAIN);
        if !is_beside_something || Hub::new(HubSettings::from_environment()?)?.knows(&id, revision)
        {
            return Ok(());
        }
        match checkpoint::locate(model) {
            Ok(_) => Ok(()),
            Err(error) => Err(CliError::from(error).hint(format_args!(
                "look at its name; if {id} is meant to be a model of the Hub, `patchword model pull {id}` \
                 downloads it, and then this command finds it"
            ))),
        }
    }
}

/// A model that the arguments name in a way that makes no sense is a usage error.
pub(super) fn as_cli_error(error: HubError) -> CliError {
    let is_usage = matches!(error, HubError::RevisionOfFolder { .. } | HubError::Revision { .. });
    let error = CliError::from(error);
    if is_usage { CliError { code: EXIT_USAGE, ..error } } else { error }
}

/// A download on stderr: a bar a file, then a line that it is here.
pub(super) struct Download<'a> {
    console: &'a Console,
    bar: Option<Progress>,
}

impl<'a> Download<'a> {
    pub(super) fn new(console: &'a Console) -> Self {
        Self { console, bar: None }
    }

    pub(super) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Start { file, size, have } => {
                self.clear();
                let bar = Progress::of_bytes(self.console, file, size);
                bar.start_at(have);
                self.bar = Some(bar);
            }
            Event::Bytes(count) => {
                if let Some(bar) = &self.bar {
                    bar.advance(count);
                }
            }
            Event::End { file, size } => {
                self.clear();
                self.console.note(format_args!("downloaded {file} ({})", megabytes(size)));
            }
            Event::Retry { reason, pause } => {
                self.clear();
                let pause = pause.as_secs_f32();
                self.console.warn(format_args!("{reason}; trying again in {pause} s"));
            }
            Event::Waiting { file } => {
                self.console.note(format_args!("{file}: another process downloads it: waiting"));
            }
            Event::CacheOnly { reason } => {
                self.console.warn(format_args!("{reason}; what the cache has is used"));
            }
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
    }
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A size as a reader wants it: `990.4 MB`, `5.3 kB`.
pub(super) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
