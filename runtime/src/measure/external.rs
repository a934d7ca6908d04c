//! A meter outside the machine, such as one in its power lead. A program, a file or a pipe delivers
//! lines:
//!
//! ```text
//! name UM25C in the supply lead
//! scope whole board
//! 7.31 W
//! 7.35 W
//! ```
//!
//! A line with `W` is the current power; one with `J` is a monotonic counter of joules. `name` and
//! `scope` are optional; empty lines and lines that begin with `#` are ignored. Any other line ends
//! the measurement.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::meter::{Meter, MeterError, Reading};

/// Time without a new line after which the meter counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of a line, in bytes.
const LINE_LIMIT: u64 = 1000;

/// A meter that delivers lines.
pub struct External {
    name: String,
    scope: String,
    latest: Arc<Latest>,
    /// Counter value at the previous reading.
    counted: Option<f64>,
    program: Option<Child>,
}

#[derive(Default)]
struct Latest {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    name: Option<String>,
    scope: Option<String>,
    value: Option<(Value, Instant)>,
    received: u64,
    ended: Option<String>,
}

#[derive(Clone, Copy)]
enum Value {
    Watts(f64),
    /// Joules on a counter with an arbitrary start.
    Joules(f64),
}

impl External {
    /// A meter whose lines are the output of a shell command. The command is killed when the meter
    /// is dropped.
    pub fn command(line: &str) -> Result<Self, MeterError> {
        let refused = |error: std::io::Error| MeterError::new(line, error.to_string());
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut program = command.spawn().map_err(refused)?;
        let lines = program.stdout.take().ok_or_else(|| MeterError::new(line, "no output"))?;
        Self::start(line, lines, Some(program))
    }

    /// A meter whose lines come from a file or a pipe.
    pub fn lines(name: &str, lines: impl Read + Send + 'static) -> Result<Self, MeterError> {
        Self::start(name, lines, None)
    }

    fn start(
        name: &str,
        lines: impl Read + Send + 'static,
        program: Option<Child>,
    ) -> Result<Self, MeterError> {
        let latest = Arc::new(Latest::default());
        let (name, scope) = (name.to_string(), "as the meter has it".to_string());
        let mut meter = Self { name, scope, latest: latest.clone(), counted: None, program };
        // The thread ends with the input; nothing joins it.
        std::thread::spawn(move || latest.follow(BufReader::new(lines)));
        let first = meter.wait_for_first()?;
        if let Value::Joules(counter) = first {
            meter.counted = Some(counter);
        }
        Ok(meter)
    }

    fn wait_for_first(&mut self) -> Result<Value, MeterError> {
        let silent = |state: &mut State| state.value.is_none() && state.ended.is_none();
        let waited = self.latest.changed.wait_timeout_while(self.latest.lock(), PATIENCE, silent);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let name = state.name.clone().unwrap_or_else(|| self.name.clone());
        let scope = state.scope.clone().unwrap_or_else(|| self.scope.clone());
        let value = state.value.map(|(value, _)| value).ok_or_else(|| state.why_not());
        drop(state);
        (self.name, self.scope) = (name, scope);
        value.map_err(|reason| MeterError::new(self.name.clone(), reason))
    }
}

impl Latest {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, mut lines: impl BufRead) {
        let mut line = Vec::new();
        let ended = loop {
            line.clear();
            match lines.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
                Ok(0) => break "it gives out no more lines".to_string(),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
            let text = String::from_utf8_lossy(&line);
            if let Err(reason) = self.lock().take(text.trim()) {
                break reason;
            }
            self.changed.notify_all();
        };
        self.lock().ended = Some(ended);
        self.changed.notify_all();
    }
}

/// Text of a meter without control characters, which could be a terminal's escape sequences.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).collect()
}

impl State {
    fn take(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "name" => self.name = Some(printable(rest)),
            "scope" => self.scope = Some(printable(rest)),
            number => {
                let value = number.parse().ok().filter(|value| (0.0..1e15).contains(value));
                let value = match (value, rest.trim()) {
                    (Some(value), "W") => Value::Watts(value),
                    (Some(value), "J") => Value::Joules(value),
                    _ => return Err(format!("it says {line:?}; allowed: 7.31 W or 1234.5 J")),
                };
                self.value = Some((value, Instant::now()));
                self.received += 1;
            }
        }
        Ok(())
    }

    fn why_not(&self) -> String {
        let silent = || format!("it has said nothing for {} seconds", PATIENCE.as_secs());
        self.ended.clone().unwrap_or_else(silent)
    }
}

impl Meter for External {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> &str {
        &self.scope
    }

    fn received(&self) -> Option<u64> {
        Some(self.latest.lock().received)
    }

    fn read(&mut self) -> Result<Reading, MeterError> {
        let refused = |reason| MeterError::new(self.name.clone(), reason);
        let state = self.latest.lock();
        let fresh = state.value.filter(|(_, at)| state.ended.is_none() && at.elapsed() < PATIENCE);
        match fresh.ok_or_else(|| refused(state.why_not()))?.0 {
            Value::Watts(watts) => Ok(Reading::Watts(watts)),
            Value::Joules(now) => {
                let before = self.counted.replace(now).unwrap_or(now);
                if now < before {
                    let reason = format!("its counter went back from {before} J to {now} J");
                    return Err(refused(reason));
                }
                Ok(Reading::Joules(now - before))
            }
        }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        let Some(program) = &mut self.program else { return };
        // The processes that the shell started are in its process group.
        if let Some(group) = rustix::process::Pid::from_raw(program.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
        let _ = program.kill();
        let _ = program.wait();
    }
}
