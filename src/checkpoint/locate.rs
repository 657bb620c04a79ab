//! Which checkpoint a path means. Looking changes nothing on disk.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CheckpointError, atomic, peft};

/// The checkpoint folder that `path` names: itself, or of a run its `best`, else its `last`.
///
/// # Errors
/// [`CheckpointError::NotFound`].
pub fn locate(path: &Path) -> Result<PathBuf, CheckpointError> {
    for candidate in [path.to_path_buf(), path.join("best"), path.join("last")] {
        // What a trainer that was killed between two renames left aside is whole. It is read where it
        // lies: looking changes nothing, and putting it back would be in a running trainer's way.
        let aside = atomic::left_aside(&candidate);
        for folder in [Some(candidate), aside].into_iter().flatten() {
            if ["config.json", peft::CONFIG].iter().any(|name| folder.join(name).is_file()) {
                return Ok(folder);
            }
        }
    }
    match latest_of_trainer(path) {
        Some(folder) => Ok(folder),
        None => Err(CheckpointError::NotFound { found: nearby(path), folder: path.into() }),
    }
}

/// The last of the checkpoints that transformers' own trainer keeps in the folder of a run,
/// `checkpoint-500`.
fn latest_of_trainer(run: &Path) -> Option<PathBuf> {
    let numbered = folders_in(run).into_iter().filter_map(|folder| {
        let step: u64 = folder.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
        let is_model = ["config.json", peft::CONFIG].iter().any(|name| folder.join(name).is_file());
        is_model.then_some((step, folder))
    });
    numbered.max().map(|(_, folder)| folder)
}

/// The folders in a folder, by name.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// What to say of a place without a checkpoint: what lies in it, or beside it if it is not there at all.
fn nearby(path: &Path) -> String {
    const MOST: usize = 5;
    let listed = |place: &Path, named: &str, kept: &dyn Fn(&PathBuf) -> bool| {
        let folders: Vec<PathBuf> =
            folders_in(place).into_iter().filter(|path| kept(path)).collect();
        let names: Vec<String> = folders
            .iter()
            .take(MOST)
            .filter_map(|path| path.file_name())
            .map(|name| format!("`{}`", name.to_string_lossy()))
            .collect();
        let more = if folders.len() > MOST { ", …" } else { "" };
        (!names.is_empty()).then(|| format!("; {named} {}{more}", names.join(", ")))
    };
    let holds = |path: &PathBuf| path.join("config.json").is_file();
    if path.is_dir() {
        let within = listed(path, "there is one in", &holds);
        return format!("no checkpoint here{}", within.unwrap_or_default());
    }
    let place = atomic::folder_of(path);
    if !place.is_dir() {
        return "no checkpoint here: there is no such folder".into();
    }
    let is_model = |path: &PathBuf| holds(path) || locate_run(path);
    let beside = listed(place, "beside it are", &is_model);
    format!("no checkpoint here: there is no such folder{}", beside.unwrap_or_default())
}

fn locate_run(path: &Path) -> bool {
    ["best", "last"].iter().any(|part| path.join(part).join("config.json").is_file())
}
