//! Ctrl-C and SIGTERM: asked for once, save and stop; asked for twice, stop at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on signals are noted instead of ending the process; a second one ends it.
pub(super) fn listen() {
    // The handler can be set once a process; a second call changes nothing.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
}

/// Whether a stop was asked for.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
