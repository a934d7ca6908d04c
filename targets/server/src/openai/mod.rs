//! OpenAI's API, with the fields of DeepSeek and llama.cpp.

pub(crate) mod answer;
pub(crate) mod chat;
pub(crate) mod chunks;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod settings;
pub(crate) mod structure;
pub(crate) mod texts;
pub(crate) mod thinking;
