//! `vaquita bench`: tokens per second, in the format of llama.cpp's `llama-bench`.

mod row;
mod sequences;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use vaquita_runtime::isa::Tier;
use vaquita_runtime::measure::cost::cost;
use vaquita_runtime::measure::memory::{self, Faults};
use vaquita_runtime::measure::plot::svg;
use vaquita_runtime::measure::sampler::{MeterSampler, Sample};
use vaquita_runtime::measure::statistics::mean_and_deviation;
use vaquita_runtime::measure::thermal::{self, ThermalState, Throttling};
use vaquita_runtime::model::Model;
use vaquita_runtime::session::Session;

use crate::bundle::{self, Loaded};
use crate::compute::Compute;
use crate::energy::{Energy, EnergyArgs};
use crate::failure::{Failure, Result};
use crate::files::write_whole;
use crate::model_argument::ModelArgument;
use crate::streamed::Streamed;
use crate::terminal::Bar;
use row::{MemoryRow, Parts, Row, costs, csv, markdown};
use sequences::Sequences;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    /// Prompt lengths in tokens, separated by commas; 0 skips the test
    #[arg(short = 'p', long, value_name = "N", value_delimiter = ',', default_value = "256")]
    prompt: Vec<usize>,
    /// Numbers of tokens to generate, separated by commas; 0 skips the test
    #[arg(
        short = 'n',
        long,
        visible_alias = "n-gen",
        value_name = "N",
        value_delimiter = ',',
        default_value = "64"
    )]
    generate: Vec<usize>,
    /// Also generate in K sequences side by side
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(2..=64))]
    sequences: Option<u16>,
    /// Number of repetitions
    #[arg(short = 'r', long, visible_alias = "repeat", value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Tokens in the KV cache before the test begins
    #[arg(short = 'd', long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Output format
    #[arg(short = 'o', long, value_name = "FORM", default_value = "md")]
    output: Output,
    #[command(flatten)]
    energy: EnergyArgs,
    /// Plot power, tokens and memory over time as SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// Markdown table
    Md,
    /// JSON array
    Json,
    /// Comma-separated values
    Csv,
}

/// A test.
#[derive(Clone, Copy)]
enum Test {
    /// Processes a prompt of that many tokens.
    Prompt(usize),
    /// Generates that many tokens, one by one.
    Generate(usize),
    /// Generates that many tokens in each of so many sequences.
    Sequences(usize, usize),
}

impl Test {
    fn tokens(self) -> usize {
        match self {
            Self::Prompt(tokens) | Self::Generate(tokens) => tokens,
            Self::Sequences(tokens, count) => tokens * count,
        }
    }

    fn name(self, depth: usize) -> String {
        let name = match self {
            Self::Prompt(tokens) => format!("pp{tokens}"),
            Self::Generate(tokens) => format!("tg{tokens}"),
            Self::Sequences(tokens, count) => format!("tg{tokens} x {count}"),
        };
        if depth == 0 { name } else { format!("{name} @ d{depth}") }
    }
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let model = args.model.clone().path()?;
    let prompts = args.prompt.iter().map(|tokens| Test::Prompt(*tokens));
    let tests = prompts.chain(args.generate.iter().map(|tokens| Test::Generate(*tokens)));
    let sequences = args.sequences.map(usize::from);
    let many = |count| args.generate.iter().map(move |tokens| Test::Sequences(*tokens, count));
    let tests = tests.chain(sequences.into_iter().flat_map(many));
    let tests: Vec<Test> = tests.filter(|test| test.tokens() > 0).collect();
    if tests.is_empty() || args.repetitions == 0 {
        return Err(Failure::Usage("nothing to measure: -p, -n and -r are 0".into()));
    }
    let loaded = bundle::load(compute, &model, sequences.unwrap_or(1))?;
    let energy = args.energy.start()?;
    let (mut rows, mut marks) = (Vec::new(), Vec::new());
    for test in tests {
        let mut row = Row {
            model: name(&model),
            size: bytes(&model)?,
            params: loaded.parameters,
            threads: compute.threads(),
            isa: compute.tier().map(Tier::name)?,
            test: test.name(args.depth),
            avg_ts: 0.0,
            stddev_ts: 0.0,
            samples_ts: Vec::new(),
            joules_per_token: None,
            peak_rss_bytes: None,
            energy: None,
            energy_unmeasured: None,
            energy_readings: 0,
            thermal: ThermalState::default(),
            memory: MemoryRow::default(),
            hit_rate: None,
            bytes_read_per_token: None,
            streaming: None,
            sequences: None,
            lossy: loaded.loaded.lossy.clone(),
        };
        let begin = measure(&mut row, &loaded, (test, &args), &energy)?;
        marks.push((begin, row.test.clone()));
        rows.push(row);
    }
    if let Some(out) = &args.plot {
        let meter = energy.source.as_ref().map_or_else(Clone::clone, |source| source.meter.clone());
        write_whole(out, svg(&energy.sampler.samples(), &marks, &meter).as_bytes())?;
    }
    match args.output {
        Output::Md if energy.asked => {
            write!(io::stdout(), "{}\n{}", markdown(&rows), costs(&rows))?
        }
        Output::Md => write!(io::stdout(), "{}", markdown(&rows))?,
        Output::Json => writeln!(io::stdout(), "{}", serde_json::to_string(&rows)?)?,
        Output::Csv => write!(io::stdout(), "{}", csv(&rows))?,
    }
    loaded.finish()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Bytes of a file, or of all files in a folder.
fn bytes(path: &Path) -> Result<u64> {
    if !path.is_dir() {
        return Ok(vaquita_runtime::gguf::Gguf::open(path)?.file_bytes());
    }
    Ok(vaquita_quantize::sources::HfFolder::open(path)?.file_bytes())
}

/// Distinct tokens, so that routing resembles that of text.
fn distinct_tokens(model: &Model, first: usize, count: usize) -> Vec<u32> {
    let vocabulary = model.config().vocab_size as u32;
    (first as u32..(first + count) as u32)
        .map(|i| i.wrapping_mul(2_654_435_761) >> 7)
        .map(|token| token % vocabulary)
        .collect()
}

/// Subject of a test.
enum Runner<'a> {
    One(Box<Session>),
    Many(Sequences<'a>),
}

impl<'a> Runner<'a> {
    fn new(loaded: &'a Loaded, test: Test, depth: usize) -> Result<Self> {
        match test {
            Test::Prompt(_) | Test::Generate(_) => {
                let mut session = loaded.session();
                if depth > 0 {
                    session.feed(&distinct_tokens(&loaded.loaded.model, 0, depth))?;
                }
                Ok(Self::One(Box::new(session)))
            }
            Test::Sequences(_, count) => {
                let mut sequences = Sequences::new(&loaded.loaded, count);
                sequences.fill(depth)?;
                Ok(Self::Many(sequences))
            }
        }
    }

    fn reset(&mut self, depth: usize) -> Result {
        match self {
            Self::One(session) => {
                session.truncate(depth);
                Ok(())
            }
            Self::Many(sequences) => sequences.reset(),
        }
    }

    fn run(&mut self, test: Test, depth: usize, sampler: &MeterSampler) -> Result {
        let tokens = test.tokens();
        let (session, at_once) = match (self, test) {
            (Self::Many(sequences), Test::Sequences(each, _)) => {
                return sequences.run(each, sampler);
            }
            (Self::One(session), Test::Prompt(_)) => (session, tokens),
            (Self::One(session), Test::Generate(_)) if session.drafts().is_some() => {
                let tokens = distinct_tokens(session.model(), depth, tokens);
                return continue_greedily(session, &tokens, sampler);
            }
            (Self::One(session), _) => (session, 1),
            (Self::Many(_), _) => return Ok(()),
        };
        for part in distinct_tokens(session.model(), depth, tokens).chunks(at_once) {
            session.feed(part)?;
            sampler.count(part.len() as u64);
        }
        Ok(())
    }
}

/// Runs a test once to warm up and then repeatedly.
fn measure(
    row: &mut Row,
    loaded: &Loaded,
    (test, args): (Test, &Args),
    energy: &Energy,
) -> Result<Sample> {
    let mut runner = Runner::new(loaded, test, args.depth)?;
    let mut bar = Bar::new(row.test.clone());
    let sampler = &energy.sampler;
    runner.run(test, args.depth, sampler)?;
    if let Runner::Many(sequences) = &mut runner {
        sequences.forget();
    }
    bar.set(0, args.repetitions as u64);
    let throttling = Throttling::read(&energy.host);
    let (readings, faults) = (sampler.values(), memory::faults());
    let streaming = loaded.loaded.streaming();
    let (mut intervals, mut first, mut elapsed) = (Vec::new(), None, Duration::ZERO);
    for repetition in 1..=args.repetitions {
        runner.reset(args.depth)?;
        let before = sampler.mark();
        let start = Instant::now();
        runner.run(test, args.depth, sampler)?;
        let time = start.elapsed();
        elapsed += time;
        intervals.push(sampler.mark().since(&before));
        first.get_or_insert(before);
        row.samples_ts.push(test.tokens() as f64 / time.as_secs_f64());
        bar.set(repetition as u64, args.repetitions as u64);
    }
    if let (Some(after), Some(before)) = (loaded.loaded.streaming(), streaming) {
        let tokens = test.tokens() * args.repetitions;
        let streamed = Streamed::new(&after.since(&before), tokens, elapsed);
        row.hit_rate = streamed.hit_rate;
        row.bytes_read_per_token = Some(streamed.bytes_read_per_token);
        row.streaming = Some(streamed);
    }
    (row.avg_ts, row.stddev_ts) = mean_and_deviation(&row.samples_ts);
    if let Runner::Many(sequences) = runner {
        row.sequences = Some(sequences.row(row.avg_ts));
    }
    let cost = energy.source.clone().and_then(|source| {
        let cost = cost(source, energy.idle_watts, &intervals, test.tokens() as u64);
        cost.map_err(|reason| sampler.failure().map_or(reason, |failure| failure.to_string()))
    });
    (row.energy, row.energy_unmeasured) = match cost {
        Ok(cost) => (Some(cost), None),
        Err(reason) => (None, Some(reason)),
    };
    row.joules_per_token = row.energy.as_ref().map(|cost| cost.joules_per_token);
    row.energy_readings = sampler.values() - readings;
    row.thermal = thermal::read(&energy.host, throttling);
    row.memory = memory_row(loaded, faults);
    row.peak_rss_bytes = row.memory.peak_rss_bytes;
    Ok(first.unwrap_or_else(|| sampler.mark()))
}

/// Generates as many tokens as there are in `tokens` after the first of them: drafts are of no use
/// for random ones.
fn continue_greedily(session: &mut Session, tokens: &[u32], sampler: &MeterSampler) -> Result {
    let Some((first, rest)) = tokens.split_first() else { return Ok(()) };
    let mut logits = session.advance(*first)?;
    sampler.count(1);
    for _ in rest {
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        logits = session.advance(best.unwrap_or(0) as u32)?;
        sampler.count(1);
    }
    Ok(())
}

fn memory_row(loaded: &Loaded, before: Option<Faults>) -> MemoryRow {
    let now = memory::current();
    let faults = memory::faults().zip(before).map(|(after, before)| after.since(&before));
    let streamed = loaded.plan().and_then(|plan| plan.experts);
    MemoryRow {
        peak_rss_bytes: now.map(|memory| memory.peak),
        rss_bytes: now.map(|memory| memory.resident),
        pss_bytes: memory::proportional(),
        anonymous_bytes: now.map(|memory| memory.anonymous),
        file_backed_bytes: now.map(|memory| memory.file_backed),
        major_page_faults: faults.map(|faults| faults.major),
        minor_page_faults: faults.map(|faults| faults.minor),
        parts: loaded.footprint.map(|footprint| Parts {
            dense_bytes: footprint.dense,
            cache_bytes: footprint.cache,
            scratch_bytes: footprint.scratch,
            experts_bytes: streamed.unwrap_or(footprint.experts),
            streamed: streamed.is_some(),
        }),
    }
}
