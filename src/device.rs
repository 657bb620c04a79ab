//! Compute devices: which adapters exist, which one is used, and why.
