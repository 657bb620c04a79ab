//! The flags of decoding, which several commands take.

use std::ffi::OsString;

use clap::Args;

use super::error::CliError;
use crate::checkpoint::Checkpoint;
use crate::generate::{EarlyStopping, GenerateConfig};

/// Above these flags in `--help`.
pub(super) const DECODING: &str = "Decoding";

/// How to decode: transformers' names.
#[derive(Debug, Args)]
#[command(next_help_heading = DECODING)]
pub(super) struct DecodeArgs {
    /// Beams an image; 1 is greedy, or plain sampling [default: the model's]
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// Most tokens of a caption [default: the model's]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Fewest tokens of a caption [default: the model's]
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Exponent of the length that a beam's log-probability is divided by [default: the model's]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f32>,
    /// Stop when num-beams captions are finished, even if a better one might come (true); when
    /// that is unlikely (false); when it is impossible (never) [default: the model's]
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::PossibleValuesParser::new(EarlyStopping::NAMES)
    )]
    early_stopping: Option<String>,
    /// No sequence of N tokens twice in a caption; 0 lets them repeat [default: the model's]
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// Make words less likely that were said before; 1 = no penalty [default: the model's]
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Draw words by their probabilities instead of taking the likeliest; with one beam, unless
    /// --num-beams says otherwise [default: the model's]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    do_sample: Option<bool>,
    /// Sampling: below 1 likely words become likelier, above 1 less so [default: the model's]
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Sampling: from the N likeliest tokens; 0 = from all [default: the model's]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Sampling: from the fewest likeliest tokens of this probability together; 1 = from all
    /// [default: the model's]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sampling: another number draws other words, the same one the same [default: the model's, 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl DecodeArgs {
    /// The model's defaults with what was asked for.
    pub(super) fn over(
        &self,
        checkpoint: &Checkpoint,
        num_captions: Option<usize>,
    ) -> Result<GenerateConfig, CliError> {
        let defaults = checkpoint.generate.clone();
        let do_sample = self.do_sample.unwrap_or(defaults.do_sample);
        let of_sampling = [
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        if let Some((flag, _)) = of_sampling.into_iter().find(|(_, given)| *given)
            && !do_sample
        {
            return Err(CliError::usage(format_args!("{flag} is for sampling"))
                .hint(format_args!("add --do-sample, or leave {flag} out")));
        }
        // Who asks a model for samples that usually searches with beams wants samples.
        let beams = if do_sample && !defaults.do_sample { 1 } else { defaults.num_beams };
        let early_stopping = self.early_stopping.as_ref().map(|text| text.parse());
        let config = GenerateConfig {
            num_beams: self.num_beams.unwrap_or(beams),
            num_captions: num_captions.unwrap_or(defaults.num_captions),
            max_new_tokens: self.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            // A number of new tokens stands in for a length in all.
            max_length: defaults.max_length.filter(|_| self.max_new_tokens.is_none()),
            min_new_tokens: self.min_new_tokens.unwrap_or(defaults.min_new_tokens),
            min_length: self.min_new_tokens.map_or(defaults.min_length, |_| 0),
            length_penalty: self.length_penalty.unwrap_or(defaults.length_penalty),
            early_stopping: early_stopping
                .transpose()
                .map_err(CliError::usage)?
                .unwrap_or(defaults.early_stopping),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .unwrap_or(defaults.no_repeat_ngram_size),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            do_sample,
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            seed: self.seed.unwrap_or(defaults.seed),
            ..defaults
        };
        if config.num_captions > 1 && config.num_captions > config.num_beams && !config.do_sample {
            let captions = config.num_captions;
            return Err(CliError::usage(match config.num_beams {
                0 | 1 => format!("--num-captions {captions}: greedy decoding has one caption"),
                beams => format!("--num-captions {captions}: there are {beams} beams"),
            })
            .hint(format_args!("add --num-beams {captions} for the best, or --do-sample")));
        }
        // The model's own settings are in range: what is not was asked for.
        config
            .validate(checkpoint.model.config().decoder.vocab_size)
            .map_err(|error| CliError { code: super::error::EXIT_USAGE, ..error.into() })?;
        Ok(config)
    }
}

/// Flags whose value may be left out would otherwise take none after a blank.
const OPTIONAL_VALUES: [(&str, &[&str]); 2] =
    [("--early-stopping", &EarlyStopping::NAMES), ("--do-sample", &["true", "false"])];

/// Writes `--early-stopping never` as `--early-stopping=never`: any other word after such a flag is
/// an argument of its own.
pub(super) fn join_values(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let values = joined.last().and_then(|last| {
            OPTIONAL_VALUES.iter().find(|(flag, _)| last == flag).map(|(_, values)| *values)
        });
        match (values, joined.last_mut()) {
            (Some(values), Some(flag)) if values.iter().any(|value| argument == *value) => {
                flag.push("=");
                flag.push(argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(words: &str) -> Vec<String> {
        let words = words.split(' ').map(OsString::from).collect();
        join_values(words).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn only_what_such_a_flag_takes_is_its_value() {
        assert_eq!(joined("--early-stopping never a.png"), ["--early-stopping=never", "a.png"]);
        assert_eq!(joined("--early-stopping a.png never"), ["--early-stopping", "a.png", "never"]);
        assert_eq!(joined("--early-stopping"), ["--early-stopping"]);
        assert_eq!(joined("--do-sample never"), ["--do-sample", "never"]);
        assert_eq!(joined("x --do-sample false"), ["x", "--do-sample=false"]);
        assert_eq!(joined("--do-sample=true false"), ["--do-sample=true", "false"]);
    }
}
