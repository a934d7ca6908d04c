//! Store that keeps every expert once it has been used, for models that fit in memory. Experts of a
//! mapped file are views of it, so nothing is copied.

use std::sync::{Arc, OnceLock};

use super::store::{Arrivals, ExpertStore, Visit};
use crate::checkpoint::source::Watch;
use crate::checkpoint::{Expert, ExpertId, GgufWeights, LayerId, Verify, Weights, WeightsError};

/// Experts in the form in which the weights hold them.
pub struct Resident {
    weights: Arc<dyn Weights>,
    /// `[layer][expert]`, filled at first use.
    experts: Vec<Vec<OnceLock<Expert>>>,
    /// Whether experts are read, and so verified, for each visit.
    again: bool,
    /// Watches mapped files.
    watch: Option<Watch>,
}

impl Resident {
    /// Creates a store of the experts of `weights`.
    pub fn new(weights: Arc<dyn Weights>) -> Self {
        let config = weights.config();
        let experts_of = |layer| if config.is_moe(layer) { config.moe.n_routed_experts } else { 0 };
        let experts = (0..config.num_layers_stored())
            .map(|layer| (0..experts_of(layer)).map(|_| OnceLock::new()).collect())
            .collect();
        Self { weights, experts, again: false, watch: None }
    }

    /// Creates a store of the experts of a mapped file, which is watched for changes, and verified
    /// as often as it says.
    ///
    /// # Errors
    /// If the file cannot be watched.
    pub fn of_file(weights: Arc<GgufWeights>) -> Result<Self, WeightsError> {
        let watch = Some(Watch::open(weights.gguf())?);
        let again = weights.verifies() == Verify::Always;
        Ok(Self { again, watch, ..Self::new(weights) })
    }

    fn load(&self, layer: LayerId, id: ExpertId) -> Result<Expert, WeightsError> {
        let config = self.weights.config();
        self.weights.expert(&config.family.expert(config, layer, id))
    }

    fn get(&self, layer: LayerId, id: ExpertId) -> Result<&Expert, WeightsError> {
        let place = &self.experts[layer.0][id.0];
        if let Some(expert) = place.get() {
            return Ok(expert);
        }
        let expert = self.load(layer, id)?;
        Ok(place.get_or_init(|| expert))
    }
}

impl ExpertStore for Resident {
    fn fetch<'a>(&'a self, visit: &Visit) -> Result<Box<dyn Arrivals + 'a>, WeightsError> {
        let wanted = Some(visit.wanted());
        Ok(Box::new(All { store: self, layer: visit.layer, wanted, loaded: Vec::new() }))
    }

    fn check(&self) -> Result<(), WeightsError> {
        self.watch.as_ref().map_or(Ok(()), Watch::check)
    }
}

/// The experts of a visit, handed out at once.
struct All<'a> {
    store: &'a Resident,
    layer: LayerId,
    wanted: Option<Vec<ExpertId>>,
    /// Those that were read for this visit.
    loaded: Vec<Expert>,
}

impl Arrivals for All<'_> {
    fn next_ready(&mut self) -> Result<Option<Vec<(ExpertId, &Expert)>>, WeightsError> {
        let Some(wanted) = self.wanted.take() else { return Ok(None) };
        if self.store.again {
            let load = |id: &ExpertId| self.store.load(self.layer, *id);
            self.loaded = wanted.iter().map(load).collect::<Result<_, _>>()?;
            return Ok(Some(wanted.into_iter().zip(&self.loaded).collect()));
        }
        let get = |id| Ok((id, self.store.get(self.layer, id)?));
        wanted.into_iter().map(get).collect::<Result<_, _>>().map(Some)
    }
}
