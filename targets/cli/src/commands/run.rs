//! `vaquita run`: answers one prompt.

use std::io::{self, IsTerminal, Read, Write, stderr, stdin};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use vaquita_hub::Purpose;

use crate::answer::{Input, interrupted, stream};
use crate::bundle::Bundle;
use crate::cache_folder::CacheFolder;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::hub::Fetch;
use crate::model_argument::ModelArgument;
use crate::sampling::Sampling;
use crate::slips;
use crate::structure::Structure;
use crate::template::Template;

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    #[command(flatten)]
    fetch: Fetch,
    /// Prompt, in one or several words [default: read standard input]
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt", "file"])]
    words: Vec<String>,
    /// Prompt, as an option
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "file")]
    prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// System prompt
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "raw")]
    system: Option<String>,
    /// Pass the prompt to the model without the chat template
    #[arg(long, conflicts_with_all = ["think", "template_var"])]
    raw: bool,
    #[command(flatten)]
    template: Template,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    structure: Structure,
    #[command(flatten)]
    cache: CacheFolder,
    /// Print what the answer cost to standard error, as on a terminal
    #[arg(long)]
    stats: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let (model, words) = args.model.with_words(args.words)?;
    let model = args.fetch.local(&model, Purpose::Run)?;
    slips::check_model(&model)?;
    let given = args.prompt.or((!words.is_empty()).then(|| words.join(" ")));
    if given.is_some() && args.file.is_some() {
        return Err(Failure::Usage("the prompt is given twice, as text and with --file".into()));
    }
    // Before the model is opened: a prompt from a terminal takes time, and an empty one no model.
    let text = prompt(given, args.file.as_deref())?;
    if text.trim().is_empty() && !args.raw {
        return Err(Failure::Usage(
            "the prompt is empty; give one as in: vaquita run MODEL \"Why is the sky blue?\""
                .into(),
        ));
    }
    let bundle = Bundle::open(compute, &model)?;
    let grammar = args.structure.grammar(&bundle)?;
    let tokenizer = bundle.prompter().tokenizer();
    let sampling = args.sampling.settle(bundle.suggested(), tokenizer, grammar)?;
    args.cache.apply(&bundle)?;
    let mut conversation = bundle.conversation()?;
    conversation.set_system(args.system.as_deref().unwrap_or_default());
    conversation.set_variables(args.template.variables(bundle.prompter())?);
    let input = if args.raw { Input::Raw(&text) } else { Input::Turn(&text) };
    let answer = stream(&mut conversation, &bundle, input, &sampling, args.json)?;
    if args.json {
        writeln!(io::stdout(), "{}", answer.json())?;
    } else if args.stats || stderr().is_terminal() {
        eprintln!("\n{}", answer.summary());
    } else if let Some(lossy) = &answer.lossy {
        // Answers of a lossy mode are labelled in every form.
        eprintln!("note: {lossy}");
    }
    bundle.finish()?;
    match interrupted()?.load(Ordering::Relaxed) {
        true => Err(Failure::Interrupted),
        false => Ok(()),
    }
}

/// The prompt: as given, or from a file, or from standard input.
fn prompt(given: Option<String>, file: Option<&Path>) -> Result<String> {
    if let Some(text) = given {
        return Ok(text);
    }
    let mut text = String::new();
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let failed =
                |error: io::Error| Failure::Error(format!("--file: {}: {error}", file.display()));
            text = std::fs::read_to_string(file).map_err(failed)?;
        }
        None => {
            if stdin().is_terminal() {
                eprintln!(
                    "reading the prompt from the terminal: end it with Ctrl-D on a line of its own \
                     (`vaquita chat` holds a conversation)"
                );
            }
            stdin().read_to_string(&mut text)?;
        }
    }
    // The final newline of a line from a terminal or file is not part of the question.
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_string())
}
