//! Probabilities from logits, in double precision.

/// Log-probabilities of a row of logits.
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = logits.iter().map(|x| f64::from(*x) - f64::from(largest)).collect();
    let log_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|x| x - log_sum).collect()
}

/// Index of the first maximum.
pub(crate) fn top(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).reduce(|best, i| if logits[i] > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_known_logits() {
        let logits = [2f32.ln(), 1f32.ln(), 5f32.ln()].map(|x| x + 700.0);
        for (found, expected) in log_softmax(&logits).into_iter().zip([0.25, 0.125, 0.625f64]) {
            assert!((found - expected.ln()).abs() < 1e-4, "{found} {expected}");
        }
        assert_eq!(top(&[1.0, 3.0, 3.0]), Some(1));
    }
}
