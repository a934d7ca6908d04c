//! `vaquita eval protocol`: published evaluations on question files that the user has.

mod args;
mod run;

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use vaquita_calibration::protocol::ask::Answered;
use vaquita_calibration::protocol::multiple_choice::{self, Scores};
use vaquita_calibration::protocol::prompts::{self, Places};
use vaquita_calibration::protocol::questions::{Choice, Instruction, Problem, Question};
use vaquita_calibration::protocol::win_rate::{Verdict, win_rate};
use vaquita_calibration::protocol::{gsm8k as gsm8k_rules, pass_rate};

use super::eval::{print, with_bar};
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::files::write_whole;
use args::{Common, Draws, Shots};
use run::{Run, subjects};

/// Arguments of `eval protocol`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Subcommand)]
enum Protocol {
    /// AIME: the fraction of right answers in \boxed{} over several samples (pass@1)
    Aime(Sampled),
    /// MATH: the same, with answers in any equal form
    Math(Sampled),
    /// GSM8K: right answers behind `####`, and right last numbers
    Gsm8k(Gsm8k),
    /// MMLU: the most likely letter, or with --generate the letter of a generated answer
    Mmlu(Mmlu),
    /// AlpacaEval: outputs for a judge, or with --verdicts the win rates of its verdicts
    Alpaca(Alpaca),
}

#[derive(ClapArgs)]
struct Sampled {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    draws: Draws,
}

#[derive(ClapArgs)]
struct Gsm8k {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    draws: Draws,
    #[command(flatten)]
    shots: Shots,
    /// Ask in a conversation, with the model's chat template
    #[arg(long)]
    chat: bool,
}

#[derive(ClapArgs)]
struct Mmlu {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    draws: Draws,
    #[command(flatten)]
    shots: Shots,
    /// Ask for an answer in a conversation instead of comparing likelihoods
    #[arg(long)]
    generate: bool,
}

#[derive(ClapArgs)]
struct Alpaca {
    /// GGUF file or Hugging Face folder
    #[arg(value_name = "MODEL", required_unless_present = "verdicts", conflicts_with = "verdicts")]
    model: Option<PathBuf>,
    /// Instructions: JSON lines with `instruction`
    #[arg(long, value_name = "FILE", required_unless_present = "verdicts")]
    questions: Option<PathBuf>,
    /// Write the model's outputs to this file, for a judge
    #[arg(short, long, value_name = "FILE", required_unless_present = "verdicts")]
    out: Option<PathBuf>,
    /// Verdicts of a judge, as AlpacaEval writes annotations.json, or as JSON lines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["questions", "out"])]
    verdicts: Option<PathBuf>,
    /// Use only the first N instructions
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Keep answers in this file; the same command goes on from it
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    #[command(flatten)]
    draws: Draws,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    match args.protocol {
        Protocol::Aime(args) => sampled(compute, "aime", 16, args),
        Protocol::Math(args) => sampled(compute, "math", 4, args),
        Protocol::Gsm8k(args) => gsm8k(compute, args),
        Protocol::Mmlu(args) => mmlu(compute, args),
        Protocol::Alpaca(args) => alpaca(compute, args),
    }
}

fn most(limit: Option<NonZero<usize>>) -> usize {
    limit.map_or(usize::MAX, NonZero::get)
}

/// AIME and MATH.
fn sampled(compute: &Compute, name: &'static str, samples: usize, args: Sampled) -> Result {
    let Sampled { common, draws } = args;
    let mut problems = Problem::read(&common.questions)?;
    let template = common.prompt.as_deref().unwrap_or(prompts::BOXED);
    let texts: Vec<String> = problems.iter().map(|one| prompts::fill(template, one)).collect();
    let run = Run::open(compute, name, &common.model.path()?)?;
    let asking = run.asking(&draws, (samples, 0.6), true)?;
    let answers = run.ask(&texts, most(common.limit), &asking, common.answers.as_deref())?;
    problems.truncate(answers.len());
    let rate = pass_rate::of_problems(&problems, &answers);
    run.print_rate(common.json, &asking, "without a box", &rate)
}

fn gsm8k(compute: &Compute, args: Gsm8k) -> Result {
    let Gsm8k { common, draws, shots, chat } = args;
    let mut problems = Problem::read(&common.questions)?;
    let template = common.prompt.as_deref().unwrap_or(prompts::GSM8K);
    let texts = with_shots(&problems, &shots, template, |_, _| true)?;
    let run = Run::open(compute, "gsm8k", &common.model.path()?)?;
    let mut asking = run.asking(&draws, (1, 0.0), chat)?;
    asking.stop = gsm8k_rules::STOPS.map(String::from).to_vec();
    if !chat {
        asking.max_tokens = asking.max_tokens.or(Some(gsm8k_rules::MAX_TOKENS));
    }
    let answers = run.ask(&texts, most(common.limit), &asking, common.answers.as_deref())?;
    problems.truncate(answers.len());
    let rate = pass_rate::of_gsm8k(&problems, &answers);
    run.print_rate(common.json, &asking, "without ####", &rate)
}

/// The prompts of questions after the first of the examples that fit them.
fn with_shots<T: Question + Places>(
    questions: &[T],
    shots: &Shots,
    template: &str,
    fits: impl Fn(&T, &T) -> bool,
) -> Result<Vec<String>> {
    let examples = match &shots.examples {
        Some(path) => T::read(path)?,
        None => Vec::new(),
    };
    let prompt = |question: &T| {
        let fitting = examples.iter().filter(|example| fits(example, question));
        let shown: Vec<&T> = fitting.take(shots.shots).collect();
        prompts::with_examples(template, &shown, question)
    };
    Ok(questions.iter().map(prompt).collect())
}

fn mmlu(compute: &Compute, args: Mmlu) -> Result {
    let Mmlu { common, draws, shots, generate } = args;
    let mut choices = Choice::read(&common.questions)?;
    let own = if generate { prompts::MMLU_CHAT } else { prompts::MMLU };
    let template = common.prompt.as_deref().unwrap_or(own);
    let mut texts =
        with_shots(&choices, &shots, template, |example, one| example.subject == one.subject)?;
    if !generate && common.prompt.is_none() {
        for (text, choice) in texts.iter_mut().zip(&choices) {
            text.insert_str(0, &prompts::introduction(choice));
        }
    }
    let run = Run::open(compute, "mmlu", &common.model.path()?)?;
    let answers = common.answers.as_deref();
    if generate {
        let asking = run.asking(&draws, (1, 0.0), true)?;
        let answers = run.ask(&texts, most(common.limit), &asking, answers)?;
        choices.truncate(answers.len());
        let rate = pass_rate::of_choices(&choices, &answers);
        return run.print_rate(common.json, &asking, "without a box", &rate);
    }
    let journal = run.journal::<Scores>(answers, &texts, Value::Null)?;
    choices.truncate(most(common.limit));
    texts.truncate(choices.len());
    let scores = with_bar("scoring", |bar| {
        Ok(multiple_choice::score(&run.subject, &texts, &choices, &journal, bar)?)
    })?;
    let result = multiple_choice::accuracy(&choices, &scores);
    let mut rows = vec![("accuracy", result.accuracy.percent())];
    rows.extend(subjects(&result.subjects));
    rows.push(("questions", result.questions.to_string()));
    let mut report = serde_json::to_value(&result)?;
    report["protocol"] = run.name.into();
    print(common.json, run.bundle.loaded().lossy.clone(), &report, &rows)
}

fn alpaca(compute: &Compute, args: Alpaca) -> Result {
    if let Some(path) = &args.verdicts {
        let rate = win_rate(&Verdict::read(path)?);
        let rows = [
            ("win rate", rate.win_rate.percent()),
            ("length-controlled", rate.length_controlled.percent()),
            ("verdicts", rate.verdicts.to_string()),
            ("won, lost, drawn", format!("{}, {}, {}", rate.wins, rate.losses, rate.draws)),
            ("length coefficient", format!("{:.4}", rate.length_coefficient)),
        ];
        return print(args.json, None, &rate, &rows);
    }
    let (Some(model), Some(questions), Some(out)) = (&args.model, &args.questions, &args.out)
    else {
        return Err(Failure::Usage("MODEL, --questions and --out are needed".into()));
    };
    let mut instructions = Instruction::read(questions)?;
    let texts: Vec<String> = instructions.iter().map(|one| one.instruction.clone()).collect();
    let run = Run::open(compute, "alpaca", model)?;
    let asking = run.asking(&args.draws, (1, 0.6), true)?;
    if asking.samples > 1 {
        let message = "a judge reads one output per instruction: leave out --samples";
        return Err(Failure::Usage(message.into()));
    }
    let answers = run.ask(&texts, most(args.limit), &asking, args.answers.as_deref())?;
    instructions.truncate(answers.len());
    let generator = run.identity.get("model").cloned().unwrap_or_default();
    let output = |(instruction, answers): (&Instruction, &Vec<Answered>)| {
        let mut json = json!(instruction);
        json["output"] = answers.first().map_or("", |answer| answer.answer.trim()).into();
        json["generator"] = generator.clone();
        json
    };
    let outputs: Vec<Value> = instructions.iter().zip(&answers).map(output).collect();
    write_whole(out, format!("{}\n", serde_json::to_string_pretty(&outputs)?).as_bytes())?;
    let cut = answers.iter().flatten().filter(|answer| answer.cut).count();
    let rows = [
        ("file", out.display().to_string()),
        ("outputs", outputs.len().to_string()),
        ("cut short", cut.to_string()),
    ];
    let report = json!({"protocol": run.name, "outputs": outputs.len(), "cut": cut});
    print(args.json, run.bundle.loaded().lossy.clone(), &report, &rows)
}
