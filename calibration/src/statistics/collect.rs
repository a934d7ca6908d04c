//! Runs a model over texts and adds up what its matrices see.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_runtime::model::observer::{ExpertInputs, Observer};
use vaquita_runtime::model::{Config, ExpertId, LayerId};

use super::{ExpertMoments, Statistics};
use crate::{EvalError, OnProgress, Subject};

/// Documents are dealt to this many sums, each added up in order: the result is the same to the last bit
/// whatever the number of threads.
const SUMS: usize = 4;

/// The widest block of second moments, a power of two from 32 to 256, with which [`collect`] keeps to so many
/// bytes for them; `None` where none does.
pub fn block_within(bytes: u64, config: &Config) -> Option<usize> {
    let trunk = config.family.tensors(config).into_iter().map(|spec| spec.cols);
    let experts = expert_layers(config).flat_map(|layer| expert_specs(config, layer));
    let experts = experts.flat_map(|spec| [spec.hidden_size, spec.intermediate_size]);
    let widths: Vec<usize> = trunk.chain(experts).collect();
    let needed = |block: &usize| {
        let entries: u64 = widths.iter().map(|n| Hessian::packed_len(*n, *block) as u64).sum();
        entries * 4 * SUMS as u64 <= bytes
    };
    [256, 128, 64, 32].into_iter().find(needed)
}

/// What the model's matrices see over texts, each after the begin-of-sentence token; the products of inputs with
/// each other too, in blocks of `block`, where that is given.
pub fn collect(
    subject: &Subject,
    texts: &[String],
    block: Option<usize>,
    on_progress: OnProgress,
) -> Result<Statistics, EvalError> {
    let documents = subject.tokenize(texts)?;
    let done = AtomicUsize::new(0);
    let sums: Vec<Statistics> = (0..SUMS)
        .into_par_iter()
        .map(|first| {
            let sums = Arc::new(Sums::new(subject.model.config(), block));
            for document in documents.iter().skip(first).step_by(SUMS) {
                let mut session = subject.session();
                session.observe(sums.clone());
                session.feed(document)?;
                on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, documents.len());
            }
            let sums = sums.statistics.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(sums.clone())
        })
        .collect::<Result<_, EvalError>>()?;
    let mut all = Statistics::default();
    sums.iter().for_each(|one| all.merge(one));
    Ok(all)
}

struct Sums {
    experts: usize,
    block: Option<usize>,
    statistics: Mutex<Statistics>,
}

impl Sums {
    fn new(config: &Config, block: Option<usize>) -> Self {
        let experts = config.moe.n_routed_experts;
        Self { experts, block, statistics: Mutex::default() }
    }
}

impl Observer for Sums {
    fn matrix(&self, name: &str, width: usize, inputs: &[f32]) {
        let mut sums = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        sums.matrices.entry(name.to_string()).or_default().add(inputs, width, None, self.block);
    }

    fn expert(&self, layer: LayerId, expert: ExpertId, inputs: &ExpertInputs) {
        let mut sums = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = sums.experts.entry(layer.0).or_default();
        layer.resize(self.experts, ExpertMoments::default());
        let Some(sums) = layer.get_mut(expert.0) else { return };
        let factors: Vec<f32> = inputs.weights.iter().map(|weight| weight * weight).collect();
        let tokens = inputs.weights.len().max(1);
        sums.tokens += inputs.weights.len() as u64;
        sums.mass += inputs.weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        sums.input.add(inputs.input, inputs.input.len() / tokens, Some(&factors), self.block);
        sums.hidden.add(inputs.hidden, inputs.hidden.len() / tokens, Some(&factors), self.block);
    }
}
