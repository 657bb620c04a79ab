//! Captioning data sets: formats, splits, checks, samplers and the loader that decodes ahead.
pub mod shapes;
