//! For tests: reference data that lies beside a developer's checkout and is never committed.

use std::path::{Path, PathBuf};

/// The file or folder `path` of the folder `shared` beside the checkout, or of `PATCHWORD_SHARED`;
/// says that the test was skipped where it is absent.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PATCHWORD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let found = Some(root.join(path)).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: shared/{path} is not here");
    }
    found
}
