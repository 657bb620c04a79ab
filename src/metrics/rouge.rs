//! ROUGE-L (Lin 2004) as coco-caption computes it: the best precision and the best recall over the
//! references, taken separately, with recall weighing 1.2 times as much.

const BETA: f64 = 1.2;

/// ROUGE-L of a caption against its references, from 0 to 1; 0 where there are no references or no
/// words.
pub fn rouge_l<T: PartialEq>(caption: &[T], references: &[&[T]]) -> f64 {
    let (mut precision, mut recall) = (0.0f64, 0.0f64);
    for reference in references {
        if caption.is_empty() || reference.is_empty() {
            continue;
        }
        let common = longest_common_subsequence(caption, reference) as f64;
        precision = precision.max(common / caption.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

fn longest_common_subsequence<T: PartialEq>(left: &[T], right: &[T]) -> usize {
    // lengths[j]: of the words of `left` so far and the first j of `right`.
    let mut lengths = vec![0usize; right.len() + 1];
    for a in left {
        let mut diagonal = 0;
        for (j, b) in right.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if a == b { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    lengths.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // "a b c d" and "a x c": common "a c"; P = 2/4, R = 2/3.
        let score = rouge_l(&[1, 2, 3, 4], &[&[1, 9, 3]]);
        let expected = 2.44 * 0.5 * (2.0 / 3.0) / (2.0 / 3.0 + 1.44 * 0.5);
        assert!((score - expected).abs() < 1e-12, "{score}");
    }

    #[test]
    fn precision_and_recall_come_from_different_references() {
        // The first reference gives P = 1 (R = 2/4), the second R = 1 (P = 1/2).
        let score = rouge_l(&[1, 2], &[&[1, 2, 3, 4], &[1]]);
        assert!((score - 1.0).abs() < 1e-12, "{score}");
    }

    #[test]
    fn order_counts_and_nothing_in_common_is_zero() {
        assert_eq!(longest_common_subsequence(&[1, 2, 3], &[3, 2, 1]), 1);
        assert_eq!(rouge_l(&[1], &[&[2]]), 0.0);
        assert_eq!(rouge_l::<u32>(&[], &[&[2]]), 0.0);
    }
}
