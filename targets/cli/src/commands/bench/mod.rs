//! `vaquita bench`: tokens per second, in the format of llama.cpp's `llama-bench`.

mod row;

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
    let model = args.model.clone().path()?;
    let prompts = args.prompt.iter().map(|tokens| Test::Prompt(*tokens));
    let tests = prompts.chain(args.generate.iter().map(|tokens| Test::Generate(*tokens)));
    let tests: Vec<Test> = tests.filter(|test| test.tokens() > 0).collect();
    if tests.is_empty() || args.repetitions == 0 {
        return Err(Failure::Usage("nothing to measure: -p, -n and -r are 0".into()));
    }
    let loaded = bundle::load(compute, &model, 1)?;
    let mut session = loaded.session();
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
            lossy: loaded.loaded.lossy.clone(),
        };
        let begin = measure(&mut row, &mut session, &loaded, (test, &args), &energy)?;
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

/// Runs a test once to warm up and then repeatedly.
fn measure(
    row: &mut Row,
    session: &mut Session,
    loaded: &Loaded,
    (test, args): (Test, &Args),
    energy: &Energy,
) -> Result<Sample> {
    let vocabulary = loaded.loaded.model.config().vocab_size as u32;
    // Distinct tokens, so that routing resembles that of text.
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
    let sampler = &energy.sampler;
    run_once(session, test, timed, sampler)?;
    bar.set(0, args.repetitions as u64);
    let throttling = Throttling::read(&energy.host);
    let (readings, faults) = (sampler.readings(), memory::faults());
    let streaming = loaded.loaded.streaming();
    let (mut intervals, mut first, mut elapsed) = (Vec::new(), None, Duration::ZERO);
    for repetition in 1..=args.repetitions {
        session.truncate(args.depth);
        let before = sampler.mark();
        let start = Instant::now();
        run_once(session, test, timed, sampler)?;
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
    let cost = energy.source.clone().and_then(|source| {
        let cost = cost(source, energy.idle_watts, &intervals, test.tokens() as u64);
        cost.map_err(|reason| sampler.failure().map_or(reason, |failure| failure.to_string()))
    });
    (row.energy, row.energy_unmeasured) = match cost {
        Ok(cost) => (Some(cost), None),
        Err(reason) => (None, Some(reason)),
    };
    row.joules_per_token = row.energy.as_ref().map(|cost| cost.joules_per_token);
    row.energy_readings = sampler.readings() - readings;
    row.thermal = thermal::read(&energy.host, throttling);
    row.memory = memory_row(loaded, faults);
    row.peak_rss_bytes = row.memory.peak_rss_bytes;
    Ok(first.unwrap_or_else(|| sampler.mark()))
}

fn run_once(session: &mut Session, test: Test, tokens: &[u32], sampler: &MeterSampler) -> Result {
    let at_once = match test {
        Test::Prompt(_) => tokens.len(),
        Test::Generate(_) if session.drafts().is_some() => {
            return continue_greedily(session, tokens, sampler);
        }
        Test::Generate(_) => 1,
    };
    for part in tokens.chunks(at_once) {
        session.feed(part)?;
        sampler.count(part.len() as u64);
    }
    Ok(())
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
