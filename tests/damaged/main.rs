//! Damaged and hostile files under a limit of memory. Apart from the other tests, as the limit is its
//! allocator's, and so the whole process's.

mod capped;
mod checkpoints;
#[path = "../it/common/mod.rs"]
mod common;
mod folders;
mod parsers;
