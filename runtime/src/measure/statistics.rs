//! Mean and confidence interval.

/// The 97.5% quantile of Student's t for 1 to 30 degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// Mean and sample standard deviation; the deviation of a single value is 0.
pub fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, if samples.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

/// Half-width of the 95% confidence interval of the mean (Student's t); `None` for a single value.
pub fn confidence_95(samples: &[f64]) -> Option<f64> {
    let freedom = samples.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    // Beyond the table, an expansion of the quantile around that of the normal distribution.
    let beyond = || 1.960 + 2.37 / freedom as f64;
    let quantile = STUDENT.get(freedom - 1).copied().unwrap_or_else(beyond);
    Some(quantile * mean_and_deviation(samples).1 / (samples.len() as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_computed_by_hand() {
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(mean_and_deviation(&[5.0]), (5.0, 0.0));
    }

    #[test]
    fn an_interval_is_students() {
        // 4.303 * 1 / sqrt(3)
        assert!((confidence_95(&[1.0, 2.0, 3.0]).unwrap() - 2.48434).abs() < 1e-5);
        assert_eq!(confidence_95(&[1.0]), None);
        assert_eq!(confidence_95(&[]), None);
    }

    #[test]
    fn the_quantile_goes_on_where_the_table_ends() {
        // 2.0395 at 31 degrees of freedom
        let samples: Vec<f64> = (0..32).map(f64::from).collect();
        let deviation = mean_and_deviation(&samples).1 / 32f64.sqrt();
        assert!((confidence_95(&samples).unwrap() / deviation - 2.0395).abs() < 0.005);
    }
}
