//! Formats of tool calls in different model families, detected from the chat template.

use crate::tokenizer::Tokenizer;

use super::cursor::TOKEN;
use super::gemma;

/// Format in which a model was trained to write calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// DeepSeek-V3, R1 and its distills: a fenced JSON object after the name.
    DeepSeekV3,
    /// DeepSeek-V3.1: an object after the name.
    DeepSeekV31,
    /// DeepSeek-V3.2: tagged parameters in `<｜DSML｜function_calls>`.
    DeepSeekV32,
    /// DeepSeek-V4: tagged parameters in `<｜DSML｜tool_calls>`.
    DeepSeekV4,
    /// Qwen2.5, Qwen3, Hermes: an object with name and arguments in `<tool_call>`.
    Hermes,
    /// Qwen3-Coder, Qwen3.5: `<function=...>` with `<parameter=...>`.
    QwenCoder,
    /// GLM-4.5 and later: `<arg_key>` and `<arg_value>`.
    Glm,
    /// MiniMax-M2: `<invoke name="...">` with `<parameter name="...">`.
    MiniMax,
    /// Kimi K2: an object after an identifier that numbers the calls.
    Kimi,
    /// gpt-oss: a message to `functions.NAME`.
    Harmony,
    /// Gemma 4: names and values after `call:`, texts between `<|"|>`.
    Gemma4,
    /// LFM2: a list of Python calls.
    Lfm2,
    /// Llama 3.1 and later: the answer is an object with name and parameters.
    Llama3,
    /// Mistral Nemo, Mixtral: a list of objects after `[TOOL_CALLS]`.
    MistralNemo,
    /// Mistral Small 3.2 and later: name and object after `[TOOL_CALLS]`.
    Mistral,
    /// No native format: the answer is an object with name and arguments, enforced by a grammar.
    Generic,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 16] = [
        Self::DeepSeekV3,
        Self::DeepSeekV31,
        Self::DeepSeekV32,
        Self::DeepSeekV4,
        Self::Hermes,
        Self::QwenCoder,
        Self::Glm,
        Self::MiniMax,
        Self::Kimi,
        Self::Harmony,
        Self::Gemma4,
        Self::Lfm2,
        Self::Llama3,
        Self::MistralNemo,
        Self::Mistral,
        Self::Generic,
    ];

    /// Detects the format from the text of a chat template; [`Generic`](Self::Generic) if it writes
    /// no calls.
    pub fn of_template(template: &str) -> Self {
        let has = |text: &str| template.contains(text);
        match () {
            _ if has("｜DSML｜") && has("tool_calls>") && !has("function_calls>") => {
                Self::DeepSeekV4
            }
            _ if has("｜DSML｜") => Self::DeepSeekV32,
            _ if has("<｜tool▁call▁begin｜>") && has("```") => Self::DeepSeekV3,
            _ if has("<｜tool▁call▁begin｜>") => Self::DeepSeekV31,
            _ if has("<|tool_call_begin|>") => Self::Kimi,
            _ if has("<|tool_call>call:") => Self::Gemma4,
            _ if has("<|channel|>") => Self::Harmony,
            _ if has("<|tool_call_start|>") => Self::Lfm2,
            _ if has("<minimax:tool_call>") => Self::MiniMax,
            _ if has("<arg_key>") => Self::Glm,
            _ if has("<function=") && has("<parameter=") => Self::QwenCoder,
            _ if has("<tool_call>") => Self::Hermes,
            _ if has("[TOOL_CALLS]") && has("[ARGS]") => Self::Mistral,
            _ if has("[TOOL_CALLS]") => Self::MistralNemo,
            _ if has("<|python_tag|>") || (has("ipython") && has("\"parameters\"")) => Self::Llama3,
            _ => Self::Generic,
        }
    }

    /// Whether a call may begin without a preceding end of the reasoning, which the model tends to
    /// omit.
    pub(in crate::session) fn ends_reasoning(self) -> bool {
        self == Self::DeepSeekV4
    }

    /// Parts of the format that may be separate tokens.
    pub(super) fn markers(self) -> &'static [&'static str] {
        match self {
            Self::DeepSeekV3 | Self::DeepSeekV31 => &[
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁calls▁end｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁sep｜>",
            ],
            Self::DeepSeekV32 | Self::DeepSeekV4 => &["｜DSML｜"],
            Self::Hermes | Self::QwenCoder => &["<tool_call>", "</tool_call>"],
            Self::Glm => &[
                "<tool_call>",
                "</tool_call>",
                "<arg_key>",
                "</arg_key>",
                "<arg_value>",
                "</arg_value>",
            ],
            Self::MiniMax => &["<minimax:tool_call>", "</minimax:tool_call>"],
            Self::Kimi => &[
                "<|tool_calls_section_begin|>",
                "<|tool_calls_section_end|>",
                "<|tool_call_begin|>",
                "<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
            ],
            // The same markers, as text, separate the reasoning from the answer.
            Self::Harmony | Self::Generic => &[],
            Self::Gemma4 => &["<|tool_call>", "<tool_call|>", gemma::QUOTE],
            Self::Lfm2 => &["<|tool_call_start|>", "<|tool_call_end|>"],
            Self::Llama3 => &["<|python_tag|>"],
            Self::MistralNemo | Self::Mistral => &["[TOOL_CALLS]", "[ARGS]"],
        }
    }

    /// Texts that begin calls.
    pub(super) fn triggers(self) -> &'static [&'static str] {
        match self {
            Self::DeepSeekV3 | Self::DeepSeekV31 => {
                &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"]
            }
            Self::DeepSeekV32 => &["<｜DSML｜function_calls>"],
            Self::DeepSeekV4 => &["<｜DSML｜tool_calls>"],
            Self::Hermes | Self::QwenCoder | Self::Glm => &["<tool_call>"],
            Self::MiniMax => &["<minimax:tool_call>"],
            Self::Kimi => &["<|tool_calls_section_begin|>", "<|tool_call_begin|>"],
            Self::Harmony => &["<|start|>assistant", "<|channel|>commentary"],
            Self::Gemma4 => &["<|tool_call>"],
            Self::Lfm2 => &["<|tool_call_start|>"],
            Self::Llama3 => &["<|python_tag|>", "<function="],
            Self::MistralNemo | Self::Mistral => &["[TOOL_CALLS]"],
            Self::Generic => &[],
        }
    }

    /// Texts that may begin a call at the start of an answer: `{` (or a recipient, for gpt-oss).
    pub(super) fn begins_answer(self) -> &'static [&'static str] {
        match self {
            Self::Llama3 | Self::Generic => &["{"],
            Self::Harmony => &["to=functions."],
            _ => &[],
        }
    }
}

/// Markers of a format that are tokens of a vocabulary.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    tokens: Vec<(u32, &'static str)>,
}

impl Tokens {
    pub fn new(format: Format, tokenizer: &Tokenizer) -> Self {
        let of = |text: &&'static str| Some((tokenizer.token_to_id(text)?, *text));
        Self { tokens: format.markers().iter().filter_map(of).collect() }
    }

    /// Whether `token` is a marker.
    pub fn is_marker(&self, token: u32) -> bool {
        self.tokens.iter().any(|(id, _)| *id == token)
    }

    /// `literal` as it arrives: with [`TOKEN`] before each marker in it that is a token.
    pub fn literal(&self, literal: &str) -> String {
        let mark = |text: String, (_, marker): &(u32, &str)| {
            text.replace(marker, &format!("{TOKEN}{marker}"))
        };
        self.tokens.iter().fold(literal.to_string(), mark)
    }

    /// `literal` and, for DeepSeek's markers, the forms in which distilled models write them as
    /// plain text.
    pub fn literals(&self, literal: &str) -> Vec<String> {
        let mut all = vec![self.literal(literal)];
        if literal.contains('▁') {
            all.extend(["_", " ", "\\_"].map(|other| literal.replace('▁', other)));
        }
        all
    }
}
