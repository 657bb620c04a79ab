//! Which region each word came from: attention traces as JSON and as a picture.
pub mod colour;
pub mod sheet;
