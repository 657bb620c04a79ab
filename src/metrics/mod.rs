//! metrics
pub mod ptb;
mod ptb_rules;
