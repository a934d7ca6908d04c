//! Answers in Ollama's form: one JSON object, or one in a line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use vaquita_runtime::session::tools::{Answer, Call, ToolEvent};

use crate::answering::{Outcome, Piece};
use crate::error::{ApiError, Dialect};
use crate::http::sse::Protocol;
use crate::served::Served;

/// Which of the two forms an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Chat,
    Generate,
}

/// A time in the form of RFC 3339.
pub(super) fn rfc3339(since_1970: Duration) -> String {
    let (days, second) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    // Howard Hinnant's days to civil date, for days after 1970.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since_1970.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn line(name: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({"model": name, "created_at": rfc3339(now)})
}

/// Text, reasoning and calls in a line.
fn content(form: Form, json: &mut Value, text: &str, thoughts: &str, calls: &[Call]) {
    if form == Form::Generate {
        json["response"] = text.into();
        if !thoughts.is_empty() {
            json["thinking"] = thoughts.into();
        }
        return;
    }
    let mut message = json!({"role": "assistant", "content": text});
    if !thoughts.is_empty() {
        message["thinking"] = thoughts.into();
    }
    if !calls.is_empty() {
        let call = |call: &Call| {
            let arguments: Value =
                serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            json!({"function": {"name": call.name, "arguments": arguments}})
        };
        message["tool_calls"] = calls.iter().map(call).collect();
    }
    json["message"] = message;
}

/// The members of the last line.
fn close(json: &mut Value, outcome: &Outcome) {
    let generation = &outcome.generation;
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    json["done"] = true.into();
    json["done_reason"] = match outcome.finish_reason() {
        "length" => "length",
        _ => "stop",
    }
    .into();
    json["total_duration"] = nanoseconds(generation.prefill + generation.decode).into();
    json["load_duration"] = 0.into();
    json["prompt_eval_count"] = generation.prompt_tokens.into();
    json["prompt_eval_duration"] = nanoseconds(generation.prefill).into();
    json["eval_count"] = generation.tokens.len().into();
    json["eval_duration"] = nanoseconds(generation.decode).into();
    json["timings"] = outcome.timings.clone();
}

/// The response to a request that is not streamed.
pub(super) fn whole(form: Form, name: &str, outcomes: &[Outcome]) -> Value {
    let mut json = line(name);
    let Some(outcome) = outcomes.first() else { return json };
    let generation = &outcome.generation;
    content(form, &mut json, &generation.answer, &generation.reasoning, &generation.calls);
    close(&mut json, outcome);
    json
}

/// The answer to a request for loading the model.
pub(super) fn loaded(model: &Served, name: Option<&str>) -> Response {
    let mut json = line(name.unwrap_or(&model.info.id));
    json["response"] = "".into();
    json["done"] = true.into();
    json["done_reason"] = "load".into();
    Json(json).into_response()
}

/// The lines of a streamed answer. Ollama sends calls whole.
pub(super) struct Lines {
    form: Form,
    name: String,
    calls: Answer,
}

impl Lines {
    /// A stream.
    pub fn new(form: Form, name: String) -> Self {
        Self { form, name, calls: Answer::default() }
    }

    fn send(&self, text: &str, thoughts: &str, calls: &[Call], out: &mut String) {
        let mut json = line(&self.name);
        content(self.form, &mut json, text, thoughts, calls);
        json["done"] = false.into();
        out.push_str(&json.to_string());
        out.push('\n');
    }
}

impl Protocol for Lines {
    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn piece(&mut self, _choice: usize, piece: Piece, out: &mut String) {
        match piece {
            Piece::Text(text) if !text.is_empty() => self.send(&text, "", &[], out),
            Piece::Reasoning(text) if !text.is_empty() => self.send("", &text, &[], out),
            Piece::Call(event) => {
                self.calls.apply(&event);
                if matches!(event, ToolEvent::End { .. })
                    && let Some(call) = self.calls.calls.last().cloned()
                {
                    self.send("", "", &[call], out);
                }
            }
            Piece::Done(outcome) => {
                let mut json = line(&self.name);
                content(self.form, &mut json, "", "", &[]);
                close(&mut json, &outcome);
                out.push_str(&json.to_string());
                out.push('\n');
            }
            _ => {}
        }
    }

    fn end(&mut self, _out: &mut String) {}

    fn error(&mut self, error: &ApiError, out: &mut String) {
        out.push_str(&Dialect::Ollama.error(error).to_string());
        out.push('\n');
    }

    /// Lines have no comments: an empty piece.
    fn ping(&mut self, out: &mut String) {
        self.send("", "", &[], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds| rfc3339(Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_910_399), "2026-11-28T23:59:59.000Z");
    }
}
