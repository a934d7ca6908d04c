//! Routes, and what happens to every request: identifier, checks, log, headers, form of errors.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::error::{ApiError, Dialect, Result};
use crate::health::health;
use crate::http::guard::check_body;
use crate::http::io::Busy;
use crate::http::record::{self, Record};
use crate::openai::{chat, completions, control, models};
use crate::options::Part;
use crate::state::State;
use crate::{anthropic, llama, ollama, page, responses, resume, status, tokens};

/// Header with the identifier of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// All routes.
pub(crate) fn router(state: State) -> Router {
    let page = match state.options.without.contains(&Part::Page) {
        true => Router::new(),
        false => page::routes(),
    };
    let open = page.route("/health", get(health)).route("/v1/health", get(health));
    let keyed = Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/completion", post(llama::completion::complete))
        .route("/completions", post(llama::completion::complete))
        .route("/infill", post(llama::infill::complete))
        .route("/beta/completions", post(completions::complete))
        .route("/beta/chat/completions", post(chat::complete))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/responses", post(responses::create))
        .route("/responses", post(responses::create))
        .route("/v1/responses/input_tokens", post(responses::input_tokens))
        .route("/v1/responses/{id}", get(responses::stored).delete(responses::stored))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::ps))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(ollama::version))
        .route("/v1/stream", get(resume::read).delete(resume::end))
        .route("/v1/models", get(models::list))
        .route("/models", get(models::list))
        .route("/v1/models/{id}", get(models::one))
        .route("/models/{id}", get(models::one))
        .route("/v1/chat/completions/control", post(control::control))
        .route("/v1/chat/completions/input_tokens", post(tokens::input_tokens))
        .route("/chat/completions/input_tokens", post(tokens::input_tokens))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(tokens::apply_template))
        .route("/metrics", get(status::metrics))
        .route("/props", get(llama::props::props))
        .route("/slots", get(llama::slots::slots))
        .route("/slots/{id}", post(llama::slots::action))
        .route("/embedding", post(llama::pooling))
        .route("/embeddings", post(llama::pooling))
        .route("/v1/embeddings", post(llama::pooling))
        .route("/rerank", post(llama::pooling))
        .route("/reranking", post(llama::pooling))
        .route("/v1/rerank", post(llama::pooling))
        .route("/v1/reranking", post(llama::pooling))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(check_key));
    open.merge(keyed).layer(middleware::from_fn_with_state(state.clone(), every)).with_state(state)
}

async fn nowhere() -> ApiError {
    ApiError::not_found("there is nothing at this path; docs/server.md lists the paths")
}

async fn wrong_method() -> ApiError {
    let message = "this path has another method: most take POST";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
}

/// Name of the client, in the extensions of a request.
#[derive(Clone)]
struct Client(Result<String>);

/// Refuses requests without a key.
async fn check_key(request: Request, next: Next) -> Result<Response> {
    let client = request.extensions().get::<Client>().cloned();
    client.map_or(Ok(String::new()), |client| client.0)?;
    Ok(next.run(request).await)
}

/// What happens to every request.
async fn every(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_string();
    let (method, dialect) = (request.method().clone(), Dialect::of(&path));
    let headers = request.headers();
    let id = record::id(headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()));
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str);
    let client = state.guard.client(headers);
    let name = client.clone().unwrap_or_default();
    let quiet = path == "/health" || path == "/v1/health" || path == "/metrics";
    let record =
        Record::new(id.clone(), format!("{method} {route}"), name, state.metrics.clone(), quiet);
    let record = Arc::new(record);
    let origin = headers.get(header::ORIGIN).cloned();
    let allowed =
        origin.filter(|origin| origin.to_str().is_ok_and(|origin| state.guard.allows(origin)));
    let checked = state.guard.check_source(headers).and_then(|()| check_body(&method, headers));
    let busy = request.extensions_mut().remove::<Busy>();
    request.extensions_mut().insert(record.clone());
    request.extensions_mut().insert(Client(client));
    let mut response = match checked {
        Err(error) => error.into_response(),
        Ok(()) if method == Method::OPTIONS && allowed.is_some() => preflight(),
        Ok(()) => next.run(request).await,
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = dialect.response(&error);
    }
    record.set_status(response.status());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response.map(|inner| Body::new(Recorded { inner, _record: record, busy }))
}

/// Answer to a browser that asks whether a page may send a request.
fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, x-api-key, x-request-id, x-conversation-id",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::OK, headers).into_response()
}

/// A body that ends the record of its request when it ends.
struct Recorded {
    inner: Body,
    _record: Arc<Record>,
    busy: Option<Busy>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(busy) = &self.busy {
            busy.set(false);
        }
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        // Bodies of this server cannot fail: an error would be the end.
        let polled = Pin::new(&mut self.get_mut().inner).poll_frame(cx);
        polled.map(|frame| frame.and_then(std::result::Result::ok).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
