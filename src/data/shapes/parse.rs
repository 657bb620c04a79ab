//! Reads a caption: which objects it names and what it claims about them.
//!
//! The grammar is that of the captions we write, somewhat wider:
//!
//! ```text
//! caption  = [opening] object { [","] ["and"] ( object | claim ) | "with" object | claim }
//! opening  = "there" ("is" | "are") | [article] ("picture" | "image" | …) ("of" | "with" | …)
//! object   = [article] { size | colour } shape
//! claim    = ["is" | …] ( relation ( object | "it" ) | its-relation | place )
//! ```
//!
//! A claim speaks of the object just named, or after "and" or a comma of the one before it that
//! began the clause: in "a above b and left of c" it is a that lies left of c.
use super::grammar::{ITS_PHRASES, RELATION_PHRASES, colour_of, shape_of, size_of};
use super::scene::{Colour, Place, Relation, Shape, Size};

/// An object as a caption names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) size: Option<Size>,
    pub(super) colour: Option<Colour>,
    pub(super) shape: Shape,
    /// Words that name the colour or the shape, with their index in the caption.
    pub(super) words: Vec<(usize, String)>,
}

/// What a caption says of the objects it names, by their index among the mentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Relation { first: usize, relation: Relation, second: usize },
    Place { mention: usize, place: Place },
}

/// Words that say how two mentions lie, such as "above", with their index in the caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationWords {
    pub(super) first: usize,
    pub(super) second: usize,
    pub(super) words: Vec<(usize, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) mentions: Vec<Mention>,
    pub(super) claims: Vec<Claim>,
    pub(super) relations: Vec<RelationWords>,
}

/// Parses a caption; the error says at which word and what was expected there.
pub(super) fn parse(caption: &str) -> Result<Parsed, String> {
    let tokens = tokenize(caption);
    if tokens.is_empty() {
        return Err("the caption is empty".to_owned());
    }
    let (mentions, claims, relations) = (Vec::new(), Vec::new(), Vec::new());
    Parser { tokens, position: 0, mentions, claims, relations }.caption()
}

/// A relation as a caption names it.
struct Phrase {
    relation: Relation,
    words: Vec<(usize, String)>,
}

/// A word or a break (comma, full stop) and its index among the caption's words.
struct Token {
    index: usize,
    word: String,
}

const BREAK: &str = ",";

fn tokenize(caption: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (index, raw) in caption.split_whitespace().enumerate() {
        let raw = raw.to_lowercase();
        let word = raw.trim_end_matches([',', '.', ';', '!']);
        if !word.is_empty() {
            tokens.push(Token { index, word: word.to_owned() });
        }
        if word.len() < raw.len() {
            tokens.push(Token { index, word: BREAK.to_owned() });
        }
    }
    while tokens.last().is_some_and(|token| token.word == BREAK) {
        tokens.pop();
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
    mentions: Vec<Mention>,
    claims: Vec<Claim>,
    relations: Vec<RelationWords>,
}

/// Words of a relation that alone say nothing of it.
const LITTLE: [&str; 7] = ["to", "on", "at", "the", "its", "side", "of"];
const ARTICLES: [&str; 4] = ["a", "an", "the", "one"];
const PICTURES: [&str; 5] = ["picture", "image", "photo", "drawing", "scene"];

impl Parser {
    fn caption(mut self) -> Result<Parsed, String> {
        self.opening();
        let mut head = self.object()?;
        let mut nearest = head;
        // What "it" and "its" stand for.
        let mut anchor = head;
        while !self.at_end() {
            let joined = self.joint();
            let relative = self.take_any(&["that", "which"]);
            let verb = self.take_any(&["is", "are", "lies", "sits"]);
            let subject = if joined && !relative { head } else { nearest };
            if let Some(place) = self.place() {
                self.claims.push(Claim::Place { mention: subject, place });
            } else if let Some(relation) = self.phrase(&ITS_PHRASES) {
                self.relate(nearest, relation, anchor)?;
            } else if let Some(relation) = self.phrase(&RELATION_PHRASES) {
                if self.take("it") {
                    self.relate(nearest, relation, anchor)?;
                } else {
                    let second = self.object()?;
                    self.relate(subject, relation, second)?;
                    nearest = second;
                }
            } else if relative || verb {
                return Err(self.unexpected("a relation or a place"));
            } else if self.take("with") {
                anchor = head;
                nearest = self.object()?;
            } else if joined {
                head = self.object()?;
                nearest = head;
            } else {
                return Err(self.unexpected("a relation, a place, “and”, “with” or a comma"));
            }
        }
        Ok(Parsed { mentions: self.mentions, claims: self.claims, relations: self.relations })
    }

    fn opening(&mut self) {
        let start = self.position;
        if self.take("there") && self.take_any(&["is", "are"]) {
            return;
        }
        self.position = start;
        self.take_any(&ARTICLES);
        if !(self.take_any(&PICTURES) && self.take_any(&["of", "with", "showing"])) {
            self.position = start;
        }
    }

    /// Commas and "and"s; whether there were any.
    fn joint(&mut self) -> bool {
        let start = self.position;
        while self.take(BREAK) {}
        self.take("and");
        self.position > start
    }

    /// Reads an object and returns its index among the mentions.
    fn object(&mut self) -> Result<usize, String> {
        self.take_any(&ARTICLES);
        let (mut size, mut colour, mut words) = (None, None, Vec::new());
        loop {
            let Some(token) = self.tokens.get(self.position) else {
                return Err(self.unexpected("an object"));
            };
            if let Some(named) = size_of(&token.word) {
                if size.replace(named).is_some() {
                    return Err(self.unexpected("one size for an object, not two"));
                }
            } else if let Some(named) = colour_of(&token.word) {
                words.push((token.index, token.word.clone()));
                if colour.replace(named).is_some() {
                    return Err(self.unexpected("one colour for an object, not two"));
                }
            } else if let Some(shape) = shape_of(&token.word) {
                words.push((token.index, token.word.clone()));
                self.position += 1;
                self.mentions.push(Mention { size, colour, shape, words });
                return Ok(self.mentions.len() - 1);
            } else {
                return Err(self.unexpected("a size, a colour or a shape"));
            }
            self.position += 1;
        }
    }

    /// "on the left", "in the top right corner of the picture".
    fn place(&mut self) -> Option<Place> {
        let start = self.position;
        let place = self.place_words();
        // "on the left of a circle" is a relation, which the caller tries next.
        if place.is_some() && self.take("of") {
            self.take_any(&ARTICLES);
            if !self.take_any(&PICTURES) {
                self.position = start;
                return None;
            }
        }
        if place.is_none() {
            self.position = start;
        }
        place
    }

    fn place_words(&mut self) -> Option<Place> {
        if !(self.take_any(&["on", "at", "in", "near", "to"]) && self.take("the")) {
            return None;
        }
        let place = if self.take_any(&["middle", "center", "centre"]) {
            Place::Middle
        } else {
            let top = self.take_any(&["top", "upper"]);
            let bottom = !top && self.take_any(&["bottom", "lower"]);
            let left = self.take("left");
            let right = !left && self.take("right");
            match (top, bottom, left, right) {
                (true, _, true, _) => Place::TopLeft,
                (true, _, _, true) => Place::TopRight,
                (true, ..) => Place::Top,
                (_, true, true, _) => Place::BottomLeft,
                (_, true, _, true) => Place::BottomRight,
                (_, true, ..) => Place::Bottom,
                (_, _, true, _) => Place::Left,
                (_, _, _, true) => Place::Right,
                _ => return None,
            }
        };
        self.take_any(&["side", "corner", "half", "part", "edge"]);
        Some(place)
    }

    fn phrase(&mut self, phrases: &[(Relation, &[&str])]) -> Option<Phrase> {
        let matching = phrases.iter().find(|(_, words)| {
            words.iter().enumerate().all(|(offset, word)| {
                self.tokens.get(self.position + offset).is_some_and(|token| token.word == *word)
            })
        });
        let &(relation, words) = matching?;
        let tokens = &self.tokens[self.position..self.position + words.len()];
        let telling = tokens.iter().filter(|token| !LITTLE.contains(&token.word.as_str()));
        let words = telling.map(|token| (token.index, token.word.clone())).collect();
        self.position += tokens.len();
        Some(Phrase { relation, words })
    }

    fn relate(&mut self, first: usize, phrase: Phrase, second: usize) -> Result<(), String> {
        if first == second {
            return Err(self.unexpected("two objects for a relation"));
        }
        let Phrase { relation, words } = phrase;
        self.claims.push(Claim::Relation { first, relation, second });
        self.relations.push(RelationWords { first, second, words });
        Ok(())
    }

    fn at_end(&self) -> bool {
        self.position >= self.tokens.len()
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.tokens.get(self.position).is_some_and(|token| token.word == word);
        self.position += usize::from(taken);
        taken
    }

    fn take_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.take(word))
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.tokens.get(self.position) {
            Some(token) => {
                format!("word {} (“{}”): expected {expected}", token.index + 1, token.word)
            }
            None => format!("the caption ends where {expected} was expected"),
        }
    }
}
