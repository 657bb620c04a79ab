//! Captioning as a stage: images in, captions out, in order. Knows nothing of files' formats.
