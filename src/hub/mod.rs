//! Models by name: a folder, or an id on the Hugging Face Hub whose files are downloaded once into
//! the cache that Hugging Face's own tools use.
//!
//! ```text
//! HF_HOME/hub/models--owner--name/
//!   blobs/ETAG              a file's bytes; ETAG.incomplete while they arrive
//!   snapshots/COMMIT/NAME   a link to the blob
//!   refs/REVISION           the commit that a branch or tag stood for
//!   .no_exist/COMMIT/NAME   a file that this commit does not have
//! HF_HOME/hub/.locks/…      one process at a time writes a blob
//! ```
//!
//! A model that is in the cache needs no network. A broken download goes on where it stopped, and two
//! processes that want the same file wait for each other. The HTTP client is `ureq` with this layout
//! above it, not the crate `hf-hub`: its version 1.0 begins a broken download anew and brings 300
//! crates, among them tokio and a second TLS library in C; version 0.5 has no time limits and checks
//! neither the size nor the hash of what it resumed.

mod cache;
mod client;
mod error;
mod fetch;
mod settings;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::HubError;
pub use fetch::{Hub, Pulled, RemoteFile};
pub use settings::{HubSettings, Token};

/// The revision taken where none is asked for.
pub const MAIN: &str = "main";

/// A model's id on the Hub, `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    owner: String,
    name: String,
}

impl ModelId {
    /// Reads `owner/name`: two parts of letters, digits, `.`, `_` and `-`, at most 96 characters each,
    /// that begin with a letter, a digit or `_`.
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, name) = text.split_once('/')?;
        let is_part = |part: &str| {
            part.len() <= 96
                && part.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let id = || Self { owner: owner.into(), name: name.into() };
        (is_part(owner) && is_part(name)).then(id)
    }

    /// The folder of this model in the cache.
    fn folder_name(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// What names a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A model of the Hub.
    Id(ModelId),
}

impl Reference {
    /// Something that is here is a path; else `owner/name` is an id, and all the rest is a path.
    pub fn parse(model: impl AsRef<Path>) -> Self {
        let path = model.as_ref();
        match path.to_str().and_then(ModelId::parse) {
            Some(id) if !path.exists() => Self::Id(id),
            _ => Self::Folder(path.into()),
        }
    }
}

/// How a download goes, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// A file begins to arrive; also when it has to begin anew.
    Start {
        /// Its name.
        file: &'a str,
        /// Its size in bytes, if the server says it.
        size: Option<u64>,
        /// Bytes that are here already.
        have: u64,
    },
    /// So many more bytes of the file are here.
    Bytes(u64),
    /// The file is here, whole.
    End {
        /// Its name.
        file: &'a str,
        /// Its size in bytes.
        size: u64,
    },
    /// The connection broke; it is tried again after a pause.
    Retry {
        /// What went wrong.
        reason: &'a str,
        /// How long is waited.
        pause: Duration,
    },
    /// Another process downloads this file: it is waited for.
    Waiting {
        /// The file's name.
        file: &'a str,
    },
    /// The Hub cannot be asked; what the cache holds is used, although files may be missing.
    CacheOnly {
        /// Why.
        reason: &'a str,
    },
}

/// The folder that `model` names: a path as it is, or the snapshot of a Hub model in the cache, which
/// is downloaded if it is not there. `revision` is a branch, tag or commit ([`MAIN`] if none);
/// `offline` allows no network, as `HF_HUB_OFFLINE` does.
///
/// # Errors
/// A revision of a folder, settings that make no sense, a model that is not there or not to be had, and
/// whatever can go wrong on the way.
pub fn locate(
    model: impl AsRef<Path>,
    revision: Option<&str>,
    offline: bool,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, HubError> {
    match Reference::parse(model) {
        Reference::Folder(folder) => match revision {
            None => Ok(folder),
            Some(revision) => Err(HubError::RevisionOfFolder { folder, revision: revision.into() }),
        },
        Reference::Id(id) => {
            let mut settings = HubSettings::from_environment()?;
            settings.offline |= offline;
            Hub::new(settings)?.folder(&id, revision.unwrap_or(MAIN), on_event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_path_or_an_id() {
        let id = |text: &str| Reference::Id(ModelId::parse(text).unwrap());
        for text in ["Salesforce/blip-image-captioning-base", "checkpoints/none-of-this_name.1"] {
            assert_eq!(Reference::parse(text), id(text));
        }
        let paths = [
            "./a", "/a/b", "../a", "a", "a/b/c", "a/", "/a", "a b/c", "~/a", "a\\b", "", "src/hub",
            "a/.b",
        ];
        for text in paths {
            assert_eq!(Reference::parse(text), Reference::Folder(text.into()), "{text}");
        }
        let too_long = format!("a/{}", "b".repeat(97));
        assert_eq!(ModelId::parse(&too_long), None);
    }
}
