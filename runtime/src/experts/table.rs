//! Which experts are resident, which are being read, and which visits wait for them. No I/O and no
//! waiting here: the store holds the table under a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::policies::{ExpertKey, Policy, victims};
use super::slab::Slab;
use crate::bytes::Pages;
use crate::checkpoint::{Expert, LayerId, WeightsError};

/// A resident expert. Holding a clone of the `Arc` pins it.
pub struct Loaded {
    /// Views of the slot.
    pub expert: Expert,
    /// The slot, returned to the slab once no view is left.
    pub slot: Arc<Pages>,
}

/// A requested expert, or the error of reading it.
pub type Arrival = (ExpertKey, Result<Arc<Loaded>, Arc<WeightsError>>);

/// A read that runs or is queued.
#[derive(Default)]
struct Loading {
    /// Bytes of the slot.
    bytes: usize,
    waiters: Vec<Sender<Arrival>>,
    /// Whether only tokens that pass through need it.
    passing: bool,
    prefetched: bool,
    /// Whether its layer has been visited without needing it.
    outdated: bool,
}

/// State of a prefetch whose read has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchState {
    /// Continue: a visit waits for this expert, or no visit waits for any.
    Go,
    /// Suspend: a visit waits for another expert.
    Wait,
    /// Outdated: the layer has been visited. The entry is removed.
    Outdated,
}

struct Resident {
    loaded: Arc<Loaded>,
    /// Whether it was prefetched and not used so far.
    unused_prefetch: bool,
    /// Whether only tokens that pass through have needed it.
    passing: bool,
}

impl Resident {
    /// Whether no visit uses it. Counts are read under the lock under which they are cloned.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.loaded) == 1
    }
}

/// Who needs an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Tokens whose sequence will be back.
    Lasting,
    /// Only tokens of a prompt that passes through while other sequences decode.
    Passing,
}

/// Counts of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Experts evicted for others or by a lower budget.
    pub evictions: u64,
    /// Experts that were prefetched.
    pub prefetched: u64,
    /// Prefetched experts that were used at the next visit of their layer.
    pub prefetched_used: u64,
    /// Prefetched experts that were evicted unused.
    pub prefetched_wasted: u64,
}

/// Result of a request for a slot.
pub enum Room {
    /// A slot.
    Slot(Pages),
    /// No slot: all memory is pinned.
    Full,
}

/// State of all experts.
pub struct Table {
    /// Selects the experts to evict.
    pub policy: Box<dyn Policy>,
    /// Counts since the store was opened.
    pub counts: Counts,
    slab: Slab,
    /// Bytes that passing tokens may take from what other tokens use; at least one expert's.
    passing_bytes: usize,
    resident: HashMap<ExpertKey, Resident>,
    loading: HashMap<ExpertKey, Loading>,
}

impl Table {
    /// A table without resident experts. Tokens that pass through may take `passing_bytes`, at
    /// least the largest expert's, from what other tokens use.
    pub fn new(policy: Box<dyn Policy>, limit: usize, passing_bytes: usize) -> Self {
        Self {
            policy,
            counts: Counts::default(),
            slab: Slab::new(limit),
            passing_bytes,
            resident: HashMap::new(),
            loading: HashMap::new(),
        }
    }

    /// Limit on the bytes of experts.
    pub fn limit(&self) -> usize {
        self.slab.limit()
    }

    /// Bytes of resident experts and of slots kept for reuse.
    pub fn committed(&self) -> usize {
        self.slab.committed()
    }

    /// Whether an expert is resident.
    pub fn is_resident(&self, key: ExpertKey) -> bool {
        self.resident.contains_key(&key)
    }

    /// Number of resident experts.
    pub fn residents(&self) -> usize {
        self.resident.len()
    }

    /// Pins a resident expert for as long as the result lives.
    pub fn get(&mut self, key: ExpertKey, need: Need) -> Option<Arc<Loaded>> {
        let resident = self.resident.get_mut(&key)?;
        resident.passing &= need == Need::Passing;
        if std::mem::take(&mut resident.unused_prefetch) {
            self.counts.prefetched_used += 1;
        }
        Some(resident.loaded.clone())
    }

    /// Adds a waiter to an expert that is being read; `false` if it is not being read.
    pub fn join(&mut self, key: ExpertKey, need: Need, waiter: &Sender<Arrival>) -> bool {
        let Some(loading) = self.loading.get_mut(&key) else { return false };
        loading.passing &= need == Need::Passing;
        loading.waiters.push(waiter.clone());
        true
    }

    /// Records that an expert is being read into a slot of `bytes`, for a waiter or as a prefetch.
    pub fn begin(
        &mut self,
        key: ExpertKey,
        bytes: usize,
        need: Need,
        waiter: Option<Sender<Arrival>>,
    ) {
        let (prefetched, passing) = (waiter.is_none(), need == Need::Passing);
        self.counts.prefetched += u64::from(prefetched);
        let waiters = waiter.into_iter().collect();
        let loading = Loading { bytes, waiters, passing, prefetched, outdated: false };
        self.loading.insert(key, loading);
    }

    /// Marks prefetches without waiters as outdated: those for `layer`, whose needs are now known,
    /// or all.
    pub fn drop_prefetches(&mut self, layer: Option<LayerId>) {
        for (key, loading) in &mut self.loading {
            if loading.prefetched && layer.is_none_or(|layer| layer == key.layer) {
                loading.outdated = true;
            }
        }
    }

    /// State of a prefetch whose read has begun.
    pub fn prefetch_state(&mut self, key: ExpertKey) -> PrefetchState {
        let Some(loading) = self.loading.get(&key) else { return PrefetchState::Outdated };
        if !loading.waiters.is_empty() {
            return PrefetchState::Go;
        }
        if loading.outdated {
            self.loading.remove(&key);
            self.counts.prefetched_wasted += 1;
            return PrefetchState::Outdated;
        }
        match self.loading.values().any(|other| !other.waiters.is_empty()) {
            true => PrefetchState::Wait,
            false => PrefetchState::Go,
        }
    }

    /// Whether an expert is being read.
    pub fn is_loading(&self, key: ExpertKey) -> bool {
        self.loading.contains_key(&key)
    }

    /// Takes a slot of `len` bytes for an expert that layer `now` needs, evicting the least
    /// valuable ones. One that only passing tokens need takes the place of another such expert, and
    /// of experts that other tokens use only while passing tokens have little memory in use.
    pub fn make_room(&mut self, len: usize, now: LayerId, need: Need) -> std::io::Result<Room> {
        if need == Need::Passing {
            let room = self.room(len, now, |_, resident| resident.passing)?;
            if matches!(room, Room::Slot(_)) || self.passing_in_use() + len > self.passing_bytes {
                return Ok(room);
            }
        }
        self.room(len, now, |_, _| true)
    }

    /// Bytes of experts that only passing tokens need, and that are being read or computed.
    fn passing_in_use(&self) -> usize {
        let used =
            self.resident.values().filter(|resident| resident.passing && !resident.is_idle());
        let read = self.loading.values().filter(|loading| loading.passing);
        let used: usize = used.map(|resident| resident.loaded.slot.len()).sum();
        used + read.map(|loading| loading.bytes).sum::<usize>()
    }

    /// Takes a slot for a prefetch for layer `next`, from free memory or from experts of layers
    /// that the current token has already passed.
    pub fn make_room_for_prefetch(&mut self, len: usize, next: LayerId) -> std::io::Result<Room> {
        self.room(len, LayerId(next.0.saturating_sub(1)), |key, _| key.layer < next)
    }

    fn room(
        &mut self,
        len: usize,
        now: LayerId,
        may_go: impl Fn(ExpertKey, &Resident) -> bool,
    ) -> std::io::Result<Room> {
        let missing = self.slab.missing(len);
        if missing > 0 && !self.evict(missing, now, may_go) {
            return Ok(Room::Full);
        }
        Ok(self.slab.take(len)?.map_or(Room::Full, Room::Slot))
    }

    /// Evicts unpinned experts of at least `bytes` in total; evicts none if there are too few.
    fn evict(
        &mut self,
        bytes: usize,
        now: LayerId,
        may_go: impl Fn(ExpertKey, &Resident) -> bool,
    ) -> bool {
        let candidates = self.resident.iter().filter(|(key, r)| r.is_idle() && may_go(**key, r));
        let candidates = candidates.map(|(key, r)| (*key, r.loaded.slot.len() as u64));
        let Some(victims) = victims(&*self.policy, now, candidates, bytes as u64) else {
            return false;
        };
        for key in victims {
            if let Some(resident) = self.resident.remove(&key) {
                #[cfg(feature = "tracing")]
                tracing::trace!(?key, layer = now.0, "expert evicted");
                self.counts.evictions += 1;
                self.counts.prefetched_wasted += u64::from(resident.unused_prefetch);
                self.recycle(resident.loaded);
            }
        }
        true
    }

    fn recycle(&mut self, loaded: Arc<Loaded>) {
        if let Some(Loaded { expert, slot }) = Arc::into_inner(loaded) {
            drop(expert); // its matrices are views of the slot
            self.take_back(slot);
        }
    }

    /// Returns a slot to the slab once no view of it is left.
    pub fn take_back(&mut self, slot: Arc<Pages>) {
        let len = slot.len();
        match Arc::into_inner(slot) {
            Some(slot) => self.slab.give(slot),
            // The user of the expert still holds a view, and with it the memory.
            None => self.slab.lose(len),
        }
    }

    /// Makes an expert that was read resident, and returns a clone for each waiter.
    pub fn arrived(
        &mut self,
        key: ExpertKey,
        loaded: Arc<Loaded>,
    ) -> Vec<(Sender<Arrival>, Arc<Loaded>)> {
        let loading = self.loading.remove(&key).unwrap_or_default();
        let used = !loading.waiters.is_empty();
        self.counts.prefetched_used += u64::from(loading.prefetched && used);
        let unused_prefetch = loading.prefetched && !used;
        let clones = loading.waiters.into_iter().map(|waiter| (waiter, loaded.clone())).collect();
        let passing = loading.passing;
        self.resident.insert(key, Resident { loaded, unused_prefetch, passing });
        self.keep_within_limit(key.layer);
        clones
    }

    /// Removes a failed read and returns its waiters.
    pub fn failed(&mut self, key: ExpertKey) -> Vec<Sender<Arrival>> {
        self.loading.remove(&key).unwrap_or_default().waiters
    }

    /// Releases a pinned expert.
    pub fn release(&mut self, loaded: Arc<Loaded>) {
        drop(loaded);
        self.keep_within_limit(LayerId(0));
    }

    /// Changes the limit; unpinned experts above it are evicted at once, the others when released.
    pub fn set_limit(&mut self, limit: usize) {
        self.slab.set_limit(limit);
        self.keep_within_limit(LayerId(0));
    }

    /// Evicts unpinned experts until the limit is met.
    fn keep_within_limit(&mut self, now: LayerId) {
        let excess = self.slab.committed().saturating_sub(self.slab.limit());
        if excess > 0 {
            let idle = self.resident.values().filter(|resident| resident.is_idle());
            let idle: usize = idle.map(|r| r.loaded.slot.len()).sum();
            self.evict(excess.min(idle), now, |_, _| true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Matrix;
    use crate::checkpoint::ExpertId;
    use crate::experts::policies::{PolicyKind, Shape};

    const SLOT: usize = 16 * Pages::SIZE;

    fn key(layer: usize, expert: usize) -> ExpertKey {
        ExpertKey { layer: LayerId(layer), expert: ExpertId(expert) }
    }

    /// A table with room for `slots` experts, of a model with 4 layers of 4 experts.
    fn table(slots: usize) -> Table {
        let shape = Shape { layers: 4, experts: 4, per_token: 1 };
        Table::new(PolicyKind::Lru.build(shape), slots * SLOT, SLOT)
    }

    fn visit(table: &mut Table, key: ExpertKey) {
        table.policy.visit(key.layer, &[key.expert]);
    }

    fn load(table: &mut Table, key: ExpertKey, slot: Pages) {
        let matrix = Matrix::from_f32(1, 1, &[0.0]).unwrap();
        let expert = Expert { gate: matrix.clone(), up: matrix.clone(), down: matrix };
        table.arrived(key, Arc::new(Loaded { expert, slot: Arc::new(slot) }));
    }

    /// Makes an expert resident, as a visit does; `false` if there is no room.
    fn demand(table: &mut Table, wanted: ExpertKey) -> bool {
        visit(table, wanted);
        demand_for(table, wanted, Need::Lasting)
    }

    fn demand_for(table: &mut Table, wanted: ExpertKey, need: Need) -> bool {
        match table.make_room(SLOT, wanted.layer, need).unwrap() {
            Room::Full => false,
            Room::Slot(slot) => {
                table.begin(wanted, SLOT, need, Some(std::sync::mpsc::channel().0));
                load(table, wanted, slot);
                true
            }
        }
    }

    fn prefetch(table: &mut Table, wanted: ExpertKey) -> bool {
        match table.make_room_for_prefetch(SLOT, wanted.layer).unwrap() {
            Room::Full => false,
            Room::Slot(slot) => {
                table.begin(wanted, SLOT, Need::Lasting, None);
                load(table, wanted, slot);
                true
            }
        }
    }

    #[test]
    fn eviction_never_touches_an_expert_in_use() {
        let mut table = table(2);
        assert!(demand(&mut table, key(0, 0)) && demand(&mut table, key(0, 1)));
        let pins: Vec<_> = (0..2).map(|e| table.get(key(0, e), Need::Lasting).unwrap()).collect();
        assert!(!demand(&mut table, key(0, 2)));
        table.set_limit(0);
        assert!(table.is_resident(key(0, 0)) && table.is_resident(key(0, 1)));
        pins.into_iter().for_each(|pin| table.release(pin));
        assert_eq!((table.residents(), table.committed()), (0, 0));
    }

    #[test]
    fn a_prefetch_evicts_only_experts_of_layers_that_are_done() {
        let mut table = table(3);
        for layer in [1, 2, 3] {
            assert!(demand(&mut table, key(layer, 0)));
        }
        // The token is in layer 1. Layers 2 and 3 come next; LRU would evict layer 1's first
        // anyway.
        let pin = table.get(key(1, 0), Need::Lasting).unwrap();
        assert!(!prefetch(&mut table, key(2, 1)), "layer 1 is in use, 2 and 3 are to come");
        table.release(pin);
        assert!(prefetch(&mut table, key(2, 1)));
        assert!(!table.is_resident(key(1, 0)));
        assert!(table.is_resident(key(2, 0)) && table.is_resident(key(3, 0)));
    }

    #[test]
    fn prefetches_are_counted_by_their_outcome() {
        let mut table = table(2);
        assert!(prefetch(&mut table, key(1, 0)) && prefetch(&mut table, key(1, 1)));
        for _ in 0..2 {
            assert!(table.get(key(1, 0), Need::Lasting).is_some());
        }
        for _ in 0..2 {
            visit(&mut table, key(1, 0));
        }
        assert!(demand(&mut table, key(2, 0)));
        let counts = table.counts;
        assert_eq!(
            (counts.prefetched, counts.prefetched_used, counts.prefetched_wasted),
            (2, 1, 1)
        );
        assert_eq!(counts.evictions, 1);
    }

    #[test]
    fn what_passes_through_takes_one_slot_from_what_others_use() {
        let mut table = table(4);
        for expert in 0..4 {
            assert!(demand(&mut table, key(0, expert)));
        }
        for layer in 1..4 {
            for expert in 0..4 {
                assert!(demand_for(&mut table, key(layer, expert), Need::Passing));
            }
        }
        let stayed = (0..4).filter(|expert| table.is_resident(key(0, *expert))).count();
        assert_eq!((stayed, table.residents()), (3, 4));

        // A passing expert in use is the limit, until another token uses it as well.
        let passing = key(3, 3);
        let pin = table.get(passing, Need::Passing).unwrap();
        assert!(!demand_for(&mut table, key(1, 0), Need::Passing));
        let lasting = table.get(passing, Need::Lasting).unwrap();
        assert!(demand_for(&mut table, key(1, 0), Need::Passing));
        drop((pin, lasting));
    }

    #[test]
    fn everyone_who_waits_is_told_and_a_failure_leaves_room_for_the_next() {
        let mut table = table(1);
        let room = |table: &mut Table| table.make_room(SLOT, LayerId(0), Need::Lasting).unwrap();
        let Room::Slot(slot) = room(&mut table) else { panic!("room") };
        let (sender, receiver) = std::sync::mpsc::channel();
        table.begin(key(0, 0), SLOT, Need::Lasting, Some(sender.clone()));
        assert!(table.join(key(0, 0), Need::Lasting, &sender));
        assert!(!table.join(key(0, 1), Need::Lasting, &sender));
        assert!(matches!(room(&mut table), Room::Full));
        assert_eq!(table.failed(key(0, 0)).len(), 2);
        table.take_back(Arc::new(slot));
        assert!(!table.is_loading(key(0, 0)) && receiver.try_recv().is_err());
        assert!(demand(&mut table, key(0, 1)));
    }
}
