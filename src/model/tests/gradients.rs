//! Gradients against finite differences, and none where a part is frozen.

use super::*;

#[test]
fn gradients_equal_finite_differences_for_every_kind_of_parameter() {
    let device = Device::flex();
    let trained = device.clone().autodiff();
    let mut tied = other();
    tied.decoder.head = HeadKind::TransformTied;
    for (config, least) in [(tiny(), 80), (other(), 80), (tied, 80)] {
        let model = shaken_by(0.4, &config, 8, &trained);
        let grads = GradientsParams::from_grads(loss(&model, &trained).backward(), &model);
        let gradients = gradients_by_name(&model, grads);
        let weights = parameters(&model);
        assert!(weights.len() >= least, "{} parameters", weights.len());
        let missing: Vec<&String> =
            weights.keys().filter(|k| !gradients.contains_key(*k)).collect();
        assert!(missing.is_empty(), "no gradient reaches {missing:?}");

        // Along a direction of length 1 the loss changes as the gradient's part in it.
        let still = shaken_by(0.4, &config, 8, &device);
        let slope = |name: &str, direction: &[f32], step: f32| -> f64 {
            let at = |step: f32| -> f64 {
                let mut weights = weights.clone();
                let moved = &mut weights.get_mut(name).unwrap().values;
                moved.iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
                let model = apply(still.clone(), weights, Path::new("test")).unwrap();
                f64::from(values(loss(&model, &device))[0])
            };
            // Five points: the error falls with the fourth power, so that steps can be large enough
            // for f32.
            let near = at(step) - at(-step);
            let far = at(2.0 * step) - at(-2.0 * step);
            (8.0 * near - far) / (12.0 * f64::from(step))
        };
        // Where the loss bends sharply a step must be short: halved until the slope stays the same.
        // Returns it with what is uncertain about it, the loss being known to about 5e-7.
        let settled = |name: &str, direction: &[f32]| -> (f64, f64) {
            let mut step = 0.04;
            let mut last = slope(name, direction, step);
            loop {
                step /= 2.0;
                let next = slope(name, direction, step);
                let noise = 5e-7 / f64::from(step);
                if (next - last).abs() <= 2e-3 * next.abs() + noise {
                    return (next, noise);
                }
                assert!(step > 5e-4, "{name}: differences say {last}, then {next}");
                last = next;
            }
        };
        for (name, gradient) in &gradients {
            let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let check = |what: &str, direction: Vec<f32>| {
                let expected: f64 = gradient
                    .iter()
                    .zip(&direction)
                    .map(|(&g, &d)| f64::from(g) * f64::from(d))
                    .sum();
                let (found, noise) = settled(name, &direction);
                let allowed = 2e-2 * expected.abs().max(found.abs()) + noise;
                assert!(
                    (found - expected).abs() <= allowed,
                    "{name}, {what}: the gradient says {expected}, differences {found}"
                );
            };
            if norm > 1e-6 {
                check("along the gradient", gradient.iter().map(|g| g / norm).collect());
            }
            let mut drawn = random(gradient.len(), 1.0, 9);
            let length = drawn.iter().map(|d| d * d).sum::<f32>().sqrt();
            drawn.iter_mut().for_each(|d| *d /= length);
            check("along a random direction", drawn);
            let largest = (0..gradient.len())
                .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
                .unwrap();
            let single = (0..gradient.len()).map(|at| f32::from(at == largest)).collect();
            check("its largest element", single);
        }
    }
}

#[test]
fn a_frozen_encoder_gets_no_gradient_and_gives_the_same_memory() {
    let device = Device::flex().autodiff();
    let config = other();
    let model = shaken(&config, 10, &device);
    let pixels = images(2, &config, &device);
    let stage = EncoderStage::States;
    let frozen = model.encode_from(model.encode_until(pixels.clone(), stage).autodiff(), stage);
    assert_close(&values(frozen.clone().inner()), &values(model.encode(pixels).inner()), 1e-5);
    let logits = model.decode(ids(&[&[1, 2, 3], &[1, 4, 5]], &device), frozen);
    let grads = GradientsParams::from_grads(logits.square().mean().backward(), &model);
    let gradients = gradients_by_name(&model, grads);
    assert!(gradients.keys().all(|name| !name.starts_with("encoder.")));
    assert!(gradients.contains_key("memory_projection.weight"));
}
