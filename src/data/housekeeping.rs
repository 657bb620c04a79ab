//! Files and folders that lie among photos and are none: what systems, file servers, viewers and
//! editors keep beside them, and what other trainers leave. Judges by names alone and opens nothing.
use std::ffi::OsStr;
use std::path::{Component, Path};

/// Whole names, in lower case, of files that systems and viewers keep.
const FILES: [&str; 9] = [
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "picasa.ini",
    "zbthumbnail.info",
    "pspbrwse.jbf",
    "acdsee.db",
];

/// Whole names, in lower case, of folders whose content is nobody's data.
const FOLDERS: [&str; 30] = [
    "__macosx",
    "$recycle.bin",
    "recycler",
    "recycled",
    "recycle.bin",
    "system volume information",
    "lost+found",
    "network trash folder",
    "temporary items",
    "@eadir",
    "@recycle",
    "@recycled",
    "@recently-snapshot",
    "@tmp",
    "@sharebin",
    "@sharesnap",
    "@__thumb",
    "@synoeastream",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "lightroom backups",
    "thumbnails.lrdata",
    "__pycache__",
    "node_modules",
    "site-packages",
    "found.000",
    "aquota",
    "timeline thumbnails",
    "$extend",
];

/// Endings, in lower case, of the names of folders that viewers keep previews in.
const FOLDER_ENDINGS: [&str; 3] = [".lrdata", ".lrcat-data", ".cocatalogdb"];

/// Endings, in lower case, of the names of files that are not finished or not meant.
const FILE_ENDINGS: [&str; 10] = [
    ".part",
    ".partial",
    ".crdownload",
    ".download",
    ".tmp",
    ".temp",
    ".swp",
    ".swo",
    ".lock",
    "~",
];

/// Whether a file or folder of this name is housekeeping: hidden (a dot in front, as also AppleDouble's
/// `._photo.jpg`, `.git`, `.cache`, `.Trash-1000` and `.ipynb_checkpoints`), or kept by a system, a file
/// server, a viewer or a program that has not finished with it. Whoever lists photos leaves it out, and of
/// a folder all that is in it.
///
/// ```
/// use patchword::data::is_housekeeping;
///
/// assert!(is_housekeeping("._photo.jpg".as_ref(), false));
/// assert!(is_housekeeping("@eaDir".as_ref(), true));
/// assert!(!is_housekeeping("photo.jpg".as_ref(), false));
/// ```
pub fn is_housekeeping(name: &OsStr, is_folder: bool) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    if name.starts_with('.') || name.starts_with("~$") {
        return true;
    }
    if is_folder {
        FOLDERS.contains(&name.as_str())
            || FOLDER_ENDINGS.iter().any(|ending| name.ends_with(ending))
    } else {
        FILES.contains(&name.as_str())
            || name.starts_with("~syncthing~")
            || FILE_ENDINGS.iter().any(|ending| name.ends_with(ending))
    }
}

/// Whether some part of `path` below its first `skip` parts is [housekeeping](is_housekeeping).
pub(super) fn is_below_housekeeping(path: &Path, is_folder: bool) -> bool {
    // `./photo.jpg`, as tar writes it, is no dot file.
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if is_housekeeping(part.as_os_str(), parts.peek().is_some() || is_folder) {
            return true;
        }
    }
    false
}

/// What another trainer has left in a folder of photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leftover {
    /// An image that says where to look in another: `01-masklabel.png`, `masks/01.png`.
    Mask,
    /// An image that another is to be drawn after: `01-condlabel.png`, `01_depth.png`, `canny/01.png`.
    Condition,
    /// What a trainer computed once: latents and text embeddings.
    Cache,
    /// Sentences to try a model on, notes and lists of words.
    Prompts,
    /// Settings and logs of a run.
    Settings,
}

impl Leftover {
    /// What it is, in the plural.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Mask => "masks of another trainer",
            Self::Condition => "images that condition another trainer",
            Self::Cache => "caches of another trainer",
            Self::Prompts => "prompts and notes",
            Self::Settings => "settings and logs of another program",
        }
    }
}

/// Ends of stems that make an image a mask beside the photo of the bare stem.
const MASK_ENDINGS: [&str; 9] = [
    "-masklabel",
    "_masklabel",
    "-mask",
    "_mask",
    ".mask",
    "_matte",
    "-matte",
    "_alpha",
    "_segmentation",
];

/// Ends of stems that make an image a condition beside the photo of the bare stem.
const CONDITION_ENDINGS: [&str; 21] = [
    "-condlabel",
    "_condlabel",
    "_depth",
    "-depth",
    "_canny",
    "-canny",
    "_openpose",
    "-openpose",
    "_pose",
    "_normal",
    "_lineart",
    "_scribble",
    "_hed",
    "_mlsd",
    "_seg",
    "_softedge",
    "_control",
    "-control",
    "_cond",
    "_conditioning",
    "_conditioning_image",
];

/// Folders of masks.
const MASK_FOLDERS: [&str; 6] = ["mask", "masks", "mask_images", "image_masks", "matte", "mattes"];

/// Folders of images that photos are drawn after.
const CONDITION_FOLDERS: [&str; 17] = [
    "condition",
    "conditions",
    "conditioning",
    "conditioning_images",
    "conditioning_image",
    "cond",
    "control",
    "controls",
    "control_images",
    "controlnet",
    "depth",
    "canny",
    "openpose",
    "lineart",
    "scribble",
    "normal",
    "softedge",
];

/// What an image without a caption of its own is, if its name says so. `has_photo` tells whether there is an
/// image of the stem that is left when the ending is cut off, in the same folder; images in a folder of masks
/// or conditions need none.
pub(super) fn leftover_image(
    relative: &Path,
    has_photo: impl Fn(&str) -> bool,
) -> Option<Leftover> {
    let stem = relative.file_stem()?.to_string_lossy();
    let lowered = stem.to_lowercase();
    let kinds = [
        (Leftover::Mask, MASK_ENDINGS.as_slice()),
        (Leftover::Condition, CONDITION_ENDINGS.as_slice()),
    ];
    for (kind, endings) in kinds {
        let ending = endings.iter().find(|ending| lowered.ends_with(*ending));
        let bare = ending.and_then(|ending| stem.get(..stem.len().checked_sub(ending.len())?));
        if bare.is_some_and(|bare| !bare.is_empty() && has_photo(bare)) {
            return Some(kind);
        }
    }
    let folders = relative.parent().map(Path::components).into_iter().flatten();
    folders.into_iter().find_map(|folder| {
        let folder = folder.as_os_str().to_string_lossy().to_lowercase();
        let is_in = |names: &[&str]| names.contains(&folder.as_str());
        if is_in(&MASK_FOLDERS) {
            Some(Leftover::Mask)
        } else if is_in(&CONDITION_FOLDERS) {
            Some(Leftover::Condition)
        } else {
            None
        }
    })
}

/// Whether an image's name is one that only OneTrainer gives, and never to a photo.
pub(super) fn is_label_image(path: &Path) -> bool {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
    stem.is_some_and(|stem| stem.ends_with("-masklabel") || stem.ends_with("-condlabel"))
}

/// Extensions of what trainers compute once.
const CACHES: [&str; 9] =
    ["npz", "npy", "safetensors", "pt", "pth", "ckpt", "latent", "latents", "pkl"];

/// Extensions of settings and logs.
const SETTINGS: [&str; 8] = ["toml", "yaml", "yml", "ini", "cfg", "log", "tfevents", "lock"];

/// Stems, in lower case, of texts that are no captions. A `*` stands for anything.
const TEXTS: [&str; 24] = [
    "sample_prompts",
    "sample_prompt",
    "sampleprompts",
    "samples",
    "prompts",
    "prompt",
    "*_prompts",
    "negative_prompt*",
    "neg_prompt*",
    "notes",
    "note",
    "todo",
    "wildcard*",
    "tags",
    "taglist",
    "triggers",
    "trigger",
    "trigger_words",
    "blacklist",
    "instance_prompt",
    "class_prompt",
    "validation_prompt*",
    "system_prompt*",
    "captioning_prompt",
];

/// What a file that is neither image nor caption is, if its name says so.
pub(super) fn leftover_file(path: &Path) -> Option<Leftover> {
    let stem = path.file_stem()?.to_string_lossy().to_lowercase();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let extension = extension.unwrap_or_default();
    if CACHES.contains(&extension.as_str()) {
        return Some(Leftover::Cache);
    }
    if SETTINGS.contains(&extension.as_str()) || stem.starts_with("events.out.tfevents") {
        return Some(Leftover::Settings);
    }
    let is_named =
        TEXTS.iter().any(|text| match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(end), _) => stem.ends_with(end),
            (_, Some(beginning)) => stem.starts_with(beginning),
            _ => stem == *text,
        });
    (extension == "txt" && is_named).then_some(Leftover::Prompts)
}

/// How often kohya's trainers read the images of a folder named `10_name`, if it is named so.
pub(super) fn kohya_repeats(folder: &str) -> Option<u32> {
    let (number, name) = folder.split_once('_')?;
    let number: u32 = number.parse().ok()?;
    (number > 0 && number < 1000 && name.starts_with(|first: char| !first.is_ascii_digit()))
        .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_keep_is_known_by_name_in_any_case() {
        for name in [
            ".DS_Store",
            "._a.jpg",
            "Thumbs.db",
            "THUMBS.DB",
            "ehthumbs.db",
            "desktop.ini",
            ".hidden.png",
            "a.jpg.part",
            "a.jpg.crdownload",
            "~$list.csv",
            "a.txt~",
            "~syncthing~a.jpg.tmp",
            "Icon\r",
            ".nfs0001",
            ".picasa.ini",
        ] {
            assert!(is_housekeeping(name.as_ref(), false), "{name:?}");
        }
        for name in [
            "@eaDir",
            "@EADIR",
            ".Trash-1000",
            ".Trashes",
            "$RECYCLE.BIN",
            "#recycle",
            "lost+found",
            ".ipynb_checkpoints",
            "__MACOSX",
            ".thumbnails",
            ".git",
            ".cache",
            ".@__thumb",
            "@Recycle",
            "System Volume Information",
            ".snapshot",
            "#snapshot",
            "Photos Previews.lrdata",
            ".stversions",
            ".picasaoriginals",
            ".AppleDouble",
            ".dropbox.cache",
            "RECYCLER",
        ] {
            assert!(is_housekeeping(name.as_ref(), true), "{name:?}");
        }
        for name in [
            "a.jpg",
            "Thumbs.jpg",
            "recycled.png",
            "@home.jpg",
            "#1.jpg",
            "lost+found.jpg",
            "a~b.png",
        ] {
            assert!(!is_housekeeping(name.as_ref(), false), "{name:?}");
        }
        for name in ["recycling", "@home", "#1", "thumbs", "trash", "masks", "2019 cache"] {
            assert!(!is_housekeeping(name.as_ref(), true), "{name:?}");
        }
        assert!(is_below_housekeeping(Path::new("a/@eaDir/b.jpg"), false));
        assert!(!is_below_housekeeping(Path::new("a/b/c.jpg"), false));
        assert!(!is_below_housekeeping(Path::new("./a/../b/c.jpg"), false));
        assert!(is_below_housekeeping(Path::new("./.thumbs/c.jpg"), false));
    }

    #[test]
    fn what_other_trainers_leave_is_known_beside_a_photo() {
        let image =
            |path: &str| leftover_image(Path::new(path), |bare| bare == "01" || bare == "a.b");
        assert_eq!(image("01-masklabel.png"), Some(Leftover::Mask));
        assert_eq!(image("01_Mask.png"), Some(Leftover::Mask));
        assert_eq!(image("a.b-mask.png"), Some(Leftover::Mask));
        assert_eq!(image("01-condlabel.png"), Some(Leftover::Condition));
        assert_eq!(image("01_depth.png"), Some(Leftover::Condition));
        assert_eq!(image("masks/07.png"), Some(Leftover::Mask));
        assert_eq!(image("train/Conditioning_Images/07.png"), Some(Leftover::Condition));
        // A photo of a mask, and a photo whose name only ends so.
        assert_eq!(image("gas_mask.png"), None);
        assert_eq!(image("02_depth.png"), None);
        assert_eq!(image("01.png"), None);
        let file = |path: &str| leftover_file(Path::new(path));
        assert_eq!(file("01.npz"), Some(Leftover::Cache));
        assert_eq!(file("01_sdxl_te.safetensors"), Some(Leftover::Cache));
        assert_eq!(file("sample_prompts.txt"), Some(Leftover::Prompts));
        assert_eq!(file("negative_prompt.txt"), Some(Leftover::Prompts));
        assert_eq!(file("dataset.toml"), Some(Leftover::Settings));
        assert_eq!(file("01.txt"), None);
        assert!(is_label_image(Path::new("x/01-MaskLabel.png")));
        assert!(!is_label_image(Path::new("x/01-mask.png")));
        assert_eq!(
            ["10_dog", "1_a b", "2019_trip", "10_20", "dog"].map(kohya_repeats),
            [Some(10), Some(1), None, None, None]
        );
    }
}
