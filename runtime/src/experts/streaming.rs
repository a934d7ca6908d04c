//! The streaming store: experts read from the file as tokens are routed to them.
//!
//! A visit pins the resident experts, requests the others, and takes them as they become ready:
//! resident ones first, the others in order of arrival, so that computation hides reads. If the
//! experts of a prompt's chunk do not fit, the remaining reads are requested as memory is released:
//! each expert is read once per chunk. A failed read fails only the visits that wait for it.
//!
//! A visit of several sequences needs the union of their experts. Those that only a prompt's slice
//! needs, while others decode, pass through: they are unknown to the policy, and take the place of
//! one another rather than of what the others use.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::counters::Counters;
use super::fetch::{Fetch, Ready};
use super::index::ExpertIndex;
use super::loader::Loader;
use super::options::{BudgetError, OpenStoreError, StreamingOptions};
use super::policies::ExpertKey;
use super::prefetch::{Predicted, Recall};
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::{Expert, ExpertId, GgufWeights, LayerId, WeightsError};
use crate::model::{Arrivals, ExpertStore, Preference, Stats, Visit};

/// Expert store that reads from a file within a memory budget.
pub struct Streaming {
    loader: Arc<Loader>,
    lanes: Vec<JoinHandle<()>>,
    prefer_resident: Option<f32>,
}

impl Streaming {
    /// Opens a store over the experts of `weights`, which are read through `source`.
    pub fn new(
        weights: Arc<GgufWeights>,
        source: Arc<dyn ByteSource>,
        options: &StreamingOptions,
    ) -> Result<Self, OpenStoreError> {
        let loader = Arc::new(Loader::new(weights, source, options)?);
        let spawn = |lane| {
            let loader = loader.clone();
            let name = format!("vaquita-read-{lane}");
            let run = move || loader.queue.serve(|job| loader.work(job));
            std::thread::Builder::new().name(name).spawn(run)
        };
        let (lanes, prefer_resident) = (Vec::new(), options.prefer_resident);
        let mut store = Self { loader: loader.clone(), lanes, prefer_resident };
        for lane in 0..options.lanes.max(1) {
            match spawn(lane) {
                Ok(handle) => store.lanes.push(handle),
                Err(error) if store.lanes.is_empty() => return Err(OpenStoreError::Lanes(error)),
                Err(_) => break, // fewer lanes are slower, not wrong
            }
        }
        Ok(store)
    }

    /// Extents and slot sizes of all experts.
    pub fn index(&self) -> &ExpertIndex {
        &self.loader.index
    }

    /// Gives the policy the popularity of experts, and begins to read the most popular ones into
    /// free memory while no other read waits. `popularity` is, by
    /// [`super::policies::Shape::index`], the fraction of calibration tokens that were routed to
    /// each expert.
    pub fn warm(&self, popularity: &[f32]) {
        let index = &self.loader.index;
        let shape = index.shape;
        let mut popular: Vec<usize> = (0..shape.len().min(popularity.len())).collect();
        popular.retain(|&at| popularity[at] > 0.0);
        popular.sort_by(|&a, &b| popularity[b].total_cmp(&popularity[a]).then(a.cmp(&b)));
        let mut table = self.loader.lock();
        table.policy.prior(popularity);
        let mut left = table.limit().saturating_sub(table.committed());
        let key = |at: usize| ExpertKey {
            layer: LayerId(at / shape.experts),
            expert: ExpertId(at % shape.experts),
        };
        let fits = |key: &ExpertKey| {
            let bytes = index.get(*key).map_or(usize::MAX, |extent| extent.slot_bytes);
            let fits = bytes <= left && !table.is_resident(*key);
            left -= if fits { bytes } else { 0 };
            fits
        };
        let wanted: Vec<ExpertKey> = popular.into_iter().map(key).filter(fits).collect();
        drop(table);
        self.loader.queue.prefetch(wanted.into_iter());
    }

    /// Recall of the predictions, by layer.
    pub fn recall(&self) -> Vec<Recall> {
        self.loader.prefetcher().recall()
    }

    /// Changes the memory for experts, in bytes. Experts that no visit uses are evicted before this
    /// returns, the others by the next layer.
    pub fn set_budget(&self, bytes: usize) -> Result<(), BudgetError> {
        self.loader.check(bytes)?;
        self.loader.lock().set_limit(bytes);
        self.loader.space.notify_all();
        Ok(())
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.loader.queue.stop();
        for lane in self.lanes.drain(..) {
            let _ = lane.join(); // a lane catches what its reads do
        }
    }
}

impl ExpertStore for Streaming {
    fn fetch<'a>(&'a self, visit: &Visit) -> Result<Box<dyn Arrivals + 'a>, WeightsError> {
        let fetch = Fetch::begin(&self.loader, visit)?;
        let first = !fetch.is_ready();
        let computing = None;
        Ok(Box::new(Arriving { loader: &self.loader, fetch, first, batch: Vec::new(), computing }))
    }

    fn wants_prefetch(&self, layer: LayerId) -> bool {
        self.loader.prefetcher().wanted(layer)
    }

    fn prefetch(&self, visit: &Visit) {
        let layer = visit.layer;
        let key = |expert| ExpertKey { layer, expert };
        let mut experts: Vec<Predicted> = Vec::new();
        let table = self.loader.lock();
        for rank in 0..visit.per_token {
            for slot in visit.slots.iter().skip(rank).step_by(visit.per_token) {
                if experts.iter().all(|other| other.expert != slot.expert) {
                    let missing = !table.is_resident(key(slot.expert));
                    experts.push(Predicted { expert: slot.expert, rank, missing });
                }
            }
        }
        drop(table);
        let read = self.loader.prefetcher().predicted(layer, experts);
        self.loader.queue.prefetch(read.into_iter().map(key));
    }

    fn resident(&self, layer: LayerId) -> Option<Vec<bool>> {
        let table = self.loader.lock();
        let here = |expert| {
            let key = ExpertKey { layer, expert: ExpertId(expert) };
            table.is_resident(key) || table.is_loading(key)
        };
        Some((0..self.loader.index.shape.experts).map(here).collect())
    }

    fn preference(&self, layer: LayerId) -> Option<Preference> {
        let margin = self.prefer_resident?;
        Some(Preference { preferred: self.resident(layer)?, margin })
    }

    fn tokens_at_once(&self) -> Option<usize> {
        let limit = self.loader.lock().limit();
        Some((limit / self.loader.index.least_bytes().max(1)).max(1))
    }

    fn stats(&self) -> Option<Stats> {
        let mut stats = Stats { reading: self.loader.queue.busy(), ..Stats::default() };
        self.loader.counters.read(&mut stats);
        let table = self.loader.lock();
        stats.evictions = table.counts.evictions;
        stats.prefetched = table.counts.prefetched;
        stats.prefetched_used = table.counts.prefetched_used;
        stats.prefetched_wasted = table.counts.prefetched_wasted;
        stats.limit_bytes = table.limit() as u64;
        stats.resident_bytes = table.committed() as u64;
        stats.resident = table.residents() as u64;
        Some(stats)
    }
}

/// A visit that is being served: the experts handed out last, and the fetch of the others.
struct Arriving<'a> {
    loader: &'a Loader,
    fetch: Fetch<'a>,
    /// Whether none was resident at first, and nothing was handed out yet.
    first: bool,
    batch: Vec<Ready>,
    /// Time since which the caller computes with the batch.
    computing: Option<Instant>,
}

impl Arriving<'_> {
    /// Takes the batch back from the caller.
    fn release(&mut self) {
        if let Some(since) = self.computing.take() {
            Counters::add_time(&self.loader.counters.computing_ns, since.elapsed());
        }
        self.batch.drain(..).for_each(|(_, loaded)| self.loader.release(loaded));
    }
}

impl Arrivals for Arriving<'_> {
    fn next_ready(&mut self) -> Result<Option<Vec<(ExpertId, &Expert)>>, WeightsError> {
        self.release();
        if !std::mem::take(&mut self.first) {
            let Some(batch) = self.fetch.next()? else { return Ok(None) };
            self.batch = batch;
        }
        self.computing = Some(Instant::now());
        let experts = self.batch.iter().map(|(key, loaded)| (key.expert, &loaded.expert));
        Ok(Some(experts.collect()))
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.release();
    }
}
