//! A source without its multi-token-prediction layers, which answers do not need.

use std::sync::Arc;

use vaquita_runtime::blocks::Matrix;
use vaquita_runtime::checkpoint::{Config, Expert, ExpertSpec, TensorSpec, Weights, WeightsError};

/// Weights whose configuration has no layers that draft tokens.
pub(super) struct WithoutMtp {
    weights: Arc<dyn Weights>,
    config: Config,
}

impl WithoutMtp {
    pub fn new(weights: Arc<dyn Weights>) -> Self {
        let config = Config { num_nextn_predict_layers: 0, ..weights.config().clone() };
        Self { weights, config }
    }
}

impl Weights for WithoutMtp {
    fn config(&self) -> &Config {
        &self.config
    }

    fn tensor(&self, spec: &TensorSpec) -> Result<Option<Matrix>, WeightsError> {
        self.weights.tensor(spec)
    }

    fn expert(&self, spec: &ExpertSpec) -> Result<Expert, WeightsError> {
        self.weights.expert(spec)
    }

    fn check(&self) -> Result<(), WeightsError> {
        self.weights.check()
    }
}
