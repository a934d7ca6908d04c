//! `vaquita chat`: a conversation. Ctrl-C stops an answer, Ctrl-D quits.

use std::io::{self, BufRead, IsTerminal, Read, Write, stdin};
use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use vaquita_hub::Purpose;
use vaquita_runtime::session::generate::StopReason;

use crate::answer::{self, Sampling, stream};
use crate::bundle::Bundle;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::hub::Fetch;
use crate::template::Template;

/// Maximum length in bytes of a line from standard input.
const LONGEST_LINE: u64 = 32 << 20;

const HELP: &str = "\
/reset   forget the conversation
/stats   what the last answer cost
/help    this
/exit    leave (or Ctrl-D)
Ctrl-C stops an answer and keeps the conversation.";

/// Arguments of `chat`.
#[derive(clap::Args)]
pub struct Args {
    /// GGUF file, or Hugging Face folder, which runs unquantized, or hf:ORG/MODEL of the hub
    model: PathBuf,
    #[command(flatten)]
    fetch: Fetch,
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    template: Template,
    #[command(flatten)]
    sampling: Sampling,
}

/// Source of lines: a terminal with history, or standard input.
enum Input {
    Editor(Box<DefaultEditor>),
    Lines(std::io::StdinLock<'static>),
}

impl Input {
    fn new() -> Result<Self> {
        match stdin().is_terminal() {
            true => Ok(Self::Editor(Box::new(DefaultEditor::new()?))),
            false => Ok(Self::Lines(stdin().lock())),
        }
    }

    /// The next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        match self {
            Self::Editor(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        editor.add_history_entry(&line)?;
                        return Ok(Some(line));
                    }
                    // Ctrl-C at the prompt clears the line.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
            Self::Lines(lines) => {
                let mut line = String::new();
                let read = lines.by_ref().take(LONGEST_LINE + 1).read_line(&mut line)?;
                if line.len() as u64 > LONGEST_LINE {
                    let what = format!("a line has more than {LONGEST_LINE} bytes");
                    return Err(Failure::Error(what));
                }
                Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_string()))
            }
        }
    }
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let model = args.fetch.local(&args.model, Purpose::Run)?;
    let bundle = Bundle::open(compute, &model)?;
    let mut conversation = bundle.conversation()?;
    conversation.set_system(args.system.as_deref().unwrap_or_default());
    conversation.set_variables(args.template.variables(bundle.prompter())?);
    let mut input = Input::new()?;
    if matches!(input, Input::Editor(_)) {
        writeln!(io::stdout(), "{} · /help for commands, Ctrl-D to leave", args.model.display())?;
    }
    let mut last = None;
    while let Some(line) = input.line()? {
        match line.trim() {
            "" => continue,
            "/exit" | "/quit" => break,
            "/help" => writeln!(io::stdout(), "{HELP}")?,
            "/reset" => conversation.reset(),
            "/stats" => writeln!(io::stdout(), "{}", last.as_deref().unwrap_or("no answer yet"))?,
            command if command.starts_with('/') => {
                writeln!(io::stdout(), "{command}: no such command\n{HELP}")?
            }
            _ => {
                let turn = answer::Input::Turn(&line);
                let answer = stream(&mut conversation, &bundle, turn, &args.sampling, false)?;
                if answer.generation.stop == StopReason::ContextFull {
                    writeln!(
                        io::stdout(),
                        "(the context of {} tokens is full: /reset)",
                        conversation.context()
                    )?;
                }
                last = Some(answer.summary());
            }
        }
    }
    bundle.finish()
}
