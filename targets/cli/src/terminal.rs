//! Terminal output besides text: dimmed reasoning, progress bars, tables.

use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Duration of work below which no bar is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether stdout supports styles.
pub fn has_style() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A progress bar on stderr, shown only on a terminal and only for work of over a second.
pub struct Bar {
    start: Instant,
    bar: Option<ProgressBar>,
    label: String,
}

impl Bar {
    /// A bar that is not shown yet.
    pub fn new(label: impl Into<String>) -> Self {
        Self { start: Instant::now(), bar: None, label: label.into() }
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Sets the progress.
    pub fn set(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && stderr().is_terminal() && self.start.elapsed() > PATIENCE {
            let style = "{msg:12} [{wide_bar}] {percent:>3}%  {eta} left";
            let style =
                ProgressStyle::with_template(style).map(|style| style.progress_chars("=> "));
            let bar = ProgressBar::new(total).with_message(self.label.clone());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            // The remaining time is estimated from the start of the work, not from when the bar
            // appeared.
            self.bar = Some(bar.with_elapsed(self.start.elapsed()));
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints rows in columns, the first left-aligned, the others right-aligned.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
