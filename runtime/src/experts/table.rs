//! Which experts are in memory, which are on their way, and who waits for them. No I/O and no waiting here:
//! [`super::streaming`] holds this under a lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::policies::{Key, Policy, victims};
use super::slab::Slab;
use crate::bytes::Pages;
use crate::checkpoint::{Expert, LayerId, WeightsError};

/// An expert in memory. Whoever holds a clone of the `Arc` keeps it there.
pub struct Loaded {
    /// Views of the slot.
    pub expert: Expert,
    /// The slot, taken back when nothing uses it any more.
    pub slot: Arc<Pages>,
}

/// An expert that was waited for, or why it is not there.
pub type Arrival = (Key, Result<Arc<Loaded>, Arc<WeightsError>>);

/// A read that runs or is queued.
#[derive(Default)]
struct Loading {
    waiters: Vec<Sender<Arrival>>,
    guessed: bool,
    /// Its layer has come, and did not need it.
    outdated: bool,
}

/// How a guess that is being read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuessState {
    /// To be read on: somebody waits for it by now, or nobody waits for anything.
    Go,
    /// Somebody waits for something else.
    Wait,
    /// Of no use any more, and forgotten.
    Outdated,
}

struct Resident {
    loaded: Arc<Loaded>,
    /// Read on a guess and not used so far.
    unused_guess: bool,
}

/// How often something happened to experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Experts that gave way to others or to a lower budget.
    pub evictions: u64,
    /// Experts that were read on a guess.
    pub guessed: u64,
    /// Guessed ones that were used the next time that their layer came.
    pub guesses_used: u64,
    /// Guessed ones that were evicted unused.
    pub guesses_wasted: u64,
}

/// What became of a request for a slot.
pub enum Room {
    /// A slot.
    Slot(Pages),
    /// Everything that could give way is in use.
    Full,
}

/// The state of all experts.
pub struct Table {
    /// Decides who gives way.
    pub policy: Box<dyn Policy>,
    /// What happened so far.
    pub counts: Counts,
    slab: Slab,
    resident: HashMap<Key, Resident>,
    loading: HashMap<Key, Loading>,
}

impl Table {
    /// Nothing in memory yet.
    pub fn new(policy: Box<dyn Policy>, limit: usize) -> Self {
        Self {
            policy,
            counts: Counts::default(),
            slab: Slab::new(limit),
            resident: HashMap::new(),
            loading: HashMap::new(),
        }
    }

    /// Bytes that experts may take.
    pub fn limit(&self) -> usize {
        self.slab.limit()
    }

    /// Bytes that experts and slots kept for them take.
    pub fn committed(&self) -> usize {
        self.slab.committed()
    }

    /// Whether an expert is in memory.
    pub fn is_resident(&self, key: Key) -> bool {
        self.resident.contains_key(&key)
    }

    /// Experts in memory.
    pub fn residents(&self) -> usize {
        self.resident.len()
    }

    /// An expert in memory, which stays there while the result lives.
    pub fn get(&mut self, key: Key) -> Option<Arc<Loaded>> {
        let resident = self.resident.get_mut(&key)?;
        if std::mem::take(&mut resident.unused_guess) {
            self.counts.guesses_used += 1;
        }
        Some(resident.loaded.clone())
    }

    /// Waits for an expert that is on its way; `false` where it is not.
    pub fn join(&mut self, key: Key, waiter: &Sender<Arrival>) -> bool {
        let Some(loading) = self.loading.get_mut(&key) else { return false };
        loading.waiters.push(waiter.clone());
        true
    }

    /// Notes that an expert is being read, for a waiter or on a guess.
    pub fn begin(&mut self, key: Key, waiter: Option<Sender<Arrival>>) {
        let guessed = waiter.is_none();
        self.counts.guessed += u64::from(guessed);
        self.loading.insert(
            key,
            Loading { waiters: waiter.into_iter().collect(), guessed, outdated: false },
        );
    }

    /// Gives up guesses that nobody waits for: those about `layer`, whose needs are known by now, or all.
    pub fn give_up_guesses(&mut self, layer: Option<LayerId>) {
        for (key, loading) in &mut self.loading {
            if loading.guessed && layer.is_none_or(|layer| layer == key.layer) {
                loading.outdated = true;
            }
        }
    }

    /// How a guess that is being read stands.
    pub fn guess_state(&mut self, key: Key) -> GuessState {
        let Some(loading) = self.loading.get(&key) else { return GuessState::Outdated };
        if !loading.waiters.is_empty() {
            return GuessState::Go;
        }
        if loading.outdated {
            self.loading.remove(&key);
            self.counts.guesses_wasted += 1;
            return GuessState::Outdated;
        }
        match self.loading.values().any(|other| !other.waiters.is_empty()) {
            true => GuessState::Wait,
            false => GuessState::Go,
        }
    }

    /// Whether an expert is on its way.
    pub fn is_loading(&self, key: Key) -> bool {
        self.loading.contains_key(&key)
    }

    /// A slot of `len` bytes for an expert that `now` needs, evicting what is worth least.
    pub fn make_room(&mut self, len: usize, now: LayerId) -> std::io::Result<Room> {
        self.room(len, now, |_| true)
    }

    /// A slot for a guess about layer `next`: only free memory, and that of experts whose layers the token at
    /// hand has behind it.
    pub fn make_room_for_guess(&mut self, len: usize, next: LayerId) -> std::io::Result<Room> {
        self.room(len, LayerId(next.0.saturating_sub(1)), |key| key.layer < next)
    }

    fn room(
        &mut self,
        len: usize,
        now: LayerId,
        may_go: impl Fn(Key) -> bool,
    ) -> std::io::Result<Room> {
        let missing = self.slab.missing(len);
        if missing > 0 && !self.evict(missing, now, may_go) {
            return Ok(Room::Full);
        }
        Ok(self.slab.take(len)?.map_or(Room::Full, Room::Slot))
    }

    /// Gives back at least `bytes` of experts that nobody uses; nothing where there are not so many.
    fn evict(&mut self, bytes: usize, now: LayerId, may_go: impl Fn(Key) -> bool) -> bool {
        // Counts are read under the lock that new clones of a resident are made under.
        let idle = |resident: &Resident| Arc::strong_count(&resident.loaded) == 1;
        let candidates = self.resident.iter().filter(|(key, r)| idle(r) && may_go(**key));
        let candidates = candidates.map(|(key, r)| (*key, r.loaded.slot.len() as u64));
        let Some(victims) = victims(&*self.policy, now, candidates, bytes as u64) else {
            return false;
        };
        for key in victims {
            if let Some(resident) = self.resident.remove(&key) {
                self.counts.evictions += 1;
                self.counts.guesses_wasted += u64::from(resident.unused_guess);
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

    /// Takes a slot back once nothing views it.
    pub fn take_back(&mut self, slot: Arc<Pages>) {
        let len = slot.len();
        match Arc::into_inner(slot) {
            Some(slot) => self.slab.give(slot),
            // Whoever used the expert keeps a view of its own, and with it the memory.
            None => self.slab.lose(len),
        }
    }

    /// Puts an expert that was read where it belongs, and gives a clone for each who waited for it.
    pub fn arrived(
        &mut self,
        key: Key,
        loaded: Arc<Loaded>,
    ) -> Vec<(Sender<Arrival>, Arc<Loaded>)> {
        let loading = self.loading.remove(&key).unwrap_or_default();
        let used = !loading.waiters.is_empty();
        self.counts.guesses_used += u64::from(loading.guessed && used);
        let unused_guess = loading.guessed && !used;
        let clones = loading.waiters.into_iter().map(|waiter| (waiter, loaded.clone())).collect();
        self.resident.insert(key, Resident { loaded, unused_guess });
        self.keep_within_limit(key.layer);
        clones
    }

    /// Notes that an expert could not be read and says who waited for it.
    pub fn failed(&mut self, key: Key) -> Vec<Sender<Arrival>> {
        self.loading.remove(&key).unwrap_or_default().waiters
    }

    /// Lets go of a clone.
    pub fn release(&mut self, loaded: Arc<Loaded>) {
        drop(loaded);
        self.keep_within_limit(LayerId(0));
    }

    /// Changes the limit; what nobody uses goes at once, the rest when it is released.
    pub fn set_limit(&mut self, limit: usize) {
        self.slab.set_limit(limit);
        self.keep_within_limit(LayerId(0));
    }

    /// Evicts what is above the limit, as far as it is not in use.
    fn keep_within_limit(&mut self, now: LayerId) {
        let excess = self.slab.committed().saturating_sub(self.slab.limit());
        if excess > 0 {
            let idle = self.resident.values().filter(|r| Arc::strong_count(&r.loaded) == 1);
            let idle: usize = idle.map(|r| r.loaded.slot.len()).sum();
            self.evict(excess.min(idle), now, |_| true);
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

    fn key(layer: usize, expert: usize) -> Key {
        Key { layer: LayerId(layer), expert: ExpertId(expert) }
    }

    /// Room for `slots` experts of a model of 4 layers with 4 experts.
    fn table(slots: usize) -> Table {
        let shape = Shape { layers: 4, experts: 4, per_token: 1 };
        Table::new(PolicyKind::Lru.build(shape), slots * SLOT)
    }

    fn visit(table: &mut Table, key: Key) {
        table.policy.visit(key.layer, &[key.expert]);
    }

    fn load(table: &mut Table, key: Key, slot: Pages) {
        let matrix = Matrix::from_f32(1, 1, &[0.0]).unwrap();
        let expert = Expert { gate: matrix.clone(), up: matrix.clone(), down: matrix };
        table.arrived(key, Arc::new(Loaded { expert, slot: Arc::new(slot) }));
    }

    /// Brings an expert in, as a visit does; `false` where there is no room.
    fn demand(table: &mut Table, wanted: Key) -> bool {
        visit(table, wanted);
        match table.make_room(SLOT, wanted.layer).unwrap() {
            Room::Full => false,
            Room::Slot(slot) => {
                table.begin(wanted, Some(std::sync::mpsc::channel().0));
                load(table, wanted, slot);
                true
            }
        }
    }

    fn guess(table: &mut Table, wanted: Key) -> bool {
        match table.make_room_for_guess(SLOT, wanted.layer).unwrap() {
            Room::Full => false,
            Room::Slot(slot) => {
                table.begin(wanted, None);
                load(table, wanted, slot);
                true
            }
        }
    }

    #[test]
    fn eviction_never_touches_an_expert_in_use() {
        let mut table = table(2);
        assert!(demand(&mut table, key(0, 0)) && demand(&mut table, key(0, 1)));
        let pins: Vec<_> = (0..2).map(|e| table.get(key(0, e)).unwrap()).collect();
        assert!(!demand(&mut table, key(0, 2)));
        table.set_limit(0);
        assert!(table.is_resident(key(0, 0)) && table.is_resident(key(0, 1)));
        pins.into_iter().for_each(|pin| table.release(pin));
        assert_eq!((table.residents(), table.committed()), (0, 0));
    }

    #[test]
    fn a_guess_takes_the_place_of_layers_that_are_done_and_of_no_other() {
        let mut table = table(3);
        for layer in [1, 2, 3] {
            assert!(demand(&mut table, key(layer, 0)));
        }
        // The token is in layer 1. Layers 2 and 3 come next; LRU would evict layer 1's first anyway.
        let pin = table.get(key(1, 0)).unwrap();
        assert!(!guess(&mut table, key(2, 1)), "layer 1 is in use, 2 and 3 are to come");
        table.release(pin);
        assert!(guess(&mut table, key(2, 1)));
        assert!(!table.is_resident(key(1, 0)));
        assert!(table.is_resident(key(2, 0)) && table.is_resident(key(3, 0)));
    }

    #[test]
    fn guesses_are_counted_by_what_became_of_them() {
        let mut table = table(2);
        assert!(guess(&mut table, key(1, 0)) && guess(&mut table, key(1, 1)));
        assert!(table.get(key(1, 0)).is_some() && table.get(key(1, 0)).is_some());
        for _ in 0..2 {
            visit(&mut table, key(1, 0));
        }
        assert!(demand(&mut table, key(2, 0)));
        let counts = table.counts;
        assert_eq!((counts.guessed, counts.guesses_used, counts.guesses_wasted), (2, 1, 1));
        assert_eq!(counts.evictions, 1);
    }

    #[test]
    fn everyone_who_waits_is_told_and_a_failure_leaves_room_for_the_next() {
        let mut table = table(1);
        let Room::Slot(slot) = table.make_room(SLOT, LayerId(0)).unwrap() else { panic!("room") };
        let (sender, receiver) = std::sync::mpsc::channel();
        table.begin(key(0, 0), Some(sender.clone()));
        assert!(table.join(key(0, 0), &sender) && !table.join(key(0, 1), &sender));
        assert!(matches!(table.make_room(SLOT, LayerId(0)).unwrap(), Room::Full));
        assert_eq!(table.failed(key(0, 0)).len(), 2);
        table.take_back(Arc::new(slot));
        assert!(!table.is_loading(key(0, 0)) && receiver.try_recv().is_err());
        assert!(demand(&mut table, key(0, 1)));
    }
}
