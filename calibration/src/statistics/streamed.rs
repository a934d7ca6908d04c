//! Calibration while a file is quantized: what a layer's matrices see is collected when its turn comes, used, and
//! forgotten when the next one's does.
//!
//! The next layer sees what the full-precision layer gives, not the quantized one. So the statistics are those of
//! [`calibrate`](super::calibrate), and the weights are, to the last byte, those that its file would have led to.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::importance::Importance;
use vaquita_quantize::{Progress, Stage};
use vaquita_runtime::checkpoint::{ExpertSpec, LayerId, Projection};

use super::{Coverage, Origin, Statistics, Walk, Weighing};

/// Statistics of one layer at a time.
pub struct Streamed {
    layers: usize,
    description: String,
    state: Mutex<State>,
}

struct State {
    walk: Walk,
    /// The layer whose turn it is, or the output head, and what was seen there.
    current: Option<(Option<usize>, Arc<Weighing>)>,
    /// By layer and expert.
    tokens: BTreeMap<usize, Vec<u64>>,
    coverage: Coverage,
}

impl Streamed {
    /// Texts at the start of their way.
    pub fn new(walk: Walk, origin: &Origin) -> Self {
        let products = match walk.block() {
            Some(block) => format!("products of {block}"),
            None => "no products".into(),
        };
        let description = format!("{} documents, {}, {products}", origin.documents, origin.text);
        let layers = walk.config().num_hidden_layers;
        let (tokens, coverage) = (BTreeMap::new(), Coverage::default());
        Self {
            layers,
            description,
            state: Mutex::new(State { walk, current: None, tokens, coverage }),
        }
    }

    /// What a file says of its calibration: all that decides its statistics besides the source.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Which experts saw how much in the layers that were looked at.
    pub fn coverage(&self) -> Coverage {
        self.state().coverage.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Arc<Weighing>> {
        self.state().current.as_ref().map(|(_, weighing)| weighing.clone())
    }
}

impl State {
    /// What is seen in a layer, or by the output head; nothing where texts do not come.
    fn look(
        &mut self,
        layer: Option<usize>,
        layers: usize,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Statistics, Box<dyn Error + Send + Sync>> {
        let last = layer.unwrap_or(layers).min(layers);
        while self.walk.next().is_some_and(|next| next.0 < last) {
            self.walk.skip_layer(on_progress)?;
        }
        let found = match layer {
            Some(layer) if self.walk.next() == Some(LayerId(layer)) => {
                self.walk.layer(on_progress)?.into_statistics()
            }
            None if !self.walk.config().tie_word_embeddings => {
                self.walk.output()?.into_statistics()
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
        state.current = Some((layer, Arc::new(Weighing::new(found.rounded()))));
        Ok(())
    }
}
