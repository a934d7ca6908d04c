//! Conversations as text: the model's own Jinja template, rendered with limits.
//!
//! Templates come with model files, so they are not trusted: fuel bounds what they compute, and the
//! output is bounded too. Blocks are trimmed, `tojson` writes and methods work as in `transformers`.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};

/// Steps a template may take.
const FUEL: u64 = 20_000_000;
/// Bytes it may write.
const MAX_OUTPUT: usize = 64 << 20;
/// Bytes it may have.
const MAX_TEMPLATE: usize = 1 << 20;

/// The template of DeepSeek-V3 and R1, for files that carry none.
const DEEPSEEK: &str = include_str!("deepseek.jinja");

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
    /// What an assistant thought, for templates that want it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls an assistant made, as OpenAI's interface writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<serde_json::Value>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// Why a conversation cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is too long.
    #[error("the chat template has {found} bytes; allowed: {MAX_TEMPLATE}")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// The template is wrong, or refuses the conversation.
    #[error("the chat template failed: {message}; --raw gives the prompt to the model as it is")]
    Template {
        /// What went wrong.
        message: String,
    },
}

/// What a template gets besides the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatOptions<'a> {
    /// Begin the assistant's turn.
    pub add_generation_prompt: bool,
    /// Text of the begin-of-sentence token.
    pub bos: &'a str,
    /// Text of the end-of-sentence token.
    pub eos: &'a str,
    /// Tools the model may call, as OpenAI's interface describes them.
    pub tools: Option<&'a serde_json::Value>,
    /// More variables of the template, such as `enable_thinking`.
    pub extra: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// A parsed template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// Checks a template.
    pub fn new(source: impl Into<String>) -> Result<Self, ChatError> {
        let source = source.into();
        if source.len() > MAX_TEMPLATE {
            return Err(ChatError::TooLong { found: source.len() });
        }
        environment().template_from_str(&source).map_err(failed)?;
        Ok(Self { source })
    }

    /// DeepSeek-V3's, for models whose vocabulary has its `<｜User｜>` and `<｜Assistant｜>`.
    pub fn deepseek() -> Self {
        Self { source: DEEPSEEK.to_string() }
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, ChatError> {
        let environment = environment();
        let template = environment.template_from_str(&self.source).map_err(failed)?;
        let mut variables = options.extra.cloned().unwrap_or_default();
        let known = serde_json::json!({
            "messages": messages,
            "add_generation_prompt": options.add_generation_prompt,
            "bos_token": options.bos,
            "eos_token": options.eos,
            "tools": options.tools,
        });
        variables.extend(known.as_object().cloned().unwrap_or_default());
        let mut out = Bounded(Vec::new());
        template.render_captured_to(Serde(variables), &mut out).map_err(failed)?;
        Ok(String::from_utf8_lossy(&out.0).into_owned())
    }
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    let mut syntax = environment.syntax().clone();
    syntax = syntax.to_builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or(syntax);
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<(), _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("tojson", to_json);
    environment
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)` of Python.
fn to_json(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // `transformers` takes these too; neither changes what is written here.
    let _: (Option<bool>, Option<Value>) =
        (options.get("ensure_ascii")?, options.get("separators")?);
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = vec![b' '; indent.min(16)];
            let format = serde_json::ser::PrettyFormatter::with_indent(&indent);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
    };
    let bad = |error: &dyn std::fmt::Display| {
        minijinja::Error::new(ErrorKind::BadSerialization, format!("tojson: {error}"))
    };
    written.map_err(|error| bad(&error))?;
    String::from_utf8(out).map_err(|error| bad(&error))
}

/// JSON with a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Refuses more than [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            let message = format!("the conversation is longer than {MAX_OUTPUT} bytes");
            return Err(io::Error::other(message));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failed(error: minijinja::Error) -> ChatError {
    // The causes hold what `raise_exception` said.
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        message.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    ChatError::Template { message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> Result<String, ChatError> {
        let messages = [Message::new("user", "Hi")];
        let tools = json!([{"name": "f", "arguments": {"z": 1, "a": [true, "é<"]}}]);
        let options = ChatOptions { tools: Some(&tools), ..ChatOptions::default() };
        ChatTemplate::new(source)?.render(&messages, &options)
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(
            render("{{ tools | tojson }}").unwrap(),
            r#"[{"name": "f", "arguments": {"z": 1, "a": [true, "é<"]}}]"#
        );
        let indented = render("{{ tools[0].arguments.a | tojson(indent=2) }}").unwrap();
        assert_eq!(indented, "[\n  true,\n  \"é<\"\n]");
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
        assert!(error.to_string().contains("--raw"), "{error}");
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
