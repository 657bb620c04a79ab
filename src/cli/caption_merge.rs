//! `patchword caption merge`: the manifests of shares as one.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use super::caption_outputs::check_place;
use super::console::Console;
use super::error::CliError;
use crate::caption::manifest::{Counts, ManifestError};
use crate::caption::merge::{Discrepancy, merge_manifests};
use crate::checkpoint::atomic::folder_of;
use crate::escape::visible;
use crate::plural::counted;

/// Join the manifests of shares into one, and prove that every photo is there exactly once
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword caption merge shard-*.db -o run.db
  patchword caption export run.db -o captions.jsonl

The joined manifest is as one run would have left it. Shares that are missing, photos that are missing, \
failed, pending or in several manifests, and captions of several models or settings are named, and the exit \
code is 3. Photos must have the same paths on all machines.")]
pub(super) struct MergeArgs {
    /// Manifests of `patchword caption --shard I/N --manifest`
    #[arg(value_name = "MANIFEST", required = true)]
    manifests: Vec<PathBuf>,
    /// The manifest to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

/// Photos of one kind that are named.
const SHOWN: usize = 20;

pub(super) fn run(arguments: &MergeArgs, console: &Console) -> Result<Outcome, CliError> {
    let output = &arguments.output;
    check_place(output, arguments.overwrite)?;
    let same = |file: &PathBuf| file.canonicalize().ok() == output.canonicalize().ok();
    if output.exists() && arguments.manifests.iter().any(same) {
        return Err(CliError::usage(format_args!(
            "--output {}: it is one of those to be joined",
            output.display()
        )));
    }
    // Whole, or not there.
    let work = tempfile_beside(output);
    let merged = merge_manifests(&arguments.manifests, &work.0);
    let merged = merged.map_err(|error| match error {
        ManifestError::InUse { .. } => {
            CliError::from(error).hint("join the manifests when all runs have ended")
        }
        error => error.into(),
    })?;
    std::fs::rename(&work.0, output)?;
    let mut stdout = console.stdout();
    let Counts { done, failed, skipped, pending } = merged.counts;
    writeln!(stdout, "{done} done, {failed} failed, {skipped} skipped, {pending} pending")?;
    if merged.discrepancies.is_empty() {
        writeln!(stdout, "every photo is there exactly once")?;
        return Ok(Outcome::Complete);
    }
    let mut shown = [0; 2];
    for discrepancy in &merged.discrepancies {
        let kind = match discrepancy {
            Discrepancy::Undone { .. } => Some(0),
            Discrepancy::Doubled { .. } => Some(1),
            _ => None,
        };
        if let Some(kind) = kind {
            shown[kind] += 1;
            if shown[kind] > SHOWN {
                continue;
            }
        }
        console.warn(visible(&text(discrepancy)));
    }
    for (count, what) in shown.into_iter().zip(["without a caption", "in several manifests"]) {
        if count > SHOWN {
            let more = counted(count - SHOWN, "more photo");
            console.warn(format_args!("… and {more} {what}"));
        }
    }
    Ok(Outcome::SomeInputsFailed)
}

fn text(discrepancy: &Discrepancy) -> String {
    match discrepancy {
        Discrepancy::MissingShare { shard } => {
            let (index, count) = (shard.index, shard.count);
            format!("share {index}/{count} is missing: caption it with --shard {index}/{count}")
        }
        Discrepancy::DoubledShare { shard, first, second } => {
            let (index, count) = (shard.index, shard.count);
            let (first, second) = (first.display(), second.display());
            format!("share {index}/{count} is there twice: {first} and {second}")
        }
        Discrepancy::Unfinished { file } => format!(
            "{}: its run did not end, so nobody knows how many photos it has; start it again",
            file.display()
        ),
        Discrepancy::OtherPhotos { first, of_first, second, of_second } => format!(
            "{} met {of_first} photos and {} met {of_second}, not the same ones: each share must be given \
             the same folders, while nothing in them changes",
            first.display(),
            second.display()
        ),
        Discrepancy::Doubled { path, file, is_equal } => {
            let captions = if *is_equal { "the same caption" } else { "another caption" };
            format!("{path}: in {} as well, with {captions}", file.display())
        }
        Discrepancy::Undone { path, error: None } => format!("{path}: pending"),
        Discrepancy::Undone { path, error: Some(error) } if error.contains(path.as_str()) => {
            format!("failed: {error}")
        }
        Discrepancy::Undone { path, error: Some(error) } => format!("{path}: failed: {error}"),
        Discrepancy::Absent { photos: 0 } => {
            "other photos are here than those that the runs met".into()
        }
        Discrepancy::Absent { photos } => {
            let photos = counted(usize::try_from(*photos).unwrap_or(usize::MAX), "photo");
            format!("{photos} that the runs met are in no manifest")
        }
        Discrepancy::Mixed { of, count } => {
            format!("captions of {count} {of}: they are not those of one run")
        }
    }
}

/// A name of its own in the output's folder; what lies there when this is dropped is removed.
struct Temporary(PathBuf);

fn tempfile_beside(output: &std::path::Path) -> Temporary {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    Temporary(folder_of(output).join(name))
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for ending in ["", "-wal", "-shm", ".lock"] {
            let mut name = self.0.clone().into_os_string();
            name.push(ending);
            let _ = std::fs::remove_file(name);
        }
    }
}
