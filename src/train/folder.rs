//! The folder of a run: ours by a marker, and held by one process at a time. It knows files and names, and
//! nothing of models or steps.
//!
//! Nothing in it is replaced or deleted that a run did not write: a folder that holds other things is refused
//! before anything happens.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TrainError;
use crate::checkpoint::{CheckpointError, atomic};

/// The marker, which is locked while a process trains into the folder.
const MARKER: &str = ".patchword-run";

/// The checkpoint that a run goes on from.
pub(super) const LAST: &str = "last";
/// The best checkpoint.
pub(super) const BEST: &str = "best";
/// The mean of the last ones.
pub(super) const AVERAGE: &str = "average";
/// What it is the mean of.
pub(super) const RECENT: &str = "recent";
/// One JSON object a line.
pub(super) const METRICS: &str = "metrics.jsonl";
/// What is drawn of them.
pub(super) const CURVE: &str = "curve.svg";

/// The files without which a run cannot go on.
const NEEDED: [&str; 6] = [
    "config.json",
    "preprocessor.json",
    "tokenizer.json",
    "model.safetensors",
    "training/state.json",
    "training/optimizer.safetensors",
];

/// Whether a checkpoint has an entry of this name. All others are somebody else's.
pub(super) fn is_of_checkpoint(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "config.json",
        "preprocessor.json",
        "tokenizer.json",
        "model.safetensors",
        "README.md",
        "training",
        "adapter.safetensors",
        "adapter_model.safetensors",
        "adapter_config.json",
    ];
    NAMES.contains(&name)
}

/// What the marker holds.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: String,
    /// The process that trains into the folder, or was the last to.
    process: u32,
    /// Whether `last` was written.
    saved: bool,
}

/// What is in a folder that is to become, or is, that of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that a run would touch.
    Nothing,
    /// A run, ours by its marker or by the files of an earlier version.
    Run,
}

/// Looks at `output` and changes nothing.
///
/// # Errors
/// [`TrainError::NotARun`] where other things are.
pub(super) fn look(output: &Path) -> Result<Found, TrainError> {
    let refuse = |found: String| Err(TrainError::NotARun { folder: output.into(), found });
    if let Some(checkpoint) = checkpoint_around(output) {
        let found = format!("it lies within the checkpoint {}", checkpoint.display());
        return refuse(found);
    }
    match fs::metadata(output) {
        Ok(metadata) if !metadata.is_dir() => return refuse("it is a file".into()),
        Ok(_) => {}
        Err(_) if fs::symlink_metadata(output).is_ok() => {
            return refuse("it is a link that leads nowhere".into());
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(CheckpointError::io(output, error).into()),
    }
    if output.join(MARKER).is_file() || is_of_earlier_version(output) {
        return Ok(Found::Run);
    }
    let io = |source| CheckpointError::io(output, source);
    for name in [BEST, LAST, AVERAGE, RECENT] {
        let folder = output.join(name);
        if let Ok(entries) = atomic::foreign_entries(&folder, is_of_checkpoint)
            && let Some(first) = entries.first()
        {
            let more = if entries.len() > 1 { ", …" } else { "" };
            let first = first.to_string_lossy();
            return refuse(format!(
                "{name}/ holds files that are not a checkpoint ({first}{more})"
            ));
        }
    }
    let entries = atomic::foreign_entries(output, is_harmless).map_err(io)?;
    // What an imagefolder or a checkpoint has, and what a run would write over.
    match entries.first() {
        Some(first) => refuse(format!("it holds {}", first.to_string_lossy())),
        None => Ok(Found::Nothing),
    }
}

/// That training may write into `output`: a run's folder, a new one, or one that holds nothing else.
///
/// # Errors
/// [`TrainError::NotARun`] with what is there.
pub fn ensure_trainable(output: &Path) -> Result<(), TrainError> {
    look(output).map(drop)
}

/// Whether a run of `output` can go on, or could if it were whole.
pub fn has_run(output: &Path) -> bool {
    let last = output.join(LAST);
    matches!(look(output), Ok(Found::Run))
        && (last.is_dir() || atomic::sibling(&last, "old").is_dir())
}

/// Names that stand in an empty folder too: notes, logs, configs, and what is hidden.
fn is_harmless(name: &str) -> bool {
    let ours = [BEST, LAST, AVERAGE, RECENT, METRICS, CURVE];
    let is_ours = ours.iter().any(|ours| {
        let hidden = name.strip_prefix('.').and_then(|name| name.strip_prefix(ours));
        name == *ours || hidden.is_some_and(|rest| [".old", ".new"].contains(&rest))
    });
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    let is_text = ["toml", "log", "txt", "md", "yaml", "yml", "sh", "out", "err"]
        .contains(&extension.unwrap_or_default());
    !is_ours && (name.starts_with('.') || is_text)
}

/// The checkpoint that `path` lies within, which would be replaced with all that is in it.
fn checkpoint_around(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    let parent = absolute.parent()?;
    let existing = parent.ancestors().find_map(|folder| folder.canonicalize().ok())?;
    let has_weights = |folder: &Path| {
        let weights = ["model.safetensors", "pytorch_model.bin", "adapter.safetensors"];
        weights.iter().any(|name| folder.join(name).is_file())
    };
    let is_checkpoint =
        |folder: &&Path| folder.join("config.json").is_file() && has_weights(folder);
    existing.ancestors().find(is_checkpoint).map(Path::to_path_buf)
}

/// Runs of earlier versions have no marker.
fn is_of_earlier_version(output: &Path) -> bool {
    let json =
        |file: PathBuf| -> Option<Value> { serde_json::from_slice(&fs::read(file).ok()?).ok() };
    let places = |name: &str| {
        let folder = output.join(name);
        [atomic::sibling(&folder, "old"), folder]
    };
    let has_state = places(LAST).into_iter().any(|last| {
        let state = json(last.join("training").join("state.json"));
        state.is_some_and(|state| state["step"].is_u64() && state["config"].is_object())
    });
    let is_ours = |folder: PathBuf| {
        json(folder.join("config.json")).is_some_and(|config| config["format"] == "patchword")
    };
    let has_metrics = || {
        let text = fs::read_to_string(output.join(METRICS)).unwrap_or_default();
        let first = text.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
        first.is_some_and(|line| line["kind"].is_string() && line["step"].is_u64())
    };
    has_state || (has_metrics() && [BEST, LAST].into_iter().flat_map(places).any(is_ours))
}

/// A folder that this process trains into, and no other meanwhile.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    marker: File,
    saved: bool,
}

impl RunFolder {
    /// Makes the folder ours, or takes one that is, and puts back what a kill left aside.
    ///
    /// # Errors
    /// [`TrainError::NotARun`], [`TrainError::InUse`], or a folder that cannot be written.
    pub fn claim(output: &Path) -> Result<Self, TrainError> {
        let found = look(output)?;
        let io = |path: &Path, source| TrainError::from(CheckpointError::io(path, source));
        fs::create_dir_all(output).map_err(|source| io(output, source))?;
        let path = output.join(MARKER);
        let had_marker = path.is_file();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut marker = options.open(&path).map_err(|source| io(&path, source))?;
        match marker.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = read_marker(&mut marker).map(|marker| marker.process);
                return Err(TrainError::InUse { folder: output.into(), process });
            }
            // Some network file systems have no locks. One process alone is safe without.
            Err(TryLockError::Error(_)) => {}
        }
        // A marker that a full disk or a crash has emptied still says whose the folder is.
        let saved = match read_marker(&mut marker) {
            Some(marker) => marker.saved,
            None if had_marker && marker.metadata().is_ok_and(|file| file.len() == 0) => {
                output.join(LAST).exists()
            }
            None => found == Found::Run,
        };
        let mut folder = Self { path: output.into(), marker, saved };
        for name in [LAST, BEST, AVERAGE] {
            atomic::recover(&output.join(name));
        }
        folder.write_marker().map_err(|source| io(&path, source))?;
        Ok(folder)
    }

    /// The whole checkpoint that the run goes on from; none if none was written yet.
    ///
    /// # Errors
    /// [`TrainError::RunDamaged`] with the file that is missing.
    pub fn last(&self) -> Result<Option<PathBuf>, TrainError> {
        let last = self.path.join(LAST);
        let damaged = |missing: &Path, name: &str| TrainError::RunDamaged {
            missing: missing.into(),
            left: self.path.join(name),
        };
        if !last.exists() {
            let left = [BEST, AVERAGE].into_iter().find(|name| self.path.join(name).exists());
            return match left {
                Some(left) if self.saved => Err(damaged(&last, left)),
                _ => Ok(None),
            };
        }
        let missing = NEEDED.iter().map(|name| last.join(name)).find(|file| !file.is_file());
        match missing {
            Some(file) => Err(damaged(&file, if self.has_best() { BEST } else { LAST })),
            None => Ok(Some(last)),
        }
    }

    /// Whether there is a best checkpoint.
    pub fn has_best(&self) -> bool {
        self.path.join(BEST).join("config.json").is_file()
    }

    /// Notes that `last` was written: if it is missing from now on, something was lost.
    pub fn note_saved(&mut self) -> Result<(), CheckpointError> {
        if self.saved {
            return Ok(());
        }
        self.saved = true;
        let written = self.write_marker();
        written.map_err(|source| CheckpointError::io(&self.path.join(MARKER), source))
    }

    fn write_marker(&mut self) -> std::io::Result<()> {
        let marker = Marker {
            format: "patchword run".into(),
            process: std::process::id(),
            saved: self.saved,
        };
        let line = serde_json::to_string(&marker)? + "\n";
        self.marker.set_len(0)?;
        self.marker.seek(SeekFrom::Start(0))?;
        self.marker.write_all(line.as_bytes())?;
        self.marker.sync_all()
    }
}

fn read_marker(file: &mut File) -> Option<Marker> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The files of weights in `recent` with their steps, in order.
pub(super) fn recent_weights(output: &Path) -> Vec<(u64, PathBuf)> {
    let step_of = |name: OsString| -> Option<u64> {
        name.to_str()?.strip_suffix(".safetensors")?.parse().ok()
    };
    let entries = fs::read_dir(output.join(RECENT)).into_iter().flatten().flatten();
    let mut kept: Vec<(u64, PathBuf)> =
        entries.filter_map(|entry| Some((step_of(entry.file_name())?, entry.path()))).collect();
    kept.sort();
    kept
}

/// Deletes what `recent` has of steps after `step`: a run that was killed had gone further than its last
/// checkpoint.
pub(super) fn forget_recent_after(output: &Path, step: u64) {
    for (_, file) in recent_weights(output).into_iter().filter(|(of, _)| *of > step) {
        // If it stays, it is overwritten when the run comes there again.
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, text: &str) {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn why(output: &Path) -> String {
        look(output).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_is_ours_by_its_marker_or_its_state_or_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        assert_eq!(look(&at("new/run")).unwrap(), Found::Nothing);
        assert!(!at("new").exists(), "looking makes nothing");
        for (name, files, problem) in [
            (
                "photos",
                vec!["best/0.png", "best/1.png"],
                "best/ holds files that are not a checkpoint (0.png, …)",
            ),
            (
                "others",
                vec!["last/config.json", "last/pytorch_model.bin"],
                "last/ holds files that are not a checkpoint (pytorch_model.bin)",
            ),
            ("weights", vec!["recent/mine.safetensors"], "recent/ holds files"),
            ("downloaded", vec!["best/config.json", "best/model.safetensors"], "it holds best"),
            ("log", vec!["metrics.jsonl"], "it holds metrics.jsonl"),
            ("picture", vec!["curve.svg"], "it holds curve.svg"),
            ("data", vec!["a.jpg", "a.txt"], "it holds a.jpg"),
            ("model", vec!["config.json", "model.safetensors"], "it holds config.json"),
            ("aside", vec![".best.old/photo.png"], "it holds .best.old"),
        ] {
            files.iter().for_each(|file| put(&at(name), file, "{}"));
            assert!(why(&at(name)).contains(problem), "{}", why(&at(name)));
        }
        assert!(why(&at("photos/best/0.png")).contains("is a file"));
        assert!(why(&at("model/new")).contains("within the checkpoint"));
        assert!(why(&at("model/new/deeper")).contains("within the checkpoint"));
        put(&at("logged"), "run.toml", "");
        put(&at("logged"), "train.log", "");
        put(&at("logged"), ".gitignore", "");
        assert_eq!(look(&at("logged")).unwrap(), Found::Nothing);
        put(&at("earlier"), "last/training/state.json", r#"{"step": 4, "config": {}}"#);
        assert_eq!(look(&at("earlier")).unwrap(), Found::Run);
        put(&at("killed"), ".last.old/training/state.json", r#"{"step": 4, "config": {}}"#);
        assert_eq!(look(&at("killed")).unwrap(), Found::Run);
        assert!(has_run(&at("killed")) && !has_run(&at("logged")) && !has_run(&at("data")));
        drop(RunFolder::claim(&at("logged")).unwrap());
        assert_eq!(look(&at("logged")).unwrap(), Found::Run);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("nowhere", at("dead")).unwrap();
            assert!(why(&at("dead")).contains("leads nowhere"));
            std::os::unix::fs::symlink("data", at("link")).unwrap();
            assert!(why(&at("link")).contains("a.jpg"));
            std::os::unix::fs::symlink("earlier", at("link-to-run")).unwrap();
            assert_eq!(look(&at("link-to-run")).unwrap(), Found::Run);
        }
    }

    #[test]
    fn one_process_at_a_time_and_a_lock_of_the_dead_holds_nobody() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("run");
        let held = RunFolder::claim(&output).unwrap();
        let error = RunFolder::claim(&output).unwrap_err();
        let own = std::process::id();
        assert!(
            matches!(error, TrainError::InUse { process: Some(process), .. } if process == own)
        );
        assert!(error.to_string().contains(&format!("process {own}")), "{error}");
        drop(held);
        // As a process that was killed leaves it.
        put(&output, MARKER, r#"{"format": "patchword run", "process": 4194303, "saved": false}"#);
        drop(RunFolder::claim(&output).unwrap());
    }

    #[test]
    fn what_is_missing_of_a_run_is_named() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("run");
        let mut run = RunFolder::claim(&output).unwrap();
        // Killed after a best checkpoint and before the first that it could go on from.
        put(&output, "best/config.json", "{}");
        assert_eq!(run.last().unwrap(), None);
        run.note_saved().unwrap();
        drop(run);
        let run = RunFolder::claim(&output).unwrap();
        assert!(run.last().unwrap_err().to_string().contains("last is missing"));
        NEEDED.iter().for_each(|name| put(&output.join("last"), name, "{}"));
        assert_eq!(run.last().unwrap(), Some(output.join("last")));
        for name in NEEDED {
            fs::remove_file(output.join("last").join(name)).unwrap();
            let error = run.last().unwrap_err().to_string();
            assert!(error.contains(&format!("last/{name} is missing")), "{error}");
            put(&output.join("last"), name, "{}");
        }
        // A kill between two renames.
        drop(run);
        fs::rename(output.join("best"), output.join(".best.old")).unwrap();
        fs::rename(output.join("last"), output.join(".last.old")).unwrap();
        let run = RunFolder::claim(&output).unwrap();
        assert!(run.has_best() && run.last().unwrap().is_some());
    }
}
