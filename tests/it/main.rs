//! The program and the library as their users meet them: one test binary, as each one links all of Burn.

mod average;
mod bench;
mod card;
mod cli;
mod common;
mod containers;
mod damaged;
mod evaluate;
mod exact;
mod export;
mod families;
mod folders;
mod gallery;
mod half;
#[cfg(unix)]
mod harm;
mod hub;
mod model_convert;
mod parity;
#[cfg(unix)]
mod relevance;
mod resume;
mod sampling;
mod score;
mod scripts;
mod scst;
mod shares;
#[cfg(feature = "shipped")]
mod shipped;
mod structure;
mod tune;
mod wgpu;
