//! Ctrl-C and SIGTERM: asked for once, save and stop; asked for twice, stop at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::console::Console;
use super::error::EXIT_INTERRUPTED;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on signals are noted instead of ending the process; a second one ends it.
pub(super) fn listen(console: &Console) {
    listen_and_say(
        console,
        "stopping: this step is finished and saved first; Ctrl-C again stops at once, without saving",
    );
}

/// The same, with what the user is told at the first signal.
pub(super) fn listen_and_say(console: &Console, text: &'static str) {
    let console = console.clone();
    // The handler can be set once a process; a second call changes nothing.
    let _ = ctrlc::set_handler(move || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
        // A terminal has written `^C` behind the bar.
        let fresh = if console.is_terminal() { "\n" } else { "" };
        console.note(format_args!("{fresh}{text}"));
    });
}

/// Whether a stop was asked for.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
