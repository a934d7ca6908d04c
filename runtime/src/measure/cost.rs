//! Energy per token: in total, and net of idle power.

use serde::Serialize;

use super::meter::Meter;
use super::sampler::Interval;
use super::statistics::{confidence_95, mean_and_deviation};

/// The meter behind a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeterInfo {
    /// Name of the meter.
    pub meter: String,
    /// What the meter covers.
    pub scope: String,
    /// Whether the value is derived from a stated wattage.
    pub estimate: bool,
}

impl MeterInfo {
    /// Describes a meter.
    pub fn of(meter: &dyn Meter) -> Self {
        let (meter, scope, estimate) = (meter.name(), meter.scope(), meter.is_estimate());
        Self { meter: meter.into(), scope: scope.into(), estimate }
    }
}

/// Energy cost of a test. Intervals are half-widths of the 95% confidence interval over its
/// repetitions, `None` for a single one and where the meter delivered no value in one of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The meter.
    #[serde(flatten)]
    pub source: MeterInfo,
    /// Joules per token, including idle power.
    pub joules_per_token: f64,
    /// Confidence interval of `joules_per_token`.
    pub joules_per_token_ci95: Option<f64>,
    /// Joules per token net of idle power; `None` without a baseline.
    pub net_joules_per_token: Option<f64>,
    /// Confidence interval of `net_joules_per_token`.
    pub net_joules_per_token_ci95: Option<f64>,
    /// Idle power before the tests, with the model loaded.
    pub idle_watts: Option<f64>,
    /// Mean power during the test.
    pub mean_watts: f64,
    /// Tokens per joule, including idle power.
    pub tokens_per_joule: f64,
}

/// Mean power over an interval; `None` if it was not measured.
pub fn mean_watts(interval: &Interval) -> Option<f64> {
    let seconds = interval.time.as_secs_f64();
    interval.joules.filter(|_| seconds > 0.0).map(|joules| joules / seconds)
}

/// The cost per token from repetitions of the same test with `tokens` tokens. The error states why
/// there is none.
pub fn cost(
    source: MeterInfo,
    idle_watts: Option<f64>,
    repetitions: &[Interval],
    tokens: u64,
) -> Result<Cost, String> {
    let measured: Option<Vec<f64>> = repetitions.iter().map(|one| one.joules).collect();
    let joules = measured.filter(|_| tokens > 0).ok_or("the meter failed during the test")?;
    let (all, seconds): (f64, f64) =
        (joules.iter().sum(), repetitions.iter().map(|one| one.time.as_secs_f64()).sum());
    if all <= 0.0 || seconds <= 0.0 {
        return Err("the test was over before the meter showed anything: raise -p, -n or -r".into());
    }
    let per_token = |joules: f64| joules / tokens as f64;
    let gross: Vec<f64> = joules.iter().copied().map(per_token).collect();
    let net: Option<Vec<f64>> = idle_watts.map(|idle| {
        let beyond = |(one, joules): (&Interval, &f64)| {
            let net = joules - idle * one.time.as_secs_f64();
            // Of a constant power, only what rounding leaves.
            if net.abs() < 1e-9 * joules { 0.0 } else { net }
        };
        repetitions.iter().zip(&joules).map(beyond).map(per_token).collect()
    });
    let joules_per_token = mean_and_deviation(&gross).0;
    // Without a new value in each repetition, they differ in time only.
    let fresh = repetitions.iter().all(|one| one.fresh);
    let interval = |values: &[f64]| confidence_95(values).filter(|_| fresh);
    Ok(Cost {
        source,
        joules_per_token,
        joules_per_token_ci95: interval(&gross),
        net_joules_per_token: net.as_ref().map(|net| mean_and_deviation(net).0),
        net_joules_per_token_ci95: net.as_ref().and_then(|net| interval(net)),
        idle_watts,
        mean_watts: all / seconds,
        tokens_per_joule: 1.0 / joules_per_token,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn interval(seconds: f64, joules: Option<f64>) -> Interval {
        Interval { time: Duration::from_secs_f64(seconds), joules, fresh: true }
    }

    fn source() -> MeterInfo {
        MeterInfo { meter: "m".into(), scope: "s".into(), estimate: false }
    }

    #[test]
    fn what_a_token_costs_computed_by_hand() {
        let repetitions = [interval(2.0, Some(20.0)), interval(2.0, Some(24.0))];
        let cost = cost(source(), Some(3.0), &repetitions, 10).unwrap();
        assert_eq!(cost.joules_per_token, 2.2); // (2.0 + 2.4) / 2
        assert_eq!(cost.net_joules_per_token, Some(1.6)); // 6 J of idling in each
        assert_eq!(cost.mean_watts, 11.0);
        // 12.706 * (0.4 / sqrt(2)) / sqrt(2)
        assert!((cost.joules_per_token_ci95.unwrap() - 2.5412).abs() < 1e-9);
        assert!((cost.tokens_per_joule - 1.0 / 2.2).abs() < 1e-12);
    }

    #[test]
    fn a_constant_power_costs_nothing_beyond_idling() {
        let repetitions = [interval(0.7, Some(0.7 * 7.31)), interval(1.3, Some(1.3 * 7.31))];
        let idle = (0.1 * 7.31) / 0.1;
        let net = cost(source(), Some(idle), &repetitions, 10).unwrap().net_joules_per_token;
        assert_eq!(format!("{:.3}", net.unwrap()), "0.000");
    }

    #[test]
    fn repetitions_without_a_value_of_their_own_have_no_confidence_interval() {
        let old = Interval { fresh: false, ..interval(2.5, Some(25.0)) };
        let cost = cost(source(), Some(3.0), &[interval(2.0, Some(20.0)), old], 10).unwrap();
        assert_eq!(cost.joules_per_token, 2.25);
        assert_eq!(cost.joules_per_token_ci95.or(cost.net_joules_per_token_ci95), None);
    }

    #[test]
    fn what_was_not_measured_is_no_figure() {
        let gone = [interval(2.0, Some(1.0)), interval(2.0, None)];
        assert!(cost(source(), None, &gone, 10).unwrap_err().contains("failed"));
        let still = [interval(0.001, Some(0.0))];
        assert!(cost(source(), None, &still, 10).unwrap_err().contains("raise"));
        assert!(cost(source(), None, &[], 10).is_err());
    }
}
