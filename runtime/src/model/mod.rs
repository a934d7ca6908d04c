//! The network, in the order and with the names of the DeepSeek-V2 and V3 papers.
//!
//! The forward pass is in [`transformer`], over a [`step`] of chunks of several sequences: layers of
//! a [`mixer`] ([`mla`], [`gqa`], [`short_conv`], [`delta_net`] or [`mamba2`]) and a feed-forward
//! ([`moe`], whose [`router`] chooses the experts). [`layerwise`] has one layer at a time in memory; [`mtp`] predicts
//! further tokens. A [`cache`] holds the state of one sequence, a
//! [`store`] hands out routed experts: [`Resident`] from mapped weights, [`crate::experts`] from
//! flash.
//!
//! Shapes, constants and weights come from [`crate::checkpoint`]. Threads, I/O and unsafe code are
//! elsewhere.

mod batch;
pub mod cache;
mod compute;
pub mod delta_net;
mod delta_state;
mod error;
pub mod gqa;
pub mod kimi_delta;
mod layer;
pub mod layerwise;
pub mod linear;
mod loader;
pub mod mamba2;
pub mod mixer;
pub mod mla;
pub mod moe;
pub mod mtp;
pub mod observer;
pub mod part;
mod pass_limit;
mod per_layer;
mod resident;
pub mod rope;
pub mod router;
pub mod short_conv;
mod stats;
pub mod step;
pub mod store;
pub mod transformer;

pub use compute::Compute;
pub use error::ModelError;
pub use mtp::MtpChunk;
pub use pass_limit::PassLimit;
pub use resident::Resident;
pub use stats::Stats;
pub use step::Chunk;
pub use store::{Arrivals, ExpertStore, Preference, Purpose, Slot, Visit};
pub use transformer::{Logits, Model};
