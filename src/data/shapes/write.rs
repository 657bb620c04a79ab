//! Writes the data set as a Hugging Face imagefolder.
//!
//! ```text
//! OUT/README.md  shapes.json
//! OUT/{train,validation,test}/metadata.jsonl  000000.png …
//! ```
//!
//! All is written to `OUT/.partial` first and moved into place at the end, `train/` and then
//! `shapes.json` last: a folder with a `shapes.json` is whole, one cut off by a kill has none.
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::config::{ShapesConfig, SplitCounts};
use super::draw::{draw, encode_png};
use super::error::ShapesError;
use super::grammar::{CAPTIONS_PER_IMAGE, GroundedWord, captions};
use super::scene::Scene;

/// What [`generate`] wrote or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Images in `train/`.
    pub train: usize,
    /// Images in `validation/`.
    pub validation: usize,
    /// Images in `test/`.
    pub test: usize,
    /// Captions over all splits.
    pub captions: usize,
    /// Whether the folder already held exactly this data set, so that nothing was written.
    pub reused: bool,
}

const RECIPE: &str = "shapes.json";
const README: &str = "README.md";
const STAGING: &str = ".partial";
const METADATA: &str = "metadata.jsonl";
/// Says in `shapes.json` which program's it is and which drawing rules made it.
const FORMAT: &str = "patchword-shapes-1";
/// Images drawn between two writes of metadata: bounds the memory of very large data sets.
const CHUNK: usize = 1024;

/// A row of `metadata.jsonl`.
#[derive(Serialize)]
struct Row<'row> {
    file_name: &'row str,
    text: Vec<String>,
    scene: &'row Scene,
    words: Vec<Vec<GroundedWord>>,
}

/// Writes the data set to the folder `out`, which is created if it is missing. A folder that
/// already holds exactly this data set is kept as it is; one that holds another shapes data set
/// (or one that was cut off) has it replaced.
///
/// `progress` is called from several threads with the number of images done so far; the numbers
/// may arrive slightly out of order.
///
/// # Errors
/// [`ShapesError`]: a setting out of range, a folder with other things in it, a full disk and the
/// like. After an error what was in the folder before is still there.
pub fn generate(
    out: &Path,
    config: &ShapesConfig,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Summary, ShapesError> {
    config.validate()?;
    let counts = config.split_counts();
    let summary = Summary {
        train: counts.train,
        validation: counts.validation,
        test: counts.test,
        captions: config.images * CAPTIONS_PER_IMAGE,
        reused: false,
    };
    check_folder(out)?;
    if is_complete(out, config) {
        return Ok(Summary { reused: true, ..summary });
    }
    let staging = out.join(STAGING);
    let staged = stage(&staging, config, progress);
    if staged.is_err() {
        // Best effort: what is left is recognised and overwritten by the next call.
        let _ = fs::remove_dir_all(&staging);
    }
    staged?;
    move_into_place(&staging, out)?;
    Ok(summary)
}

/// The splits in the order in which they take their images.
fn splits(counts: SplitCounts) -> [(&'static str, usize); 3] {
    [("train", counts.train), ("validation", counts.validation), ("test", counts.test)]
}

/// Refuses a folder in which writing would destroy or mix with something that is not ours.
fn check_folder(out: &Path) -> Result<(), ShapesError> {
    let entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(ShapesError::NotAFolder { path: out.to_owned() });
        }
        Err(source) => return Err(failed("read", out)(source)),
    };
    let mut first = None;
    for entry in entries {
        let name = entry.map_err(failed("read", out))?.file_name();
        let name = name.to_string_lossy().into_owned();
        // Of several the alphabetically first, so that the message is the same each time.
        first = Some(first.map_or(name.clone(), |earlier: String| earlier.min(name)));
    }
    let Some(found) = first else { return Ok(()) };
    let ours = |path: PathBuf| read_recipe(&path).is_some();
    if !ours(out.join(RECIPE)) && !ours(out.join(STAGING).join(RECIPE)) {
        return Err(ShapesError::NotOurs { path: out.to_owned(), found });
    }
    for (split, _) in splits(SplitCounts { train: 0, validation: 0, test: 0 }) {
        let Ok(files) = fs::read_dir(out.join(split)) else { continue };
        for file in files {
            let file = file.map_err(failed("read", &out.join(split)))?;
            if !is_our_file(&file.file_name().to_string_lossy()) {
                return Err(ShapesError::ForeignFile { path: file.path() });
            }
        }
    }
    Ok(())
}

/// Whether a file of this name in a split folder is one that we write.
fn is_our_file(name: &str) -> bool {
    let number = name.strip_suffix(".png");
    name == METADATA
        || number.is_some_and(|number| {
            number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// The settings in a `shapes.json` of ours; `Null` where another version wrote it.
fn read_recipe(path: &Path) -> Option<serde_json::Value> {
    let mut recipe: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    recipe.get("format")?.as_str()?.starts_with("patchword-shapes").then_some(())?;
    let current = recipe["format"] == FORMAT;
    Some(if current { recipe["config"].take() } else { serde_json::Value::Null })
}

/// Whether the folder holds all files of the data set with these settings.
fn is_complete(out: &Path, config: &ShapesConfig) -> bool {
    let Some(recipe) = read_recipe(&out.join(RECIPE)) else { return false };
    if serde_json::from_value::<ShapesConfig>(recipe).ok().as_ref() != Some(config) {
        return false;
    }
    let mut first = 0;
    splits(config.split_counts()).into_iter().all(|(split, count)| {
        let folder = out.join(split);
        let mut names = (first..first + count).map(|index| folder.join(image_name(index)));
        first += count;
        let rows = fs::read(folder.join(METADATA))
            .map(|text| text.iter().filter(|&&byte| byte == b'\n').count());
        rows.is_ok_and(|rows| rows == count) && names.all(|name| name.is_file())
    })
}

/// The file of image number `index`; numbers run on over the splits, so that no two are alike.
fn image_name(index: usize) -> String {
    format!("{index:06}.png")
}

/// Writes the whole data set to the staging folder.
fn stage(
    staging: &Path,
    config: &ShapesConfig,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<(), ShapesError> {
    remove_folder(staging)?;
    fs::create_dir_all(staging).map_err(failed("create", staging))?;
    // First, so that a folder cut off from here on is known to be ours.
    write_file(&staging.join(RECIPE), recipe_text(config)?.as_bytes())?;
    write_file(&staging.join(README), readme(config).as_bytes())?;
    let done = AtomicUsize::new(0);
    let mut first = 0;
    for (split, count) in splits(config.split_counts()) {
        let folder = staging.join(split);
        fs::create_dir(&folder).map_err(failed("create", &folder))?;
        let path = folder.join(METADATA);
        let mut metadata = BufWriter::new(File::create(&path).map_err(failed("create", &path))?);
        let indices: Vec<usize> = (first..first + count).collect();
        for chunk in indices.chunks(CHUNK) {
            let rows: Vec<String> = chunk
                .par_iter()
                .map(|&index| {
                    let row = write_image(&folder, config, index)?;
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    Ok(row)
                })
                .collect::<Result<_, ShapesError>>()?;
            for row in rows {
                metadata.write_all(row.as_bytes()).map_err(failed("write", &path))?;
            }
        }
        metadata.flush().map_err(failed("write", &path))?;
        first += count;
    }
    Ok(())
}

/// Draws and writes image number `index`; returns its row of metadata with the line's end.
fn write_image(folder: &Path, config: &ShapesConfig, index: usize) -> Result<String, ShapesError> {
    let scene = Scene::compose(config, index as u64);
    let name = image_name(index);
    let path = folder.join(&name);
    let bytes = encode_png(&draw(&scene, config))
        .map_err(|source| ShapesError::Image { path: path.clone(), source })?;
    write_file(&path, &bytes)?;
    let (text, words) = captions(&scene, config, index as u64)
        .into_iter()
        .map(|caption| (caption.text, caption.words))
        .unzip();
    let row = Row { file_name: &name, text, scene: &scene, words };
    let mut row = serde_json::to_string(&row)
        .map_err(|source| ShapesError::Encode { what: "a row of metadata.jsonl", source })?;
    row.push('\n');
    Ok(row)
}

/// Replaces what is in `out` by what was staged.
fn move_into_place(staging: &Path, out: &Path) -> Result<(), ShapesError> {
    // Without its recipe the old data set no longer counts as whole; the staged one keeps the
    // folder known as ours till the end.
    match fs::remove_file(out.join(RECIPE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("remove", &out.join(RECIPE))(error));
        }
        _ => {}
    }
    for split in ["train", "validation", "test"] {
        remove_folder(&out.join(split))?;
    }
    for name in ["test", "validation", "train", README, RECIPE] {
        let target = out.join(name);
        fs::rename(staging.join(name), &target).map_err(failed("write", &target))?;
    }
    remove_folder(staging)
}

fn remove_folder(path: &Path) -> Result<(), ShapesError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ShapesError> {
    fs::write(path, bytes).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ShapesError {
    let path = path.to_owned();
    move |source| ShapesError::Io { action, path, source }
}

fn recipe_text(config: &ShapesConfig) -> Result<String, ShapesError> {
    #[derive(Serialize)]
    struct Recipe<'recipe> {
        format: &'static str,
        config: &'recipe ShapesConfig,
    }
    let text = serde_json::to_string_pretty(&Recipe { format: FORMAT, config })
        .map_err(|source| ShapesError::Encode { what: RECIPE, source })?;
    Ok(text + "\n")
}

/// The command that makes this data set again, where the command line can say its settings.
fn command(config: &ShapesConfig) -> Option<String> {
    let ShapesConfig { images, seed, .. } = *config;
    let option = [(ShapesConfig::default(), ""), (ShapesConfig::hard(), " --hard")]
        .into_iter()
        .find(|(known, _)| ShapesConfig { images, seed, ..known.clone() } == *config)?
        .1;
    Some(format!("patchword data shapes OUT --images {images} --seed {seed}{option}"))
}

fn readme(config: &ShapesConfig) -> String {
    let SplitCounts { train, validation, test } = config.split_counts();
    let ShapesConfig { images, image_size, .. } = *config;
    let origin = match command(config) {
        Some(command) => format!("Made by\n\n```sh\n{command}\n```\n\nwith"),
        None => "Made by patchword with".to_owned(),
    };
    format!(
        "# Coloured shapes\n\n\
         {images} drawn scenes of up to {most} coloured shapes, {image_size}×{image_size} pixels, \
         {CAPTIONS_PER_IMAGE} captions each:\n\
         {train} in `train/`, {validation} in `validation/`, {test} in `test/`.\n\n\
         {origin} the settings in `{RECIPE}`. The same settings give the same bytes on every \
         machine.\n\n\
         It is a Hugging Face imagefolder. Each row of a split's `{METADATA}` has\n\n\
         - `file_name`: the image, beside it;\n\
         - `text`: the captions, lower case, each naming every object;\n\
         - `scene`: `width`, `height`, `seed` and `objects`, each with `shape`, `colour`, `size` \
         and `box` (`[x0, y0, x1, y1]` in pixels, x1 and y1 exclusive);\n\
         - `words`: for each caption, its words that name an object or its colour: `word`, `index` \
         (among the caption's words, split at white space), `object` (index in `scene.objects`) \
         and `box`.\n",
        most = config.max_objects,
    )
}
