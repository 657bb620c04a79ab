//! The one vision encoder and the one text decoder. Knows Burn only: no paths, no strings, no images.
