//! Log probabilities of a prompt's tokens, which evaluations ask for (`echo` with `logprobs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::oneshot;
use vaquita_runtime::session::SessionError;
use vaquita_runtime::session::sampler::logprobs::Logprobs;

use crate::error::{ApiError, Result};
use crate::served::Served;

/// Sets a flag when the client leaves.
struct Leaves(Arc<AtomicBool>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each token with its log probability after those before it, and the `top` most likely ones at its
/// place; the first has none. One prompt is scored at a time, in a sequence of its own.
pub(crate) async fn score(
    model: &Arc<Served>,
    tokens: &[u32],
    top: usize,
) -> Result<Vec<(u32, Option<Logprobs>)>> {
    if tokens.len() > model.context() {
        return Err(ApiError::too_long(Some(tokens.len()), model.context()));
    }
    let cancel = Arc::new(AtomicBool::new(false));
    let _leaves = Leaves(cancel.clone());
    let one = model.scoring.acquire().await;
    let one = one.map_err(|_| ApiError::ended())?;
    // Its place in the memory budget.
    let place = model.app.conversation().map_err(|_| {
        ApiError::unsupported(
            "the memory budget has no room for scoring prompts: start the server with --score",
        )
    })?;
    let (send, result) = oneshot::channel();
    let (of_thread, tokens) = (model.clone(), tokens.to_vec());
    let work = move || drop(send.send(compute(&of_thread, tokens, top, cancel)));
    let thread = thread::Builder::new().name("vaquita-score".into()).spawn(work);
    thread.map_err(|error| ApiError::internal(error.to_string()))?;
    let scored = result.await.map_err(|_| ApiError::internal("scoring failed"));
    drop((place, one));
    scored?
}

fn compute(
    model: &Served,
    tokens: Vec<u32>,
    top: usize,
    cancel: Arc<AtomicBool>,
) -> Result<Vec<(u32, Option<Logprobs>)>> {
    let loaded = model.app.loaded();
    let _binding = loaded.pool.bind_caller();
    let mut session = loaded.session();
    session.cancel_with(cancel);
    let rows = loaded.model.config().vocab_size;
    let failed = |error: SessionError| ApiError::internal(error.to_string());
    let mut scored = vec![(tokens[0], None)];
    for chunk in tokens.chunks(session.prefill_chunk()) {
        let logits = session.feed_all(chunk).map_err(failed)?;
        for logits in logits.chunks_exact(rows) {
            // The logits after a token are about the next one; nothing follows the last.
            let Some(&next) = tokens.get(scored.len()) else { break };
            scored.push((next, Some(Logprobs::new(logits, next, top))));
        }
    }
    Ok(scored)
}
