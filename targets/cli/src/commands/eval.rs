//! `vaquita eval`: what a model computes, and how good it is. The keys of `--json` are an interface.

use std::collections::HashMap;
use std::io::Write;
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
use vaquita_runtime::session::Session;

use crate::bundle::{self, Bundle, Loaded};
use crate::compute::Compute;
use crate::failure::{Failure, Result};
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
    /// Logits after each of some tokens, as safetensors: `logits`, F32, [tokens, vocabulary]
    Logits {
        /// A GGUF file or a Hugging Face folder
        model: PathBuf,
        /// Token ids: 0,17,42
        #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
        tokens: Vec<u32>,
        /// Tokens that go through the model together
        #[arg(long, value_name = "N")]
        chunk: Option<NonZero<usize>>,
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Perplexity over texts
    Perplexity {
        /// A GGUF file or a Hugging Face folder
        model: PathBuf,
        #[command(flatten)]
        text: Text,
    },
    /// Kullback-Leibler divergence from a reference over texts
    Kld(Comparison),
    /// Write down what a reference predicts over texts, for `kld --reference`
    Reference {
        /// A Hugging Face folder or a GGUF file
        model: PathBuf,
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        text: Text,
    },
    /// Part of graded questions that is answered right
    Tasks {
        /// A GGUF file or a Hugging Face folder
        model: PathBuf,
        /// Questions: JSON lines with `task`, `question` and `answer`
        #[arg(long, value_name = "FILE")]
        questions: PathBuf,
        /// Only the first N
        #[arg(long, value_name = "N")]
        limit: Option<NonZero<usize>>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Text {
    /// Documents: JSON lines with `text`
    #[arg(long = "text", value_name = "FILE")]
    file: PathBuf,
    /// Only the first N
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Comparison {
    /// A GGUF file or a Hugging Face folder
    model: PathBuf,
    /// The model to compare with, or what `eval reference` wrote of it
    #[arg(long, value_name = "MODEL")]
    reference: PathBuf,
    /// Documents: JSON lines with `text`; a reference file brings its own
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Only the first N
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Comparison {
    fn run(self, compute: &Compute) -> Result<Divergence> {
        let limit = self.limit.map_or(usize::MAX, NonZero::get);
        if ReferenceFile::is_one(&self.reference) {
            if self.text.is_some() {
                let message = "a reference file brings its text: leave out --text".into();
                return Err(Failure::Usage(message));
            }
            let reference = ReferenceFile::open(&self.reference)?;
            let subject = Bundle::open_for_all_threads(compute, &self.model)?.subject();
            return with_bar("comparing", |bar| {
                Ok(divergence_from_file(&subject, &reference, limit, bar)?)
            });
        }
        let Some(text) = &self.text else {
            let message = "--text is needed where the reference is a model".into();
            return Err(Failure::Usage(message));
        };
        let mut texts = read_documents(text)?;
        texts.truncate(limit);
        let subject = Bundle::open_for_all_threads(compute, &self.model)?.subject();
        let reference = Bundle::open_for_all_threads(compute, &self.reference)?.subject();
        with_bar("comparing", |bar| Ok(divergence(&subject, &reference, &texts, bar)?))
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
    compute.install();
    match args.what {
        What::Logits { model, tokens, chunk, out } => logits(compute, &model, &tokens, chunk, &out),
        What::Perplexity { model, text } => {
            let subject = Bundle::open_for_all_threads(compute, &model)?.subject();
            let result = with_bar("reading", |bar| Ok(perplexity(&subject, &text.read()?, bar)?))?;
            let rows = [
                ("perplexity", format!("{:.5}", result.perplexity)),
                ("tokens", result.tokens.to_string()),
            ];
            print(text.json, &result, &rows)
        }
        What::Reference { model, out, text } => {
            let subject = Bundle::open_for_all_threads(compute, &model)?.subject();
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
            print(text.json, &written, &rows)
        }
        What::Kld(comparison) => {
            let as_json = comparison.json;
            let result = comparison.run(compute)?;
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
            print(as_json, &result, &rows)
        }
        What::Tasks { model, questions, limit, json } => {
            let subject = Bundle::open_for_all_threads(compute, &model)?.subject();
            let mut questions = Question::read(&questions)?;
            questions.truncate(limit.map_or(usize::MAX, NonZero::get));
            let grades = with_bar("answering", |bar| Ok(grade(&subject, &questions, bar)?))?;
            let mut rows: Vec<(&str, String)> = Vec::new();
            for (task, [right, asked]) in &grades.tasks {
                rows.push((task, format!("{right}/{asked}")));
            }
            rows.push(("accuracy", format!("{:.2}%", grades.accuracy * 100.0)));
            print(json, &grades, &rows)
        }
    }
}

/// Runs an evaluation with a progress bar, which several threads move.
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

fn print(json: bool, result: &impl Serialize, rows: &[(&str, String)]) -> Result {
    if json {
        println!("{}", serde_json::to_string(result)?);
    } else {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|(name, value)| vec![name.to_string(), value.clone()]).collect();
        print!("{}", table(&rows));
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
    let Loaded { model, mut options, .. } = bundle::load(compute, path, 1)?;
    options.prefill_chunk = chunk.map_or(options.prefill_chunk, NonZero::get);
    let mut session = Session::new(model.clone(), compute.pool(), options);
    let logits = session.feed_all(tokens)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    let shape = vec![tokens.len(), model.config().vocab_size];
    let view = TensorView::new(Dtype::F32, shape, &bytes)?;
    let file = safetensors::serialize([("logits", view)], None::<HashMap<String, String>>)?;
    write_whole(out, &file)
}

/// Writes a file that appears only when it is whole.
fn write_whole(out: &Path, bytes: &[u8]) -> Result {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let failed = |error: std::io::Error| Failure::Error(format!("{}: {error}", out.display()));
    let mut file =
        tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(out).map_err(|error| failed(error.error))?;
    Ok(())
}
