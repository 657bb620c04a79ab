//! Which files of a model are needed, and getting them into the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Serialize;
use serde_json::Value;

use super::cache::{ModelCache, Snapshot, is_file_name, is_revision, make_parent};
use super::client::{Client, Metadata, Part, TRIES};
use super::{Event, HubError, HubSettings, ModelId};

const CONFIG: &str = "config.json";
/// Small files that say how a model is used, each taken where there is one.
const SETTINGS: [&str; 7] = [
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "README.md",
    TOKENIZER,
];
/// The same for a model that patchword made.
const OWN_SETTINGS: [&str; 3] = ["preprocessor.json", "README.md", TOKENIZER];
const TOKENIZER: &str = "tokenizer.json";
/// What a tokenizer is made of where there is no `tokenizer.json`.
const VOCABULARY: [&str; 4] = ["vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"];
/// Forms of weights, the best first: in one file, or in shards that an index names.
const WEIGHTS: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// The Hub and a cache of it.
#[derive(Debug)]
pub struct Hub {
    client: Client,
}

/// What a download left.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The model's folder.
    pub folder: PathBuf,
    /// The commit that the revision stands for; the revision itself on servers that don't say.
    pub commit: String,
    /// Files of the model that are not in the folder: the weights, if only the rest was asked for.
    pub left_out: Vec<RemoteFile>,
}

/// A file on the Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes, if the server says it.
    pub size: Option<u64>,
}

impl Hub {
    /// The Hub as `settings` say.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        Ok(Self { client: Client::new(settings)? })
    }

    /// What it was made with.
    pub fn settings(&self) -> &HubSettings {
        self.client.settings()
    }

    /// The model's folder: from the cache without a look at the network, else downloaded.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn folder(
        &self,
        id: &ModelId,
        revision: &str,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf, HubError> {
        check_revision(revision)?;
        let cached = self.cache(id).find(revision);
        if let Some(snapshot) = cached.as_ref().filter(|snapshot| is_complete(snapshot)) {
            return Ok(snapshot.folder.clone());
        }
        let usable = cached.filter(|snapshot| snapshot.has(CONFIG) && weights(snapshot).is_some());
        match (self.pull(id, revision, on_event), usable) {
            (Ok(pulled), _) => Ok(pulled.folder),
            // What another tool downloaded in part may be all that is needed.
            (Err(HubError::Unreachable { endpoint, source, .. }), Some(snapshot)) => {
                let reason = format!("{endpoint} cannot be reached ({source})");
                on_event(Event::CacheOnly { reason: &reason });
                Ok(snapshot.folder)
            }
            (Err(HubError::NotCached { .. }), Some(snapshot)) => Ok(snapshot.folder),
            (Err(error), _) => Err(error),
        }
    }

    /// The folder of the model's small files, with the weights if they are in the cache: enough to
    /// describe a model without downloading it.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn describe(
        &self,
        id: &ModelId,
        revision: &str,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Pulled, HubError> {
        check_revision(revision)?;
        let pulled = |snapshot: Snapshot| {
            let commit = snapshot.folder.file_name().unwrap_or_default().to_string_lossy();
            let commit = commit.into_owned();
            Pulled { folder: snapshot.folder, commit, left_out: Vec::new() }
        };
        match self.cache(id).find(revision) {
            Some(snapshot) if snapshot.has(CONFIG) && weights(&snapshot).is_some() => {
                Ok(pulled(snapshot))
            }
            known => match (self.fetch(id, revision, false, on_event), known) {
                (
                    Err(HubError::Unreachable { .. } | HubError::NotCached { .. }),
                    Some(snapshot),
                ) if snapshot.has(CONFIG) => Ok(pulled(snapshot)),
                (outcome, _) => outcome,
            },
        }
    }

    /// Asks the Hub what the revision stands for now, and downloads what the cache lacks of it.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn pull(
        &self,
        id: &ModelId,
        revision: &str,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Pulled, HubError> {
        self.fetch(id, revision, true, on_event)
    }

    /// Whether the cache has anything of the model at this revision.
    pub fn knows(&self, id: &ModelId, revision: &str) -> bool {
        self.cache(id).find(revision).is_some()
    }

    fn cache(&self, id: &ModelId) -> ModelCache {
        ModelCache::new(&self.settings().cache, id)
    }

    fn fetch(
        &self,
        id: &ModelId,
        revision: &str,
        with_weights: bool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Pulled, HubError> {
        check_revision(revision)?;
        let cache = self.cache(id);
        if self.settings().offline {
            return Err(HubError::NotCached {
                id: id.to_string(),
                revision: revision.into(),
                cache: self.settings().cache.clone(),
            });
        }
        let no_file =
            |missing| HubError::NoFile { id: id.to_string(), revision: revision.into(), missing };
        let config = self.client.metadata(id, revision, CONFIG, on_event)?;
        let config = config.ok_or_else(|| no_file(CONFIG))?;
        let commit = config.commit.clone();
        let folder = commit.clone().unwrap_or_else(|| revision.replace('/', "--"));
        let snapshot = cache.snapshot(&folder);
        let mut fetch =
            Fetch { hub: self, id, revision, commit, cache: &cache, snapshot, on_event };
        fetch.download(CONFIG, &config)?;
        let is_own = fetch.is_own()?;
        let mut has_tokenizer = false;
        for name in if is_own { &OWN_SETTINGS[..] } else { &SETTINGS } {
            has_tokenizer |= fetch.file(name)? && *name == TOKENIZER;
        }
        if !has_tokenizer {
            for name in VOCABULARY {
                fetch.file(name)?;
            }
        }
        let left_out = fetch.weights(with_weights)?;
        let found = left_out.ok_or_else(|| no_file("model.safetensors or pytorch_model.bin"))?;
        let snapshot = fetch.snapshot;
        // Only now: until all is here, what was there before stays what the name stands for.
        if found.is_empty() || cache.find(revision).is_none() {
            cache.set_reference(revision, &folder)?;
        }
        Ok(Pulled { folder: snapshot.folder, commit: folder, left_out: found })
    }
}

fn check_revision(revision: &str) -> Result<(), HubError> {
    if is_revision(revision) {
        return Ok(());
    }
    Err(HubError::Revision { revision: revision.into() })
}

/// Whether nothing that the model has and captioning needs is missing.
fn is_complete(snapshot: &Snapshot) -> bool {
    let lacks_all = |names: &[&str]| names.iter().all(|name| snapshot.lacks(name));
    let has_all = |names: &[&str]| names.iter().all(|name| snapshot.has(name));
    let tokenizer = snapshot.has(TOKENIZER)
        || has_all(&["vocab.txt"])
        || has_all(&["vocab.json", "merges.txt"])
        || (snapshot.lacks(TOKENIZER) && lacks_all(&["vocab.txt", "vocab.json"]));
    let preprocessor = ["preprocessor_config.json", "processor_config.json"];
    let has_preprocessor = || {
        let own = ["preprocessor.json"];
        preprocessor.iter().chain(&own).any(|name| snapshot.has(name)) || lacks_all(&preprocessor)
    };
    snapshot.has(CONFIG) && weights(snapshot).is_some() && tokenizer && has_preprocessor()
}

/// The files of the weights, if they are all there.
fn weights(snapshot: &Snapshot) -> Option<Vec<String>> {
    WEIGHTS.iter().find_map(|(whole, index)| {
        if snapshot.has(whole) {
            return Some(vec![(*whole).to_string()]);
        }
        let shards = if snapshot.has(index) {
            shards(&snapshot.folder.join(index)).ok()?
        } else {
            return None;
        };
        shards.iter().all(|shard| snapshot.has(shard)).then_some(shards)
    })
}

/// The files that an index of weights names.
fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    let wrong = |problem: String| HubError::Index { file: index.into(), problem };
    let text = fs::read(index).map_err(|error| HubError::io(index, error))?;
    let fields: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let Some(Value::Object(map)) = fields.get("weight_map") else {
        return Err(wrong("`weight_map` is missing; expected tensors and their files".into()));
    };
    let mut names: Vec<String> =
        map.values().filter_map(Value::as_str).map(str::to_string).collect();
    names.sort_unstable();
    names.dedup();
    match names.iter().find(|name| !is_file_name(name)) {
        Some(name) => Err(wrong(format!("`weight_map` names \"{name}\"; expected a file's name"))),
        None if names.is_empty() => Err(wrong("`weight_map` names no files".into())),
        None => Ok(names),
    }
}

/// One download of a model.
struct Fetch<'a> {
    hub: &'a Hub,
    id: &'a ModelId,
    revision: &'a str,
    /// What the revision stands for, where the server says it.
    commit: Option<String>,
    cache: &'a ModelCache,
    snapshot: Snapshot,
    on_event: &'a mut dyn FnMut(Event<'_>),
}

impl Fetch<'_> {
    /// Whether the model is in patchword's own format, from its config.
    fn is_own(&self) -> Result<bool, HubError> {
        let file = self.snapshot.folder.join(CONFIG);
        let text = fs::read(&file).map_err(|error| HubError::io(&file, error))?;
        // Whether it is JSON at all is for the reader of the model to say.
        let config: Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(config.get("format").is_some_and(|format| format == "patchword"))
    }

    /// Gets a file, and says whether there is one.
    fn file(&mut self, name: &str) -> Result<bool, HubError> {
        // A commit never changes; where the server names none, what is here may be old.
        if self.commit.is_some() && (self.snapshot.has(name) || self.snapshot.lacks(name)) {
            return Ok(self.snapshot.has(name));
        }
        match self.metadata(name)? {
            Some(metadata) => self.download(name, &metadata).map(|()| true),
            None => Ok(false),
        }
    }

    /// Asks for a file of this very commit, also if the branch moves on meanwhile.
    fn metadata(&mut self, name: &str) -> Result<Option<Metadata>, HubError> {
        let client = &self.hub.client;
        let mut found = client.metadata(self.id, self.revision, name, self.on_event)?;
        if let (Some(commit), Some(metadata)) = (&self.commit, &found)
            && metadata.commit.as_ref() != Some(commit)
        {
            found = client.metadata(self.id, commit, name, self.on_event)?;
        }
        if found.is_none() && self.commit.is_some() {
            self.snapshot.set_absent(name)?;
        }
        Ok(found)
    }

    /// Gets the weights, or says what there is to get; nothing if there are none.
    fn weights(&mut self, download: bool) -> Result<Option<Vec<RemoteFile>>, HubError> {
        for (whole, index) in WEIGHTS {
            if download {
                if self.file(whole)? {
                    return Ok(Some(Vec::new()));
                }
            } else if let Some(metadata) = self.metadata(whole)? {
                let size = metadata.size;
                return Ok(Some(vec![RemoteFile { name: whole.into(), size }]));
            }
            if !self.file(index)? {
                continue;
            }
            let mut left_out = Vec::new();
            for shard in shards(&self.snapshot.folder.join(index))? {
                let found = match download {
                    true => self.file(&shard)?,
                    false => match self.metadata(&shard)? {
                        Some(Metadata { size, .. }) => {
                            left_out.push(RemoteFile { name: shard.clone(), size });
                            true
                        }
                        None => false,
                    },
                };
                if !found {
                    let file = self.snapshot.folder.join(index);
                    let problem = format!("names {shard}, which the model does not have");
                    return Err(HubError::Index { file, problem });
                }
            }
            return Ok(Some(left_out));
        }
        Ok(None)
    }

    /// Gets the bytes of a file, unless the cache has them, and links them into the snapshot.
    fn download(&mut self, name: &str, metadata: &Metadata) -> Result<(), HubError> {
        let etag = metadata.etag.clone().unwrap_or_else(|| nameless(metadata));
        let blob = self.cache.blob(&etag);
        // Without a tag nobody knows whether old bytes are still the right ones.
        let is_here = |blob: &Path| {
            metadata.etag.is_some()
                && fs::metadata(blob)
                    .is_ok_and(|found| metadata.size.is_none_or(|size| size == found.len()))
        };
        if !is_here(&blob) {
            let on_event = &mut *self.on_event;
            let lock = self.cache.lock(&etag, &mut || on_event(Event::Waiting { file: name }))?;
            if !is_here(&blob) {
                let incomplete = self.cache.incomplete(&etag);
                make_parent(&incomplete)?;
                if metadata.etag.is_none() {
                    let _ = fs::remove_file(&incomplete);
                }
                self.bytes(name, metadata, &incomplete)?;
                fs::rename(&incomplete, &blob).map_err(|error| HubError::io(&blob, error))?;
            }
            drop(lock);
        }
        self.cache.link(&etag, &self.snapshot, name)
    }

    /// Fills `target`, going on where it ends; a broken connection is mended.
    fn bytes(&mut self, name: &str, metadata: &Metadata, target: &Path) -> Result<(), HubError> {
        let open = OpenOptions::new().create(true).append(true).read(true).open(target);
        let mut file = open.map_err(|error| HubError::io(target, error))?;
        let io = |error| HubError::io(target, error);
        let mut resumed = file.metadata().map_err(io)?.len() > 0;
        let mut size = metadata.size;
        let (mut tries, mut pause) = (1, self.hub.settings().pause);
        let most = if is_weights(name) { u64::MAX } else { MOST_SETTINGS };
        if let Some(bytes) = size.filter(|&size| size > most) {
            return Err(HubError::TooLarge { file: name.into(), bytes, most });
        }
        loop {
            let mut have = file.metadata().map_err(io)?.len();
            if size.is_some_and(|size| have > size) {
                file.set_len(0).map_err(io)?;
                have = 0;
            }
            let whole = size == Some(have) && (have > 0 || tries > 1);
            let mut received = 0;
            let outcome = if whole {
                Ok(())
            } else {
                self.receive(name, metadata, &mut file, have, &mut size, &mut received)?
            };
            let have = file.metadata().map_err(io)?.len();
            if have > most {
                drop(file);
                let _ = fs::remove_file(target);
                return Err(HubError::TooLarge { file: name.into(), bytes: have, most });
            }
            let outcome = outcome.and_then(|()| match size {
                Some(size) if size != have => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            });
            match outcome {
                Ok(()) => match self.check(name, metadata, &mut file, target)? {
                    Ok(()) => {
                        file.sync_all().map_err(io)?;
                        (self.on_event)(Event::End { file: name, size: have });
                        return Ok(());
                    }
                    // The part that was here before was no part of this file.
                    Err(_) if resumed => {
                        resumed = false;
                        file.set_len(0).map_err(io)?;
                    }
                    Err(error) => {
                        drop(file);
                        let _ = fs::remove_file(target);
                        return Err(error);
                    }
                },
                Err(source) => {
                    if received >= ENOUGH {
                        (tries, pause) = (1, self.hub.settings().pause);
                    } else if tries >= TRIES {
                        let size = size.map_or("an unknown number".into(), |size| size.to_string());
                        return Err(HubError::Broken { file: name.into(), have, size, source });
                    }
                    tries += 1;
                    self.hub.client.rest(&mut pause, &source.to_string(), self.on_event);
                }
            }
        }
    }

    /// One request: appends to `file`, which holds `have` bytes. The inner error is one of the network.
    fn receive(
        &mut self,
        name: &str,
        metadata: &Metadata,
        file: &mut File,
        have: u64,
        size: &mut Option<u64>,
        received: &mut u64,
    ) -> Result<io::Result<()>, HubError> {
        let io = |error| HubError::io(Path::new(name), error);
        let Part { start, size: said, body } = match self.hub.client.part(&metadata.url, have) {
            Ok(Ok(part)) => part,
            // What is here is no beginning of the file.
            Ok(Err(HubError::Server { status: 416, .. })) if have > 0 => {
                file.set_len(0).map_err(io)?;
                return Ok(Err(io::Error::other("HTTP 416: the file has changed")));
            }
            Ok(Err(error)) => return Err(error),
            Err(error) => return Ok(Err(error)),
        };
        if start != have {
            // A server that sends all of it, or another part than was asked for.
            file.set_len(0).map_err(io)?;
            if start != 0 {
                return Ok(Err(io::Error::other("another part of the file than was asked for")));
            }
        }
        if let (Some(expected), Some(said)) = (*size, said)
            && expected != said
        {
            let problem = format!("has {said} bytes, but {expected} were promised");
            return Err(HubError::Answer { url: metadata.url.clone(), problem });
        }
        *size = size.or(said);
        (self.on_event)(Event::Start { file: name, size: *size, have: start });
        // One byte more than is kept of what should be small: then it is known to be too large.
        let limit = if is_weights(name) { u64::MAX } else { MOST_SETTINGS + 1 };
        let most = size.unwrap_or(limit).min(limit).saturating_sub(start);
        let mut body = body.into_reader().take(most);
        let mut buffer = vec![0; 1 << 17];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(Ok(())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            file.write_all(&buffer[..count]).map_err(io)?;
            *received += count as u64;
            (self.on_event)(Event::Bytes(count as u64));
        }
    }

    /// Compares the bytes with the hash that the Hub says. The inner error is a difference.
    fn check(
        &self,
        name: &str,
        metadata: &Metadata,
        file: &mut File,
        target: &Path,
    ) -> Result<Result<(), HubError>, HubError> {
        let Some(expected) = &metadata.sha256 else { return Ok(Ok(())) };
        let found = sha256(file).map_err(|error| HubError::io(target, error))?;
        if found.eq_ignore_ascii_case(expected) {
            return Ok(Ok(()));
        }
        Ok(Err(HubError::Damaged { file: name.into(), expected: expected.clone(), found }))
    }
}

/// The largest file besides weights: no config, tokenizer or card comes near it, and each is read whole.
const MOST_SETTINGS: u64 = 64_000_000;

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

/// So many bytes of a connection that broke count as progress: the tries begin anew.
const ENOUGH: u64 = 1 << 20;

fn sha256(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The blob's name for a file of a server that gives no tag.
fn nameless(metadata: &Metadata) -> String {
    let mut context = Context::new(&SHA256);
    context.update(metadata.url.as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
