//! The model card of a run.

use super::plan::Plan;
use super::state::RunState;
use crate::checkpoint::card::{block, code, head, plain};
use crate::plural::counted;

/// Markdown: what the model is, what it learned from, how it was made. `train` and `val` are how many images
/// of each split could be read.
pub(super) fn card(
    plan: &Plan,
    state: &RunState,
    [train, val]: [usize; 2],
    samples: &[super::Sample],
) -> String {
    let config = &plan.config;
    let (encoder, decoder) = (&config.model.encoder, &config.model.decoder);
    let best = match (state.best_loss, state.best_step) {
        (Some(loss), Some(step)) => format!(
            "{loss:.4} nats a token (perplexity {:.2}){} {}, on {}",
            loss.exp(),
            state.best_cider.map_or_else(String::new, |cider| format!(", CIDEr {cider:.4}")),
            match state.best_average.as_slice() {
                [] if step == 0 => "before the first step".into(),
                [] => format!("at step {step}"),
                steps => format!("of the mean of the weights after steps {}", list(steps)),
            },
            counted(val, "image")
        ),
        _ => "not validated yet".into(),
    };
    let toml = toml::to_string_pretty(config).unwrap_or_default();
    let head = plan.license.as_deref().map_or_else(String::new, head);
    let mut card = format!(
        "{head}# An image captioner made by patchword {version}\n\n\
         - Vision encoder: {encoder}.\n\
         - Text decoder: {decoder}.\n\
         - Parameters: {params:.2} M.\n\
         - Data: {data}, {train}.\n\
         {origin}- Trained for {step} of {steps} ({epoch:.1} epochs) of {batch}.\n\
         {changes}\
         - Best checkpoint: validation loss {best}.\n\n\
         Use it: `patchword caption PHOTO --model THIS_FOLDER`. It knows only what its training data shows; \
         look at what it says before you rely on it.\n",
        version = env!("CARGO_PKG_VERSION"),
        origin = origin(plan),
        changes = changes(state),
        params = plan.parameters as f64 / 1e6,
        data = code(&config.data.path.display().to_string()),
        train = counted(train, "training image"),
        step = state.step,
        steps = counted(plan.steps, "step"),
        epoch = plan.epoch(state.step),
        batch = counted(config.train.batch_size * config.train.accumulation, "image"),
    );
    if !samples.is_empty() {
        let search = plan.generate.search();
        card.push_str(&format!("\n## What it says of validation images ({search})\n\n"));
        for sample in samples {
            let name = sample.path.file_name().unwrap_or_default().to_string_lossy();
            card.push_str(&format!("- {}: {}\n", code(&name), plain(&sample.caption)));
        }
    }
    card.push_str(&format!("\n## Config\n\n{}", block("toml", &toml)));
    card
}

/// What the weights began with, and under which licence that is.
fn origin(plan: &Plan) -> String {
    let init = &plan.config.init;
    let Some(name) = init.name() else { return String::new() };
    let what = if init.model.is_some() { "" } else { "the encoder " };
    let init = format!("{what}{}", code(&name.display().to_string()));
    let license = match &plan.license {
        Some(license) => format!(": {}", plain(license)),
        None => " (no card says which)".into(),
    };
    format!("- Its weights began with {init}, whose licence holds{license}.\n")
}

/// The config below is the last one: what was different before.
fn changes(state: &RunState) -> String {
    let each = state.changes.iter().map(|change| {
        let step = change.step;
        let settings: Vec<String> = change.settings.iter().map(|setting| code(setting)).collect();
        format!("- Resumed at step {step} with other settings: {}.\n", settings.join("; "))
    });
    each.collect()
}

/// `1, 2, 3`.
fn list(steps: &[u64]) -> String {
    steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
