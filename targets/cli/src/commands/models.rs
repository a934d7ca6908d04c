//! `vaquita models`: lists and removes the models in the hub's cache.

use std::io::{self, Write};

use serde_json::json;
use vaquita_hub::{Cache, CachedModel, ModelName, Purpose, choose};

use crate::failure::{Failure, Result};
use crate::size;
use crate::terminal::table;

/// Arguments of `models`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Remove a model, or one of its files, from the cache
    Remove {
        /// ORG/MODEL for all of it, ORG/MODEL:FILE or ORG/MODEL:QUANTIZATION for a part
        #[arg(value_parser = ModelName::parse)]
        model: ModelName,
    },
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let cache = Cache::from_env()?;
    match &args.command {
        Some(Command::Remove { model }) => remove(&cache, model, args.json),
        None => list(&cache, args.json),
    }
}

fn list(cache: &Cache, as_json: bool) -> Result {
    let models = cache.models()?;
    let folder = cache.root().display();
    if as_json {
        let entry = |model: &CachedModel| {
            let files = model.files.iter();
            let files = files.map(|(path, bytes)| json!({ "path": path, "bytes": bytes }));
            json!({
                "model": model.repo.to_string(),
                "bytes": model.bytes,
                "unfinished_bytes": model.unfinished_bytes,
                "revisions": model.revisions,
                "files": files.collect::<Vec<_>>(),
            })
        };
        let models: Vec<_> = models.iter().map(entry).collect();
        let found = json!({ "cache": folder.to_string(), "models": models });
        return Ok(writeln!(io::stdout(), "{found}")?);
    }
    if models.is_empty() {
        return Ok(writeln!(io::stdout(), "no models in {folder}; `vaquita pull` fetches one")?);
    }
    let mut rows = vec![["model", "size", "unfinished"].map(String::from).to_vec()];
    for model in &models {
        let unfinished = match model.unfinished_bytes {
            0 => String::new(),
            bytes => size::show(bytes),
        };
        rows.push(vec![model.repo.to_string(), size::show(model.bytes), unfinished]);
        let is_model = |path: &str| path.ends_with(".gguf") || path.ends_with(".safetensors");
        let files = model.files.iter().filter(|(path, _)| is_model(path));
        rows.extend(files.map(|(path, bytes)| vec![format!("  {path}"), size::show(*bytes)]));
    }
    let all: u64 = models.iter().map(|model| model.bytes).sum();
    rows.push(vec!["all".into(), size::show(all)]);
    // Names of files come from strangers.
    let text = table(&rows).replace(|c: char| c.is_control() && c != '\n', "?");
    Ok(writeln!(io::stdout(), "{text}{folder}")?)
}

fn remove(cache: &Cache, name: &ModelName, as_json: bool) -> Result {
    let models = cache.models()?;
    let Some(model) = models.iter().find(|model| model.repo == name.repo) else {
        return Err(Failure::Error(format!("{} is not in {}", name.repo, cache.root().display())));
    };
    let folder = cache.repo(&name.repo);
    let freed = match &name.part {
        None => folder.remove()?,
        Some(_) => {
            let choice = choose(&model.listing(), name, Purpose::Run)?;
            let paths: Vec<String> = choice.files.into_iter().map(|file| file.path).collect();
            folder.remove_files(&paths)?
        }
    };
    match as_json {
        true => writeln!(io::stdout(), "{}", json!({ "freed_bytes": freed }))?,
        false => writeln!(io::stdout(), "{name}: removed, {} are free again", size::show(freed))?,
    }
    Ok(())
}
