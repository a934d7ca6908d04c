//! One line of log and the figures of each request. The line holds no text of prompts or answers.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;

use super::metrics::Metrics;

/// Longest identifier of a request that is taken from the client.
const LONGEST_ID: usize = 128;

/// What a request cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub answer_tokens: usize,
    pub joules: Option<f64>,
    /// Why the answer ended; `None` if there was none.
    pub stop: Option<&'static str>,
}

/// A request from its arrival to the end of its answer; dropping it writes the line.
#[derive(Debug)]
pub(crate) struct Record {
    pub id: String,
    /// Method and route, without parameters.
    pub route: String,
    /// Name of the client by its key.
    pub client: String,
    started: Instant,
    status: Mutex<StatusCode>,
    cost: Mutex<Cost>,
    metrics: Arc<Metrics>,
    quiet: bool,
}

impl Record {
    /// A record of a request that has arrived.
    pub fn new(
        id: String,
        route: String,
        client: String,
        metrics: Arc<Metrics>,
        quiet: bool,
    ) -> Self {
        // A request whose answer never began was dropped by its client.
        let status = Mutex::new(StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST));
        let (started, cost) = (Instant::now(), Mutex::default());
        Self { id, route, client, started, status, cost, metrics, quiet }
    }

    /// Sets the status of the response.
    pub fn set_status(&self, status: StatusCode) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Adds what an answer cost.
    pub fn add(&self, cost: &Cost) {
        let mut all = self.cost.lock().unwrap_or_else(PoisonError::into_inner);
        all.prompt_tokens += cost.prompt_tokens;
        all.cached_tokens += cost.cached_tokens;
        all.answer_tokens += cost.answer_tokens;
        if let Some(joules) = cost.joules {
            *all.joules.get_or_insert(0.0) += joules;
        }
        all.stop = cost.stop.or(all.stop);
    }

    fn line(&self, status: StatusCode, cost: &Cost) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut line = format!("{} {} {} {seconds:.3} s", self.id, self.route, status.as_u16());
        if !self.client.is_empty() {
            let _ = write!(line, " client {}", self.client); // a String takes all
        }
        if let Some(stop) = cost.stop {
            let Cost { prompt_tokens, cached_tokens, answer_tokens, .. } = cost;
            let _ = write!(
                line,
                " prompt {prompt_tokens} (cached {cached_tokens}) answer {answer_tokens} ({stop})"
            );
        }
        if let Some(joules) = cost.joules {
            let _ = write!(line, " {joules:.2} J");
        }
        line.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = *self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = self.cost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.metrics.finished(&self.route, status.as_u16(), &cost);
        if !self.quiet {
            eprintln!("{}", self.line(status, &cost));
        }
    }
}

/// The client's identifier of a request, if it can be kept, or a new one.
pub(crate) fn id(given: Option<&str>) -> String {
    let fits = |id: &&str| {
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    given.filter(fits).map_or_else(|| random("req-"), String::from)
}

/// A prefix and 32 unguessable hexadecimal digits.
pub(crate) fn random(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", random_number(), random_number())
}

/// An unguessable number: SipHash of a counter, keyed by the system's random numbers.
pub(crate) fn random_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_unless_it_is_hostile() {
        assert_eq!(id(Some("abc-1")), "abc-1");
        for bad in ["", "a b", "a\u{1b}[2J", &"x".repeat(129)] {
            assert!(id(Some(bad)).starts_with("req-"));
        }
        assert_ne!(id(None), id(None));
    }

    #[test]
    fn the_line_has_no_control_characters() {
        let record =
            Record::new("1".into(), "GET /\u{1b}".into(), "a".into(), Arc::default(), true);
        let cost = Cost { stop: Some("length"), answer_tokens: 3, ..Cost::default() };
        let line = record.line(StatusCode::OK, &cost);
        assert!(
            line.starts_with("1 GET /? 200 0.000 s client a prompt 0 (cached 0) answer 3 (length)")
        );
    }
}
