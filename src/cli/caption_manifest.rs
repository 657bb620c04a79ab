//! `patchword caption status` and `export`: what a manifest says.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::caption_outputs::check_place;
use super::console::Console;
use super::error::CliError;
use crate::caption::folder::FolderError;
use crate::caption::manifest::{Entry, Manifest};
use crate::caption::output::{Format, Output, Record, name_of};

/// Show how far a run is, and what failed and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword caption status run.db
  patchword caption status run.db --json

Also while the run goes on.")]
pub(super) struct StatusArgs {
    /// The manifest of `patchword caption --manifest`
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write the captions of a manifest into files of any format
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword caption export run.db -o captions.csv -o metadata.jsonl")]
pub(super) struct ExportArgs {
    /// The manifest of `patchword caption --manifest`
    #[arg(value_name = "MANIFEST")]
    manifest: PathBuf,
    /// A file, in the format that its name asks for: .jsonl .csv .tsv .txt .json for COCO's results,
    /// metadata.jsonl; may be given several times
    #[arg(long = "output", short, value_name = "FILE", required = true)]
    outputs: Vec<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    overwrite: bool,
}

/// Failures that are shown as text.
const SHOWN: usize = 20;

pub(super) fn status(arguments: &StatusArgs, console: &Console) -> Result<Outcome, CliError> {
    let manifest = Manifest::read(&arguments.manifest)?;
    let counts = manifest.counts()?;
    let (mut failures, mut all) = (Vec::new(), 0);
    if counts.failed > 0 {
        manifest.for_each(Some("failed"), &mut |entry: Entry| {
            all += 1;
            if arguments.json || failures.len() < SHOWN {
                failures.push((name_of(&entry.input.path), entry.error.unwrap_or_default()));
            }
            Ok::<(), CliError>(())
        })?;
    }
    let mut stdout = console.stdout();
    if arguments.json {
        let each = failures.iter().map(|(path, error)| json!({ "path": path, "error": error }));
        let mut value = json!(counts);
        value["failures"] = each.collect();
        writeln!(stdout, "{value:#}")?;
        return Ok(Outcome::Complete);
    }
    let crate::caption::manifest::Counts { done, failed, skipped, pending } = counts;
    writeln!(stdout, "{done} done, {failed} failed, {skipped} skipped, {pending} pending")?;
    for (_, error) in &failures {
        writeln!(stdout, "  {}", crate::escape::visible(error))?;
    }
    if all > failures.len() {
        writeln!(stdout, "  … and {} more (--json has all)", all - failures.len())?;
    }
    Ok(Outcome::Complete)
}

pub(super) fn export(arguments: &ExportArgs, console: &Console) -> Result<Outcome, CliError> {
    let manifest = Manifest::read(&arguments.manifest)?;
    let mut outputs = Vec::new();
    for file in &arguments.outputs {
        let Some(format) = Format::of_name(file) else {
            return Err(CliError::usage(format_args!(
                "--output {}: a name that asks for no format",
                file.display()
            ))
            .hint("end it with .jsonl, .csv, .tsv, .txt or .json"));
        };
        check_place(file, arguments.overwrite)?;
        outputs.push(Output::file(file, format)?);
    }
    let mut count = 0;
    if manifest.counts()?.done > 0 {
        manifest.for_each(Some("done"), &mut |entry: Entry| {
            count += 1;
            let model = entry.model.unwrap_or_default();
            let record = Record { input: &entry.input, captions: &entry.captions, model: &model };
            for output in &mut outputs {
                output.write(record)?;
            }
            Ok::<(), FolderError>(())
        })?;
    }
    for output in outputs {
        output.finish(true)?;
    }
    let counts = manifest.counts()?;
    console.note(format_args!("{count} written"));
    if counts.failed + counts.pending > 0 {
        console.warn(format_args!(
            "{} failed and {} pending are not among them",
            counts.failed, counts.pending
        ));
    }
    Ok(Outcome::Complete)
}
