//! The loss of teacher forcing: cross-entropy of each next token, with label smoothing.

use burn::tensor::{Int, Tensor, activation};

/// Mean cross-entropy in nats over the rows; with smoothing `ε` the target is
/// `(1 - ε)` on the token and `ε / vocab` on every id (Szegedy et al. 2016), without a matrix of
/// targets. `weights` sum to the number that the mean divides by: 1 for a token, 0 for padding.
///
/// # Shapes
/// `log_probabilities`: `[n, vocab]`; `targets`, `weights`: `[n]`; result: `[1]`.
pub fn cross_entropy(
    log_probabilities: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Option<Tensor<1>>,
    smoothing: f64,
) -> Tensor<1> {
    let [rows, _] = log_probabilities.dims();
    let picked = log_probabilities.clone().gather(1, targets.reshape([rows, 1])).reshape([rows]);
    let mut loss = picked.neg();
    if smoothing > 0.0 {
        let uniform = log_probabilities.mean_dim(1).reshape([rows]).neg();
        loss = loss.mul_scalar(1.0 - smoothing) + uniform.mul_scalar(smoothing);
    }
    weighted_mean(loss, weights)
}

/// The consistency of R-Drop (Liang et al. 2021): the mean over rows of `½ (KL(p‖q) + KL(q‖p))`, in nats, of
/// the distributions that two thinned networks give. `weights` are those of [`cross_entropy`].
///
/// # Shapes
/// `first`, `second`: log-probabilities, `[n, vocab]`; `weights`: `[n]`; result: `[1]`.
pub fn consistency(first: Tensor<2>, second: Tensor<2>, weights: Option<Tensor<1>>) -> Tensor<1> {
    let [rows, _] = first.dims();
    let both = (first.clone().exp() - second.clone().exp()) * (first - second);
    let divergence = both.sum_dim(1).reshape([rows]).mul_scalar(0.5);
    weighted_mean(divergence, weights)
}

fn weighted_mean(rows: Tensor<1>, weights: Option<Tensor<1>>) -> Tensor<1> {
    match weights {
        Some(weights) => (rows * weights.clone()).sum() / weights.sum(),
        None => rows.mean(),
    }
}

/// The loss whose gradient is REINFORCE's (Williams 1992): the mean over `captions` captions of
/// `−advantage · log p(caption)`, `log p` summed over its tokens, at a temperature.
///
/// # Shapes
/// `logits`: `[n, vocab]`; `targets`, `advantages`: `[n]`; result: `[1]`.
pub fn policy_gradient(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    advantages: Tensor<1>,
    captions: usize,
    temperature: f64,
) -> Tensor<1> {
    let [rows, _] = logits.dims();
    let log_probabilities = activation::log_softmax(logits.div_scalar(temperature), 1);
    let picked = log_probabilities.gather(1, targets.reshape([rows, 1])).reshape([rows]);
    (picked * advantages).sum().neg().div_scalar(captions.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn consistency_is_the_mean_divergence_of_two_distributions() {
        let device = Device::flex();
        let value = |tensor: Tensor<1>| f64::from(tensor.into_scalar::<f32>());
        let (p, q) =
            ([[0.5f32, 0.25, 0.25], [0.1, 0.1, 0.8]], [[0.2f32, 0.2, 0.6], [0.1, 0.1, 0.8]]);
        let [first, second] =
            [p, q].map(|rows| Tensor::<2>::from_data(rows.map(|row| row.map(f32::ln)), &device));
        // KL(p‖q) = ½ ln 2.5 + ¼ ln 1.25 + ¼ ln (5/12), and the other way about; the second row is equal.
        let there = 0.5 * 2.5f64.ln() + 0.25 * 1.25f64.ln() + 0.25 * (5.0 / 12.0f64).ln();
        let back = 0.2 * 0.4f64.ln() + 0.2 * 0.8f64.ln() + 0.6 * 2.4f64.ln();
        let expected = 0.5 * (there + back);
        let all = value(consistency(first.clone(), second.clone(), None));
        assert!((all - expected / 2.0).abs() < 1e-6, "{all}, expected {}", expected / 2.0);
        let only = Tensor::from_data([1.0f32, 0.0], &device);
        let weighted = value(consistency(first, second, Some(only)));
        assert!((weighted - expected).abs() < 1e-6, "{weighted}, expected {expected}");
    }
}
