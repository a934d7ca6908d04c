//! Calls of tools as each family's chat template writes them, made here without the parser.

use serde_json::{Map, Value, json};
use vaquita_runtime::session::tools::Format;

/// A call as it was meant.
#[derive(Clone, Debug)]
pub struct Meant {
    /// Name of the function.
    pub name: String,
    /// Arguments by name, in the order in which they are written.
    pub arguments: Map<String, Value>,
}

/// The answer in which a model of `format` makes `calls`.
pub fn render(format: Format, calls: &[Meant]) -> String {
    let object = |call: &Meant| Value::from(call.arguments.clone()).to_string();
    let each = |one: &dyn Fn(usize, &Meant) -> String, between: &str| {
        let all: Vec<String> = calls.iter().enumerate().map(|(i, call)| one(i, call)).collect();
        all.join(between)
    };
    let untagged = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    match format {
        Format::DeepSeekV3 => {
            let one = |_, c: &Meant| {
                format!(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>",
                    c.name,
                    object(c)
                )
            };
            format!("<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>", each(&one, "\n"))
        }
        Format::DeepSeekV31 => {
            let one = |_, c: &Meant| {
                format!(
                    "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                    c.name,
                    object(c)
                )
            };
            format!("<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>", each(&one, ""))
        }
        Format::DeepSeekV32 | Format::DeepSeekV4 => {
            let parameter = |(key, value): (&String, &Value)| {
                let kind = value.is_string();
                let value = untagged(value);
                format!(
                    "<｜DSML｜parameter name=\"{key}\" string=\"{kind}\">{value}</｜DSML｜parameter>\n"
                )
            };
            let one = |_, c: &Meant| {
                let all: String = c.arguments.iter().map(parameter).collect();
                let all = if all.is_empty() { "\n".into() } else { all };
                format!("<｜DSML｜invoke name=\"{}\">\n{all}</｜DSML｜invoke>\n", c.name)
            };
            let outer = if format == Format::DeepSeekV4 { "tool_calls" } else { "function_calls" };
            format!("\n\n<｜DSML｜{outer}>\n{}</｜DSML｜{outer}>", each(&one, ""))
        }
        Format::Hermes => {
            let one = |_, c: &Meant| {
                format!(
                    "<tool_call>\n{{\"name\": \"{}\", \"arguments\": {}}}\n</tool_call>",
                    c.name,
                    object(c)
                )
            };
            each(&one, "\n")
        }
        Format::QwenCoder => {
            let one = |_, c: &Meant| {
                let parameter = |(key, value): (&String, &Value)| {
                    format!("<parameter={key}>\n{}\n</parameter>\n", untagged(value))
                };
                let all: String = c.arguments.iter().map(parameter).collect();
                format!("<tool_call>\n<function={}>\n{all}</function>\n</tool_call>", c.name)
            };
            each(&one, "\n")
        }
        Format::Glm => {
            let one = |_, c: &Meant| {
                let argument = |(key, value): (&String, &Value)| {
                    format!(
                        "<arg_key>{key}</arg_key>\n<arg_value>{}</arg_value>\n",
                        untagged(value)
                    )
                };
                let all: String = c.arguments.iter().map(argument).collect();
                format!("<tool_call>{}\n{all}</tool_call>", c.name)
            };
            each(&one, "\n")
        }
        Format::MiniMax => {
            let one = |_, c: &Meant| {
                let parameter = |(key, value): (&String, &Value)| {
                    format!("<parameter name=\"{key}\">{}</parameter>\n", untagged(value))
                };
                let all: String = c.arguments.iter().map(parameter).collect();
                format!("<invoke name=\"{}\">\n{all}</invoke>\n", c.name)
            };
            format!("<minimax:tool_call>\n{}</minimax:tool_call>", each(&one, ""))
        }
        Format::Kimi => {
            let one = |i, c: &Meant| {
                let name = &c.name;
                format!(
                    "<|tool_call_begin|>functions.{name}:{i}<|tool_call_argument_begin|>{}<|tool_call_end|>",
                    object(c)
                )
            };
            format!("<|tool_calls_section_begin|>{}<|tool_calls_section_end|>", each(&one, ""))
        }
        Format::Harmony => {
            let one = |_, c: &Meant| {
                format!(
                    "<|start|>assistant<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{}<|call|>",
                    c.name,
                    object(c)
                )
            };
            each(&one, "")
        }
        Format::Gemma4 => {
            let one = |_, c: &Meant| {
                format!(
                    "<|tool_call>call:{}{}<tool_call|>",
                    c.name,
                    gemma(&c.arguments.clone().into())
                )
            };
            each(&one, "")
        }
        Format::Lfm2 => {
            let one = |_, c: &Meant| {
                let all: Vec<String> =
                    c.arguments.iter().map(|(k, v)| format!("{k}={}", python(v))).collect();
                format!("{}({})", c.name, all.join(", "))
            };
            format!("<|tool_call_start|>[{}]<|tool_call_end|>", each(&one, ", "))
        }
        Format::Llama3 | Format::Generic => {
            let key = if format == Format::Llama3 { "parameters" } else { "arguments" };
            let one =
                |_, c: &Meant| format!("{{\"name\": \"{}\", \"{key}\": {}}}", c.name, object(c));
            each(&one, "; ")
        }
        Format::MistralNemo => {
            let one = |_, c: &Meant| {
                format!(
                    "{{\"name\": \"{}\", \"arguments\": {}, \"id\": \"abcdefgh9\"}}",
                    c.name,
                    object(c)
                )
            };
            format!("[TOOL_CALLS][{}]", each(&one, ", "))
        }
        Format::Mistral => {
            let one = |_, c: &Meant| format!("[TOOL_CALLS]{}[ARGS]{}", c.name, object(c));
            each(&one, "")
        }
    }
}

/// A value as Gemma 4's template writes it; keys that are not names are quoted like texts.
fn gemma(value: &Value) -> String {
    let text = |text: &str| format!("<|\"|>{text}<|\"|>");
    let is_name =
        |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
    match value {
        Value::String(value) => text(value),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(gemma).collect::<Vec<_>>().join(","))
        }
        Value::Object(items) => {
            let key = |key: &str| if is_name(key) { key.into() } else { text(key) };
            let all = items.iter().map(|(k, v)| format!("{}:{}", key(k), gemma(v)));
            format!("{{{}}}", all.collect::<Vec<_>>().join(","))
        }
        scalar => scalar.to_string(),
    }
}

/// A Python literal.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.contains('"') => {
            let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
            format!("'{escaped}'")
        }
        Value::String(_) => value.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(items) => {
            let all: Vec<String> = items
                .iter()
                .map(|(k, v)| format!("{}: {}", python(&json!(k)), python(v)))
                .collect();
            format!("{{{}}}", all.join(", "))
        }
    }
}
