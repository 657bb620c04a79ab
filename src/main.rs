//! The `patchword` binary.
fn main() {}
