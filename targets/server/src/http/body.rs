//! The body of a request, read within its limits and parsed.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::json::{self, Parsed};
use crate::error::{ApiError, Result};
use crate::state::State;

/// Bytes of a permit of [`Bodies`].
const UNIT: usize = 1024;

/// Memory of all bodies that are read or wait to be parsed: that of eight large ones.
pub(crate) struct Bodies(Arc<Semaphore>);

impl Bodies {
    /// Memory for bodies of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most.div_ceil(UNIT).max(1) * 8)))
    }
}

/// A body of JSON, as bytes: several types can be read from it.
pub(crate) struct Json {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl Json {
    /// Whether there is no body.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Parses a type, and counts the fields that it does not have.
    pub fn read<T: DeserializeOwned>(&self, state: &State) -> Result<T> {
        let Parsed { body, unknown } = json::parse(&self.bytes)?;
        state.metrics.unknown_fields(unknown);
        Ok(body)
    }

    /// Parses two types that share a body; a field counts as unknown if neither has it.
    pub fn read_both<A: DeserializeOwned, B: DeserializeOwned>(
        &self,
        state: &State,
    ) -> Result<(A, B)> {
        let (a, b) = (json::parse::<A>(&self.bytes)?, json::parse::<B>(&self.bytes)?);
        state.metrics.unknown_fields(&a.unknown & &b.unknown);
        Ok((a.body, b.body))
    }

    /// Like [`Self::read_both`], with three types.
    pub fn read_three<A: DeserializeOwned, B: DeserializeOwned, C: DeserializeOwned>(
        &self,
        state: &State,
    ) -> Result<(A, B, C)> {
        let (a, b) = (json::parse::<A>(&self.bytes)?, json::parse::<B>(&self.bytes)?);
        let c = json::parse::<C>(&self.bytes)?;
        state.metrics.unknown_fields(&(&a.unknown & &b.unknown) & &c.unknown);
        Ok((a.body, b.body, c.body))
    }
}

impl FromRequest<State> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self> {
        let limits = &state.options.limits;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limits.body_bytes as u64) {
            return Err(too_large(limits.body_bytes));
        }
        let units = length.map_or(limits.body_bytes, |length| length as usize).div_ceil(UNIT);
        let memory = state.bodies.0.clone().acquire_many_owned(units as u32);
        let memory = tokio::time::timeout(limits.body_time, memory).await;
        let Ok(Ok(_memory)) = memory else {
            let message = "too many large requests are being read; try again later";
            return Err(ApiError::unavailable(message, limits.body_time));
        };
        let bytes = read(request.into_body(), limits.body_bytes, limits.body_time).await?;
        Ok(Self { bytes, _memory })
    }
}

async fn read(body: Body, most: usize, time: Duration) -> Result<Bytes> {
    let slow = |_| {
        let message = format!("the body did not arrive within {} s", time.as_secs_f64());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    };
    let read = tokio::time::timeout(time, Limited::new(body, most).collect()).await;
    match read.map_err(slow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Err(_) => Err(ApiError::bad("the body broke off")),
    }
}

fn too_large(most: usize) -> ApiError {
    let message = format!("the body is too large; allowed: {most} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
}
