//! METEOR's own tokens (`-norm`): text with punctuation set apart, much as Moses' tokenizer does it.
//!
//! Each step is one pass from left to right. A character that took part in a replacement takes part in
//! no other of the same pass, so that of `a-b-c` only the first hyphen is replaced: METEOR's regular
//! expressions consume the characters beside a mark.

/// Words before a full stop that does not end a sentence; of METEOR's list those that a lowercased
/// caption can hold.
const NO_SENTENCE_END: [&str; 3] = ["v", "vs", "rev"];
/// The same where a number follows.
const NO_SENTENCE_END_BEFORE_NUMBER: &str = "pp";

/// The words of a caption, lowercased.
pub(super) fn normalize(text: &str) -> Vec<String> {
    let mut text = set_symbols_apart(text);
    for (left, right) in [(false, false), (true, false), (false, true)] {
        let side = |digit: bool| move |c: char| c.is_ascii_digit() == digit;
        text = replace_between(&text, ',', side(left), side(right), " , ");
    }
    text = plain_quotes(&text);
    let before_hyphen = |c| is_letter(c) || c.is_ascii_digit() || c == '.';
    let after_hyphen = |c: char| is_letter(c) || c.is_ascii_digit();
    text = replace_between(&text, '-', before_hyphen, after_hyphen, " ");
    let other = |c| !is_letter(c);
    let neither = |c: char| !is_letter(c) && !c.is_ascii_digit();
    text = replace_between(&text, '\'', other, other, " ' ");
    text = replace_between(&text, '\'', neither, is_letter, " ' ");
    text = replace_between(&text, '\'', is_letter, other, " ' ");
    text = replace_between(&text, '\'', is_letter, is_letter, " '");
    text = replace_between(&text, '\'', |c| c.is_ascii_digit(), |c| c == 's', " '");
    let text: String = text.into_iter().collect();
    words(&set_full_stops_apart(&text).replace(is_wide_space, " ")).map(str::to_lowercase).collect()
}

/// Letters as METEOR knows them: Latin and Cyrillic ones.
fn is_letter(c: char) -> bool {
    matches!(c,
        'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{17e}'
        | '\u{400}'..='\u{527}' | '\u{a640}'..='\u{a66e}' | '\u{a67e}'..='\u{a697}'
        | '\u{1d00}'..='\u{1d7f}')
}

fn is_wide_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// Split where Java's `StringTokenizer` splits.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', '\n', '\r', '\u{c}']).filter(|word| !word.is_empty())
}

/// Writes `written` for each `mark` that stands between characters for which `left` and `right` hold.
fn replace_between(
    text: &[char],
    mark: char,
    left: impl Fn(char) -> bool,
    right: impl Fn(char) -> bool,
    written: &str,
) -> Vec<char> {
    let mut replaced = Vec::with_capacity(text.len() + 8);
    let mut rest = text;
    while let [first, others @ ..] = rest {
        replaced.push(*first);
        rest = others;
        if let [middle, last, others @ ..] = others
            && *middle == mark
            && left(*first)
            && right(*last)
        {
            replaced.extend(written.chars());
            replaced.push(*last);
            rest = others;
        }
    }
    replaced
}

/// A space before and after the text, around each symbol and around two and more full stops.
fn set_symbols_apart(text: &str) -> Vec<char> {
    let text = text.trim_matches(|c| c <= ' ');
    let mut apart = vec![' '];
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let stays = is_letter(c)
            || c.is_ascii_digit()
            || matches!(
                c,
                ' ' | '\t'..='\r' | '.' | '\'' | '`' | ',' | '-' | '\u{2018}' | '\u{2019}'
            );
        if !stays {
            apart.extend([' ', c, ' ']);
        } else if c == '.' && characters.peek() == Some(&'.') {
            apart.extend([' ', c]);
            while characters.next_if_eq(&'.').is_some() {
                apart.push('.');
            }
            apart.push(' ');
        } else {
            apart.push(c);
        }
    }
    apart.push(' ');
    apart
}

/// Quotes and dashes as in ASCII, double quotes with spaces around.
fn plain_quotes(text: &[char]) -> Vec<char> {
    let single = |c: char| matches!(c, '\'' | '`' | '\u{2018}' | '\u{2019}');
    let dash = |c: char| matches!(c, '-' | '\u{2013}');
    let mut plain = Vec::with_capacity(text.len() + 8);
    let mut characters = text.iter().copied().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{201c}' | '\u{201d}' => plain.extend([' ', '"', ' ']),
            c if single(c) && characters.next_if(|next| single(*next)).is_some() => {
                plain.extend([' ', '"', ' ']);
            }
            c if single(c) => plain.push('\''),
            c if dash(c) => {
                characters.next_if(|next| dash(*next));
                plain.push('-');
            }
            c => plain.push(c),
        }
    }
    plain
}

/// Full stops at the end of words stand alone, except in abbreviations; acronyms lose theirs.
fn set_full_stops_apart(text: &str) -> String {
    let mut apart = String::with_capacity(text.len() + 8);
    let mut words = words(text).peekable();
    while let Some(word) = words.next() {
        let next = words.peek().and_then(|next| next.chars().next()).unwrap_or(' ');
        match word.strip_suffix('.') {
            None | Some("") => apart.push_str(word),
            // Full stops that `set_symbols_apart` kept together.
            Some(stem) if stem.bytes().all(|byte| byte == b'.') => apart.push_str(word),
            Some(stem) if stem.contains('.') && stem.contains(is_letter) => {
                apart.push_str(&word.replace('.', ""));
            }
            Some(stem)
                if NO_SENTENCE_END.contains(&stem)
                    || next.is_ascii_lowercase()
                    || stem == NO_SENTENCE_END_BEFORE_NUMBER && next.is_ascii_digit() =>
            {
                apart.push_str(word);
            }
            Some(stem) => {
                apart.push_str(stem);
                apart.push_str(" .");
            }
        }
        apart.push(' ');
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by METEOR 1.5: `java -cp meteor-1.5.jar edu.cmu.meteor.util.Normalizer en true`, lowercased.
    #[test]
    fn as_the_original_does_it() {
        for (text, expected) in [
            ("a dog's ball , it 's 5's", "a dog 's ball , it ' s 5 's"),
            ("a-b-c.d-e u.s.-based U.S. p.m. 1.5. .5", "a b-c.d e us based us pm 1.5 . .5"),
            ("wait... what.. . end.", "wait ... what .. . end ."),
            ("a,,b 1,000 5,a a,5 ,", "a , ,b 1,000 5 , a a , 5 ,"),
            (
                "`single' ``double'' ‘x’ “y” '' o'neil dogs' ''x'",
                "' single ' \" double \" ' x ' \" y \" \" o 'neil dogs ' \" x '",
            ),
            ("v. vs. them rev. no. pp. 5 pp. x pp. X", "v. vs. them rev. no. pp. 5 pp. x pp . x"),
            ("a--b --- – — é.É x.É", "a b -- - — é.é x.é"),
            (
                "café½ 中-文 ф'ф x\u{a0}y\u{3000}z ²'s 5's5's",
                "café ½ 中 - 文 ф 'ф x y z ² ' s 5 's5 's",
            ),
        ] {
            assert_eq!(normalize(text).join(" "), expected, "{text}");
        }
    }
}
