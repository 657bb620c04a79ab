//! The encoder: stages, patches, sizes, noise and starting weights.

use super::*;

#[test]
fn an_encoder_cut_at_any_stage_gives_the_same_memory() {
    use EncoderStage::{Block, Patches, Pixels, States};
    let device = Device::flex().autodiff();
    let stem = other();
    let mut of_blocks = tiny();
    hybrid(&mut of_blocks);
    let cuts = [Pixels, Block(0), Block(1), Block(4), Block(14), Block(17), Patches, States];
    for (config, cuts) in [(stem, &[Pixels, Patches, States][..]), (of_blocks, &cuts[..])] {
        let model = shaken(&config, 10, &device);
        let pixels = images(2, &config, &device);
        let whole = values(model.encode(pixels.clone()).inner());
        let mut before = usize::MAX;
        for &stage in cuts {
            let features = model.encode_until(pixels.clone(), stage);
            let [batch, a, b] = features.dims();
            assert_eq!((batch, [a, b]), (2, config.encoder.stage_shape(stage)), "{stage:?}");
            let memory = model.encode_from(features.autodiff(), stage);
            assert_close(&values(memory.clone().inner()), &whole, 1e-4);
            // What comes before the cut has no gradient, all that comes after it has.
            let logits = model.decode(ids(&[&[1, 2, 3], &[1, 4, 5]], &device), memory);
            let grads = GradientsParams::from_grads(logits.square().mean().backward(), &model);
            let learned = gradients_by_name(&model, grads).len();
            assert!(learned < before, "{stage:?}: {learned} gradients, {before} one stage earlier");
            before = learned;
        }
    }
}

// --- Every shape of model ---

#[test]
fn a_patch_reads_its_own_square_of_pixels_and_no_other() {
    // Without layers between, a patch's feature would depend on its square alone; attention mixes
    // them, so look at the keys of the first layer's input instead: with identity-free weights the
    // easiest witness is that changing a pixel changes the patch that holds it the most.
    let device = Device::flex();
    let mut config = tiny();
    config.encoder.num_layers = 1;
    let model = shaken(&config, 12, &device);
    let mut weights = parameters(&model);
    for (name, weight) in &mut weights {
        // Residual branches that give nothing: each position keeps its own patch embedding.
        if name.starts_with("encoder.layers.") && name.contains(".output.") {
            weight.values.fill(0.0);
        }
    }
    let model = apply(model, weights, Path::new("test")).unwrap();
    let [height, width] = [8, 12];
    let base = random(3 * height * width, 1.0, 13);
    let encode = |pixels: &[f32]| values(model.encode(tensor(pixels, [1, 3, height, width])));
    let before = encode(&base);
    for (row, col) in [(0, 0), (3, 3), (3, 4), (5, 11), (7, 8)] {
        let mut changed = base.clone();
        changed[(height + row) * width + col] += 0.5;
        let after = encode(&changed);
        let patch = row / 4 * 3 + col / 4;
        for (index, (a, b)) in before.chunks(12).zip(after.chunks(12)).enumerate() {
            assert_eq!(a != b, index == patch, "pixel ({row}, {col}), patch {index}");
        }
    }
}

// --- Weights and noise ---

#[test]
fn the_same_seed_gives_the_same_weights_on_every_device() {
    let config = other();
    let device = Device::flex();
    let make = |seed: u64, device: &Device| {
        parameters(&initialize(Captioner::new(&config, device).unwrap(), seed))
    };
    let first = make(1, &device);
    assert_eq!(first, make(1, &device));
    assert_eq!(first, make(1, &device.clone().autodiff()));
    assert_ne!(first, make(2, &device));
    for (name, weight) in &first {
        let expected = if name.ends_with("gamma") { Some(1.0) } else { None };
        let expected = expected.or(name.ends_with("_scale").then_some(0.1));
        let expected = expected.or((weight.shape.len() == 1).then_some(0.0));
        match expected {
            Some(constant) => assert!(weight.values.iter().all(|&x| x == constant), "{name}"),
            None => assert!(weight.values.iter().any(|&x| x != weight.values[0]), "{name}"),
        }
    }
}

#[test]
fn dropout_and_drop_path_do_nothing_without_autodiff() {
    let device = Device::flex();
    let mut noisy = tiny();
    noisy.encoder.dropout = 0.4;
    noisy.encoder.drop_path = 0.4;
    noisy.decoder.dropout = 0.4;
    let run = |config: &CaptionerConfig, device: &Device| {
        let model = shaken(config, 14, device);
        let memory = model.encode(images(2, config, device));
        let logits = model.decode(ids(&[&[1, 2, 3], &[1, 4, 5]], device), memory);
        bits(&values(if device.is_autodiff() { logits.inner() } else { logits }))
    };
    let quiet = run(&tiny(), &device);
    assert_eq!(run(&noisy, &device), quiet);
    assert_eq!(run(&noisy, &device), quiet);

    // With autodiff they do something. (That a seed repeats it is shown by tests/resume.rs: here
    // other tests draw from the device's generator too.)
    let trained = device.autodiff();
    let first = run(&noisy, &trained);
    assert_ne!(first, quiet);
    assert_ne!(first, run(&noisy, &trained));
}

#[test]
fn another_image_size_changes_the_positions_only() {
    let device = Device::flex();
    for positions in [PatchPositions::Learned, PatchPositions::SinCos] {
        let mut config = tiny();
        config.encoder.prefix_tokens = 2;
        config.encoder.positions = positions;
        let model = shaken(&config, 5, &device);
        let patch = config.encoder.patch_size;
        let mut larger = config.clone();
        larger.encoder.image_height = 5 * patch;
        larger.encoder.image_width = 3 * patch;
        let other = model.clone().with_image_size(5 * patch, 3 * patch).unwrap();
        assert_eq!(*other.config(), larger);
        let memory = other.encode(images(1, &larger, &device));
        assert_eq!(memory.dims(), [1, 2 + 15, larger.memory_width()]);
        assert!(values(memory).iter().all(|x| x.is_finite()));
        // Its parameters are those of a model built for that size, by name and shape.
        let shapes = |model: &Captioner| -> Vec<(String, Vec<usize>)> {
            let all = crate::checkpoint::tensors::parameters(model);
            all.into_iter().map(|(name, tensor)| (name, tensor.shape)).collect()
        };
        assert_eq!(shapes(&other), shapes(&Captioner::new(&larger, &device).unwrap()));
        let same = (config.encoder.image_height, config.encoder.image_width);
        let same = model.clone().with_image_size(same.0, same.1).unwrap();
        let pixels = images(2, &config, &device);
        let (a, b) = (model.encode(pixels.clone()), same.encode(pixels));
        assert_eq!(bits(&values(a)), bits(&values(b)));
        let error = model.with_image_size(patch + 1, patch).unwrap_err();
        assert_eq!(error.key, "encoder.image_height");
    }
}
