//! `GET /metrics`: figures of the server, never texts of its clients.

use axum::extract::State as Shared;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use vaquita_runtime::engine::{Counters, Status};
use vaquita_runtime::session::draft::MOST_DRAFTS;

use crate::error::{ApiError, Result};
use crate::http::metrics::Text;
use crate::options::Part;
use crate::served::Served;
use crate::state::State;

/// Figures in Prometheus' text format.
pub(crate) async fn metrics(Shared(state): Shared<State>) -> Result<Response> {
    if state.options.without.contains(&Part::Metrics) {
        return Err(ApiError::left_out(Part::Metrics));
    }
    let mut text = Text::default();
    state.metrics.write(&mut text);
    if let Ok(model) = state.model() {
        engine(&mut text, &model.engine.status());
        model_figures(&mut text, model);
    }
    let started = state.metrics.started().to_string();
    let headers = [
        (header::CONTENT_TYPE, "text/plain; version=0.0.4"),
        (HeaderName::from_static("process-start-time-unix"), &started),
    ];
    Ok((headers, text.0).into_response())
}

fn engine(text: &mut Text, status: &Status) {
    text.gauge("vaquita_requests_running", "Answers that are generated.", status.running);
    text.gauge("vaquita_queue_depth", "Requests that wait.", status.queued);
    text.gauge("vaquita_slots", "Answers that can be generated at once.", status.slots);
    text.gauge(
        "vaquita_cache_tokens_used",
        "Reserved positions of cache.",
        status.cache_tokens_used,
    );
    text.gauge("vaquita_cache_tokens", "Positions of cache.", status.cache_tokens);
    let Counters { cancelled, late, failed, refused, passes, drafted, accepted_drafts, .. } =
        status.counters;
    text.counter("vaquita_cancelled_total", "Answers that were cancelled.", cancelled);
    text.counter("vaquita_late_total", "Answers that came after their deadline.", late);
    text.counter("vaquita_failed_total", "Answers that failed.", failed);
    text.counter("vaquita_passes_total", "Passes of the model.", passes);
    llamacpp(text, status);
    let places =
        |counts: [u64; MOST_DRAFTS]| (1..).map(|place: usize| place.to_string()).zip(counts);
    text.labelled(
        ("vaquita_drafted_tokens_total", "Drafted tokens by their place in a step.", "counter"),
        "place",
        places(drafted),
    );
    text.labelled(
        ("vaquita_accepted_drafts_total", "Accepted drafts by their place in a step.", "counter"),
        "place",
        places(accepted_drafts),
    );
    let reasons = [
        ("queue_full", refused.queue_full),
        ("client_share", refused.client_share),
        ("too_long", refused.too_long),
        ("invalid", refused.invalid),
        ("draining", refused.draining),
    ];
    text.labelled(
        ("vaquita_rejected_total", "Requests that the engine refused.", "counter"),
        "why",
        reasons.map(|(why, count)| (why.to_string(), count)),
    );
}

/// Figures under the names of llama.cpp's dashboards.
fn llamacpp(text: &mut Text, status: &Status) {
    text.gauge("llamacpp:requests_processing", "Answers that are generated.", status.running);
    text.gauge("llamacpp:requests_deferred", "Requests that wait.", status.queued);
    let Counters { passes, tokens, drafted, accepted_drafts, .. } = status.counters;
    text.counter("llamacpp:n_decode_total", "Passes of the model.", passes);
    let busy = if passes > 0 { tokens as f64 / passes as f64 } else { 0.0 };
    text.gauge("llamacpp:n_busy_slots_per_decode", "Tokens generated per pass.", busy);
    let drafts = |name: &str| format!("llamacpp:spec_decode_num_{name}_total");
    text.counter(&drafts("draft_tokens"), "Drafted tokens.", drafted.iter().sum::<u64>());
    let accepted = accepted_drafts.iter().sum::<u64>();
    text.counter(&drafts("accepted_tokens"), "Accepted drafts.", accepted);
    // Every step that drafts has a draft in the first place.
    text.counter(&drafts("drafts"), "Steps with drafts.", drafted[0]);
}

fn model_figures(text: &mut Text, model: &Served) {
    if let Some(stats) = model.app.streaming() {
        let reads = stats.uses.saturating_sub(stats.hits);
        text.counter("vaquita_expert_uses_total", "Experts that were needed.", stats.uses);
        text.counter("vaquita_expert_reads_total", "Experts read from storage.", reads);
        let help = "Bytes of experts read from storage.";
        text.counter("vaquita_expert_read_bytes_total", help, stats.bytes_read);
    }
    let memory = model.app.memory();
    let parts = [
        ("process", memory.process.map(|process| process.resident)),
        ("dense", memory.dense),
        ("cache", memory.cache),
        ("scratch", memory.scratch),
        ("experts", memory.experts),
    ];
    let known = parts.into_iter().filter_map(|(part, bytes)| Some((part.to_string(), bytes?)));
    text.labelled(("vaquita_memory_bytes", "Memory in bytes.", "gauge"), "part", known);
    if let Some(budget) = memory.budget {
        text.gauge("vaquita_memory_budget_bytes", "Memory budget in bytes.", budget);
    }
}
