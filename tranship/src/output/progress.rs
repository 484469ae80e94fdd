//! Progress of work that takes longer than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error; gone when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// Whether the bar is still to appear.
    waiting: bool,
}

impl Progress {
    /// Shorter work shows nothing.
    pub const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn new(label: &'static str, total: u64, wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        // The template is a constant; the default style is a fair fallback for a typo in it.
        if let Ok(style) =
            ProgressStyle::with_template("{msg}  ▕{bar:24}▏ {percent:>3} %  {eta} left")
        {
            bar.set_style(style.progress_chars("█▌ "));
        }
        bar.set_message(label);
        Self { bar, started: Instant::now(), waiting: wanted && std::io::stderr().is_terminal() }
    }

    /// So many steps are done, of all.
    pub fn at(&mut self, done: u64) {
        if self.waiting && self.started.elapsed() > Self::PATIENCE {
            self.waiting = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
