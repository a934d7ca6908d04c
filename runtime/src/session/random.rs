//! Platform-independent random numbers: xoshiro256++ 1.0, seeded by splitmix64 (Blackman and Vigna,
//! "Scrambled linear pseudorandom number generators", 2021).

#[derive(Clone, Debug)]
pub(super) struct Xoshiro256([u64; 4]);

impl Xoshiro256 {
    pub fn new(mut seed: u64) -> Self {
        Self([(); 4].map(|()| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns a number in the interval [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_published_code() {
        // xoshiro256++ with the state 1, 2, 3, 4.
        let mut random = Xoshiro256([1, 2, 3, 4]);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [41943041, 58720359, 3588806011781223]
        );
        // splitmix64 from 1234567.
        assert_eq!(Xoshiro256::new(1234567).0[0], 6457827717110365317);
    }
}
