//! Charts of power, tokens and memory over the time of a run, as SVG.

use super::sampler::Sample;
use crate::svg::{Drawing, Panel};

/// Height of a panel.
const HEIGHT: f64 = 220.0;

/// Draws the samples of a run. `marks` are moments with names, such as the start of a test; `meter`
/// is the source of the power, or the reason why it is unknown.
pub fn svg(samples: &[Sample], marks: &[(Sample, String)], meter: &str) -> String {
    let start = samples.first().map_or(0.0, |sample| sample.at.as_secs_f64());
    let time = |sample: &Sample| sample.at.as_secs_f64() - start;
    let end = samples.last().map_or(0.0, time);
    let curve = |value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        samples.iter().filter_map(|sample| Some((time(sample), value(sample)?))).collect()
    };
    let mib = |sample: &Sample| Some(sample.resident? as f64 / f64::from(1 << 20));
    let panels = [
        (format!("power: {meter}"), "power, W", "#d98200", power(samples, start)),
        ("tokens so far".into(), "tokens", "#0060c0", curve(&|sample| Some(sample.tokens as f64))),
        ("resident memory".into(), "memory, MiB", "#222222", curve(&mib)),
    ];
    let mut drawing = Drawing::new();
    for (title, unit, colour, points) in panels {
        let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let panel: Panel = drawing.panel(HEIGHT, (end, most.max(1e-3)), ("time, s", unit));
        drawing.title(&panel, &title);
        for (sample, name) in marks {
            drawing.upright(&panel, time(sample), name);
        }
        match points.is_empty() {
            true => drawing.name(&panel, colour, 1, "unmeasured"),
            false => drawing.curve(&panel, colour, &points),
        }
    }
    drawing.finish()
}

/// Mean power between samples, as a step function.
fn power(samples: &[Sample], start: f64) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for pair in samples.windows(2) {
        let between = pair[1].since(&pair[0]);
        let Some(watts) = super::cost::mean_watts(&between) else { continue };
        points.push((pair[0].at.as_secs_f64() - start, watts));
        points.push((pair[1].at.as_secs_f64() - start, watts));
    }
    points
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(seconds: u64, joules: Option<f64>) -> Sample {
        let at = Duration::from_secs(seconds);
        Sample { at, joules, values: seconds, tokens: 3 * seconds, resident: Some(1 << 20) }
    }

    #[test]
    fn power_is_drawn_as_steps_and_a_run_without_a_meter_says_so() {
        let samples = [sample(1, Some(0.0)), sample(3, Some(8.0)), sample(4, Some(10.0))];
        assert_eq!(power(&samples, 1.0), [(0.0, 4.0), (2.0, 4.0), (2.0, 2.0), (3.0, 2.0)]);
        let drawing = svg(&samples, &[(samples[1], "<pp8>".into())], "RAPL & more");
        assert_eq!(drawing.matches("<polyline").count(), 3);
        assert!(
            drawing.contains("&lt;pp8&gt;") && drawing.contains("RAPL &amp; more"),
            "{drawing}"
        );
        assert!(!drawing.contains("unmeasured") && !drawing.contains("NaN"), "{drawing}");

        let samples = [sample(1, None), sample(2, None)];
        let drawing = svg(&samples, &[], "no meter");
        assert_eq!(drawing.matches("<polyline").count(), 2);
        assert!(drawing.contains(">unmeasured</text>"), "{drawing}");
        assert!(svg(&[], &[], "").ends_with("</svg>\n"));
    }
}
