//! What a model card says of where the weights come from.

use std::fs;
use std::path::Path;

use crate::common::*;

const LICENSE: &str = "own licence 7: research only";

fn card(folder: &Path) -> String {
    fs::read_to_string(folder.join("README.md")).unwrap()
}

/// What `model info` says in a row.
fn row(model: &Path, label: &str) -> String {
    let ended = run(patchword().args(["model", "info"]).arg(model));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let row = ended.stdout.lines().find_map(|line| line.strip_prefix(label));
    row.unwrap_or_default().trim().to_owned()
}

#[test]
fn the_licence_of_what_the_weights_began_with_is_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    train_tiny(folder.path(), 24, 2);
    // Random weights began with nobody's.
    assert!(!card(&at("run/best")).contains("licence"), "{}", card(&at("run/best")));
    assert_eq!(row(&at("run"), "licence"), "the card does not say");
    let licensed = at("licensed");
    copy_folder(&at("run/best"), &licensed);
    let head = format!("---\nlicense: other\nlicense_name: \"{LICENSE}\"\n---\n");
    fs::write(licensed.join("README.md"), format!("{head}# A model\n")).unwrap();

    let train = |name: &str, init: &str, extra: &[&str]| {
        let mut config = tiny_config(&at("shapes"), &at(name));
        for section in ["image", "tokenizer", "model"] {
            config.remove(section);
        }
        set(&mut config, "init", at(init).to_str().unwrap());
        set(&mut config, "train.max_steps", if extra.is_empty() { 2 } else { 4 });
        let file = at("tune.toml");
        write_config(&file, &config);
        let ended = run(patchword().arg("train").arg(&file).args(extra));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    };
    // From a model, and from what was made of it.
    train("first", "licensed", &[]);
    train("second", "first", &[]);
    for (name, init) in [("first", "licensed"), ("second", "first")] {
        let card = card(&at(name).join("last"));
        let origin =
            format!("began with `{}`, whose licence holds: {LICENSE}.", at(init).display());
        assert!(card.contains(&origin), "{card}");
        assert_eq!(row(&at(name), "licence"), LICENSE);
    }

    // A run goes on from where it began, whatever the config says now.
    let ended = train("first", "run", &["--resume"]);
    let (now, then) = (at("run").display().to_string(), at("licensed").display().to_string());
    let warning = format!("warning: init is `{now}`, but the run began with `{then}`");
    assert_eq!(ended.lines(&warning).len(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("resumed with another setting: init"), "{}", ended.stderr);
    let resumed = card(&at("first/last"));
    assert!(resumed.contains(&format!("began with `{then}`")), "{resumed}");
    assert!(!resumed.contains(&format!("{now}\"")), "{resumed}");
    assert!(resumed.contains(LICENSE) && resumed.contains("for 4 of 4 steps"), "{resumed}");
    let again = train("first", "licensed", &["--resume"]);
    assert_eq!(again.lines("warning: init"), Vec::<&str>::new(), "{}", again.stderr);

    // The mean of such weights is under that licence too.
    let mut average = patchword();
    average.args(["model", "average"]).args([at("first/best"), at("first/last")]);
    let ended = run(average.arg("--output").arg(at("mean")));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(row(&at("mean"), "licence"), LICENSE);
    assert!(card(&at("mean")).contains("# The mean of the weights of 2"));
}
