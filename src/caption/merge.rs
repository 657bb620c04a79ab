//! Manifests of shares, joined into one that is as a single run would have left it, and whether all photos
//! are there exactly once. Knows manifests only: neither photos nor models.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::manifest::{Counts, Manifest, ManifestError};
use super::shard::{Census, RunFacts, Shard};

/// What is not as it would be after one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discrepancy {
    /// No manifest is of this share; how many photos none has, if that is known.
    MissingShare {
        /// The share.
        shard: Shard,
    },
    /// Two manifests are of this share.
    DoubledShare {
        /// The share.
        shard: Shard,
        /// The first one.
        first: PathBuf,
        /// The second one.
        second: PathBuf,
    },
    /// A run that did not get to the end of its walk: how many photos there are is not known.
    Unfinished {
        /// Its manifest.
        file: PathBuf,
    },
    /// Two runs met different photos, and so shared them out differently.
    OtherPhotos {
        /// The first manifest.
        first: PathBuf,
        /// How many photos its run met.
        of_first: u64,
        /// The second manifest.
        second: PathBuf,
        /// How many photos its run met.
        of_second: u64,
    },
    /// A photo that several manifests have captioned or tried.
    Doubled {
        /// Its path.
        path: String,
        /// The manifest that it is in as well.
        file: PathBuf,
        /// Whether its captions are the same in both.
        is_equal: bool,
    },
    /// A photo without a caption.
    Undone {
        /// Its path.
        path: String,
        /// Why, if it failed; `None`: it is pending.
        error: Option<String>,
    },
    /// Photos that no manifest has.
    Absent {
        /// How many; 0 where as many as expected are there, but others.
        photos: u64,
    },
    /// Captions of several models, or of several settings.
    Mixed {
        /// Which: `models` or `settings`.
        of: &'static str,
        /// How many.
        count: u64,
    },
}

/// What joining manifests came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Photos by what became of them.
    pub counts: Counts,
    /// All that is not as after one run.
    pub discrepancies: Vec<Discrepancy>,
}

/// Joins `sources` into a new manifest at `target`, which must not be there. Of a photo that several have,
/// a caption counts more than a failure, and the earlier manifest more than the later one.
///
/// # Errors
/// A manifest that is not there, is none, cannot be read, or is in use; a target that cannot be written.
pub fn merge_manifests(sources: &[PathBuf], target: &Path) -> Result<Merged, ManifestError> {
    for source in sources {
        if Manifest::is_in_use(source) {
            return Err(ManifestError::InUse { file: source.clone() });
        }
    }
    let merged = Manifest::open(target)?;
    let mut discrepancies = Vec::new();
    let mut runs = Vec::new();
    for source in sources {
        match Manifest::read(source)?.fact::<RunFacts>(RunFacts::NAME)? {
            Some(facts) => runs.push((source, facts)),
            None => discrepancies.push(Discrepancy::Unfinished { file: source.clone() }),
        }
        merged.with_database(|database| take(database, source, &mut discrepancies))?;
    }
    let all_ended = discrepancies.iter().all(|one| !matches!(one, Discrepancy::Unfinished { .. }));
    let expected = expected(&runs, &mut discrepancies);
    let mut census = Census::default();
    let (mut models, mut settings) = (BTreeSet::new(), BTreeSet::new());
    merged.for_each::<ManifestError>(None, &mut |entry| {
        census.add(&entry.input.path);
        let (model, setting) = entry.hashes();
        models.extend(model.map(str::to_owned));
        settings.extend(setting.map(str::to_owned));
        if ["failed", "pending"].contains(&entry.status.as_str()) {
            let path = super::output::name_of(&entry.input.path);
            let error = (entry.status == "failed").then(|| entry.error.unwrap_or_default());
            discrepancies.push(Discrepancy::Undone { path, error });
        }
        Ok(())
    })?;
    if census != expected && all_ended {
        let photos = expected.photos.saturating_sub(census.photos);
        discrepancies.push(Discrepancy::Absent { photos });
    }
    for (of, hashes) in [("models", models), ("settings", settings)] {
        if hashes.len() > 1 {
            discrepancies.push(Discrepancy::Mixed { of, count: hashes.len() as u64 });
        }
    }
    if discrepancies.is_empty() {
        merged.note_fact(RunFacts::NAME, &RunFacts { shard: Shard::ALL, census })?;
    }
    let counts = merged.counts()?;
    // One file, without a log beside it.
    merged.with_database(|database| {
        database.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
    })?;
    Ok(Merged { counts, discrepancies })
}

/// Of a status, the more the better.
const RANK: &str =
    "CASE status WHEN 'done' THEN 3 WHEN 'skipped' THEN 2 WHEN 'failed' THEN 1 ELSE 0 END";

/// Takes over all rows of `source`.
fn take(
    database: &Connection,
    source: &Path,
    discrepancies: &mut Vec<Discrepancy>,
) -> rusqlite::Result<()> {
    database.execute("ATTACH DATABASE ?1 AS source", params![source.to_string_lossy()])?;
    let mut doubled = database.prepare(
        "SELECT photos.path, photos.caption IS theirs.caption FROM photos
         JOIN source.photos AS theirs ON theirs.path = photos.path
         WHERE photos.status <> 'pending' AND theirs.status <> 'pending' ORDER BY photos.path",
    )?;
    let rows = doubled.query_map([], |row| {
        let file = source.to_owned();
        Ok(Discrepancy::Doubled { path: row.get(0)?, file, is_equal: row.get(1)? })
    })?;
    for row in rows {
        discrepancies.push(row?);
    }
    drop(doubled);
    let columns = "path, relative, path_bytes, position, bytes, modified, hash, status, caption, captions, \
                   error, model, model_hash, settings, attempts, time";
    database.execute_batch(&format!(
        "BEGIN;
         DELETE FROM photos WHERE path IN (SELECT path FROM source.photos)
             AND {RANK} < (SELECT {RANK} FROM source.photos AS theirs WHERE theirs.path = photos.path);
         INSERT OR IGNORE INTO photos ({columns}) SELECT {columns} FROM source.photos;
         INSERT OR IGNORE INTO settings SELECT * FROM source.settings;
         COMMIT;"
    ))?;
    database.execute_batch("DETACH DATABASE source")
}

/// The photos that all runs together met, each once: runs that shared photos out met the same ones.
fn expected(runs: &[(&PathBuf, RunFacts)], discrepancies: &mut Vec<Discrepancy>) -> Census {
    let mut expected = Census::default();
    let mut by_count: BTreeMap<u64, Vec<(&PathBuf, RunFacts)>> = BTreeMap::new();
    for (file, facts) in runs {
        by_count.entry(facts.shard.count).or_default().push((file, *facts));
    }
    for (count, runs) in by_count {
        if count == 1 {
            // Runs over folders of their own.
            runs.iter().for_each(|(_, facts)| expected.add_all(&facts.census));
            continue;
        }
        let (first, of_first) = &runs[0];
        expected.add_all(&of_first.census);
        let mut shares: BTreeMap<u64, &PathBuf> = BTreeMap::new();
        for (file, facts) in &runs {
            if facts.census != of_first.census {
                discrepancies.push(Discrepancy::OtherPhotos {
                    first: (*first).clone(),
                    of_first: of_first.census.photos,
                    second: (*file).clone(),
                    of_second: facts.census.photos,
                });
            }
            if let Some(other) = shares.insert(facts.shard.index, file) {
                let (first, second) = (other.clone(), (*file).clone());
                discrepancies.push(Discrepancy::DoubledShare { shard: facts.shard, first, second });
            }
        }
        for index in (0..count).filter(|index| !shares.contains_key(index)) {
            discrepancies.push(Discrepancy::MissingShare { shard: Shard { index, count } });
        }
    }
    expected
}
