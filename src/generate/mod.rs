//! Decoding strategies over a step function. Knows token ids only.
