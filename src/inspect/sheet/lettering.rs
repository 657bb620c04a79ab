//! Text on an image: the fonts that ship, the machine's own for scripts those do not cover, a box
//! for what nobody covers. No shaping: letters stand one behind the other, marks on the letter
//! before them where the font places them there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use ab_glyph::{Font, FontArc, FontVec, GlyphId, GlyphImageFormat, PxScale, ScaleFont, point};
use image::imageops::{FilterType, resize};
use image::{ImageFormat, Rgb, RgbImage, Rgba};
use walkdir::WalkDir;

/// Files beyond this are no fonts of ours (the largest CJK collections have about 20 MB).
const LARGEST_FONT: u64 = 96 << 20;

static SHIPPED: LazyLock<Vec<FontArc>> = LazyLock::new(|| {
    [epaint_default_fonts::UBUNTU_LIGHT, epaint_default_fonts::HACK_REGULAR]
        .into_iter()
        .filter_map(|bytes| FontArc::try_from_slice(bytes).ok())
        .collect()
});

/// What was found on this machine so far; a search reads every font, so none is made twice.
static FOUND: Mutex<Found> = Mutex::new(Found { fonts: Vec::new(), uncovered: None });

struct Found {
    fonts: Vec<FontArc>,
    /// Characters that no font here covers.
    uncovered: Option<HashSet<char>>,
}

/// Measures and draws text in one size.
#[derive(Clone)]
pub(super) struct Lettering {
    fonts: Vec<FontArc>,
    size: f32,
}

impl Lettering {
    /// Letters of `size` pixels (from the highest ascender to the lowest descender) that cover
    /// `text` as well as the shipped fonts can, and where `search` is set, the machine's.
    pub fn new(size: f32, text: &str, search: bool) -> Self {
        let mut fonts = SHIPPED.clone();
        if search {
            fonts.extend(system_fonts(text));
        }
        Self { fonts, size: size.clamp(1.0, 512.0) }
    }

    /// The same fonts in another size.
    pub fn sized(&self, size: f32) -> Self {
        Self { fonts: self.fonts.clone(), size: size.clamp(1.0, 512.0) }
    }

    /// Height of a line, in pixels.
    pub fn line_height(&self) -> u32 {
        (self.size * 1.22).ceil() as u32
    }

    /// Width of `text`, in pixels.
    pub fn width(&self, text: &str) -> f32 {
        text.chars().map(|character| self.advance(character)).sum()
    }

    /// `text` cut to `width` pixels, with an ellipsis where something was cut.
    pub fn fit(&self, text: &str, width: f32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut room = width - self.advance('…');
        let kept: String = text
            .chars()
            .take_while(|character| {
                room -= self.advance(*character);
                room >= 0.0
            })
            .collect();
        format!("{}…", kept.trim_end())
    }

    /// `text` in lines of at most `width` pixels, broken at spaces, or within a word that is wider.
    pub fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        for paragraph in text.lines() {
            let mut line = String::new();
            for word in paragraph.split_whitespace() {
                let longer =
                    if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
                if self.width(&longer) <= width {
                    line = longer;
                    continue;
                }
                if !line.is_empty() {
                    lines.push(std::mem::take(&mut line));
                }
                for character in word.chars() {
                    if !line.is_empty() && self.width(&line) + self.advance(character) > width {
                        lines.push(std::mem::take(&mut line));
                    }
                    line.push(character);
                }
            }
            lines.push(line);
        }
        lines
    }

    /// Draws `text` with the top left corner of its line at `left`, `top`.
    pub fn draw(&self, image: &mut RgbImage, left: f32, top: f32, colour: [u8; 3], text: &str) {
        let baseline = top + self.size * 0.95;
        let mut cursor = left;
        for character in text.chars() {
            let advance = self.advance(character);
            match self.glyph(character) {
                Some((font, glyph)) => {
                    if font.outline(glyph).is_none()
                        && self.picture(image, font, glyph, [cursor, baseline])
                    {
                        cursor += advance;
                        continue;
                    }
                    let glyph =
                        glyph.with_scale_and_position(self.scale(font), point(cursor, baseline));
                    if let Some(outline) = font.outline_glyph(glyph) {
                        let bounds = outline.px_bounds();
                        let (x, y) = (bounds.min.x as i64, bounds.min.y as i64);
                        outline.draw(|column, row, coverage| {
                            // The shipped font is a light one: at these sizes thin strokes would
                            // come out grey.
                            let coverage = (coverage * 1.35).min(1.0);
                            blend(
                                image,
                                x + i64::from(column),
                                y + i64::from(row),
                                colour,
                                coverage,
                            );
                        });
                    }
                }
                None if advance > 0.0 => {
                    let (width, height) = ((advance * 0.8) as i64, (self.size * 0.7) as i64);
                    let (x, y) = ((cursor + advance * 0.1) as i64, baseline as i64 - height);
                    for step in 0..width.max(height) + 1 {
                        for (column, row) in [(step, 0), (step, height), (0, step), (width, step)] {
                            if column <= width && row <= height {
                                blend(image, x + column, y + row, colour, 0.5);
                            }
                        }
                    }
                }
                None => {}
            }
            cursor += advance;
        }
    }

    /// What is drawn as a box, each letter once.
    pub fn missing(&self, text: &str) -> Vec<char> {
        let mut missing: Vec<char> =
            text.chars().filter(|letter| self.is_missing(*letter)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn is_missing(&self, letter: char) -> bool {
        !is_invisible(letter) && !letter.is_whitespace() && self.glyph(letter).is_none()
    }

    /// Draws the picture that a colour font has of a glyph; whether there is one.
    fn picture(
        &self,
        image: &mut RgbImage,
        font: &FontArc,
        glyph: GlyphId,
        place: [f32; 2],
    ) -> bool {
        let Some(found) = font.glyph_raster_image2(glyph, u16::MAX) else { return false };
        if !matches!(found.format, GlyphImageFormat::Png) {
            return false;
        }
        let Ok(picture) = image::load_from_memory_with_format(found.data, ImageFormat::Png) else {
            return false;
        };
        let side = self.size.round().max(1.0) as u32;
        let picture = resize(&picture.to_rgba8(), side, side, FilterType::Triangle);
        let (left, top) = (place[0].round() as i64, (place[1] - 0.85 * self.size).round() as i64);
        for (x, y, Rgba([red, green, blue, alpha])) in picture.enumerate_pixels() {
            let coverage = f32::from(*alpha) / 255.0;
            blend(image, left + i64::from(x), top + i64::from(y), [*red, *green, *blue], coverage);
        }
        true
    }

    fn scale(&self, font: &FontArc) -> PxScale {
        // One size of letters from every font, whatever height it claims for its lines.
        let units = font.units_per_em().unwrap_or(1000.0).max(1.0);
        PxScale::from(self.size * 0.86 * font.height_unscaled() / units)
    }

    fn glyph(&self, character: char) -> Option<(&FontArc, GlyphId)> {
        self.fonts.iter().find_map(|font| {
            let glyph = font.glyph_id(character);
            (glyph != GlyphId(0)).then_some((font, glyph))
        })
    }

    fn advance(&self, character: char) -> f32 {
        if is_invisible(character) {
            return 0.0;
        }
        match self.glyph(character) {
            // What a colour font says of its widths fits its pictures, which are as wide as high.
            Some((font, glyph)) if has_picture(font, glyph) => 1.1 * self.size,
            Some((font, glyph)) => font.as_scaled(self.scale(font)).h_advance(glyph),
            None => self.size * 0.62,
        }
    }
}

fn is_invisible(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200B}'..='\u{200F}' | '\u{FE00}'..='\u{FE0F}')
}

fn blend(image: &mut RgbImage, x: i64, y: i64, colour: [u8; 3], coverage: f32) {
    let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
    if let Some(Rgb(pixel)) = image.get_pixel_mut_checked(x, y) {
        for (old, new) in pixel.iter_mut().zip(colour) {
            let (from, to) = (f32::from(*old), f32::from(new));
            *old = (from + (to - from) * coverage + 0.5) as u8;
        }
    }
}

/// Whether a colour font has a PNG file of a glyph.
fn has_picture(font: &impl Font, glyph: GlyphId) -> bool {
    let found = font.glyph_raster_image2(glyph, u16::MAX);
    found.is_some_and(|found| matches!(found.format, GlyphImageFormat::Png))
}

/// Fonts of this machine that cover what the shipped ones leave of `text`.
fn system_fonts(text: &str) -> Vec<FontArc> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let Found { fonts, uncovered } = &mut *found;
    let uncovered = uncovered.get_or_insert_default();
    let covers = |font: &FontArc, character: char| font.glyph_id(character) != GlyphId(0);
    let mut missing: HashSet<char> = text
        .chars()
        .filter(|character| !is_invisible(*character) && !character.is_whitespace())
        .filter(|character| !uncovered.contains(character))
        .filter(|character| !SHIPPED.iter().chain(&*fonts).any(|font| covers(font, *character)))
        .collect();
    if !missing.is_empty() {
        for path in font_files() {
            if missing.is_empty() {
                break;
            }
            let Some(font) = read_font(&path, &missing) else { continue };
            missing.retain(|character| !covers(&font, *character));
            fonts.push(font);
        }
        uncovered.extend(missing);
    }
    fonts.clone()
}

/// The first face of a font file or collection that has one of `wanted`.
fn read_font(path: &Path, wanted: &HashSet<char>) -> Option<FontArc> {
    let bytes = fs::read(path).ok()?;
    let faces = if bytes.starts_with(b"ttcf") { 8 } else { 1 };
    for face in 0..faces {
        let font = FontVec::try_from_vec_and_index(bytes.clone(), face).ok()?;
        // A glyph has an outline or, in colour fonts, a picture; some have neither.
        let drawable = |character: &char| {
            let glyph = font.glyph_id(*character);
            glyph != GlyphId(0) && (font.outline(glyph).is_some() || has_picture(&font, glyph))
        };
        if wanted.iter().any(drawable) {
            return Some(FontArc::new(font));
        }
    }
    None
}

/// Font files of this machine: those whose names promise many scripts first, plain styles first.
fn font_files() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = [
        "/usr/share/fonts",
        "/usr/local/share/fonts",
        "/System/Library/Fonts",
        "/Library/Fonts",
        "C:\\Windows\\Fonts",
    ]
    .map(PathBuf::from)
    .into();
    if let Some(home) = std::env::home_dir() {
        folders
            .extend([".fonts", ".local/share/fonts", "Library/Fonts"].map(|name| home.join(name)));
    }
    let mut files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| WalkDir::new(folder).max_depth(6).sort_by_file_name())
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file() || entry.path_is_symlink())
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.len() <= LARGEST_FONT))
        .map(walkdir::DirEntry::into_path)
        .filter(|path| {
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            ["ttf", "otf", "ttc", "otc"].iter().any(|known| extension == *known)
        })
        .collect();
    files.sort_by_cached_key(|path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        let styled =
            has(&["bold", "italic", "oblique", "thin", "black", "condensed", "mono", "serif"]);
        let broad = has(&["sans", "noto", "unicode", "nirmala", "kohinoor", "hiragino", "meiryo"]);
        (styled, !broad)
    });
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(size: f32) -> Lettering {
        Lettering::new(size, "", false)
    }

    fn ink(lettering: &Lettering, text: &str) -> u64 {
        let mut image = RgbImage::from_pixel(300, 40, Rgb([255; 3]));
        lettering.draw(&mut image, 5.0, 5.0, [0; 3], text);
        image.pixels().map(|Rgb([red, _, _])| u64::from(255 - red)).sum()
    }

    #[test]
    fn letters_have_width_and_ink() {
        let lettering = shipped(16.0);
        assert!(lettering.width("mm") > 1.9 * lettering.width("i"));
        assert!(ink(&lettering, "a red circle 0.93") > 2000);
        assert_eq!(ink(&lettering, " "), 0);
        // Greek and Cyrillic are covered by what ships: more ink than boxes would leave.
        assert!(shipped(16.0).glyph('ж').is_some() && shipped(16.0).glyph('ω').is_some());
    }

    #[test]
    fn what_no_font_covers_is_a_box() {
        let lettering = shipped(16.0);
        assert!(lettering.glyph('犬').is_none());
        assert!(lettering.width("犬") > 5.0);
        assert!(ink(&lettering, "犬") > 500);
        assert_eq!(ink(&lettering, "\u{200D}\u{FE0F}"), 0);
    }

    #[test]
    fn a_machine_without_the_font_is_asked_once() {
        // A private-use character: no font has it, and the search must end and be remembered.
        let text = "\u{10FFFD}";
        Lettering::new(16.0, text, true);
        let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(found.uncovered.as_ref().is_some_and(|set| set.contains(&'\u{10FFFD}')));
    }

    #[test]
    fn lines_are_no_wider_than_asked() {
        let lettering = shipped(14.0);
        let text =
            "a small red circle above a large blue square averyveryverylongwordwithoutspaces";
        let lines = lettering.wrap(text, 90.0);
        assert!(lines.len() > 3);
        assert!(lines.iter().all(|line| lettering.width(line) <= 90.0), "{lines:?}");
        let joined: String = lines.concat().split_whitespace().collect();
        assert_eq!(joined, text.split_whitespace().collect::<String>());
        assert_eq!(lettering.wrap("", 90.0), Vec::<String>::new());
        // Narrower than a letter: one letter a line, and an end.
        assert_eq!(lettering.wrap("abc", 1.0), ["a", "b", "c"]);
    }

    #[test]
    fn long_text_is_cut_with_an_ellipsis() {
        let lettering = shipped(14.0);
        assert_eq!(lettering.fit("dog", 100.0), "dog");
        let cut = lettering.fit("snowboarders", 50.0);
        assert!(cut.ends_with('…') && lettering.width(&cut) <= 50.0, "{cut}");
    }
}
