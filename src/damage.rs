//! Libraries that panic at damaged content: what they read is then an error like others, and no bug of ours.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// What `read` comes to, or `None` where it panics.
pub(crate) fn contained<T>(read: impl FnOnce() -> T) -> Option<T> {
    let before = IS_READING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_READING.set(before);
    result.ok()
}

/// Whether this thread is within [`contained`], so that its panic is nobody's to report.
pub(crate) fn is_contained() -> bool {
    IS_READING.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_known_to_be_contained() {
        assert_eq!(contained(|| 3), Some(3));
        assert!(!is_contained());
        assert_eq!(contained(is_contained), Some(true));
        let outcome: Option<u8> = contained(|| panic!("(expected by this test)"));
        assert_eq!(outcome, None);
        assert!(!is_contained());
    }
}
