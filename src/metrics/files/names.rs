//! Which image a name means: the same image is named by a path, a file, a COCO id as number or text, in
//! composed or decomposed letters.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

/// How surely a name means an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    /// It is the image's name, whatever form its letters and separators have.
    Whole,
    /// It ends in the same file name.
    File,
    /// That without its extension is the same.
    Stem,
    /// It is the same number.
    Number,
}

/// Images by their names.
pub(super) struct Names {
    whole: HashMap<String, Vec<usize>>,
    files: HashMap<String, Vec<(usize, String)>>,
    stems: HashMap<String, Vec<(usize, String)>>,
    numbers: HashMap<String, Vec<usize>>,
}

impl Names {
    /// Of each image, by its place, all the names it has.
    pub(super) fn of<'a>(images: impl Iterator<Item = Vec<&'a str>>) -> Self {
        let mut all = Self {
            whole: HashMap::new(),
            files: HashMap::new(),
            stems: HashMap::new(),
            numbers: HashMap::new(),
        };
        let add = |map: &mut HashMap<String, Vec<usize>>, key: String, place: usize| {
            let places = map.entry(key).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        };
        for (place, names) in images.enumerate() {
            for name in names {
                let name = canonical(name);
                let file = file_of(&name).to_owned();
                all.stems.entry(stem_of(&file).to_owned()).or_default().push((place, name.clone()));
                all.files.entry(file).or_default().push((place, name.clone()));
                if let Some(number) = number_of(&name) {
                    add(&mut all.numbers, number, place);
                }
                add(&mut all.whole, name, place);
            }
        }
        all
    }

    /// The image that a name means, and how it was found; several where nothing tells them apart.
    pub(super) fn find(&self, name: &str) -> Option<(Match, Vec<usize>)> {
        let name = canonical(name);
        if let Some(places) = self.whole.get(&name) {
            return Some((Match::Whole, places.clone()));
        }
        let file = file_of(&name);
        if let Some(places) = self.files.get(file) {
            return Some((Match::File, nearest(&name, places)));
        }
        if let Some(places) = self.stems.get(stem_of(file)) {
            return Some((Match::Stem, nearest(&name, places)));
        }
        Some((Match::Number, self.numbers.get(&number_of(&name)?)?.clone()))
    }
}

/// A name in composed letters, with `/` between folders and without the folder it starts from.
fn canonical(name: &str) -> String {
    let name: String = name.nfc().map(|letter| if letter == '\\' { '/' } else { letter }).collect();
    let mut name = name.as_str();
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    name.to_owned()
}

fn file_of(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Of images with the same file name or stem, those of the folders that are most alike.
fn nearest(name: &str, candidates: &[(usize, String)]) -> Vec<usize> {
    let folders =
        |name: &str| -> Vec<String> { name.rsplit('/').skip(1).map(str::to_owned).collect() };
    let own = folders(name);
    let alike = |other: &str| {
        own.iter().zip(folders(other)).take_while(|(own, other)| *own == other).count()
    };
    let most = candidates.iter().map(|(_, other)| alike(other)).max().unwrap_or(0);
    let mut places: Vec<usize> = (candidates.iter())
        .filter(|(_, other)| alike(other) == most)
        .map(|(place, _)| *place)
        .collect();
    places.dedup();
    places
}

/// A file name without the extension of an image, or of what lies beside one. Other dots are part of the
/// name: `img.001` and `img.002` are two images.
fn stem_of(file: &str) -> &str {
    const EXTENSIONS: &[&str] = &[
        "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff", "heic", "heif",
        "avif", "jxl", "jp2", "ppm", "pgm", "pbm", "pnm", "tga", "dds", "exr", "hdr", "qoi", "ico",
        "ff", "mpo", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "npz", "npy", "txt",
        "json", "caption",
    ];
    match file.rsplit_once('.') {
        Some((stem, extension))
            if !stem.is_empty()
                && EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)) =>
        {
            stem
        }
        _ => file,
    }
}

/// The number that a name is: `42`, `42.0`, `000000000042.jpg`, `COCO_val2014_000000000042.jpg`.
fn number_of(name: &str) -> Option<String> {
    let stem = stem_of(file_of(name.trim()));
    let digits = match stem.strip_prefix("COCO_") {
        Some(rest) => rest.rsplit('_').next()?,
        None => match stem.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
            _ => stem,
        },
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = digits.trim_start_matches('0');
    Some(if number.is_empty() { "0" } else { number }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], name: &str) -> Option<(Match, Vec<usize>)> {
        Names::of(names.iter().map(|name| vec![*name])).find(name)
    }

    #[test]
    fn a_name_is_found_whole_then_by_its_file_then_by_its_stem_then_by_its_number() {
        let names = ["a/one.jpg", "two.png", "000000000042.jpg", "cafe\u{301}.jpg", "img.001", "7"];
        for (name, expected) in [
            ("a/one.jpg", Some((Match::Whole, vec![0]))),
            ("./a\\one.jpg", Some((Match::Whole, vec![0]))),
            ("one.jpg", Some((Match::File, vec![0]))),
            ("/photos/b/one.jpg", Some((Match::File, vec![0]))),
            ("two.jpeg", Some((Match::Stem, vec![1]))),
            ("two", Some((Match::Stem, vec![1]))),
            ("42", Some((Match::Number, vec![2]))),
            ("42.0", Some((Match::Number, vec![2]))),
            ("COCO_val2014_000000000042", Some((Match::Number, vec![2]))),
            ("caf\u{e9}.jpg", Some((Match::Whole, vec![3]))),
            ("img.001", Some((Match::Whole, vec![4]))),
            ("img.002", None),
            ("COCO_train2014_000000000007.jpg", Some((Match::Number, vec![5]))),
            ("three", None),
            ("8", None),
            ("", None),
        ] {
            assert_eq!(found(&names, name), expected, "{name}");
        }
    }

    #[test]
    fn folders_tell_files_of_one_name_apart_where_they_can() {
        let names = ["train/one.jpg", "val/one.jpg", "one.png"];
        assert_eq!(found(&names, "/data/val/one.jpg"), Some((Match::File, vec![1])));
        assert_eq!(found(&names, "one.jpg"), Some((Match::File, vec![0, 1])));
        assert_eq!(found(&names, "test/one.jpg"), Some((Match::File, vec![0, 1])));
        assert_eq!(found(&names, "val/one.webp"), Some((Match::Stem, vec![1])));
        assert_eq!(found(&names, "one.webp"), Some((Match::Stem, vec![0, 1, 2])));
        // Numbers that differ in their zeros only.
        assert_eq!(found(&["1.jpg", "01.jpg"], "001.jpg"), Some((Match::Number, vec![0, 1])));
        assert_eq!(found(&["1.jpg", "01.jpg"], "01.png"), Some((Match::Stem, vec![1])));
    }
}
