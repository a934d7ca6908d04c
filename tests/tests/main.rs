//! Tests across crates, in one program: its tests run side by side, and it is linked once. Alone are
//! those that also run under emulation (`.ci/aarch64`), and the count of what was skipped.

mod accounting;
mod conversation;
mod convert;
mod dependencies;
mod documentation;
mod drafts;
mod engine;
mod examples;
mod export;
mod families;
mod fused;
mod gguf_keys;
mod gguf_layout;
mod golden;
mod integrity;
mod judge;
mod keys;
mod kimi_delta;
mod memory_budget;
mod numbers;
mod one_answer;
mod packages;
mod protocols;
mod reference;
mod rooms;
mod routing;
mod sampling;
mod save;
mod scales;
mod schedules;
mod sequences;
mod store_faults;
mod streaming;
mod structured;
mod tools;
