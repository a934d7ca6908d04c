//! A server on loopback with the reference model, and clients that behave or do not.

mod advisories;
mod anthropic;
mod chat;
mod client;
mod completions;
mod hostile;
mod llama;
mod ollama;
mod pages;
mod prompt_log;
mod responses;
mod resume;
mod slow;
mod streams;
