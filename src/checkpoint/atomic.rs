//! Folders and files that are either whole or not there: written beside, synced, renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// Writes a folder at `target` through `fill`, which gets a temporary folder beside it. A kill at any
/// moment leaves the old folder or the new one; [`recover`] mends the moment between.
///
/// # Errors
/// What could not be written, or the error of `fill`; the old folder is then untouched.
pub fn replace_folder<E: From<CheckpointError>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    recover(target);
    let parent = folder_of(target);
    let io = |path: &Path, source| E::from(CheckpointError::io(path, source));
    fs::create_dir_all(parent).map_err(|source| io(parent, source))?;
    let (fresh, old) = (sibling(target, "new"), sibling(target, "old"));
    remove(&fresh);
    fs::create_dir(&fresh).map_err(|source| io(&fresh, source))?;
    if let Err(error) = fill(&fresh) {
        remove(&fresh);
        return Err(error);
    }
    sync_tree(&fresh).map_err(|source| io(&fresh, source))?;
    if target.exists() {
        remove(&old);
        fs::rename(target, &old).map_err(|source| io(target, source))?;
    }
    fs::rename(&fresh, target).map_err(|source| io(target, source))?;
    sync(parent).map_err(|source| io(parent, source))?;
    remove(&old);
    Ok(())
}

/// What a kill between two renames left aside of a folder that is not there, where it lies.
pub fn left_aside(target: &Path) -> Option<PathBuf> {
    let old = sibling(target, "old");
    (!target.exists() && old.exists()).then_some(old)
}

/// Puts back what a kill between two renames left aside; for the writer of the folder alone.
pub fn recover(target: &Path) {
    let old = sibling(target, "old");
    if !target.exists() && old.exists() {
        // If this fails the folder is reported as missing, with the old one still there.
        let _ = fs::rename(&old, target);
    }
}

/// Replaces one file.
///
/// # Errors
/// The file that could not be written.
pub fn replace_file(target: &Path, contents: &[u8]) -> Result<(), CheckpointError> {
    replace_file_by(target, |fresh| {
        let written = File::create(fresh).and_then(|mut file| file.write_all(contents));
        written.map_err(|source| CheckpointError::io(target, source))
    })
}

/// Replaces one file by what `write` puts where it is told to.
///
/// # Errors
/// The file that could not be written, or the error of `write`; the old file is then untouched.
pub fn replace_file_by(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let fresh = sibling(target, "new");
    let result = write(&fresh).and_then(|()| {
        let synced = File::open(&fresh).and_then(|file| file.sync_all());
        synced
            .and_then(|()| fs::rename(&fresh, target))
            .map_err(|source| CheckpointError::io(target, source))
    });
    if result.is_err() {
        // It holds nothing that anyone needs.
        let _ = fs::remove_file(&fresh);
    }
    result
}

/// Where a file or folder lies. Of a bare name the parent is an empty path, which nothing can open.
pub fn folder_of(target: &Path) -> &Path {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn sibling(target: &Path, suffix: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{suffix}"))
}

fn remove(folder: &Path) {
    // What is left behind is overwritten next time; nothing depends on its absence.
    let _ = fs::remove_dir_all(folder);
}

fn sync_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { File::open(&path)?.sync_all()? }
    }
    sync(folder)
}

/// Folders can be synced on Unix only; elsewhere the rename itself must do.
fn sync(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
