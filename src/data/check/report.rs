//! What a check found, as text and as JSON.
use std::fmt;
use std::path::PathBuf;

use super::super::PassedOver;
use super::{CheckReport, FREQUENT, ImageSizes, SplitCount, Spread};
use crate::plural::plural;

impl CheckReport {
    /// Whether nothing is wrong. Notes do not count.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report as a JSON object, with the fields of this struct and `clean`.
    pub fn to_json(&self) -> serde_json::Value {
        // Nothing here can fail to serialise but a root that is not UTF-8, which is then left out.
        let root = serde_json::Value::from(self.root.to_string_lossy().into_owned());
        let readable = Self { root: PathBuf::new(), ..self.clone() };
        let mut report = serde_json::to_value(readable).unwrap_or_default();
        if let Some(fields) = report.as_object_mut() {
            fields.insert("root".to_owned(), root);
            fields.insert("clean".to_owned(), self.is_clean().into());
        }
        report
    }

    fn write_counts(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "images", grouped(self.images))?;
        line(formatter, "captions", grouped(self.captions))?;
        let width = |count: fn(&SplitCount) -> usize| {
            self.splits.iter().map(|split| grouped(count(split)).len()).max().unwrap_or(0)
        };
        let images_width = width(|split| split.images);
        let captions_width = width(|split| split.captions);
        for split in &self.splits {
            let counts = format!(
                "{:>images_width$} {:<7} {:>captions_width$} {}",
                grouped(split.images),
                plural(&split.images, "image") + ",",
                grouped(split.captions),
                plural(&split.captions, "caption"),
            );
            line(formatter, &format!("  {}", split.split), counts)?;
        }
        let Spread { min, mean, max, .. } = self.captions_per_image;
        line(formatter, "captions an image", format!("min {min}, mean {mean:.1}, max {max}"))?;
        let Spread { min, mean, p95, max } = self.caption_words;
        let words = format!("min {min}, mean {mean:.1}, 95 % up to {p95}, max {max}");
        line(formatter, "words a caption", words)?;
        let vocabulary = format!(
            "{} {}, {} of them seen {FREQUENT} times or more",
            grouped(self.vocabulary),
            plural(&self.vocabulary, "word"),
            grouped(self.frequent_words)
        );
        line(formatter, "vocabulary", vocabulary)
    }
}

/// One line of the report.
fn line(formatter: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(formatter, "{name:<19}{value}")
}

/// The number with a comma before each group of three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for CheckReport {
    /// An aligned table of the counts, then every problem by kind and every note, one a line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(formatter, "data set", format!("{} ({})", self.root.display(), self.format))?;
        self.write_counts(formatter)?;
        match &self.image_sizes {
            Some(ImageSizes { num_sizes: 1, most_common: (width, height), .. }) => {
                line(formatter, "image size", format!("{width}×{height} pixels, all of them"))?;
            }
            Some(sizes) => {
                let text = format!(
                    "{}–{} × {}–{} pixels, {} sizes, most often {}×{} ({} {})",
                    sizes.min_width,
                    sizes.max_width,
                    sizes.min_height,
                    sizes.max_height,
                    grouped(sizes.num_sizes),
                    sizes.most_common.0,
                    sizes.most_common.1,
                    grouped(sizes.num_most_common),
                    plural(&sizes.num_most_common, "image")
                );
                line(formatter, "image size", text)?;
            }
            None => line(formatter, "image size", "unknown: no image could be read")?,
        }
        for (place, PassedOver { kind, count, first }) in self.passed_over.iter().enumerate() {
            let name = if place == 0 { "passed over" } else { "" };
            let files = plural(count, "file");
            line(
                formatter,
                name,
                format!("{} {files}: {kind} (the first: {first})", grouped(*count)),
            )?;
        }
        if self.is_clean() {
            line(formatter, "problems", "none")?;
        } else {
            line(formatter, "problems", grouped(self.problems.len()))?;
            for kind_problems in self.problems.chunk_by(|left, right| left.kind == right.kind) {
                let Some(first) = kind_problems.first() else { continue };
                writeln!(
                    formatter,
                    "\n{} ({}):",
                    first.kind.label(),
                    grouped(kind_problems.len())
                )?;
                for problem in kind_problems {
                    writeln!(formatter, "  {problem}")?;
                }
            }
        }
        if !self.notes.is_empty() {
            writeln!(formatter, "\nnotes:")?;
            for note in &self.notes {
                writeln!(formatter, "  {note}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        let grouped: Vec<String> = [0, 999, 1_000, 35_000, 1_234_567].map(grouped).into();
        assert_eq!(grouped, ["0", "999", "1,000", "35,000", "1,234,567"]);
    }
}
