//! `vaquita demo`: from a checkpoint to answers in under a minute, with the reference model.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use vaquita_calibration::tasks::{Question, grade};
use vaquita_quantize::{Allocation, DenseTypes, Target};
use vaquita_runtime::blocks::BlockType;

use super::eval::with_bar;
use super::quantize::{Request, Types, make};
use crate::answer::{Input, stream};
use crate::bundle::Bundle;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::sampling::Settled;
use crate::size;
use crate::terminal::table;

/// The checkpoint in the repository that this program was built from.
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../calibration/reference");
/// The checkpoint in a package, relative to the program's folder.
const INSTALLED: &str = "../share/vaquita/reference";
/// Bits per weight of the mixed file.
const MIXED_BITS: f64 = 3.5;
/// Kinds of questions, one of each is asked.
const TASKS: [&str; 3] = ["word", "capital", "tool"];

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint: a Hugging Face folder with graded questions in eval.jsonl [default: the
    /// reference model that ships with the project]
    #[arg(long, value_name = "FOLDER", default_value_os_t = reference(), hide_default_value = true)]
    reference: PathBuf,
    /// Folder to keep the files in [default: a temporary folder]
    #[arg(short, long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Number of graded questions for the accuracy
    #[arg(long, value_name = "N", default_value_t = 200)]
    questions: usize,
}

/// The reference checkpoint: the package's for an installed program, otherwise the repository's.
pub fn reference() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let installed = program.parent().map(|folder| folder.join(INSTALLED));
    let found = installed.filter(|folder| folder.is_dir()).unwrap_or_else(|| REFERENCE.into());
    // Without `..`, since it is printed.
    found.canonicalize().unwrap_or(found)
}

/// Output of `run --json` in a separate process.
#[derive(Deserialize)]
struct Measured {
    decode_tokens_per_second: Option<f64>,
    peak_rss_bytes: Option<u64>,
    joules_per_token: Option<f64>,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    if !args.reference.join("config.json").exists() {
        let message = format!(
            "{} is not a checkpoint; --reference names a folder with config.json and eval.jsonl",
            args.reference.display()
        );
        return Err(Failure::Error(message));
    }
    compute.install()?;
    let questions = Question::read(&args.reference.join("eval.jsonl"))?;
    let asked: Vec<&Question> =
        TASKS.iter().filter_map(|task| questions.iter().find(|one| one.task == *task)).collect();
    let graded = &questions[..args.questions.clamp(1, questions.len())];
    let temporary = tempfile::tempdir()?;
    let out = args.out.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(out)?;

    writeln!(io::stdout(), "Quantizing {}", args.reference.display())?;
    let mut models = vec![("full precision", args.reference.clone(), None)];
    let e4 = Types::Uniform(BlockType::E4, DenseTypes::beside(BlockType::E4));
    let mixed = Types::Mixed(Target::BitsPerWeight(MIXED_BITS), Allocation::PerExpert);
    for (name, types) in [("e4", e4), ("mixed", mixed)] {
        let file = out.join(format!("reference-{name}.gguf"));
        let report = make(compute, &Request::new(&args.reference, &file, types))?;
        writeln!(
            io::stdout(),
            "  {name:<6} {}  {:.2} bits per weight, {:.2} in the experts",
            size::show(report.file_bytes),
            report.bits_per_weight,
            report.expert_bits_per_weight
        )?;
        models.push((name, file, Some(report)));
    }
    for (name, file, _) in &models[1..] {
        writeln!(io::stdout(), "\n== {name}")?;
        ask(compute, file, &asked)?;
    }

    let heads = ["", "size", "bits/weight", "tokens/s", "peak memory", "J/token", "accuracy"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for (name, path, report) in &models {
        let bundle = Bundle::open_for_all_threads(compute, path)?;
        let subject = bundle.subject(compute);
        let grades = with_bar("answering", |bar| Ok(grade(&subject, graded, bar)?))?;
        let measured = measure(compute, path, &asked[0].question)?;
        let (bytes, bits) = match report {
            Some(report) => (report.file_bytes, format!("{:.2}", report.bits_per_weight)),
            None => (std::fs::metadata(path.join("model.safetensors"))?.len(), "8 (FP8)".into()),
        };
        let unmeasured = || "unmeasured".to_string();
        rows.push(vec![
            name.to_string(),
            size::show(bytes),
            bits,
            measured.decode_tokens_per_second.map_or_else(unmeasured, |rate| format!("{rate:.0}")),
            measured.peak_rss_bytes.map_or_else(unmeasured, size::show),
            measured.joules_per_token.map_or_else(unmeasured, |joules| format!("{joules:.4}")),
            format!("{:.1}%", grades.accuracy * 100.0),
        ]);
    }
    writeln!(io::stdout(), "\n{}", table(&rows))?;
    writeln!(
        io::stdout(),
        "accuracy over {} graded questions; tokens/s of one answer with {} threads",
        graded.len(),
        compute.threads()
    )?;
    Ok(())
}

/// Asks the questions and shows the model's reasoning and answers.
fn ask(compute: &Compute, file: &Path, questions: &[&Question]) -> Result {
    let bundle = Bundle::open(compute, file)?;
    let mut conversation = bundle.conversation()?;
    for question in questions {
        writeln!(io::stdout(), "\n> {}", question.question.replace('\n', "\n> "))?;
        conversation.reset();
        let turn = Input::Turn(&question.question);
        let answer = stream(&mut conversation, &bundle, turn, &Settled::greedy(256), false)?;
        let right = answer.generation.answer.trim() == question.answer;
        writeln!(io::stdout(), "({})", if right { "right" } else { "wrong" })?;
    }
    Ok(())
}

/// The median of three runs.
fn measure(compute: &Compute, model: &Path, question: &str) -> Result<Measured> {
    let runs = (0..3).map(|_| run_alone(compute, model, question));
    let mut runs: Vec<Measured> = runs.collect::<Result<_>>()?;
    let rate = |run: &Measured| run.decode_tokens_per_second.unwrap_or(0.0);
    runs.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    Ok(runs.swap_remove(1))
}

/// Generates one answer in a separate process, so that its peak memory is that of this model alone.
fn run_alone(compute: &Compute, model: &Path, question: &str) -> Result<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg(model).args(["--temp", "0", "-n", "256", "--json", "-p", question]);
    command.args(["--threads", &compute.threads().to_string()]);
    command.args(["--isa", compute.tier()?.name()]);
    let output = command.output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::Error(message.trim_start_matches("error: ").trim().into()));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
