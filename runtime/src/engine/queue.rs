//! Requests that wait: in which order they begin, and whether there is room for the next one.

use super::request::Priority;

/// A request with what its turn depends on.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub client: String,
    pub priority: Priority,
    /// Positions of cache that it may need.
    pub tokens: usize,
    /// Bytes of cache for as many positions.
    pub bytes: u64,
    pub item: T,
}

/// A running request, as far as admission depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    pub client: String,
    pub priority: Priority,
    pub tokens: usize,
    pub bytes: u64,
}

/// Bounds on what runs and waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Sequences of one priority and higher ones that run.
    pub slots: usize,
    /// Positions of cache for all that run.
    pub cache_tokens: usize,
    /// Bytes of cache for all that run.
    pub cache_bytes: u64,
    /// Requests that wait.
    pub queue: usize,
    /// Requests of one client that wait.
    pub share: usize,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    Share,
}

/// Waiting requests, by arrival.
#[derive(Debug)]
pub(super) struct Queue<T> {
    bounds: Bounds,
    waiting: Vec<Waiting<T>>,
}

impl<T> Queue<T> {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.waiting.iter()
    }

    /// The request at an index of [`Queue::order`].
    pub fn item(&mut self, at: usize) -> &mut T {
        &mut self.waiting[at].item
    }

    /// Whether one more request of a client may wait. Requests that will take a free slot do not
    /// count.
    pub fn check(&self, client: &str, runs: &[Runs]) -> Result<(), NoPlace> {
        let free = self.bounds.slots.saturating_sub(runs.len());
        let own = self.waiting.iter().filter(|waiting| waiting.client == client).count();
        match () {
            () if self.waiting.len() >= self.bounds.queue + free => Err(NoPlace::Full),
            () if own >= self.bounds.share + free => Err(NoPlace::Share),
            () => Ok(()),
        }
    }

    pub fn push(&mut self, waiting: Waiting<T>) {
        self.waiting.push(waiting);
    }

    /// Removes the requests for which `ended` holds.
    pub fn remove(&mut self, ended: impl Fn(&T) -> bool) -> Vec<Waiting<T>> {
        self.waiting.extract_if(.., |waiting| ended(&waiting.item)).collect()
    }

    /// Indices of the waiting requests in the order in which they begin: by priority, then in turns
    /// of clients, of which those with fewer running requests go first, then by arrival.
    pub fn order(&self, runs: &[Runs]) -> Vec<usize> {
        let turn = |at: usize| {
            let client = &self.waiting[at].client;
            let running = runs.iter().filter(|runs| runs.client == *client).count();
            let before = self.waiting[..at].iter().filter(|waiting| {
                waiting.client == *client && waiting.priority <= self.waiting[at].priority
            });
            (self.waiting[at].priority, running + before.count(), at)
        };
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        order.sort_by_cached_key(|at| turn(*at));
        order
    }

    /// Removes the request whose turn it is, if there is room for it. A large one is not overtaken
    /// by smaller ones, which could keep it waiting forever.
    pub fn next(&mut self, runs: &[Runs]) -> Option<Waiting<T>> {
        let first = *self.order(runs).first()?;
        let waiting = &self.waiting[first];
        let tokens: usize = runs.iter().map(|runs| runs.tokens).sum();
        let slots = runs.iter().filter(|runs| runs.priority <= waiting.priority).count();
        let bytes: u64 = runs.iter().map(|runs| runs.bytes).sum();
        // A plan holds at least one sequence, so that bytes never keep a single one waiting.
        let fits = slots < self.bounds.slots
            && tokens + waiting.tokens <= self.bounds.cache_tokens
            && (runs.is_empty() || bytes + waiting.bytes <= self.bounds.cache_bytes);
        fits.then(|| self.waiting.remove(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(bounds: Bounds, requests: &[(&str, Priority, usize)]) -> Queue<usize> {
        let mut queue = Queue::new(bounds);
        for (item, (client, priority, tokens)) in requests.iter().enumerate() {
            let (client, priority, tokens) = (client.to_string(), *priority, *tokens);
            queue.push(Waiting { client, priority, tokens, bytes: 2 * tokens as u64, item });
        }
        queue
    }

    fn runs(client: &str, priority: Priority, tokens: usize) -> Runs {
        Runs { client: client.into(), priority, tokens, bytes: 2 * tokens as u64 }
    }

    const BOUNDS: Bounds =
        Bounds { slots: 2, cache_tokens: 100, cache_bytes: u64::MAX, queue: 5, share: 3 };
    use Priority::{Background, Foreground, Normal};

    #[test]
    fn clients_take_turns_and_priorities_go_first() {
        let waiting = [
            ("a", Normal, 1),
            ("a", Normal, 1),
            ("a", Normal, 1),
            ("b", Normal, 1),
            ("c", Background, 1),
            ("b", Normal, 1),
            ("b", Foreground, 1),
        ];
        let queue = queue(BOUNDS, &waiting);
        // The foreground one of `b` came last and does not count against those before it.
        assert_eq!(queue.order(&[]), [6, 0, 3, 1, 5, 2, 4]);
        let running = [runs("a", Normal, 1), runs("a", Normal, 1)];
        assert_eq!(queue.order(&running), [6, 3, 5, 0, 1, 2, 4]);
    }

    #[test]
    fn a_request_begins_if_there_is_a_slot_and_room_in_the_cache() {
        let mut waiting = queue(BOUNDS, &[("a", Normal, 60), ("b", Normal, 10)]);
        assert!(waiting.next(&[runs("c", Normal, 50)]).is_none(), "60 of 50 positions");
        assert_eq!(waiting.len(), 2, "the small one does not overtake the large one");
        assert_eq!(waiting.next(&[runs("c", Normal, 40)]).unwrap().item, 0);
        let both = [runs("c", Normal, 1), runs("a", Normal, 1)];
        assert!(waiting.next(&both).is_none(), "no slot");
        assert_eq!(waiting.next(&both[..1]).unwrap().item, 1);

        let bounds = Bounds { cache_bytes: 150, ..BOUNDS };
        let mut waiting = queue(bounds, &[("a", Normal, 60)]);
        assert!(waiting.next(&[runs("c", Normal, 20)]).is_none(), "120 of 110 bytes");
        assert!(waiting.next(&[runs("c", Normal, 15)]).is_some());
    }

    #[test]
    fn lower_priorities_take_no_slot_from_higher_ones() {
        let running = [runs("a", Background, 1), runs("a", Background, 1)];
        let next = |priority| queue(BOUNDS, &[("b", priority, 1)]).next(&running).is_some();
        assert!(next(Foreground) && next(Normal));
        assert!(!next(Background));
    }

    #[test]
    fn the_queue_and_each_share_of_it_are_bounded() {
        let mut waiting = queue(BOUNDS, &[("a", Normal, 1); 3]);
        let running = [runs("a", Normal, 1), runs("a", Normal, 1)];
        assert_eq!(waiting.check("a", &running), Err(NoPlace::Share));
        assert_eq!(waiting.check("a", &running[..1]), Ok(()), "one of three begins at once");
        assert_eq!(waiting.check("b", &running), Ok(()));
        for client in ["b", "c"] {
            let (client, priority) = (client.into(), Normal);
            waiting.push(Waiting { client, priority, tokens: 1, bytes: 2, item: 9 });
        }
        assert_eq!(waiting.check("b", &running), Err(NoPlace::Full));
        assert_eq!(waiting.remove(|item| *item == 9).len(), 2);
        assert_eq!(waiting.check("b", &running), Ok(()));
    }
}
