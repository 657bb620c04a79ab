//! Gradients at attention weights against finite differences of their gates.

use super::*;

const CAPTIONS: [&[u32]; 3] = [&[1, 4, 9], &[1, 2, 3], &[1, 8, 8]];

/// The sum of log-probabilities of a token each after three captions of one image.
fn target(model: &Captioner, trace: &mut AttentionTrace, device: &Device) -> Tensor<1> {
    let memory = model.encode_with_trace(images(1, model.config(), &device.clone().inner()), trace);
    let logits = model.decode_with_trace(ids(&CAPTIONS, device), memory, trace);
    let last = log_softmax(logits, 2).narrow(1, 2, 1).reshape([3, VOCAB]);
    let chosen = [5, 0, 7].map(|token| f32::from(token as u8));
    let mut mask = vec![0.0f32; 3 * VOCAB];
    chosen.iter().enumerate().for_each(|(row, &at)| mask[row * VOCAB + at as usize] = 1.0);
    (last * Tensor::from_data(TensorData::new(mask, [3, VOCAB]), device)).sum()
}

fn layers(trace: &AttentionTrace) -> Vec<&LayerAttention> {
    let decoder = trace.self_attention.iter().zip(&trace.cross_attention);
    trace.encoder.iter().chain(decoder.flat_map(|(own, cross)| [own, cross])).collect()
}

#[test]
fn gradients_at_weights_equal_finite_differences_in_both_halves() {
    let device = Device::flex();
    for mut config in [tiny(), other()] {
        // It must be off, or no two passes are alike.
        config.decoder.dropout = 0.3;
        let still = shaken(&config, 5, &device);
        let model = still.with_gated_gradients();
        let autodiff = device.clone().autodiff();
        let quiet = silence_noise();
        let mut trace = AttentionTrace::gated();
        let gradients = target(&model, &mut trace, &autodiff).backward();
        let seen = layers(&trace);
        assert_eq!(seen.len(), config.encoder.num_layers + 2 * config.decoder.num_layers);

        let value = |at: usize, direction: &Tensor<4>, step: f32| -> f32 {
            let gates = seen.iter().enumerate().map(|(index, layer)| {
                // As they were multiplied: an image's captions in one row of cross-attention.
                let [rows, heads, queries, keys] = layer.weights.dims();
                let is_cross = index >= config.encoder.num_layers
                    && (index - config.encoder.num_layers) % 2 == 1;
                let ones = Tensor::ones([rows, heads, queries, keys], &device);
                let gate =
                    if index == at { ones + direction.clone().mul_scalar(step) } else { ones };
                match is_cross {
                    true => gate.swap_dims(0, 1).reshape([1, heads, rows * queries, keys]),
                    false => gate,
                }
            });
            let mut trace = AttentionTrace::through(gates.collect());
            values(target(&still, &mut trace, &device))[0]
        };
        for (at, layer) in seen.iter().enumerate() {
            let found = layer.weighted_gradient(&gradients).expect("a gradient");
            let norm = values(found.clone().square().sum())[0].sqrt();
            assert!(norm > 1e-4, "layer {at} has no part in it");
            let direction = found.clone().div_scalar(norm);
            let slope = (value(at, &direction, 2e-2) - value(at, &direction, -2e-2)) / 4e-2;
            assert!((slope - norm).abs() < 2e-2 * norm + 2e-5, "layer {at}: {slope}, {norm}");
            // The gradient at a weight is that of its gate over the weight.
            let product = layer.gradient(&gradients).unwrap() * layer.weights.clone().inner();
            assert_close(&values(product), &values(found), 1e-6);
        }
        drop(quiet);
    }
}

#[test]
fn a_trace_changes_nothing() {
    let device = Device::flex();
    let model = shaken(&other(), 5, &device);
    let pixels = images(2, model.config(), &device);
    let mut trace = AttentionTrace::new();
    let traced = model.encode_with_trace(pixels.clone(), &mut trace);
    assert_close(&values(traced), &values(model.encode(pixels)), 1e-5);
    let positions = 6 + model.config().encoder.num_prefix();
    for layer in trace.encoder {
        let [images, heads, queries, keys] = layer.weights.dims();
        assert_eq!((images, queries, keys), (2, positions, positions));
        assert_close(&values(layer.weights.sum_dim(3)), &vec![1.0; 2 * heads * queries], 1e-5);
    }
}
