//! Results of `bench` and their output formats.

use serde::Serialize;
use vaquita_runtime::measure::cost::Cost;
use vaquita_runtime::measure::thermal::ThermalState;

use super::sequences::SequencesRow;
use crate::size;
use crate::streamed::Streamed;
use crate::terminal::table;

/// Result of a test.
#[derive(Debug, Serialize)]
pub struct Row {
    pub model: String,
    /// Bytes of the file.
    pub size: u64,
    /// Number of weights.
    pub params: u64,
    pub threads: usize,
    pub isa: &'static str,
    /// `pp256`, `tg64` or `tg64 x 4`, with ` @ dN` at a depth.
    pub test: String,
    pub avg_ts: f64,
    pub stddev_ts: f64,
    pub samples_ts: Vec<f64>,
    /// Joules per token over all repetitions; `null` without a meter.
    pub joules_per_token: Option<f64>,
    pub peak_rss_bytes: Option<u64>,
    /// Fraction of needed experts that were resident; `null` unless streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_rate: Option<f64>,
    /// Bytes of experts read per token; `null` unless streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read_per_token: Option<f64>,
    /// All figures of streaming; `null` if experts are mapped.
    pub streaming: Option<Streamed>,
    /// Figures of several sequences side by side, whose tokens `avg_ts` counts together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences: Option<SequencesRow>,
    /// Description of the lossy options in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lossy: Option<String>,
    /// Details of the energy; `null` if it was not measured.
    pub energy: Option<Cost>,
    /// Reason why energy was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_unmeasured: Option<String>,
    /// Number of meter readings during the repetitions.
    pub energy_readings: u64,
    /// Thermal state at the end of the test.
    pub thermal: ThermalState,
    pub memory: MemoryRow,
}

/// Memory at the end of a test, in bytes; `null` where the system does not report it.
#[derive(Debug, Default, Serialize)]
pub struct MemoryRow {
    pub peak_rss_bytes: Option<u64>,
    pub rss_bytes: Option<u64>,
    pub pss_bytes: Option<u64>,
    pub anonymous_bytes: Option<u64>,
    pub file_backed_bytes: Option<u64>,
    /// Page faults during the repetitions.
    pub major_page_faults: Option<u64>,
    pub minor_page_faults: Option<u64>,
    /// Memory of the model's parts; `null` for a folder.
    pub parts: Option<Parts>,
}

/// Memory of a model's parts when fully used, in bytes.
#[derive(Debug, Serialize)]
pub struct Parts {
    pub dense_bytes: u64,
    pub cache_bytes: u64,
    pub scratch_bytes: u64,
    /// Size of all mapped experts, or limit of streamed ones.
    pub experts_bytes: u64,
    /// Whether experts are streamed within a budget.
    pub streamed: bool,
}

const UNMEASURED: &str = "unmeasured";

fn or_unmeasured<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or(UNMEASURED.into(), show)
}

/// Formats `1.234 ± 0.056`; the interval is omitted if there is none.
fn with_interval(value: f64, interval: Option<f64>) -> String {
    let value = (value * 1e4).round() / 1e4 + 0.0; // not -0.0000
    interval.map_or(format!("{value:.4}"), |interval| format!("{value:.4} ± {interval:.4}"))
}

impl Row {
    fn estimate(&self) -> &'static str {
        if self.energy.as_ref().is_some_and(|cost| cost.source.estimate) {
            " (estimate)"
        } else {
            ""
        }
    }
}

/// A Markdown table in the style of llama-bench.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| model | size | params | threads | isa | test | t/s | J/token | peak memory |\n\
         | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {:.2} ± {:.2} | {}{} | {} |\n",
            row.model,
            size::show(row.size),
            size::count(row.params),
            row.threads,
            row.isa,
            test(row),
            row.avg_ts,
            row.stddev_ts,
            or_unmeasured(row.joules_per_token, |joules| format!("{joules:.3}")),
            row.estimate(),
            or_unmeasured(row.peak_rss_bytes, size::show),
        ));
    }
    for row in rows {
        if let Some(sequences) = &row.sequences {
            text.push_str(&format!(
                "{}: {:.2} t/s in each sequence; a token every {:.3} s, at most {:.3} s\n",
                row.test,
                sequences.per_sequence_ts,
                sequences.median_gap_s,
                sequences.longest_gap_s,
            ));
        }
        if let Some(streamed) = &row.streaming {
            text.push_str(&format!("{}: {}\n", row.test, streamed.summary()));
        }
    }
    text
}

/// Energy and memory of each test, for people.
pub fn costs(rows: &[Row]) -> String {
    let head = [
        "test",
        "J/token",
        "beyond idling",
        "power",
        "tokens/J",
        "temperature",
        "throttled",
        "PSS",
        "anonymous",
        "file-backed",
        "major faults",
    ];
    let mut cells = vec![head.map(String::from).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let cost = row.energy.as_ref();
        let net = cost.and_then(|cost| {
            Some(with_interval(cost.net_joules_per_token?, cost.net_joules_per_token_ci95))
        });
        let gross = cost.map(|c| with_interval(c.joules_per_token, c.joules_per_token_ci95));
        vec![
            test(row),
            or_unmeasured(gross, |text| text + row.estimate()),
            or_unmeasured(net, |text| text),
            or_unmeasured(cost, |cost| format!("{:.3} W", cost.mean_watts)),
            or_unmeasured(cost, |cost| format!("{:.4}", cost.tokens_per_joule)),
            or_unmeasured(row.thermal.temperature_c, |celsius| format!("{celsius:.1} °C")),
            or_unmeasured(row.thermal.throttled, |yes| if yes { "yes" } else { "no" }.into()),
            or_unmeasured(row.memory.pss_bytes, size::show),
            or_unmeasured(row.memory.anonymous_bytes, size::show),
            or_unmeasured(row.memory.file_backed_bytes, size::show),
            or_unmeasured(row.memory.major_page_faults, |faults| faults.to_string()),
        ]
    }));
    let mut text = table(&cells);
    let first = rows.iter().find_map(|row| row.energy.as_ref());
    let reason = rows.iter().find_map(|row| row.energy_unmeasured.as_ref());
    if let Some(cost) = first {
        let idle = or_unmeasured(cost.idle_watts, |watts| format!("{watts:.3} W"));
        let how = if cost.source.estimate { "estimated from" } else { "measured by" };
        let source = &cost.source;
        text.push_str(&format!("energy {how} {} ({}), idle {idle}", source.meter, source.scope));
        text.push_str("; ± is half of the 95% interval over repetitions\n");
    }
    if let Some(reason) = reason {
        text.push_str(&format!("energy unmeasured: {reason}\n"));
    }
    if let Some(parts) = rows.iter().find_map(|row| row.memory.parts.as_ref()) {
        text.push_str(&format!(
            "memory by part: dense {}, cache {}, scratch {}, experts {} ({})\n",
            size::show(parts.dense_bytes),
            size::show(parts.cache_bytes),
            size::show(parts.scratch_bytes),
            size::show(parts.experts_bytes),
            if parts.streamed { "streamed" } else { "mapped" },
        ));
    }
    text
}

/// Name of a test with the lossy options in effect.
fn test(row: &Row) -> String {
    let lossy = row.lossy.as_ref().map(|lossy| format!(" ({lossy})"));
    format!("{}{}", row.test, lossy.unwrap_or_default())
}

/// Comma-separated values.
pub fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "model,size,params,threads,isa,test,avg_ts,stddev_ts,joules_per_token,peak_rss_bytes,\
         energy_meter,energy_estimate,net_joules_per_token,idle_watts,mean_watts,pss_bytes\n",
    );
    for row in rows {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let bytes = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let cost = row.energy.as_ref();
        let fields = [
            quoted(&row.model),
            row.size.to_string(),
            row.params.to_string(),
            row.threads.to_string(),
            row.isa.to_string(),
            row.test.clone(),
            row.avg_ts.to_string(),
            row.stddev_ts.to_string(),
            number(row.joules_per_token),
            bytes(row.peak_rss_bytes),
            cost.map(|cost| quoted(&cost.source.meter)).unwrap_or_default(),
            cost.map(|cost| cost.source.estimate.to_string()).unwrap_or_default(),
            number(cost.and_then(|cost| cost.net_joules_per_token)),
            number(cost.and_then(|cost| cost.idle_watts)),
            number(cost.map(|cost| cost.mean_watts)),
            bytes(row.memory.pss_bytes),
        ];
        text.push_str(&fields.join(","));
        text.push('\n');
    }
    text
}
