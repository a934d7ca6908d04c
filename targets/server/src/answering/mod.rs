//! Answers in progress: the engine's notices, turned into what APIs send.

mod clock;
mod ending;
mod outcome;

pub(crate) use clock::{Clock, of_generation};
pub(crate) use outcome::{Outcome, Piece, Progress};

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Sleep;
use vaquita_runtime::engine::{EngineError, Finished, Notice, Priority, Request, Ticket};
use vaquita_runtime::session::generate::{Generation, StopReason};

use crate::chat::Prepared;
use crate::error::{ApiError, Result};
use crate::http::record::{Cost, Record};
use crate::openai::control::Control;
use crate::prompt_log::Entry;
use crate::served::Served;
use crate::state::State;
use ending::Ending;

/// The engine's name of a client: of its key and of the user that it names.
pub(crate) fn engine_client(client: &str, user: &str) -> String {
    format!("{client}/{user}")
}

/// Counts of one answer so far.
#[derive(Debug, Default)]
struct Tally {
    /// Tokens of the prompt.
    prompt: usize,
    cached: Option<usize>,
    tokens: usize,
    /// Tokens whose text has not arrived.
    pending: usize,
    reasoning: usize,
    /// Whether the last text belongs to the reasoning.
    reasons: bool,
    ended: bool,
}

/// One or several answers to one request. Dropping it cancels them.
pub(crate) struct Answering {
    model: Arc<Served>,
    record: Arc<Record>,
    state: State,
    send: UnboundedSender<(usize, Notice)>,
    notices: UnboundedReceiver<(usize, Notice)>,
    /// Requests that were not submitted yet.
    waiting: VecDeque<Request>,
    tickets: Vec<Ticket>,
    tallies: Vec<Tally>,
    /// The prompts of the answers, if texts are logged.
    prompts: Vec<Vec<u32>>,
    ready: VecDeque<(usize, Piece)>,
    warnings: Vec<String>,
    began: Instant,
    /// When the first notice other than about the queue arrived.
    started: Option<Instant>,
    /// The one request, whose reasoning can be ended; `None` if there are several.
    request: Option<Request>,
    control: Arc<Control>,
    ending: Ending,
    /// Fires if the request waits for too long.
    give_up: Pin<Box<Sleep>>,
}

impl Answering {
    /// Submits a request to the engine.
    pub fn submit(state: &State, record: Arc<Record>, prepared: Prepared) -> Result<Self> {
        Self::submit_all(state, record, vec![prepared])
    }

    /// Submits requests to the engine, as many at a time as it has slots.
    pub fn submit_all(state: &State, record: Arc<Record>, prepared: Vec<Prepared>) -> Result<Self> {
        let model = state.model()?.clone();
        let (send, notices) = unbounded_channel();
        let (mut tallies, mut waiting, mut warnings) = (Vec::new(), VecDeque::new(), Vec::new());
        let mut prompts = Vec::new();
        for Prepared { prompt, options, n, user, uncached, slot, warnings: own } in prepared {
            warnings.extend(own);
            for choice in 0..n {
                let mut options = options.clone();
                options.sampling.seed = options.sampling.seed.wrapping_add(choice as u64);
                tallies.push(Tally { prompt: prompt.tokens.len(), ..Tally::default() });
                if state.prompt_log.is_some() {
                    prompts.push(prompt.tokens.clone());
                }
                waiting.push_back(Request {
                    prompt: prompt.tokens.clone(),
                    options,
                    client: engine_client(&record.client, &user),
                    priority: Priority::Normal,
                    deadline: None,
                    uncached,
                    slot,
                });
            }
        }
        let mut answering = Self {
            request: waiting.front().filter(|_| waiting.len() == 1).cloned(),
            control: Arc::default(),
            ending: Ending::No,
            give_up: Box::pin(tokio::time::sleep(state.options.limits.queue_time)),
            state: state.clone(),
            model,
            record,
            send,
            notices,
            waiting,
            tickets: Vec::new(),
            tallies,
            prompts,
            ready: VecDeque::new(),
            warnings,
            began: Instant::now(),
            started: None,
        };
        for _ in 0..answering.model.slots {
            answering.submit_next()?;
        }
        Ok(answering)
    }

    /// Submits the next request that waits for others of this one.
    fn submit_next(&mut self) -> Result<()> {
        let Some(request) = self.waiting.pop_front() else { return Ok(()) };
        let (send, choice) = (self.send.clone(), self.tickets.len());
        // Nobody listens to an answer that was dropped: it is being cancelled.
        let sink = Box::new(move |notice| drop(send.send((choice, notice))));
        self.tickets.push(self.model.engine.submit(request, sink)?);
        Ok(())
    }

    /// Makes the answer controllable under the identifier of its chunks.
    pub fn control_as(&self, id: &str) {
        self.state.controls.insert(id, &self.control);
    }

    /// Cancels the answer to continue it after its reasoning, if that is wished and it reasons.
    fn end_reasoning(&mut self, cx: &Context<'_>) {
        let can = matches!(self.ending, Ending::No) && self.request.is_some();
        if can && self.control.is_wished(cx.waker()) && self.tallies[0].reasons {
            self.ending = Ending::Cancelling;
            self.tickets.iter().for_each(Ticket::cancel);
        }
    }

    /// Number of answers.
    pub fn choices(&self) -> usize {
        self.tallies.len()
    }

    /// The state of the server.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The next piece and the answer that it belongs to; `None` after the end of all.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(usize, Piece)>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.tallies.iter().all(|tally| tally.ended) {
                return Poll::Ready(None);
            }
            if self.started.is_none() && self.give_up.as_mut().poll(cx).is_ready() {
                let message = "the server is too busy: the request has waited for too long";
                let error = ApiError::unavailable(message, Duration::from_secs(60));
                return Poll::Ready(Some(Err(error)));
            }
            self.end_reasoning(cx);
            match self.notices.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Some(Err(ApiError::ended()))),
                Poll::Ready(Some((choice, notice))) => {
                    if let Err(error) = self.take(choice, notice) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }

    /// Waits for the ends of all answers.
    pub async fn outcomes(mut self) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = self.tallies.iter().map(|_| None).collect();
        while let Some(piece) = std::future::poll_fn(|cx| self.poll_piece(cx)).await {
            if let (choice, Piece::Done(outcome)) = piece? {
                outcomes[choice] = Some(*outcome);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn take(&mut self, choice: usize, notice: Notice) -> Result<()> {
        if !matches!(notice, Notice::Queued { .. }) && self.started.is_none() {
            self.started = Some(Instant::now());
        }
        let tally = &mut self.tallies[choice];
        let piece = match notice {
            Notice::Queued { ahead } => {
                Piece::Queued { ahead, wait: self.model.engine.status().wait(ahead) }
            }
            // A continued answer's prompt is of no interest.
            Notice::Prompt { .. } if !matches!(self.ending, Ending::No) => return Ok(()),
            Notice::Prompt { done, total } => {
                let cached = *tally.cached.get_or_insert(done);
                let time = self.started.unwrap_or(self.began).elapsed();
                Piece::Prompt(Progress { done, cached, total, time })
            }
            Notice::Token(token) => {
                tally.tokens += 1;
                tally.pending += 1;
                Piece::Token(token)
            }
            Notice::Logprobs(logprobs) => Piece::Logprobs(logprobs),
            Notice::Reasoning(text) => {
                tally.reasoning += std::mem::take(&mut tally.pending);
                tally.reasons = true;
                Piece::Reasoning(text)
            }
            Notice::Answer(text) => {
                (tally.pending, tally.reasons) = (0, false);
                Piece::Text(text)
            }
            Notice::Call(event) => {
                (tally.pending, tally.reasons) = (0, false);
                Piece::Call(event)
            }
            Notice::WasReasoning => {
                (tally.reasoning, tally.pending) = (tally.tokens, 0);
                return Ok(());
            }
            Notice::Done(done) => match self.end(choice, done)? {
                Some(outcome) => Piece::Done(Box::new(outcome)),
                None => return Ok(()),
            },
        };
        self.ready.push_back((choice, piece));
        Ok(())
    }

    fn end(
        &mut self,
        choice: usize,
        done: std::result::Result<Box<Finished>, EngineError>,
    ) -> Result<Option<Outcome>> {
        let reasoning_tokens = self.tallies[choice].reasoning;
        let mut finished = done.map_err(|error| ApiError::internal(error.to_string()))?;
        let cancelled = finished.generation.stop == StopReason::Cancelled;
        match (std::mem::take(&mut self.ending), &self.request) {
            (Ending::Cancelling, Some(request)) if cancelled => {
                let mut begun = finished.generation;
                let next = ending::continued(&self.model, request, &mut begun)?;
                self.tallies[choice].reasoning = begun.tokens.len();
                self.tickets.clear();
                self.waiting.push_back(next);
                self.ending = Ending::Continued(Box::new(begun));
                self.submit_next()?;
                return Ok(None);
            }
            (Ending::Continued(begun), _) => {
                finished.generation = ending::join(*begun, finished.generation);
            }
            _ => {}
        }
        if cancelled {
            return Err(ApiError::ended());
        }
        let generation = &finished.generation;
        self.tallies[choice].ended = true;
        self.submit_next()?;
        if !generation.calls.is_empty() {
            self.remember(generation);
        }
        if let (Some(log), Some(prompt)) =
            (&self.state.prompt_log, self.prompts.get_mut(choice).map(std::mem::take))
        {
            let Record { id, route, client, .. } = &*self.record;
            let (id, route, client) = (id.clone(), route.clone(), client.clone());
            let (model, generation) = (self.model.clone(), generation.clone());
            log.write(Entry { model, id, route, client, prompt, generation });
        }
        let times = (generation.prefill, generation.decode);
        let tokens = (generation.prompt_tokens, generation.tokens.len());
        self.state.metrics.answered(finished.queued, times, tokens);
        self.record.add(&Cost {
            prompt_tokens: generation.prompt_tokens,
            cached_tokens: generation.cached_tokens,
            answer_tokens: generation.tokens.len(),
            joules: finished.joules,
            stop: Some(generation.stop.name()),
        });
        let mut warnings = self.warnings.clone();
        warnings.extend(generation.warnings.iter().map(|warning| warning.to_string()));
        Ok(Some(Outcome {
            reasoning_tokens,
            timings: outcome::timings(&finished, self.model.info.meter.as_deref()),
            warnings,
            generation: finished.generation,
        }))
    }

    /// Remembers calls as the model wrote them, on the thread that reads them.
    fn remember(&self, generation: &Generation) {
        let Generation { answer, calls, raw, .. } = generation.clone();
        let (text, model) = (self.state.text.clone(), self.model.clone());
        tokio::spawn(async move {
            let remember = move || {
                model.replay().remember(&answer, &calls, &raw);
                Ok(())
            };
            let _ = text.run(remember).await; // an answer that is not remembered is rendered again
        });
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        for (ticket, tally) in self.tickets.iter().zip(&self.tallies) {
            if tally.ended {
                continue;
            }
            ticket.cancel();
            self.record.add(&Cost {
                prompt_tokens: tally.cached.map_or(0, |_| tally.prompt),
                cached_tokens: tally.cached.unwrap_or(0),
                answer_tokens: tally.tokens,
                joules: None,
                stop: Some(StopReason::Cancelled.name()),
            });
        }
    }
}
