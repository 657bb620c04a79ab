//! What to type instead of a flag that there is not: words of other programs, flags of other commands,
//! keys of a training config.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::escape::visible;
use crate::train::known_setting;

/// A wrong flag with what to do, for some commands or (an empty list) for all.
type Tip = (&'static [&'static str], &'static [&'static str], &'static str);

const TIPS: &[Tip] = &[
    (
        &["caption"],
        &["output", "out", "o", "output-file", "save"],
        "captions go to stdout: end the command with > captions.tsv, or with --format jsonl > captions.jsonl",
    ),
    (&["caption"], &["json", "jsonl"], "--format jsonl prints a JSON object for each caption"),
    (
        &["caption", "inspect"],
        &["input", "image", "images", "dir", "folder", "path"],
        "images and folders are named without a flag: patchword caption PHOTOS",
    ),
    (
        &["caption"],
        &["recursive", "r", "R"],
        "a folder is read with everything below it, without a flag",
    ),
    (
        &["caption"],
        &["num-return-sequences", "n"],
        "--num-captions N writes several captions for an image",
    ),
    (
        &["caption", "evaluate", "inspect"],
        &["max-length", "max-tokens", "max-new-token", "length"],
        "--max-new-tokens N is the longest caption, in tokens",
    ),
    (
        &["caption", "evaluate", "inspect"],
        &["beams", "beam", "beam-size", "beam-width", "b"],
        "--num-beams N searches with N beams",
    ),
    (
        &["caption", "evaluate", "inspect"],
        &["sample", "sampling"],
        "--do-sample draws captions, with --temperature, --top-k and --top-p",
    ),
    (&["inspect"], &["output", "o", "output-dir", "save"], "--out FOLDER is where inspect writes"),
    (
        &["inspect"],
        &["caption", "sentence", "prompt"],
        "--text CAPTION shows a caption of your own",
    ),
    (
        &["train", "model"],
        &["out", "o", "output-dir", "save", "save-dir"],
        "--output FOLDER is where it writes",
    ),
    (
        &["evaluate"],
        &["output", "out", "o", "output-dir"],
        "--json prints the scores for > scores.json; --html FILE writes a page, --captions FILE the captions",
    ),
    (
        &["score"],
        &["output", "out", "o"],
        "--json prints the scores for > scores.json; --per-image FILE writes those of each image",
    ),
    (
        &["score"],
        &["refs", "ref", "gt", "ground-truth", "annotations"],
        "--references FILE is what people wrote",
    ),
    (
        &["score"],
        &["preds", "pred", "hyp", "hypotheses", "results", "captions"],
        "--predictions FILE holds the captions to score",
    ),
    (
        &["train"],
        &["caption-extension", "caption-ext", "caption-file", "captions"],
        "captions beside the photos (photo.txt or photo.caption) are found without a flag; `patchword data check FOLDER` says what is read",
    ),
    (
        &["train"],
        &["train-data-dir", "dataset", "dataset-dir", "data-dir", "images", "folder"],
        "--data FOLDER is the data set",
    ),
    (
        &["train"],
        &["config", "c", "config-file"],
        "the config is named without a flag: patchword train CONFIG.toml",
    ),
    (
        &["train"],
        &["model", "pretrained", "init", "from"],
        "--set init=MODEL is what training starts from",
    ),
    (
        &["train"],
        &["continue", "resume-from", "resume-from-checkpoint"],
        "--resume goes on with the run in --output",
    ),
    (&["evaluate"], &["dataset", "dataset-dir", "data-dir"], "--data FOLDER is the data set"),
    (
        &[],
        &[
            "checkpoint",
            "ckpt",
            "weights",
            "model-path",
            "model-name",
            "pretrained-model-name-or-path",
        ],
        "--model MODEL is a checkpoint's folder, or the id of a public model, owner/name",
    ),
    (
        &[],
        &["gpu", "cuda", "use-gpu"],
        "--device auto takes a GPU where there is one; `patchword devices` lists them",
    ),
    (&[], &["cpu", "no-gpu", "no-cuda"], "--device flex computes on the CPU"),
    (&[], &["silent", "no-progress"], "--quiet prints errors and warnings only"),
    (&[], &["debug"], "-v prints more, -vv the most"),
];

/// Puts what was meant into the error for a flag that there is not; `command` is the first word of the
/// command line.
pub(super) fn add_tip(error: &mut clap::Error, command: &str) {
    // A shell puts names of files among the arguments, and these may hold anything.
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand]
    {
        if let Some(ContextValue::String(said)) = error.get(kind) {
            let said = visible(said);
            error.insert(kind, ContextValue::String(said));
        }
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return };
    let Some(tip) = tip(command, flag) else { return };
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
}

fn tip(command: &str, flag: &str) -> Option<String> {
    let name = flag.trim_start_matches('-').replace('_', "-").to_lowercase();
    let name = name.split('=').next().unwrap_or_default();
    let known = TIPS.iter().find(|(commands, names, _)| {
        (commands.is_empty() || commands.contains(&command)) && names.contains(&name)
    });
    if let Some((_, _, tip)) = known {
        return Some((*tip).to_owned());
    }
    if command != "train" {
        return None;
    }
    let key = match name {
        "lr" => "learning_rate".to_owned(),
        "seed" | "epochs" | "batch-size" => name.replace('-', "_"),
        "num-epochs" | "num-train-epochs" | "max-train-epochs" => "epochs".into(),
        "train-batch-size" | "per-device-train-batch-size" | "bs" => "batch_size".into(),
        "max-train-steps" => "max_steps".into(),
        _ => name.replace('-', "_"),
    };
    Some(format!("--set {}=VALUE sets a key of the config", known_setting(&key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_flags_bring_what_was_meant() {
        for (command, flag, expected) in [
            ("train", "--caption-extension", "beside the photos"),
            ("train", "--caption_extension", "beside the photos"),
            ("train", "--lr", "--set schedule.learning_rate=VALUE"),
            ("train", "--learning-rate", "--set schedule.learning_rate=VALUE"),
            ("train", "--num_train_epochs", "--set train.epochs=VALUE"),
            ("train", "--max_train_steps", "--set train.max_steps=VALUE"),
            ("train", "--batch-size", "batch_size=VALUE"),
            ("caption", "--output", "> captions.tsv"),
            ("inspect", "--output", "--out FOLDER"),
            ("model", "--out", "--output FOLDER"),
            ("caption", "--checkpoint", "--model MODEL"),
            ("bench", "--gpu", "--device auto"),
        ] {
            let tip = tip(command, flag).unwrap_or_default();
            assert!(tip.contains(expected), "{command} {flag}: {tip}");
        }
        assert_eq!(tip("caption", "--learning-rate"), None);
        assert_eq!(tip("train", "--nonsense"), None);
    }
}
