//! Messages from a terminal with a history, or from standard input.

use std::env;
use std::io::{BufRead, IsTerminal, Read, StdinLock, stdin};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use crate::failure::{Failure, Result};

/// Maximum length in bytes of a message from standard input.
const LONGEST: u64 = 32 << 20;
/// Lines of the history.
const HISTORY: usize = 1000;
/// Begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

/// Source of messages.
pub struct Input {
    lines: Lines,
    /// File of the history, if one is kept.
    history: Option<PathBuf>,
}

enum Lines {
    Editor(Box<DefaultEditor>),
    Pipe(StdinLock<'static>),
}

/// `$XDG_STATE_HOME/vaquita/history`, or the default of that variable.
fn history_file() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/state"));
    Some(state.or_else(home)?.join("vaquita/history"))
}

impl Input {
    /// The terminal or standard input.
    pub fn new(keeps_history: bool) -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self { lines: Lines::Pipe(stdin().lock()), history: None });
        }
        let config = Config::builder().max_history_size(HISTORY)?.build();
        let mut editor = DefaultEditor::with_config(config)?;
        let history = history_file().filter(|_| keeps_history);
        if let Some(path) = &history {
            // There is none before the first conversation, and without one it works as well.
            let _ = editor.load_history(path);
        }
        Ok(Self { lines: Lines::Editor(Box::new(editor)), history })
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        matches!(self.lines, Lines::Editor(_))
    }

    /// The next message, of one or several lines; `None` at the end.
    pub fn message(&mut self) -> Result<Option<String>> {
        let Some(mut text) = self.line("> ")? else { return Ok(None) };
        if let Some(first) = text.trim_start().strip_prefix(QUOTES) {
            text = first.to_string();
            while !text.trim_end().ends_with(QUOTES) {
                let Some(line) = self.line(". ")? else { break };
                text = joined(text, "\n", &line)?;
            }
            let text = text.trim_end();
            return Ok(Some(text.strip_suffix(QUOTES).unwrap_or(text).trim().to_string()));
        }
        while let Some(begun) = text.strip_suffix('\\') {
            let line = self.line(". ")?.unwrap_or_default();
            text = joined(begun.to_string(), "\n", &line)?;
        }
        Ok(Some(text))
    }

    /// The text as a person changes it; `None` where nobody can, or nobody wants to.
    pub fn edit(&mut self, text: &str) -> Result<Option<String>> {
        let Lines::Editor(editor) = &mut self.lines else { return Ok(None) };
        match editor.readline_with_initial("> ", (text, "")) {
            Ok(line) => Ok(Some(line)),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        match &mut self.lines {
            Lines::Editor(editor) => loop {
                match editor.readline(prompt) {
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
            Lines::Pipe(lines) => {
                let mut line = String::new();
                let read = lines.by_ref().take(LONGEST + 1).read_line(&mut line)?;
                check_length(&line)?;
                Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_string()))
            }
        }
    }
}

fn joined(text: String, between: &str, line: &str) -> Result<String> {
    let text = text + between + line;
    check_length(&text)?;
    Ok(text)
}

fn check_length(text: &str) -> Result {
    match text.len() as u64 > LONGEST {
        true => Err(Failure::Error(format!("a message has more than {LONGEST} bytes"))),
        false => Ok(()),
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let (Lines::Editor(editor), Some(path)) = (&mut self.lines, &self.history) {
            // A history that cannot be written is no reason to fail.
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.save_history(path);
        }
    }
}
