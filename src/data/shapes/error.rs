//! What can go wrong while scenes are written or read back.
use std::path::PathBuf;

/// An error of the shapes data set; each names the key or the path at fault.
#[derive(Debug, thiserror::Error)]
pub enum ShapesError {
    /// A setting lies outside its range.
    #[error("shapes setting `{key}` is {value}; expected {expected}")]
    Config {
        /// Name of the field of `ShapesConfig`.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// The output folder holds something that this program did not write.
    #[error(
        "{} is not empty and is not a shapes data set (found `{found}` there, and no shapes.json); \
         choose a new or an empty folder",
        path.display()
    )]
    NotOurs {
        /// The output folder.
        path: PathBuf,
        /// The first entry found in it.
        found: String,
    },
    /// A split folder of an older data set holds a file that replacing it would destroy.
    #[error(
        "{} is not a file of the shapes data set, and writing a new one would delete it; \
         move it away or choose another folder",
        path.display()
    )]
    ForeignFile {
        /// The file that does not belong.
        path: PathBuf,
    },
    /// The output path is a file.
    #[error("{} is not a folder; choose a folder to write the data set to", path.display())]
    NotAFolder {
        /// The output path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb: "write", "create", "rename".
        action: &'static str,
        /// The path it was attempted on.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An image could not be encoded.
    #[error("could not encode {} as PNG", path.display())]
    Image {
        /// The file it was meant for.
        path: PathBuf,
        /// The encoder's reason.
        source: image::ImageError,
    },
    /// A value could not be written as JSON.
    #[error("could not write {what} as JSON")]
    Encode {
        /// What was being written.
        what: &'static str,
        /// serde's reason.
        source: serde_json::Error,
    },
    /// A scene read from JSON has a missing or wrong field.
    #[error(
        "not a scene: {reason} (expected the `scene` object of a shapes metadata.jsonl row: \
         width, height, objects [{{shape, colour, size, box}}])"
    )]
    Scene {
        /// What is wrong, naming the field.
        reason: String,
    },
}
