//! Progress of long work, on standard error: a live line on a terminal, a line now and then where
//! there is none.
#![allow(clippy::disallowed_methods)] // a shell: reads the clock to space its lines

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines about the same step where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// One step of work that is under way.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    /// Before each line.
    label: String,
    next_line: Instant,
}

impl Progress {
    /// Work of unknown length.
    pub fn spinner(label: impl Into<String>) -> Progress {
        let progress = Progress::new(ProgressBar::new_spinner(), label.into());
        progress.bar.set_style(style("{spinner} {prefix}  {msg}"));
        progress.bar.enable_steady_tick(Duration::from_millis(100));
        progress
    }

    /// Work of so many bytes.
    pub fn bytes(label: impl Into<String>, total: u64) -> Progress {
        let progress = Progress::new(ProgressBar::new(total), label.into());
        let template = "{prefix}  [{bar:32}] {binary_bytes}/{binary_total_bytes}  {msg}";
        progress.bar.set_style(style(template));
        progress
    }

    fn new(bar: ProgressBar, label: String) -> Progress {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.set_prefix(label.clone());
        let terminal = !bar.is_hidden();
        if !terminal {
            eprintln!("{label} ...");
        }
        Progress { bar, terminal, label, next_line: Instant::now() + LINE_EVERY }
    }

    /// Says how it stands.
    pub fn say(&mut self, state: impl Into<String>) {
        let state = state.into();
        if self.terminal {
            self.bar.set_message(state);
        } else if Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            eprintln!("{}  {state}", self.label);
        }
    }

    /// The work is so much in all.
    pub fn length(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// So much is done.
    pub fn at(&mut self, done: u64) {
        self.bar.set_position(done);
        if !self.terminal
            && let Some(total) = self.bar.length().filter(|total| *total > 0)
        {
            self.say(format!("{} %", done.min(total) * 100 / total));
        }
    }

    /// Prints a line above the live one.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// The step has ended; the line stays, with `result`.
    pub fn done(self, result: &str) {
        self.bar.finish_and_clear();
        eprintln!("{}  {result}", self.label);
    }

    /// A step that took no time worth watching.
    pub fn at_once(label: &str, result: &str) {
        eprintln!("{label}  {result}");
    }

    /// The step has ended and nothing of it stays.
    pub fn clear(self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("a template of this file")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("=> ")
}

/// Calls `then` at each Ctrl-C or SIGTERM, which no longer end the process.
pub fn on_stop(mut then: impl FnMut(&'static str) + Send + 'static) -> anyhow::Result<()> {
    let runtime = crate::role::runtime()?;
    let wait = move || {
        runtime.block_on(async {
            loop {
                then(crate::role::asked_to_stop().await);
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
