//! Errors as clients see them. A handler returns an [`ApiError`]; [`Dialect`] writes it in the form
//! of the API that the path belongs to.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use vaquita_runtime::app::AppError;
use vaquita_runtime::engine::{Refused, SlotError};
use vaquita_runtime::session::prompt::PromptError;
use vaquita_runtime::session::tools::offer::OfferError;
use vaquita_runtime::structured::StructuredError;

use crate::options::Part;

/// Reason why a request is refused or an answer ended early.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Type of the error in OpenAI's API.
    pub kind: &'static str,
    /// Code for programs.
    pub code: Option<&'static str>,
    /// Field of the request that is wrong.
    pub param: Option<String>,
    /// Description, and what to do.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Further members of the error.
    pub details: Option<Box<Map<String, Value>>>,
}

/// Result of a handler.
pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// An error with a status, a type and a message.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let (code, param, retry_after) = (None, None, None);
        Self { status, kind, code, param, message, retry_after, details: None }
    }

    /// A request of the wrong form: 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field of the wrong form: 400.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::bad(message) }
    }

    /// A field of the right form, whose value is not allowed: 422.
    pub fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, ..Self::field(param, message) }
    }

    /// The server has a bug: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The model or this server cannot do it: 501.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_supported_error", message)
    }

    /// The operator left a part of the server out: 501.
    pub fn left_out(part: Part) -> Self {
        let name = match part {
            Part::Page => "page",
            Part::Slots => "slots",
            Part::Metrics => "metrics",
        };
        Self::unsupported(format!("this server was started with --without {name}"))
    }

    /// The server cannot answer now: 503.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Nothing is at a path or under a name: 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    /// The prompt does not fit: 400, in llama.cpp's form.
    pub fn too_long(needed: Option<usize>, limit: usize) -> Self {
        let tokens = needed.map_or("more".into(), |needed| needed.to_string());
        let message = format!(
            "the request exceeds the available context size: it needs {tokens} tokens, and the context has {limit}; \
             shorten the conversation, ask for fewer tokens, or start the server with a longer --context"
        );
        let mut error = Self::bad(message);
        (error.kind, error.code) = ("exceed_context_size_error", Some("context_length_exceeded"));
        let details = [("n_prompt_tokens", needed.into()), ("n_ctx", limit.into())];
        let details = details.map(|(name, value): (&str, Value)| (name.to_string(), value));
        error.details = Some(Box::new(Map::from_iter(details)));
        error
    }

    /// The answer was cut short by the end of the server.
    pub fn ended() -> Self {
        Self::unavailable("the server ends; the answer is incomplete", Duration::from_secs(10))
    }

    /// The body of the error in OpenAI's form.
    pub fn to_json(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        });
        if let (Value::Object(members), Some(details)) = (&mut error, &self.details) {
            members.extend(details.as_ref().clone());
        }
        json!({ "error": error })
    }
}

/// The API that a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    /// The API of a path.
    pub fn of(path: &str) -> Self {
        match path {
            _ if path.starts_with("/v1/messages") => Self::Anthropic,
            _ if path.starts_with("/api/") => Self::Ollama,
            _ => Self::OpenAi,
        }
    }

    /// The body of an error.
    pub fn error(self, error: &ApiError) -> Value {
        match self {
            Self::OpenAi => error.to_json(),
            Self::Anthropic => {
                let kind = match error.status.as_u16() {
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    503 => "overloaded_error",
                    500..=599 => "api_error",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": error.message}})
            }
            Self::Ollama => json!({"error": error.message}),
        }
    }

    /// A response with an error.
    pub fn response(self, error: &ApiError) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (error.status, json, self.error(error).to_string()).into_response();
        if let Some(after) = error.retry_after {
            let seconds = HeaderValue::from(after.as_secs_f64().ceil().max(1.0) as u64);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if error.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// An error on its way to the middleware that writes it ([`Dialect::response`]).
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::QueueFull { retry_after } => Self::unavailable(
                "the server is busy and its queue is full; try again later",
                retry_after,
            ),
            Refused::ClientShare { retry_after } => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "rate_limit_error",
                ..Self::unavailable(
                    "this client's share of the queue is full; wait for its other answers",
                    retry_after,
                )
            },
            Refused::TooLong { needed, limit } => Self::too_long(Some(needed), limit),
            Refused::Invalid(error) => Self::bad(error.to_string()),
            _ => Self::ended(),
        }
    }
}

/// Errors of slots where no file is involved.
impl From<SlotError> for ApiError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Ended => Self::ended(),
            error => Self::field("id_slot", error.to_string()),
        }
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        match error {
            PromptError::TooLong { most } => Self::too_long(None, most),
            PromptError::NoTemplate => Self::unsupported(error.to_string()),
            _ => Self::field("messages", error.to_string()),
        }
    }
}

impl From<StructuredError> for ApiError {
    fn from(error: StructuredError) -> Self {
        match error {
            StructuredError::Busy => Self::unavailable(error.to_string(), Duration::from_secs(1)),
            _ => Self::field("response_format", error.to_string()),
        }
    }
}

impl From<OfferError> for ApiError {
    fn from(error: OfferError) -> Self {
        let text = error.to_string();
        let param = text.split(": ").next().filter(|path| path.starts_with("tools["));
        Self::field(param.unwrap_or("tools").to_string(), text.clone())
    }
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        Self::internal(error.to_string())
    }
}
