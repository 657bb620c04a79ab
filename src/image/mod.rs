//! Images on their way to the model: decode, orient, resize, augment, normalise. Knows no tensors.
