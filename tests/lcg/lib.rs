//! Pseudorandom numbers for tests: a linear congruential generator, so that a failing case is reproduced by its seed.
//!
//! It is a crate without dependencies because unit tests of every crate use it.

/// Knuth's MMIX generator. Only the upper half of its state is used; the lower bits have short periods.
#[derive(Clone, Debug)]
pub struct Lcg(pub u64);

impl Lcg {
    /// An integer of 31 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// An integer below `most`, which is not 0.
    pub fn below(&mut self, most: usize) -> usize {
        self.bits() as usize % most
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 7) as f32 / (1 << 24) as f32
    }

    /// A number of mean 0 and variance `n / 12`: the sum of `n` uniform ones, which is nearly normal.
    pub fn normal(&mut self, n: u16) -> f32 {
        (0..n).map(|_| self.unit()).sum::<f32>() - f32::from(n) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_evenly_and_repeat_with_the_seed() {
        let mut random = Lcg(7);
        let numbers: Vec<f32> = (0..4096).map(|_| random.unit()).collect();
        for eighth in 0..8 {
            let from = eighth as f32 / 8.0;
            let found = numbers.iter().filter(|x| (from..from + 0.125).contains(*x)).count();
            assert!((448..576).contains(&found), "{found} of 4,096 in eighth {eighth}");
        }
        let mut again = Lcg(7);
        assert!(numbers.iter().all(|&x| x == again.unit()));
    }
}
