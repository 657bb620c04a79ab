//! Git LFS pointers: the short texts that stand in place of large files in a clone that was made
//! without `git lfs`. Whoever reads a large file of others asks here first.

/// The most bytes a pointer has; the specification says less than 1024.
const MAX_LENGTH: usize = 1024;

/// How every pointer begins, in any version of the specification.
const BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";

/// How the pointers of the time before the specification begin.
const OLD_BEGINNINGS: [&[u8]; 2] =
    [b"version https://hawser.github.com/spec/", b"version http://git-media.io/v/"];

/// What a pointer is and what to do about it, to stand after the name of a file.
pub(crate) const REMEDY: &str = "a Git LFS pointer, a short text in place of the real file (expected the \
                                 file itself: run `git lfs pull` in its repository, or download it again)";

/// Whether the content of a file is a Git LFS pointer. The first 64 bytes are enough.
pub(crate) fn is_pointer(content: &[u8]) -> bool {
    content.len() <= MAX_LENGTH
        && (content.starts_with(BEGINNING)
            || OLD_BEGINNINGS.iter().any(|beginning| content.starts_with(beginning)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_known_by_its_beginning_and_its_length() {
        let pointer =
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n";
        assert!(is_pointer(pointer) && is_pointer(&pointer[..64.min(pointer.len())]));
        assert!(is_pointer(b"version https://hawser.github.com/spec/v1\n"));
        assert!(!is_pointer(b"version https://example.org/spec/v1\n"));
        assert!(!is_pointer(&[pointer.as_slice(), &[b' '; 1024]].concat()));
        assert!(!is_pointer(b""));
    }
}
