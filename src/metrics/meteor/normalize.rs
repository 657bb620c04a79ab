//! METEOR's own tokens (`-norm`): text with punctuation set apart, much as Moses' tokenizer does it.

/// A word before a full stop that does not end a sentence; of METEOR's list those that a lowercased
/// caption can hold.
const NO_SENTENCE_END: [&str; 3] = ["v", "vs", "rev"];

/// The words of a caption, lowercased.
pub(super) fn normalize(text: &str) -> Vec<String> {
    let mut text: Vec<char> = plain_quotes(text);
    text = without_acronym_stops(&text);
    text = split_hyphens(&text);
    text = set_symbols_apart(&text);
    text = set_commas_apart(&text);
    text = set_apostrophes_apart(&text);
    let text: String = text.into_iter().collect();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut normalized = Vec::with_capacity(words.len());
    for (place, word) in words.iter().enumerate() {
        let next = words.get(place + 1);
        match word.strip_suffix('.') {
            Some(stem) if !stem.is_empty() && ends_sentence(stem, next.copied()) => {
                normalized.push(stem.to_lowercase());
                normalized.push(".".to_owned());
            }
            _ => normalized.push(word.to_lowercase()),
        }
    }
    normalized
}

/// Whether the full stop after `stem` is a token of its own.
fn ends_sentence(stem: &str, next: Option<&str>) -> bool {
    if stem.ends_with('.') || stem.contains('.') && stem.chars().any(char::is_alphabetic) {
        return false;
    }
    !(NO_SENTENCE_END.contains(&stem)
        || next.is_some_and(|next| next.starts_with(|c: char| c.is_lowercase())))
}

/// A space before and after, quotes and dashes as in ASCII.
fn plain_quotes(text: &str) -> Vec<char> {
    let mut plain = vec![' '];
    let mut characters = text.trim().chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '`' | '\'' if characters.peek() == Some(&c) => {
                characters.next();
                plain.push('"');
            }
            '-' if characters.peek() == Some(&'-') => {
                characters.next();
                plain.push('-');
            }
            '`' | '\u{2018}' | '\u{2019}' => plain.push('\''),
            '\u{201c}' | '\u{201d}' => plain.push('"'),
            '\u{2013}' => plain.push('-'),
            c if c.is_whitespace() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain.push(' ');
    plain
}

/// `p.m.` as `pm`: two or more times one or two letters and a full stop.
fn without_acronym_stops(text: &[char]) -> Vec<char> {
    let mut shorter = Vec::with_capacity(text.len());
    for word in text.split_inclusive(|c| *c == ' ') {
        let (bare, space) = match word {
            [bare @ .., ' '] => (bare, true),
            bare => (bare, false),
        };
        let parts: Vec<&[char]> = bare.split(|c| *c == '.').collect();
        let acronym = parts.len() > 2
            && parts.split_last().is_some_and(|(last, parts)| {
                let letters = |part: &&[char]| {
                    (1..=2).contains(&part.len()) && part.iter().all(char::is_ascii_alphabetic)
                };
                last.is_empty() && parts.iter().all(letters)
            });
        shorter.extend(bare.iter().filter(|c| !acronym || **c != '.'));
        if space {
            shorter.push(' ');
        }
    }
    shorter
}

/// A hyphen between two letters or digits becomes a space. As a letter can be beside one replaced
/// hyphen only, `a-b-c` becomes `a b-c`.
fn split_hyphens(text: &[char]) -> Vec<char> {
    let mut split = text.to_vec();
    let mut at = 0;
    while at + 2 < split.len() {
        let word = |place: usize| split.get(place).is_some_and(|c| c.is_alphanumeric());
        if word(at) && split[at + 1] == '-' && word(at + 2) {
            split[at + 1] = ' ';
            at += 3;
        } else {
            at += 1;
        }
    }
    split
}

fn set_symbols_apart(text: &[char]) -> Vec<char> {
    let mut apart = Vec::with_capacity(text.len() + 8);
    for (place, c) in text.iter().enumerate() {
        let dot = |place: usize| text.get(place) == Some(&'.');
        let first_of_dots = *c == '.' && dot(place + 1) && !(place > 0 && dot(place - 1));
        let last_of_dots = *c == '.' && place > 0 && dot(place - 1) && !dot(place + 1);
        let symbol = !(c.is_alphanumeric() || matches!(c, ' ' | '.' | '\'' | ',' | '-'));
        if symbol || first_of_dots {
            apart.push(' ');
        }
        apart.push(*c);
        if symbol || last_of_dots {
            apart.push(' ');
        }
    }
    apart
}

/// Commas are set apart except between digits.
fn set_commas_apart(text: &[char]) -> Vec<char> {
    let mut apart = Vec::with_capacity(text.len() + 8);
    for (place, c) in text.iter().enumerate() {
        let digit = |place: Option<usize>| {
            place.and_then(|place| text.get(place)).is_some_and(|c| c.is_numeric())
        };
        if *c == ',' && !(digit(place.checked_sub(1)) && digit(Some(place + 1))) {
            apart.extend([' ', ',', ' ']);
        } else {
            apart.push(*c);
        }
    }
    apart
}

/// `it's` as `it 's`; other apostrophes stand alone.
fn set_apostrophes_apart(text: &[char]) -> Vec<char> {
    let mut apart = Vec::with_capacity(text.len() + 8);
    for (place, c) in text.iter().enumerate() {
        if *c != '\'' {
            apart.push(*c);
            continue;
        }
        let before = place.checked_sub(1).and_then(|place| text.get(place)).copied().unwrap_or(' ');
        let after = text.get(place + 1).copied().unwrap_or(' ');
        apart.extend([' ', '\'']);
        let joined =
            before.is_alphabetic() && after.is_alphabetic() || before.is_numeric() && after == 's';
        if !joined {
            apart.push(' ');
        }
    }
    apart
}
