//! Figures in Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::Cost;

/// Maximum number of unknown fields that are remembered.
const FIELDS: usize = 256;
/// Upper bounds of the buckets of waiting times, in seconds.
const LONG: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Upper bounds of the buckets of times between tokens, in seconds.
const SHORT: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0];

/// Counters of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// When the server started, in seconds since 1970.
    started: u64,
    inner: Mutex<Inner>,
}

impl Default for Metrics {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: now.as_secs(), inner: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// By route and status.
    requests: BTreeMap<(String, u16), u64>,
    unknown: BTreeSet<String>,
    unknown_fields: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    answer_tokens: u64,
    joules: Option<f64>,
    queue: Histogram<14>,
    first_token: Histogram<14>,
    between_tokens: Histogram<13>,
    prompt_seconds: f64,
    answer_seconds: f64,
    /// Tokens after the first of their answer, which take a decode step each.
    steps: u64,
    /// Tokens of the longest prompt with its answer.
    longest: usize,
}

/// Counts of values by bucket.
#[derive(Clone, Debug)]
struct Histogram<const N: usize> {
    counts: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], count: 0, sum: 0.0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&mut self, bounds: &[f64; N], value: f64) {
        for (count, bound) in self.counts.iter_mut().zip(bounds) {
            *count += u64::from(value <= *bound);
        }
        self.count += 1;
        self.sum += value;
    }

    fn write(&self, out: &mut Text, bounds: &[f64; N], name: &str, help: &str) {
        out.head(name, help, "histogram");
        for (count, bound) in self.counts.iter().zip(bounds) {
            out.line(&format!("{name}_bucket{{le=\"{bound}\"}}"), *count);
        }
        out.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), self.count);
        out.line(&format!("{name}_sum"), self.sum);
        out.line(&format!("{name}_count"), self.count);
    }
}

/// A page in Prometheus' format.
#[derive(Default)]
pub(crate) struct Text(pub String);

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a String takes all
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "counter");
        self.line(name, value);
    }

    /// A counter or gauge with one label.
    pub fn labelled<V: std::fmt::Display>(
        &mut self,
        (name, help, kind): (&str, &str, &str),
        label: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(name, help, kind);
        for (of, value) in values {
            self.line(&format!("{name}{{{label}=\"{}\"}}", escaped(&of)), value);
        }
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.line(name, value);
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Metrics {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the server started, in seconds since 1970.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Counts a request that has ended.
    pub fn finished(&self, route: &str, status: u16, cost: &Cost) {
        let mut inner = self.inner();
        *inner.requests.entry((route.to_string(), status)).or_default() += 1;
        inner.prompt_tokens += cost.prompt_tokens.saturating_sub(cost.cached_tokens) as u64;
        inner.cached_tokens += cost.cached_tokens as u64;
        inner.answer_tokens += cost.answer_tokens as u64;
        if let Some(joules) = cost.joules {
            *inner.joules.get_or_insert(0.0) += joules;
        }
    }

    /// Counts fields that no API knows, and logs each once.
    pub fn unknown_fields(&self, fields: BTreeSet<String>) {
        let mut inner = self.inner();
        inner.unknown_fields += fields.len() as u64;
        for field in fields {
            if inner.unknown.len() < FIELDS && inner.unknown.insert(field.clone()) {
                let shown: String = field.chars().filter(|c| !c.is_control()).take(80).collect();
                eprintln!("note: requests have the field `{shown}`, which is ignored");
            }
        }
    }

    /// Records the times and tokens of an answer.
    pub fn answered(
        &self,
        queued: Duration,
        (first_token, decode): (Duration, Duration),
        (prompt, tokens): (usize, usize),
    ) {
        let mut inner = self.inner();
        inner.steps += tokens.saturating_sub(1) as u64;
        inner.longest = inner.longest.max(prompt + tokens);
        inner.queue.add(&LONG, queued.as_secs_f64());
        inner.first_token.add(&LONG, (queued + first_token).as_secs_f64());
        inner.prompt_seconds += first_token.as_secs_f64();
        inner.answer_seconds += decode.as_secs_f64();
        if tokens > 1 {
            let mean = decode.as_secs_f64() / (tokens - 1) as f64;
            inner.between_tokens.add(&SHORT, mean);
        }
    }

    /// Writes all counters.
    pub fn write(&self, out: &mut Text) {
        let inner = self.inner();
        out.head("vaquita_requests_total", "Requests by route and status.", "counter");
        for ((route, status), count) in &inner.requests {
            let name = format!(
                "vaquita_requests_total{{route=\"{}\",status=\"{status}\"}}",
                escaped(route)
            );
            out.line(&name, count);
        }
        out.counter("vaquita_prompt_tokens_total", "Prompt tokens computed.", inner.prompt_tokens);
        out.counter(
            "vaquita_prompt_tokens_cached_total",
            "Prompt tokens taken from the cache.",
            inner.cached_tokens,
        );
        out.counter("vaquita_generated_tokens_total", "Generated tokens.", inner.answer_tokens);
        out.counter(
            "vaquita_unknown_fields_total",
            "Fields of requests that were ignored.",
            inner.unknown_fields,
        );
        if let Some(joules) = inner.joules {
            let help = "Energy of answers.";
            out.counter("vaquita_energy_joules_total", help, joules);
        }
        let help = "Time in the queue.";
        inner.queue.write(out, &LONG, "vaquita_queue_seconds", help);
        let help = "Time from arrival to the first token.";
        inner.first_token.write(out, &LONG, "vaquita_time_to_first_token_seconds", help);
        let help = "Mean time between the tokens of an answer.";
        inner.between_tokens.write(out, &SHORT, "vaquita_inter_token_seconds", help);
        // The names of llama.cpp's dashboards.
        let (prompt, answer) = (inner.prompt_seconds, inner.answer_seconds);
        out.counter("llamacpp:prompt_tokens_total", "Prompt tokens computed.", inner.prompt_tokens);
        out.counter("llamacpp:prompt_seconds_total", "Time of prompts.", prompt);
        out.counter("llamacpp:tokens_predicted_total", "Generated tokens.", inner.answer_tokens);
        out.counter("llamacpp:tokens_predicted_seconds_total", "Time of answers.", answer);
        let rate = |tokens: u64, seconds: f64| match seconds > 0.0 {
            true => tokens as f64 / seconds,
            false => 0.0,
        };
        let cached = inner.cached_tokens;
        out.counter("llamacpp:prompt_tokens_cached_total", "Prompt tokens from the cache.", cached);
        let help = "Tokens of the longest prompt with its answer.";
        out.counter("llamacpp:n_tokens_max", help, inner.longest);
        let rates = (rate(inner.prompt_tokens, prompt), rate(inner.steps, answer));
        out.gauge("llamacpp:prompt_tokens_seconds", "Prompt tokens per second.", rates.0);
        out.gauge("llamacpp:predicted_tokens_seconds", "Generated tokens per second.", rates.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_labels_escaped() {
        let metrics = Metrics::default();
        metrics.finished("GET /\"x\"", 200, &Cost::default());
        let times = (Duration::from_millis(30), Duration::from_secs(1));
        metrics.answered(Duration::ZERO, times, (5, 11));
        let mut text = Text::default();
        metrics.write(&mut text);
        let has = |line: &str| assert!(text.0.lines().any(|one| one == line), "{line}\n{}", text.0);
        has(r#"vaquita_requests_total{route="GET /\"x\"",status="200"} 1"#);
        has(r#"vaquita_time_to_first_token_seconds_bucket{le="0.01"} 0"#);
        has(r#"vaquita_time_to_first_token_seconds_bucket{le="0.05"} 1"#);
        has(r#"vaquita_inter_token_seconds_bucket{le="+Inf"} 1"#);
        has("llamacpp:n_tokens_max 16");
        has("llamacpp:predicted_tokens_seconds 10");
    }
}
