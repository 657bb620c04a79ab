//! Maps as text, for a terminal: the photo and the heat of each word in half-block characters, or where no
//! colour may be, cells as characters from little to much.
//!
//! Knows pixels, numbers and escape codes; who may see colour is the caller's affair.

use std::fmt::Write;

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::colour::ColourMap;
use super::sheet::LEAST_CEILING;
use crate::escape::visible;

/// One map.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminalMap {
    /// The word.
    pub title: String,
    /// What stands beside it.
    pub note: String,
    /// `rows * cols` values, row by row; what is negative counts as 0.
    pub map: Vec<f32>,
}

/// What is shown.
#[derive(Debug, Clone)]
pub struct TerminalSheet<'a> {
    /// The image that was captioned.
    pub photo: &'a RgbImage,
    /// The part of it that the grid covers, `[x0, y0, x1, y1]` in its pixels.
    pub region: [f32; 4],
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub cols: usize,
    /// One map a word, in order; one scale serves them all.
    pub maps: Vec<TerminalMap>,
}

/// From little to much.
const SHADES: [char; 10] = [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'];
/// Columns of a panel, with colour.
const WIDE: u32 = 36;
/// Most lines of a panel, with colour.
const TALLEST: u32 = 24;
const GAP: usize = 2;

/// The panels, as many side by side as `columns` characters hold; each line ends with a line break.
pub fn render(sheet: &TerminalSheet<'_>, columns: usize, colour: Option<ColourMap>) -> String {
    let even = 1.0 / (sheet.rows * sheet.cols).max(1) as f32;
    let all = sheet.maps.iter().flat_map(|map| &map.map).copied().filter(|value| value.is_finite());
    let ceiling = all.fold(LEAST_CEILING * even, f32::max);
    let panels: Vec<Panel> = match colour {
        Some(colours) => {
            let whole = TerminalMap { title: "photo".into(), note: String::new(), map: Vec::new() };
            let each = std::iter::once(&whole).chain(&sheet.maps);
            each.map(|map| coloured(sheet, map, ceiling, colours)).collect()
        }
        None => sheet.maps.iter().map(|map| shaded(sheet, map, ceiling)).collect(),
    };
    let width = panels.iter().map(|panel| panel.width).max().unwrap_or(1);
    let beside = ((columns + GAP) / (width + GAP)).max(1);
    let mut out = String::new();
    for row in panels.chunks(beside) {
        let height = row.iter().map(|panel| panel.lines.len()).max().unwrap_or(0);
        for line in 0..height {
            let mut text = String::new();
            for panel in row {
                match panel.lines.get(line) {
                    Some(part) => text.push_str(part),
                    None => text.push_str(&" ".repeat(panel.width)),
                }
                text.push_str(&" ".repeat(width - panel.width + GAP));
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out.push('\n');
    }
    let top = ceiling / even;
    let _ = match colour {
        Some(_) => writeln!(out, "one scale for all words, up to {top:.1}× an even share"),
        None => {
            let shades: String = SHADES.iter().collect();
            writeln!(out, "one scale for all words: \"{shades}\" from 0 to {top:.1}× an even share")
        }
    };
    out
}

struct Panel {
    width: usize,
    /// Each as wide as the panel, escape codes aside.
    lines: Vec<String>,
}

/// `text` as wide as the panel.
fn fitted(text: &str, width: usize) -> String {
    let count = text.chars().count();
    match count <= width {
        true => format!("{text}{}", " ".repeat(width - count)),
        false => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn title(map: &TerminalMap, width: usize) -> String {
    // A word of another's making must not steer the terminal.
    let title = visible(&map.title);
    fitted(&format!("{title}  {}", map.note), width)
}

fn shaded(sheet: &TerminalSheet<'_>, map: &TerminalMap, ceiling: f32) -> Panel {
    let width = (2 * sheet.cols).max(16);
    let mut lines = vec![title(map, width)];
    for row in map.map.chunks(sheet.cols.max(1)) {
        let cells = row.iter().flat_map(|value| {
            let share = (value / ceiling).clamp(0.0, 1.0);
            // Whatever is more than nothing is to be seen.
            let shade = (share * (SHADES.len() - 1) as f32).round() as usize;
            [SHADES[shade.min(SHADES.len() - 1)]; 2]
        });
        lines.push(fitted(&cells.collect::<String>(), width));
    }
    lines.push(" ".repeat(width));
    Panel { width, lines }
}

fn coloured(
    sheet: &TerminalSheet<'_>,
    map: &TerminalMap,
    ceiling: f32,
    colours: ColourMap,
) -> Panel {
    let (photo_width, photo_height) = sheet.photo.dimensions();
    let scale = f64::from(WIDE) / f64::from(photo_width.max(1));
    // Two pixels above each other share a character.
    let tall = ((f64::from(photo_height) * scale).round() as u32).clamp(2, 2 * TALLEST);
    let small = resize(sheet.photo, WIDE, tall, FilterType::Triangle);
    let step = [photo_width as f32 / WIDE as f32, photo_height as f32 / tall as f32];
    let pixel = |x: u32, y: u32| -> [u8; 3] {
        if y >= tall {
            return [0; 3];
        }
        let [red, green, blue] = small.get_pixel(x, y).0;
        if map.map.is_empty() {
            return [red, green, blue];
        }
        let grey = 0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue);
        let at = [(x as f32 + 0.5) * step[0], (y as f32 + 0.5) * step[1]];
        let Some(value) = value_at(sheet, &map.map, at) else { return [(grey / 3.0) as u8; 3] };
        let heat = colours.colour(value / ceiling);
        heat.map(|part| (0.3 * grey + 0.7 * f32::from(part)) as u8)
    };
    let width = WIDE as usize;
    let mut lines = vec![title(map, width)];
    for y in (0..tall).step_by(2) {
        let mut line = String::new();
        for x in 0..WIDE {
            let ([r, g, b], [r2, g2, b2]) = (pixel(x, y), pixel(x, y + 1));
            let _ = write!(line, "\x1b[38;2;{r};{g};{b};48;2;{r2};{g2};{b2}m▀");
        }
        line.push_str("\x1b[0m");
        lines.push(line);
    }
    lines.push(" ".repeat(width));
    Panel { width, lines }
}

/// The value of the cell under a point of the photo.
fn value_at(sheet: &TerminalSheet<'_>, map: &[f32], [x, y]: [f32; 2]) -> Option<f32> {
    let [x0, y0, x1, y1] = sheet.region;
    let (across, down) = ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0));
    if !((0.0..1.0).contains(&across) && (0.0..1.0).contains(&down)) {
        return None;
    }
    let (col, row) = (across * sheet.cols as f32, down * sheet.rows as f32);
    map.get(row as usize * sheet.cols + col as usize).copied()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn sheet(photo: &RgbImage) -> TerminalSheet<'_> {
        let map = |title: &str, map: [f32; 4]| TerminalMap {
            title: title.into(),
            note: "p .9".into(),
            map: map.into(),
        };
        TerminalSheet {
            photo,
            region: [0.0, 0.0, 60.0, 40.0],
            rows: 2,
            cols: 2,
            maps: vec![map("dog", [0.0, 1.0, 0.5, 0.1]), map("\x1b[2Jevil", [0.25; 4])],
        }
    }

    #[test]
    fn without_colour_cells_are_characters_on_one_scale() {
        let photo = RgbImage::from_pixel(60, 40, Rgb([90; 3]));
        let text = render(&sheet(&photo), 80, None);
        let lines: Vec<&str> = text.lines().collect();
        // Two panels of 16 characters, and two between them.
        assert!(lines[0].starts_with(&format!("{:18}", "dog  p .9")), "{text}");
        assert_eq!(lines[1], format!("{:18}::::", "  @@"), "{text}");
        assert_eq!(lines[2], format!("{:18}::::", "++.."), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        // One below the other where there is no room.
        assert!(render(&sheet(&photo), 20, None).lines().count() > lines.len());
    }

    #[test]
    fn with_colour_every_line_is_reset() {
        let photo = RgbImage::from_pixel(60, 40, Rgb([90; 3]));
        let text = render(&sheet(&photo), 200, Some(ColourMap::Inferno));
        let drawn: Vec<&str> = text.lines().filter(|line| line.contains('▀')).collect();
        assert_eq!(drawn.len(), 12);
        for line in drawn {
            assert_eq!(line.matches('▀').count(), 3 * WIDE as usize);
            assert!(line.ends_with("\x1b[0m"));
        }
        assert!(!text.contains("\x1b[2J"));
    }
}
