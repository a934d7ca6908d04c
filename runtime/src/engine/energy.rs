//! Energy of each answer: the meter's joules, shared by the tokens that were computed meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::SamplerMaker;
use crate::measure::sampler::MeterSampler;

/// Interval at which energy is shared out; reading some meters runs a program.
const EVERY: Duration = Duration::from_secs(1);

/// Measures while there is work.
pub(super) struct Energy {
    start: SamplerMaker,
    measuring: Option<Measuring>,
}

struct Measuring {
    sampler: MeterSampler,
    shared_at: Instant,
    shared: f64,
    /// Joules so far, and tokens since energy was shared out, by sequence.
    shares: BTreeMap<u64, (f64, usize)>,
}

impl Energy {
    pub fn new(start: SamplerMaker) -> Self {
        Self { start, measuring: None }
    }

    /// A sequence takes part from now on.
    pub fn join(&mut self, id: u64) {
        self.share_out();
        let measuring = self.measuring.get_or_insert_with(|| Measuring {
            sampler: (self.start)(),
            shared_at: Instant::now(),
            shared: 0.0,
            shares: BTreeMap::new(),
        });
        measuring.shares.insert(id, (0.0, 0));
    }

    /// `tokens` of a sequence were computed.
    pub fn count(&mut self, id: u64, tokens: usize) {
        let Some(measuring) = &mut self.measuring else { return };
        if let Some((_, counted)) = measuring.shares.get_mut(&id) {
            *counted += tokens;
        }
        if measuring.shared_at.elapsed() >= EVERY {
            self.share_out();
        }
    }

    /// Joules of a sequence until now; `None` without a meter.
    pub fn joules(&mut self, id: u64) -> Option<f64> {
        self.share_out();
        let measuring = self.measuring.as_ref()?;
        measuring.sampler.joules()?;
        Some(measuring.shares.get(&id)?.0)
    }

    /// A sequence ends. Measuring ends with the last one.
    pub fn leave(&mut self, id: u64) {
        let Some(measuring) = &mut self.measuring else { return };
        measuring.shares.remove(&id);
        if measuring.shares.is_empty() {
            self.measuring = None;
        }
    }

    fn share_out(&mut self) {
        let Some(measuring) = &mut self.measuring else { return };
        measuring.shared_at = Instant::now();
        let Some(joules) = measuring.sampler.joules() else { return };
        let tokens: usize = measuring.shares.values().map(|(_, tokens)| tokens).sum();
        if tokens == 0 {
            return; // until there is a token to bear it
        }
        let each = (joules - measuring.shared) / tokens as f64;
        measuring.shared = joules;
        for (joules, tokens) in measuring.shares.values_mut() {
            *joules += each * *tokens as f64;
            *tokens = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::host::Host;
    use crate::measure::meter::{Meter, MeterError, Reading};

    /// Shows what the test sets.
    struct Shown(Arc<Mutex<f64>>);

    impl Meter for Shown {
        fn name(&self) -> &str {
            "shown"
        }

        fn scope(&self) -> &str {
            "the test"
        }

        fn read(&mut self) -> Result<Reading, MeterError> {
            Ok(Reading::Joules(std::mem::take(&mut *self.0.lock().unwrap())))
        }
    }

    #[test]
    fn energy_is_shared_by_tokens_among_those_that_run() {
        let joules = Arc::new(Mutex::new(0.0));
        let shown = joules.clone();
        let mut energy = Energy::new(Arc::new(move || {
            MeterSampler::start(Some(Box::new(Shown(shown.clone()))), Arc::new(Host::live()))
        }));
        let spend = |amount: f64| *joules.lock().unwrap() += amount;
        energy.join(1);
        spend(4.0);
        energy.count(1, 2);
        energy.join(2);
        spend(9.0);
        energy.count(1, 1);
        energy.count(2, 2);
        assert_eq!(energy.joules(1), Some(7.0));
        assert_eq!(energy.joules(2), Some(6.0));
        energy.leave(1);
        spend(1.0);
        energy.count(2, 5);
        assert_eq!(energy.joules(2), Some(7.0));
        energy.leave(2);
        assert!(energy.measuring.is_none(), "nothing reads the meter of an idle engine");
        assert_eq!(energy.joules(2), None);
    }
}
