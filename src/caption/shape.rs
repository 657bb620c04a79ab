//! From what the model says to what is written: words added, taken away and demanded. Knows text only.

use serde::{Deserialize, Serialize};

/// How a caption is shaped, in this order: leads are stripped, then punctuation, then case and length; the
/// template puts it together with other text, and prefix and suffix go around it to the letter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shaping {
    /// Beginnings that are cut off, in any case: "the image shows".
    pub strip_lead: Vec<String>,
    /// Drop all punctuation but apostrophes and hyphens within words.
    pub strip_punctuation: bool,
    /// In lower case.
    pub lowercase: bool,
    /// The first so many words only.
    pub max_words: Option<usize>,
    /// A word that every caption begins with, a comma after it; with a template, what `{trigger}` is.
    pub trigger: Option<String>,
    /// `{trigger}`, `{caption}`, `{name}` (the file's, without extension), `{folder}` (the name of the
    /// one that it lies in), `{existing}` (the caption that is there already), `{tags}` (the tags that lie
    /// beside the photo). Commas and blanks beside a name that stands for nothing go with it.
    pub template: Option<String>,
    /// Before everything else.
    pub prefix: String,
    /// After everything else.
    pub suffix: String,
    /// Captions with one of these words are withheld.
    pub forbid: Vec<String>,
    /// Captions without one of these words are withheld.
    pub require: Vec<String>,
    /// Captions that the model is less sure of are withheld: the geometric mean of the words'
    /// probabilities, in `[0, 1]`.
    pub min_confidence: Option<f64>,
    /// Before such captions, which are then not withheld.
    pub mark: Option<String>,
}

/// What a template may name beside the caption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The file's name without its extension.
    pub name: String,
    /// The name of the folder that it lies in.
    pub folder: String,
    /// The caption that is there already.
    pub existing: String,
    /// The tags that are there, with commas between them.
    pub tags: String,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name in braces that is none of ours.
    #[error(
        "{{{0}}} is unknown: {{trigger}}, {{caption}}, {{name}}, {{folder}}, {{existing}} and {{tags}} are \
         known"
    )]
    Unknown(String),
    /// A brace that is not closed.
    #[error("a {{ without a }}")]
    Open,
    /// The caption is not in it.
    #[error("{{caption}} is not in it")]
    NoCaption,
}

impl Shaping {
    /// Checks the template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&self) -> Result<(), TemplateError> {
        let Some(template) = &self.template else { return Ok(()) };
        let mut has_caption = false;
        for piece in template.split('{').skip(1) {
            let (name, _) = piece.split_once('}').ok_or(TemplateError::Open)?;
            if !["trigger", "caption", "name", "folder", "existing", "tags"].contains(&name) {
                return Err(TemplateError::Unknown(name.to_owned()));
            }
            has_caption |= name == "caption";
        }
        if has_caption { Ok(()) } else { Err(TemplateError::NoCaption) }
    }

    /// The caption as it is written.
    pub fn apply(&self, caption: &str, facts: &Facts) -> String {
        let mut text = caption.trim().to_owned();
        for lead in &self.strip_lead {
            text = without_lead(&text, lead);
        }
        if self.strip_punctuation {
            text = without_punctuation(&text);
        }
        if self.lowercase {
            text = text.to_lowercase();
        }
        if let Some(most) = self.max_words {
            text = text.split_whitespace().take(most).collect::<Vec<_>>().join(" ");
        }
        let trigger = self.trigger.as_deref().unwrap_or_default();
        let text = match &self.template {
            Some(template) => fill(template, trigger, &text, facts),
            None if trigger.is_empty() => text,
            None => format!("{trigger}, {text}"),
        };
        format!("{}{text}{}", self.prefix, self.suffix)
    }

    /// The caption as it is written, marked where the model is not sure enough of it.
    pub fn marked(&self, text: String, confidence: Option<f64>) -> String {
        match &self.mark {
            Some(mark) if self.is_doubtful(confidence) => format!("{mark}{text}"),
            _ => text,
        }
    }

    fn is_doubtful(&self, confidence: Option<f64>) -> bool {
        self.min_confidence.is_some_and(|least| confidence.unwrap_or(0.0) < least)
    }

    /// Why a caption is withheld, if it is.
    pub fn objection(&self, caption: &str, confidence: Option<f64>) -> Option<String> {
        let words: Vec<String> = words(caption);
        let says = |wanted: &String| {
            let wanted = self::words(wanted);
            !wanted.is_empty() && words.windows(wanted.len()).any(|some| some == wanted)
        };
        if let Some(word) = self.forbid.iter().find(|word| says(word)) {
            return Some(format!("its caption says {word:?}, which is forbidden: {caption:?}"));
        }
        if let Some(word) = self.require.iter().find(|word| !says(word)) {
            return Some(format!(
                "its caption does not say {word:?}, which is required: {caption:?}"
            ));
        }
        if self.mark.is_some() || !self.is_doubtful(confidence) {
            return None;
        }
        let (least, confidence) = (self.min_confidence?, confidence.unwrap_or(0.0));
        Some(format!("the model's confidence is {confidence:.2}, below {least}: {caption:?}"))
    }
}

/// Words in lower case without what stands around them.
fn words(text: &str) -> Vec<String> {
    let each =
        text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    each.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Cuts `lead` off if the text begins with it and goes on after it with another word. The next word takes
/// over a capital.
fn without_lead(text: &str, lead: &str) -> String {
    let lead = lead.trim();
    let mut rest = text;
    for wanted in lead.chars() {
        let mut chars = rest.chars();
        match chars.next() {
            Some(found) if found.to_lowercase().eq(wanted.to_lowercase()) => rest = chars.as_str(),
            _ => return text.to_owned(),
        }
    }
    let ends_word = !rest.starts_with(|c: char| c.is_alphanumeric());
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || [',', ':', ';'].contains(&c));
    if lead.is_empty() || rest.is_empty() || !ends_word {
        return text.to_owned();
    }
    let mut letters = rest.chars();
    match letters.next() {
        Some(first) if text.starts_with(char::is_uppercase) => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => rest.to_owned(),
    }
}

fn without_punctuation(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |at: Option<&char>| at.is_some_and(|c| c.is_alphanumeric());
    let keeps = |at: usize| {
        let c = chars[at];
        let is_inner = ['\'', '’', '-'].contains(&c);
        c.is_alphanumeric()
            || c.is_whitespace()
            || (is_inner && at > 0 && is_word(chars.get(at - 1)) && is_word(chars.get(at + 1)))
    };
    let kept: String = (0..chars.len()).map(|at| if keeps(at) { chars[at] } else { ' ' }).collect();
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fill(template: &str, trigger: &str, caption: &str, facts: &Facts) -> String {
    let mut text = String::new();
    for (index, piece) in template.split('{').enumerate() {
        let (name, rest) = match (index, piece.split_once('}')) {
            (1.., Some(parts)) => parts,
            _ => ("", piece),
        };
        let value = match name {
            "trigger" => trigger,
            "caption" => caption,
            "name" => &facts.name,
            "folder" => &facts.folder,
            "existing" => &facts.existing,
            "tags" => &facts.tags,
            _ => "",
        };
        text.push_str(value);
        // "{trigger}, {caption}, {tags}" without tags ends with the caption.
        let is_separator = |c: char| c.is_whitespace() || [',', ';', '|'].contains(&c);
        if name.is_empty() || !value.is_empty() {
            text.push_str(rest);
        } else if rest.is_empty() {
            text.truncate(text.trim_end_matches(is_separator).len());
        } else {
            text.push_str(rest.trim_start_matches(is_separator));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let (name, folder) = ("IMG_1".into(), "Rome".into());
        Facts { name, folder, existing: "old".into(), tags: "1girl, solo".into() }
    }

    #[test]
    fn a_caption_is_shaped_in_order() {
        let shaping = Shaping {
            strip_lead: vec!["the image shows".into(), "a picture of".into()],
            strip_punctuation: true,
            lowercase: true,
            max_words: Some(4),
            trigger: Some("ohwx".into()),
            prefix: " <".into(),
            suffix: ".>".into(),
            ..Shaping::default()
        };
        let text =
            shaping.apply("The image shows: A picture of a Man's well-worn hat, left.", &facts());
        assert_eq!(text, " <ohwx, a man's well-worn hat.>");
        assert_eq!(Shaping::default().apply("A dog.", &facts()), "A dog.");
    }

    #[test]
    fn a_lead_goes_only_where_words_follow() {
        assert_eq!(without_lead("The image shows a dog", "the image shows"), "A dog");
        assert_eq!(without_lead("the image shows", "the image shows"), "the image shows");
        assert_eq!(without_lead("a dogma", "a dog"), "a dogma");
        assert_eq!(without_lead("ÉTÉ vert", "été"), "Vert");
    }

    #[test]
    fn templates_name_what_is_known() {
        let shaping = |template: &str| Shaping {
            template: Some(template.into()),
            trigger: Some("tok".into()),
            ..Shaping::default()
        };
        let all = shaping("{trigger}: {caption} ({folder}/{name}) {existing}}");
        assert_eq!(all.validate(), Ok(()));
        assert_eq!(all.apply("{name}", &facts()), "tok: {name} (Rome/IMG_1) old}");
        let sets = shaping("{trigger}, {caption}, {tags}");
        assert_eq!(sets.apply("a dog", &facts()), "tok, a dog, 1girl, solo");
        let bare = Facts::default();
        assert_eq!(sets.apply("a dog", &bare), "tok, a dog");
        assert_eq!(shaping("{tags}, {caption}.").apply("a dog", &bare), "a dog.");
        assert_eq!(shaping("{caption}, {tags}, {existing}").apply("a dog", &bare), "a dog");
        assert_eq!(shaping("{captoin}").validate(), Err(TemplateError::Unknown("captoin".into())));
        assert_eq!(shaping("{caption").validate(), Err(TemplateError::Open));
        assert_eq!(shaping("{trigger}").validate(), Err(TemplateError::NoCaption));
    }

    #[test]
    fn words_are_forbidden_and_required_whole() {
        let shaping = Shaping {
            forbid: vec!["cat".into(), "hot dog".into()],
            require: vec!["dog".into()],
            min_confidence: Some(0.5),
            ..Shaping::default()
        };
        let said = |text: &str, confidence| shaping.objection(text, Some(confidence));
        assert_eq!(said("A dog on a category sheet.", 0.6), None);
        assert!(said("a dog and a Cat.", 0.6).unwrap().contains("forbidden"));
        assert!(said("a hot dog", 0.6).unwrap().contains("hot dog"));
        assert!(said("a cow", 0.6).unwrap().contains("required"));
        assert!(said("a dog", 0.4).unwrap().contains("0.40"));
        let marking = Shaping { mark: Some("[?] ".into()), ..shaping };
        assert_eq!(marking.objection("a dog", Some(0.4)), None);
        assert_eq!(marking.marked("a dog".into(), Some(0.4)), "[?] a dog");
        assert_eq!(marking.marked("a dog".into(), Some(0.5)), "a dog");
    }
}
