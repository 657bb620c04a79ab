//! Hashes that say whether two runs have the same model and the same settings.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::CaptionConfig;
use crate::checkpoint::{Checkpoint, INSPECT_FILE};

/// Endings of files that make a model what it is.
const ENDINGS: [&str; 7] = ["json", "safetensors", "bin", "pt", "pth", "txt", "model"];

/// BLAKE3 over the files of a model; of the one that ships, over the program's version.
///
/// # Errors
/// A file that cannot be read.
pub fn weights_hash(checkpoint: &Checkpoint) -> io::Result<String> {
    let folder = &checkpoint.folder;
    let mut hasher = blake3::Hasher::new();
    let mut files: Vec<PathBuf> = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            // Which map is shown changes no caption.
            if path.ends_with(INSPECT_FILE) {
                continue;
            }
            if path.is_file() && extension.is_some_and(|it| ENDINGS.contains(&it)) {
                files.push(path);
            }
        }
        files.sort();
    } else if folder.is_file() {
        files.push(folder.clone());
    } else {
        hasher.update(folder.as_os_str().as_encoded_bytes());
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    }
    for file in files {
        let name = file.file_name().map_or(Path::new(""), Path::new);
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update_reader(File::open(&file)?)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// All that changes what the model says of a photo: its hash, and in words.
pub fn settings_hash(checkpoint: &Checkpoint, config: &CaptionConfig) -> (String, Value) {
    let preprocess = &checkpoint.preprocess;
    let settings = json!({
        "generate": config.generate,
        "prompt": config.prompt.ids,
        "keep_prompt": config.prompt.keep,
        "height": preprocess.height,
        "width": preprocess.width,
    });
    let hash = blake3::hash(settings.to_string().as_bytes()).to_hex().to_string();
    (hash, settings)
}
