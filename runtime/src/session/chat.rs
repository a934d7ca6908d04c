//! Renders conversations as text with the model's own Jinja template, within limits.
//!
//! [`super::jinja`] defines what templates can use; this module defines the variables that they
//! receive. Templates differ in the form in which they expect tool calls, and each receives the
//! form that it expects.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Serde, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::jinja;

/// Maximum size of a template in bytes.
const MAX_TEMPLATE: usize = 256 << 10;
/// Maximum size in bytes of an error message from a template or its engine.
const MAX_MESSAGE: usize = 2000;

/// Variables that are set from the conversation.
const GIVEN: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

/// Parses a variable from `NAME=VALUE`, where the value is JSON, or otherwise text.
pub fn variable(text: &str) -> Result<(String, Json), ChatError> {
    let wrong = || ChatError::Variable { found: text.chars().take(80).collect() };
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let name = name.trim();
    if name.is_empty() || GIVEN.contains(&name) {
        return Err(wrong());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.into(), value))
}

/// Template of DeepSeek-V3 and R1, for files without a template.
const DEEPSEEK: &str = include_str!("deepseek.jinja");

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "MessageJson")]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Whether the text is null rather than empty: OpenAI's API writes `null` beside calls.
    #[serde(skip)]
    pub content_is_null: bool,
    /// Reasoning of an assistant, for templates that use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls made by an assistant, in the format of OpenAI's API; arguments may be a string or an
    /// object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Json>,
    /// ID of the call that a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Name of the tool that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A message as received.
#[derive(Deserialize)]
struct MessageJson {
    role: String,
    /// `None` if the key is present and `null`.
    #[serde(default = "empty")]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Json>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

fn empty() -> Option<String> {
    Some(String::new())
}

impl From<MessageJson> for Message {
    fn from(json: MessageJson) -> Self {
        let MessageJson { role, content, reasoning_content, tool_calls, tool_call_id, name } = json;
        Self {
            role,
            content_is_null: content.is_none(),
            content: content.unwrap_or_default(),
            reasoning_content,
            tool_calls,
            tool_call_id,
            name,
        }
    }
}

impl Message {
    /// Creates a message with a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// Reason why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is too long.
    #[error("the chat template has {found} bytes; allowed: {MAX_TEMPLATE}")]
    TooLong {
        /// Size of the template in bytes.
        found: usize,
    },
    /// The template cannot express the requested amount of thinking.
    #[error(
        "the chat template cannot say that thinking is to be {found}; {}; variables of the template can be set directly",
        if allowed.is_empty() { "it has no switch for it".into() } else { format!("it knows: {allowed}") }
    )]
    Think {
        /// Requested amount of thinking.
        found: &'static str,
        /// Amounts that the template supports.
        allowed: String,
    },
    /// The variable cannot be set.
    #[error(
        "{found:?} sets no variable of the chat template; allowed: NAME=VALUE, but for {GIVEN:?}"
    )]
    Variable {
        /// The given text.
        found: String,
    },
    /// The template is invalid, or rejects the conversation.
    #[error("the chat template failed: {message}; a text can be continued without it")]
    Template {
        /// Error message.
        message: String,
    },
}

/// Template inputs other than the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatOptions<'a> {
    /// Whether to begin the assistant's turn.
    pub add_generation_prompt: bool,
    /// Text of the begin-of-sentence token.
    pub bos: &'a str,
    /// Text of the end-of-sentence token.
    pub eos: &'a str,
    /// Tools that the model may call, in the format of OpenAI's API.
    pub tools: Option<&'a Json>,
    /// Additional template variables, such as `enable_thinking`.
    pub extra: Option<&'a serde_json::Map<String, Json>>,
    /// Current time passed to templates, in seconds since 1970 (UTC); `None` uses the system time.
    pub now: Option<u64>,
}

/// A parsed template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// Validates a template.
    pub fn new(source: impl Into<String>) -> Result<Self, ChatError> {
        let source = source.into();
        if source.len() > MAX_TEMPLATE {
            return Err(ChatError::TooLong { found: source.len() });
        }
        jinja::check(&source).map_err(failed)?;
        Ok(Self { source })
    }

    /// DeepSeek-V3's template, for models whose vocabulary contains its `<｜User｜>` and
    /// `<｜Assistant｜>`.
    pub fn deepseek() -> Self {
        Self { source: DEEPSEEK.to_string() }
    }

    /// Source text of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of the variables that the template reads.
    pub fn variables(&self) -> Result<HashSet<String>, ChatError> {
        jinja::variables(&self.source).map_err(failed)
    }

    /// Whether the template writes the list of tools.
    pub fn lists_tools(&self) -> Result<bool, ChatError> {
        let variables = self.variables()?;
        Ok(variables.contains("tools") || variables.contains("functions"))
    }

    /// Whether the template reads the tools as the text `functions`, as firefunction's does.
    fn reads_functions(&self) -> Result<bool, ChatError> {
        if !self.source.contains("functions") {
            return Ok(false);
        }
        let variables = self.variables()?;
        Ok(variables.contains("functions") && !variables.contains("tools"))
    }

    /// Renders a conversation as text.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, ChatError> {
        let given = |empty_is_none: bool| -> Vec<Json> {
            messages.iter().map(|message| self.given(message, empty_is_none)).collect()
        };
        let (first, exact) = (given(true), given(false));
        let rendered = self.render_calls(&first, options);
        match rendered {
            Err(error) if first != exact => self.render_calls(&exact, options).map_err(|_| error),
            rendered => rendered,
        }
    }

    /// Renders with call arguments in the form that the template expects.
    fn render_calls(&self, messages: &[Json], options: &ChatOptions) -> Result<String, ChatError> {
        let rendered = self.render_json(messages, options);
        // A template that writes arguments as JSON expects an object; given the text of an object,
        // it would write a JSON string.
        let (objects, texts) = with_objects(messages);
        let quoted =
            |text: &String| texts.iter().any(|one| text.contains(&Json::from(*one).to_string()));
        // Gemma 4's writes objects in a form of its own, and a text as it is.
        let asks_objects = self.source.contains("function['arguments'] is mapping");
        if asks_objects && !texts.is_empty() {
            return self.render_json(&objects, options).or(rendered);
        }
        if !texts.is_empty() && rendered.as_ref().map_or(true, quoted) {
            return self.render_json(&objects, options).or(rendered);
        }
        // A template that concatenates arguments with other text expects text.
        match (rendered, with_texts(messages)) {
            (Err(error), Some(texts)) => self.render_json(&texts, options).map_err(|_| error),
            (rendered, _) => rendered,
        }
    }

    /// Converts a message to the form that the template receives. If `empty_is_none`, an empty text
    /// beside calls becomes null for templates that recognize calls by a null text.
    fn given(&self, message: &Message, empty_is_none: bool) -> Json {
        let mut json = serde_json::to_value(message).unwrap_or_default();
        let asks = |patterns: &[&str]| patterns.iter().any(|pattern| self.source.contains(pattern));
        let asks_none = asks(&["content'] is none", "content is none", "content\"] is none"]);
        // Other templates would write `None` into the prompt.
        let knows_none = asks_none
            || asks(&["content'] is not none", "content is not none", "content\"] is not none"]);
        let calls = message.tool_calls.is_some() && message.content.is_empty();
        if message.content_is_null && knows_none || calls && asks_none && empty_is_none {
            json["content"] = Json::Null;
        }
        // gpt-oss's name for the reasoning.
        if let Some(thoughts) = &message.reasoning_content {
            json["thinking"] = thoughts.as_str().into();
        }
        json
    }

    fn render_json(&self, messages: &[Json], options: &ChatOptions) -> Result<String, ChatError> {
        let since_1970 = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = options.now.unwrap_or_else(|| since_1970().as_secs());
        let mut variables = options.extra.cloned().unwrap_or_default();
        if self.reads_functions()? && !variables.contains_key("functions") {
            let text = options.tools.map_or_else(String::new, Json::to_string);
            variables.insert("functions".into(), text.into());
        }
        let known = serde_json::json!({
            "messages": messages,
            "add_generation_prompt": options.add_generation_prompt,
            "bos_token": options.bos,
            "eos_token": options.eos,
            "tools": options.tools,
        });
        variables.extend(known.as_object().cloned().unwrap_or_default());
        jinja::render(&self.source, || Value::from(Serde(variables)), now).map_err(failed)
    }
}

/// Returns the messages with call arguments that are the text of an object parsed to objects,
/// together with these texts.
fn with_objects(messages: &[Json]) -> (Vec<Json>, Vec<&str>) {
    let mut objects = messages.to_vec();
    let mut texts = Vec::new();
    for (message, object) in messages.iter().zip(&mut objects) {
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        for (number, call) in calls.iter().enumerate() {
            let Some(text) = call["function"]["arguments"].as_str() else { continue };
            if let Ok(arguments @ Json::Object(_)) = serde_json::from_str(text) {
                object["tool_calls"][number]["function"]["arguments"] = arguments;
                texts.push(text);
            }
        }
    }
    (objects, texts)
}

fn failed(error: minijinja::Error) -> ChatError {
    // The error's sources contain the message of `raise_exception`.
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    ChatError::Template { message }
}

/// Returns the messages with call arguments as text, as written by Python's `json.dumps`; `None` if
/// no arguments were objects.
fn with_texts(messages: &[Json]) -> Option<Vec<Json>> {
    let mut texts = messages.to_vec();
    let mut any = false;
    for message in &mut texts {
        for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
            let arguments = &mut call["function"]["arguments"];
            if arguments.is_object() {
                *arguments = jinja::dump(arguments).into();
                any = true;
            }
        }
    }
    any.then_some(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> Result<String, ChatError> {
        let messages = [Message::new("user", "Hi")];
        ChatTemplate::new(source)?.render(&messages, &ChatOptions::default())
    }

    #[test]
    fn blocks_take_their_lines_with_them() {
        let text = render("{% if true %}\n  a\n  {% endif %}\nb\n").unwrap();
        assert_eq!(text, "  a\nb");
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
    }

    #[test]
    fn a_template_that_is_wrong_is_refused_when_it_is_read() {
        let error = ChatTemplate::new("{% if %}").unwrap_err();
        assert!(error.to_string().contains("without it"), "{error}");
        assert!(matches!(ChatTemplate::new(" ".repeat(2 << 20)), Err(ChatError::TooLong { .. })));
    }

    #[test]
    fn a_template_that_never_ends_runs_out_of_fuel() {
        let forever =
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        assert!(render(forever).is_err());
        assert!(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
        assert!(render("{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}").is_err());
    }

    #[test]
    fn arguments_are_given_as_a_template_wants_them() {
        let render = |arguments: Json, source: &str| {
            let calls = json!([{"function": {"name": "f", "arguments": arguments}}]);
            let message = Message { tool_calls: Some(calls), ..Message::new("assistant", "") };
            ChatTemplate::new(source).unwrap().render(&[message], &ChatOptions::default()).unwrap()
        };
        let arguments = "messages[0].tool_calls[0].function.arguments";
        let object = json!({"a": "b"});
        for given in [object.to_string().into(), object] {
            let as_json = format!("{{{{ {arguments} | tojson }}}}");
            assert_eq!(render(given.clone(), &as_json), r#"{"a": "b"}"#);
            let by_key =
                format!("{{% for k, v in {arguments}.items() %}}{{{{ k ~ v }}}}{{% endfor %}}");
            assert_eq!(render(given, &by_key), "ab");
        }
        let as_text = format!("{{{{ '<' + {arguments} + '>' }}}}");
        assert_eq!(render(r#"{"a":"b"}"#.into(), &as_text), r#"<{"a":"b"}>"#);
        let none = "{{ 'call' if messages[0].content is none else 'text' }}";
        assert_eq!(render("".into(), none), "call");
    }

    #[test]
    fn tools_are_text_for_a_template_that_reads_functions() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let template = ChatTemplate::new("{{ '<' + functions + '>' }}").unwrap();
        assert!(template.lists_tools().unwrap());
        let render = |tools, extra| {
            let options = ChatOptions { tools, extra, ..ChatOptions::default() };
            template.render(&[Message::new("user", "Hi")], &options).unwrap()
        };
        assert_eq!(render(None, None), "<>");
        assert_eq!(render(Some(&tools), None), format!("<{tools}>"));
        let own = json!({"functions": "mine"});
        assert_eq!(render(Some(&tools), own.as_object()), "<mine>");
    }

    #[test]
    fn deepseeks_own_template_drops_old_reasoning() {
        let messages = [
            Message::new("system", "Be brief."),
            Message::new("user", "1+1?"),
            Message::new("assistant", "<think>\none\n</think>\n\n2"),
            Message::new("user", "2+2?"),
        ];
        let options = ChatOptions {
            add_generation_prompt: true,
            bos: "<bos>",
            eos: "<eos>",
            ..ChatOptions::default()
        };
        assert_eq!(
            ChatTemplate::deepseek().render(&messages, &options).unwrap(),
            "<bos>Be brief.<｜User｜>1+1?<｜Assistant｜>2<eos><｜User｜>2+2?<｜Assistant｜>"
        );
    }
}
