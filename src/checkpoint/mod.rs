//! Checkpoint folders: written atomically, read with every tensor accounted for.
