//! The training loop: loss, optimizer, schedule, exact resume, reports.
pub mod curve;
