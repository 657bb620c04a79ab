//! What a user sees should our own code ever panic: a short message instead of a stack trace.

use std::backtrace::Backtrace;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::EXIT_FAILED;
use crate::damage;

/// Set once the arguments are known; before that `RUST_BACKTRACE` decides.
static SHOWS_BACKTRACES: AtomicBool = AtomicBool::new(false);

/// Has every panic, on any thread, reported as a bug.
pub(super) fn install_hook() {
    let asked = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    show_backtraces(asked);
    set_hook(Box::new(|info| {
        // A library met a damaged file: the error of that file says so.
        if damage::is_contained() {
            return;
        }
        let mut report = report(info);
        if SHOWS_BACKTRACES.load(Ordering::Relaxed) {
            report.push_str(&format!("{}\n", Backtrace::force_capture()));
        }
        let _ = std::io::stderr().lock().write_all(report.as_bytes());
    }));
}

/// Adds backtraces to the reports, when `also` is true.
pub(super) fn show_backtraces(also: bool) {
    SHOWS_BACKTRACES.fetch_or(also, Ordering::Relaxed);
}

/// Runs the program; a panic, which the hook has reported by then, is an exit code like any other.
pub(super) fn guard(program: impl FnOnce() -> u8) -> u8 {
    catch_unwind(AssertUnwindSafe(program)).unwrap_or(EXIT_FAILED)
}

fn report(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(|place| format!(" ({place})")).unwrap_or_default();
    let tracker = match env!("CARGO_PKG_REPOSITORY") {
        "" => "",
        repository => &format!(" at {repository}/issues"),
    };
    format!(
        "error: internal error: {message}{place}\n\
         hint: this is a bug in patchword {}: please report it{tracker} with this message and the \
         command; `-v` adds a backtrace\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_exit_code_1() {
        assert_eq!(guard(|| 3), 3);
        assert_eq!(guard(|| panic!("(expected by this test)")), EXIT_FAILED);
    }
}
