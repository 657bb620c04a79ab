//! The configs that travel in the program, by name.

use std::path::Path;

/// A config that needs no file.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// Its name, which is that of its file in `configs/` without the ending.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub about: &'static str,
    /// The TOML.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal: $about:literal),* $(,)?) => {
        &[$(BuiltIn {
            name: $name,
            about: $about,
            text: include_str!(concat!("../../configs/", $name, ".toml")),
        }),*]
    };
}

/// All of them; those that a newcomer wants first.
pub const BUILT_IN: &[BuiltIn] = built_in! {
    "finetune": "fine-tune the captioner that ships on your photos, in minutes",
    "finetune-blip": "fine-tune BLIP, or another public captioner, every weight",
    "flickr8k": "from scratch, a few thousand photos",
    "flickr8k-mobilenet": "the same with pretrained eyes (MobileNetV2)",
    "flickr8k-backbone": "continue flickr8k-mobilenet and train its backbone",
    "flickr8k-r-drop": "continue flickr8k-backbone with R-Drop",
    "flickr8k-scst": "continue flickr8k-backbone on the score (CIDEr-D)",
    "vit-base": "BLIP-base's size, for a GPU",
    "shapes": "coloured shapes, the demo",
    "shapes-hard": "harder shapes, the demo's --hard",
    "bench": "the shape that `bench` measures",
};

/// The config that `name` names, with or without `.toml`, in `configs/` or not.
pub(super) fn find(name: &Path) -> Option<&'static BuiltIn> {
    let name = name.strip_prefix("configs").unwrap_or(name).to_str()?;
    let name = name.strip_suffix(".toml").unwrap_or(name);
    BUILT_IN.iter().find(|built_in| built_in.name == name)
}

/// The names, those like `name` first.
pub(super) fn names_like(name: &Path) -> String {
    let name = name.to_string_lossy();
    let mut names: Vec<&str> = BUILT_IN.iter().map(|built_in| built_in.name).collect();
    names.sort_by(|a, b| strsim::jaro_winkler(&name, b).total_cmp(&strsim::jaro_winkler(&name, a)));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_config_is_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                continue;
            }
            let built_in = find(Path::new(file.file_name().unwrap()));
            let built_in = built_in.unwrap_or_else(|| panic!("{} is not", file.display()));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), built_in.text);
        }
        assert!(names_like(Path::new("fintune")).starts_with("finetune"));
        assert!(find(Path::new("configs/shapes.toml")).is_some());
        assert!(find(Path::new("else/shapes.toml")).is_none());
    }
}
