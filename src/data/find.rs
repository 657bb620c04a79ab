//! Image files by the names that lists give them: in the usual places, in either form of Unicode, with
//! backslashes or percent signs, and never outside of the data set unless that is allowed.
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::LoadOptions;
use super::source::ImageSource;
use super::text_file::folder_of;

/// Folders that images are kept in beside their annotations.
const IMAGE_FOLDERS: [&str; 22] = [
    "images",
    "Images",
    "img",
    "imgs",
    "image",
    "photos",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr8k-images",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",
    "train2014",
    "val2014",
    "test2014",
    "train2017",
    "val2017",
    "test2017",
    "train",
    "val",
    "validation",
    "test",
];

/// Folders that hold annotations only, beside the folders of images.
const ANNOTATION_FOLDERS: [&str; 5] =
    ["annotations", "Flickr8k_text", "captions", "annotation", "metadata"];

/// What looking for an image came to.
pub(super) enum Found {
    /// It is there.
    Image(ImageSource),
    /// It is there, but outside of the data set.
    Outside(PathBuf),
    /// It is not there; why not, if more can be said than that.
    Missing(Option<String>),
}

/// Looks images up in the places where data sets keep them.
pub(super) struct ImageFinder {
    pub(super) folders: Vec<PathBuf>,
    /// The existing folders for each list of subfolders asked for, so that a large data set does not
    /// ask the disk for the same folders again with each image.
    known: HashMap<Vec<String>, Vec<PathBuf>>,
    listings: Listings,
    inside: Boundary,
}

impl ImageFinder {
    /// Looks in `folders` only; `root` is the folder of the data set.
    pub(super) fn in_folders(folders: Vec<PathBuf>, root: &Path, options: &LoadOptions) -> Self {
        let mut roots = folders.clone();
        roots.push(root.to_owned());
        roots.extend(options.images.clone());
        let inside = Boundary::new(&roots, options.allow_outside);
        Self { folders, known: HashMap::new(), listings: Listings::default(), inside }
    }

    /// Looks in the images folder, where one is given, else beside an annotation file.
    pub(super) fn beside(annotation_file: &Path, options: &LoadOptions) -> Self {
        let folder = folder_of(annotation_file);
        let mut folders = Vec::new();
        let mut roots = vec![folder.clone()];
        let mut add_with_usual = |base: &Path| {
            folders.extend(IMAGE_FOLDERS.iter().map(|name| base.join(name)));
            folders.push(base.to_owned());
        };
        if let Some(images) = &options.images {
            add_with_usual(images);
            roots.push(images.clone());
        } else {
            add_with_usual(&folder);
            // `.` has no name, but the folder that it is has one.
            let resolved = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
            let is_annotations = resolved
                .file_name()
                .is_some_and(|name| ANNOTATION_FOLDERS.iter().any(|n| name == *n));
            if is_annotations {
                let parent = match folder.file_name() {
                    Some(_) => folder_of(&folder),
                    None => folder.join(".."),
                };
                add_with_usual(&parent);
                roots.push(parent);
            }
        }
        folders.retain(|folder| folder.is_dir());
        let inside = Boundary::new(&roots, options.allow_outside);
        Self { folders, known: HashMap::new(), listings: Listings::default(), inside }
    }

    /// The image called `name`, looked for in the given subfolders first.
    pub(super) fn find(&mut self, subfolders: &[String], name: &str) -> Found {
        if name.trim().is_empty() {
            return Found::Missing(None);
        }
        let mut outside = None;
        let spellings = spellings(name);
        for spelling in &spellings {
            match self.find_exactly(subfolders, spelling) {
                Some(path) if self.inside.holds(&path) => return Found::Image(path.into()),
                Some(path) => outside = Some(path),
                None => {}
            }
        }
        if let Some(path) = outside {
            return Found::Outside(path);
        }
        let folders = self.known.get(subfolders).cloned().unwrap_or_default();
        for spelling in spellings.iter().filter(|spelling| !has_parent(Path::new(spelling))) {
            for folder in &folders {
                match self.listings.resolve(folder, Path::new(spelling)) {
                    Some(path) if self.inside.holds(&path) => return Found::Image(path.into()),
                    Some(path) => return Found::Outside(path),
                    None => {}
                }
            }
        }
        Found::Missing(why_missing(name))
    }

    /// The first file of exactly this name.
    fn find_exactly(&mut self, subfolders: &[String], name: &str) -> Option<PathBuf> {
        let folders = self.known.entry(subfolders.to_vec()).or_insert_with(|| {
            let nested = subfolders
                .iter()
                .flat_map(|subfolder| self.folders.iter().map(move |base| base.join(subfolder)))
                .filter(|folder| folder.is_dir());
            nested.chain(self.folders.iter().cloned()).collect()
        });
        let relative = clean_path(Path::new(name));
        let mut paths = folders.iter().map(|folder| clean_path(&folder.join(&relative)));
        paths.find(|path| path.is_file())
    }
}

/// The name as it stands, then as other systems mean it: with slashes where Windows has backslashes, and
/// with the characters that `%20` and the like stand for.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned()];
    let mut add = |spelling: String| {
        if !spelling.is_empty() && !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
    };
    add(name.trim().to_owned());
    let slashed = name.replace('\\', "/");
    add(slashed.clone());
    if let Some(decoded) = percent_decoded(&slashed) {
        let local = decoded.strip_prefix("file://").map(str::to_owned);
        add(local.unwrap_or(decoded));
    }
    if let Some(local) = slashed.strip_prefix("file://") {
        add(local.to_owned());
    }
    spellings
}

/// The text with `%XX` replaced; `None` where there is none, or no UTF-8 comes of it.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut rest, mut is_changed) = (text.as_bytes(), false);
    while let Some((&first, others)) = rest.split_first() {
        let code = others.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.filter(|_| first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if byte != 0 => {
                bytes.push(byte);
                is_changed = true;
                rest = &others[2..];
            }
            _ => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    String::from_utf8(bytes).ok().filter(|_| is_changed)
}

fn has_parent(path: &Path) -> bool {
    path.components()
        .any(|component| !matches!(component, Component::Normal(_) | Component::CurDir))
}

fn why_missing(name: &str) -> Option<String> {
    let lowered = name.trim().to_ascii_lowercase();
    let is_address = ["http://", "https://", "s3://", "gs://", "hf://"]
        .iter()
        .any(|scheme| lowered.starts_with(scheme));
    if is_address {
        return Some(
            "an address on the network (expected a file: download the images first)".to_owned(),
        );
    }
    let bytes = lowered.as_bytes();
    let is_windows = bytes.len() > 2
        && bytes[0].is_ascii_alphabetic()
        && bytes[1] == b':'
        && matches!(bytes[2], b'\\' | b'/');
    is_windows.then(|| "a path on another computer (expected one relative to the list)".to_owned())
}

/// The names in folders, by a form in which both forms of Unicode and both cases are one.
#[derive(Default)]
pub(super) struct Listings {
    folders: HashMap<PathBuf, HashMap<String, Vec<PathBuf>>>,
}

impl Listings {
    /// The file in `folder` that `relative` means, where only the form of Unicode or the case of letters
    /// differs and just one file or folder fits.
    pub(super) fn resolve(&mut self, folder: &Path, relative: &Path) -> Option<PathBuf> {
        let mut path = folder.to_owned();
        for component in relative.components() {
            let Component::Normal(name) = component else {
                if component == Component::CurDir {
                    continue;
                }
                return None;
            };
            let exact = path.join(name);
            path = if exact.exists() { exact } else { self.look_up(&path, name)? };
        }
        path.is_file().then_some(path)
    }

    fn look_up(&mut self, folder: &Path, name: &OsStr) -> Option<PathBuf> {
        let listing = self.folders.entry(folder.to_owned()).or_insert_with(|| {
            let mut names: HashMap<String, Vec<PathBuf>> = HashMap::new();
            let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            for entry in entries {
                names.entry(folded(&entry.file_name())).or_default().push(entry.path());
            }
            names
        });
        let fitting = listing.get(&folded(name))?;
        // Of several that differ in case, the one that differs in its form of Unicode only.
        let composed = composed(name);
        let same: Vec<&PathBuf> = fitting
            .iter()
            .filter(|path| path.file_name().is_some_and(|other| self::composed(other) == composed))
            .collect();
        match (same.as_slice(), fitting.as_slice()) {
            ([only], _) => Some((*only).clone()),
            (_, [only]) => Some(only.clone()),
            _ => None,
        }
    }
}

fn composed(name: &OsStr) -> String {
    name.to_string_lossy().nfc().collect()
}

fn folded(name: &OsStr) -> String {
    composed(name).to_lowercase()
}

/// The folders that the images of a data set lie in.
struct Boundary {
    roots: Vec<PathBuf>,
    is_open: bool,
    /// Folders whose place is known, with whether they are inside.
    folders: HashMap<PathBuf, bool>,
    /// The part of the Hub's cache that the data set is in: its files are links to their content.
    seen: HashSet<PathBuf>,
}

impl Boundary {
    fn new(roots: &[PathBuf], is_open: bool) -> Self {
        let mut resolved: Vec<PathBuf> =
            roots.iter().filter_map(|root| fs::canonicalize(root).ok()).collect();
        // A snapshot in the cache of the Hub consists of links into `blobs` beside `snapshots`.
        let blobs: Vec<PathBuf> = resolved.iter().filter_map(|root| hub_blobs(root)).collect();
        resolved.extend(blobs);
        Self { roots: resolved, is_open, folders: HashMap::new(), seen: HashSet::new() }
    }

    /// Whether a file that is there lies inside, links followed.
    fn holds(&mut self, path: &Path) -> bool {
        if self.is_open || self.seen.contains(path) {
            return true;
        }
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        let holds = if is_link {
            self.holds_resolved(path)
        } else {
            let folder = folder_of(path);
            match self.folders.get(&folder) {
                Some(&holds) => holds,
                None => {
                    let holds = self.holds_resolved(&folder);
                    self.folders.insert(folder, holds);
                    holds
                }
            }
        };
        if holds && is_link {
            self.seen.insert(path.to_owned());
        }
        holds
    }

    fn holds_resolved(&self, path: &Path) -> bool {
        fs::canonicalize(path)
            .is_ok_and(|path| self.roots.iter().any(|root| path.starts_with(root)))
    }
}

/// The folder of contents of the Hub's cache that a snapshot below it links to.
fn hub_blobs(root: &Path) -> Option<PathBuf> {
    let snapshots = root.ancestors().find(|part| part.file_name() == Some("snapshots".as_ref()))?;
    let repository = snapshots.parent()?;
    let name = repository.file_name()?.to_str()?;
    let is_repository = name.starts_with("datasets--") || name.starts_with("models--");
    is_repository.then(|| repository.join("blobs"))
}

/// Whether every file of a walk lies inside of its root, for data sets without a list.
pub(super) struct Inside(Boundary);

impl Inside {
    pub(super) fn new(roots: &[PathBuf], options: &LoadOptions) -> Self {
        Self(Boundary::new(roots, options.allow_outside))
    }

    pub(super) fn holds(&mut self, path: &Path) -> bool {
        self.0.holds(path)
    }
}

/// The path without `.` and, where a folder precedes, `..`: one spelling for one file.
pub(super) fn clean_path(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(clean.components().next_back(), Some(Component::Normal(_))) =>
            {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The path without a root, a drive, `.` and `..`: it leads nowhere but below what it is joined to.
pub(super) fn inner_path(path: &Path) -> PathBuf {
    let parts = clean_path(path);
    let parts = parts.components().filter(|part| matches!(part, Component::Normal(_)));
    parts.collect()
}

/// A listed name as an id: one spelling, forward slashes.
pub(super) fn name_as_id(name: &str) -> String {
    slashed(&clean_path(Path::new(&name.replace('\\', "/"))))
}

/// The path as text with forward slashes; bytes that are no text stand as `\xE9`.
pub(super) fn slashed(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "/"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }

    /// The file found, as its content, which is its name.
    fn found(folder: &Path, name: &str) -> Option<String> {
        let options = LoadOptions::default();
        let mut finder = ImageFinder::in_folders(vec![folder.to_owned()], folder, &options);
        match finder.find(&[], name) {
            Found::Image(image) => Some(String::from_utf8(image.read().unwrap()).unwrap()),
            Found::Outside(_) => Some("outside".to_owned()),
            Found::Missing(_) => None,
        }
    }

    #[test]
    fn a_name_is_found_in_the_forms_that_systems_give_it() {
        let (nfc, nfd) = ("Mu\u{308}nchen/caf\u{e9}.jpg", "M\u{fc}nchen/cafe\u{301}.jpg");
        for name in [nfc, nfd] {
            let folder = folder(&[name, "a b.jpg", "x.y.z.JPG", "sub/B.png"]);
            let path = folder.path();
            for asked in [nfc, nfd, "M\u{fc}nchen\\caf\u{e9}.jpg", "M%C3%BCnchen/caf%C3%A9.jpg"] {
                assert_eq!(found(path, asked).as_deref(), Some(name), "{asked:?}");
            }
            assert_eq!(found(path, "a%20b.jpg").as_deref(), Some("a b.jpg"));
            assert_eq!(found(path, "x.y.z.jpg").as_deref(), Some("x.y.z.JPG"));
            assert_eq!(found(path, "./sub/b.PNG").as_deref(), Some("sub/B.png"));
            assert_eq!(found(path, "sub/../a b.jpg").as_deref(), Some("a b.jpg"));
            assert_eq!(found(path, "x.y.jpg"), None);
            assert_eq!(found(path, " "), None);
        }
        // Percent signs of a name are let be, and one of two cases is not guessed.
        let folder = folder(&["100%25.jpg", "A.jpg", "a.JPG"]);
        assert_eq!(found(folder.path(), "100%25.jpg").as_deref(), Some("100%25.jpg"));
        assert_eq!(found(folder.path(), "a.jpg"), None);
    }

    #[test]
    fn a_name_does_not_lead_out_of_the_data_set() {
        let folder = folder(&["secret.jpg", "data/in.jpg", "data/sub/in.jpg"]);
        let data = folder.path().join("data");
        let absolute = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(found(&data, "../secret.jpg").as_deref(), Some("outside"));
        assert_eq!(found(&data, "sub/../../secret.jpg").as_deref(), Some("outside"));
        assert_eq!(found(&data, &absolute("secret.jpg")).as_deref(), Some("outside"));
        assert_eq!(found(&data, &absolute("data/in.jpg")).as_deref(), Some("data/in.jpg"));
        assert_eq!(found(&data, "sub/../in.jpg").as_deref(), Some("data/in.jpg"));
        assert_eq!(found(&data, "%2e%2e/secret.jpg").as_deref(), Some("outside"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("secret.jpg"), data.join("link.jpg"))
                .unwrap();
            std::os::unix::fs::symlink(folder.path(), data.join("up")).unwrap();
            std::os::unix::fs::symlink("in.jpg", data.join("same.jpg")).unwrap();
            assert_eq!(found(&data, "link.jpg").as_deref(), Some("outside"));
            assert_eq!(found(&data, "up/secret.jpg").as_deref(), Some("outside"));
            assert_eq!(found(&data, "same.jpg").as_deref(), Some("data/in.jpg"));
        }
        let options = LoadOptions { allow_outside: true, ..LoadOptions::default() };
        let mut finder = ImageFinder::in_folders(vec![data.clone()], &data, &options);
        assert!(matches!(finder.find(&[], "../secret.jpg"), Found::Image(_)));
    }

    #[test]
    fn what_is_no_file_here_is_said() {
        let why = |name: &str| why_missing(name).unwrap_or_default();
        assert!(why("https://example.org/a.jpg").contains("download"));
        assert!(why("C:\\photos\\a.jpg").contains("another computer"));
        assert_eq!(why("a.jpg"), "");
    }
}
