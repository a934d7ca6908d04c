//! Experts read from the file as tokens route to them, within a budget.
//!
//! A visit pins the experts that are in memory, asks for the others, and then takes them as they come: those
//! in memory first, the others in the order in which they arrive, so that reads hide behind arithmetic. Where
//! a prompt's chunk needs more than fit, the rest is asked for as memory is released: each expert is read once
//! per chunk. A read that fails fails the visits that wait for it, and no other.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::fetch::{Fetch, Ready};
use super::guesses::Recall;
use super::loader::Loader;
use super::meters::Meters;
use super::options::{BudgetError, OpenStoreError, StreamingOptions};
use super::placement::Placement;
use super::policies::Key;
use crate::checkpoint::source::Source;
use crate::checkpoint::{ExpertId, GgufWeights, LayerId, WeightsError};
use crate::model::Stats;
use crate::model::{ExpertStore, Preference, Take, Visit};

/// The store.
pub struct Streaming {
    loader: Arc<Loader>,
    lanes: Vec<JoinHandle<()>>,
    prefer_resident: Option<f32>,
}

impl Streaming {
    /// A store over the experts of `weights`, which are read through `source`.
    pub fn new(
        weights: Arc<GgufWeights>,
        source: Arc<dyn Source>,
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

    /// Where experts lie and what they take.
    pub fn placement(&self) -> &Placement {
        &self.loader.placement
    }

    /// Tells the policy which experts are popular, and begins to read the most popular ones into free memory,
    /// while nothing else is to be read. `shares` has, by [`super::policies::Shape::index`], the share of
    /// tokens that were routed to an expert when the model was calibrated.
    pub fn warm(&self, shares: &[f32]) {
        let placement = &self.loader.placement;
        let shape = placement.shape;
        let mut popular: Vec<usize> = (0..shape.len().min(shares.len())).collect();
        popular.retain(|&at| shares[at] > 0.0);
        popular.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]).then(a.cmp(&b)));
        let mut table = self.loader.lock();
        table.policy.prior(shares);
        let mut left = table.limit().saturating_sub(table.committed());
        let key = |at: usize| Key {
            layer: LayerId(at / shape.experts),
            expert: ExpertId(at % shape.experts),
        };
        let fits = |key: &Key| {
            let bytes = placement.get(*key).map_or(usize::MAX, |placed| placed.slot_bytes);
            let fits = bytes <= left && !table.is_resident(*key);
            left -= if fits { bytes } else { 0 };
            fits
        };
        let wanted: Vec<Key> = popular.into_iter().map(key).filter(fits).collect();
        drop(table);
        self.loader.queue.guess(wanted.into_iter());
    }

    /// By layer, how many of the experts needed had been guessed.
    pub fn recall(&self) -> Vec<Recall> {
        self.loader.guesses().recall()
    }

    /// Changes the bytes for experts. What nobody uses is given back before this returns, the rest by the
    /// next layer.
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
    fn for_each(&self, visit: &Visit, take: Take) -> Result<(), WeightsError> {
        let loader = &*self.loader;
        let mut fetch = Fetch::begin(loader, visit)?;
        let mut computing = |batch: &[Ready]| {
            let since = Instant::now();
            let experts = batch.iter().map(|(key, loaded)| (key.expert, &loaded.expert));
            take(&experts.collect::<Vec<_>>());
            Meters::add_time(&loader.meters.computing_ns, since.elapsed());
        };
        if !fetch.is_ready() {
            computing(&[]);
        }
        while let Some(batch) = fetch.next()? {
            computing(&batch);
            batch.into_iter().for_each(|(_, loaded)| loader.release(loaded));
        }
        Ok(())
    }

    fn wants_guess(&self, layer: LayerId) -> bool {
        self.loader.guesses().wanted(layer)
    }

    fn guess(&self, visit: &Visit) {
        let layer = visit.layer;
        let key = |expert| Key { layer, expert };
        let table = self.loader.lock();
        let missing = |expert| !table.is_resident(key(expert));
        let experts = visit.slots.iter().map(|slot| (slot.expert, missing(slot.expert))).collect();
        drop(table);
        let read = self.loader.guesses().made(layer, experts);
        self.loader.queue.guess(read.into_iter().map(key));
    }

    fn resident(&self, layer: LayerId) -> Option<Vec<bool>> {
        let table = self.loader.lock();
        let here = |expert| {
            let key = Key { layer, expert: ExpertId(expert) };
            table.is_resident(key) || table.is_loading(key)
        };
        Some((0..self.loader.placement.shape.experts).map(here).collect())
    }

    fn preference(&self, layer: LayerId) -> Option<Preference> {
        let margin = self.prefer_resident?;
        Some(Preference { preferred: self.resident(layer)?, margin })
    }

    fn stats(&self) -> Option<Stats> {
        let mut stats = Stats { reading: self.loader.queue.busy(), ..Stats::default() };
        self.loader.meters.read(&mut stats);
        let table = self.loader.lock();
        stats.evictions = table.counts.evictions;
        stats.guessed = table.counts.guessed;
        stats.guesses_used = table.counts.guesses_used;
        stats.guesses_wasted = table.counts.guesses_wasted;
        stats.limit_bytes = table.limit() as u64;
        stats.resident_bytes = table.committed() as u64;
        stats.resident = table.residents() as u64;
        Some(stats)
    }
}
