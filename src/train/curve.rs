//! The curves of a run, loss and score over its steps, as an SVG that any browser shows.

use std::fmt::Write as _;

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
    /// Values while training, smoothed over the raw ones.
    pub train: Vec<CurvePoint>,
    /// Values of validations.
    pub validation: Vec<CurvePoint>,
    /// The checkpoint that is kept as the best.
    pub best: Option<CurvePoint>,
    /// Whether it was chosen by this.
    pub chosen_by: bool,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 56.0;
/// More points than a screen has columns would only make the file large.
const MOST_POINTS: usize = 1500;
/// A range wider than this is drawn on a logarithmic axis.
const WIDE: f64 = 60.0;

const TRAIN: &str = "#2563a8";
const VALIDATION: &str = "#d1495b";
const BEST: &str = "#1b7f4b";

/// A self-contained SVG with one panel below the other, over the same steps.
pub fn curves_svg(title: &str, panels: &[Panel]) -> String {
    let panels: Vec<Panel> = panels.iter().map(Panel::finite).collect();
    let steps = Axes::new(panels.iter().flat_map(Panel::points)).steps;
    let height = HEIGHT * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, \
         sans-serif\" font-size=\"13\" fill=\"#33363d\">\n<title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"30\" font-size=\"17\" font-weight=\"600\">{title}</text>\n",
        title = escaped(title)
    );
    for (number, panel) in panels.iter().enumerate() {
        let top = HEIGHT * number as f64;
        svg.push_str(&format!("<g transform=\"translate(0 {top})\">\n"));
        panel.draw(steps, &mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

impl Panel {
    pub(super) fn points(&self) -> impl Iterator<Item = &CurvePoint> {
        self.train.iter().chain(&self.validation).chain(&self.best)
    }

    /// Without values that are no numbers.
    fn finite(&self) -> Self {
        Self {
            quantity: self.quantity,
            unit: self.unit,
            train: finite(&self.train),
            validation: finite(&self.validation),
            best: self.best.filter(|point| point.value.is_finite()),
            chosen_by: self.chosen_by,
        }
    }

    fn draw(&self, steps: [f64; 2], svg: &mut String) {
        let Self { quantity, unit, train, validation, best, chosen_by } = self;
        let raw = envelope(train);
        let smooth = thinned(&smoothed(train));
        let axes = Axes { steps, ..Axes::new(self.points()) };
        let mut put = |element: String| {
            svg.push_str(&element);
            svg.push('\n');
        };
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in axes.value_ticks() {
            let y = axes.y(tick);
            put(format!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#e4e6ea\"/>"
            ));
            let label = number(tick);
            put(format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.5
            ));
        }
        for tick in axes.step_ticks() {
            let x = axes.x(tick);
            put(format!(
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#f0f1f4\"/>"
            ));
            let label = number(tick);
            put(format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 19.0
            ));
        }
        put(format!(
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#9a9ea8\"/>"
        ));
        let middle = (LEFT + right) / 2.0;
        put(format!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">step</text>",
            HEIGHT - 14.0
        ));
        let scale = if axes.logarithmic { " (log)" } else { "" };
        put(format!(
            "<text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{quantity}{unit}{scale}</text>",
            (TOP + bottom) / 2.0
        ));

        if train.is_empty() && validation.is_empty() && best.is_none() {
            put(format!(
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#82868f\">no {quantity} \
                 was recorded</text>",
                (TOP + bottom) / 2.0
            ));
        }
        put(axes.line(&raw, TRAIN, "stroke-width=\"1\" stroke-opacity=\"0.25\""));
        put(axes.line(&smooth, TRAIN, "stroke-width=\"2\""));
        put(axes.line(validation, VALIDATION, "stroke-width=\"1.5\""));
        for point in &thinned(validation) {
            put(axes.dot(point, VALIDATION, 3.0));
        }
        if let [only] = train[..] {
            put(axes.dot(&only, TRAIN, 3.0));
        }
        if let Some(best) = best {
            put(axes.dot(best, BEST, 5.5));
        }
        if let Some(best) = best.filter(|_| *chosen_by) {
            let (x, y) = (axes.x(best.step as f64), axes.y(best.value));
            // Above the point, and on the side where there is room.
            let (x, anchor) = if x > middle { (x - 9.0, "end") } else { (x + 9.0, "start") };
            put(format!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{BEST}\" \
                 font-weight=\"600\" paint-order=\"stroke\" stroke=\"#ffffff\" \
                 stroke-width=\"4\">best {:.4} at step {}</text>",
                (y - 11.0).max(TOP + 12.0),
                best.value,
                best.step
            ));
        }
        let mut entries = Vec::new();
        if !train.is_empty() {
            entries.push(("train (smoothed over raw)", TRAIN));
        }
        if !validation.is_empty() {
            entries.push(("validation", VALIDATION));
        }
        let mut x = right;
        for (label, colour) in entries.iter().rev() {
            x -= 7.0 * label.len() as f64 + 34.0;
            put(format!(
                "<line x1=\"{x:.1}\" y1=\"26\" x2=\"{:.1}\" y2=\"26\" stroke=\"{colour}\" \
                 stroke-width=\"3\"/><text x=\"{:.1}\" y=\"30\">{label}</text>",
                x + 20.0,
                x + 26.0
            ));
        }
    }
}

/// Where steps and values lie on the drawing.
struct Axes {
    steps: [f64; 2],
    values: [f64; 2],
    logarithmic: bool,
}

impl Axes {
    fn new<'a>(points: impl Iterator<Item = &'a CurvePoint>) -> Self {
        let mut steps = [f64::INFINITY, f64::NEG_INFINITY];
        let mut values = steps;
        for point in points {
            let step = point.step as f64;
            steps = [steps[0].min(step), steps[1].max(step)];
            values = [values[0].min(point.value), values[1].max(point.value)];
        }
        if steps[0] > steps[1] {
            (steps, values) = ([0.0, 1.0], [0.0, 1.0]);
        }
        if steps[0] == steps[1] {
            steps[1] += 1.0;
        }
        let logarithmic = values[0] > 0.0 && values[1] / values[0] > WIDE;
        if logarithmic {
            values = [values[0] / 1.1, values[1] * 1.1];
        } else {
            let span = values[1] - values[0];
            let room = if span > 0.0 { span * 0.05 } else { values[0].abs().max(1.0) * 0.1 };
            values = [values[0] - room, values[1] + room];
        }
        // Sums of the largest numbers there are would overflow.
        values = values.map(|value| value.clamp(-1e300, 1e300));
        Self { steps, values, logarithmic }
    }

    fn x(&self, step: f64) -> f64 {
        let [from, to] = self.steps;
        LEFT + (step - from) / (to - from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let [from, to] = self.values;
        let share = if self.logarithmic {
            (value.ln() - from.ln()) / (to.ln() - from.ln())
        } else {
            (value - from) / (to - from)
        };
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn step_ticks(&self) -> Vec<f64> {
        round_ticks(self.steps, 8.0, 1.0)
    }

    fn value_ticks(&self) -> Vec<f64> {
        let [from, to] = self.values;
        if !self.logarithmic {
            return round_ticks(self.values, 7.0, 0.0);
        }
        let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
        let every = (decades.clone().count() / 8).max(1);
        let multiples: &[f64] =
            if decades.clone().count() <= 4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        decades
            .step_by(every)
            .flat_map(|decade| multiples.iter().map(move |multiple| multiple * 10_f64.powi(decade)))
            .filter(|tick| (from..=to).contains(tick))
            .collect()
    }

    fn line(&self, points: &[CurvePoint], colour: &str, style: &str) -> String {
        if points.len() < 2 {
            return String::new();
        }
        let mut path = String::new();
        for (index, point) in points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let (x, y) = (self.x(point.step as f64), self.y(point.value));
            // Writing to a string cannot fail.
            let _ = write!(path, "{letter}{x:.1} {y:.1}");
        }
        format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-linejoin=\"round\" {style}/>"
        )
    }

    fn dot(&self, point: &CurvePoint, colour: &str, radius: f64) -> String {
        let (x, y) = (self.x(point.step as f64), self.y(point.value));
        format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" stroke=\"#ffffff\"/>"
        )
    }
}

/// About `wanted` multiples of 1, 2 or 5 times a power of ten within a range, `least` apart at least.
fn round_ticks([from, to]: [f64; 2], wanted: f64, least: f64) -> Vec<f64> {
    let rough = ((to - from) / wanted).max(least);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|multiple| multiple * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    if !(step.is_finite() && step > 0.0) {
        return Vec::new();
    }
    let first = (from / step - 1e-9).ceil();
    (0..32)
        .map(|index| (first + f64::from(index)) * step)
        .take_while(|tick| *tick <= to + step * 1e-9)
        .collect()
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

fn escaped(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .map(|character| match character {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            other => other.to_string(),
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
        let (train, validation) = (train.to_vec(), validation.to_vec());
        let quantity = "loss";
        let panel = Panel { quantity, unit: "", train, validation, best, chosen_by: true };
        curves_svg(title, &[panel])
    }

    /// Tags balance, and nothing that is no number is written as one.
    fn check(svg: &str) {
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
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
        assert!(svg.contains("best 2.8") && svg.contains("validation</text>"));
        assert!(svg.contains(">2000<") && svg.contains(">4<"), "round ticks");
        assert_eq!(svg.matches("<path").count(), 4);
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
        let losses = points(&[(100, 3.0), (400, 2.0)]);
        let scores = points(&[(200, 0.25), (300, 0.5)]);
        let panels = [
            Panel { quantity: "loss", train: losses, best: None, ..Panel::default() },
            Panel {
                quantity: "CIDEr",
                validation: scores.clone(),
                best: Some(scores[1]),
                chosen_by: true,
                ..Panel::default()
            },
        ];
        let svg = curves_svg("two", &panels);
        check(&svg);
        assert!(svg.contains(">CIDEr<") && svg.contains(">loss<"), "{svg}");
        assert!(svg.contains("best 0.5000 at step 300"), "{svg}");
        // Two thirds of the way from step 100 to 400, in the lower panel too.
        let x = LEFT + (WIDTH - LEFT - RIGHT) * 2.0 / 3.0;
        assert!(svg.contains(&format!("<circle cx=\"{x:.1}\"")), "{svg}");
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(round_ticks([0.0, 10.0], 5.0, 0.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(round_ticks([0.0, 3.0], 8.0, 1.0), [0.0, 1.0, 2.0, 3.0]);
        let labels = round_ticks([2.03, 2.41], 7.0, 0.0).into_iter().map(number);
        assert_eq!(labels.collect::<Vec<_>>(), ["2.1", "2.2", "2.3", "2.4"]);
        let shown = [0.0, 0.30000000000000004, 1500.0, 20_000.0, 2.5e6].map(number);
        assert_eq!(shown, ["0", "0.3", "1500", "20k", "2.5M"]);
    }

    #[test]
    fn a_wide_range_is_logarithmic() {
        let svg = loss_curve_svg("wide", &points(&[(0, 1000.0), (10, 0.5)]), &[], None);
        check(&svg);
        assert!(svg.contains("loss (log)") && svg.contains(">100<"));
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
        let svg = loss_curve_svg("flickr8k: loss", &train, &validation, best);
        std::fs::write(std::path::Path::new(&folder).join("curve.svg"), svg).unwrap();
    }
}
