//! Images that could not be used, for whoever reads many and names each failure once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedImage {
    /// The file.
    pub path: PathBuf,
    /// Why; the file is named in it.
    pub reason: String,
}

/// Images that could not be used, each once, in the order in which they were met: a slice of
/// [`SkippedImage`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedImages {
    images: Vec<SkippedImage>,
    places: HashMap<PathBuf, usize>,
}

impl Deref for SkippedImages {
    type Target = [SkippedImage];

    fn deref(&self) -> &Self::Target {
        &self.images
    }
}

impl SkippedImages {
    /// Adds an image if none of its path is there yet; whether it was added.
    pub fn add(&mut self, image: SkippedImage) -> bool {
        let Entry::Vacant(place) = self.places.entry(image.path.clone()) else { return false };
        place.insert(self.images.len());
        self.images.push(image);
        true
    }

    /// Why the image of this path could not be used, if it is there.
    pub fn reason(&self, path: &Path) -> Option<&str> {
        self.places.get(path).map(|&place| self.images[place].reason.as_str())
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
        assert_eq!(skipped.reason(Path::new("b.jpg")), Some("cut short"));
        assert_eq!(skipped.reason(Path::new("c.jpg")), None);
    }
}
