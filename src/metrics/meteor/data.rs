//! METEOR's data, as its jar and the file beside it hold them: function words, WordNet's synonyms
//! and the paraphrase table.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use thiserror::Error;

/// Why METEOR's data could not be read.
#[derive(Debug, Error)]
pub enum MeteorDataError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not there.
    #[error("{path} holds no {name} (expected METEOR 1.5's jar, or the folder it unpacks to)")]
    Missing {
        /// The jar or the folder.
        path: PathBuf,
        /// The file that was looked for.
        name: String,
    },
    /// There is no paraphrase table.
    #[error("no paraphrase-en.gz at {}", looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or "))]
    NoParaphrases {
        /// Where it was looked for.
        looked_at: Vec<PathBuf>,
    },
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Suffixes and what stands for them in the dictionary form, in the order they are tried.
const SUFFIXES: [(&str, &str); 18] = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
    ("er", "e"),
    ("est", "e"),
];

/// The words of a phrase, as numbers.
type Phrase = Box<[u32]>;

/// METEOR's data, as far as it concerns the captions to be scored.
#[derive(Debug, Clone, Default)]
pub struct MeteorData {
    function_words: HashSet<String>,
    /// WordNet's synonym sets of a word.
    synonym_sets: HashMap<String, Vec<u32>>,
    /// The dictionary forms of irregular words.
    exceptions: HashMap<String, Vec<String>>,
    /// By phrase, in the order of the table, in which most pairs are twice, once each way round.
    paraphrases: HashMap<Phrase, Vec<Phrase>>,
    /// The most words of a phrase that has a paraphrase.
    longest_phrase: usize,
}

impl MeteorData {
    /// Reads the data at `path`: the jar, with `data/paraphrase-en.gz` or `paraphrase-en.gz` beside it,
    /// or a folder that holds the jar or what it unpacks to. Of the paraphrases only those are kept
    /// that consist of `words`, the words (by METEOR's own tokens) of the captions to be scored, by whose
    /// numbers they are kept.
    ///
    /// # Errors
    ///
    /// See [`MeteorDataError`].
    pub(super) fn read(path: &Path, words: &HashMap<String, u32>) -> Result<Self, MeteorDataError> {
        let source = Source::open(path)?;
        let function_words = source.text("function/english.words")?;
        let mut data = Self {
            function_words: function_words.split_whitespace().map(str::to_owned).collect(),
            ..Self::default()
        };
        let text = source.text("synonym/english.synsets")?;
        for (word, sets) in pairs_of_lines(&text) {
            let mut sets: Vec<u32> =
                sets.split_whitespace().filter_map(|set| set.parse().ok()).collect();
            sets.sort_unstable();
            data.synonym_sets.insert(word.to_owned(), sets);
        }
        let text = source.text("synonym/english.exceptions")?;
        for (base, forms) in pairs_of_lines(&text) {
            for form in forms.split_whitespace() {
                data.exceptions.entry(form.to_owned()).or_default().push(base.to_owned());
            }
        }
        if data.function_words.is_empty() || data.synonym_sets.is_empty() {
            let problem = "its lists of words are empty".to_owned();
            return Err(MeteorDataError::Malformed { path: path.to_owned(), problem });
        }
        data.read_paraphrases(&source.paraphrases, words)?;
        Ok(data)
    }

    /// The table has three lines a pair: probability, phrase, phrase.
    fn read_paraphrases(
        &mut self,
        path: &Path,
        words: &HashMap<String, u32>,
    ) -> Result<(), MeteorDataError> {
        let failed = |source| MeteorDataError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mut lines = BufReader::with_capacity(1 << 20, MultiGzDecoder::new(file));
        let (mut probability, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
        let known = |phrase: &[u8]| -> Option<Phrase> {
            let phrase = str::from_utf8(phrase).ok()?;
            phrase.split_ascii_whitespace().map(|word| words.get(word).copied()).collect()
        };
        loop {
            let mut read = |line: &mut Vec<u8>| {
                line.clear();
                lines.read_until(b'\n', line).map_err(failed)
            };
            if read(&mut probability)? == 0 {
                return Ok(());
            }
            read(&mut from)?;
            if read(&mut to)? == 0 {
                let problem = "ends within a pair (expected three lines a pair)".to_owned();
                return Err(MeteorDataError::Malformed { path: path.to_owned(), problem });
            }
            if let Some((from, to)) = known(&from).zip(known(&to))
                && !from.is_empty()
                && !to.is_empty()
            {
                self.longest_phrase = self.longest_phrase.max(from.len());
                self.paraphrases.entry(from).or_default().push(to);
            }
        }
    }

    pub(super) fn is_function_word(&self, word: &str) -> bool {
        self.function_words.contains(word)
    }

    pub(super) fn paraphrases_of(&self, phrase: &[u32]) -> &[Phrase] {
        self.paraphrases.get(phrase).map_or(&[], Vec::as_slice)
    }

    /// The most words of a phrase that has a paraphrase.
    pub(super) fn longest_phrase(&self) -> usize {
        self.longest_phrase
    }

    /// The synonym sets of a word and of its dictionary form, sorted.
    pub(super) fn synonym_sets_of(&self, word: &str) -> Vec<u32> {
        let of = |word: &str| self.synonym_sets.get(word).map_or(&[][..], Vec::as_slice);
        let mut sets = of(word).to_vec();
        if let Some(bases) = self.exceptions.get(word) {
            sets.extend(bases.iter().flat_map(|base| of(base)));
        } else if word.chars().count() > 2 && !word.ends_with("ss") {
            let base = SUFFIXES
                .iter()
                .filter_map(|(suffix, end)| Some(format!("{}{end}", word.strip_suffix(suffix)?)))
                .find_map(|base| self.synonym_sets.get(&base));
            sets.extend(base.into_iter().flatten());
        }
        sets.sort_unstable();
        sets.dedup();
        sets
    }
}

fn pairs_of_lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut lines = text.lines();
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?)))
}

/// Where the data lie.
struct Source {
    path: PathBuf,
    jar: Option<Jar>,
    paraphrases: PathBuf,
}

impl Source {
    fn open(path: &Path) -> Result<Self, MeteorDataError> {
        let failed = |source| MeteorDataError::Read { path: path.to_owned(), source };
        let is_folder = std::fs::metadata(path).map_err(failed)?.is_dir();
        let mut jar = (!is_folder).then(|| path.to_owned());
        if is_folder && !path.join("synonym").is_dir() {
            for entry in std::fs::read_dir(path).map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if name.to_lowercase().starts_with("meteor") && name.ends_with(".jar") {
                    jar = Some(file);
                }
            }
        }
        let folder = if is_folder { path } else { path.parent().unwrap_or(Path::new(".")) };
        let looked_at: Vec<PathBuf> = ["data/paraphrase-en.gz", "paraphrase-en.gz"]
            .iter()
            .chain(is_folder.then_some(&"../data/paraphrase-en.gz"))
            .map(|name| folder.join(name))
            .collect();
        let paraphrases = looked_at
            .iter()
            .find(|path| path.is_file())
            .cloned()
            .ok_or(MeteorDataError::NoParaphrases { looked_at })?;
        let jar = jar.map(|path| Jar::open(&path)).transpose()?;
        Ok(Self { path: path.to_owned(), jar, paraphrases })
    }

    fn text(&self, name: &str) -> Result<String, MeteorDataError> {
        let missing =
            || MeteorDataError::Missing { path: self.path.clone(), name: name.to_owned() };
        let bytes = match &self.jar {
            Some(jar) => jar.read(name)?.ok_or_else(missing)?,
            None => {
                let path = self.path.join(name);
                if !path.is_file() {
                    return Err(missing());
                }
                std::fs::read(&path).map_err(|source| MeteorDataError::Read { path, source })?
            }
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A zip file's table of contents.
struct Jar {
    path: PathBuf,
    entries: Vec<JarEntry>,
}

struct JarEntry {
    name: String,
    compressed: bool,
    compressed_size: u64,
    offset: u64,
}

/// The longest end of a zip file that can hold its closing record.
const LONGEST_END: u64 = 22 + 0xffff;
/// More than any file of the jar has unpacked.
const LARGEST_FILE: u64 = 64 << 20;

impl Jar {
    fn open(path: &Path) -> Result<Self, MeteorDataError> {
        let failed = |source| MeteorDataError::Read { path: path.to_owned(), source };
        let malformed = || MeteorDataError::Malformed {
            path: path.to_owned(),
            problem: "not a jar (expected a zip file)".to_owned(),
        };
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let end = read_at(&mut file, length.saturating_sub(LONGEST_END), length.min(LONGEST_END))
            .map_err(failed)?;
        let record = end
            .windows(22)
            .rev()
            .find(|window| window.starts_with(b"PK\x05\x06"))
            .ok_or_else(malformed)?;
        let (size, offset) = (number(record, 12, 4), number(record, 16, 4));
        let (size, offset) = size.zip(offset).ok_or_else(malformed)?;
        if offset.saturating_add(size) > length {
            return Err(malformed());
        }
        let directory = read_at(&mut file, offset, size).map_err(failed)?;
        let mut entries = Vec::new();
        let mut rest = directory.as_slice();
        while rest.starts_with(b"PK\x01\x02") {
            let entry = (|| {
                let [name, extra, comment] =
                    [number(rest, 28, 2)?, number(rest, 30, 2)?, number(rest, 32, 2)?];
                let name_end = 46 + name as usize;
                let entry = JarEntry {
                    name: String::from_utf8_lossy(rest.get(46..name_end)?).into_owned(),
                    compressed: number(rest, 10, 2)? != 0,
                    compressed_size: number(rest, 20, 4)?,
                    offset: number(rest, 42, 4)?,
                };
                rest = rest.get(name_end + extra as usize + comment as usize..)?;
                Some(entry)
            })();
            entries.push(entry.ok_or_else(malformed)?);
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, MeteorDataError> {
        let Some(entry) = self.entries.iter().find(|entry| entry.name == name) else {
            return Ok(None);
        };
        let read = || {
            let mut file = File::open(&self.path)?;
            let header = read_at(&mut file, entry.offset, 30)?;
            let skipped = number(&header, 26, 2).zip(number(&header, 28, 2));
            let (name, extra) = skipped.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            file.seek(SeekFrom::Start(entry.offset + 30 + name + extra))?;
            let packed = file.take(entry.compressed_size);
            let mut bytes = Vec::new();
            if entry.compressed {
                DeflateDecoder::new(packed).take(LARGEST_FILE).read_to_end(&mut bytes)?;
            } else {
                packed.take(LARGEST_FILE).read_to_end(&mut bytes)?;
            }
            Ok(bytes)
        };
        read().map(Some).map_err(|source| MeteorDataError::Read { path: self.path.clone(), source })
    }
}

fn read_at(file: &mut File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A little-endian number of `width` bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + width)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
