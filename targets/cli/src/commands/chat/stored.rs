//! Conversations in files: with the model's cache, or as plain messages in JSON.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use vaquita_runtime::app::AppError;
use vaquita_runtime::session::chat::Message;

use super::{Chat, say};
use crate::failure::{Failure, Result};
use crate::files::write_whole;

/// Maximum length in bytes of a text file that is read.
const LONGEST: u64 = 32 << 20;

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String> {
    let failed = |error: std::io::Error| Failure::Error(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(Failure::Error(format!("{}: more than {LONGEST} bytes", path.display())));
    }
    Ok(text)
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

impl Chat<'_> {
    /// Writes the conversation: with its cache, or as messages where the name says so or the model
    /// is a folder, whose caches are not saved.
    pub(super) fn save(&mut self, path: &Path) -> Result {
        if !is_json(path) {
            match self.conversation.save(path) {
                Err(AppError::NoFile) => {}
                other => return Ok(other?),
            }
        }
        let messages: Vec<&Message> =
            self.dropped.iter().chain(self.conversation.messages()).collect();
        write_whole(path, &serde_json::to_vec_pretty(&messages)?)
    }

    /// Goes on with a saved conversation.
    pub(super) fn load(&mut self, path: &Path) -> Result {
        let mut first = [0];
        let read = File::open(path).and_then(|mut file| file.read(&mut first));
        read.map_err(|error| Failure::Error(format!("{}: {error}", path.display())))?;
        if first == *b"[" {
            let messages: Vec<Message> = serde_json::from_str(&read_text(path)?)
                .map_err(|error| Failure::Error(format!("{}: {error}", path.display())))?;
            self.conversation.set_messages(messages)?;
        } else {
            self.conversation.restore(path)?;
            self.conversation.set_variables(self.variables.clone());
        }
        self.dropped.clear();
        say(&format!("(resumed {} messages)", self.conversation.messages().len()))
    }

    /// Writes the conversation to the session's file, if there is one.
    pub(super) fn keep(&mut self) -> Result {
        match self.session.clone() {
            Some(path) => self.save(&path),
            None => Ok(()),
        }
    }

    /// Says what was dropped, and appends it to a file beside the session's.
    pub(super) fn say_dropped(&mut self, messages: Vec<Message>) -> Result {
        let count = messages.len();
        let context = self.conversation.context();
        let kept = match &self.session {
            None => "/save FILE.json writes them too".to_string(),
            Some(session) => {
                let path = session.with_added_extension("dropped.jsonl");
                let lines = messages.iter().map(serde_json::to_string);
                let lines = lines.collect::<serde_json::Result<Vec<_>>>()?.join("\n") + "\n";
                let appended = OpenOptions::new().create(true).append(true).open(&path);
                appended
                    .and_then(|mut file| file.write_all(lines.as_bytes()))
                    .map_err(|error| Failure::Error(format!("{}: {error}", path.display())))?;
                format!("they are in {}", path.display())
            }
        };
        self.dropped.extend(messages);
        say(&format!(
            "(the context of {context} tokens is full: dropped the {count} oldest messages; {kept})"
        ))
    }
}
