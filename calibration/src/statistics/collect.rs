//! Runs a model over texts and adds up what its matrices see.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use vaquita_runtime::model::observer::{ExpertInputs, Observer};
use vaquita_runtime::model::{ExpertId, LayerId};

use super::{ExpertMoments, Statistics};
use crate::{EvalError, OnProgress, Subject};

/// Documents are dealt to this many sums, each added up in order: the result is the same to the last bit
/// whatever the number of threads.
const SUMS: usize = 4;

/// What the model's matrices see over texts, each after the begin-of-sentence token.
pub fn collect(
    subject: &Subject,
    texts: &[String],
    on_progress: OnProgress,
) -> Result<Statistics, EvalError> {
    let documents = subject.tokenize(texts)?;
    let done = AtomicUsize::new(0);
    let sums: Vec<Statistics> = (0..SUMS)
        .into_par_iter()
        .map(|first| {
            let sums = Arc::new(Sums::new(subject.model.config().moe.n_routed_experts));
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
    statistics: Mutex<Statistics>,
}

impl Sums {
    fn new(experts: usize) -> Self {
        Self { experts, statistics: Mutex::default() }
    }
}

impl Observer for Sums {
    fn matrix(&self, name: &str, width: usize, inputs: &[f32]) {
        let mut sums = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        sums.matrices.entry(name.to_string()).or_default().add(inputs, width, None);
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
        sums.input.add(inputs.input, inputs.input.len() / tokens, Some(&factors));
        sums.hidden.add(inputs.hidden, inputs.hidden.len() / tokens, Some(&factors));
    }
}
