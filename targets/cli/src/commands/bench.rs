//! `vaquita bench`: tokens per second, in the form that people know from llama.cpp's `llama-bench`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;
use vaquita_runtime::kernels::Tier;
use vaquita_runtime::measure::energy::Recorder;
use vaquita_runtime::measure::memory;
use vaquita_runtime::model::Model;
use vaquita_runtime::session::Session;

use crate::bundle;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::Bar;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// A GGUF file or a Hugging Face folder
    model: PathBuf,
    /// Tokens of a prompt to read; 0 leaves the test out
    #[arg(short = 'p', long, value_name = "N", default_value_t = 256)]
    prompt: usize,
    /// Tokens to generate; 0 leaves the test out
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    generate: usize,
    /// Repetitions
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Tokens that are in the context before the test begins
    #[arg(short = 'd', long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Form of the result
    #[arg(short = 'o', long, value_name = "FORM", default_value = "md")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A table
    Md,
    /// A list of objects
    Json,
    /// Comma-separated values
    Csv,
}

/// One test's result.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    /// Bytes of the file.
    size: u64,
    /// Weights.
    params: u64,
    threads: usize,
    isa: &'static str,
    /// `pp256`, `tg64`, with `@ dN` at depth.
    test: String,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ts: Vec<f64>,
    /// Joules per token, over all repetitions; `null` where there is no meter.
    joules_per_token: Option<f64>,
    peak_rss_bytes: Option<u64>,
    /// Share of the experts that were in memory, where they are streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    hit_rate: Option<f64>,
    /// Bytes of experts read per token, where they are streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_read_per_token: Option<f64>,
    /// What makes its answers other than the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    lossy: Option<String>,
}

/// What is timed.
#[derive(Clone, Copy)]
enum Test {
    /// Reading a prompt of so many tokens at once.
    Prompt(usize),
    /// Generating so many, one after the other.
    Generate(usize),
}

impl Test {
    fn tokens(self) -> usize {
        let (Self::Prompt(tokens) | Self::Generate(tokens)) = self;
        tokens
    }

    fn name(self, depth: usize) -> String {
        let name = match self {
            Self::Prompt(tokens) => format!("pp{tokens}"),
            Self::Generate(tokens) => format!("tg{tokens}"),
        };
        if depth == 0 { name } else { format!("{name} @ d{depth}") }
    }
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let tests = [Test::Prompt(args.prompt), Test::Generate(args.generate)];
    let tests: Vec<Test> = tests.into_iter().filter(|test| test.tokens() > 0).collect();
    if tests.is_empty() || args.repetitions == 0 {
        return Err(Failure::Usage("nothing to measure: -p, -n and -r are 0".into()));
    }
    let loaded = bundle::load(compute, &args.model, 1)?;
    let mut session = loaded.session(compute)?;
    let mut rows = Vec::new();
    for test in tests {
        let mut row = Row {
            model: name(&args.model),
            size: bytes(&args.model)?,
            params: loaded.parameters,
            threads: compute.threads(),
            isa: compute.tier().map(Tier::name)?,
            test: test.name(args.depth),
            avg_ts: 0.0,
            stddev_ts: 0.0,
            samples_ts: Vec::new(),
            joules_per_token: None,
            peak_rss_bytes: None,
            hit_rate: None,
            bytes_read_per_token: None,
            lossy: loaded.lossy.clone(),
        };
        let before = loaded.streaming();
        measure(&mut row, &mut session, &loaded.model, test, &args)?;
        if let (Some(after), Some(before)) = (loaded.streaming(), before) {
            let stats = after.since(&before);
            let tokens = test.tokens() * (args.repetitions + 1) + args.depth;
            row.hit_rate = stats.hit_rate();
            row.bytes_read_per_token = Some(stats.bytes_read as f64 / tokens as f64);
        }
        rows.push(row);
    }
    match args.output {
        Output::Md => print!("{}", markdown(&rows)),
        Output::Json => println!("{}", serde_json::to_string(&rows)?),
        Output::Csv => print!("{}", csv(&rows)),
    }
    loaded.finish()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Bytes of a file, or of the files in a folder.
fn bytes(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(vaquita_runtime::gguf::Gguf::open(path)?.file_bytes());
    }
    Ok(vaquita_quantize::sources::open(path)?.identity.bytes)
}

/// Runs a test, once to warm up and then as often as asked.
fn measure(row: &mut Row, session: &mut Session, model: &Model, test: Test, args: &Args) -> Result {
    let vocabulary = model.config().vocab_size as u32;
    // Different tokens, so that experts are chosen as text would choose them.
    let tokens: Vec<u32> = (0..(args.depth + test.tokens()) as u32)
        .map(|i| i.wrapping_mul(2_654_435_761) >> 7)
        .map(|token| token % vocabulary)
        .collect();
    let (before, timed) = tokens.split_at(args.depth);
    session.truncate(0);
    if !before.is_empty() {
        session.feed(before)?;
    }
    let mut bar = Bar::new(row.test.clone());
    let mut energy = Recorder::start(Path::new("/"));
    for repetition in 0..=args.repetitions {
        session.truncate(args.depth);
        if repetition == 1 {
            energy = Recorder::start(Path::new("/"));
        }
        let start = Instant::now();
        match test {
            Test::Prompt(_) => drop(session.feed(timed)?),
            Test::Generate(_) => {
                for token in timed {
                    session.feed(&[*token])?;
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        energy.sample();
        if repetition > 0 {
            row.samples_ts.push(test.tokens() as f64 / seconds);
        }
        bar.set(repetition as u64, args.repetitions as u64);
    }
    (row.avg_ts, row.stddev_ts) = mean_and_deviation(&row.samples_ts);
    let tokens = (test.tokens() * args.repetitions) as f64;
    row.joules_per_token = energy.joules().map(|joules| joules / tokens);
    row.peak_rss_bytes = memory::current().map(|memory| memory.peak);
    Ok(())
}

/// Mean, and the standard deviation of a sample.
fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, if samples.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| model | size | params | threads | isa | test | t/s | J/token | peak memory |\n\
         | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let joules =
            row.joules_per_token.map_or("unmeasured".into(), |joules| format!("{joules:.3}"));
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {:.2} ± {:.2} | {joules} | {} |\n",
            row.model,
            size::show(row.size),
            size::count(row.params),
            row.threads,
            row.isa,
            test(row),
            row.avg_ts,
            row.stddev_ts,
            row.peak_rss_bytes.map_or("unmeasured".into(), size::show),
        ));
    }
    text
}

/// A test's name, with what makes it another model's.
fn test(row: &Row) -> String {
    let lossy = row.lossy.as_ref().map(|lossy| format!(" ({lossy})"));
    format!("{}{}", row.test, lossy.unwrap_or_default())
}

fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "model,size,params,threads,isa,test,avg_ts,stddev_ts,joules_per_token,peak_rss_bytes\n",
    );
    for row in rows {
        let number = |value: Option<String>| value.unwrap_or_default();
        text.push_str(&format!(
            "\"{}\",{},{},{},{},{},{},{},{},{}\n",
            row.model.replace('"', "\"\""),
            row.size,
            row.params,
            row.threads,
            row.isa,
            row.test,
            row.avg_ts,
            row.stddev_ts,
            number(row.joules_per_token.map(|joules| joules.to_string())),
            number(row.peak_rss_bytes.map(|bytes| bytes.to_string())),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_computed_by_hand() {
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(mean_and_deviation(&[5.0]), (5.0, 0.0));
    }
}
