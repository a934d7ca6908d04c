//! Calibration during quantization: statistics of a layer are collected before it is encoded, and
//! dropped when the next layer is reached.
//!
//! The next layer receives the output of the full-precision layer, not of the quantized one. So the
//! statistics equal those of [`calibrate`](super::calibrate), and the weights are byte-identical to
//! those quantized with its file.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::importance::Importance;
use vaquita_quantize::{Progress, Stage};
use vaquita_runtime::checkpoint::{ExpertSpec, LayerId, Projection};

use super::{Coverage, ImportanceEstimate, LayerwiseForward, Origin, Statistics};

/// Statistics of one layer at a time.
pub struct Streamed {
    layers: usize,
    description: String,
    state: Mutex<State>,
}

struct State {
    forward: LayerwiseForward,
    /// The current layer (`None` for the output head) and its importance.
    current: Option<(Option<usize>, Arc<ImportanceEstimate>)>,
    /// Tokens by layer and expert.
    tokens: BTreeMap<usize, Vec<u64>>,
    coverage: Coverage,
}

impl Streamed {
    /// Starts with the embedded texts.
    pub fn new(forward: LayerwiseForward, origin: &Origin) -> Self {
        let products = match forward.block() {
            Some(block) => format!("products of {block}"),
            None => "no products".into(),
        };
        let description = format!("{} documents, {}, {products}", origin.documents, origin.text);
        let layers = forward.config().num_hidden_layers;
        let (tokens, coverage) = (BTreeMap::new(), Coverage::default());
        Self {
            layers,
            description,
            state: Mutex::new(State { forward, current: None, tokens, coverage }),
        }
    }

    /// Description of the calibration for the file: everything besides the source that determines
    /// the statistics.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Coverage of the layers that were observed.
    pub fn coverage(&self) -> Coverage {
        self.state().coverage.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Arc<ImportanceEstimate>> {
        self.state().current.as_ref().map(|(_, estimate)| estimate.clone())
    }
}

impl State {
    /// Statistics of a layer, or of the output head; `None` if no text reaches it.
    fn look(
        &mut self,
        layer: Option<usize>,
        layers: usize,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Statistics, Box<dyn Error + Send + Sync>> {
        let last = layer.unwrap_or(layers).min(layers);
        while self.forward.next().is_some_and(|next| next.0 < last) {
            self.forward.skip_layer(on_progress)?;
        }
        let found = match layer {
            Some(layer) if self.forward.next() == Some(LayerId(layer)) => {
                self.forward.layer(on_progress)?.into_statistics()
            }
            None if !self.forward.config().tie_word_embeddings => {
                self.forward.output()?.into_statistics()
            }
            _ => Statistics::default(),
        };
        for (layer, experts) in &found.experts {
            self.tokens.insert(*layer, experts.iter().map(|one| one.tokens).collect());
        }
        self.coverage.layers.extend(found.coverage().layers);
        Ok(found)
    }
}

impl Importance for Streamed {
    fn tensor(&self, name: &str, cols: usize) -> Option<Vec<f32>> {
        self.current()?.tensor(name, cols)
    }

    fn expert(&self, spec: &ExpertSpec, projection: Projection) -> Option<Vec<f32>> {
        self.current()?.expert(spec, projection)
    }

    fn tokens(&self, spec: &ExpertSpec) -> Option<u64> {
        self.state().tokens.get(&spec.layer.0)?.get(spec.expert.0).copied()
    }

    fn tensor_hessian(&self, name: &str, cols: usize) -> Option<Hessian> {
        self.current()?.tensor_hessian(name, cols)
    }

    fn expert_hessian(&self, spec: &ExpertSpec, projection: Projection) -> Option<Hessian> {
        self.current()?.expert_hessian(spec, projection)
    }

    fn reaches(&self, layer: Option<usize>) -> bool {
        layer.is_none_or(|layer| layer < self.layers)
    }

    fn prepare(
        &self,
        layer: Option<usize>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|(found, _)| *found == layer) {
            return Ok(());
        }
        state.current = None;
        let found = state.look(layer, self.layers, &mut |done, total| {
            let (done, total) = (done as u64, total as u64);
            progress(Progress { stage: Stage::Calibrating, done, total });
        })?;
        state.current = Some((layer, Arc::new(ImportanceEstimate::new(found.rounded()))));
        Ok(())
    }
}
