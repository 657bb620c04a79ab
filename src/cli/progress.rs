//! Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle};

use super::console::Console;

/// How often a line is printed where no bar can be drawn, as in a log file.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// How far a long job has come. Shared by reference: every method takes `&self`, from any thread.
#[derive(Debug)]
pub struct Progress {
    display: Display,
    told: Mutex<Told>,
    unit: String,
}

/// What follows the figures.
#[derive(Debug, Default)]
struct Told {
    /// Parts that there was nothing to do for.
    skipped: u64,
    /// Parts that are done with, but not done.
    failed: u64,
    message: String,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { skipped, failed, message } = self;
        let counts = [(*skipped, "skipped"), (*failed, "failed")].into_iter();
        let counts = counts.filter(|(count, _)| *count > 0);
        let mut parts: Vec<String> =
            counts.map(|(count, word)| format!("{count} {word}")).collect();
        if !message.is_empty() {
            parts.push(message.clone());
        }
        formatter.write_str(&parts.join(", "))
    }
}

#[derive(Debug)]
enum Display {
    Hidden,
    Bar(ProgressBar, Arc<Mutex<Pace>>),
    Lines(Mutex<Lines>),
}

impl Progress {
    /// Starts a job of `length` parts (`None` where nobody knows), called `label` and counted in
    /// `unit`, as in `train` and `steps`.
    pub fn new(console: &Console, label: &str, length: Option<u64>, unit: &str) -> Self {
        let display = if console.is_quiet() {
            Display::Hidden
        } else if console.is_terminal() {
            let pace = Arc::new(Mutex::new(Pace::new(0, Instant::now())));
            Display::Bar(bar(label, length, unit, &pace), pace)
        } else {
            Display::Lines(Mutex::new(Lines::new(label, length, unit, Instant::now())))
        };
        Self { display, told: Mutex::default(), unit: unit.to_owned() }
    }

    /// Says how many parts there are, where that was not known before.
    pub fn set_length(&self, length: u64) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar, pace) => {
                bar.set_style(style(Some(length), &self.unit, pace));
                bar.set_length(length);
            }
            Display::Lines(lines) => lock(lines).length = Some(length),
        }
    }

    /// Starts a download of `length` bytes.
    pub fn of_bytes(console: &Console, label: &str, length: Option<u64>) -> Self {
        Self::new(console, label, length, BYTES)
    }

    /// Counts from `position` on, as when a run is resumed: what was done before does not count in
    /// the rate. Call it before any other method.
    pub fn start_at(&self, position: u64) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar, pace) => {
                *lock(pace) = Pace::new(position, Instant::now());
                bar.set_position(position);
            }
            Display::Lines(lines) => lock(lines).pace = Pace::new(position, Instant::now()),
        }
    }

    /// Says that `count` more parts are done.
    pub fn advance(&self, count: u64) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar, pace) => {
                lock(pace).advance(count, Instant::now());
                bar.inc(count);
            }
            Display::Lines(lines) => {
                let (mut lines, now) = (lock(lines), Instant::now());
                lines.pace.advance(count, now);
                print(lines.line_when_due(now));
            }
        }
    }

    /// Says that `count` more parts are done with, but failed: they are counted apart as well.
    pub fn advance_failed(&self, count: u64) {
        self.tell(|told| told.failed += count);
        self.advance(count);
    }

    /// Says that `count` more parts are done with, as there was nothing to do: they are counted apart as
    /// well.
    pub fn advance_skipped(&self, count: u64) {
        self.tell(|told| told.skipped += count);
        self.advance(count);
    }

    /// Sets what follows the figures, such as `loss 2.31`.
    pub fn set_message(&self, message: impl Into<String>) {
        self.tell(|told| told.message = message.into());
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let mut told = lock(&self.told);
        change(&mut told);
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar, _) => bar.set_message(told.to_string()),
            Display::Lines(lines) => lock(lines).message = told.to_string(),
        }
    }

    /// Takes the bar away while `print` writes to the terminal, and draws it again below.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.display {
            Display::Bar(bar, _) => bar.suspend(print),
            Display::Hidden | Display::Lines(_) => print(),
        }
    }

    /// Takes the bar away for good, and leaves no line in a log.
    pub fn clear(&self) {
        if let Display::Bar(bar, _) = &self.display {
            bar.finish_and_clear();
        }
    }

    /// Ends the job. The bar goes away: what comes of the job says more. A log gets a last line.
    pub fn finish(&self) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar, _) => bar.finish_and_clear(),
            Display::Lines(lines) => print(Some(lock(lines).line(Instant::now()))),
        }
    }
}

/// The unit of downloads, shown as MB.
const BYTES: &str = "bytes";

/// How fast a job goes, and how long it will take: the rate over the last two minutes, which a step of many
/// seconds does not make jump.
#[derive(Debug)]
struct Pace {
    position: u64,
    /// Positions with their times, none close to the next, the first before the window.
    seen: VecDeque<(Instant, u64)>,
    /// The last advance, if there was one.
    last: Option<Instant>,
}

impl Pace {
    const WINDOW: Duration = Duration::from_secs(120);
    const SPACING: Duration = Duration::from_millis(500);

    fn new(first: u64, now: Instant) -> Self {
        Self { position: first, seen: VecDeque::from([(now, first)]), last: None }
    }

    fn advance(&mut self, count: u64, now: Instant) {
        self.position += count;
        self.last = Some(now);
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.seen.back().is_none_or(|(then, _)| since(*then) >= Self::SPACING) {
            self.seen.push_back((now, self.position));
        }
        while self.seen.get(1).is_some_and(|(then, _)| since(*then) >= Self::WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Parts a second, when it was last known; nothing before the first are done.
    fn rate(&self) -> Option<(f64, Instant)> {
        let (last, (then, position)) = (self.last?, self.seen.front()?);
        let seconds = last.saturating_duration_since(*then).as_secs_f64();
        Some(((self.position - position) as f64 / seconds.max(1e-3), last))
    }

    /// As in `2.0/s, 5 min left`, of `length` parts.
    fn text(&self, length: Option<u64>, unit: &str, now: Instant) -> String {
        let Some((rate, last)) = self.rate() else { return "…".into() };
        let mut text = match unit {
            BYTES => format!("{:.1} MB/s", rate / 1e6),
            _ => format!("{rate:.1}/s"),
        };
        let left = length.map_or(0, |length| length.saturating_sub(self.position));
        if left > 0 && rate > 0.0 {
            let waited = now.saturating_duration_since(last).as_secs_f64();
            let left = (left as f64 / rate - waited).max(0.0);
            text.push_str(&format!(", {} left", short_time(left)));
        }
        text
    }
}

fn style(length: Option<u64>, unit: &str, pace: &Arc<Mutex<Pace>>) -> ProgressStyle {
    let template = match length {
        Some(_) if unit == BYTES => {
            "{prefix} [{bar:24}] {decimal_bytes}/{decimal_total_bytes}, {pace}  {wide_msg}"
        }
        None if unit == BYTES => {
            "{prefix} {spinner} {decimal_bytes}, {pace}, {elapsed}  {wide_msg}"
        }
        Some(_) => "{prefix} [{bar:24}] {human_pos}/{human_len} UNIT, {pace}  {wide_msg}",
        None => "{prefix} {spinner} {human_pos} UNIT, {pace}, {elapsed}  {wide_msg}",
    };
    let (pace, of_what) = (Arc::clone(pace), unit.to_owned());
    let tell = move |_: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = out.write_str(&lock(&pace).text(length, &of_what, Instant::now()));
    };
    // Units are our own words and hold no braces; the default is for the day one does.
    ProgressStyle::with_template(&template.replace("UNIT", unit))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("pace", tell)
        .progress_chars("=> ")
}

fn bar(label: &str, length: Option<u64>, unit: &str, pace: &Arc<Mutex<Pace>>) -> ProgressBar {
    // A job that fails leaves no half of a bar above its error.
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr())
        .with_finish(ProgressFinish::AndClear);
    bar.set_style(style(length, unit, pace));
    bar.set_prefix(label.to_string());
    // A step may take many seconds; the clock should still be seen to run.
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// Progress as lines of text, timed by whoever calls.
#[derive(Debug)]
struct Lines {
    label: String,
    unit: String,
    length: Option<u64>,
    pace: Pace,
    message: String,
    last_line: Instant,
}

impl Lines {
    fn new(label: &str, length: Option<u64>, unit: &str, now: Instant) -> Self {
        Self {
            label: label.to_string(),
            unit: unit.to_string(),
            length,
            pace: Pace::new(0, now),
            message: String::new(),
            last_line: now,
        }
    }

    fn line_when_due(&mut self, now: Instant) -> Option<String> {
        if now.saturating_duration_since(self.last_line) < LINE_INTERVAL {
            return None;
        }
        self.last_line = now;
        Some(self.line(now))
    }

    fn line(&self, now: Instant) -> String {
        let Self { label, unit, .. } = self;
        let position = self.pace.position;
        let percent = |length: u64| 100.0 * position as f64 / length.max(1) as f64;
        let far = match (self.length, unit.as_str()) {
            (Some(length), BYTES) => {
                let (here, all) = (position as f64 / 1e6, length as f64 / 1e6);
                format!("{here:.1}/{all:.1} MB ({:.0} %)", percent(length))
            }
            (None, BYTES) => format!("{:.1} MB", position as f64 / 1e6),
            (Some(length), _) => format!("{position}/{length} {unit} ({:.0} %)", percent(length)),
            (None, _) => format!("{position} {unit}"),
        };
        let mut line = format!("{label}: {far}, {}", self.pace.text(self.length, unit, now));
        if !self.message.is_empty() {
            line.push_str(&format!(", {}", self.message));
        }
        line
    }
}

/// A time in its largest unit that leaves a whole number to read: `45 s`, `12 min`, `3 h 20 min`.
fn short_time(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let minutes = (seconds + 30) / 60;
    match (seconds, minutes) {
        (0..100, _) => format!("{seconds} s"),
        (_, 0..100) => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// What a panicking thread left behind is still good to count with.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print(line: Option<String>) {
    if let Some(line) = line {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_every_interval_and_counts_from_where_it_resumed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::new("train", Some(1000), "steps", start);
        lines.pace = Pace::new(400, start);
        lines.pace.advance(58, at(29));
        lines.message = "loss 2.31".into();
        assert_eq!(lines.line_when_due(at(29)), None);
        lines.pace.advance(2, at(30));
        assert_eq!(
            lines.line_when_due(at(30)).as_deref(),
            Some("train: 460/1000 steps (46 %), 2.0/s, 5 min left, loss 2.31")
        );
        lines.pace.advance(540, at(59));
        assert_eq!(lines.line_when_due(at(59)), None);
        assert_eq!(lines.line(at(60)), "train: 1000/1000 steps (100 %), 10.2/s, loss 2.31");
    }

    #[test]
    fn the_time_left_runs_down_between_steps_and_forgets_what_was_long_ago() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(0, start);
        assert_eq!(pace.text(Some(100), "images", at(40)), "…");
        // A pause before the first step, then eight images every four seconds.
        for step in 1..=50 {
            pace.advance(8, at(100 + 4 * step));
        }
        assert_eq!(pace.text(Some(1000), "images", at(300)), "2.0/s, 5 min left");
        let left = |seconds| pace.text(Some(450), "images", at(seconds));
        assert_eq!(
            [left(300), left(303), left(400)],
            ["25 s", "22 s", "0 s"].map(|left| format!("2.0/s, {left} left"))
        );
    }

    #[test]
    fn a_job_of_unknown_or_no_length_has_a_line_too() {
        let start = Instant::now();
        let ten = start + Duration::from_secs(10);
        let mut lines = Lines::new("check", None, "images", start);
        lines.pace.advance(20, ten);
        assert_eq!(lines.line(ten), "check: 20 images, 2.0/s");
        let nothing = Lines::new("check", Some(0), "images", start);
        assert_eq!(nothing.line(start), "check: 0/0 images (0 %), …");
    }

    #[test]
    fn downloads_count_in_megabytes() {
        let start = Instant::now();
        let ten = start + Duration::from_secs(10);
        let mut lines = Lines::new("model.safetensors", Some(990_400_000), BYTES, start);
        lines.pace = Pace::new(300_000_000, start);
        lines.pace.advance(200_000_000, ten);
        assert_eq!(
            lines.line(ten),
            "model.safetensors: 500.0/990.4 MB (50 %), 20.0 MB/s, 25 s left"
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!(short_time(45.2), "45 s");
        assert_eq!(short_time(720.0), "12 min");
        assert_eq!(short_time(12_000.0), "3 h 20 min");
    }

    #[test]
    fn quiet_progress_prints_nothing_and_suspend_runs_its_function() {
        let progress = Progress::new(&Console::silent(), "train", Some(3), "steps");
        progress.start_at(1);
        progress.advance(1);
        progress.set_message("loss");
        assert_eq!(progress.suspend(|| 7), 7);
        progress.finish();
        assert!(matches!(progress.display, Display::Hidden));
    }

    #[test]
    fn failures_are_told_apart_and_what_was_said_stays() {
        let progress = |length| Progress {
            display: Display::Lines(Mutex::new(Lines::new(
                "caption",
                length,
                "images",
                Instant::now(),
            ))),
            told: Mutex::default(),
            unit: "images".into(),
        };
        let line = |progress: &Progress| match &progress.display {
            Display::Lines(lines) => lock(lines).line(Instant::now()),
            _ => String::new(),
        };
        let progress = progress(Some(4));
        progress.advance(3);
        assert!(!line(&progress).contains("failed"), "{}", line(&progress));
        progress.advance_failed(1);
        let text = line(&progress);
        assert!(text.starts_with("caption: 4/4 images") && text.ends_with(", 1 failed"), "{text}");
        progress.advance_skipped(2);
        assert!(line(&progress).ends_with(", 2 skipped, 1 failed"), "{}", line(&progress));
        progress.set_message("loss 2");
        assert!(line(&progress).ends_with(", 1 failed, loss 2"), "{}", line(&progress));
    }

    #[test]
    fn a_bar_is_made_with_our_own_templates() {
        for (length, unit) in
            [(Some(10), "steps"), (None, "steps"), (Some(10), BYTES), (None, BYTES)]
        {
            let pace = Arc::new(Mutex::new(Pace::new(0, Instant::now())));
            let bar = bar("train", length, unit, &pace);
            bar.set_draw_target(ProgressDrawTarget::hidden());
            bar.inc(1);
            assert_eq!(bar.position(), 1);
        }
    }
}
