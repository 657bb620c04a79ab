//! Turns a scene into pixels, with integers only.
//!
//! Floating-point results may differ in the last bit between platforms and compilers; the same
//! scene must give the same bytes everywhere.
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageError, Rgb, RgbImage};

use super::config::ShapesConfig;
use super::draws::{Draws, Purpose};
use super::scene::{Colour, Scene, SceneObject, Shape};

/// Samples along each axis of a pixel; their mean is the share of the pixel that is covered.
const SAMPLES: i32 = 4;
/// Length units of a pixel, so that every sample point is a whole number of units.
const UNITS: i32 = 2 * SAMPLES;

/// Draws a scene. Of the settings only `texture`, `noise`, `colour_jitter` and `distractors` are
/// read. Taking an object away changes no pixel outside its box.
pub fn draw(scene: &Scene, config: &ShapesConfig) -> RgbImage {
    let mut canvas = background(scene, config);
    for object in &scene.objects {
        paint(&mut canvas, object, object_colour(scene, object, config));
    }
    add_noise(&mut canvas, scene, config);
    canvas
}

/// The image as PNG bytes, with settings that give the same bytes everywhere.
///
/// # Errors
/// The encoder's own, for an image of width or height 0.
pub fn encode_png(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    // Fixed filter and the `fdeflate` compressor: no other crate's feature flags change the result.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Paeth)
        .write_image(image.as_raw(), image.width(), image.height(), ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

/// A dull grey of some tint with a soft pattern, so that every named colour stands out from it.
fn background(scene: &Scene, config: &ShapesConfig) -> RgbImage {
    let mut draws = Draws::new(scene.seed, 0, Purpose::Background);
    let grey = draws.between(98, 158);
    let base: [i32; 3] = std::array::from_fn(|_| grey + draws.between(-10, 10));
    let weights: [i32; 3] = std::array::from_fn(|_| draws.between(11, 16));
    let strength = i32::from(config.texture);
    let (width, height) = (scene.width as i32, scene.height as i32);
    let pattern = Pattern::draw(width, height, &mut draws);
    let mut canvas = RgbImage::from_fn(scene.width, scene.height, |x, y| {
        let level = pattern.level(x as i32, y as i32) * strength;
        Rgb(std::array::from_fn(|channel| {
            clamp_level(base[channel] + level * weights[channel] / (16 * Pattern::FULL))
        }))
    });
    for _ in 0..draws.below(config.distractors + 1) {
        paint_speck(&mut canvas, &mut draws);
    }
    canvas
}

/// A soft pattern: gradient, stripes or blotches, always with some finer blotches on top.
struct Pattern {
    kind: Kind,
    coarse: ValueNoise,
    fine: ValueNoise,
}

enum Kind {
    Blotches,
    /// Levels rise along a direction, over `span` from `lowest` at one corner of the picture.
    Gradient {
        direction: [i32; 2],
        lowest: i32,
        span: i32,
    },
    Stripes {
        direction: [i32; 2],
        period: i32,
        phase: i32,
    },
}

impl Pattern {
    /// Levels lie in `-FULL..=FULL`.
    const FULL: i32 = 128;

    fn draw(width: i32, height: i32, draws: &mut Draws) -> Self {
        let direction =
            draws.one_of(&[[1, 0], [0, 1], [1, 1], [1, -1], [2, 1], [1, 2], [2, -1], [1, -2]]);
        let kind = match draws.below(3) {
            0 => Kind::Blotches,
            1 => {
                let sign = draws.one_of(&[-1, 1]);
                let direction = direction.map(|step: i32| step * sign);
                let reach = [direction[0] * (width - 1), direction[1] * (height - 1)];
                Kind::Gradient {
                    direction,
                    lowest: reach[0].min(0) + reach[1].min(0),
                    span: (reach[0].abs() + reach[1].abs()).max(1),
                }
            }
            _ => {
                let steps = direction[0].abs() + direction[1].abs();
                let period = (draws.between(7, 16) * width.max(64) / 64 * steps).max(2);
                Kind::Stripes { direction, period, phase: draws.between(0, period - 1) }
            }
        };
        let cell = |sixty_fourths: i32| (sixty_fourths * width.max(height) / 64).max(2);
        Self {
            kind,
            coarse: ValueNoise::draw(width, height, cell(16), draws),
            fine: ValueNoise::draw(width, height, cell(6), draws),
        }
    }

    fn level(&self, x: i32, y: i32) -> i32 {
        let main = match &self.kind {
            Kind::Blotches => self.coarse.level(x, y),
            Kind::Gradient { direction, lowest, span } => {
                let along = x * direction[0] + y * direction[1] - lowest;
                Self::FULL * (2 * along - span) / span
            }
            Kind::Stripes { direction, period, phase } => {
                let along = (x * direction[0] + y * direction[1] + phase).rem_euclid(*period);
                // A triangle wave: sharp stripes would look like objects.
                Self::FULL * (2 * (2 * along - period).abs() - period) / period
            }
        };
        (3 * main + self.fine.level(x, y)) / 4
    }
}

/// Random levels on a coarse lattice, linear in between.
struct ValueNoise {
    cell: i32,
    columns: i32,
    lattice: Vec<i32>,
}

impl ValueNoise {
    fn draw(width: i32, height: i32, cell: i32, draws: &mut Draws) -> Self {
        let (columns, rows) = (width / cell + 2, height / cell + 2);
        let lattice =
            (0..columns * rows).map(|_| draws.between(-Pattern::FULL, Pattern::FULL)).collect();
        Self { cell, columns, lattice }
    }

    fn level(&self, x: i32, y: i32) -> i32 {
        let (column, row) = (x / self.cell, y / self.cell);
        let (right, down) = (x % self.cell, y % self.cell);
        let corner =
            |i: i32, j: i32| self.lattice[((row + j) * self.columns + column + i) as usize];
        let along = |j: i32| corner(0, j) * (self.cell - right) + corner(1, j) * right;
        (along(0) * (self.cell - down) + along(1) * down) / (self.cell * self.cell)
    }
}

/// A coloured speck, far smaller than the smallest object.
fn paint_speck(canvas: &mut RgbImage, draws: &mut Draws) {
    let (width, height) = (canvas.width() as i32, canvas.height() as i32);
    let extent = (draws.between(2, 3) * width.min(height) / 64).max(1);
    let (left, top) = (draws.between(0, width - extent), draws.between(0, height - extent));
    let colour = draws.one_of(&Colour::ALL).rgb();
    for y in top..top + extent {
        for x in left..left + extent {
            blend(canvas.get_pixel_mut(x as u32, y as u32), colour, 10);
        }
    }
}

/// The named colour with the object's own slight shift.
fn object_colour(scene: &Scene, object: &SceneObject, config: &ShapesConfig) -> [u8; 3] {
    // Numbered by place, not by order: other objects' colours stay when one is taken away.
    let number = (u64::from(object.bbox[1]) << 32) | u64::from(object.bbox[0]);
    let mut draws = Draws::new(scene.seed, number, Purpose::Jitter);
    let jitter = i32::from(config.colour_jitter);
    object.colour.rgb().map(|level| clamp_level(i32::from(level) + draws.between(-jitter, jitter)))
}

/// Paints an object that fills its box exactly.
fn paint(canvas: &mut RgbImage, object: &SceneObject, colour: [u8; 3]) {
    let [x0, y0, x1, y1] = object.bbox;
    let extent = [(x1 - x0) as i32 * UNITS, (y1 - y0) as i32 * UNITS];
    for y in y0..y1.min(canvas.height()) {
        for x in x0..x1.min(canvas.width()) {
            let corner = [(x - x0) as i32 * UNITS, (y - y0) as i32 * UNITS];
            let covered = (0..SAMPLES * SAMPLES)
                .filter(|sample| {
                    let point = [
                        corner[0] + 2 * (sample % SAMPLES) + 1,
                        corner[1] + 2 * (sample / SAMPLES) + 1,
                    ];
                    covers(object.shape, point, extent)
                })
                .count();
            blend(canvas.get_pixel_mut(x, y), colour, covered as i32);
        }
    }
}

/// Whether a shape that fills `extent` covers `point`, both in units from the box's top left.
fn covers(shape: Shape, point: [i32; 2], extent: [i32; 2]) -> bool {
    let half = [i64::from(extent[0]), i64::from(extent[1])];
    // From the centre, doubled, so that the box reaches from -half to half.
    let [across, down] = [0, 1].map(|axis| 2 * i64::from(point[axis]) - half[axis]);
    let radius = half[0].min(half[1]);
    let distance = across * across + down * down;
    match shape {
        Shape::Circle => distance <= radius * radius,
        Shape::Square => true,
        // The width grows from nothing at the top to all of it at the bottom.
        Shape::Triangle => 2 * across.abs() * half[1] <= half[0] * (down + half[1]),
        Shape::Diamond => across.abs() * half[1] + down.abs() * half[0] <= half[0] * half[1],
        Shape::Cross => 3 * across.abs() <= half[0] || 3 * down.abs() <= half[1],
        Shape::Star => inside_star([across * 1000 / half[0], down * 1000 / half[1]]),
        Shape::Ring => distance <= radius * radius && 4 * distance >= radius * radius,
    }
}

/// Corners of a five-pointed star in thousandths, from -1000 to 1000 on both axes.
const STAR: [[i64; 2]; 10] = [
    [0, -1000],
    [278, -297],
    [1000, -236],
    [450, 259],
    [618, 1000],
    [0, 603],
    [-618, 1000],
    [-450, 259],
    [-1000, -236],
    [-278, -297],
];

/// Even-odd rule: a ray to the right crosses the outline an odd number of times.
fn inside_star([x, y]: [i64; 2]) -> bool {
    let mut inside = false;
    for corner in 0..STAR.len() {
        let [x0, y0] = STAR[corner];
        let [x1, y1] = STAR[(corner + 1) % STAR.len()];
        if (y0 > y) != (y1 > y) {
            let side = (x - x0) * (y1 - y0) - (x1 - x0) * (y - y0);
            if (side < 0) == (y1 > y0) {
                inside = !inside;
            }
        }
    }
    inside
}

/// Noise of a triangular distribution on every pixel: a common part and one a channel.
fn add_noise(canvas: &mut RgbImage, scene: &Scene, config: &ShapesConfig) {
    let strength = i32::from(config.noise);
    if strength == 0 {
        return;
    }
    let mut draws = Draws::new(scene.seed, 0, Purpose::Noise);
    for pixel in canvas.pixels_mut() {
        let common = draws.between(-strength, strength);
        for level in &mut pixel.0 {
            let noise = (common + draws.between(-strength, strength)) / 2;
            *level = clamp_level(i32::from(*level) + noise);
        }
    }
}

/// Mixes `covered` 16ths of a colour into a pixel.
fn blend(pixel: &mut Rgb<u8>, colour: [u8; 3], covered: i32) {
    const FULL: i32 = SAMPLES * SAMPLES;
    for (level, target) in pixel.0.iter_mut().zip(colour) {
        let mixed = i32::from(*level) * (FULL - covered) + i32::from(target) * covered;
        *level = clamp_level((mixed + FULL / 2) / FULL);
    }
}

fn clamp_level(level: i32) -> u8 {
    level.clamp(0, 255) as u8
}
