//! WebDataset's tar shards, as img2dataset writes them: of each sample an image and its caption, files of one
//! name but for the extension. Images are read where they lie in the archive.
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use tar::Archive;

use super::collect::{Collector, Listed, PlacedCaption};
use super::columnar::files_below;
use super::contained::ContainedPhoto;
use super::detect::{file_name, split_in_name};
use super::find::{Found, inner_path, name_as_id};
use super::housekeeping::is_below_housekeeping;
use super::rows::caption_keys;
use super::source::{ImageSource, is_pointer_file};
use super::text_file::TextFile;
use super::{Cost, DataError, DatasetFormat, LoadOptions, Origin, Position, ProblemKind, Split};
use crate::image::is_image_path;
use crate::lenient_json;

/// The most bytes that compressed shards of one data set may have when they are decompressed, since they are
/// held in memory.
const MAX_DECOMPRESSED: u64 = 1 << 30;

/// The most bytes of a caption file.
const MAX_TEXT: u64 = 16 << 20;

pub(super) fn load(
    path: &Path,
    _options: &LoadOptions,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let files = if path.is_dir() { shards(path) } else { vec![path.to_owned()] };
    if files.is_empty() {
        let expected = ".tar shard";
        return Err(DataError::NoAnnotations { path: path.to_owned(), expected });
    }
    let mut room = MAX_DECOMPRESSED;
    for file in files {
        let split = split_of(path, &file);
        load_shard(&file, split, &mut room, collector)?;
    }
    Ok(())
}

fn split_of(root: &Path, file: &Path) -> Option<Split> {
    split_in_name(&file_name(file)).or_else(|| {
        let folders = file.strip_prefix(root).ok()?.parent()?.components();
        folders.rev().find_map(|folder| folder.as_os_str().to_string_lossy().parse().ok())
    })
}

/// The shards below a folder.
pub(super) fn shards(folder: &Path) -> Vec<PathBuf> {
    files_below(folder, is_shard)
}

pub(super) fn is_shard(path: &Path) -> bool {
    let name = file_name(path).to_lowercase();
    [".tar", ".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending))
}

/// One file within a shard.
enum Member {
    Image(ImageSource),
    Text(Vec<u8>),
}

/// The files of one name.
#[derive(Default)]
struct Sample {
    images: Vec<(String, ImageSource)>,
    /// Extension and content.
    texts: Vec<(String, Vec<u8>)>,
    has_other: bool,
}

fn load_shard(
    path: &Path,
    split: Option<Split>,
    room: &mut u64,
    collector: &mut Collector,
) -> Result<(), DataError> {
    let container: Arc<Path> = path.into();
    let Shard { members, damage } = Shard::read(&container, room)?;
    if let Some(error) = damage {
        // What was read before the damage is good.
        let origin = Origin::new(&container, Position::File);
        let detail = format!("damaged behind its first {} files: {error}", members.len());
        collector.malformed(&origin, Cost::Image, detail);
    }
    add_samples(&container, members, split, collector);
    Ok(())
}

/// Hands each photo of a shard to `each`, with the captions beside it, until it returns `false`. Of a sample
/// every image counts that is no mask or depth of another: names with several dots are photos too.
///
/// # Errors
/// A shard that cannot be read; also one that is damaged, when all that is good is handed over.
pub(super) fn photos(
    path: &Path,
    each: &mut dyn FnMut(ContainedPhoto) -> bool,
) -> Result<(), DataError> {
    let container: Arc<Path> = path.into();
    let Shard { members, damage } = Shard::read(&container, &mut MAX_DECOMPRESSED.clone())?;
    let num_members = members.len();
    // Captions that are no text are none; it is for training to say so.
    let mut collector = Collector::new(path, DatasetFormat::Webdataset);
    for (key, sample) in samples_of(members) {
        let is_photo = |name: &str| !key_of(name).1.contains('.');
        let has_photo = sample.images.iter().any(|(name, _)| is_photo(name));
        let captions = captions_of(&container.join(&key).into(), &sample, &mut collector);
        let captions: Vec<String> = captions.into_iter().map(|(_, caption)| caption).collect();
        for (index, (name, image)) in sample.images.iter().enumerate() {
            // A member that is added once more takes the place of the one before.
            let is_replaced = sample.images[index + 1..].iter().any(|(_, later)| later == image);
            if is_replaced || (has_photo && !is_photo(name)) {
                continue;
            }
            let stem = image.path().with_extension("");
            let shares_stem = sample
                .images
                .iter()
                .any(|(_, other)| other != image && other.path().with_extension("") == stem);
            let (image, captions) = (image.clone(), captions.clone());
            if !each(ContainedPhoto { image, captions, shares_stem }) {
                return Ok(());
            }
        }
    }
    match damage {
        Some(error) => {
            let damaged = format!("damaged behind its first {num_members} files: {error}");
            let source = io::Error::new(io::ErrorKind::InvalidData, damaged);
            Err(DataError::Read { path: path.to_owned(), source })
        }
        None => Ok(()),
    }
}

/// What an archive holds, as far as it can be read.
struct Shard {
    members: Vec<(String, Member)>,
    damage: Option<io::Error>,
}

impl Shard {
    /// `room`: the bytes that it may have when it is decompressed; what it has is taken off.
    fn read(container: &Arc<Path>, room: &mut u64) -> Result<Self, DataError> {
        let path: &Path = container;
        let failed = |source| DataError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut members: Vec<(String, Member)> = Vec::new();
        let is_compressed = !file_name(path).to_lowercase().ends_with(".tar");
        let result = if is_compressed {
            let mut content = Vec::new();
            let mut decoder = MultiGzDecoder::new(file).take(*room + 1);
            let decoded = decoder.read_to_end(&mut content);
            if content.len() as u64 > *room {
                let path = path.to_owned();
                return Err(DataError::Decompressed { path, limit: MAX_DECOMPRESSED });
            }
            *room -= content.len() as u64;
            let content = Arc::new(content);
            let source = |name: &Path, offset: u64, length: u64| {
                let place = (
                    usize::try_from(offset).unwrap_or(usize::MAX),
                    usize::try_from(length).unwrap_or(0),
                );
                ImageSource::memory(container, name, &content, place)
            };
            let length = content.len() as u64;
            let read = read_members(Cursor::new(content.as_slice()), length, &source, &mut members);
            decoded.map(drop).and(read)
        } else {
            let length = file.metadata().map_err(failed)?.len();
            let source = |name: &Path, offset: u64, length: u64| {
                ImageSource::span(container, name, offset, length)
            };
            read_members(file, length, &source, &mut members)
        };
        if result.is_err() && is_pointer_file(path) {
            return Err(DataError::LfsPointer { path: path.to_owned() });
        }
        Ok(Self { members, damage: result.err() })
    }
}

/// The images and texts of an archive, in order, until it ends or is damaged.
fn read_members<R: Read + Seek>(
    reader: R,
    length: u64,
    source: &dyn Fn(&Path, u64, u64) -> ImageSource,
    members: &mut Vec<(String, Member)>,
) -> io::Result<()> {
    let mut archive = Archive::new(reader);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            let what = format!("{name:?} is cut short: {size} bytes at {offset} of {length}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let place = within(&entry.path_bytes());
        if is_below_housekeeping(&place, false) {
            continue;
        }
        if is_image_path(Path::new(&name)) {
            members.push((name, Member::Image(source(&place, offset, size))));
        } else if size <= MAX_TEXT {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            members.push((name, Member::Text(content)));
        }
    }
    Ok(())
}

/// A member's name as a path that leads nowhere but into its archive, byte for byte.
fn within(name: &[u8]) -> PathBuf {
    #[cfg(unix)]
    let path = {
        use std::os::unix::ffi::OsStrExt;
        Path::new(std::ffi::OsStr::from_bytes(name)).to_owned()
    };
    #[cfg(not(unix))]
    let path = PathBuf::from(String::from_utf8_lossy(name).into_owned());
    inner_path(&path)
}

/// A member's key and extension: the name of the file is cut at its first dot, as WebDataset does.
fn key_of(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, ""),
    }
}

/// Members by key, in the order of their first.
fn samples_of(members: Vec<(String, Member)>) -> Vec<(String, Sample)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut samples: Vec<(String, Sample)> = Vec::new();
    for (name, member) in members {
        let (key, extension) = key_of(&name);
        let place = *places.entry(key.to_owned()).or_insert_with(|| {
            samples.push((key.to_owned(), Sample::default()));
            samples.len() - 1
        });
        let Some((_, sample)) = samples.get_mut(place) else { continue };
        match member {
            Member::Image(image) => sample.images.push((name.clone(), image)),
            Member::Text(content) if is_caption(extension) => {
                sample.texts.push((extension.to_lowercase(), content));
            }
            Member::Text(_) => sample.has_other = true,
        }
    }
    samples
}

fn add_samples(
    container: &Arc<Path>,
    members: Vec<(String, Member)>,
    split: Option<Split>,
    collector: &mut Collector,
) {
    let shard =
        container.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    for (key, sample) in samples_of(members) {
        let member: Arc<Path> = container.join(&key).into();
        let captions = captions_of(&member, &sample, collector);
        if sample.images.is_empty() && !sample.texts.is_empty() {
            let origin = Origin::new(&member, Position::File);
            let detail = "captions without an image (expected one of the same name in the archive)";
            collector.problem(ProblemKind::MissingImage, &origin, Cost::Nothing, detail);
        } else if sample.images.is_empty() && sample.has_other {
            collector.pass_over("other files in archives", &member);
        }
        // A sample has one photo; beside it may lie masks and depths of it, under longer extensions.
        let is_photo = |(name, _): &&(String, ImageSource)| !key_of(name).1.contains('.');
        let photo = sample.images.iter().find(is_photo).or(sample.images.first()).cloned();
        for (_, other) in &sample.images {
            if photo.as_ref().is_some_and(|(_, photo)| photo != other) {
                collector.pass_over("further images of samples", other.path());
            }
        }
        if let Some((name, image)) = photo {
            // Shards count their samples from one each.
            let id = format!("{shard}/{}", name_as_id(&name));
            let origin = Origin::new(&image.path().into(), Position::File);
            let image = Found::Image(image);
            collector.add(Listed { id, image, split, captions, origin, grounding: None });
        }
    }
}

/// Whether an extension is that of captions: `txt`, `0.txt`, `caption`, `json`.
fn is_caption(extension: &str) -> bool {
    let last = extension.rsplit('.').next().unwrap_or_default().to_lowercase();
    matches!(last.as_str(), "txt" | "text" | "caption" | "captions" | "json")
}

/// The captions in the texts of a sample; in its JSON only where there is no other text.
fn captions_of(
    member: &Arc<Path>,
    sample: &Sample,
    collector: &mut Collector,
) -> Vec<PlacedCaption> {
    let mut captions = Vec::new();
    let is_json = |extension: &str| extension.ends_with("json");
    let has_plain = sample.texts.iter().any(|(extension, _)| !is_json(extension));
    for (extension, content) in &sample.texts {
        let file: Arc<Path> = PathBuf::from(format!("{}.{extension}", member.display())).into();
        let text = TextFile::of(Arc::clone(&file), content.clone());
        if is_json(extension) {
            if !has_plain {
                captions.extend(captions_in_json(&text));
            }
            continue;
        }
        collector.encoding(&file, text.converted_from);
        for (origin, line) in text.lines_of_any_system() {
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => captions.push((origin, line.to_owned())),
                Err(error) => collector.malformed(&origin, Cost::Caption, error.to_string()),
            }
        }
    }
    captions
}

fn captions_in_json(text: &TextFile) -> Vec<PlacedCaption> {
    let content = String::from_utf8_lossy(text.bytes());
    let value = lenient_json::parse::<Value>(&content).map_or(Value::Null, |(value, _)| value);
    let value = match value {
        Value::Object(fields) => {
            let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
            caption_keys(&keys)
                .first()
                .and_then(|key| fields.get(*key))
                .cloned()
                .unwrap_or(Value::Null)
        }
        other => other,
    };
    let texts = match value {
        Value::Array(texts) => texts,
        text => vec![text],
    };
    let texts = texts.into_iter().filter_map(|text| text.as_str().map(str::to_owned));
    texts.map(|caption| (Origin::new(&text.path, Position::File), caption)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_stands_before_the_first_dot() {
        assert_eq!(key_of("a/b.c/0001.jpg"), ("a/b.c/0001", "jpg"));
        assert_eq!(key_of("0001.seg.png"), ("0001", "seg.png"));
        assert_eq!(key_of("0001"), ("0001", ""));
        assert!(
            is_caption("txt") && is_caption("0.TXT") && is_caption("json") && !is_caption("cls")
        );
    }
}
