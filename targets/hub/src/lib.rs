//! Fetches models from the Hugging Face hub, or a mirror of it, into the hub's own cache, so that
//! other tools find the files and this crate finds theirs.
//!
//! [`Hub::listing`] asks what a model consists of, [`choose`] selects the files for a purpose, and
//! [`Hub::fetch`] fetches them: several ranges at once, checked against the published checksums,
//! resumed after an interruption. Names come from users, and all else comes from strangers: file
//! names, lengths and answers are checked before anything is written.
//!
//! The system's `curl` does the transfers; see `docs/decisions.md`.

mod address;
mod cache;
mod curl;
mod download;
mod error;
mod http;
mod hub;
mod listing;
mod name;
mod outline;
mod partial;
mod ranges;
mod select;

pub use cache::{Cache, CachedModel, RepoFolder};
pub use download::{FetchOptions, Notice, Progress};
pub use error::HubError;
pub use http::Retry;
pub use hub::Hub;
pub use listing::{Digest, Listing, RemoteFile};
pub use name::{ModelName, RepoId};
pub use outline::Outline;
pub use select::{CHECKPOINT, Choice, Purpose, Variant, choose, variants};
