//! Why a checkpoint could not be read or written.

use std::path::{Path, PathBuf};

use crate::lfs;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("cannot read or write `{}`", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is no checkpoint where one was named.
    #[error("{folder}: {found} (expected config.json, or a run folder with best/ or last/)")]
    NotFound {
        /// What is there, or beside it.
        found: String,
        /// The folder named.
        folder: PathBuf,
    },
    /// A JSON file is damaged or has wrong keys.
    #[error("{file}: {key} cannot be used")]
    Json {
        /// The file.
        file: PathBuf,
        /// The key at fault (`` `generate.num_beams` ``), or "this JSON" where it is no key's fault.
        key: String,
        /// Line, column and cause.
        source: serde_json::Error,
    },
    /// A file holds a value that cannot be used.
    #[error("{file}: {problem}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The key and what was expected.
        problem: String,
    },
    /// A safetensors file is damaged.
    #[error("{file}: not a whole safetensors file: {problem}")]
    Tensors {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of PyTorch's is damaged, or its pickle asks for more than weights need.
    #[error("{file}: not PyTorch weights that can be read safely: {problem}")]
    Pickle {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of a clone that was made without Git LFS, or that a browser saved from the wrong address.
    #[error("{file}: {what}")]
    Placeholder {
        /// The file.
        file: PathBuf,
        /// What lies there, and how the real one is had.
        what: &'static str,
    },
    /// A tensor of the model is not in the file.
    #[error("{file}: tensor `{tensor}` {shape:?} is missing")]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape expected.
        shape: Vec<usize>,
    },
    /// A tensor of the file is not in the model.
    #[error("{file}: tensor `{tensor}` is not in a model of this config ({others} more like it)")]
    UnexpectedTensor {
        /// The file.
        file: PathBuf,
        /// The first such tensor's name.
        tensor: String,
        /// How many more there are.
        others: usize,
    },
    /// A tensor has another shape than the config says.
    #[error("{file}: tensor `{tensor}` has shape {found:?}; the config asks for {expected:?}")]
    TensorShape {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape the config asks for.
        expected: Vec<usize>,
    },
    /// A tensor has a type that weights don't come in.
    #[error("{file}: tensor `{tensor}` is {found}; expected F32, F16 or BF16")]
    TensorType {
        /// The file.
        file: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// transformers has no class that computes the model.
    #[error("{model}: transformers cannot run this model: {problem}")]
    NotForTransformers {
        /// The model's folder.
        model: PathBuf,
        /// The key of its config at fault, and what transformers has.
        problem: String,
    },
    /// The model cannot read images of the size asked for.
    #[error(
        "an image size of {width}×{height} (width × height) does not fit this model: {problem}"
    )]
    ImageSize {
        /// The height asked for.
        height: usize,
        /// The width asked for.
        width: usize,
        /// The key at fault and what was expected.
        problem: String,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::text::TextError),
}

impl CheckpointError {
    /// What `head`, the beginning of a file that is no model's, tells of it.
    pub(super) fn placeholder(file: &Path, head: &[u8]) -> Option<Self> {
        let page = [b"<!doctype html".as_slice(), b"<html"];
        let start = head.trim_ascii_start();
        let is_page = page
            .iter()
            .any(|tag| start.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)));
        let what = if lfs::is_pointer(head) {
            lfs::REMEDY
        } else if is_page {
            "a web page, not the file that it shows (expected the file itself: download it again, by \
             its `resolve` address)"
        } else {
            return None;
        };
        Some(Self::Placeholder { file: file.into(), what })
    }

    /// A file that could not be read or written.
    pub fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.into(), source }
    }
}
