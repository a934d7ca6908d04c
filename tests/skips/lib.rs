//! Tests that cannot run on a machine: each says so at once, and a run of all tests counts them at
//! its end (`tests/tests/what_was_skipped.rs`).
//!
//! It is a crate without dependencies because unit tests of every crate use it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// Says on standard error, past what the test runner captures, that a test is skipped, and why: what is
/// missing, with the package that has it where there is one.
pub fn skipped(reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {reason}");
    remember(reason);
}

fn remember(reason: &str) {
    let Some(file) = record() else { return };
    let _ = file.parent().map(fs::create_dir_all);
    // Tests run at the same time: a line is one write.
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file) {
        let _ = file.write_all(format!("{reason}\n").as_bytes());
    }
}

/// The reasons of all tests that were skipped in this run so far, with the number of each, which are
/// forgotten.
pub fn take() -> Vec<(usize, String)> {
    let Some(file) = record() else { return Vec::new() };
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(file);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.chunk_by(|a, b| a == b).map(|same| (same.len(), same[0].to_string())).collect()
}

/// Where a run's reasons are kept, below the target folder. A run is the process that has started the
/// test programs, known by its number and its start.
fn record() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.ancestors().nth(2)?.join("skipped");
    Some(folder.join(parent()?))
}

#[cfg(unix)]
fn parent() -> Option<String> {
    let id = std::os::unix::process::parent_id();
    // The name in parentheses may contain anything; the start is the 20th field after it.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let start = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    Some(format!("{id}-{}", start.unwrap_or("0")))
}

#[cfg(not(unix))]
fn parent() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::{record, remember, take};

    #[test]
    fn reasons_are_counted_once() {
        let others = take(); // of tests that ran before this one
        remember("b is missing");
        remember("a is missing");
        remember("b is missing");
        let reasons = take();
        let expected = [(1, "a is missing".to_string()), (2, "b is missing".to_string())];
        assert_eq!(reasons, expected);
        assert!(take().is_empty());
        for (count, reason) in others {
            let text = format!("{reason}\n").repeat(count);
            std::fs::write(record().unwrap(), text).unwrap();
        }
    }
}
