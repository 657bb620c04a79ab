//! Configs: what builds, what does not, and what files say.

use super::*;

#[test]
fn every_kind_of_config_builds_and_has_the_right_shapes() {
    type Change = fn(&mut CaptionerConfig);
    let changes: [(&str, Change); 20] = [
        ("plain", |_| {}),
        ("stem", |c| c.encoder.patches = PatchSource::Stem(vec![4, 6])),
        ("hybrid", hybrid),
        ("hybrid without layers", |c| {
            hybrid(c);
            c.encoder.num_layers = 0;
        }),
        ("no patch bias", |c| c.encoder.patch_bias = false),
        ("norm before the encoder", |c| c.encoder.embedding_norm = true),
        ("layer scale", |c| c.encoder.layer_scale = true),
        ("quick GELU", |c| c.encoder.activation = Activation::QuickGelu),
        ("post-norm", |c| {
            c.decoder.norm = NormPlacement::Post;
            c.decoder.final_norm = false;
        }),
        ("embedding norm", |c| c.decoder.embedding_norm = true),
        ("transform head", |c| c.decoder.head = HeadKind::TransformTied),
        ("untied transform head with bias", |c| {
            c.decoder.head = HeadKind::TransformUntied;
            c.decoder.head_bias = true;
        }),
        ("untied", |c| c.decoder.head = HeadKind::Untied),
        ("class token", |c| c.encoder.prefix_tokens = 1),
        ("class and distillation tokens", |c| c.encoder.prefix_tokens = 2),
        ("sin-cos", |c| c.encoder.positions = PatchPositions::SinCos),
        ("class token and sin-cos", |c| {
            c.encoder.prefix_tokens = 1;
            c.encoder.positions = PatchPositions::SinCos;
        }),
        ("memory projection", |c| c.decoder.memory_projection = true),
        ("position offset", |c| c.decoder.position_offset = 2),
        ("relu, no biases, no final norms", |c| {
            c.encoder.activation = Activation::Relu;
            c.decoder.activation = Activation::Relu;
            c.encoder.qkv_bias = false;
            c.encoder.final_norm = false;
            c.decoder.final_norm = false;
        }),
    ];
    let device = Device::flex();
    let mut seen = BTreeMap::new();
    for (name, change) in changes {
        let mut config = tiny();
        change(&mut config);
        let model = shaken(&config, 11, &device);
        let patches = 6 + config.encoder.num_prefix();
        let memory = model.encode(images(2, &config, &device));
        assert_eq!(memory.dims(), [2, patches, config.memory_width()], "{name}");
        let captions = ids(&[&[1, 2, 3], &[1, 4, 5], &[1, 6, 7], &[1, 8, 9]], &device);
        let mut trace = AttentionTrace::new();
        let logits = model.decode_with_trace(captions.clone(), memory.clone(), &mut trace);
        assert_eq!(logits.dims(), [4, 3, VOCAB], "{name}");
        assert_close(&values(logits.clone()), &values(model.decode(captions, memory)), 1e-5);
        assert_eq!((trace.self_attention.len(), trace.cross_attention.len()), (2, 2), "{name}");
        for weights in trace.self_attention.into_iter().map(|layer| layer.weights) {
            assert_eq!(weights.dims(), [4, 2, 3, 3], "{name}");
            assert_close(&values(weights.sum_dim(3)), &[1.0; 24], 1e-5);
        }
        for weights in trace.cross_attention.into_iter().map(|layer| layer.weights) {
            assert_eq!(weights.dims(), [4, 2, 3, patches], "{name}");
            assert_close(&values(weights.sum_dim(3)), &[1.0; 24], 1e-5);
        }
        let logits = values(logits);
        assert!(logits.iter().all(|x| x.is_finite()), "{name}");
        let same = seen.insert(bits(&logits), name);
        assert_eq!(same, None, "{name} computes what another config computes");
    }
}

#[test]
fn a_config_that_cannot_be_built_names_its_key() {
    type Change = fn(&mut CaptionerConfig);
    let changes: [(&str, Change); 15] = [
        ("encoder.stem", |c| c.encoder.patches = PatchSource::Stem(vec![4, 4, 4])),
        ("encoder.patch_size", |c| {
            c.encoder.patches = PatchSource::MobileNetV2 { width: 1.0 };
        }),
        ("encoder.backbone_width", |c| {
            c.encoder.patches = PatchSource::MobileNetV2 { width: f64::NAN };
        }),
        ("encoder.patch_size", |c| c.encoder.patch_size = 0),
        ("encoder.image_width", |c| c.encoder.image_width = 13),
        ("encoder.image_height", |c| c.encoder.image_height = 0),
        ("encoder.num_heads", |c| c.encoder.num_heads = 5),
        ("encoder.num_layers", |c| c.encoder.num_layers = 0),
        ("encoder.dropout", |c| c.encoder.dropout = 1.0),
        ("encoder.drop_path", |c| c.encoder.drop_path = f64::NAN),
        ("encoder.d_model", |c| {
            c.encoder.d_model = 6;
            c.encoder.positions = PatchPositions::SinCos;
        }),
        ("decoder.vocab_size", |c| c.decoder.vocab_size = 0),
        ("decoder.max_positions", |c| c.decoder.max_positions = 1),
        ("decoder.num_heads", |c| c.decoder.num_heads = 0),
        ("decoder.layer_norm_epsilon", |c| c.decoder.layer_norm_epsilon = f64::NAN),
    ];
    for (key, change) in changes {
        let mut config = tiny();
        change(&mut config);
        let error = Captioner::new(&config, &Device::flex()).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}

#[test]
fn configs_of_before_backbones_and_layer_scale_still_load() {
    let old = r#"{
        "image_height": 224, "image_width": 224, "patch_size": 16, "stem": [], "d_model": 384,
        "num_layers": 6, "num_heads": 6, "d_ff": 1536, "class_token": false, "final_norm": true,
        "qkv_bias": true, "activation": "gelu", "layer_norm_epsilon": 1e-6, "positions": "learned",
        "position_temperature": 10000.0, "dropout": 0.0, "drop_path": 0.0
    }"#;
    assert_eq!(serde_json::from_str::<EncoderConfig>(old).unwrap(), EncoderConfig::default());
    // And what is written can be read, with a backbone and without.
    let mut config = CaptionerConfig::default();
    for change in [|_: &mut CaptionerConfig| (), hybrid] {
        change(&mut config);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<CaptionerConfig>(&json).unwrap(), config);
        let toml = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<CaptionerConfig>(&toml).unwrap(), config);
    }
}

#[test]
fn prefix_tokens_are_a_count_and_were_a_flag() {
    let read = |text: &str| serde_json::from_str::<EncoderConfig>(text).map(|c| c.prefix_tokens);
    assert_eq!(read("{}").unwrap(), 0);
    assert_eq!(read(r#"{"prefix_tokens": 2}"#).unwrap(), 2);
    assert_eq!(read(r#"{"class_token": true}"#).unwrap(), 1);
    assert_eq!(read(r#"{"class_token": false}"#).unwrap(), 0);
    assert!(read(r#"{"class_token": "yes"}"#).is_err());
    assert!(read(r#"{"prefix_tokens": -1}"#).is_err());
    let mut config = tiny();
    config.encoder.prefix_tokens = 1000;
    assert_eq!(config.validate().unwrap_err().key, "encoder.prefix_tokens");
    let text = toml::from_str::<EncoderConfig>("class_token = true").unwrap();
    assert_eq!(text.prefix_tokens, 1);
}

#[test]
fn a_file_says_by_three_keys_what_patches_are_cut_from() {
    let read = |text: &str| serde_json::from_str::<EncoderConfig>(text).map(|c| c.patches);
    assert_eq!(read(r#"{"stem": [], "backbone": null}"#).unwrap(), PatchSource::Image);
    let stem = PatchSource::Stem(vec![4, 8]);
    assert_eq!(read(r#"{"stem": [4, 8]}"#).unwrap(), stem);
    let hybrid = PatchSource::MobileNetV2 { width: 0.5 };
    assert_eq!(read(r#"{"backbone": "mobilenet_v2", "backbone_width": 0.5}"#).unwrap(), hybrid);
    let error = read(r#"{"backbone": "mobilenet_v2", "stem": [4]}"#).unwrap_err().to_string();
    assert!(error.contains("`encoder.stem`: expected none before a backbone"), "{error}");
    for patches in [PatchSource::Image, stem, hybrid] {
        let config = EncoderConfig { patches, ..EncoderConfig::default() };
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""backbone_width":"#), "{text}");
        assert_eq!(serde_json::from_str::<EncoderConfig>(&text).unwrap(), config);
    }
}
