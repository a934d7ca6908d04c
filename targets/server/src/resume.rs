//! Streams that outlive their connection, for phones whose screen locks: a client that names its
//! stream (`X-Conversation-Id`) can read on from any byte with `GET /v1/stream`, and ends it with
//! `DELETE`. Streams cannot be listed, and belong to the key that began them.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::Instant;

use crate::error::{ApiError, Result};
use crate::http::record::Record;
use crate::http::sse::{Stream, streamed};
use crate::state::State;

/// Bytes of a stream that are kept.
const BYTES: usize = 4 << 20;
/// Streams that are kept.
const STREAMS: usize = 64;
/// Time that a stream is kept after its end, and without a reader.
const KEPT: Duration = Duration::from_secs(300);
/// Interval of looking for streams that nobody reads.
const LOOK: Duration = Duration::from_secs(10);

/// Streams by client and identifier.
#[derive(Default)]
pub(crate) struct Streams {
    kept: Mutex<HashMap<(String, String), Arc<Kept>>>,
}

/// A stream that is kept.
#[derive(Default)]
struct Kept(Mutex<Buffer>);

#[derive(Default)]
struct Buffer {
    /// Bytes that were dropped before those of `bytes`.
    dropped: usize,
    bytes: VecDeque<u8>,
    ended: bool,
    cancelled: bool,
    readers: usize,
    /// When the last reader left or the stream ended.
    idle: Option<Instant>,
    wakers: Vec<Waker>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stale(&self) -> bool {
        let buffer = self.lock();
        let unread = buffer.readers == 0;
        unread && buffer.idle.is_some_and(|idle| idle.elapsed() > KEPT)
    }
}

impl Buffer {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(BYTES);
        self.bytes.drain(..excess);
        self.dropped += excess;
        self.wake();
    }
}

/// Checks an identifier, which is as good as a key: it has to be hard to guess.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let fits = (16..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match fits {
        true => Ok(()),
        false => {
            Err(ApiError::bad("the identifier of a stream has 16 to 128 letters, digits and `-`"))
        }
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, client: &str, id: &str) -> Result<Arc<Kept>> {
        check_id(id)?;
        let kept = self.lock().get(&(client.to_string(), id.to_string())).cloned();
        kept.filter(|kept| !kept.lock().cancelled).ok_or_else(|| {
            ApiError::not_found("there is no stream of this name; it may have been forgotten")
        })
    }

    /// Makes a place for a stream. One of the same name is cancelled; where it was ended before it
    /// began, the new one is cancelled, too.
    fn insert(&self, client: &str, id: &str) -> Result<Arc<Kept>> {
        let mut kept = self.lock();
        kept.retain(|_, stream| !stream.is_stale());
        let key = (client.to_string(), id.to_string());
        let new = Arc::<Kept>::default();
        if let Some(old) = kept.remove(&key) {
            let mut old = old.lock();
            new.lock().cancelled = old.cancelled;
            old.cancelled = true;
            old.wake();
        }
        if kept.len() >= STREAMS {
            let ended = kept.iter().filter(|(_, stream)| stream.lock().ended);
            let oldest = ended.min_by_key(|(_, stream)| stream.lock().idle);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                let message = "too many streams are kept; try again without X-Conversation-Id";
                return Err(ApiError::unavailable(message, Duration::from_secs(30)));
            };
            kept.remove(&oldest);
        }
        kept.insert(key, new.clone());
        Ok(new)
    }

    /// Ends a stream and forgets it. One that has not begun, since its request is still being
    /// prepared, or comes later on another connection, is remembered and ended as it begins.
    fn end(&self, client: &str, id: &str) -> Result<StatusCode> {
        let kept = self.get(client, id);
        let began = kept.is_ok();
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) if error.status != StatusCode::NOT_FOUND => return Err(error),
            Err(_) => self.insert(client, id)?,
        };
        let mut buffer = kept.lock();
        buffer.cancelled = true;
        buffer.wake();
        if began {
            self.lock().remove(&(client.to_string(), id.to_string()));
            return Ok(StatusCode::NO_CONTENT);
        }
        (buffer.ended, buffer.idle) = (true, Some(Instant::now()));
        Ok(StatusCode::ACCEPTED)
    }

    /// Begins a stream under a name, and returns its response.
    pub fn begin(&self, client: &str, id: &str, stream: Stream) -> Result<Response> {
        let kept = self.insert(client, id)?;
        if kept.lock().cancelled {
            self.lock().remove(&(client.to_string(), id.to_string()));
        }
        let kind = stream.content_type();
        let reader = Reader::new(kept.clone(), 0);
        tokio::spawn(pump(kept, stream));
        Ok(streamed(kind, Body::new(reader)))
    }
}

/// Reads a stream into its buffer, whether or not a client reads that.
async fn pump(kept: Arc<Kept>, mut stream: Stream) {
    let mut look = Box::pin(tokio::time::sleep(LOOK));
    std::future::poll_fn(|cx| {
        loop {
            {
                let mut buffer = kept.lock();
                if buffer.cancelled {
                    return Poll::Ready(());
                }
                buffer.wakers.push(cx.waker().clone()); // for `cancelled`
            }
            match stream.poll_bytes(cx) {
                Poll::Ready(Some(bytes)) => kept.lock().append(&bytes),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if look.as_mut().poll(cx).is_ready() => {
                    if kept.is_stale() {
                        return Poll::Ready(());
                    }
                    look.as_mut().reset(Instant::now() + LOOK);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    let mut buffer = kept.lock();
    buffer.ended = true;
    buffer.idle = Some(Instant::now());
    buffer.wake();
}

/// A body that reads a kept stream.
struct Reader {
    kept: Arc<Kept>,
    /// Position in the stream.
    from: usize,
}

impl Reader {
    fn new(kept: Arc<Kept>, from: usize) -> Self {
        kept.lock().readers += 1;
        Self { kept, from }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut buffer = self.kept.lock();
        buffer.readers -= 1;
        buffer.idle = Some(Instant::now());
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let mut buffer = this.kept.lock();
        let end = buffer.dropped + buffer.bytes.len();
        if this.from < buffer.dropped {
            return Poll::Ready(None); // a reader so slow that its place is gone
        }
        if this.from < end {
            let bytes: Bytes = buffer.bytes.range(this.from - buffer.dropped..).copied().collect();
            this.from = end;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if buffer.ended {
            return Poll::Ready(None);
        }
        buffer.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

/// A parameter of a query; identifiers and numbers need no decoding.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| v)
}

/// `GET /v1/stream?conv_id=ID&from=N`: the stream from a byte on.
pub(crate) async fn read(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let query = query.unwrap_or_default();
    let kept =
        state.streams.get(&record.client, parameter(&query, "conv_id").unwrap_or_default())?;
    let from = parameter(&query, "from").unwrap_or("0").parse::<usize>();
    let from = from.map_err(|_| ApiError::field("from", "from: a number of bytes"))?;
    let buffer = kept.lock();
    let range = buffer.dropped..=buffer.dropped + buffer.bytes.len();
    if !range.contains(&from) {
        let message = format!("from: allowed: {} to {}", range.start(), range.end());
        return Err(ApiError { status: StatusCode::NOT_FOUND, ..ApiError::field("from", message) });
    }
    drop(buffer);
    Ok(streamed("text/event-stream", Body::new(Reader::new(kept, from))))
}

/// `DELETE /v1/stream?conv_id=ID`: ends the answer and forgets the stream; 202 if it has not begun.
pub(crate) async fn end(
    Shared(state): Shared<State>,
    Extension(record): Extension<Arc<Record>>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode> {
    let query = query.unwrap_or_default();
    let id = parameter(&query, "conv_id").unwrap_or_default();
    state.streams.end(&record.client, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_the_last_bytes() {
        let mut buffer = Buffer::default();
        buffer.append(&vec![1; BYTES]);
        buffer.append(&[2, 3]);
        assert_eq!((buffer.dropped, buffer.bytes.len()), (2, BYTES));
        assert_eq!(buffer.bytes.back(), Some(&3));
    }

    #[test]
    fn identifiers_are_hard_to_guess() {
        assert!(check_id("0123456789abcdef").is_ok());
        for bad in ["", "short", "../../../etc/passwd-0", &"x".repeat(200)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_found() {
        assert_eq!(parameter("a=1&conv_id=x-y&from=3", "conv_id"), Some("x-y"));
        assert_eq!(parameter("xfrom=3", "from"), None);
    }
}
