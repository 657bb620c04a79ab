//! Attention: by hand, fused, masked.

use super::*;

/// One head over `d_model` = 2 whose projections are given, without biases.
fn attention_by_hand(query: [f32; 4], key_value: [f32; 8], output: [f32; 4]) -> Attention {
    let config = AttentionConfig { d_model: 2, d_memory: 2, num_heads: 1, qkv_bias: false };
    let module = Attention::new(&config, &Device::flex());
    let host = |shape: &[usize], values: &[f32]| HostTensor {
        shape: shape.to_vec(),
        values: values.to_vec(),
    };
    let weights: HostTensors = [
        ("query.weight", host(&[2, 2], &query)),
        ("key_value.weight", host(&[2, 4], &key_value)),
        ("output.weight", host(&[2, 2], &output)),
        ("output.bias", host(&[2], &[0.0, 0.0])),
    ]
    .map(|(name, tensor)| (name.to_string(), tensor))
    .into();
    apply(module, weights, Path::new("test")).unwrap()
}

#[test]
fn cross_attention_gives_what_a_hand_computes() {
    // Queries and keys are taken as they are; values are ten times the first channel and twenty
    // times the second. A row of the matrix reads one input channel.
    let module = attention_by_hand(
        [1.0, 0.0, 0.0, 1.0],
        [
            1.0, 0.0, 10.0, 0.0, //
            0.0, 1.0, 0.0, 20.0,
        ],
        [1.0, 0.0, 0.0, 1.0],
    );
    let queries = tensor(&[1.0, 0.0, 0.0, 2.0], [1, 2, 2]);
    let memory = tensor(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [1, 3, 2]);
    // Keys are (1,0), (0,1), (1,1) and values (10,0), (0,20), (10,20). Query (1,0) scores
    // (1, 0, 1)/√2, so its weights go as e^0.7071 = 2.0281, 1, 2.0281 with sum 5.0562. Query (0,2)
    // scores (0, 2, 2)/√2: 1, e^1.4142 = 4.1133, 4.1133 with sum 9.2265.
    let expected_weights = [0.401112, 0.197776, 0.401112, 0.108383, 0.445808, 0.445808];
    // 10 × (0.401112 + 0.401112), 20 × (0.197776 + 0.401112), and so on.
    let expected = [8.02224, 11.97776, 5.54192, 17.83233];
    let key_value = module.key_value(memory);
    assert_eq!(key_value.key.dims(), [1, 1, 3, 2]);
    assert_close(&values(key_value.key.clone()), &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 0.0);
    assert_close(&values(key_value.value.clone()), &[10.0, 0.0, 0.0, 20.0, 10.0, 20.0], 0.0);
    let (out, weights) =
        module.attend_with_weights(queries.clone(), key_value.clone(), &AttentionMask::None);
    assert_close(&values(weights), &expected_weights, 2e-6);
    assert_close(&values(out), &expected, 2e-5);
    let fused = module.attend(queries.clone(), key_value.clone(), &AttentionMask::None);
    assert_close(&values(fused), &expected, 2e-5);

    // With the third key hidden from the first query, (1, 0)/√2 is left: 2.0281 and 1 of 3.0281.
    let hidden = TensorData::new(vec![false, false, true, false, false, false], [1, 1, 2, 3]);
    let mask = AttentionMask::Hidden(Tensor::<4, Bool>::from_data(hidden, &Device::flex()));
    let (out, weights) = module.attend_with_weights(queries, key_value, &mask);
    assert_close(&values(weights)[..3], &[0.669761, 0.330239, 0.0], 2e-6);
    assert_close(&values(out)[..2], &[6.697615, 6.604769], 2e-5);
}

#[test]
fn heads_are_parts_of_the_width_and_each_has_its_own_weights() {
    // Two heads of width 2. With the output map the identity, the first head fills channels 0 and 1.
    let config = AttentionConfig { d_model: 4, d_memory: 4, num_heads: 2, qkv_bias: true };
    let module = Attention::new(&config, &Device::flex());
    let mut weights = parameters(&module);
    for (index, (_, weight)) in weights.iter_mut().enumerate() {
        weight.values = random(weight.values.len(), 1.0, index as u64);
    }
    let identity: Vec<f32> = (0..16).map(|at| f32::from(at % 5 == 0)).collect();
    weights.get_mut("output.weight").unwrap().values = identity;
    weights.get_mut("output.bias").unwrap().values = vec![0.0; 4];
    let module = apply(module, weights, Path::new("test")).unwrap();
    let x = tensor(&random(2 * 3 * 4, 1.0, 20), [2, 3, 4]);
    let memory = tensor(&random(2 * 5 * 4, 1.0, 21), [2, 5, 4]);
    let key_value = module.key_value(memory);
    let (out, weights) = module.attend_with_weights(x, key_value.clone(), &AttentionMask::None);
    assert_eq!((out.dims(), weights.dims()), ([2, 3, 4], [2, 2, 3, 5]));
    for row in values(weights.clone()).chunks(5) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        assert!(row.iter().all(|weight| (0.0..=1.0).contains(weight)), "{row:?}");
    }
    // The output is each head's weighted sum of its values, head by head.
    let (out, weights, value) = (values(out), values(weights), values(key_value.value));
    for image in 0..2 {
        for head in 0..2 {
            for query in 0..3 {
                for channel in 0..2 {
                    let sum: f32 = (0..5)
                        .map(|key| {
                            let weight = weights[((image * 2 + head) * 3 + query) * 5 + key];
                            weight * value[((image * 2 + head) * 5 + key) * 2 + channel]
                        })
                        .sum();
                    let found = out[(image * 3 + query) * 4 + head * 2 + channel];
                    assert!((found - sum).abs() < 1e-6, "{found} is not {sum}");
                }
            }
        }
    }
}

#[test]
fn fused_attention_equals_the_explicit_one_under_every_mask() {
    let device = Device::flex();
    let config = AttentionConfig { d_model: 16, d_memory: 12, num_heads: 4, qkv_bias: true };
    let module = Attention::new(&config, &device);
    let memory = tensor(&random(2 * 7 * 12, 2.0, 1), [2, 7, 12]);
    let key_value = module.key_value(memory);
    for seq in [1, 3, 7] {
        let x = tensor(&random(2 * seq * 16, 2.0, 2), [2, seq, 16]);
        let ragged: Vec<bool> = (0..seq * 7).map(|at| at % 7 > 1 && at % 3 == 0).collect();
        let ragged = Tensor::from_data(TensorData::new(ragged, [1, 1, seq, 7]), &device);
        let mut masks = vec![
            AttentionMask::None,
            AttentionMask::Causal,
            AttentionMask::Hidden(ragged),
            AttentionMask::causal_from(7 - seq, seq, 7, &device),
        ];
        if seq < 7 {
            masks.push(AttentionMask::causal_from(0, seq, 7, &device));
        }
        for mask in masks {
            let fused = module.attend(x.clone(), key_value.clone(), &mask);
            let (explicit, _) = module.attend_with_weights(x.clone(), key_value.clone(), &mask);
            assert_close(&values(fused), &values(explicit), 1e-5);
        }
    }
}

#[test]
fn a_causal_mask_shows_each_query_the_keys_up_to_its_own_position() {
    let device = Device::flex();
    let module = Attention::new(
        &AttentionConfig { d_model: 4, d_memory: 4, num_heads: 1, qkv_bias: true },
        &device,
    );
    let key_value = module.key_value(tensor(&random(24, 1.0, 1), [1, 6, 4]));
    let seen = |start: usize, seq: usize| -> Vec<usize> {
        let x = tensor(&random(seq * 4, 1.0, 2), [1, seq, 4]);
        let mask = AttentionMask::causal_from(start, seq, 6, &device);
        let (_, weights) = module.attend_with_weights(x, key_value.clone(), &mask);
        let weights = values(weights);
        for row in weights.chunks(6) {
            let count = row.iter().filter(|&&weight| weight > 0.0).count();
            assert!(row[..count].iter().all(|&weight| weight > 0.0), "{row:?}");
        }
        weights.chunks(6).map(|row| row.iter().filter(|&&w| w > 0.0).count()).collect()
    };
    assert_eq!(seen(0, 6), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seen(4, 2), [5, 6]);
    assert_eq!(seen(5, 1), [6]);
    assert_eq!(seen(2, 2), [3, 4]);
    assert_eq!(seen(3, 1), [4]);
}

// --- The decoder ---
