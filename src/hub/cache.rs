//! The cache's layout, as Hugging Face's own tools have it: what is there, and how it gets there.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{HubError, ModelId};

/// How often a file that another process writes is looked at.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);

/// The part of a cache that belongs to one model.
#[derive(Debug, Clone)]
pub(super) struct ModelCache {
    model: PathBuf,
    locks: PathBuf,
}

/// The files of one commit.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// The folder of links.
    pub folder: PathBuf,
    absent: PathBuf,
}

impl ModelCache {
    pub fn new(cache: &Path, id: &ModelId) -> Self {
        let name = id.folder_name();
        Self { locks: cache.join(".locks").join(&name), model: cache.join(name) }
    }

    /// The snapshot of a commit, whether or not it is there.
    pub fn snapshot(&self, commit: &str) -> Snapshot {
        let below = |kind: &str| self.model.join(kind).join(commit);
        Snapshot { folder: below("snapshots"), absent: below(".no_exist") }
    }

    /// The snapshot that `revision` stood for when it was last looked up.
    pub fn find(&self, revision: &str) -> Option<Snapshot> {
        let commit = fs::read_to_string(self.model.join("refs").join(revision)).ok();
        let commit = commit.map(|commit| commit.trim().to_string());
        let commit = commit.unwrap_or_else(|| revision.to_string());
        let snapshot = self.snapshot(&commit);
        (is_file_name(&commit) && snapshot.folder.is_dir()).then_some(snapshot)
    }

    /// Notes that `revision` stands for `commit`.
    pub fn set_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let file = self.model.join("refs").join(revision);
        if fs::read_to_string(&file).is_ok_and(|known| known.trim() == commit) {
            return Ok(());
        }
        make_parent(&file)?;
        let fresh = beside(&file);
        fs::write(&fresh, commit).map_err(|error| HubError::io(&fresh, error))?;
        fs::rename(&fresh, &file).map_err(|error| HubError::io(&file, error))
    }

    /// Where a blob's bytes are once they are all there.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.model.join("blobs").join(etag)
    }

    /// Where they are before that.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.model.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Waits until no other process writes the blob; `on_wait` is called once if it has to. The lock
    /// holds until what is returned is dropped; nothing is returned where files cannot be locked.
    pub fn lock(&self, etag: &str, on_wait: &mut dyn FnMut()) -> Result<Option<File>, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::create(&path).map_err(|error| HubError::io(&path, error))?;
        let mut waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {
                    if !waited {
                        on_wait();
                    }
                    waited = true;
                    thread::sleep(LOCK_INTERVAL);
                }
                // Some network file systems have no locks. One process alone is safe without.
                Err(TryLockError::Error(_)) => return Ok(None),
            }
        }
    }

    /// Puts the blob into the snapshot as `name`.
    pub fn link(&self, etag: &str, snapshot: &Snapshot, name: &str) -> Result<(), HubError> {
        let link = snapshot.folder.join(name);
        make_parent(&link)?;
        let blob = self.blob(etag);
        if fs::canonicalize(&link).ok().is_some_and(|now| fs::canonicalize(&blob).ok() == Some(now))
        {
            return Ok(());
        }
        // Made beside and renamed, so that no process ever finds the file gone.
        let fresh = beside(&link);
        let target = Path::new("../../blobs").join(etag);
        let made = symlink(&target, &fresh)
            .or_else(|_| fs::hard_link(&blob, &fresh))
            .or_else(|_| fs::copy(&blob, &fresh).map(|_| ()));
        made.and_then(|()| fs::rename(&fresh, &link)).map_err(|error| HubError::io(&link, error))
    }
}

impl Snapshot {
    /// Whether the file is there. A link to a blob that is gone is not.
    pub fn has(&self, name: &str) -> bool {
        self.folder.join(name).is_file()
    }

    /// Whether the commit is known to have no such file.
    pub fn lacks(&self, name: &str) -> bool {
        self.absent.join(name).is_file()
    }

    /// Notes that the commit has no such file.
    pub fn set_absent(&self, name: &str) -> Result<(), HubError> {
        let file = self.absent.join(name);
        make_parent(&file)?;
        File::create(&file).map(|_| ()).map_err(|error| HubError::io(&file, error))
    }
}

/// Whether `text` from a server can name a file of the cache.
pub(super) fn is_file_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+=".contains(c))
}

/// Whether `text` can be a branch, tag or commit: parts as file names, with slashes between them.
pub(super) fn is_revision(text: &str) -> bool {
    text.split('/').all(is_file_name)
}

pub(super) fn make_parent(file: &Path) -> Result<(), HubError> {
    match file.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(|error| HubError::io(parent, error)),
        None => Ok(()),
    }
}

/// A name of this process's own in the same folder.
fn beside(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let fresh = file.with_file_name(format!(".{name}.{}", std::process::id()));
    // A process of this number may have died here before.
    let _ = fs::remove_file(&fresh);
    fresh
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
