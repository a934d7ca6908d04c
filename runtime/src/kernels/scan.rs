//! Questions to a whole vector, answered without a branch for each number.

/// Whether no number is NaN or infinite.
pub fn all_finite(x: &[f32]) -> bool {
    /// The exponent of infinities and of what is no number.
    const EXPONENT: u32 = 0x7f80_0000;
    let bad = |x: &f32| u32::from(x.to_bits() & EXPONENT == EXPONENT);
    x.iter().fold(0, |found, x| found | bad(x)) == 0
}

/// The largest number, of which none is NaN; minus infinity if there is none.
pub fn largest(x: &[f32]) -> f32 {
    let (lanes, rest) = x.as_chunks::<8>();
    let mut most = [f32::NEG_INFINITY; 8];
    for lane in lanes {
        for (most, x) in most.iter_mut().zip(lane) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vectors_are_as_their_numbers_are(bits in prop::collection::vec(any::<u32>(), 0..70)) {
            let x: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
            prop_assert_eq!(all_finite(&x), x.iter().all(|x| x.is_finite()));
            let numbers: Vec<f32> = x.into_iter().filter(|x| !x.is_nan()).collect();
            let expected = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(largest(&numbers), expected);
        }
    }

    #[test]
    fn one_number_at_any_place_is_seen() {
        for len in 1..40 {
            for at in 0..len {
                let mut x = vec![-1.0; len];
                x[at] = 2.0;
                assert!(all_finite(&x) && largest(&x) == 2.0);
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[at] = bad;
                    assert!(!all_finite(&x), "{bad} at {at} of {len}");
                }
            }
        }
    }
}
