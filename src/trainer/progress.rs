//! A progress bar on standard error, where that is a terminal and the configuration asks for one.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bar of one epoch or pass.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar of `total` steps; nothing is drawn unless `shown`, nor where standard error is no terminal.
    pub fn new(shown: bool, title: String, total: usize) -> Self {
        if !shown {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed} < {eta} {per_sec} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(title);
        Self(Some(bar))
    }

    /// One step further, with the loss.
    pub fn step(&self, position: usize, loss: f64) {
        if let Some(bar) = &self.0 {
            bar.set_position(position as u64);
            bar.set_message(format!("loss: {loss:.3}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
