//! The captioner that ships: the checkpoint folder `checkpoints/flickr8k` of the source, as part of the
//! program. To replace it, replace the files there (its README says how) and build.

/// Its name, wherever a model is named. A checkpoint of this name that is there comes first.
pub const NAME: &str = "flickr8k";

/// What it is and what it is good for.
pub const ABOUT: &str = "trained on Flickr8k: people and dogs outdoors, in short sentences; for research, not for \
                         commerce; --model Salesforce/blip-image-captioning-base knows more";

/// Files by their names.
pub(super) type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

#[cfg(feature = "shipped")]
macro_rules! embedded {
    ($($name:literal),*) => {
        &[$((
            $name,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/checkpoints/flickr8k/", $name
            )).as_slice(),
        )),*]
    };
}

/// Its files, by name in order.
#[cfg(feature = "shipped")]
pub(super) static FILES: EmbeddedFiles = embedded![
    "README.md",
    "config.json",
    "inspect.json",
    "model.safetensors",
    "preprocessor.json",
    "tokenizer.json"
];
/// None: built without it.
#[cfg(not(feature = "shipped"))]
pub(super) static FILES: EmbeddedFiles = &[];

/// Whether this program was built with it (feature `shipped`).
pub fn is_here() -> bool {
    !FILES.is_empty()
}

#[cfg(all(test, feature = "shipped"))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn it_is_the_folder_in_half_precision_and_names_nobodys_machine() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints").join(NAME);
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".svg") && !name.ends_with(".toml"))
            .collect();
        there.sort();
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, there);

        let info = crate::checkpoint::info(&crate::checkpoint::Location::Shipped).unwrap();
        let weights = info.weights.unwrap();
        assert_eq!(weights.dtypes.keys().collect::<Vec<_>>(), ["F16"]);
        assert!(weights.bytes <= 40_000_000, "{}", weights.bytes);

        for (name, bytes) in FILES.iter().filter(|(name, _)| *name != "model.safetensors") {
            let text = std::str::from_utf8(bytes).unwrap();
            for place in ["/home/", "/root/", "/work/", "/tmp/", "/Users/", ":\\"] {
                // A tokenizer's text may hold a backslash, but no path of a machine.
                let found = text.find(place).filter(|_| place != ":\\" || *name == "README.md");
                assert_eq!(found, None, "{name} holds {place}");
            }
        }
        // Of the weights, what stands before the numbers.
        let (_, weights) = FILES.iter().find(|(name, _)| *name == "model.safetensors").unwrap();
        let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&weights[8..8 + length]).unwrap();
        assert!(!header.contains(":/") && !header.contains("\"/"), "{header}");
    }
}
