//! The manifest of a run over many photos: one SQLite file that says of each photo what became of it, so
//! that a run that broke off goes on where it was. Knows no model and writes no other file.
//!
//! Table `photos`: path, relative, path_bytes (where the path is no UTF-8), position (in the last run that
//! saw it), bytes and modified (seconds, nanoseconds; of the file), hash (BLAKE3 of its content), status
//! (`pending`, `done`, `failed`, `skipped`), caption (as written), captions (JSON: all, with their words'
//! probabilities), error, model (as it was named), model_hash and settings (hashes), attempts, time (Unix seconds). Table `settings`: what
//! each hash of settings stands for. Table `facts`: what the run itself knew, such as its share and how
//! many photos there are.

use std::ffi::OsString;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Caption;
use super::inputs::Input;
use super::output::{Shaped, name_of};

const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS photos (
    path TEXT PRIMARY KEY, relative TEXT NOT NULL, path_bytes BLOB, position INTEGER NOT NULL,
    bytes INTEGER, modified TEXT, hash TEXT,
    status TEXT NOT NULL CHECK (status IN ('pending', 'done', 'failed', 'skipped')),
    caption TEXT, captions TEXT, error TEXT, model TEXT, model_hash TEXT, settings TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, time INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS photos_by_hash ON photos (hash);
CREATE TABLE IF NOT EXISTS settings (hash TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;";

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is none.
    #[error("{}: no manifest here", file.display())]
    NotFound {
        /// The file named.
        file: PathBuf,
    },
    /// SQLite cannot read or write it.
    #[error("{}: the manifest cannot be used", file.display())]
    Sqlite {
        /// The manifest.
        file: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A database, and no manifest of ours.
    #[error("{}: a database of something else; expected a manifest or a new file", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// Another process captions into it.
    #[error("{}: in use: another patchword captions into it", file.display())]
    InUse {
        /// The manifest.
        file: PathBuf,
    },
    /// The lock beside it cannot be made.
    #[error("{}: cannot be locked", file.display())]
    Lock {
        /// The lock's file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What became of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The photo.
    pub input: Input,
    /// `pending`, `done`, `failed` or `skipped`.
    pub status: String,
    /// BLAKE3 of the content.
    pub hash: Option<String>,
    /// Its captions, if it is done.
    pub captions: Vec<Shaped>,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// The model as it was named.
    pub model: Option<String>,
    /// Hash of the model.
    pub model_hash: Option<String>,
    /// Hash of the settings.
    pub settings: Option<String>,
    /// Bytes and time of the file as it was captioned.
    stamp: Option<Stamp>,
}

/// Length and modification time of a file: as long as both are as they were, its content is taken to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    bytes: i64,
    modified: String,
}

impl Stamp {
    /// Of a file that is there.
    pub fn of(metadata: &Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let since = since.unwrap_or(Duration::ZERO);
        let modified = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        Self { bytes: i64::try_from(metadata.len()).unwrap_or(i64::MAX), modified }
    }
}

/// How many photos are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Captioned.
    pub done: u64,
    /// Without a caption; tried again by the next run.
    pub failed: u64,
    /// Passed over, since a caption was there before the run.
    pub skipped: u64,
    /// Seen, and not captioned yet.
    pub pending: u64,
}

/// A photo and its captions, for [`Manifest::keep`].
#[derive(Debug)]
pub struct Keeping<'a> {
    /// The photo.
    pub input: &'a Input,
    /// Its file as it was read.
    pub stamp: Option<&'a Stamp>,
    /// BLAKE3 of its content.
    pub hash: Option<&'a str>,
    /// Its captions.
    pub captions: &'a [Shaped],
}

/// What became of a photo, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Its captions are written where they belong.
    Done,
    /// It has captions, which cannot be written where they belong: they are kept.
    Unwritten(String),
    /// It needs none.
    Skipped(String),
    /// It has none.
    Failed(String),
}

/// A caption as the manifest keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    text: String,
    #[serde(flatten)]
    caption: Caption,
}

/// An open manifest; shared among threads.
#[derive(Debug)]
pub struct Manifest {
    file: PathBuf,
    database: Mutex<Connection>,
    /// Held as long as the manifest is open for writing; the system lets go of it whenever we end.
    _lock: Option<File>,
}

impl Manifest {
    /// Opens it for a run, and makes it if it is not there. One run at a time has it.
    ///
    /// # Errors
    /// It is in use, is something else, or cannot be read or written.
    pub fn open(file: &Path) -> Result<Self, ManifestError> {
        if file.is_file() {
            // Before anything is written into it.
            Self::read(file)?;
        }
        let lock_file = beside(file, ".lock");
        let failed = |source| ManifestError::Lock { file: lock_file.clone(), source };
        let lock = File::options().create(true).append(true).open(&lock_file).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ManifestError::InUse { file: file.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let failed = |source| ManifestError::Sqlite { file: file.to_owned(), source };
        let database = Connection::open(file).map_err(failed)?;
        // What is committed outlives the process; a power cut may take the last moments.
        database
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .and_then(|()| database.busy_timeout(Duration::from_secs(30)))
            // All of it or nothing, also where the disk is full: half of it would be a database of something else.
            .and_then(|()| database.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;")))
            .map_err(failed)?;
        Ok(Self { file: file.to_owned(), database: database.into(), _lock: Some(lock) })
    }

    /// Opens it to look at it, also while a run goes on.
    ///
    /// # Errors
    /// It is not there, is something else, or cannot be read.
    pub fn read(file: &Path) -> Result<Self, ManifestError> {
        if !file.is_file() {
            return Err(ManifestError::NotFound { file: file.to_owned() });
        }
        let failed = |source| ManifestError::Sqlite { file: file.to_owned(), source };
        let database = Connection::open(file).map_err(failed)?;
        database.busy_timeout(Duration::from_secs(30)).map_err(failed)?;
        let version: i64 =
            database.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        let tables = tables(&database).map_err(failed)?;
        if version != VERSION && !tables.is_empty() {
            return Err(ManifestError::Foreign { file: file.to_owned() });
        }
        // A run that was killed at once leaves an empty database; an earlier version had fewer tables.
        for statement in SCHEMA.split(';') {
            let name = statement.trim().strip_prefix("CREATE TABLE IF NOT EXISTS ");
            let name = name.and_then(|rest| rest.split(' ').next());
            if name.is_some_and(|name| !tables.iter().any(|table| table == name)) {
                let empty = statement.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1);
                database.execute_batch(&empty).map_err(failed)?;
            }
        }
        Ok(Self { file: file.to_owned(), database: database.into(), _lock: None })
    }

    /// Whether a run captions into it now.
    pub fn is_in_use(file: &Path) -> bool {
        let lock = File::open(beside(file, ".lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Does something with the database that no method here does.
    pub(super) fn with_database<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ManifestError> {
        work(&self.database()).map_err(|error| self.failed(error))
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: rusqlite::Error) -> ManifestError {
        ManifestError::Sqlite { file: self.file.clone(), source }
    }

    /// Says what a hash of settings stands for.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn name_settings(
        &self,
        hash: &str,
        value: &serde_json::Value,
    ) -> Result<(), ManifestError> {
        let statement = "INSERT OR IGNORE INTO settings (hash, value) VALUES (?1, ?2)";
        let done = self.database().execute(statement, params![hash, value.to_string()]);
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// Notes photos that are to be captioned, each with its place among all; what is known of them stays.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn expect(&self, photos: &[(usize, Input)]) -> Result<(), ManifestError> {
        self.in_transaction(photos, |transaction| {
            let mut statement = transaction.prepare(
                "INSERT INTO photos (path, relative, path_bytes, position, status)
                 VALUES (?1, ?2, ?3, ?4, 'pending')
                 ON CONFLICT (path) DO UPDATE SET position = ?4, relative = ?2
                 WHERE position <> ?4 OR relative <> ?2",
            )?;
            for (place, input) in photos {
                let bytes = input.path.to_str().is_none();
                let bytes = bytes.then(|| input.path.as_os_str().as_encoded_bytes());
                let relative = name_of(&input.relative);
                let position = i64::try_from(*place).unwrap_or(i64::MAX);
                statement.execute(params![name_of(&input.path), relative, bytes, position])?;
            }
            Ok(())
        })
    }

    /// What is known of a photo.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn entry(&self, input: &Input) -> Result<Option<Entry>, ManifestError> {
        let database = self.database();
        let found =
            database.prepare(&format!("SELECT {COLUMNS} FROM photos WHERE path = ?1")).and_then(
                |mut statement| statement.query_row([name_of(&input.path)], entry).optional(),
            );
        found.map_err(|error| self.failed(error))
    }

    /// The captions of a photo of this content, by this model with these settings.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn captions_of(
        &self,
        hash: &str,
        model: &str,
        settings: &str,
    ) -> Result<Option<Vec<Shaped>>, ManifestError> {
        let database = self.database();
        let statement = "SELECT captions FROM photos
            WHERE hash = ?1 AND captions IS NOT NULL AND model_hash = ?2 AND settings = ?3 LIMIT 1";
        let found = database.prepare(statement).and_then(|mut statement| {
            statement
                .query_row(params![hash, model, settings], |row| row.get::<_, String>(0))
                .optional()
        });
        Ok(found.map_err(|error| self.failed(error))?.map(|text| kept(&text)))
    }

    /// Keeps the captions of photos, in one transaction: all of them or none. A photo is done when
    /// [`settle`](Self::settle) says that its captions are written where they belong.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn keep(
        &self,
        photos: &[Keeping<'_>],
        (model, model_hash, settings): (&str, &str, &str),
    ) -> Result<(), ManifestError> {
        self.in_transaction(photos, |transaction| {
            let mut statement = transaction.prepare(
                "UPDATE photos SET status = 'pending', bytes = ?2, modified = ?3, hash = ?4, caption = ?5,
                 captions = ?6, error = NULL, model = ?7, model_hash = ?8, settings = ?9,
                 attempts = attempts + 1, time = unixepoch() WHERE path = ?1",
            )?;
            for Keeping { input, stamp, hash, captions } in photos {
                let text = captions.first().map(|shaped| shaped.text.as_str());
                let kept = as_kept(captions);
                let (bytes, modified) = stamp.map(|stamp| (stamp.bytes, &stamp.modified)).unzip();
                let path = name_of(&input.path);
                statement.execute(params![
                    path, bytes, modified, hash, text, kept, model, model_hash, settings
                ])?;
            }
            Ok(())
        })
    }

    /// Notes what became of photos, in one transaction.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn settle(&self, photos: &[(&Input, Settled)]) -> Result<(), ManifestError> {
        self.in_transaction(photos, |transaction| {
            let mut done = transaction
                .prepare("UPDATE photos SET status = 'done', error = NULL WHERE path = ?1")?;
            let mut unwritten = transaction.prepare(
                "UPDATE photos SET status = 'failed', error = ?2, time = unixepoch() WHERE path = ?1",
            )?;
            let mut without = transaction.prepare(
                "UPDATE photos SET status = ?2, error = ?3, caption = NULL, captions = NULL,
                 attempts = attempts + 1, time = unixepoch() WHERE path = ?1",
            )?;
            for (input, settled) in photos {
                let path = name_of(&input.path);
                match settled {
                    Settled::Done => done.execute([&path])?,
                    Settled::Unwritten(reason) => unwritten.execute([&path, reason])?,
                    Settled::Skipped(reason) => without.execute([&path, "skipped", reason])?,
                    Settled::Failed(reason) => without.execute([&path, "failed", reason])?,
                };
            }
            Ok(())
        })
    }

    /// Notes that a photo has other bytes since its caption was written into it.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn restamp(&self, input: &Input, stamp: &Stamp) -> Result<(), ManifestError> {
        let statement = "UPDATE photos SET bytes = ?2, modified = ?3 WHERE path = ?1";
        let values = params![name_of(&input.path), stamp.bytes, stamp.modified];
        let done = self.database().execute(statement, values);
        done.map(drop).map_err(|error| self.failed(error))
    }

    fn in_transaction<T>(
        &self,
        photos: &[T],
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), ManifestError> {
        if photos.is_empty() {
            return Ok(());
        }
        let mut database = self.database();
        let done = database.transaction().and_then(|transaction| {
            work(&transaction)?;
            transaction.commit()
        });
        done.map_err(|error| self.failed(error))
    }

    /// Notes what a run itself knows, in place of what was noted under the name.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn note_fact(&self, name: &str, value: &impl Serialize) -> Result<(), ManifestError> {
        let statement = "INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)";
        let value = serde_json::to_string(value).unwrap_or_default();
        let done = self.database().execute(statement, params![name, value]);
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// What was noted under a name; `None` if nothing was that reads as a `T`.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn fact<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ManifestError> {
        let statement = "SELECT value FROM facts WHERE name = ?1";
        let found = self.database().query_row(statement, [name], |row| row.get::<_, String>(0));
        let found = found.optional().map_err(|error| self.failed(error))?;
        Ok(found.and_then(|value| serde_json::from_str(&value).ok()))
    }

    /// How many photos are in which state.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn counts(&self) -> Result<Counts, ManifestError> {
        let mut counts = Counts::default();
        let database = self.database();
        let counted = database
            .prepare("SELECT status, count(*) FROM photos GROUP BY status")
            .and_then(|mut statement| {
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let (status, count): (String, i64) = (row.get(0)?, row.get(1)?);
                    let count = u64::try_from(count).unwrap_or(0);
                    match status.as_str() {
                        "done" => counts.done = count,
                        "failed" => counts.failed = count,
                        "skipped" => counts.skipped = count,
                        _ => counts.pending = count,
                    }
                }
                Ok(())
            });
        counted.map(|()| counts).map_err(|error| self.failed(error))
    }

    /// Hands every photo to `each`, in the order of the last run, those of `status` only if one is given.
    ///
    /// # Errors
    /// The manifest cannot be read, or what `each` returns.
    pub fn for_each<E: From<ManifestError>>(
        &self,
        status: Option<&str>,
        each: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let database = self.database();
        let failed = |error| E::from(self.failed(error));
        let mut statement = database
            .prepare(&format!(
                "SELECT {COLUMNS} FROM photos WHERE ?1 IS NULL OR status = ?1 ORDER BY position, path"
            ))
            .map_err(failed)?;
        let mut rows = statement.query([status]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(entry(row).map_err(failed)?)?;
        }
        Ok(())
    }
}

const COLUMNS: &str = "path, path_bytes, relative, status, hash, captions, error, model, settings, bytes, modified, model_hash";

fn tables(database: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let path: String = row.get(0)?;
    let path = match row.get::<_, Option<Vec<u8>>>(1)? {
        Some(bytes) => path_of(bytes),
        None => path.into(),
    };
    let (bytes, modified): (Option<i64>, Option<String>) = (row.get(9)?, row.get(10)?);
    Ok(Entry {
        input: Input::file(path, row.get::<_, String>(2)?),
        status: row.get(3)?,
        hash: row.get(4)?,
        captions: row.get::<_, Option<String>>(5)?.map_or_else(Vec::new, |text| kept(&text)),
        error: row.get(6)?,
        model: row.get(7)?,
        settings: row.get(8)?,
        model_hash: row.get(11)?,
        stamp: bytes.zip(modified).map(|(bytes, modified)| Stamp { bytes, modified }),
    })
}

impl Entry {
    /// Whether the photo is captioned and its file has length and time as it had then.
    pub fn is_current(&self, stamp: &Stamp) -> bool {
        !self.captions.is_empty() && self.stamp.as_ref() == Some(stamp)
    }

    /// Hashes of the model and of the settings that its captions come from.
    pub fn hashes(&self) -> (Option<&str>, Option<&str>) {
        (self.model_hash.as_deref(), self.settings.as_deref())
    }

    /// Whether its captions are written where they belong.
    pub fn is_done(&self) -> bool {
        self.status == "done"
    }
}

fn as_kept(captions: &[Shaped]) -> String {
    let kept: Vec<Kept> = captions
        .iter()
        .map(|shaped| Kept { text: shaped.text.clone(), caption: shaped.caption.clone() })
        .collect();
    serde_json::to_string(&kept).unwrap_or_default()
}

fn kept(text: &str) -> Vec<Shaped> {
    let kept: Vec<Kept> = serde_json::from_str(text).unwrap_or_default();
    kept.into_iter().map(|Kept { text, caption }| Shaped { text, caption }).collect()
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from(String::from_utf8_lossy(&bytes).into_owned()).into()
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    file.with_file_name(name)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
