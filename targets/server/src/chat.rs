//! A chat request as all APIs mean it. The files of the APIs translate to it; [`prepare`] makes a
//! prompt and the options of an answer from it.

use std::sync::Arc;

use serde_json::{Map, Value};
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::constraint::Grammar;
use vaquita_runtime::session::generate::{Calls, GenerationOptions};
use vaquita_runtime::session::prompt::{Prompt, PromptError};
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::thinking::Think;
use vaquita_runtime::session::tools::Format;
use vaquita_runtime::session::tools::offer::{ToolChoice, Tools};
use vaquita_runtime::structured::{CallRule, Rule};

use crate::error::{ApiError, Result};
use crate::served::Served;

/// Longest text in bytes that is counted where it is too long for the context.
const COUNTED: usize = 256 << 10;

/// How an answer is sampled and when it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub sampling: SamplingOptions,
    pub max_tokens: Option<usize>,
    pub stop: Vec<String>,
    pub logprobs: Option<usize>,
    /// Whether log probabilities are those of the draw.
    pub odds: bool,
    /// Number of answers.
    pub n: usize,
    /// Whether the prompt is neither looked up nor kept.
    pub uncached: bool,
    /// The slot whose prompts are looked up and replaced, instead of those of the whole client.
    pub slot: Option<usize>,
}

/// A conversation that is to be answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChatRequest {
    pub messages: Vec<Message>,
    /// Functions that the model may call, in the format of OpenAI's API.
    pub tools: Option<Value>,
    pub choice: ToolChoice,
    /// Whether the model may make several calls at once.
    pub parallel: bool,
    /// What the answer is held to.
    pub rule: Option<Rule>,
    pub think: Option<Think>,
    /// Variables of the template.
    pub variables: Map<String, Value>,
    /// Whether the model continues the last message, which is an assistant's.
    pub continues: bool,
    /// Whether the prompt ends without the beginning of the assistant's turn.
    pub stays_closed: bool,
    pub settings: Settings,
    /// The client's name of its user, for fairness and separate caches.
    pub user: String,
}

/// What the engine needs for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub prompt: Prompt,
    pub options: GenerationOptions,
    pub n: usize,
    pub user: String,
    /// Whether the prompt is neither looked up nor kept.
    pub uncached: bool,
    /// The client's slot that the prompt belongs to.
    pub slot: Option<usize>,
    /// What the model or its template cannot do as requested.
    pub warnings: Vec<String>,
}

/// What holds an answer, and how calls are read from it.
type Constraints = (Option<Arc<dyn Grammar>>, Option<Arc<Calls>>);

impl ChatRequest {
    /// Variables of the template, and what it cannot express.
    fn variables(&self, model: &Served, warnings: &mut Vec<String>) -> Map<String, Value> {
        let mut variables = model.info.defaults.variables.clone();
        if let (Some(think), Some(template)) = (self.think, model.prompter().template()) {
            let any = think.variables(template).or_else(|error| match think {
                // An amount that the template does not know is still a wish to think.
                Think::Low | Think::High => Think::On.variables(template),
                _ => Err(error),
            });
            match any {
                Ok(known) => variables.extend(known),
                Err(error) => warnings.push(error.to_string()),
            }
        }
        variables.extend(self.variables.clone());
        variables
    }

    /// The text of the prompt.
    pub fn render(&self, model: &Served, warnings: &mut Vec<String>) -> Result<String> {
        if self.messages.is_empty() {
            return Err(ApiError::field("messages", "messages: there is nothing to answer"));
        }
        let variables = self.variables(model, warnings);
        let end = self.messages.len() - usize::from(self.continues);
        let mut messages = self.messages[..end].to_vec();
        let tools = self.tools.as_ref().filter(|_| self.choice != ToolChoice::None);
        if let Some(tools) = tools.filter(|_| !model.lists_tools) {
            tell_of_tools(&mut messages, tools);
        }
        let thinks = messages.iter().any(|m| m.role == "assistant" && m.tool_calls.is_some())
            && !messages.iter().any(|m| m.reasoning_content.is_some());
        if thinks && model.can_think {
            warnings.push(
                "earlier calls come without reasoning_content; send it back, so that the model knows why it called"
                    .into(),
            );
        }
        let (prompter, opens) = (model.prompter(), !self.stays_closed);
        Ok(prompter.render_turns(&messages, tools, &variables, &model.replay(), opens)?)
    }

    /// Makes the prompt and compiles grammars.
    pub fn prepare(self, model: &Served) -> Result<Prepared> {
        let mut warnings = Vec::new();
        let (grammar, calls) = self.constraints(model)?;
        let text = self.render(model, &mut warnings)?;
        let prompter = model.prompter();
        let prompt = match self.messages.last().filter(|_| self.continues) {
            Some(begun) => prompter.continued(&text, begun),
            None => prompter.rendered(&text),
        };
        let prompt = prompt.map_err(|error| refusal(model, &text, error))?;
        let options = self.settings.options(&prompt, grammar, calls);
        let Settings { n, uncached, slot, .. } = self.settings;
        Ok(Prepared { prompt, options, n, user: self.user, uncached, slot, warnings })
    }

    fn constraints(&self, model: &Served) -> Result<Constraints> {
        let tools = self.tools.as_ref().map_or(Ok(Tools::default()), Tools::from_json)?;
        let chosen = tools.chosen(&self.choice)?;
        if chosen.is_empty() {
            return Ok((self.grammar(model)?, None));
        }
        let required = self.choice.is_required();
        let calls = Arc::new(Calls { format: model.format, tools: chosen });
        if self.rule.is_some() && !required {
            return Err(ApiError::field(
                "response_format",
                "response_format holds the whole answer to a form, which leaves no room for calls: \
                 send tool_choice `none`, or one that requires a call",
            ));
        }
        let rule = CallRule {
            format: model.format,
            tools: &tools,
            choice: &self.choice,
            parallel: self.parallel,
        };
        if model.format == Format::Generic && !required {
            return Ok((None, Some(calls)));
        }
        let compiled = model.compiler()?.compile_calls(&rule, model.prompter().tokenizer());
        let in_tools = |error| ApiError { param: Some("tools".into()), ..ApiError::from(error) };
        Ok((compiled.map_err(in_tools)?, Some(calls)))
    }

    fn grammar(&self, model: &Served) -> Result<Option<Arc<dyn Grammar>>> {
        let Some(rule) = &self.rule else { return Ok(None) };
        Ok(Some(model.compiler()?.compile(rule)?))
    }
}

impl Settings {
    /// Options of an answer to a prompt.
    pub fn options(
        &self,
        prompt: &Prompt,
        grammar: Option<Arc<dyn Grammar>>,
        calls: Option<Arc<Calls>>,
    ) -> GenerationOptions {
        GenerationOptions {
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            reasoning_open: prompt.reasoning_open,
            keep_tags: false,
            grammar,
            calls,
            logprobs: self.logprobs,
            odds: self.odds,
        }
    }
}

/// Puts the list of tools into the system text, for a template that does not write it.
fn tell_of_tools(messages: &mut Vec<Message>, tools: &Value) {
    let list = format!(
        "You may call these functions:\n{tools}\nTo call one, answer with a JSON object alone: \
         {{\"name\": ..., \"arguments\": {{...}}}}"
    );
    match messages.first_mut().filter(|first| first.role == "system") {
        Some(system) => system.content = format!("{}\n\n{list}", system.content),
        None => messages.insert(0, Message::new("system", list)),
    }
}

/// The error of a prompt that cannot be made of a text. One that is too long tells its length, unless
/// it takes long to count.
pub(crate) fn refusal(model: &Served, text: &str, error: PromptError) -> ApiError {
    let PromptError::TooLong { most } = error else { return error.into() };
    let counts = text.len() <= COUNTED;
    let tokens = counts.then(|| model.prompter().tokenizer().encode(text, true).ok()).flatten();
    ApiError::too_long(tokens.map(|tokens| tokens.len()), most)
}

/// Checks a prompt of tokens that a client has made itself.
pub(crate) fn token_prompt(model: &Served, tokens: Vec<u32>) -> Result<Prompt> {
    let rows = model.app.loaded().model.config().vocab_size;
    if let Some(&token) = tokens.iter().find(|token| **token as usize >= rows) {
        let text = model.prompter().tokenizer().decode(&[token]);
        return Err(PromptError::Row { token, text, rows }.into());
    }
    Ok(Prompt { tokens, reasoning_open: false })
}
