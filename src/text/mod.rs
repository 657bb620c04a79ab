//! Tokenizers and words: captions to token ids and back, word pieces merged into words. Knows no tensors.
//!
//! A [`Tokenizer`] is trained from captions or read from any Hugging Face `tokenizer.json`, or from
//! the vocabulary files that came before it;
//! [`Tokenizer::words`] turns the ids of a caption into the words a reader sees, with the tokens
//! each of them was written with.

use std::io;
use std::path::PathBuf;

mod merges;
mod parts;
mod spacing;
pub mod tokenizer;
pub mod training;
pub mod vocabulary;
pub mod words;

pub use tokenizer::{SpecialTokenNames, SpecialTokens, Tokenizer};
pub use training::{TokenizerConfig, TokenizerKind};
pub use vocabulary::{AddedToken, WordPieceOptions};
pub use words::Word;

/// What can go wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file could not be read.
    #[error("cannot read the tokenizer `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the tokenizer `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a tokenizer.
    #[error("`{}` is not a tokenizer in the format of Hugging Face's `tokenizer.json`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenizerFault,
    },
    /// The file is not a vocabulary, or contradicts what stands beside it.
    #[error("`{}` cannot be used as a tokenizer's vocabulary: {problem}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// The line or token at fault and what was expected.
        problem: String,
    },
    /// None of the usual names of a special token is in the vocabulary.
    #[error(
        "`{}` has no {role} token: none of {tried} is in its vocabulary; name the token it uses",
        path.display()
    )]
    NoSpecialToken {
        /// The file.
        path: PathBuf,
        /// What the token is for: "begin-of-text", "end-of-text" or "padding".
        role: &'static str,
        /// The names that were looked for.
        tried: String,
    },
    /// The special token that was asked for is not in the vocabulary.
    #[error(
        "`{}` has no token `{token}`, which was named as its {role} token",
        path.display()
    )]
    UnknownSpecialToken {
        /// The file.
        path: PathBuf,
        /// What the token is for: "begin-of-text", "end-of-text" or "padding".
        role: &'static str,
        /// The name that was given.
        token: String,
    },
    /// There was nothing to learn from.
    #[error("cannot train a tokenizer: there is no caption with any text in it")]
    NoCaptions,
    /// The vocabulary cannot hold what it must hold.
    #[error(
        "`vocab_size` = {asked} is too small: the special tokens and the {alphabet} need {needed}; \
         set it to {needed} or more"
    )]
    VocabularyTooSmall {
        /// The size asked for.
        asked: usize,
        /// The smallest size that works.
        needed: usize,
        /// What fills it.
        alphabet: &'static str,
    },
    /// The tokenizer refused a text.
    #[error("cannot tokenize the caption {caption:?}: {reason}")]
    Encode {
        /// The text.
        caption: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// The tokenizer could not be turned into JSON or back.
    #[error("cannot assemble the tokenizer")]
    Assemble {
        /// What is wrong with it.
        source: TokenizerFault,
    },
}

impl TextError {
    fn assemble(source: impl Into<TokenizerFault>) -> Self {
        Self::Assemble { source: source.into() }
    }
}

/// What is wrong with the JSON of a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerFault {
    /// It is not text.
    #[error(transparent)]
    Encoding(#[from] std::str::Utf8Error),
    /// It is not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Two pieces together are no token.
    #[error("in `model.merges`, {merge} makes no token of the vocabulary")]
    Merge {
        /// The pieces, as the file has them.
        merge: String,
    },
    /// A part whose tables no one checks.
    #[error("in `{part}`, a part of the type `Precompiled`, which patchword does not read")]
    Precompiled {
        /// The key of the part.
        part: String,
    },
    /// A part that cuts a text into pieces of no length.
    #[error("in `{part}`, `length` is 0; expected at least 1")]
    NoLength {
        /// The key of the part.
        part: String,
    },
    /// Replacements with which a short text fills the memory.
    #[error("in `{part}`, replacements that could make a text more than {most} times as long")]
    Growth {
        /// The key of the part.
        part: String,
        /// What is allowed.
        most: usize,
    },
    /// Parts with which the tokenizers crate panics.
    #[error("one of its parts has a form that no tokenizer has")]
    Form,
    /// The tokenizers crate does not take it.
    #[error("{0}")]
    Refused(String),
}

impl From<tokenizers::Error> for TokenizerFault {
    fn from(error: tokenizers::Error) -> Self {
        Self::Refused(error.to_string())
    }
}
