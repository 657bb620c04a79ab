//! The captions' grammar: its words, and five true sentences about a scene.
use serde::{Deserialize, Serialize};

use super::config::ShapesConfig;
use super::draws::{Draws, Purpose};
use super::scene::{Colour, Place, Relation, Scene, SceneObject, Shape, Size};

/// Captions of each image.
pub const CAPTIONS_PER_IMAGE: usize = 5;

/// A caption with its grounding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Lower-case ASCII words and commas, no full stop.
    pub text: String,
    /// Every word that names an object or its colour, in the caption's order.
    pub words: Vec<GroundedWord>,
}

/// A word of a caption and the region it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroundedWord {
    /// The word in lower case, without punctuation.
    pub word: String,
    /// Its index among the caption's words, split at white space.
    pub index: usize,
    /// Index of the object in the scene.
    pub object: usize,
    /// The object's box, `[x0, y0, x1, y1]` in pixels, x1 and y1 exclusive.
    #[serde(rename = "box")]
    pub bbox: [u32; 4],
}

/// A word of a caption that says how two objects lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelatedWord {
    /// The word in lower case, without punctuation.
    pub word: String,
    /// Its index among the caption's words, split at white space.
    pub index: usize,
    /// The boxes of both objects, `[x0, y0, x1, y1]` in pixels, x1 and y1 exclusive.
    pub boxes: [[u32; 4]; 2],
}

/// Words for each shape; captions are written with the first and, less often, the others.
const SHAPE_WORDS: [(Shape, &[&str]); 7] = [
    (Shape::Circle, &["circle", "disc"]),
    (Shape::Square, &["square", "box"]),
    (Shape::Triangle, &["triangle"]),
    (Shape::Diamond, &["diamond", "rhombus"]),
    (Shape::Cross, &["cross", "plus"]),
    (Shape::Star, &["star"]),
    (Shape::Ring, &["ring", "hoop"]),
];

/// Words that are understood besides those captions are written with.
const MORE_SHAPE_WORDS: [(&str, Shape); 1] = [("disk", Shape::Circle)];

const SIZE_WORDS: [(Size, &[&str]); 3] = [
    (Size::Small, &["small", "little", "tiny"]),
    (Size::Medium, &["medium"]),
    (Size::Large, &["large", "big"]),
];

const MORE_COLOUR_WORDS: [(&str, Colour); 2] =
    [("violet", Colour::Purple), ("turquoise", Colour::Cyan)];

/// Phrases between two objects; none is the beginning of another.
pub(super) const RELATION_PHRASES: [(Relation, &[&str]); 19] = [
    (Relation::Above, &["above"]),
    (Relation::Above, &["over"]),
    (Relation::Above, &["on", "top", "of"]),
    (Relation::Below, &["below"]),
    (Relation::Below, &["under"]),
    (Relation::Below, &["underneath"]),
    (Relation::Below, &["beneath"]),
    (Relation::LeftOf, &["to", "the", "left", "of"]),
    (Relation::LeftOf, &["left", "of"]),
    (Relation::LeftOf, &["on", "the", "left", "of"]),
    (Relation::LeftOf, &["at", "the", "left", "of"]),
    (Relation::LeftOf, &["on", "the", "left", "side", "of"]),
    (Relation::LeftOf, &["to", "the", "left", "side", "of"]),
    (Relation::RightOf, &["to", "the", "right", "of"]),
    (Relation::RightOf, &["right", "of"]),
    (Relation::RightOf, &["on", "the", "right", "of"]),
    (Relation::RightOf, &["at", "the", "right", "of"]),
    (Relation::RightOf, &["on", "the", "right", "side", "of"]),
    (Relation::RightOf, &["to", "the", "right", "side", "of"]),
];

/// Phrases that end at the object named before: "with a blue square to its left".
pub(super) const ITS_PHRASES: [(Relation, &[&str]); 4] = [
    (Relation::LeftOf, &["to", "its", "left"]),
    (Relation::LeftOf, &["on", "its", "left"]),
    (Relation::RightOf, &["to", "its", "right"]),
    (Relation::RightOf, &["on", "its", "right"]),
];

/// The shape a word names.
pub(super) fn shape_of(word: &str) -> Option<Shape> {
    let written = SHAPE_WORDS.iter().find(|(_, words)| words.contains(&word));
    written.map(|&(shape, _)| shape).or_else(|| lookup(&MORE_SHAPE_WORDS, word))
}

/// The colour a word names.
pub(super) fn colour_of(word: &str) -> Option<Colour> {
    let written = Colour::ALL.into_iter().find(|&colour| colour_word(colour) == word);
    written.or_else(|| lookup(&MORE_COLOUR_WORDS, word))
}

/// The size class a word names.
pub(super) fn size_of(word: &str) -> Option<Size> {
    SIZE_WORDS.iter().find(|(_, words)| words.contains(&word)).map(|&(size, _)| size)
}

/// The first word for a shape.
pub(super) fn shape_word(shape: Shape) -> &'static str {
    words_for(&SHAPE_WORDS, shape)[0]
}

/// The first word for a size class.
pub(super) fn size_word(size: Size) -> &'static str {
    words_for(&SIZE_WORDS, size)[0]
}

/// The word for a colour.
pub(super) fn colour_word(colour: Colour) -> &'static str {
    match colour {
        Colour::Red => "red",
        Colour::Green => "green",
        Colour::Blue => "blue",
        Colour::Yellow => "yellow",
        Colour::Purple => "purple",
        Colour::Orange => "orange",
        Colour::White => "white",
        Colour::Black => "black",
        Colour::Pink => "pink",
        Colour::Brown => "brown",
        Colour::Cyan => "cyan",
    }
}

fn lookup<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == word).map(|&(_, meaning)| meaning)
}

fn words_for<T: PartialEq>(
    table: &[(T, &'static [&'static str])],
    meaning: T,
) -> &'static [&'static str] {
    table.iter().find(|(known, _)| *known == meaning).map_or(&["thing"], |&(_, words)| words)
}

/// Five captions of image number `index` of the data set, each of which names all objects of the
/// scene and says nothing that could be disputed. As a rule no two are alike.
pub fn captions(scene: &Scene, config: &ShapesConfig, index: u64) -> Vec<Caption> {
    let mut draws = Draws::new(config.seed, index, Purpose::Captions);
    let mut captions: Vec<Caption> = Vec::with_capacity(CAPTIONS_PER_IMAGE);
    while captions.len() < CAPTIONS_PER_IMAGE {
        let mut caption = write_caption(scene, config.salient_first, &mut draws);
        for _ in 0..16 {
            if captions.iter().all(|earlier| earlier.text != caption.text) {
                break;
            }
            caption = write_caption(scene, config.salient_first, &mut draws);
        }
        captions.push(caption);
    }
    captions
}

fn write_caption(scene: &Scene, salient_first: bool, draws: &mut Draws) -> Caption {
    let mut order: Vec<usize> = (0..scene.objects.len()).collect();
    if salient_first {
        order.sort_by_key(|&object| scene.salience(object));
    } else {
        for last in (1..order.len()).rev() {
            order.swap(last, draws.below(last + 1));
        }
    }
    let mut writer = Writer { scene, text: String::new(), words: Vec::new(), count: 0 };
    let prefixes: [&[&str]; 4] =
        [&[], &["there", "is"], &["a", "picture", "of"], &["an", "image", "of"]];
    writer.push(prefixes[draws.weighted(&[5, 2, 2, 1])]);
    match *order.as_slice() {
        [] => {}
        [only] => {
            writer.object(only, draws);
            let places: Vec<Place> =
                Place::ALL.into_iter().filter(|&place| scene.place_is_clear(only, place)).collect();
            if !places.is_empty() && draws.percent(60) {
                let place = draws.one_of(&places);
                writer.push(place_phrase(place, draws));
            }
        }
        [first, second] => match draws.weighted(&[2, 1, 1]) {
            0 => writer.related(first, second, draws),
            1 => writer.list(&order, draws),
            _ => writer.with_related(first, &[second], draws),
        },
        [first, second, third] => match draws.weighted(&[4, 3, 3]) {
            0 => writer.list(&order, draws),
            1 => {
                writer.related(first, second, draws);
                writer.push(&["and"]);
                let relation = clear_relation(scene, first, third, draws);
                writer.push(relation_phrase(relation, draws));
                writer.object(third, draws);
            }
            _ => writer.with_related(first, &[second, third], draws),
        },
        _ => writer.list(&order, draws),
    }
    Caption { text: writer.text, words: writer.words }
}

/// One of the relations between two objects that are beyond dispute.
fn clear_relation(scene: &Scene, first: usize, second: usize, draws: &mut Draws) -> Relation {
    let clear: Vec<Relation> = Relation::ALL
        .into_iter()
        .filter(|&relation| scene.relation_is_clear(first, relation, second))
        .collect();
    let choice = draws.below(clear.len());
    clear.get(choice).copied().unwrap_or(Relation::Above)
}

fn relation_phrase(relation: Relation, draws: &mut Draws) -> &'static [&'static str] {
    let (usual, other): (&[&str], &[&str]) = match relation {
        Relation::Above => (&["above"], &["over"]),
        Relation::Below => (&["below"], &["under"]),
        Relation::LeftOf => (&["to", "the", "left", "of"], &["left", "of"]),
        Relation::RightOf => (&["to", "the", "right", "of"], &["right", "of"]),
    };
    if draws.percent(70) { usual } else { other }
}

fn place_phrase(place: Place, draws: &mut Draws) -> &'static [&'static str] {
    let (usual, other): (&[&str], &[&str]) = match place {
        Place::Left => (&["on", "the", "left"], &["on", "the", "left", "side"]),
        Place::Right => (&["on", "the", "right"], &["on", "the", "right", "side"]),
        Place::Top => (&["at", "the", "top"], &["near", "the", "top"]),
        Place::Bottom => (&["at", "the", "bottom"], &["near", "the", "bottom"]),
        Place::Middle => (&["in", "the", "middle"], &["in", "the", "center"]),
        Place::TopLeft => (&["in", "the", "top", "left"], &["in", "the", "upper", "left"]),
        Place::TopRight => (&["in", "the", "top", "right"], &["in", "the", "upper", "right"]),
        Place::BottomLeft => (&["in", "the", "bottom", "left"], &["in", "the", "lower", "left"]),
        Place::BottomRight => (&["in", "the", "bottom", "right"], &["in", "the", "lower", "right"]),
    };
    if draws.percent(70) { usual } else { other }
}

/// Builds a caption word by word and keeps the grounding.
struct Writer<'scene> {
    scene: &'scene Scene,
    text: String,
    words: Vec<GroundedWord>,
    count: usize,
}

impl Writer<'_> {
    fn push(&mut self, words: &[&str]) {
        for word in words {
            if !self.text.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(word);
            self.count += 1;
        }
    }

    /// "a", "an", then the object: its size in half of the cases, its colour and shape.
    fn object(&mut self, number: usize, draws: &mut Draws) {
        let SceneObject { shape, colour, size, .. } = self.scene.objects[number];
        let size_words = words_for(&SIZE_WORDS, size);
        let size =
            draws.percent(50).then(|| size_words[draws.weighted(&[2, 1, 1][..size_words.len()])]);
        let shape_words = words_for(&SHAPE_WORDS, shape);
        let shape = shape_words[draws.weighted(&[3, 1][..shape_words.len().min(2)])];
        let colour = colour_word(colour);
        let vowel = size.unwrap_or(colour).starts_with(['a', 'e', 'i', 'o', 'u']);
        self.push(&[if vowel { "an" } else { "a" }]);
        self.push(size.as_slice());
        for word in [colour, shape] {
            self.words.push(GroundedWord {
                word: word.to_owned(),
                index: self.count,
                object: number,
                bbox: self.scene.objects[number].bbox,
            });
            self.push(&[word]);
        }
    }

    /// "a, b and c".
    fn list(&mut self, order: &[usize], draws: &mut Draws) {
        for (position, &number) in order.iter().enumerate() {
            if position > 0 && position + 1 == order.len() {
                self.push(&["and"]);
            } else if position > 0 {
                self.text.push(',');
            }
            self.object(number, draws);
        }
    }

    /// "a above b".
    fn related(&mut self, first: usize, second: usize, draws: &mut Draws) {
        self.object(first, draws);
        let relation = clear_relation(self.scene, first, second, draws);
        self.push(relation_phrase(relation, draws));
        self.object(second, draws);
    }

    /// "a with b below it and c to its left".
    fn with_related(&mut self, first: usize, others: &[usize], draws: &mut Draws) {
        self.object(first, draws);
        for (position, &number) in others.iter().enumerate() {
            self.push(&[if position == 0 { "with" } else { "and" }]);
            self.object(number, draws);
            match clear_relation(self.scene, number, first, draws) {
                Relation::LeftOf => self.push(&["to", "its", "left"]),
                Relation::RightOf => self.push(&["to", "its", "right"]),
                upright => {
                    self.push(relation_phrase(upright, draws));
                    self.push(&["it"]);
                }
            }
        }
    }
}
