//! `vaquita run`: answers one prompt.

use std::io::{self, IsTerminal, Read, Write, stderr, stdin};
use std::path::PathBuf;

use vaquita_hub::Purpose;

use crate::answer::{Input, Sampling, stream};
use crate::bundle::Bundle;
use crate::compute::Compute;
use crate::failure::Result;
use crate::hub::Fetch;
use crate::structure::Structure;
use crate::template::Template;

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// GGUF file, or Hugging Face folder, which runs unquantized, or hf:ORG/MODEL of the hub
    model: PathBuf,
    #[command(flatten)]
    fetch: Fetch,
    /// Prompt [default: read standard input]
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// System prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
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
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, mut args: Args) -> Result {
    let model = args.fetch.local(&args.model, Purpose::Run)?;
    let bundle = Bundle::open(compute, &model)?;
    args.sampling.grammar = args.structure.grammar(&bundle)?;
    let text = match args.prompt {
        Some(text) => text,
        None => {
            let mut text = String::new();
            stdin().read_to_string(&mut text)?;
            // The final newline of a line from a terminal or file is not part of the question.
            text.strip_suffix('\n').unwrap_or(&text).to_string()
        }
    };
    let mut conversation = bundle.conversation()?;
    conversation.set_system(args.system.as_deref().unwrap_or_default());
    conversation.set_variables(args.template.variables(bundle.prompter())?);
    let input = if args.raw { Input::Raw(&text) } else { Input::Turn(&text) };
    let answer = stream(&mut conversation, &bundle, input, &args.sampling, args.json)?;
    if args.json {
        writeln!(io::stdout(), "{}", answer.json())?;
    } else if stderr().is_terminal() {
        eprintln!("\n{}", answer.summary());
    }
    bundle.finish()
}
