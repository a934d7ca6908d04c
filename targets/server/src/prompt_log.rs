//! The file of prompts and answers that an operator may ask for. Without it, no text is logged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use vaquita_runtime::session::generate::Generation;

use crate::served::Served;

/// Name of the file in its folder.
const FILE: &str = "prompts.jsonl";

/// An answer that has ended.
pub(crate) struct Entry {
    pub model: Arc<Served>,
    /// Identifier of the request.
    pub id: String,
    /// Method and route.
    pub route: String,
    /// Name of the client.
    pub client: String,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    pub generation: Generation,
}

/// Writes entries on a thread of its own, as JSON lines.
pub(crate) struct PromptLog {
    send: Sender<Entry>,
}

impl PromptLog {
    /// Makes the folder, or checks that only its owner has access, and starts the thread.
    pub fn start(folder: &Path) -> io::Result<Self> {
        private_folder(folder)?;
        let path = folder.join(FILE);
        drop(open(&path)?);
        let (send, entries) = channel();
        let work = move || write_all(&path, &entries);
        thread::Builder::new().name("vaquita-prompts".into()).spawn(work)?;
        Ok(Self { send })
    }

    /// Writes an entry soon.
    pub fn write(&self, entry: Entry) {
        let _ = self.send.send(entry); // the thread lives as long as this
    }
}

/// Writes entries until the server ends. The file is opened for each, so that it may be moved away.
fn write_all(path: &Path, entries: &Receiver<Entry>) {
    for entry in entries {
        let mut line = line(&entry);
        line.push('\n');
        let written = open(path).and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            eprintln!("--log-prompts: {}: {error}", path.display());
        }
    }
}

fn line(entry: &Entry) -> String {
    let Entry { model, id, route, client, prompt, generation } = entry;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let answer = match generation.calls.is_empty() {
        true => &generation.answer,
        false => &generation.raw,
    };
    let json = json!({
        "time": now.as_secs(),
        "id": id,
        "route": route,
        "client": client,
        "prompt": model.prompter().tokenizer().decode(prompt),
        "reasoning": generation.reasoning,
        "answer": answer,
        "stop": generation.stop.name(),
        "prompt_tokens": prompt.len(),
        "answer_tokens": generation.tokens.len(),
    });
    json.to_string()
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a folder for its owner alone; one that exists must be so.
pub(crate) fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
            let message = format!("others have access; run: chmod 700 {}", folder.display());
            return Err(io::Error::other(message));
        }
    }
    Ok(())
}
