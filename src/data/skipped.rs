//! Images that could not be used, for whoever reads many and names each failure once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedImage {
    /// The file.
    pub path: PathBuf,
    /// Why; the file is named in it.
    pub reason: String,
}

/// Images that could not be used, each once, in the order in which they were met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedImages {
    images: Vec<SkippedImage>,
    paths: HashSet<PathBuf>,
}

impl SkippedImages {
    /// Adds an image if none of its path is there yet; whether it was added.
    pub fn add(&mut self, image: SkippedImage) -> bool {
        let new = self.paths.insert(image.path.clone());
        if new {
            self.images.push(image);
        }
        new
    }

    /// Whether an image of this path is there.
    pub fn contains(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }

    /// The images.
    pub fn iter(&self) -> impl Iterator<Item = &SkippedImage> {
        self.images.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_kept_once_with_its_first_reason() {
        let image =
            |path: &str, reason: &str| SkippedImage { path: path.into(), reason: reason.into() };
        let mut skipped = SkippedImages::default();
        assert!(skipped.add(image("b.jpg", "cut short")));
        assert!(skipped.add(image("a.jpg", "not an image")));
        assert!(!skipped.add(image("b.jpg", "gone")));
        let reasons: Vec<&str> = skipped.iter().map(|image| image.reason.as_str()).collect();
        assert_eq!(reasons, ["cut short", "not an image"]);
        assert!(skipped.contains(Path::new("a.jpg")) && !skipped.contains(Path::new("c.jpg")));
    }
}
