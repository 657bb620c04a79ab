//! What can go wrong between a model's name and its folder, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a model is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// `HF_ENDPOINT` is no URL.
    #[error("HF_ENDPOINT is `{value}`; expected a URL such as https://huggingface.co")]
    Endpoint {
        /// Its value.
        value: String,
    },
    /// There is no home folder and no variable that says where the cache is.
    #[error("there is no place for downloaded models: no home folder, and HF_HOME is not set")]
    NoCache,
    /// The certificates to trust cannot be used.
    #[error("{file}: no certificates in PEM here: {problem}")]
    Certificates {
        /// The file that `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE` names.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A revision was asked for, but the model is a folder.
    #[error("{folder} is a folder, which has no revision `{revision}`")]
    RevisionOfFolder {
        /// The folder.
        folder: PathBuf,
        /// The revision.
        revision: String,
    },
    /// A revision that cannot be one.
    #[error("`{revision}` is no revision: expected a branch, a tag or a commit")]
    Revision {
        /// What was asked for.
        revision: String,
    },
    /// The model is not in the cache and must not be downloaded.
    #[error(
        "{id} (revision {revision}) is not in {cache}, and offline means that nothing is downloaded"
    )]
    NotCached {
        /// The model.
        id: String,
        /// The revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The server does not answer.
    #[error(
        "{id} is neither a folder here nor in {cache}, and {endpoint} cannot be reached to download it"
    )]
    Unreachable {
        /// The model.
        id: String,
        /// The server.
        endpoint: String,
        /// The cache.
        cache: PathBuf,
        /// The client's reason.
        source: Box<ureq::Error>,
    },
    /// The server knows no such model, or hides it.
    #[error("{endpoint} has no model {id}, or hides it from {who} (HTTP {status}{said})")]
    NoModel {
        /// The model.
        id: String,
        /// The server.
        endpoint: String,
        /// 401 or 404.
        status: u16,
        /// "those without a token", or "this token".
        who: &'static str,
        /// The server's own words, with what joins them.
        said: String,
    },
    /// The model's owner has to let one in.
    #[error("{id} is gated: its owner asks for an agreement first (HTTP {status}{said})")]
    Gated {
        /// The model.
        id: String,
        /// The server.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        has_token: bool,
        /// The server's own words, with what joins them.
        said: String,
    },
    /// The server refuses.
    #[error("{endpoint} refuses to give {id} to {who} (HTTP {status}{said})")]
    Refused {
        /// The model.
        id: String,
        /// The server.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// "those without a token", or "this token".
        who: &'static str,
        /// The server's own words, with what joins them.
        said: String,
    },
    /// The model has no such revision.
    #[error("{id} has no revision `{revision}` (HTTP 404)")]
    NoRevision {
        /// The model.
        id: String,
        /// The revision.
        revision: String,
    },
    /// The model lacks a file that every model has.
    #[error("{id} (revision {revision}) has no {missing}: it is no model that patchword can read")]
    NoFile {
        /// The model.
        id: String,
        /// The revision.
        revision: String,
        /// What was looked for.
        missing: &'static str,
    },
    /// The server failed, and went on failing.
    #[error("{url}: the server answers HTTP {status}{said}")]
    Server {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// The server's own words, with what joins them.
        said: String,
    },
    /// The server's answer makes no sense.
    #[error("{url}: {problem}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// A download broke off too often.
    #[error("{file}: the download broke off at {have} bytes of {size}")]
    Broken {
        /// The file.
        file: String,
        /// Bytes that are in the cache.
        have: u64,
        /// The file's size in bytes, or "an unknown number".
        size: String,
        /// Why.
        source: io::Error,
    },
    /// What arrived is not what the server promised.
    #[error("{file}: what was downloaded is damaged: its SHA-256 is {found}, not {expected}")]
    Damaged {
        /// The file.
        file: String,
        /// What the server says.
        expected: String,
        /// What the bytes say.
        found: String,
    },
    /// A file that should be small is not, or does not end.
    #[error("{file}: {bytes} bytes and more; expected at most {most} of anything but weights")]
    TooLarge {
        /// The file.
        file: String,
        /// Bytes that there are, or that have arrived.
        bytes: u64,
        /// The most that is taken.
        most: u64,
    },
    /// An index of shards is damaged.
    #[error("{file}: {problem}")]
    Index {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the cache could not be read or written.
    #[error("cannot read or write `{}`", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl HubError {
    pub(super) fn io(file: &std::path::Path, source: io::Error) -> Self {
        Self::Io { file: file.into(), source }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let by_hand = |id: &str| {
            format!(
                "where there is a network, `patchword model pull {id}` downloads it and prints its \
                 folder; copy that folder (following links) here and name the copy in place of {id}"
            )
        };
        match self {
            Self::NotCached { id, .. } => Some(by_hand(id)),
            Self::Unreachable { id, endpoint, .. } => Some(format!(
                "if {id} is meant to be a folder, look at its name; behind a proxy set HTTPS_PROXY; \
                 HF_ENDPOINT names another server than {endpoint}; {}",
                by_hand(id)
            )),
            Self::NoModel { id, .. } => Some(format!(
                "look at the spelling (a folder of this name is not here either); a private or gated \
                 model needs HF_TOKEN, a token of an account that may read {id}"
            )),
            Self::Gated { id, endpoint, has_token: false, .. } => Some(format!(
                "agree at {endpoint}/{id}, then set HF_TOKEN to a token of your account \
                 ({endpoint}/settings/tokens)"
            )),
            Self::Gated { id, endpoint, .. } => {
                Some(format!("agree at {endpoint}/{id} with the account that the token is of"))
            }
            Self::Refused { id, endpoint, .. } => Some(format!(
                "HF_TOKEN must be a valid token of an account that may read {endpoint}/{id}"
            )),
            Self::NoRevision { .. } => {
                Some("--revision takes a branch, a tag or a commit; without it, main".into())
            }
            Self::NoFile { id, .. } => {
                Some(format!("look at the spelling, and at the files of {id} on the Hub"))
            }
            Self::RevisionOfFolder { .. } => {
                Some("--revision goes with a model id, owner/name".into())
            }
            Self::Server { .. } => Some("try again later; what has arrived is kept".into()),
            Self::Broken { .. } => {
                Some("the same command goes on from there once the network is back".into())
            }
            _ => None,
        }
    }
}
