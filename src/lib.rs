//! patchword: train an image captioner, caption folders with it, and see which region each word
//! came from.
//!
//! A patch-based vision encoder turns an image into a sequence of features; a causal text decoder
//! reads them through cross-attention; that attention shows where each word looked.
//!
//! Modules depend on each other in one direction only:
//!
//! ```text
//! cli → captioner → {evaluate, bench} → {train, inspect} → caption → {checkpoint, data, hub, metrics}
//!     → generate → {model, device} → {text, image}
//! ```
//!
//! [`model`] knows Burn and nothing else; [`generate`] knows token ids only; [`image`], [`text`]
//! and [`metrics`] are leaves. Only [`cli`] prints, draws progress bars or knows exit codes.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bench;
pub mod caption;
mod captioner;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
// Without the command line nobody reports panics.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod damage;
pub mod data;
pub mod device;
mod encoding;
// Without the command line nobody writes lines, but scores are read from them.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
mod escape;
pub mod evaluate;
pub mod generate;
#[cfg(feature = "hub")]
pub mod hub;
pub mod image;
pub mod inspect;
mod lenient_json;
mod lfs;
pub mod metrics;
pub mod model;
mod plural;
mod quoting;
#[cfg(test)]
mod shared;
pub mod text;
pub mod train;

pub use captioner::{Captioner, CaptionerError, read_photo};
