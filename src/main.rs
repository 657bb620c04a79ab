//! The `patchword` binary: see [`patchword::cli`].

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// Training frees and takes large buffers many times a step; mimalloc keeps their pages, which the
/// system's allocator hands back and has cleared each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_arena_eager_commit`: whether a gigabyte is taken from the system at once.
const EAGER_COMMIT: mi_option_t = 4;
const NO: c_long = 0;

/// `mi_option_purge_delay`: milliseconds until unused pages go back to the system, or never.
const PURGE_DELAY: mi_option_t = 15;
const NEVER: c_long = -1;

extern "C" fn set_up_allocator() {
    // What is taken at once is backed by huge pages, of which large tensors leave a tenth unused; and
    // pages unused for a second would go back, and be cleared by the kernel when they are taken again.
    // SAFETY: the options' numbers are ones that this version of mimalloc has (its enumeration is the
    // same in versions 2 and 3), and no other thread runs yet.
    unsafe {
        mi_option_set(EAGER_COMMIT, NO);
        mi_option_set(PURGE_DELAY, NEVER);
    }
}

/// Before Rust's own start, which allocates and so takes the first gigabyte.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = set_up_allocator;

fn main() -> std::process::ExitCode {
    if cfg!(not(target_os = "linux")) {
        set_up_allocator();
    }
    patchword::cli::run()
}
