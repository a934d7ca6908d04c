//! Serves one model over HTTP: the APIs of OpenAI (with the fields of DeepSeek and llama.cpp),
//! Anthropic and Ollama, and the page.
//!
//! Connections share one thread, the [engine](vaquita_runtime::engine) computes on its own, and a
//! third thread tokenizes. Each API is a module that translates requests to [`chat`] and pieces of
//! [`answering`] to its own form; [`http`] is what they share below. The server makes no
//! connections itself.

mod answering;
mod anthropic;
mod blocks;
mod chat;
mod error;
mod fim;
mod health;
mod http;
mod llama;
mod ollama;
mod openai;
mod options;
mod page;
mod prompt_log;
mod responses;
mod resume;
mod router;
mod score;
mod served;
mod server;
mod state;
mod status;
mod systemd;
mod text;
mod tokens;

pub use http::keys::{KeyError, Keys};
pub use http::listen::Address;
pub use options::{Limits, Part, ServerOptions};
pub use served::{Defaults, ModelInfo, Served};
pub use server::{Handle, RunError, ServeError, Server};
