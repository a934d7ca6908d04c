//! A context that is full: stop, drop the oldest turns, or replace them by a summary.

use clap::ValueEnum;
use vaquita_runtime::app::{AppError, Turn};
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::generate::{GenerationOptions, StopReason};
use vaquita_runtime::session::sampler::SamplingOptions;

use super::Chat;
use crate::answer::interrupted;
use crate::failure::Result;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// Share of the context that is kept free for an answer.
const ANSWER: usize = 4;
/// Share of the context for a summary.
const SUMMARY: usize = 8;

const SUMMARIZE: &str = "Summarize our conversation so far in a few sentences: what I asked, what \
    you answered, and every fact that matters from here on.";

/// Action when the context is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// Do not answer; the conversation stays and can be saved
    Stop,
    /// Drop the oldest turns
    Shift,
    /// Let the model summarize the oldest turns, and put the summary in their place
    Compact,
}

/// Whether there is room for an answer.
pub enum Room {
    Enough,
    /// There is now, without these messages.
    Dropped(Vec<Message>),
    /// There is none, with the reason and the way out.
    Full(String),
}

impl Chat<'_> {
    /// Makes room for the answer to `user`, or to the messages so far.
    pub(super) fn make_room(&mut self, user: Option<&str>) -> Result<Room> {
        let context = self.conversation.context();
        let most = self.sampling.generation.max_tokens.unwrap_or(usize::MAX);
        let answer = most.min(context / ANSWER).max(1);
        let needed = self.conversation.prompt_tokens(user)?;
        if needed + answer <= context {
            return Ok(Room::Enough);
        }
        if self.on_full == OnFull::Stop {
            return Ok(match needed < context {
                true => Room::Enough,
                false => Room::Full(format!(
                    "the context of {context} tokens is full: /save FILE keeps the conversation, \
                     /reset begins another; `--on-full shift` would drop the oldest turns"
                )),
            });
        }
        let messages = self.conversation.messages().to_vec();
        let system = messages.iter().take_while(|message| message.role == "system").count();
        // Half of the context, so that the next turns have room as well: a prompt without its
        // beginning is computed again.
        let turns = self.turns_to_drop(&messages, system, user, context / 2)?;
        let without = |end: usize| [&messages[..system], &messages[end..]].concat();
        self.conversation.set_messages(without(turns))?;
        let left = self.conversation.prompt_tokens(user)?;
        if left >= context {
            self.conversation.set_messages(messages)?;
            return Ok(Room::Full(format!(
                "this message and the system prompt take {left} tokens, and the context has \
                 {context}: shorten them, or start with a longer --context"
            )));
        }
        if turns == system {
            return Ok(Room::Enough); // there is nothing to drop, but some room
        }
        let dropped = messages[system..turns].to_vec();
        if self.on_full == OnFull::Compact
            && let Some(summary) = self.summary(&messages[..system], &dropped)?
        {
            let mut compact = messages[..system].to_vec();
            compact.push(Message::new("user", SUMMARIZE));
            compact.push(Message::new("assistant", summary));
            compact.extend_from_slice(&messages[turns..]);
            self.conversation.set_messages(compact)?;
            if self.conversation.prompt_tokens(user)? + answer > context {
                self.conversation.set_messages(without(turns))?;
            }
        } else {
            self.conversation.set_messages(without(turns))?;
        }
        Ok(Room::Dropped(dropped))
    }

    /// Index of the first message to keep, so that the prompt has at most `most` tokens: the
    /// beginning of a turn. If no turn fits, all earlier ones are dropped.
    fn turns_to_drop(
        &mut self,
        messages: &[Message],
        system: usize,
        user: Option<&str>,
        most: usize,
    ) -> Result<usize> {
        let begins = |at: &usize| messages[*at].role == "user";
        let mut starts: Vec<usize> = (system..messages.len()).filter(begins).collect();
        if user.is_some() {
            starts.push(messages.len());
        }
        // The more turns are dropped, the shorter the prompt.
        let (mut low, mut high) = (0, starts.len().saturating_sub(1));
        while low < high {
            let middle = low.midpoint(high);
            let kept = [&messages[..system], &messages[starts[middle]..]].concat();
            self.conversation.set_messages(kept)?;
            match self.conversation.prompt_tokens(user)? <= most {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(starts.get(low).copied().unwrap_or(system))
    }

    /// The model's summary of messages; `None` if it has none.
    fn summary(&mut self, system: &[Message], dropped: &[Message]) -> Result<Option<String>> {
        let context = self.conversation.context();
        let most = context / SUMMARY;
        let begin =
            self.turns_to_drop(dropped, 0, Some(SUMMARIZE), context - most - context / ANSWER)?;
        self.conversation.set_messages([system, &dropped[begin..]].concat())?;
        let options = GenerationOptions {
            sampling: SamplingOptions::greedy(),
            max_tokens: Some(most.max(1)),
            ..GenerationOptions::default()
        };
        let stop = interrupted()?;
        stop.store(false, Ordering::Relaxed);
        let turn = self.conversation.answer(Some(SUMMARIZE), &options, &mut |_| match stop
            .load(Ordering::Relaxed)
        {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        match turn {
            Ok(Turn { generation, .. }) if generation.stop != StopReason::Cancelled => {
                let text = generation.answer.trim();
                Ok((!text.is_empty()).then(|| text.to_string()))
            }
            Ok(_) => Ok(None),
            // The system prompt and the question leave no room: the turns are dropped without one.
            Err(AppError::Prompt(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
