//! Prompts: what a model is given to continue, from text or from a conversation.

use std::sync::Arc;

use super::chat::{ChatError, ChatOptions, ChatTemplate, Message};
use super::reasoning;
use crate::checkpoint::Config;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Tokens to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// They end inside a `<think>` block.
    pub reasoning_open: bool,
}

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model has no chat template.
    #[error("this model has no chat template; --raw gives the prompt to the model as it is")]
    NoTemplate,
    /// The template failed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer belongs to another model.
    #[error("the tokenizer has {found} tokens, the model {allowed}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        found: usize,
        /// Tokens of the model.
        allowed: usize,
    },
    /// The text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Makes prompts for a model.
#[derive(Clone)]
pub struct Prompter {
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
}

impl Prompter {
    /// With the tokenizer's template, or DeepSeek's where there is none and the vocabulary has its markers.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, ChatError> {
        let has = |token| tokenizer.token_to_id(token).is_some();
        let template = match tokenizer.chat_template() {
            Some(source) => Some(ChatTemplate::new(source)?),
            None => (has("<｜User｜>") && has("<｜Assistant｜>")).then(ChatTemplate::deepseek),
        };
        Ok(Self { tokenizer, template: template.map(Arc::new) })
    }

    /// The same for a model whose vocabulary must hold the tokenizer's.
    pub fn for_model(tokenizer: Arc<Tokenizer>, config: &Config) -> Result<Self, PromptError> {
        let (found, allowed) = (tokenizer.vocab_size(), config.vocab_size);
        match found > allowed {
            true => Err(PromptError::Vocabulary { found, allowed }),
            false => Ok(Self::new(tokenizer)?),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The template.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_deref()
    }

    /// Text as it is, after the begin-of-sentence token where the model has one.
    pub fn raw(&self, text: &str) -> Result<Prompt, PromptError> {
        let mut tokens = Vec::new();
        if self.tokenizer.add_bos() {
            tokens.extend(self.tokenizer.bos());
        }
        tokens.extend(self.tokenizer.encode(text, true)?);
        Ok(Prompt { tokens, reasoning_open: reasoning::is_open(text) })
    }

    /// A document of a corpus: always after the begin-of-sentence token.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let mut tokens: Vec<u32> = self.tokenizer.bos().into_iter().collect();
        tokens.extend(self.tokenizer.encode(text, true)?);
        Ok(tokens)
    }

    /// A conversation, through the template, with the assistant to speak next.
    pub fn chat(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
    ) -> Result<Prompt, PromptError> {
        let template = self.template.as_ref().ok_or(PromptError::NoTemplate)?;
        let text_of = |token: Option<u32>| {
            let bytes = token.and_then(|token| self.tokenizer.piece(token)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (bos, eos) = (text_of(self.tokenizer.bos()), text_of(self.tokenizer.eos()));
        let options = ChatOptions {
            add_generation_prompt: true,
            bos: &bos,
            eos: &eos,
            tools,
            ..ChatOptions::default()
        };
        let text = template.render(messages, &options)?;
        let tokens = self.tokenizer.encode(&text, true)?;
        Ok(Prompt { tokens, reasoning_open: reasoning::opens(&text) })
    }
}
