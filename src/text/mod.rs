//! Tokenizers and words: captions to token ids and back, word pieces merged into words. Knows no tensors.
