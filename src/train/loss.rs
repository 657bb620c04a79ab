//! The loss of teacher forcing: cross-entropy of each next token, with label smoothing.

use burn::tensor::{Int, Tensor, activation};

/// Mean cross-entropy in nats over the rows of `logits`; with smoothing `ε` the target is
/// `(1 - ε)` on the token and `ε / vocab` on every id (Szegedy et al. 2016), without a matrix of
/// targets. `weights` sum to the number that the mean divides by: 1 for a token, 0 for padding.
///
/// # Shapes
/// `logits`: `[n, vocab]`; `targets`, `weights`: `[n]`; result: `[1]`.
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Option<Tensor<1>>,
    smoothing: f64,
) -> Tensor<1> {
    let [rows, _] = logits.dims();
    let log_probabilities = activation::log_softmax(logits, 1);
    let picked = log_probabilities.clone().gather(1, targets.reshape([rows, 1])).reshape([rows]);
    let mut loss = picked.neg();
    if smoothing > 0.0 {
        let uniform = log_probabilities.mean_dim(1).reshape([rows]).neg();
        loss = loss.mul_scalar(1.0 - smoothing) + uniform.mul_scalar(smoothing);
    }
    match weights {
        Some(weights) => (loss * weights.clone()).sum() / weights.sum(),
        None => loss.mean(),
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
