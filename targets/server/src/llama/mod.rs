//! The endpoints that llama.cpp's server has beside OpenAI's, for clients that were written for it.

mod answer;
pub(crate) mod completion;
mod events;
pub(crate) mod infill;
mod prompts;
pub(crate) mod props;
mod slot_files;
pub(crate) mod slots;

use crate::error::ApiError;

/// Embeddings and reranking need models that pool, which none of the families here does.
pub(crate) async fn pooling() -> ApiError {
    ApiError::unsupported("This server does not support embeddings or reranking")
}
