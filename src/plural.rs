//! Numbers of things, as people write them.

use std::fmt::Display;

/// `1 image`, `2 images`, for a noun whose plural ends in s.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    format!("{number} {}", plural(&number, noun))
}

/// `image` or `images`, to stand after `number`.
pub(crate) fn plural<N: PartialEq + From<u8>>(number: &N, noun: &str) -> String {
    if *number == N::from(1) { noun.into() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(0usize, "layer"), "0 layers");
        assert_eq!(counted(1u64, "layer"), "1 layer");
        assert_eq!(counted(21u32, "layer"), "21 layers");
    }
}
