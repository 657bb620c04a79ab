//! Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::console::Console;

/// How often a line is printed where no bar can be drawn, as in a log file.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// How far a long job has come. Shared by reference: every method takes `&self`, from any thread.
#[derive(Debug)]
pub struct Progress {
    display: Display,
    told: Mutex<Told>,
}

/// What follows the figures.
#[derive(Debug, Default)]
struct Told {
    /// Parts that are done with, but not done.
    failed: u64,
    message: String,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failed, message } = self;
        match (failed, message.as_str()) {
            (0, message) => formatter.write_str(message),
            (failed, "") => write!(formatter, "{failed} failed"),
            (failed, message) => write!(formatter, "{failed} failed, {message}"),
        }
    }
}

#[derive(Debug)]
enum Display {
    Hidden,
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

impl Progress {
    /// Starts a job of `length` parts (`None` where nobody knows), called `label` and counted in
    /// `unit`, as in `train` and `steps`.
    pub fn new(console: &Console, label: &str, length: Option<u64>, unit: &str) -> Self {
        let display = if console.is_quiet() {
            Display::Hidden
        } else if console.is_terminal() {
            Display::Bar(bar(label, length, unit))
        } else {
            Display::Lines(Mutex::new(Lines::new(label, length, unit, Instant::now())))
        };
        Self { display, told: Mutex::default() }
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
            Display::Bar(bar) => {
                bar.set_position(position);
                bar.reset_eta();
            }
            Display::Lines(lines) => {
                let mut lines = lock(lines);
                lines.first = position;
                lines.position = position;
            }
        }
    }

    /// Says that `count` more parts are done.
    pub fn advance(&self, count: u64) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.inc(count),
            Display::Lines(lines) => {
                let mut lines = lock(lines);
                lines.position += count;
                print(lines.line_when_due(Instant::now()));
            }
        }
    }

    /// Says that `count` more parts are done with, but failed: they are counted apart as well.
    pub fn advance_failed(&self, count: u64) {
        self.tell(|told| told.failed += count);
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
            Display::Bar(bar) => bar.set_message(told.to_string()),
            Display::Lines(lines) => lock(lines).message = told.to_string(),
        }
    }

    /// Takes the bar away while `print` writes to the terminal, and draws it again below.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.display {
            Display::Bar(bar) => bar.suspend(print),
            Display::Hidden | Display::Lines(_) => print(),
        }
    }

    /// Takes the bar away for good, and leaves no line in a log.
    pub fn clear(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }

    /// Ends the job. The bar goes away: what comes of the job says more. A log gets a last line.
    pub fn finish(&self) {
        match &self.display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.finish_and_clear(),
            Display::Lines(lines) => print(Some(lock(lines).line(Instant::now()))),
        }
    }
}

/// The unit of downloads, shown as MB.
const BYTES: &str = "bytes";

fn bar(label: &str, length: Option<u64>, unit: &str) -> ProgressBar {
    let template = match length {
        Some(_) if unit == BYTES => {
            "{prefix} [{bar:24}] {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left  {wide_msg}"
        }
        None if unit == BYTES => {
            "{prefix} {spinner} {decimal_bytes}, {decimal_bytes_per_sec}, {elapsed}  {wide_msg}"
        }
        Some(_) => {
            "{prefix} [{bar:24}] {human_pos}/{human_len} UNIT, {per_sec}, {eta} left  {wide_msg}"
        }
        None => "{prefix} {spinner} {human_pos} UNIT, {per_sec}, {elapsed}  {wide_msg}",
    };
    // Units are our own words and hold no braces; the default is for the day one does.
    let style = ProgressStyle::with_template(&template.replace("UNIT", unit))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(style);
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
    first: u64,
    position: u64,
    message: String,
    started: Instant,
    last_line: Instant,
}

impl Lines {
    fn new(label: &str, length: Option<u64>, unit: &str, now: Instant) -> Self {
        Self {
            label: label.to_string(),
            unit: unit.to_string(),
            length,
            first: 0,
            position: 0,
            message: String::new(),
            started: now,
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
        let Self { label, unit, position, .. } = self;
        let seconds = now.saturating_duration_since(self.started).as_secs_f64();
        let rate = self.position.saturating_sub(self.first) as f64 / seconds.max(1e-3);
        let percent = |length: u64| 100.0 * *position as f64 / length.max(1) as f64;
        let mut line = match (self.length, unit.as_str()) {
            (Some(length), BYTES) => {
                let (here, all) = (*position as f64 / 1e6, length as f64 / 1e6);
                let (percent, rate) = (percent(length), rate / 1e6);
                format!("{label}: {here:.1}/{all:.1} MB ({percent:.0} %), {rate:.1} MB/s")
            }
            (None, BYTES) => {
                format!("{label}: {:.1} MB, {:.1} MB/s", *position as f64 / 1e6, rate / 1e6)
            }
            (Some(length), _) => {
                let percent = percent(length);
                format!("{label}: {position}/{length} {unit} ({percent:.0} %), {rate:.1}/s")
            }
            (None, _) => format!("{label}: {position} {unit}, {rate:.1}/s"),
        };
        let left = self.length.map_or(0, |length| length.saturating_sub(*position));
        if left > 0 && rate > 0.0 {
            line.push_str(&format!(", {} left", short_time(left as f64 / rate)));
        }
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
        let mut lines = Lines::new("train", Some(1000), "steps", start);
        (lines.first, lines.position) = (400, 400);
        lines.position += 60;
        lines.message = "loss 2.31".into();
        assert_eq!(lines.line_when_due(start + Duration::from_secs(29)), None);
        assert_eq!(
            lines.line_when_due(start + Duration::from_secs(30)).as_deref(),
            Some("train: 460/1000 steps (46 %), 2.0/s, 5 min left, loss 2.31")
        );
        assert_eq!(lines.line_when_due(start + Duration::from_secs(59)), None);
        lines.position = 1000;
        assert_eq!(
            lines.line(start + Duration::from_secs(60)),
            "train: 1000/1000 steps (100 %), 10.0/s, loss 2.31"
        );
    }

    #[test]
    fn a_job_of_unknown_or_no_length_has_a_line_too() {
        let start = Instant::now();
        let mut lines = Lines::new("check", None, "images", start);
        lines.position = 20;
        assert_eq!(lines.line(start + Duration::from_secs(10)), "check: 20 images, 2.0/s");
        let nothing = Lines::new("check", Some(0), "images", start);
        assert_eq!(nothing.line(start), "check: 0/0 images (0 %), 0.0/s");
    }

    #[test]
    fn downloads_count_in_megabytes() {
        let start = Instant::now();
        let mut lines = Lines::new("model.safetensors", Some(990_400_000), BYTES, start);
        (lines.first, lines.position) = (300_000_000, 500_000_000);
        assert_eq!(
            lines.line(start + Duration::from_secs(10)),
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
        progress.set_message("loss 2");
        assert!(line(&progress).ends_with(", 1 failed, loss 2"), "{}", line(&progress));
    }

    #[test]
    fn a_bar_is_made_with_our_own_templates() {
        for (length, unit) in
            [(Some(10), "steps"), (None, "steps"), (Some(10), BYTES), (None, BYTES)]
        {
            let bar = bar("train", length, unit);
            bar.set_draw_target(ProgressDrawTarget::hidden());
            bar.inc(1);
            assert_eq!(bar.position(), 1);
        }
    }
}
