//! `vaquita chat`: a conversation. Ctrl-C stops an answer, Ctrl-D quits.

mod command;
mod full;
mod input;
mod stored;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use vaquita_hub::Purpose;
use vaquita_runtime::app::Conversation;
use vaquita_runtime::session::chat::Message;
use vaquita_runtime::session::generate::StopReason;

use crate::answer::{self, stream};
use crate::bundle::Bundle;
use crate::cache_folder::CacheFolder;
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::hub::Fetch;
use crate::model_argument::ModelArgument;
use crate::sampling::{Sampling, Settled};
use crate::template::Template;
use command::Command;
use full::{OnFull, Room};
use input::Input;

/// Bytes of a session's cache up to which it is written between answers; a larger one is written
/// at the end, which spares a board's flash.
const SMALL_CACHE: usize = 32 << 20;
/// Least time between writes of a session.
const BETWEEN_WRITES: Duration = Duration::from_secs(10);

/// Arguments of `chat`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    #[command(flatten)]
    fetch: Fetch,
    /// System prompt
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Resume the conversation in this file if it exists, and keep it there
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// What to do when the context is full
    #[arg(long, value_name = "HOW", default_value = "shift")]
    on_full: OnFull,
    /// Do not keep a history of typed lines
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    template: Template,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    cache: CacheFolder,
    /// Print what each answer cost to standard error
    #[arg(long)]
    stats: bool,
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    let model = args.fetch.local(&args.model.path()?, Purpose::Run)?;
    let bundle = Bundle::open(compute, &model)?;
    args.cache.apply(&bundle)?;
    let tokenizer = bundle.prompter().tokenizer();
    let sampling = args.sampling.settle(bundle.suggested(), tokenizer, None)?;
    let variables = args.template.variables(bundle.prompter())?;
    let mut chat = Chat {
        conversation: bundle.conversation()?,
        bundle: &bundle,
        sampling,
        variables,
        on_full: args.on_full,
        session: args.session,
        kept: Instant::now(),
        dropped: Vec::new(),
        attached: String::new(),
        last: None,
        stats: args.stats,
    };
    chat.conversation.set_variables(chat.variables.clone());
    let mut input = Input::new(!args.no_history)?;
    if input.is_terminal() {
        say(&format!("{} · /help for commands, Ctrl-D to leave", model.display()))?;
    }
    if let Some(path) = chat.session.clone().filter(|path| path.exists()) {
        chat.load(&path)?;
    }
    if let Some(system) = &args.system {
        chat.conversation.set_system(system);
    }
    while let Some(text) = input.message()? {
        match Command::parse(&text) {
            None if text.trim().is_empty() => {}
            None => {
                let text = std::mem::take(&mut chat.attached) + &text;
                chat.answer(Some(&text))?;
            }
            Some(Command::Exit) => break,
            Some(command) => match chat.obey(command, &mut input) {
                // A command that fails costs nothing of the conversation.
                Err(Failure::Error(message) | Failure::Usage(message)) => {
                    say(&format!("({message})"))?;
                }
                other => other?,
            },
        }
    }
    chat.keep()?;
    bundle.finish()
}

/// Prints a line.
fn say(line: &str) -> Result {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// A conversation with what surrounds it.
struct Chat<'a> {
    conversation: Conversation,
    bundle: &'a Bundle,
    sampling: Settled,
    /// Variables of the template.
    variables: Map<String, Value>,
    on_full: OnFull,
    /// File that the conversation is kept in.
    session: Option<PathBuf>,
    /// Time at which it was last written.
    kept: Instant,
    /// Messages that the context had no room for, oldest first.
    dropped: Vec<Message>,
    /// Text of files for the next message.
    attached: String,
    /// Cost of the last answer.
    last: Option<String>,
    stats: bool,
}

impl Chat<'_> {
    /// Answers `user`, or the messages so far, in a context with room for it. Returns whether there
    /// is an answer.
    fn answer(&mut self, user: Option<&str>) -> Result<bool> {
        match self.make_room(user)? {
            Room::Enough => {}
            Room::Dropped(messages) => self.say_dropped(messages)?,
            Room::Full(problem) => {
                say(&format!("({problem})"))?;
                return Ok(false);
            }
        }
        let input = user.map_or(answer::Input::Next, answer::Input::Turn);
        let answer = stream(&mut self.conversation, self.bundle, input, &self.sampling, false)?;
        if answer.generation.stop == StopReason::ContextFull {
            let context = self.conversation.context();
            say(&format!("(the answer ends here: the context of {context} tokens is full)"))?;
        }
        if let Some(lossy) = answer.lossy.as_ref().filter(|_| self.last.is_none()) {
            say(&format!("(note: {lossy})"))?;
        }
        let summary = answer.summary();
        if self.stats {
            eprintln!("{summary}");
        }
        self.last = Some(summary);
        let is_small = self.conversation.cache_bytes() <= SMALL_CACHE;
        if is_small && self.kept.elapsed() >= BETWEEN_WRITES {
            self.keep()?;
            self.kept = Instant::now();
        }
        Ok(true)
    }

    fn obey(&mut self, command: Command, input: &mut Input) -> Result {
        match command {
            Command::Exit => Ok(()),
            Command::Help => say(command::HELP),
            Command::Unknown(name) => say(&format!("{name}: no such command\n{}", command::HELP)),
            Command::Stats => say(self.last.as_deref().unwrap_or("no answer yet")),
            Command::Reset => {
                self.conversation.reset();
                self.dropped.clear();
                Ok(())
            }
            Command::Regenerate => self.regenerate(),
            Command::Edit(text) => self.edit(text, input),
            Command::System(None) => {
                let messages = self.conversation.messages();
                let system = messages.iter().find(|message| message.role == "system");
                say(system.map_or("(no system prompt)", |message| &message.content))
            }
            Command::System(Some(text)) => {
                self.conversation.set_system(&text);
                say("(the system prompt is set)")
            }
            Command::Think(how) => self.think(&how),
            Command::File(path) => self.attach(&path),
            Command::Tools(file) => self.tools(file),
            Command::Save(path) => {
                let path = path.or(self.session.clone());
                let path = path.ok_or_else(|| Failure::Usage("/save needs a file".into()))?;
                self.save(&path)?;
                say(&format!("(saved to {})", path.display()))
            }
            Command::Load(path) => self.load(&path),
        }
    }

    /// Answers the last message once more, from another seed.
    fn regenerate(&mut self) -> Result {
        let messages = self.conversation.messages().to_vec();
        if messages.last().is_none_or(|message| message.role != "assistant") {
            return Err(Failure::Usage("there is no answer yet".into()));
        }
        let seed = self.sampling.generation.sampling.seed;
        self.sampling.reseed();
        let answered = self.replace(messages, 1, None);
        self.sampling.generation.sampling.seed = seed;
        answered
    }

    /// Asks the last question again in other words.
    fn edit(&mut self, text: Option<String>, input: &mut Input) -> Result {
        let messages = self.conversation.messages().to_vec();
        let at = messages.iter().rposition(|message| message.role == "user");
        let at = at.ok_or_else(|| Failure::Usage("there is no message yet".into()))?;
        let text = match text {
            Some(text) => Some(text),
            None => input.edit(&messages[at].content)?,
        };
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            return Err(Failure::Usage("/edit needs the message's new text".into()));
        };
        let end = messages.len() - at;
        self.replace(messages, end, Some(&text))
    }

    /// Answers `user` after all but the last `end` messages, which come back if there is no answer.
    fn replace(&mut self, messages: Vec<Message>, end: usize, user: Option<&str>) -> Result {
        let kept = messages[..messages.len() - end].to_vec();
        let before = self.dropped.len();
        self.conversation.set_messages(kept.clone())?;
        let answered = self.answer(user);
        let is_unchanged = self.dropped.len() == before && self.conversation.messages() == kept;
        if is_unchanged {
            self.conversation.set_messages(messages)?;
        }
        answered.map(|_| ())
    }

    fn think(&mut self, how: &str) -> Result {
        self.variables.extend(crate::template::think(how, self.bundle.prompter())?);
        self.conversation.set_variables(self.variables.clone());
        say(&format!("(thinking: {how})"))
    }

    /// Puts a file before the next message.
    fn attach(&mut self, path: &Path) -> Result {
        let text = stored::read_text(path)?;
        let name = path.display();
        self.attached.push_str(&format!("{name}:\n```\n{}\n```\n\n", text.trim_end()));
        say(&format!(
            "({name}, {}, goes with the next message)",
            crate::size::show(text.len() as u64)
        ))
    }

    fn tools(&mut self, file: Option<PathBuf>) -> Result {
        let json = file.as_deref().map(stored::read_text).transpose()?.unwrap_or_default();
        self.conversation.set_tools(&json)?;
        say(if json.is_empty() { "(no tools)" } else { "(the model may call these tools)" })
    }
}
