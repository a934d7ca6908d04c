//! Tests of the runtime, in one program: its tests run side by side, and it is linked once. Alone are
//! those that also run elsewhere (`kernels`, by `.ci/aarch64` and `.ci/miri`), and those that count
//! what their process allocates.

mod chat;
mod gguf;
mod gguf_hostile;
mod gguf_reference;
mod meters;
mod replay;
mod tokenizer;
mod tokenizer_hostile;
mod tokenizer_sources;
