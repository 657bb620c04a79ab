//! The `patchword` binary: see [`patchword::cli`].

/// Training frees and takes large buffers many times a step; mimalloc keeps their pages, which the
/// system's allocator hands back and has cleared each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    patchword::cli::run()
}
