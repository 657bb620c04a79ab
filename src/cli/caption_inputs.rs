//! What `patchword caption` is to caption: paths, globs, lists, shares.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use glob::Pattern;

use super::console::Console;
use super::error::{CliError, Context};
use crate::caption::inputs::{InputConfig, List, Named};
use crate::caption::shard::Shard;

/// Above these flags in `--help`.
const INPUTS: &str = "Inputs";

#[derive(Debug, Args)]
#[command(next_help_heading = INPUTS)]
pub(super) struct InputArgs {
    /// Images, folders, globs, or - to read paths from stdin, one a line; tar shards (webdataset),
    /// Parquet and Arrow tables, whose images are read where they lie. What is there under its very name
    /// is no glob
    #[arg(required_unless_present_any = ["files_from", "serve_stdin"], value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Paths from a file too, one a line; - is stdin
    #[arg(long, value_name = "FILE")]
    files_from: Vec<PathBuf>,
    /// Paths of lists end with NUL, as `find -print0` writes them
    #[arg(short = '0', long = "null")]
    nul: bool,
    /// Not what is in folders within folders
    #[arg(long, overrides_with = "recursive")]
    no_recursive: bool,
    /// Everything below a folder, as by default
    #[arg(long, short, hide = true)]
    recursive: bool,
    /// Of folders only what matches: a name, or with a / a path within the folder; upper and lower case
    /// alike
    #[arg(long, value_name = "GLOB", value_parser = pattern)]
    include: Vec<Pattern>,
    /// Of folders not what matches, nor what is below
    #[arg(long, value_name = "GLOB", value_parser = pattern)]
    exclude: Vec<Pattern>,
    /// Hidden and housekeeping files too (.thumbnails, ._photo.jpg, @eaDir, #recycle …)
    #[arg(long)]
    hidden: bool,
    /// Read also files outside of a table's folder that its rows name
    #[arg(long)]
    allow_outside: bool,
    /// Only this share of the photos, by a hash of their paths: 0/8 to 7/8 are all [default: what Slurm
    /// arrays, Kubernetes indexed Jobs, MPI or torchrun say; 0/1 to ignore them]
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| error.to_string())
}

impl InputArgs {
    /// Which photos count.
    pub(super) fn config(&self, console: &Console) -> Result<InputConfig, CliError> {
        let variable = |name: &str| std::env::var(name).ok();
        let shard = match self.shard {
            Some(shard) => Some(shard),
            None => {
                let found = Shard::of_scheduler(variable).map_err(|problem| {
                    CliError::usage(problem).hint("--shard I/N says it in place of the scheduler")
                })?;
                if let Some((Shard { index, count }, scheduler)) = found {
                    console.note(format_args!(
                        "share {index}/{count} of the photos, as {scheduler} has it"
                    ));
                }
                found.map(|(shard, _)| shard)
            }
        };
        Ok(InputConfig {
            recursive: !self.no_recursive,
            hidden: self.hidden,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            shard: shard.filter(|shard| shard.count > 1),
            allow_outside: self.allow_outside,
        })
    }

    /// Folders, where nothing else will do.
    pub(super) fn folders(&self) -> Result<Vec<PathBuf>, CliError> {
        match self.paths.iter().find(|path| !path.is_dir()) {
            Some(other) => {
                Err(CliError::usage(format_args!("--watch: {} is no folder", other.display())))
            }
            None => Ok(self.paths.clone()),
        }
    }

    /// All that is named, in order: arguments, then lists.
    pub(super) fn named(&self) -> Result<Vec<Named>, CliError> {
        let stdin = || List {
            name: "stdin".into(),
            lines: Box::new(BufReader::new(io::stdin())),
            nul: self.nul,
        };
        let mut named = Vec::new();
        for path in &self.paths {
            named.push(match path.as_os_str() == "-" {
                true => Named::List(stdin()),
                false => Named::Path(path.clone()),
            });
        }
        for path in &self.files_from {
            named.push(Named::List(match path.as_os_str() == "-" {
                true => stdin(),
                false => {
                    let file = File::open(path)
                        .context(format_args!("{}: the list cannot be read", path.display()))?;
                    let name = path.display().to_string();
                    List { name, lines: Box::new(BufReader::new(file)), nul: self.nul }
                }
            }));
        }
        Ok(named)
    }

    /// The file, where nothing but the path of one is named. A path that leads nowhere counts as one,
    /// unless it is a glob.
    pub(super) fn one_file(&self) -> Option<&Path> {
        let [path] = self.paths.as_slice() else { return None };
        let is_glob = || path.to_string_lossy().contains(['*', '?', '[']);
        // A table or an archive may hold many.
        let holds_many = || {
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            ["tar", "gz", "tgz", "zip", "parquet", "arrow"].iter().any(|many| extension == *many)
        };
        let is_one = match path.metadata() {
            Ok(metadata) => !metadata.is_dir() && !holds_many(),
            Err(_) => !is_glob(),
        };
        (self.files_from.is_empty() && path.as_os_str() != "-" && is_one).then_some(path)
    }

    /// The same once more, where it can be gone through twice.
    pub(super) fn named_again(&self) -> Option<Vec<Named>> {
        let can = |path: &PathBuf| {
            path.as_os_str() != "-" && !path.metadata().is_ok_and(|m| is_stream(&m))
        };
        let all = self.paths.iter().chain(&self.files_from);
        let mut all = all.map(can);
        all.all(|can| can).then(|| self.named().ok()).flatten()
    }
}

/// Whether what was read is gone.
fn is_stream(metadata: &std::fs::Metadata) -> bool {
    !metadata.is_file() && !metadata.is_dir()
}
