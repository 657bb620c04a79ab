//! What a picture shows: objects, where they are and how they lie to each other.
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::ShapesConfig;
use super::draws::{Draws, Purpose};
use super::error::ShapesError;

/// Outline of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    Star,
    Ring,
}

impl Shape {
    /// All shapes; a data set with `num_shapes` = n uses the first n.
    pub const ALL: [Self; 7] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Diamond,
        Self::Cross,
        Self::Star,
        Self::Ring,
    ];
}

/// Named colour of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
    White,
    Black,
    Pink,
    Brown,
    Cyan,
}

impl Colour {
    /// All colours; a data set with `num_colours` = n uses the first n.
    pub const ALL: [Self; 11] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Orange,
        Self::White,
        Self::Black,
        Self::Pink,
        Self::Brown,
        Self::Cyan,
    ];

    /// The colour as red, green, blue in 0..=255.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [220, 35, 35],
            Self::Green => [35, 165, 55],
            Self::Blue => [40, 75, 225],
            Self::Yellow => [242, 222, 45],
            Self::Purple => [145, 45, 190],
            Self::Orange => [245, 135, 20],
            Self::White => [246, 246, 246],
            Self::Black => [18, 18, 18],
            Self::Pink => [252, 145, 190],
            Self::Brown => [112, 62, 28],
            Self::Cyan => [45, 208, 220],
        }
    }
}

/// Size class of an object. The classes' extents do not touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Size {
    Small,
    Medium,
    Large,
}

impl Size {
    /// All size classes, rising.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Least and greatest width of such an object in 64ths of the image size.
    pub fn extent(self) -> [u32; 2] {
        match self {
            Self::Small => [13, 15],
            Self::Medium => [18, 20],
            Self::Large => [23, 27],
        }
    }

    /// The classes in use when there are `num_sizes` of them.
    pub(super) fn in_use(num_sizes: usize) -> &'static [Self] {
        match num_sizes {
            0 | 1 => &[Self::Large],
            2 => &[Self::Small, Self::Large],
            _ => &Self::ALL,
        }
    }
}

/// One object of a scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SceneObject {
    /// Its outline.
    pub shape: Shape,
    /// Its colour's name.
    pub colour: Colour,
    /// Its size class.
    pub size: Size,
    /// `[x0, y0, x1, y1]` in pixels from the top left; x1 and y1 are the first beyond it.
    #[serde(rename = "box")]
    pub bbox: [u32; 4],
}

impl SceneObject {
    /// Twice the centre's x and y in pixels: whole numbers, so that comparisons are exact.
    pub fn doubled_centre(&self) -> [i64; 2] {
        let [x0, y0, x1, y1] = self.bbox.map(i64::from);
        [x0 + x1, y0 + y1]
    }
}

/// How one object lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Relation {
    Above,
    Below,
    LeftOf,
    RightOf,
}

impl Relation {
    /// All relations.
    pub const ALL: [Self; 4] = [Self::Above, Self::Below, Self::LeftOf, Self::RightOf];

    /// The relation of the second object to the first.
    pub fn inverse(self) -> Self {
        match self {
            Self::Above => Self::Below,
            Self::Below => Self::Above,
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
        }
    }

    /// The axis it speaks of (0 = x, 1 = y) and whether the first object comes first along it.
    fn axis(self) -> (usize, bool) {
        match self {
            Self::LeftOf => (0, true),
            Self::RightOf => (0, false),
            Self::Above => (1, true),
            Self::Below => (1, false),
        }
    }
}

/// Where in the picture an object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Place {
    Left,
    Right,
    Top,
    Bottom,
    Middle,
    TopLeft,
    TopRight,
    BottomLeft,
    BottomRight,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 9] = [
        Self::Left,
        Self::Right,
        Self::Top,
        Self::Bottom,
        Self::Middle,
        Self::TopLeft,
        Self::TopRight,
        Self::BottomLeft,
        Self::BottomRight,
    ];

    /// For each axis (x, y): -1 the low half, 1 the high half, 0 not said.
    fn sides(self) -> [i8; 2] {
        match self {
            Self::Left => [-1, 0],
            Self::Right => [1, 0],
            Self::Top => [0, -1],
            Self::Bottom => [0, 1],
            Self::Middle => [0, 0],
            Self::TopLeft => [-1, -1],
            Self::TopRight => [1, -1],
            Self::BottomLeft => [-1, 1],
            Self::BottomRight => [1, 1],
        }
    }
}

/// A picture's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// One to three objects whose boxes do not overlap.
    pub objects: Vec<SceneObject>,
    /// Seed of what is drawn behind and over the objects; below 2^32, so that every JSON reader
    /// keeps it exactly.
    #[serde(default)]
    pub seed: u64,
}

impl Scene {
    /// Scene number `index` of the data set; it depends on nothing but the settings and `index`.
    pub fn compose(config: &ShapesConfig, index: u64) -> Self {
        let mut draws = Draws::new(config.seed, index, Purpose::Scene);
        let seed = u64::from(draws.bits());
        let weights = [3, 4, 3];
        let wanted = 1 + draws.weighted(&weights[..config.max_objects.clamp(1, 3)]);
        let looks = draw_looks(config, wanted, &mut draws);
        let sizes = Size::in_use(config.num_sizes);
        let mut objects = Vec::new();
        for attempt in 0..200 {
            let boxes: Vec<_> = (0..wanted)
                .map(|_| {
                    // Three large objects can be impossible to place: fall back to the smallest.
                    let size = if attempt < 100 { draws.one_of(sizes) } else { sizes[0] };
                    (size, draw_box(config.image_size, size, &mut draws))
                })
                .collect();
            let clear = |first: usize, second: usize| {
                apart(boxes[first].1, boxes[second].1, scaled(config.gap, config.image_size).max(1))
            };
            if (0..wanted).all(|second| (0..second).all(|first| clear(first, second))) {
                objects = looks
                    .iter()
                    .zip(boxes)
                    .map(|(&(colour, shape), (size, bbox))| SceneObject {
                        shape,
                        colour,
                        size,
                        bbox,
                    })
                    .collect();
                break;
            }
        }
        if objects.is_empty() {
            let (colour, shape) = looks[0];
            let bbox = draw_box(config.image_size, sizes[0], &mut draws);
            objects.push(SceneObject { shape, colour, size: sizes[0], bbox });
        }
        Self { width: config.image_size, height: config.image_size, objects, seed }
    }

    /// Reads the `scene` object of a row of `metadata.jsonl`.
    ///
    /// # Errors
    /// [`ShapesError::Scene`] when a field is missing or of the wrong type, or a box is empty or
    /// reaches out of the picture.
    pub fn from_json(value: &Value) -> Result<Self, ShapesError> {
        let scene = Self::deserialize(value)
            .map_err(|source| ShapesError::Scene { reason: source.to_string() })?;
        for (number, object) in scene.objects.iter().enumerate() {
            let [x0, y0, x1, y1] = object.bbox;
            if x0 >= x1 || y0 >= y1 || x1 > scene.width || y1 > scene.height {
                return Err(ShapesError::Scene {
                    reason: format!(
                        "box {:?} of object {number} is empty or reaches out of the {}×{} picture",
                        object.bbox, scene.width, scene.height
                    ),
                });
            }
        }
        Ok(scene)
    }

    /// Whether `relation` holds between two objects, by their centres; false if either is missing.
    pub fn relation_holds(&self, first: usize, relation: Relation, second: usize) -> bool {
        self.centre_distance(first, relation, second).is_some_and(|distance| distance > 0)
    }

    /// Whether nobody would dispute the relation: the boxes leave a gap along its axis, and the
    /// distance along it is no small part of the whole. Captions state only such relations. Of any
    /// two objects whose boxes do not overlap at least one relation is clear.
    pub fn relation_is_clear(&self, first: usize, relation: Relation, second: usize) -> bool {
        let Some(distance) = self.centre_distance(first, relation, second) else { return false };
        let (one, other) = (&self.objects[first], &self.objects[second]);
        let (axis, _) = relation.axis();
        let extents = i64::from(one.bbox[axis + 2] - one.bbox[axis])
            + i64::from(other.bbox[axis + 2] - other.bbox[axis]);
        let across = 1 - axis;
        let aside = (one.doubled_centre()[across] - other.doubled_centre()[across]).abs();
        distance > extents && distance * 2 >= aside
    }

    /// Whether an object lies in this part of the picture, by its centre. The middle is the inner
    /// half of both axes.
    pub fn place_holds(&self, object: usize, place: Place) -> bool {
        self.place_within(object, place, 8)
    }

    /// Whether nobody would dispute the place: clearly off the middle, or clearly in it.
    pub fn place_is_clear(&self, object: usize, place: Place) -> bool {
        self.place_within(object, place, 6)
    }

    /// The place with a side reaching `limit` 16ths into the picture.
    fn place_within(&self, object: usize, place: Place, limit: i64) -> bool {
        let Some(object) = self.objects.get(object) else { return false };
        let centre = object.doubled_centre();
        let size = [i64::from(self.width), i64::from(self.height)];
        if place == Place::Middle {
            // 8 → within a quarter of the size from the centre, 6 → within an eighth.
            let reach = if limit >= 8 { 4 } else { 2 };
            return (0..2).all(|axis| (centre[axis] - size[axis]).abs() * 8 < size[axis] * reach);
        }
        (0..2).all(|axis| match place.sides()[axis] {
            -1 => centre[axis] * 8 < size[axis] * limit,
            1 => (2 * size[axis] - centre[axis]) * 8 < size[axis] * limit,
            _ => true,
        })
    }

    /// Sorts objects as people name them: the larger first, and of one size the one nearer to the
    /// middle, which says nothing of the side it lies on.
    pub(super) fn salience(&self, object: usize) -> (std::cmp::Reverse<usize>, i64) {
        let Some(it) = self.objects.get(object) else { return (std::cmp::Reverse(0), 0) };
        let size = Size::ALL.iter().position(|&size| size == it.size).unwrap_or(0);
        let [x, y] = it.doubled_centre();
        let (aside, off) = (x - i64::from(self.width), y - i64::from(self.height));
        (std::cmp::Reverse(size), aside * aside + off * off)
    }

    /// Twice the distance of the centres in the relation's direction; negative if it is false.
    fn centre_distance(&self, first: usize, relation: Relation, second: usize) -> Option<i64> {
        let one = self.objects.get(first)?.doubled_centre();
        let other = self.objects.get(second)?.doubled_centre();
        let (axis, comes_first) = relation.axis();
        let distance = other[axis] - one[axis];
        Some(if comes_first { distance } else { -distance })
    }
}

/// Colours and shapes for `count` objects, no two of which are alike in both.
fn draw_looks(config: &ShapesConfig, count: usize, draws: &mut Draws) -> Vec<(Colour, Shape)> {
    let colours = &Colour::ALL[..config.num_colours.clamp(1, Colour::ALL.len())];
    let shapes = &Shape::ALL[..config.num_shapes.clamp(1, Shape::ALL.len())];
    let total = colours.len() * shapes.len();
    let mut taken: Vec<usize> = Vec::with_capacity(count);
    for _ in 0..count.min(total) {
        let mut look = draws.below(total);
        while taken.contains(&look) {
            look = (look + 1) % total;
        }
        taken.push(look);
    }
    taken.iter().map(|look| (colours[look % colours.len()], shapes[look / colours.len()])).collect()
}

/// A box for an object of this size, somewhere in the picture, a little off its edges.
fn draw_box(image_size: u32, size: Size, draws: &mut Draws) -> [u32; 4] {
    let [low, high] = size.extent().map(|extent| scaled(extent, image_size) as i32);
    let extent = draws.between(low, high);
    let edge = scaled(2, image_size) as i32;
    let mut corner = || draws.between(edge, image_size as i32 - edge - extent) as u32;
    let (x, y) = (corner(), corner());
    [x, y, x + extent as u32, y + extent as u32]
}

/// Whether two boxes leave at least `gap` pixels between them along one axis.
fn apart(one: [u32; 4], other: [u32; 4], gap: u32) -> bool {
    (0..2).any(|axis| one[axis + 2] + gap <= other[axis] || other[axis + 2] + gap <= one[axis])
}

/// A length given in 64ths of the image size, in pixels.
fn scaled(sixty_fourths: u32, image_size: u32) -> u32 {
    (sixty_fourths * image_size + 32) / 64
}
