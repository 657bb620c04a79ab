//! Says whether a caption is true of a scene, and where its words point.
use super::grammar::{GroundedWord, RelatedWord, colour_word, shape_word, size_word};
use super::parse::{Claim, Mention, Parsed, parse};
use super::scene::{Relation, Scene, SceneObject};

/// What the checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the caption is of the grammar and all it says is true: every object it names is a
    /// different object of the scene with that colour, shape and (if said) size, and every relation
    /// and place holds.
    pub correct: bool,
    /// Whether the caption is of the grammar.
    pub parsed: bool,
    /// Whether it is correct and names every object of the scene.
    pub complete: bool,
    /// What is wrong, one sentence each; empty exactly when `correct`.
    pub errors: Vec<String>,
    /// Number of objects the caption names.
    pub objects_named: usize,
}

/// Checks a caption against a scene. Letter case and a final full stop do not matter.
pub fn check_caption(caption: &str, scene: &Scene) -> Verdict {
    let parsed = match parse(caption) {
        Ok(parsed) => parsed,
        Err(reason) => {
            return Verdict {
                correct: false,
                parsed: false,
                complete: false,
                errors: vec![reason],
                objects_named: 0,
            };
        }
    };
    let errors = if readings(&parsed, scene, true).is_empty() {
        explain(&parsed, scene)
    } else {
        Vec::new()
    };
    let objects_named = parsed.mentions.len();
    Verdict {
        correct: errors.is_empty(),
        parsed: true,
        complete: errors.is_empty() && objects_named == scene.objects.len(),
        errors,
        objects_named,
    }
}

/// The boxes of a correct caption's object and colour words, in the caption's order; empty for one
/// that is not correct. A word that could mean either of two like objects is left out.
pub fn grounded_words(caption: &str, scene: &Scene) -> Vec<GroundedWord> {
    let Ok(parsed) = parse(caption) else { return Vec::new() };
    let readings = readings(&parsed, scene, true);
    let Some(first) = readings.first() else { return Vec::new() };
    let mut words = Vec::new();
    for (number, (mention, &object)) in parsed.mentions.iter().zip(first).enumerate() {
        if readings.iter().all(|reading| reading[number] == object) {
            words.extend(mention.words.iter().map(|(index, word)| GroundedWord {
                word: word.clone(),
                index: *index,
                object,
                bbox: scene.objects[object].bbox,
            }));
        }
    }
    words
}

/// The words of a correct caption that say how two objects lie, such as "above", in the caption's order, each
/// with the boxes of both; empty for one that is not correct. A word that could speak of other objects as
/// well is left out.
pub fn related_words(caption: &str, scene: &Scene) -> Vec<RelatedWord> {
    let Ok(parsed) = parse(caption) else { return Vec::new() };
    let readings = readings(&parsed, scene, true);
    let Some(first) = readings.first() else { return Vec::new() };
    let certain = |mention: usize| readings.iter().all(|one| one[mention] == first[mention]);
    let known = parsed.relations.iter().filter(|one| certain(one.first) && certain(one.second));
    let words = known.flat_map(|relation| {
        let bbox = |mention: usize| scene.objects[first[mention]].bbox;
        let boxes = [bbox(relation.first), bbox(relation.second)];
        let words = relation.words.iter();
        words.map(move |(index, word)| RelatedWord { word: word.clone(), index: *index, boxes })
    });
    words.collect()
}

/// More ways to read a caption than this are not looked at.
const MAX_READINGS: usize = 64;
/// Bounds the search for scenes read from a file that hold many like objects.
const MAX_STEPS: usize = 20_000;

/// All ways to give each mention its own object of the scene; with `claims`, only those in which
/// everything the caption says holds.
fn readings(parsed: &Parsed, scene: &Scene, claims: bool) -> Vec<Vec<usize>> {
    let mut search = Search { parsed, scene, claims, found: Vec::new(), steps: 0 };
    if !parsed.mentions.is_empty() && parsed.mentions.len() <= scene.objects.len() {
        search.extend(&mut Vec::new());
    }
    search.found
}

struct Search<'search> {
    parsed: &'search Parsed,
    scene: &'search Scene,
    claims: bool,
    found: Vec<Vec<usize>>,
    steps: usize,
}

impl Search<'_> {
    fn extend(&mut self, reading: &mut Vec<usize>) {
        self.steps += 1;
        if self.found.len() >= MAX_READINGS || self.steps > MAX_STEPS {
            return;
        }
        let Some(mention) = self.parsed.mentions.get(reading.len()) else {
            let true_claims = |claim: &Claim| holds(*claim, reading, self.scene);
            if !self.claims || self.parsed.claims.iter().all(true_claims) {
                self.found.push(reading.clone());
            }
            return;
        };
        for (number, object) in self.scene.objects.iter().enumerate() {
            if !reading.contains(&number) && fits(mention, object) {
                reading.push(number);
                self.extend(reading);
                reading.pop();
            }
        }
    }
}

/// Whether an object is as the mention says. A mention without a colour fits none: every caption
/// of the grammar says the colour, and leaving it out must not pass for getting it right.
fn fits(mention: &Mention, object: &SceneObject) -> bool {
    mention.shape == object.shape
        && mention.colour == Some(object.colour)
        && mention.size.is_none_or(|size| size == object.size)
}

fn holds(claim: Claim, reading: &[usize], scene: &Scene) -> bool {
    match claim {
        Claim::Relation { first, relation, second } => {
            scene.relation_holds(reading[first], relation, reading[second])
        }
        Claim::Place { mention, place } => scene.place_holds(reading[mention], place),
    }
}

/// What is wrong with a caption that has no true reading.
fn explain(parsed: &Parsed, scene: &Scene) -> Vec<String> {
    let mut errors = Vec::new();
    let (named, there) = (parsed.mentions.len(), scene.objects.len());
    if named > there {
        errors.push(format!("{named} objects are named, the scene has {there}"));
    }
    for mention in &parsed.mentions {
        if mention.colour.is_none() {
            errors.push(format!("“{}” is named without its colour", describe(mention)));
        } else if !scene.objects.iter().any(|object| fits(mention, object)) {
            errors.push(format!("there is no {} in the scene", describe(mention)));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    let Some(reading) = readings(parsed, scene, false).into_iter().next() else {
        return vec!["one object of the scene is named more than once".to_owned()];
    };
    for &claim in &parsed.claims {
        if !holds(claim, &reading, scene) {
            errors.push(format!("it is not so that {}", describe_claim(claim, parsed)));
        }
    }
    if errors.is_empty() {
        errors.push("the relations do not hold together".to_owned());
    }
    errors
}

fn describe(mention: &Mention) -> String {
    let mut words = Vec::new();
    words.extend(mention.size.map(size_word));
    words.extend(mention.colour.map(colour_word));
    words.push(shape_word(mention.shape));
    words.join(" ")
}

fn describe_claim(claim: Claim, parsed: &Parsed) -> String {
    match claim {
        Claim::Relation { first, relation, second } => {
            let phrase = match relation {
                Relation::Above => "above",
                Relation::Below => "below",
                Relation::LeftOf => "left of",
                Relation::RightOf => "right of",
            };
            let [first, second] = [first, second].map(|number| describe(&parsed.mentions[number]));
            format!("the {first} is {phrase} the {second}")
        }
        Claim::Place { mention, place } => {
            format!("the {} is at this place: {place:?}", describe(&parsed.mentions[mention]))
        }
    }
}
