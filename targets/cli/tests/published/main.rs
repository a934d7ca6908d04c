//! Two small models as people have them, which Python packages carry as GGUF files: what each says,
//! and every command of a model's day on both. `tests/peer/published.py` compares their logits with
//! llama.cpp's.

mod commands;
mod fetch;
mod gemma3;
mod smollm2;
