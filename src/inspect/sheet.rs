//! The attention sheet: the photo, then one panel a word with its heat over the photo.
//!
//! Knows pixels and numbers only: what the heat means and where it came from is the caller's affair.

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use super::colour::ColourMap;
use heat::Heat;
pub use heat::LEAST_CEILING;
use lettering::Lettering;

mod heat;
mod lettering;

/// One word and its heat.
#[derive(Clone, Debug, PartialEq)]
pub struct SheetPanel {
    /// The word.
    pub title: String,
    /// What stands beside the word, such as "0.93"; may be empty.
    pub note: String,
    /// `rows * cols` values, row by row, on any scale from 0. What is negative or not finite counts
    /// as 0, and so does what is missing.
    pub heat: Vec<f32>,
    /// Whether it is a word of less interest: half as wide, below the others.
    pub small: bool,
}

/// A rectangle in pixels of the photo; its edges may lie between pixels and beyond the photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl Region {
    /// All of a photo.
    pub fn whole(photo: &RgbImage) -> Self {
        Self { x0: 0.0, y0: 0.0, x1: photo.width() as f32, y1: photo.height() as f32 }
    }
}

/// What a sheet shows.
#[derive(Clone, Debug)]
pub struct Sheet<'a> {
    /// The image that was captioned.
    pub photo: &'a RgbImage,
    /// The part of it that the grid covers: less than the photo where it was cropped, more where it
    /// was padded.
    pub region: Region,
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub cols: usize,
    /// The text on top.
    pub caption: &'a str,
    /// Small print at the bottom; may be empty.
    pub footer: &'a str,
    /// One panel a word, in order.
    pub panels: Vec<SheetPanel>,
}

/// How the grid's values are spread over the pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeatFilter {
    /// Catmull-Rom splines: smooth, through the values.
    #[default]
    Bicubic,
    /// Each cell of the grid in one colour.
    Nearest,
}

/// How a sheet looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SheetStyle {
    /// Width of a panel in pixels, 180 to 2000. Tall photos get narrower pictures.
    pub panel_width: u32,
    /// Most panels in a row, 1 or more.
    pub columns: usize,
    /// Colours of the heat.
    pub colour_map: ColourMap,
    /// How the grid is enlarged.
    pub filter: HeatFilter,
    /// Share of colour over the grey photo, 0 to 1.
    pub opacity: f32,
    /// Whether fonts of this machine may be searched for letters that the shipped ones lack. The
    /// sheet then depends on the machine, for such letters only.
    pub system_fonts: bool,
}

impl Default for SheetStyle {
    fn default() -> Self {
        Self {
            panel_width: 300,
            columns: 4,
            colour_map: ColourMap::Inferno,
            filter: HeatFilter::Bicubic,
            opacity: 0.62,
            system_fonts: true,
        }
    }
}

const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [24, 24, 28];
const QUIET: [u8; 3] = [96, 96, 104];
const MARGIN: u32 = 20;
const GAP: u32 = 14;
const BAR_HEIGHT: u32 = 7;
/// A photo taller than this many times its width gets a narrower picture.
const TALLEST: f32 = 1.4;

/// Letters of `text` that neither the fonts that ship nor, with [`SheetStyle::system_fonts`], those of this
/// machine have: a sheet has boxes for them.
pub fn letters_without_font(text: &str, style: &SheetStyle) -> Vec<char> {
    Lettering::new(17.0, text, style.system_fonts).missing(text)
}

/// Draws the sheet. One scale serves all panels.
pub fn render(sheet: &Sheet<'_>, style: &SheetStyle) -> RgbImage {
    let panel_width = style.panel_width.clamp(180, 2000);
    let (large, small): (Vec<&SheetPanel>, Vec<&SheetPanel>) =
        sheet.panels.iter().partition(|panel| !panel.small);
    // The photo is a panel too; the widest row decides how wide the sheet is.
    let asked = style.columns.clamp(1, 64);
    // Rows of about the same length.
    let columns = |panels: usize| panels.div_ceil(panels.div_ceil(asked).max(1));
    let columns = columns(large.len() + 1).max(columns(small.len().div_ceil(2))) as u32;

    let mut all_text = format!("{}{}", sheet.caption, sheet.footer);
    for panel in &sheet.panels {
        all_text.extend([panel.title.as_str(), panel.note.as_str()]);
    }
    let title = Lettering::new(17.0, &all_text, style.system_fonts);
    let (heading, print) = (title.sized(21.0), title.sized(13.0));
    let inner = (columns * (panel_width + GAP) - GAP).max(3 * panel_width);
    // Three panels' width at least: a caption of one word still has room for the footer.
    let caption = heading.wrap(sheet.caption, inner as f32);
    let footer = print.wrap(sheet.footer, inner as f32);

    let lines =
        |lines: &[String], lettering: &Lettering| lines.len() as u32 * lettering.line_height();
    let blocks = [
        Block::new(sheet, style, [columns, panel_width], &title, &print),
        Block::new(
            sheet,
            style,
            [2 * columns, (panel_width - GAP) / 2],
            &print,
            &title.sized(11.0),
        ),
    ];
    let heights = [blocks[0].height(large.len() + 1), blocks[1].height(small.len())];
    let height = MARGIN
        + lines(&caption, &heading)
        + GAP
        + heights.iter().sum::<u32>()
        + lines(&footer, &print)
        + MARGIN
        - GAP / 2;

    let mut canvas = RgbImage::from_pixel(inner + 2 * MARGIN, height, Rgb(PAPER));
    let mut top = MARGIN;
    for line in &caption {
        heading.draw(&mut canvas, MARGIN as f32, top as f32, INK, line);
        top += heading.line_height();
    }
    top += GAP;
    blocks[0].photo(&mut canvas, top);
    for (place, panel) in (1..).zip(large) {
        blocks[0].panel(&mut canvas, top, place, panel);
    }
    top += heights[0];
    for (place, panel) in (0..).zip(small) {
        blocks[1].panel(&mut canvas, top, place, panel);
    }
    top += heights[1];
    for line in &footer {
        print.draw(&mut canvas, MARGIN as f32, top as f32, QUIET, line);
        top += print.line_height();
    }
    canvas
}

/// Panels of one size, row by row.
struct Block<'a> {
    sheet: &'a Sheet<'a>,
    style: &'a SheetStyle,
    columns: u32,
    width: u32,
    picture: Picture,
    title: Lettering,
    print: Lettering,
}

impl<'a> Block<'a> {
    fn new(
        sheet: &'a Sheet<'a>,
        style: &'a SheetStyle,
        [columns, width]: [u32; 2],
        title: &Lettering,
        print: &Lettering,
    ) -> Self {
        let picture = Picture::new(sheet, width);
        Self { sheet, style, columns, width, picture, title: title.clone(), print: print.clone() }
    }

    fn cell_height(&self) -> u32 {
        let (title, print) = (self.title.line_height(), self.print.line_height());
        title + 4 + self.picture.height + 4 + BAR_HEIGHT + 2 + print
    }

    fn height(&self, panels: usize) -> u32 {
        (panels as u32).div_ceil(self.columns) * (self.cell_height() + GAP)
    }

    /// Where the picture of the panel at `place` begins, below `top`.
    fn place(&self, top: u32, place: u32) -> [u32; 2] {
        let left = MARGIN + (place % self.columns) * (self.width + GAP);
        let top = top + (place / self.columns) * (self.cell_height() + GAP);
        [left + (self.width - self.picture.width) / 2, top + self.title.line_height() + 4]
    }

    fn photo(&self, canvas: &mut RgbImage, top: u32) {
        let [left, picture_top] = self.place(top, 0);
        let Sheet { photo, rows, cols, .. } = self.sheet;
        let size = format!("{} × {}, {cols} × {rows} patches", photo.width(), photo.height());
        self.title.draw(canvas, left as f32, top as f32, QUIET, "image");
        image::imageops::replace(canvas, &self.picture.photo, left.into(), picture_top.into());
        let legend_top = picture_top + self.picture.height + 4;
        self.print.draw(canvas, left as f32, legend_top as f32, QUIET, &size);
        self.picture.outline_region(canvas, left, picture_top);
    }

    fn panel(&self, canvas: &mut RgbImage, top: u32, place: u32, panel: &SheetPanel) {
        let [left, picture_top] = self.place(top, place);
        let title_top = (picture_top - 4 - self.title.line_height()) as f32;
        let note_width = self.print.width(&panel.note);
        let room = (self.picture.width as f32).max(0.8 * self.width as f32) - note_width - 6.0;
        let word = self.title.fit(&panel.title, room);
        self.title.draw(canvas, left as f32, title_top, INK, &word);
        let note_left = left as f32 + self.title.width(&word) + 7.0;
        let lower = 0.94 * (self.title.line_height() - self.print.line_height()) as f32;
        self.print.draw(canvas, note_left, title_top + lower, QUIET, &panel.note);

        let heat = Heat::new(self.sheet, &panel.heat, self.style.filter);
        let drawn = self.picture.under(&heat, self.style);
        image::imageops::replace(canvas, &drawn, left.into(), picture_top.into());
        let legend_top = picture_top + self.picture.height + 4;
        legend(canvas, &self.print, self.style, [left, legend_top, self.picture.width], &heat);
    }
}

/// The colour bar below a panel: from 0 to the ceiling of all.
fn legend(
    canvas: &mut RgbImage,
    small: &Lettering,
    style: &SheetStyle,
    place: [u32; 3],
    heat: &Heat<'_>,
) {
    let [left, top, width] = place;
    for column in 0..width {
        let value = column as f32 / (width - 1).max(1) as f32;
        // As over a middling photo, so that bar and panel match.
        let value = if heat.maximum > 0.0 { value } else { 0.0 };
        let colour = over([faded(128.0); 3], style.colour_map.colour(value), style.opacity);
        for row in 0..BAR_HEIGHT {
            canvas.put_pixel(left + column, top + row, Rgb(colour));
        }
    }
    let text_top = (top + BAR_HEIGHT + 2) as f32;
    small.draw(canvas, left as f32, text_top, QUIET, "0");
    let most = match heat {
        Heat { maximum: 0.0, .. } => "no heat".to_owned(),
        Heat { maximum, even, .. } => {
            let (whole, brief) = (
                format!("max {}, {:.1}× even", short(*maximum), maximum / even),
                format!("{:.1}× even", maximum / even),
            );
            if small.width(&whole) + small.width("0  ") <= width as f32 { whole } else { brief }
        }
    };
    let right = (left + width) as f32 - small.width(&most);
    small.draw(canvas, right, text_top, QUIET, &most);
}

/// Three significant digits.
fn short(value: f32) -> String {
    let magnitude = value.abs();
    if !(0.001..1e6).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let decimals = [(100.0, 0), (10.0, 1), (1.0, 2), (0.1, 3), (0.01, 4)];
    let decimals =
        decimals.iter().find(|(least, _)| magnitude >= *least).map_or(5, |found| found.1);
    format!("{value:.decimals$}")
}

/// The grey of a photo under heat: paler, for the colours of little heat are dark.
fn faded(grey: f32) -> f32 {
    72.0 + 0.71 * grey
}

fn over(photo: [f32; 3], colour: [u8; 3], opacity: f32) -> [u8; 3] {
    let opacity = opacity.clamp(0.0, 1.0);
    [0, 1, 2].map(|channel| {
        let (from, to) = (photo[channel], f32::from(colour[channel]));
        (from + (to - from) * opacity + 0.5) as u8
    })
}

/// The photo at the size of a panel.
struct Picture {
    photo: RgbImage,
    width: u32,
    height: u32,
    /// Pixels of the photo for one pixel of the panel, across and down.
    step: [f32; 2],
    region: Region,
}

impl Picture {
    fn new(sheet: &Sheet<'_>, panel_width: u32) -> Self {
        let photo_width = sheet.photo.width().max(1) as f32;
        let photo_height = sheet.photo.height().max(1) as f32;
        let scale =
            (panel_width as f32 / photo_width).min(panel_width as f32 * TALLEST / photo_height);
        let width = ((photo_width * scale).round() as u32).clamp(1, panel_width);
        let height = ((photo_height * scale).round() as u32).max(1);
        let photo = if sheet.photo.width() == 0 || sheet.photo.height() == 0 {
            RgbImage::from_pixel(width, height, Rgb([128; 3]))
        } else {
            // Triangle averages when shrinking, and does not ring when a small scene is enlarged.
            resize(sheet.photo, width, height, FilterType::Triangle)
        };
        let step = [photo_width / width as f32, photo_height / height as f32];
        Self { photo, width, height, step, region: sheet.region }
    }

    /// The photo in grey under its heat; what the grid does not cover is paled.
    fn under(&self, heat: &Heat<'_>, style: &SheetStyle) -> RgbImage {
        RgbImage::from_fn(self.width, self.height, |x, y| {
            let Rgb(pixel) = *self.photo.get_pixel(x, y);
            let [red, green, blue] = pixel.map(f32::from);
            let grey = faded(0.299 * red + 0.587 * green + 0.114 * blue);
            match heat.at((x as f32 + 0.5) * self.step[0], (y as f32 + 0.5) * self.step[1]) {
                Some(value) => Rgb(over([grey; 3], style.colour_map.colour(value), style.opacity)),
                None => Rgb(over([grey; 3], PAPER, 0.7)),
            }
        })
    }

    /// Marks what the grid covers where that is not the photo.
    fn outline_region(&self, canvas: &mut RgbImage, left: u32, top: u32) {
        for y in 0..self.height {
            for x in 0..self.width {
                let inside = |x: f32, y: f32| {
                    self.contains((x + 0.5) * self.step[0], (y + 0.5) * self.step[1])
                };
                let (x_at, y_at) = (x as f32, y as f32);
                let neighbours = [(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)];
                if inside(x_at, y_at) {
                    let border = neighbours.iter().any(|(right, down)| {
                        let (x, y) = (x_at + right, y_at + down);
                        let on_picture =
                            x >= 0.0 && y >= 0.0 && x < self.width as f32 && y < self.height as f32;
                        on_picture && !inside(x, y)
                    });
                    if border {
                        canvas.put_pixel(left + x, top + y, Rgb(PAPER));
                    }
                } else {
                    let Rgb(pixel) = *canvas.get_pixel(left + x, top + y);
                    canvas.put_pixel(
                        left + x,
                        top + y,
                        Rgb(over(pixel.map(f32::from), PAPER, 0.45)),
                    );
                }
            }
        }
    }

    fn contains(&self, x: f32, y: f32) -> bool {
        let Region { x0, y0, x1, y1 } = self.region;
        x >= x0 && x < x1 && y >= y0 && y < y1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style() -> SheetStyle {
        SheetStyle { system_fonts: false, ..Default::default() }
    }

    fn photo(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, 120]))
    }

    fn panel(heat: Vec<f32>) -> SheetPanel {
        SheetPanel { title: "dog".into(), note: "0.93".into(), heat, small: false }
    }

    fn sheet<'a>(
        photo: &'a RgbImage,
        rows: usize,
        cols: usize,
        panels: Vec<SheetPanel>,
    ) -> Sheet<'a> {
        let region = Region::whole(photo);
        Sheet { photo, region, rows, cols, caption: "a dog runs", footer: "tiny", panels }
    }

    fn heat_at(sheet: &Sheet<'_>, filter: HeatFilter, x: f32, y: f32) -> Option<f32> {
        Heat::new(sheet, &sheet.panels[0].heat, filter).at(x, y)
    }

    #[test]
    fn heat_lies_where_its_cell_lies() {
        let photo = photo(40, 20);
        let mut heat = vec![0.0; 8];
        heat[6] = 0.25; // second row, third column: x 20 to 30, y 10 to 20.
        let sheet = sheet(&photo, 2, 4, vec![panel(heat)]);
        for filter in [HeatFilter::Nearest, HeatFilter::Bicubic] {
            assert_eq!(heat_at(&sheet, filter, 25.0, 15.0), Some(1.0));
            assert_eq!(heat_at(&sheet, filter, 5.0, 5.0), Some(0.0));
        }
        assert_eq!(heat_at(&sheet, HeatFilter::Nearest, 20.1, 10.1), Some(1.0));
        assert_eq!(heat_at(&sheet, HeatFilter::Nearest, 19.9, 15.0), Some(0.0));
        let between = heat_at(&sheet, HeatFilter::Bicubic, 20.0, 15.0).unwrap();
        assert!((between - 0.5625).abs() < 1e-3, "{between}");
    }

    #[test]
    fn a_cropped_photo_has_no_heat_at_its_sides() {
        let photo = photo(40, 20);
        let mut sheet = sheet(&photo, 2, 2, vec![panel(vec![1.0; 4])]);
        sheet.region = Region { x0: 10.0, y0: 0.0, x1: 30.0, y1: 20.0 };
        assert_eq!(heat_at(&sheet, HeatFilter::Bicubic, 9.0, 5.0), None);
        // Spread evenly, it is a third of the way to the hottest colour.
        let even = heat_at(&sheet, HeatFilter::Bicubic, 11.0, 5.0).unwrap();
        assert!((even - 1.0 / LEAST_CEILING).abs() < 1e-6, "{even}");
        // Padded above and below: the middle rows are what shows.
        sheet.region = Region { x0: 0.0, y0: -10.0, x1: 40.0, y1: 30.0 };
        sheet.panels[0].heat = vec![0.0, 0.0, 0.0, 1.0];
        assert_eq!(heat_at(&sheet, HeatFilter::Nearest, 30.0, 15.0), Some(1.0));
        assert_eq!(heat_at(&sheet, HeatFilter::Nearest, 30.0, 5.0), Some(0.0));
        render(&sheet, &style());
    }

    #[test]
    fn the_hottest_pixels_of_a_panel_are_its_hottest_cell() {
        let photo = RgbImage::from_pixel(100, 100, Rgb([100; 3]));
        let mut heat = vec![0.01; 16];
        heat[3] = 0.4; // top right
        let sheet = sheet(&photo, 4, 4, vec![panel(heat)]);
        let picture = Picture::new(&sheet, 220);
        let heat = Heat::new(&sheet, &sheet.panels[0].heat, HeatFilter::Bicubic);
        let drawn = picture.under(&heat, &style());
        let brightest = drawn
            .enumerate_pixels()
            .max_by_key(|(_, _, Rgb([red, green, _]))| u32::from(*red) + u32::from(*green));
        let (x, y, _) = brightest.unwrap();
        assert!(x > 165 && y < 55, "{x} {y}");
    }

    #[test]
    fn layout_follows_the_words() {
        let photo = photo(64, 64);
        let size = |words: usize| {
            let panels = vec![panel(vec![1.0; 4]); words];
            render(&sheet(&photo, 2, 2, panels), &style()).dimensions()
        };
        // Panels with the photo: one row of four, two of three, two of four, three of three.
        let (three, four, seven, eight) = (size(3), size(4), size(7), size(8));
        assert!(four.0 < three.0 && three.0 == seven.0 && four.0 == eight.0);
        assert!(three.1 < four.1 && four.1 == seven.1 && seven.1 < eight.1);
        // A small scene is enlarged to a panel of 300 pixels.
        assert!(four.0 >= 3 * 300 && four.1 >= 300);
    }

    #[test]
    fn odd_input_is_drawn_without_a_panic() {
        let odd = [vec![], vec![f32::NAN, -1.0, f32::INFINITY, 2.0], vec![0.0; 4], vec![1e-30; 3]];
        for (width, height) in [(1, 1), (1, 3000), (3000, 1), (300, 200), (0, 0)] {
            let photo = photo(width, height);
            let mut sheet = sheet(&photo, 2, 2, odd.iter().cloned().map(panel).collect());
            sheet.caption = "";
            sheet.panels[0].title = "averyveryverylongwordthatnopanelcouldeverholdinoneline".into();
            render(&sheet, &style());
            sheet.region = Region { x0: f32::NAN, y0: 0.0, x1: 0.0, y1: 0.0 };
            (sheet.rows, sheet.cols) = (0, 0);
            render(&sheet, &SheetStyle { columns: 0, panel_width: 0, opacity: 7.0, ..style() });
        }
    }

    #[test]
    fn the_same_sheet_is_the_same_picture() {
        let photo = photo(90, 60);
        let sheet = sheet(&photo, 2, 2, vec![panel(vec![0.1, 0.2, 0.3, 0.4])]);
        assert_eq!(render(&sheet, &style()), render(&sheet, &style()));
    }

    #[test]
    fn one_scale_serves_all_panels() {
        let photo = photo(40, 20);
        let flat = panel(vec![0.25; 4]);
        let sheet = sheet(&photo, 2, 2, vec![flat, panel(vec![0.0, 0.0, 0.0, 1.0])]);
        // The other panel's peak is the top: an even map is a quarter of the way.
        assert_eq!(heat_at(&sheet, HeatFilter::Nearest, 5.0, 5.0), Some(0.25));
    }

    #[test]
    fn small_panels_stand_below_and_take_half_the_width() {
        let photo = photo(64, 64);
        let size = |small: usize| {
            let panels = (0..9).map(|at| SheetPanel { small: at < small, ..panel(vec![1.0; 4]) });
            render(&sheet(&photo, 2, 2, panels.collect()), &style()).dimensions()
        };
        // Three rows of large panels; two rows of large ones and one of small ones; one and two.
        let [all, some, none] = [size(0), size(4), size(9)];
        assert!(none.1 < some.1 && some.1 < all.1, "{all:?} {some:?} {none:?}");
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0416, 0.5, 1.0, 123.4, 0.00002, 3e9].map(short);
        assert_eq!(shown, ["0.0416", "0.500", "1.00", "123", "2.00e-5", "3.00e9"]);
    }

    /// Writes sheets to look at: set `PATCHWORD_SHEETS` to a folder, and optionally
    /// `PATCHWORD_PHOTO` to a photo.
    #[test]
    fn sheets_to_look_at() {
        let Some(folder) = std::env::var_os("PATCHWORD_SHEETS") else { return };
        let folder = std::path::PathBuf::from(folder);
        let photo = match std::env::var_os("PATCHWORD_PHOTO") {
            Some(path) => image::open(path).unwrap().to_rgb8(),
            None => photo(64, 64),
        };
        let caption = "A snowboarder in a red jacket leaps over the fence दौड़ 犬 .";
        let words = caption.split(' ').collect::<Vec<_>>();
        let (rows, cols) = (14, 14);
        let panels = words.iter().enumerate().map(|(index, word)| {
            let centre = ((index * 5 % 13) as f32, (index * 7 % 11) as f32);
            let heat = (0..rows * cols).map(|cell| {
                let (row, column) = ((cell / cols) as f32, (cell % cols) as f32);
                let distance = (row - centre.1).powi(2) + (column - centre.0).powi(2);
                0.08 * (-distance / 6.0).exp() + 0.004 * ((cell * 37 % 11) as f32 / 11.0)
            });
            SheetPanel {
                title: (*word).into(),
                note: "0.93".into(),
                heat: heat.collect(),
                small: word.len() < 4,
            }
        });
        let mut sheet = Sheet {
            photo: &photo,
            region: Region::whole(&photo),
            rows,
            cols,
            caption,
            footer: "cross-attention, mean of 4 layers and 8 heads; each panel scaled to its own maximum",
            panels: panels.collect(),
        };
        render(&sheet, &SheetStyle::default()).save(folder.join("sheet.png")).unwrap();
        let viridis = SheetStyle {
            colour_map: ColourMap::Viridis,
            filter: HeatFilter::Nearest,
            ..SheetStyle::default()
        };
        sheet.region.x0 = photo.width() as f32 * 0.15;
        sheet.region.x1 = photo.width() as f32 * 0.85;
        sheet.panels.truncate(7);
        render(&sheet, &viridis).save(folder.join("viridis.png")).unwrap();
    }
}
