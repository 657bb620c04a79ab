//! `patchword model convert` as a user meets it.

use std::fs;
use std::path::Path;

use crate::common::*;

#[test]
fn a_run_is_converted_to_half_its_size_and_captions_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    draw_shapes(&at("shapes"), 24);
    let mut config = tiny_config(&at("shapes"), &at("run"));
    set(&mut config, "train.max_steps", 2);
    write_config(&at("config.toml"), &config);
    let ended = run(patchword().arg("train").arg(at("config.toml")));
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let convert = || {
        let mut command = patchword();
        command.args(["model", "convert"]).arg(at("run")).arg(at("half"));
        run(command.args(["--dtype", "f16"]))
    };
    let ended = convert();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let weights = at("half").join("model.safetensors");
    assert_eq!(ended.stdout, format!("{}\n", weights.display()));
    let size = |file: &Path| fs::metadata(file).unwrap().len();
    let before = size(&at("run").join("best/model.safetensors"));
    assert!(size(&weights) < before * 6 / 10, "{} {before}", size(&weights));
    assert!(!at("half").join("training").exists());

    let photo = at("photo.png");
    image::RgbImage::new(16, 16).save(&photo).unwrap();
    let ended = run(patchword().arg("caption").arg(&photo).arg("--model").arg(at("half")));
    assert_eq!(ended.code, 0, "{}", ended.stderr);

    let ended = convert();
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.stderr.contains("half: exists already"), "{}", ended.stderr);
}
