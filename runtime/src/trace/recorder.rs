//! Records a model's routing in the format of [`crate::trace`], on top of any store.
//! One sequence at a time: the visits of several would be interleaved.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::{COLUMNS, FIRST_LINE};
use crate::checkpoint::{Config, ExpertId, LayerId, WeightsError};
use crate::experts::ExpertIndex;
use crate::experts::policies::ExpertKey;
use crate::model::{Arrivals, ExpertStore, Preference, Stats, Visit};

/// A store that forwards to another one and records the visits.
pub struct Recorder {
    store: Arc<dyn ExpertStore>,
    index: ExpertIndex,
    first_layer: LayerId,
    log: Mutex<Log>,
}

struct Log {
    out: Box<dyn Write + Send>,
    /// Index of the conversation turn; each prompt after the first increases it.
    turn: u64,
    /// Index of the first token of the current visits.
    step: u64,
    /// Number of tokens in the current visits.
    tokens: u64,
    generating: bool,
    /// The first write error; nothing is written after it.
    failure: Option<io::Error>,
}

impl Recorder {
    /// Records the visits of `store` to a new file. `name` is the model's name in the trace.
    pub fn create(
        path: &Path,
        name: &str,
        config: &Config,
        index: ExpertIndex,
        store: Arc<dyn ExpertStore>,
    ) -> io::Result<Self> {
        let out = BufWriter::new(File::create(path)?);
        Self::new(Box::new(out), name, config, index, store)
    }

    /// Records to `out`.
    pub fn new(
        mut out: Box<dyn Write + Send>,
        name: &str,
        config: &Config,
        index: ExpertIndex,
        store: Arc<dyn ExpertStore>,
    ) -> io::Result<Self> {
        header(&mut out, name, config, &index)?;
        let first_layer = LayerId(config.moe.first_k_dense_replace);
        let (turn, step, tokens, generating, failure) = (0, 0, 0, false, None);
        let log = Log { out, turn, step, tokens, generating, failure };
        Ok(Self { store, index, first_layer, log: Mutex::new(log) })
    }

    /// Flushes the trace and returns the first write error, if any.
    pub fn finish(&self) -> io::Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match log.failure.take() {
            Some(failure) => Err(failure),
            None => log.out.flush(),
        }
    }

    fn record(&self, visit: &Visit) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if visit.layer == self.first_layer {
            let generates = visit.decodes();
            log.turn += u64::from(log.generating && !generates);
            log.step += log.tokens;
            log.tokens = visit.tokens() as u64;
            log.generating = generates;
        }
        if log.failure.is_none()
            && let Err(failure) = self.rows(&mut log, visit)
        {
            log.failure = Some(failure);
        }
    }

    fn rows(&self, log: &mut Log, visit: &Visit) -> io::Result<()> {
        let layer = visit.layer;
        let mut resident = self.store.resident(layer);
        for (i, slot) in visit.slots.iter().enumerate() {
            let (token, place) = (i / visit.per_token.max(1), i % visit.per_token.max(1));
            let here = match &mut resident {
                None => true,
                // The first token that needs an expert reads it; for the others it is resident.
                Some(resident) => resident
                    .get_mut(slot.expert.0)
                    .is_none_or(|resident| std::mem::replace(resident, true)),
            };
            let extent = self.index.get(ExpertKey { layer, expert: slot.expert });
            let bytes = extent.filter(|_| !here).map_or(0, |extent| extent.slot_bytes);
            writeln!(
                log.out,
                "{},{},{},{},{place},{},{},{},{bytes}",
                log.turn,
                u8::from(log.generating),
                log.step + token as u64,
                layer.0,
                slot.expert.0,
                slot.weight,
                u8::from(here),
            )?;
        }
        Ok(())
    }
}

fn header(out: &mut dyn Write, name: &str, config: &Config, index: &ExpertIndex) -> io::Result<()> {
    let shape = index.shape;
    // Line breaks and blanks in a name would break the format.
    let name: String = name.split_whitespace().collect::<Vec<_>>().join("_");
    writeln!(out, "{FIRST_LINE}")?;
    writeln!(
        out,
        "# model={name} arch={} n_layer={} n_expert={} n_expert_used={}",
        config.family.architecture(),
        shape.layers,
        shape.experts,
        shape.per_token,
    )?;
    for layer in 0..shape.layers {
        let bytes = |expert| {
            let key = ExpertKey { layer: LayerId(layer), expert: ExpertId(expert) };
            index.get(key).map(|extent| extent.slot_bytes)
        };
        let sizes: Vec<usize> = (0..shape.experts).filter_map(bytes).collect();
        match sizes.as_slice() {
            [] => {}
            [first, rest @ ..] if rest.iter().all(|size| size == first) => {
                writeln!(out, "# layer={layer} expert_bytes={first}")?;
            }
            sizes => {
                let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                writeln!(out, "# sizes layer={layer} {}", sizes.join(" "))?;
            }
        }
    }
    writeln!(out, "{COLUMNS}")
}

impl ExpertStore for Recorder {
    fn fetch<'a>(&'a self, visit: &Visit) -> Result<Box<dyn Arrivals + 'a>, WeightsError> {
        self.record(visit);
        self.store.fetch(visit)
    }

    fn check(&self) -> Result<(), WeightsError> {
        self.store.check()
    }

    fn wants_prefetch(&self, layer: LayerId) -> bool {
        self.store.wants_prefetch(layer)
    }

    fn prefetch(&self, visit: &Visit) {
        self.store.prefetch(visit);
    }

    fn resident(&self, layer: LayerId) -> Option<Vec<bool>> {
        self.store.resident(layer)
    }

    fn preference(&self, layer: LayerId) -> Option<Preference> {
        self.store.preference(layer)
    }

    fn tokens_at_once(&self) -> Option<usize> {
        self.store.tokens_at_once()
    }

    fn stats(&self) -> Option<Stats> {
        self.store.stats()
    }
}
