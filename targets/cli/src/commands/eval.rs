//! `vaquita eval`: evaluates a model. The keys of `--json` are a stable interface.

use std::collections::HashMap;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::Subcommand;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use vaquita_calibration::divergence::{Divergence, divergence, divergence_from_file};
use vaquita_calibration::perplexity::perplexity;
use vaquita_calibration::read_documents;
use vaquita_calibration::reference_file::{self, ReferenceFile};
use vaquita_calibration::tasks::{Question, grade};
use vaquita_quantize::sources::Identity;

use super::protocol;
use crate::bundle::{self, Bundle};
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::files::write_whole;
use crate::model_argument::ModelArgument;
use crate::size;
use crate::terminal::{Bar, table};

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write the logits after each token as safetensors: `logits`, F32, [tokens, vocabulary]
    Logits {
        #[command(flatten)]
        model: ModelArgument,
        /// Token ids, separated by commas: 0,17,42
        #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
        tokens: Vec<u32>,
        /// Number of tokens per forward pass
        #[arg(long, value_name = "N")]
        chunk: Option<NonZero<usize>>,
        /// Output file
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Measure perplexity on a text
    Perplexity {
        #[command(flatten)]
        model: ModelArgument,
        #[command(flatten)]
        text: Text,
    },
    /// Measure the Kullback-Leibler divergence from a reference model on a text
    Kld(Comparison),
    /// Write a reference model's predictions on a text to a file, for `kld --reference`
    Reference {
        #[command(flatten)]
        model: ModelArgument,
        /// Output file
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        text: Text,
    },
    /// Measure the accuracy on graded questions
    Tasks {
        #[command(flatten)]
        model: ModelArgument,
        /// Questions: JSON lines with `task`, `question` and `answer` fields
        #[arg(long, value_name = "FILE")]
        questions: PathBuf,
        /// Use only the first N
        #[arg(long, value_name = "N")]
        limit: Option<NonZero<usize>>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Run a published protocol on a question file: AIME, MATH, MMLU, GSM8K, AlpacaEval
    Protocol(Box<protocol::Args>),
}

#[derive(clap::Args)]
struct Text {
    /// Documents: JSON lines with a `text` field
    #[arg(long = "text", value_name = "FILE")]
    file: PathBuf,
    /// Use only the first N
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Comparison {
    #[command(flatten)]
    model: ModelArgument,
    /// Reference model, which does not count toward --memory, or the file that `eval reference`
    /// wrote
    #[arg(long, value_name = "MODEL")]
    reference: PathBuf,
    /// Documents: JSON lines with a `text` field; a reference file has its own
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Use only the first N
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Comparison {
    /// The divergence, and a description of the tested model's lossy options.
    fn run(self, compute: &Compute) -> Result<(Divergence, Option<String>)> {
        let limit = self.limit.map_or(usize::MAX, NonZero::get);
        let model = self.model.path()?;
        if ReferenceFile::is_one(&self.reference) {
            if self.text.is_some() {
                let message = "a reference file brings its text: leave out --text".into();
                return Err(Failure::Usage(message));
            }
            let reference = ReferenceFile::open(&self.reference)?;
            let bundle = Bundle::open_for_all_threads(compute, &model)?;
            let subject = bundle.subject(compute);
            let result = with_bar("comparing", |bar| {
                Ok(divergence_from_file(&subject, &reference, limit, bar)?)
            })?;
            return Ok((result, bundle.loaded().lossy.clone()));
        }
        let Some(text) = &self.text else {
            let message = "--text is needed where the reference is a model".into();
            return Err(Failure::Usage(message));
        };
        let mut texts = read_documents(text)?;
        texts.truncate(limit);
        let bundle = Bundle::open_for_all_threads(compute, &model)?;
        let subject = bundle.subject(compute);
        let exact = compute.for_reference();
        let reference = Bundle::open_for_all_threads(&exact, &self.reference)?.subject(&exact);
        let result =
            with_bar("comparing", |bar| Ok(divergence(&subject, &reference, &texts, bar)?))?;
        Ok((result, bundle.loaded().lossy.clone()))
    }
}

impl Text {
    fn read(&self) -> Result<Vec<String>> {
        let mut documents = read_documents(&self.file)?;
        documents.truncate(self.limit.map_or(usize::MAX, NonZero::get));
        Ok(documents)
    }
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    compute.install()?;
    match args.what {
        What::Protocol(args) => protocol::run(compute, *args),
        What::Logits { model, tokens, chunk, out } => {
            logits(compute, &model.path()?, &tokens, chunk, &out)
        }
        What::Perplexity { model, text } => {
            let bundle = Bundle::open_for_all_threads(compute, &model.path()?)?;
            let subject = bundle.subject(compute);
            let result = with_bar("reading", |bar| Ok(perplexity(&subject, &text.read()?, bar)?))?;
            let rows = [
                ("perplexity", format!("{:.5}", result.perplexity)),
                ("tokens", result.tokens.to_string()),
            ];
            print(text.json, bundle.loaded().lossy.clone(), &result, &rows)
        }
        What::Reference { model, out, text } => {
            let model = model.path()?;
            let bundle = Bundle::open_for_all_threads(compute, &model)?;
            let subject = bundle.subject(compute);
            let name = Identity::new(&model, Vec::new())?.name;
            let texts = text.read()?;
            let written = with_bar("reading", |bar| {
                Ok(reference_file::write(&subject, &name, &texts, &out, bar)?)
            })?;
            let rows = [
                ("file", format!("{}, {}", out.display(), size::show(written.bytes))),
                ("documents", written.documents.to_string()),
                ("tokens", written.tokens.to_string()),
                ("perplexity", format!("{:.5}", written.perplexity)),
            ];
            print(text.json, bundle.loaded().lossy.clone(), &written, &rows)
        }
        What::Kld(comparison) => {
            let as_json = comparison.json;
            let (result, lossy) = comparison.run(compute)?;
            let rows = [
                ("mean KLD", format!("{:.6} ± {:.6}", result.mean_kld, result.mean_kld_se)),
                ("99th percentile", format!("{:.6}", result.p99_kld)),
                ("same top token", format!("{:.2}%", result.same_top * 100.0)),
                (
                    "perplexity ratio",
                    format!("{:.5} ± {:.5}", result.ppl_ratio, result.ppl_ratio_se),
                ),
                ("perplexity", format!("{:.5}", result.perplexity)),
                ("of the reference", format!("{:.5}", result.reference_perplexity)),
                ("tokens", result.tokens.to_string()),
            ];
            print(as_json, lossy, &result, &rows)
        }
        What::Tasks { model, questions, limit, json } => {
            let bundle = Bundle::open_for_all_threads(compute, &model.path()?)?;
            let subject = bundle.subject(compute);
            let mut questions = Question::read(&questions)?;
            questions.truncate(limit.map_or(usize::MAX, NonZero::get));
            let grades = with_bar("answering", |bar| Ok(grade(&subject, &questions, bar)?))?;
            let mut rows: Vec<(&str, String)> = Vec::new();
            for (task, [right, asked]) in &grades.tasks {
                rows.push((task, format!("{right}/{asked}")));
            }
            rows.push(("accuracy", format!("{:.2}%", grades.accuracy * 100.0)));
            print(json, bundle.loaded().lossy.clone(), &grades, &rows)
        }
    }
}

/// Runs an evaluation with a progress bar that several threads update.
pub fn with_bar<T>(
    label: &str,
    work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> Result<T>,
) -> Result<T> {
    let bar = Mutex::new(Bar::new(label));
    work(&|done, total| {
        if let Ok(mut bar) = bar.lock() {
            bar.set(done as u64, total as u64);
        }
    })
}

/// Prints a result with the lossy options in effect.
pub fn print(
    json: bool,
    lossy: Option<String>,
    result: &impl Serialize,
    rows: &[(&str, String)],
) -> Result {
    if json {
        let mut result = serde_json::to_value(result)?;
        if let (Some(object), Some(lossy)) = (result.as_object_mut(), lossy) {
            object.insert("lossy".into(), lossy.into());
        }
        writeln!(io::stdout(), "{result}")?;
    } else {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|(name, value)| vec![name.to_string(), value.clone()]).collect();
        write!(io::stdout(), "{}", table(&rows))?;
        if let Some(lossy) = lossy {
            writeln!(io::stdout(), "{lossy}")?;
        }
    }
    Ok(())
}

fn logits(
    compute: &Compute,
    path: &Path,
    tokens: &[u32],
    chunk: Option<NonZero<usize>>,
    out: &Path,
) -> Result {
    let mut bundle = bundle::load(compute, path, 1)?;
    let options = &mut bundle.loaded.options;
    options.prefill_chunk = chunk.map_or(options.prefill_chunk, NonZero::get);
    let mut session = bundle.session();
    let logits = session.feed_all(tokens)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    let shape = vec![tokens.len(), session.model().config().vocab_size];
    let view = TensorView::new(Dtype::F32, shape, &bytes)?;
    let file = safetensors::serialize([("logits", view)], None::<HashMap<String, String>>)?;
    write_whole(out, &file)?;
    eprintln!("{}: logits of {} tokens", out.display(), tokens.len());
    Ok(())
}
