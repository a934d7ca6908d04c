//! A mean with its standard error.

use serde::Serialize;

/// A mean over questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Standard error: the deviation of the questions over the root of their number; `null` for a
    /// single question.
    pub se: Option<f64>,
}

impl Estimate {
    /// The mean of values of independent questions; 0 without questions.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.is_empty() {
            return Self { mean: 0.0, se: None };
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let se = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
        Self { mean, se }
    }

    /// The fraction of questions of which something is true.
    pub fn share(of: impl IntoIterator<Item = bool>) -> Self {
        let values: Vec<f64> = of.into_iter().map(|is| f64::from(u8::from(is))).collect();
        Self::of(&values)
    }

    /// The estimate in percent, for tables.
    pub fn percent(&self) -> String {
        match self.se {
            Some(se) => format!("{:.2}% ± {:.2}", self.mean * 100.0, se * 100.0),
            None => format!("{:.2}%", self.mean * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_a_sample() {
        let found = Estimate::share([true, true, false, true]);
        assert_eq!(found.mean, 0.75);
        assert_eq!(found.se, Some((0.25f64 / 4.0).sqrt()));
        assert_eq!(Estimate::of(&[0.5]), Estimate { mean: 0.5, se: None });
        assert_eq!(found.percent(), "75.00% ± 25.00");
    }
}
