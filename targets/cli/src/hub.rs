//! Models of the hub as arguments of commands: `hf:ORG/MODEL[@REVISION][:FILE or quantization]`.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use vaquita_hub::{Choice, Hub, HubError, Listing, ModelName, Notice, Purpose, choose};

use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::Bar;

/// Option of commands that take a model of the hub.
#[derive(clap::Args)]
pub struct Fetch {
    /// Fetch a model of the hub (hf:ORG/MODEL) without asking
    #[arg(short, long)]
    yes: bool,
}

impl Fetch {
    /// The path of a model: `model` itself, or that of a model of the hub, which is fetched if it is
    /// not in the cache and the user agrees.
    pub fn local(&self, model: &Path, purpose: Purpose) -> Result<PathBuf> {
        let Some(name) = named(model)? else { return Ok(model.into()) };
        let hub = Hub::from_env()?;
        if let Some(path) = hub.cached(&name, purpose) {
            return Ok(path);
        }
        let listing = hub.listing(&name)?;
        let choice = choose(&listing, &name, purpose)?;
        let missing = hub.missing_bytes(&listing, &choice);
        if missing > 0 && !self.yes {
            ask(&describe(&listing, &choice), missing, &name)?;
        }
        fetch(&hub, &name, &listing, &choice)
    }
}

/// The model of the hub that an argument asks for; `None` for a path.
pub fn named(model: &Path) -> Result<Option<ModelName>> {
    let explicit = model.to_str().and_then(ModelName::explicit);
    Ok(explicit.transpose()?)
}

/// Hint for a path that does not exist and reads like a model of the hub.
pub fn suggestion(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    if named(path).ok()?.is_some() {
        return Some(format!("this command takes files: `vaquita pull {text}` fetches it"));
    }
    // Folders of the user look like `models/x.gguf`: no organization of the hub has such a name.
    let name = ModelName::parse(text).ok().filter(|_| !text.ends_with(".gguf"))?;
    Some(format!("for the model of the hub, write hf:{name}"))
}

/// Summary of a download, in one line.
pub fn describe(listing: &Listing, choice: &Choice) -> String {
    let license = listing.license.as_deref().unwrap_or("not stated");
    let gated = if listing.gated { ", gated: its publisher asks to accept terms" } else { "" };
    let files = match choice.files.len() {
        1 => "1 file".into(),
        count => format!("{count} files"),
    };
    let bytes = size::show(choice.bytes());
    format!("{} ({}): {files}, {bytes}; licence {license}{gated}", listing.repo, choice.label)
}

fn ask(description: &str, missing: u64, name: &ModelName) -> Result {
    let missing = size::show(missing);
    if !stdin().is_terminal() || !stderr().is_terminal() {
        let message = format!("{description}; it is not here: --yes fetches {missing}");
        return Err(Failure::Error(message));
    }
    eprint!("{description}\nFetch {missing}? [y/N] ");
    stderr().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Error(format!("{name} was not fetched"))),
    }
}

/// Fetches a choice with a progress bar, and returns the path to open.
pub fn fetch(hub: &Hub, name: &ModelName, listing: &Listing, choice: &Choice) -> Result<PathBuf> {
    let bar = Mutex::new(Bar::new(choice.label.clone()));
    let notice = |notice: Notice<'_>| {
        let Ok(mut bar) = bar.lock() else { return };
        match notice {
            Notice::Progress { done, total } => bar.set(done, total),
            Notice::Locked(path) => {
                bar.say(&format!("waiting for another program that fetches {path}"))
            }
            Notice::Pause(HubError::Busy { .. }, pause) => {
                bar.say(&format!("the hub is busy: waiting {} s", pause.as_secs()));
            }
            Notice::Pause(..) => {}
        }
    };
    Ok(hub.fetch(name, listing, choice, &notice)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_hub_are_recognized_where_a_file_is_expected() {
        let suggested = |text: &str| suggestion(Path::new(text)).unwrap_or_default();
        assert!(suggested("Qwen/Qwen3-30B-A3B").contains("hf:Qwen/Qwen3-30B-A3B"));
        assert!(suggested("hf:a/b").contains("vaquita pull hf:a/b"));
        for text in ["model.gguf", "models/x.gguf", "/a/b", "./a/b", "a/b/c"] {
            assert_eq!(suggested(text), "", "{text}");
        }
    }
}
