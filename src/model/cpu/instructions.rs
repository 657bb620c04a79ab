//! The vector instructions that the kernels use.

use std::sync::OnceLock;

use pulp::Arch;

/// The environment variable that names the widest instructions to use: `avx2` leaves AVX-512 alone,
/// `scalar` everything. For reports of errors, and to measure what wider ones bring.
pub const INSTRUCTIONS_VARIABLE: &str = "PATCHWORD_CPU";

/// The widest that this CPU has and [`INSTRUCTIONS_VARIABLE`] allows.
pub(super) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| {
        let most = std::env::var(INSTRUCTIONS_VARIABLE).unwrap_or_default();
        limited(most.trim())
    })
}

fn limited(most: &str) -> Arch {
    match most {
        "scalar" => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        "avx2" => match pulp::x86::V3::try_new() {
            Some(simd) => Arch::V3(simd),
            None => Arch::new(),
        },
        _ => Arch::new(),
    }
}

/// What `arch` stands for, in a word: `AVX-512`, `AVX2`, `NEON`, or `scalar`.
pub fn vector_instructions() -> &'static str {
    match arch() {
        Arch::Scalar => "scalar",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "aarch64")]
        _ => "NEON",
        #[cfg(not(target_arch = "aarch64"))]
        #[allow(unreachable_patterns, reason = "architectures differ in their variants")]
        _ => "vectors",
    }
}
