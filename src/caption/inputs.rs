//! Which photos paths, globs, folders and lists name, one after the other while they are looked for. Knows
//! the file system, archives and tables, and opens no photo.

mod input;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead};
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use walkdir::{DirEntry, WalkDir};

use super::shard::Shard;
use crate::data::{ContainedError, ContainedPhoto, is_container, is_housekeeping, photos_in};
use crate::image::is_image_path;

pub use input::Input;

/// What a user named.
pub enum Named {
    /// A photo, a folder, or a glob if nothing of that very name is there.
    Path(PathBuf),
    /// Paths, one a line.
    List(List),
}

/// A list of paths.
pub struct List {
    /// What it is called in messages.
    pub name: String,
    /// Its bytes.
    pub lines: Box<dyn BufRead + Send>,
    /// Whether NUL ends a path, where line breaks may be part of one. A list that has NULs in its first
    /// bytes is read so in any case.
    pub nul: bool,
}

/// Which photos of a folder count.
#[derive(Debug, Clone)]
pub struct InputConfig {
    /// Folders within folders too.
    pub recursive: bool,
    /// Hidden and housekeeping files and folders too.
    pub hidden: bool,
    /// Only what one of these matches, by its name or, if it has a `/`, by its path within the folder;
    /// none: everything. Case does not matter.
    pub include: Vec<Pattern>,
    /// Not what one of these matches; of a folder nothing that is in it.
    pub exclude: Vec<Pattern>,
    /// Only this share of the photos.
    pub shard: Option<Shard>,
    /// Whether a table may name files that do not lie below its folder.
    pub allow_outside: bool,
}

impl Default for InputConfig {
    fn default() -> Self {
        let (include, exclude) = (Vec::new(), Vec::new());
        let allow_outside = false;
        Self { recursive: true, hidden: false, include, exclude, shard: None, allow_outside }
    }
}

/// What cannot be captioned, and why.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing has this name.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The name.
        path: PathBuf,
    },
    /// Nothing of this name is there, nor does any photo match it.
    #[error("{}: matches no image", pattern.display())]
    NoMatch {
        /// The glob.
        pattern: PathBuf,
    },
    /// A folder without photos.
    #[error("{}: no images in this folder", folder.display())]
    NoImages {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder that cannot be looked into.
    #[error("{}: cannot be looked into", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a list that names nothing.
    #[error("{list}:{line}: {}: no such file or folder", path.display())]
    Line {
        /// The list.
        list: String,
        /// The line, counted from 1.
        line: usize,
        /// What it names.
        path: PathBuf,
    },
    /// A line of a list that is no path on this system.
    #[error("{list}:{line}: not a path: {text}")]
    NotAPath {
        /// The list.
        list: String,
        /// The line, counted from 1.
        line: usize,
        /// How it reads.
        text: String,
    },
    /// An archive or a table that cannot be read, or an entry of it without a photo.
    #[error(transparent)]
    Contained(#[from] ContainedError),
    /// An archive or a table without photos.
    #[error("{}: no images in it", path.display())]
    NoneInside {
        /// The archive or table.
        path: PathBuf,
    },
    /// A list that breaks off.
    #[error("{list}: cannot be read further")]
    List {
        /// The list.
        list: String,
        /// Why.
        source: io::Error,
    },
}

/// A photo, or why there is none.
pub type Found = Result<Input, InputError>;

/// Hands every photo that `named` names to `found`, in order and each file once, until it returns `false`.
pub fn find(
    named: impl IntoIterator<Item = Named>,
    config: &InputConfig,
    found: &mut dyn FnMut(Found) -> bool,
) {
    let (seen, hasher) = (HashSet::new(), RandomState::new());
    let mut finder =
        Finder { config, found, seen, hasher, folder: Default::default(), stopped: false };
    for named in named {
        if finder.stopped {
            return;
        }
        match named {
            Named::Path(path) => finder.path(&path),
            Named::List(list) => finder.list(list),
        }
    }
}

struct Finder<'a> {
    config: &'a InputConfig,
    found: &'a mut dyn FnMut(Found) -> bool,
    /// Hashes of files that were found: of millions of names they alone fit.
    seen: HashSet<u64>,
    hasher: RandomState,
    /// The folder that was looked up last, and where it really is.
    folder: (PathBuf, PathBuf),
    stopped: bool,
}

impl Finder<'_> {
    fn give(&mut self, found: Found) {
        self.stopped = self.stopped || !(self.found)(found);
    }

    /// Whether it is new; a photo of another machine's share counts, and is not given.
    fn photo(&mut self, path: PathBuf, relative: PathBuf) {
        if self.is_new(&path) && self.config.shard.is_none_or(|shard| shard.takes(&relative)) {
            self.give(Ok(Input::file(path, relative)));
        }
    }

    fn is_new(&mut self, path: &Path) -> bool {
        let folder = path.parent().unwrap_or(Path::new(""));
        if self.folder.0 != folder || self.folder.1.as_os_str().is_empty() {
            let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let real = place.canonicalize().unwrap_or_else(|_| place.to_owned());
            self.folder = (folder.to_owned(), real);
        }
        let key = self.hasher.hash_one((&self.folder.1, path.file_name()));
        self.seen.insert(key)
    }

    /// The photos of an archive or a table; `relative` is its own path, which its photos' are below.
    fn container(&mut self, path: &Path, relative: &Path) {
        if !self.is_new(path) {
            return;
        }
        let mut any = false;
        photos_in(path, self.config.allow_outside, &mut |photo| {
            any = true;
            match photo {
                Ok(photo) if photo.image.container().is_some() => {
                    let inner = photo.image.path();
                    let inner = inner.strip_prefix(path).unwrap_or(inner);
                    let is_wanted = self.config.hidden || !is_below_housekeeping(inner);
                    let is_wanted = is_wanted && !is_excluded(inner, self.config);
                    if is_wanted && is_included(inner, self.config) {
                        let relative = relative.join(inner);
                        if self.config.shard.is_none_or(|shard| shard.takes(&relative)) {
                            self.give(Ok(Input::contained(photo, relative)));
                        }
                    }
                }
                // A table names files.
                Ok(ContainedPhoto { image, .. }) => self.file(image.path()),
                Err(error) => self.give(Err(error.into())),
            }
            !self.stopped
        });
        if !any {
            self.give(Err(InputError::NoneInside { path: path.to_owned() }));
        }
    }

    fn path(&mut self, path: &Path) {
        // What is there is meant by its name, whatever brackets it has.
        if path.is_dir() {
            self.folder(path);
        } else if path.symlink_metadata().is_ok() {
            self.file(path);
        } else if let Some(text) = path.to_str().filter(|text| text.contains(['*', '?', '[', '{']))
        {
            self.glob(text);
        } else {
            self.give(Err(InputError::NotFound { path: path.to_owned() }));
        }
    }

    fn file(&mut self, path: &Path) {
        let relative = path.file_name().map_or_else(|| path.to_owned(), PathBuf::from);
        if is_container(path) {
            return self.container(path, &relative);
        }
        self.photo(path.to_owned(), relative);
    }

    fn folder(&mut self, folder: &Path) {
        if !self.walk(folder) && !self.stopped {
            self.give(Err(InputError::NoImages { folder: folder.to_owned() }));
        }
    }

    /// Whether there was anything in the folder to speak of. Its archives and tables count where it has no
    /// photo of its own: beside photos they are copies of them.
    fn walk(&mut self, root: &Path) -> bool {
        let config = self.config;
        let depth = if config.recursive { usize::MAX } else { 1 };
        let walk = WalkDir::new(root).sort_by_file_name().follow_links(true).max_depth(depth);
        let (mut any, mut containers) = (false, Vec::new());
        for entry in walk.into_iter().filter_entry(|entry| is_wanted(entry, root, config)) {
            if self.stopped {
                return true;
            }
            match entry {
                Ok(entry) if !entry.file_type().is_dir() && is_image_path(entry.path()) => {
                    let path = entry.into_path();
                    let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
                    if is_included(&relative, config) {
                        any = true;
                        self.photo(path, relative);
                    }
                }
                Ok(entry) if entry.file_type().is_file() && is_container(entry.path()) && !any => {
                    containers.push(entry.into_path());
                }
                Ok(_) => {}
                // A link that leads back to a folder around it: all that is there is found without it.
                Err(error) if error.loop_ancestor().is_some() => {}
                Err(error) => any |= self.walk_error(error, root),
            }
        }
        if any {
            return true;
        }
        for path in &containers {
            if self.stopped {
                return true;
            }
            self.container(path, path.strip_prefix(root).unwrap_or(path));
        }
        !containers.is_empty()
    }

    /// Whether it is worth speaking of: a link to nothing is if it is called like a photo.
    fn walk_error(&mut self, error: walkdir::Error, root: &Path) -> bool {
        let path = error.path().unwrap_or(root).to_owned();
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
        if is_link {
            let is_photo = is_image_path(&path) && is_included(&relative, self.config);
            if is_photo {
                self.photo(path, relative);
            }
            return is_photo;
        }
        let source = error.into_io_error().unwrap_or_else(|| io::Error::other("unknown cause"));
        self.give(Err(InputError::Folder { path, source }));
        true
    }

    fn glob(&mut self, text: &str) {
        let mut any = false;
        for text in braces(text) {
            if Path::new(&text).symlink_metadata().is_ok() {
                any = true;
                self.path(Path::new(&text));
                continue;
            }
            let is_literal = !text.contains(['*', '?', '[', '{']);
            if is_literal && is_container(Path::new(&text)) {
                // One of a range of shards that is not there.
                any = true;
                self.give(Err(InputError::NotFound { path: text.into() }));
                continue;
            }
            let matches = glob::glob(&literal_where_it_exists(&text));
            for path in matches.into_iter().flatten().filter_map(Result::ok) {
                if self.stopped {
                    return;
                }
                if path.is_dir() {
                    any |= self.walk(&path);
                } else if is_image_path(&path) || is_container(&path) {
                    any = true;
                    self.file(&path);
                }
            }
        }
        if !any {
            self.give(Err(InputError::NoMatch { pattern: text.into() }));
        }
    }

    fn list(&mut self, list: List) {
        let List { name, mut lines, nul } = list;
        let (mut nul, mut number) = (nul, 0);
        let start = match lines.fill_buf() {
            Ok(start) => start,
            Err(source) => return self.give(Err(InputError::List { list: name, source })),
        };
        let is_wide = start.starts_with(b"\xFF\xFE") || start.starts_with(b"\xFE\xFF");
        if is_wide {
            match wide_text(&mut lines) {
                Ok(text) => lines = Box::new(io::Cursor::new(text.into_bytes())),
                Err(source) => return self.give(Err(InputError::List { list: name, source })),
            }
        } else {
            nul = nul || start.contains(&0);
            if start.starts_with(b"\xEF\xBB\xBF") {
                lines.consume(3);
            }
        }
        let mut line = Vec::new();
        while !self.stopped {
            line.clear();
            match lines.read_until(if nul { 0 } else { b'\n' }, &mut line) {
                Ok(0) => return,
                Ok(_) => {}
                Err(source) => return self.give(Err(InputError::List { list: name, source })),
            }
            number += 1;
            if nul {
                line.pop_if(|byte| *byte == 0);
            } else {
                line.pop_if(|byte| *byte == b'\n');
                line.pop_if(|byte| *byte == b'\r');
            }
            if line.iter().all(|byte| byte.is_ascii_whitespace()) {
                continue;
            }
            self.line(&name, number, &line);
        }
    }

    fn line(&mut self, list: &str, line: usize, bytes: &[u8]) {
        let list = || list.to_owned();
        let Some(path) = path_of(bytes) else {
            let text = String::from_utf8_lossy(bytes).into_owned();
            return self.give(Err(InputError::NotAPath { list: list(), line, text }));
        };
        if path.is_dir() {
            self.folder(&path);
        } else if path.symlink_metadata().is_ok() {
            self.file(&path);
        } else {
            self.give(Err(InputError::Line { list: list(), line, path }));
        }
    }
}

/// The path that these bytes are, on systems where any bytes are one.
#[cfg(unix)]
pub(crate) fn path_of(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    (!bytes.contains(&0)).then(|| path.to_owned())
}

#[cfg(not(unix))]
pub(crate) fn path_of(bytes: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(bytes).ok().map(PathBuf::from)
}

/// UTF-16 with a byte order mark, as PowerShell writes lists.
fn wide_text(lines: &mut Box<dyn BufRead + Send>) -> io::Result<String> {
    let mut bytes = Vec::new();
    lines.read_to_end(&mut bytes)?;
    let is_little = bytes.starts_with(b"\xFF\xFE");
    let (pairs, _) = bytes.as_chunks::<2>();
    let units = pairs.iter().skip(1).map(|&pair| match is_little {
        true => u16::from_le_bytes(pair),
        false => u16::from_be_bytes(pair),
    });
    Ok(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

/// Whether a walk looks at this file, or into this folder.
fn is_wanted(entry: &DirEntry, root: &Path, config: &InputConfig) -> bool {
    if entry.depth() == 0 {
        return true;
    }
    let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
    let is_hidden = is_housekeeping(entry.file_name(), entry.file_type().is_dir());
    (config.hidden || !is_hidden) && !matches_any(&config.exclude, relative)
}

fn matches_any(patterns: &[Pattern], relative: &Path) -> bool {
    patterns.iter().any(|pattern| matches(pattern, relative))
}

/// Whether a member of an archive, or a folder above it there, is excluded.
fn is_excluded(inner: &Path, config: &InputConfig) -> bool {
    let mut above = inner.ancestors().filter(|part| !part.as_os_str().is_empty());
    above.any(|part| matches_any(&config.exclude, part))
}

/// Whether a member of an archive, or a folder above it there, is hidden.
fn is_below_housekeeping(inner: &Path) -> bool {
    let mut above = inner.ancestors().filter_map(Path::file_name).enumerate();
    above.any(|(height, name)| is_housekeeping(name, height > 0))
}

fn is_included(relative: &Path, config: &InputConfig) -> bool {
    config.include.is_empty() || matches_any(&config.include, relative)
}

fn matches(pattern: &Pattern, relative: &Path) -> bool {
    let options = MatchOptions {
        case_sensitive: false,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    let whole = pattern.as_str().contains('/');
    let text = match relative.file_name() {
        Some(name) if !whole => name.to_string_lossy(),
        _ => relative.to_string_lossy(),
    };
    pattern.matches_with(&text, options)
}

/// A glob in which the parts that are there by their very names are no wildcards.
fn literal_where_it_exists(text: &str) -> String {
    let mut real = PathBuf::new();
    let mut parts = Vec::new();
    let mut is_real = true;
    for part in Path::new(text).components() {
        let name = part.as_os_str().to_string_lossy();
        is_real = is_real && {
            real.push(part);
            real.symlink_metadata().is_ok()
        };
        parts.push(match part {
            Component::Normal(_) if is_real => Pattern::escape(&name),
            Component::RootDir => String::new(),
            _ => name.into_owned(),
        });
    }
    if parts.len() == 1 && parts[0].is_empty() { "/".into() } else { parts.join("/") }
}

/// What a text stands for in a shell: `{a,b}` for each of both, `{000..099}` for a hundred numbers.
fn braces(text: &str) -> Vec<String> {
    const MOST: usize = 1_000_000;
    let Some(open) = text.find('{') else { return vec![text.to_owned()] };
    let Some(length) = text[open..].find('}') else { return vec![text.to_owned()] };
    let (inner, after) = (&text[open + 1..open + length], &text[open + length + 1..]);
    let numbers = inner.split_once("..").and_then(|(low, high)| {
        let (first, last) = (low.parse::<usize>().ok()?, high.parse::<usize>().ok()?);
        let width = if low.starts_with('0') { low.len() } else { 0 };
        (first <= last && last - first < MOST)
            .then(|| (first..=last).map(|number| format!("{number:0width$}")).collect())
    });
    let words: Vec<String> = match numbers {
        Some(numbers) => numbers,
        None if inner.contains(',') => inner.split(',').map(str::to_owned).collect(),
        None => vec![format!("{{{inner}}}")],
    };
    let rest = braces(after);
    let pairs = words.iter().flat_map(|word| rest.iter().map(move |rest| (word, rest)));
    pairs.take(MOST).map(|(word, rest)| format!("{}{word}{rest}", &text[..open])).collect()
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
