//! The curves of a run, loss and score over its steps, as an SVG that any browser shows, by day and by night.

use std::error::Error;

use plotters::chart::ChartContext;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A value at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// Optimizer steps done, from 0.
    pub step: u64,
    /// Loss in nats a token, or a score; points whose value is not finite are left out.
    pub value: f64,
}

/// What is drawn over the steps with an axis of its own. Any of its curves may be empty.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// What is drawn: `loss`.
    pub quantity: &'static str,
    /// What the axis says after that: `, nats a token`.
    pub unit: &'static str,
    /// What is minimised or rewarded while training, smoothed over the raw values.
    pub objective: Vec<CurvePoint>,
    /// How it differs from what validations measure: `with label smoothing and crops`.
    pub objective_is: String,
    /// Validations on training images.
    pub train: Vec<CurvePoint>,
    /// Validations on images held out.
    pub validation: Vec<CurvePoint>,
    /// The checkpoint that is kept as the best.
    pub best: Option<CurvePoint>,
    /// Whether it was chosen by this.
    pub chosen_by: bool,
}

const WIDTH: u32 = 900;
const HEIGHT: u32 = 480;
/// Above the plot: the legend, which so crosses no line.
const LEGEND: u32 = 30;
/// More points than a screen has columns would only make the file large.
const MOST_POINTS: usize = 1500;
/// A range wider than this is drawn on a logarithmic axis.
const WIDE: f64 = 60.0;

const TRAIN: RGBColor = RGBColor(0x25, 0x63, 0xa8);
const OBJECTIVE: RGBColor = RGBColor(0x8f, 0x9b, 0xad);
const VALIDATION: RGBColor = RGBColor(0xd1, 0x49, 0x5b);
const BEST: RGBColor = RGBColor(0x1b, 0x7f, 0x4b);
const TEXT: RGBColor = RGBColor(0x33, 0x36, 0x3d);
const GRID: RGBColor = RGBColor(0xe4, 0xe6, 0xea);
const FRAME: RGBColor = RGBColor(0x9a, 0x9e, 0xa8);

/// The same colours where the browser's are dark: presentation attributes give way to a style sheet.
const DARK: &str = "<style>\ntext { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }\n\
@media (prefers-color-scheme: dark) {\n\
[fill=\"#FFFFFF\"] { fill: #16181d } [stroke=\"#FFFFFF\"] { stroke: #16181d }\n\
text, [fill=\"#33363D\"] { fill: #d7dae0 } [stroke=\"#E4E6EA\"] { stroke: #2a2d35 }\n\
[stroke=\"#2563A8\"] { stroke: #6aa9ee } [fill=\"#2563A8\"] { fill: #6aa9ee }\n\
[stroke=\"#D1495B\"] { stroke: #f07f8d } [fill=\"#D1495B\"] { fill: #f07f8d }\n\
[stroke=\"#1B7F4B\"] { stroke: #4cc88a } [fill=\"#1B7F4B\"] { fill: #4cc88a }\n\
}\n</style>\n";

/// A self-contained SVG with one panel below the other, over the same steps. None if it cannot be drawn, which
/// is no reason to lose a run.
pub fn curves_svg(title: &str, panels: &[Panel]) -> Option<String> {
    let panels: Vec<Panel> = panels.iter().map(Panel::finite).collect();
    let steps = steps_of(panels.iter().flat_map(Panel::points));
    let size = (WIDTH, 40 + HEIGHT * panels.len() as u32);
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    let mut svg = String::new();
    draw(&title, &panels, steps, size, &mut svg).ok()?;
    let end = svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1))?;
    svg.insert_str(end, DARK);
    svg.insert(end, '\n');
    Some(svg)
}

type Drawn = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw(
    title: &str,
    panels: &[Panel],
    steps: [f64; 2],
    size: (u32, u32),
    svg: &mut String,
) -> Drawn {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 20).into_font().color(&TEXT))?;
    for (panel, area) in panels.iter().zip(root.split_evenly((panels.len().max(1), 1))) {
        panel.draw(steps, &area)?;
    }
    root.present()?;
    Ok(())
}

impl Panel {
    pub(super) fn points(&self) -> impl Iterator<Item = &CurvePoint> {
        self.objective.iter().chain(&self.train).chain(&self.validation).chain(&self.best)
    }

    /// Without values that are no numbers.
    fn finite(&self) -> Self {
        Self {
            objective: finite(&self.objective),
            train: finite(&self.train),
            validation: finite(&self.validation),
            best: self.best.filter(|point| point.value.is_finite()),
            ..self.clone()
        }
    }

    fn draw(&self, steps: [f64; 2], area: &Area) -> Drawn {
        let (legend, plot) = area.split_vertically(LEGEND);
        self.draw_legend(&legend)?;
        let scale = Scale::of(self.points());
        let mut chart = ChartBuilder::on(&plot)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(steps[0]..steps[1], scale.range[0]..scale.range[1])?;
        let logarithmic = if scale.is_logarithmic { " (log)" } else { "" };
        let font = || ("sans-serif", 14).into_font().color(&TEXT);
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc(format!("{}{}{logarithmic}", self.quantity, self.unit))
            .x_labels(8)
            .y_labels(8)
            .x_label_formatter(&|step| number(*step))
            .y_label_formatter(&|value| number(scale.back(*value)))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(FRAME)
            .label_style(font())
            .axis_desc_style(font())
            .draw()?;
        let at = |point: &CurvePoint| (point.step as f64, scale.of_value(point.value));
        let line = |chart: &mut Chart, points: &[CurvePoint], style: ShapeStyle| -> Drawn {
            chart.draw_series(LineSeries::new(points.iter().map(at), style))?;
            Ok(())
        };
        line(&mut chart, &envelope(&self.objective), OBJECTIVE.mix(0.35).into())?;
        line(&mut chart, &thinned(&smoothed(&self.objective)), OBJECTIVE.stroke_width(2))?;
        for (points, colour) in [(&self.train, TRAIN), (&self.validation, VALIDATION)] {
            let points = thinned(points);
            line(&mut chart, &points, colour.stroke_width(2))?;
            chart.draw_series(
                points.iter().map(|point| Circle::new(at(point), 3, colour.filled())),
            )?;
        }
        if let [only] = &self.objective[..] {
            chart.draw_series([Circle::new(at(only), 3, OBJECTIVE.filled())])?;
        }
        chart.draw_series(self.best.iter().map(|best| Circle::new(at(best), 6, BEST.filled())))?;
        Ok(())
    }

    /// The names of the curves with their colours, and which is the best, in a row.
    fn draw_legend(&self, area: &Area) -> Drawn {
        let mut entries = Vec::new();
        if !self.validation.is_empty() {
            entries.push((format!("validation {}", self.quantity), VALIDATION));
        }
        if !self.train.is_empty() {
            entries.push(("the same on training images".to_string(), TRAIN));
        }
        if !self.objective.is_empty() {
            let is = &self.objective_is;
            let is = if is.is_empty() { String::new() } else { format!(" ({is})") };
            entries.push((format!("while training{is}"), OBJECTIVE));
        }
        if let Some(best) = self.best.filter(|_| self.chosen_by) {
            entries.push((format!("best {:.4} at step {}", best.value, best.step), BEST));
        }
        if entries.is_empty() {
            entries.push((format!("no {} was recorded", self.quantity), OBJECTIVE));
        }
        let anchor = Pos::new(HPos::Left, VPos::Center);
        let mut x = 72;
        for (name, colour) in entries {
            let font = ("sans-serif", 14).into_font().color(&TEXT).pos(anchor);
            area.draw(&Circle::new((x, 16), 5, colour.filled()))?;
            let width = 7 * name.chars().count() as i32;
            area.draw(&Text::new(name, (x + 11, 16), font))?;
            x += width + 34;
        }
        Ok(())
    }
}

/// How values become heights: as they are, or as their logarithms.
struct Scale {
    range: [f64; 2],
    is_logarithmic: bool,
}

impl Scale {
    fn of<'a>(points: impl Iterator<Item = &'a CurvePoint>) -> Self {
        let [least, greatest] = range(points.map(|point| point.value)).unwrap_or([0.0, 1.0]);
        // Sums of the largest numbers there are would overflow.
        let [least, greatest] = [least, greatest].map(|value| value.clamp(-1e300, 1e300));
        let is_logarithmic = least > 0.0 && greatest / least > WIDE;
        let scale = Self { range: [0.0, 1.0], is_logarithmic };
        let [from, to] = [least, greatest].map(|value| scale.of_value(value));
        let span = to - from;
        let room = if span > 0.0 { span * 0.05 } else { from.abs().max(1.0) * 0.1 };
        Self { range: [from - room, to + room], ..scale }
    }

    fn of_value(&self, value: f64) -> f64 {
        if self.is_logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    /// The value at a height; of a logarithm three digits, which a label has room for.
    fn back(&self, height: f64) -> f64 {
        if !self.is_logarithmic {
            return height;
        }
        let digits = 10_f64.powf(2.0 - height.floor());
        let rounded = (10_f64.powf(height) * digits).round() / digits;
        if rounded.is_finite() { rounded } else { 10_f64.powf(height) }
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |range, value| {
        let [least, greatest] = range.unwrap_or([value, value]);
        Some([value.min(least), value.max(greatest)])
    })
}

fn steps_of<'a>(points: impl Iterator<Item = &'a CurvePoint>) -> [f64; 2] {
    let [first, last] = range(points.map(|point| point.step as f64)).unwrap_or([0.0, 1.0]);
    [first, last.max(first + 1.0)]
}

/// A tick's label without noise in its last digits.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e15).contains(&magnitude) {
        let text = format!("{value:.2e}");
        return text.replace(".00e", "e");
    }
    if magnitude >= 1e6 {
        return format!("{}M", number(value / 1e6));
    }
    if magnitude >= 1e4 {
        return format!("{}k", number(value / 1e3));
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn finite(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let mut kept: Vec<CurvePoint> =
        points.iter().copied().filter(|point| point.value.is_finite()).collect();
    // A resumed run may have logged some steps twice or out of order.
    kept.sort_by_key(|point| point.step);
    kept
}

/// A mean over a fiftieth of the points, half of them before and half after each point, so that the
/// curve does not lag behind a loss that falls. The window narrows towards the first point, where
/// losses fall fast, and is cut off at the last one, where one noisy value must not look like a turn.
fn smoothed(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let mut sums = vec![0.0];
    let mut total = 0.0;
    for point in points {
        total += point.value;
        sums.push(total);
    }
    let smooth = |(index, point): (usize, &CurvePoint)| {
        let half = (points.len() / 100).min(index);
        let (from, to) = (index - half, (index + half + 1).min(points.len()));
        let mean = (sums[to] - sums[from]) / (to - from) as f64;
        // Losses near the largest number there is overflow the sums.
        let loss = if half > 0 && mean.is_finite() { mean } else { point.value };
        CurvePoint { step: point.step, value: loss }
    };
    points.iter().enumerate().map(smooth).collect()
}

/// At most [`MOST_POINTS`] of the points, the last one among them.
fn thinned(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let mut kept: Vec<CurvePoint> = points.iter().copied().step_by(every).collect();
    if points.len() % every != 1 && every > 1 {
        kept.extend(points.last());
    }
    kept
}

/// The least and the greatest of each run of points, so that thinning hides no spike.
fn envelope(points: &[CurvePoint]) -> Vec<CurvePoint> {
    let every = (points.len() * 2).div_ceil(MOST_POINTS);
    if every <= 2 {
        return points.to_vec();
    }
    points
        .chunks(every)
        .flat_map(|run| {
            let by_value = |a: &&CurvePoint, b: &&CurvePoint| a.value.total_cmp(&b.value);
            let mut ends: Vec<CurvePoint> = run
                .iter()
                .min_by(by_value)
                .into_iter()
                .chain(run.iter().max_by(by_value))
                .copied()
                .collect();
            ends.sort_by_key(|point| point.step);
            ends
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(list: &[(u64, f64)]) -> Vec<CurvePoint> {
        list.iter().map(|(step, loss)| CurvePoint { step: *step, value: *loss }).collect()
    }

    fn run(steps: u64) -> (Vec<CurvePoint>, Vec<CurvePoint>) {
        let train = (0..steps).map(|step| {
            let noise = (step * 7919 % 1000) as f64 / 1000.0 - 0.5;
            let loss = 2.1 + 6.9 / (1.0 + step as f64 / 300.0) + 0.5 * noise;
            CurvePoint { step, value: loss }
        });
        let validation = (1..=20).map(|index| {
            let step = index * steps / 20;
            let late = (index as f64 - 14.0).max(0.0) * 0.02;
            CurvePoint { step, value: 2.4 + 6.9 / (1.0 + step as f64 / 300.0) + late }
        });
        (train.collect(), validation.collect())
    }

    fn loss_curve_svg(
        title: &str,
        train: &[CurvePoint],
        validation: &[CurvePoint],
        best: Option<CurvePoint>,
    ) -> String {
        let panel = Panel {
            quantity: "loss",
            objective: train.to_vec(),
            validation: validation.to_vec(),
            best,
            chosen_by: true,
            ..Panel::default()
        };
        curves_svg(title, &[panel]).expect("a drawing")
    }

    /// Tags balance, and nothing that is no number is written as one.
    fn check(svg: &str) {
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let opened = svg.matches("<text").count();
        assert_eq!(opened, svg.matches("</text>").count());
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
    }

    #[test]
    fn a_run_has_curves_and_a_marked_best() {
        let (train, validation) = run(6000);
        let best = validation.iter().copied().min_by(|a, b| a.value.total_cmp(&b.value));
        let svg = loss_curve_svg("flickr8k <small> & co", &train, &validation, best);
        check(&svg);
        assert!(svg.contains("flickr8k &lt;small&gt; &amp; co"));
        assert!(svg.contains("best 2.8") && svg.contains("validation loss"));
        assert!(svg.contains("while training"));
    }

    #[test]
    fn odd_runs_are_drawn() {
        check(&loss_curve_svg("", &[], &[], None));
        assert!(loss_curve_svg("", &[], &[], None).contains("no loss was recorded"));
        let one = points(&[(7, 3.0)]);
        check(&loss_curve_svg("one", &one, &[], None));
        check(&loss_curve_svg("one", &[], &one, Some(one[0])));
        check(&loss_curve_svg("flat", &points(&[(0, 2.0), (10, 2.0)]), &[], None));
        check(&loss_curve_svg("zero", &points(&[(0, 0.0), (10, 0.0)]), &[], None));
        check(&loss_curve_svg("negative", &points(&[(0, -5.0), (10, 900.0)]), &[], None));
        check(&loss_curve_svg("far", &points(&[(0, 1e-9), (u64::MAX, 1e12)]), &[], None));
        check(&loss_curve_svg("farther", &points(&[(0, -f64::MAX), (9, f64::MAX)]), &[], None));
        check(&loss_curve_svg(
            "farthest",
            &points(&[(0, f64::MIN_POSITIVE), (9, f64::MAX)]),
            &[],
            None,
        ));
    }

    #[test]
    fn losses_that_are_no_numbers_are_left_out() {
        let holes = points(&[(0, 3.0), (1, f64::NAN), (2, f64::INFINITY), (3, 2.0)]);
        let whole = points(&[(0, 3.0), (3, 2.0)]);
        let nan = Some(CurvePoint { step: 1, value: f64::NAN });
        assert_eq!(
            loss_curve_svg("t", &holes, &holes, nan),
            loss_curve_svg("t", &whole, &whole, None)
        );
    }

    #[test]
    fn a_score_has_a_panel_over_the_same_steps() {
        let objective = points(&[(100, 3.0), (400, 2.0)]);
        let scores = points(&[(200, 0.25), (300, 0.5)]);
        let panels = [
            Panel { quantity: "loss", objective, best: None, ..Panel::default() },
            Panel {
                quantity: "CIDEr",
                validation: scores.clone(),
                best: Some(scores[1]),
                chosen_by: true,
                ..Panel::default()
            },
        ];
        let svg = curves_svg("two", &panels).unwrap();
        check(&svg);
        assert!(svg.contains("CIDEr") && svg.contains("validation CIDEr"), "{svg}");
        assert!(svg.contains("best 0.5000 at step 300"), "{svg}");
    }

    #[test]
    fn labels_have_no_noise() {
        let shown = [0.0, 0.30000000000000004, 1500.0, 20_000.0, 2.5e6].map(number);
        assert_eq!(shown, ["0", "0.3", "1500", "20k", "2.5M"]);
    }

    #[test]
    fn a_wide_range_is_logarithmic() {
        let svg = loss_curve_svg("wide", &points(&[(0, 1000.0), (10, 0.5)]), &[], None);
        check(&svg);
        assert!(svg.contains("loss (log)"));
    }

    #[test]
    fn smoothing_neither_shifts_nor_lags() {
        let flat = smoothed(&points(&(0..500).map(|step| (step, 4.0)).collect::<Vec<_>>()));
        assert!(flat.iter().all(|point| (point.value - 4.0).abs() < 1e-9));
        let falling =
            points(&(0..500).map(|step| (step, 9.0 - step as f64 / 100.0)).collect::<Vec<_>>());
        for (smooth, raw) in smoothed(&falling).iter().zip(&falling) {
            let allowed = if raw.step < 495 { 1e-9 } else { 0.026 };
            assert!((smooth.value - raw.value).abs() < allowed, "{smooth:?} for {raw:?}");
        }
        let noisy: Vec<(u64, f64)> = (0..500).map(|step| (step, (step % 2) as f64)).collect();
        let smooth = smoothed(&points(&noisy));
        assert!(smooth[100..].iter().all(|point| (point.value - 0.5).abs() < 0.1));
    }

    #[test]
    fn thinning_keeps_spikes_and_ends() {
        let mut long: Vec<(u64, f64)> = (0..50_000).map(|step| (step, 1.0)).collect();
        long[33_333].1 = 9.0;
        let long = points(&long);
        assert!(envelope(&long).iter().any(|point| point.value == 9.0));
        assert!(envelope(&long).len() <= MOST_POINTS + 2);
        assert_eq!(thinned(&long).last(), long.last());
        assert!(thinned(&long).len() <= MOST_POINTS + 1);
        check(&loss_curve_svg("long", &long, &[], None));
    }

    /// Writes a curve to look at: set `PATCHWORD_SHEETS` to a folder.
    #[test]
    fn curve_to_look_at() {
        let Some(folder) = std::env::var_os("PATCHWORD_SHEETS") else { return };
        let (train, validation) = run(6000);
        let best = validation.iter().copied().min_by(|a, b| a.value.total_cmp(&b.value));
        let panel = Panel {
            quantity: "loss",
            unit: ", nats a token",
            train: validation
                .iter()
                .map(|point| CurvePoint { value: point.value - 0.3, ..*point })
                .collect(),
            objective: train,
            objective_is: "with label smoothing and crops".into(),
            validation: validation.clone(),
            best,
            chosen_by: true,
        };
        let scores = Panel {
            quantity: "CIDEr",
            validation: validation
                .iter()
                .map(|point| CurvePoint { value: 2.0 / point.value, ..*point })
                .collect(),
            ..Panel::default()
        };
        let svg = curves_svg("flickr8k", &[panel, scores]).unwrap();
        std::fs::write(std::path::Path::new(&folder).join("curve.svg"), svg).unwrap();
    }
}
