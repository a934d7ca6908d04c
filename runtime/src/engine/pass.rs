//! One pass of the model over tokens of several sequences.

use std::sync::Arc;

use super::options::EngineModel;
use super::request::EngineError;
use crate::model::{Chunk, Compute, ModelError};

/// Logits after the last token of each chunk. A chunk that fails or is cancelled leaves its cache as
/// it was, and the others go on.
pub(super) fn run(
    model: &EngineModel,
    chunks: &mut [Chunk],
) -> Vec<Result<Vec<f32>, Arc<ModelError>>> {
    let ctx = Compute::new(model.session.tier, &model.pool);
    match model.model.forward_batch(&ctx, chunks) {
        Ok(results) => results.into_iter().map(|result| result.map_err(Arc::new)).collect(),
        // An expert cannot be read: only those that need it fail.
        Err(_) if chunks.len() > 1 => {
            chunks.chunks_mut(1).flat_map(|chunk| run(model, chunk)).collect()
        }
        Err(error) => vec![Err(Arc::new(error))],
    }
}

impl From<Arc<ModelError>> for EngineError {
    fn from(error: Arc<ModelError>) -> Self {
        Self::Model(error)
    }
}
