//! Bodies of answers: a stream of events, and a whole answer whose client is kept waiting with
//! blank lines.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame};
use serde_json::Value;
use tokio::time::{Instant, Sleep};

use crate::answering::{Answering, Outcome, Piece};
use crate::error::{ApiError, Dialect, Result};

/// How an API writes a stream.
pub(crate) trait Protocol: Send + Sync {
    /// Content type of the stream.
    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// Writes what comes before everything.
    fn begin(&mut self, _out: &mut String) {}

    /// Writes a piece of an answer.
    fn piece(&mut self, choice: usize, piece: Piece, out: &mut String);

    /// Writes what follows the last answer.
    fn end(&mut self, out: &mut String);

    /// Writes an error that ends the stream.
    fn error(&mut self, error: &ApiError, out: &mut String);

    /// Writes a sign of life.
    fn ping(&mut self, out: &mut String) {
        out.push_str(": keep-alive\n\n");
    }
}

/// Writes an event without a name.
pub(crate) fn data(out: &mut String, json: &Value) {
    out.push_str("data: ");
    out.push_str(&json.to_string());
    out.push_str("\n\n");
}

/// Writes an event with a name.
pub(crate) fn event(out: &mut String, name: &str, json: &Value) {
    out.push_str("event: ");
    out.push_str(name);
    out.push('\n');
    data(out, json);
}

/// Tells a client that waits how long it will, in a comment.
pub(crate) fn queued(out: &mut String, ahead: usize, wait: Duration) {
    out.push_str(&format!(": queued {ahead}, about {} s\n\n", wait.as_secs_f64().ceil()));
}

/// A body that streams answers.
pub(crate) struct Stream {
    answering: Option<Answering>,
    protocol: Box<dyn Protocol>,
    ping: Pin<Box<Sleep>>,
    every: Duration,
    out: String,
}

impl Stream {
    /// Streams answers in the form of an API.
    pub fn new(answering: Answering, mut protocol: Box<dyn Protocol>) -> Self {
        let every = answering.state().options.limits.keep_alive;
        let mut out = String::new();
        protocol.begin(&mut out);
        let ping = Box::pin(tokio::time::sleep(every));
        Self { answering: Some(answering), protocol, ping, every, out }
    }

    /// The next bytes.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while let Some(answering) = &mut self.answering {
            match answering.poll_piece(cx) {
                Poll::Ready(Some(Ok((choice, piece)))) => {
                    self.protocol.piece(choice, piece, &mut self.out);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.protocol.error(&error, &mut self.out);
                    self.answering = None;
                }
                Poll::Ready(None) => {
                    self.protocol.end(&mut self.out);
                    self.answering = None;
                }
                Poll::Pending if !self.out.is_empty() => break,
                Poll::Pending => {
                    if self.ping.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.protocol.ping(&mut self.out);
                    break;
                }
            }
        }
        if self.out.is_empty() {
            return Poll::Ready(None);
        }
        self.ping.as_mut().reset(Instant::now() + self.every);
        Poll::Ready(Some(std::mem::take(&mut self.out).into()))
    }

    /// Content type of the stream.
    pub fn content_type(&self) -> &'static str {
        self.protocol.content_type()
    }

    /// The response with this body.
    pub fn into_response(self) -> Response {
        streamed(self.content_type(), Body::new(self))
    }
}

/// A response whose body no proxy must hold back.
pub(crate) fn streamed(kind: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

type Rendering = Pin<Box<dyn Future<Output = Result<Value>> + Send>>;

/// A whole answer that takes long: blank lines, then the JSON.
struct Late {
    answer: Option<Rendering>,
    dialect: Dialect,
    ping: Pin<Box<Sleep>>,
    every: Duration,
    first: VecDeque<Bytes>,
}

/// Waits for whole answers. A response that takes long begins before its status is certain, as
/// DeepSeek's does: its errors then have the status 200.
pub(crate) async fn whole(
    answering: Answering,
    dialect: Dialect,
    render: impl FnOnce(Vec<Outcome>) -> Value + Send + 'static,
) -> Result<Response> {
    let every = answering.state().options.limits.keep_alive;
    let mut answer: Rendering = Box::pin(async move { answering.outcomes().await.map(render) });
    let json = [(header::CONTENT_TYPE, "application/json")];
    match tokio::time::timeout(every, &mut answer).await {
        Ok(answer) => Ok((json, answer?.to_string()).into_response()),
        Err(_) => {
            let ping = Box::pin(tokio::time::sleep(every));
            let first = VecDeque::from([Bytes::from_static(b"\n")]);
            let late = Late { answer: Some(answer), dialect, ping, every, first };
            Ok(streamed("application/json", Body::new(late)))
        }
    }
}

impl HttpBody for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let frame = |bytes: Bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        if let Some(first) = this.first.pop_front() {
            return frame(first);
        }
        let Some(answer) = &mut this.answer else { return Poll::Ready(None) };
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            this.answer = None;
            let json = answer.unwrap_or_else(|error| this.dialect.error(&error));
            return frame(json.to_string().into());
        }
        if this.ping.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.ping.as_mut().reset(Instant::now() + this.every);
        cx.waker().wake_by_ref(); // the timer has to be polled again
        frame(Bytes::from_static(b"\n"))
    }
}
