//! Prompts: token sequences for a model to continue, made from text or from a conversation.

use std::sync::Arc;

use super::chat::{ChatError, ChatOptions, ChatTemplate, Message};
use super::reasoning;
use super::tools::{Format, Replay};
use crate::checkpoint::Config;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Tokens to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Whether the tokens end inside a `<think>` block.
    pub reasoning_open: bool,
}

/// Reason why a prompt cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromptError {
    /// The model has no chat template.
    #[error("this model has no chat template: it continues texts, but holds no conversations")]
    NoTemplate,
    /// The template failed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The prompt exceeds the context.
    #[error(
        "the context of {most} tokens is full: the prompt has more; start a new conversation, or open \
         the model with a longer context"
    )]
    TooLong {
        /// Maximum number of tokens.
        most: usize,
    },
    /// The model has no embedding row for a token.
    #[error(
        "the text has the token {token} ({text:?}), but the model knows only {rows}: its tokenizer has more tokens than it"
    )]
    Row {
        /// The token.
        token: u32,
        /// Its text.
        text: String,
        /// Number of tokens that the model knows.
        rows: usize,
    },
    /// The text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(TokenizerError),
}

impl From<TokenizerError> for PromptError {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::TooLong { most } => Self::TooLong { most },
            other => Self::Tokenizer(other),
        }
    }
}

/// Makes prompts for a model.
#[derive(Clone)]
pub struct Prompter {
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
    /// Maximum number of tokens in a prompt.
    most: usize,
    /// Number of tokens that the model knows.
    rows: usize,
}

impl Prompter {
    /// Uses the tokenizer's template, or DeepSeek's if there is none and the vocabulary contains
    /// its markers.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, ChatError> {
        let has = |token| tokenizer.token_to_id(token).is_some();
        let template = match tokenizer.chat_template() {
            Some(source) => Some(ChatTemplate::new(source)?),
            None => (has("<｜User｜>") && has("<｜Assistant｜>")).then(ChatTemplate::deepseek),
        };
        let template = template.map(Arc::new);
        Ok(Self { tokenizer, template, most: usize::MAX, rows: usize::MAX })
    }

    /// Like [`Self::new`], for a model. Tokens that exist only in the tokenizer, not in the model,
    /// are not allowed in texts.
    pub fn for_model(tokenizer: Arc<Tokenizer>, config: &Config) -> Result<Self, PromptError> {
        let (most, rows) = (config.max_position_embeddings, config.vocab_size);
        Ok(Self { most, rows, ..Self::new(tokenizer)? })
    }

    /// Limits prompts to `context` tokens; longer ones are rejected before they take memory.
    #[must_use]
    pub fn within(self, context: usize) -> Self {
        Self { most: context, ..self }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The template.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_deref()
    }

    /// Format in which the model writes tool calls.
    pub fn call_format(&self) -> Format {
        self.template().map_or(Format::Generic, |template| Format::of_template(template.source()))
    }

    /// Encodes text as it is, after the begin-of-sentence token if the model uses one.
    pub fn raw(&self, text: &str) -> Result<Prompt, PromptError> {
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.add_bos());
        let tokens = self.tokens(bos, self.tokenizer.encode_within(text, true, self.most)?)?;
        Ok(Prompt { tokens, reasoning_open: reasoning::is_open(text) })
    }

    /// Encodes a document of a corpus, always after the begin-of-sentence token.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        self.tokens(self.tokenizer.bos(), self.tokenizer.encode(text, true)?)
    }

    /// Encodes the beginning of a document, at most `most` tokens.
    pub fn document_within(&self, text: &str, most: usize) -> Result<Vec<u32>, PromptError> {
        let tokens = self.tokenizer.encode_beginning(text, true, most)?;
        let mut tokens = self.tokens(self.tokenizer.bos(), tokens)?;
        tokens.truncate(most);
        Ok(tokens)
    }

    /// Returns `bos` followed by the tokens of a text, all of which the model must know.
    fn tokens(&self, bos: Option<u32>, text: Vec<u32>) -> Result<Vec<u32>, PromptError> {
        let tokens: Vec<u32> = bos.into_iter().chain(text).collect();
        match tokens.iter().find(|token| **token as usize >= self.rows) {
            None => Ok(tokens),
            Some(&token) => {
                let text = self.tokenizer.decode(&[token]);
                Err(PromptError::Row { token, text, rows: self.rows })
            }
        }
    }

    /// Renders a conversation with the template, with the assistant to speak next.
    pub fn chat(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
    ) -> Result<Prompt, PromptError> {
        self.chat_with(messages, tools, &serde_json::Map::new())
    }

    /// Like [`Self::chat`], with template variables such as `enable_thinking`.
    pub fn chat_with(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        variables: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Prompt, PromptError> {
        self.chat_replaying(messages, tools, variables, &Replay::default())
    }

    /// Like [`Self::chat_with`], with the answers that `replay` remembers inserted as the model
    /// wrote them.
    pub fn chat_replaying(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        variables: &serde_json::Map<String, serde_json::Value>,
        replay: &Replay,
    ) -> Result<Prompt, PromptError> {
        self.rendered(&self.render(messages, tools, variables, replay)?)
    }

    /// Text of the prompt that [`Self::chat_replaying`] makes.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        variables: &serde_json::Map<String, serde_json::Value>,
        replay: &Replay,
    ) -> Result<String, PromptError> {
        self.render_turns(messages, tools, variables, replay, true)
    }

    /// Like [`Self::render`]; without `opens`, the assistant's turn is not begun.
    pub fn render_turns(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        variables: &serde_json::Map<String, serde_json::Value>,
        replay: &Replay,
        opens: bool,
    ) -> Result<String, PromptError> {
        let template = self.template.as_ref().ok_or(PromptError::NoTemplate)?;
        let text_of = |token: Option<u32>| {
            let bytes = token.and_then(|token| self.tokenizer.piece(token)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (bos, eos) = (text_of(self.tokenizer.bos()), text_of(self.tokenizer.eos()));
        let options = ChatOptions {
            add_generation_prompt: opens,
            bos: &bos,
            eos: &eos,
            tools,
            extra: Some(variables),
            ..ChatOptions::default()
        };
        Ok(replay.render(messages, |messages| template.render(messages, &options))?)
    }

    /// Encodes the text of a prompt that [`Self::render`] made.
    pub fn rendered(&self, text: &str) -> Result<Prompt, PromptError> {
        let tokens = self.tokens(None, self.tokenizer.encode_within(text, true, self.most)?)?;
        Ok(Prompt { tokens, reasoning_open: reasoning::opens(text) })
    }

    /// Encodes the text of a prompt that [`Self::render`] made, followed by the beginning of the
    /// assistant's message, which the model continues: its reasoning, or its text after that.
    pub fn continued(&self, text: &str, begun: &Message) -> Result<Prompt, PromptError> {
        let (text, reasoning_open) = self.continue_text(text, begun);
        Ok(Prompt { reasoning_open, ..self.rendered(&text)? })
    }

    /// Text of the prompt that [`Self::continued`] makes, and whether it ends inside the reasoning.
    pub fn continue_text(&self, text: &str, begun: &Message) -> (String, bool) {
        let thoughts = begun.reasoning_content.as_deref().unwrap_or_default();
        let opened = reasoning::opens(text);
        let mut text = text.to_string();
        if !thoughts.is_empty() {
            text.push_str(if opened { "" } else { "<think>\n" });
            text.push_str(thoughts);
        }
        let thinks = opened || !thoughts.is_empty();
        if thinks && !begun.content.is_empty() {
            text.push_str("\n</think>\n\n");
        }
        text.push_str(&begun.content);
        (text, thinks && begun.content.is_empty())
    }
}
