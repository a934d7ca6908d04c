//! `vaquita tokenize`: splits a text into tokens.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use serde_json::json;

use crate::bundle;
use crate::failure::Result;
use crate::model_argument::ModelArgument;

/// Arguments of `tokenize`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgument,
    /// Text; `-` reads standard input [default: -]
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Do not add the begin-of-sentence token
    #[arg(long)]
    no_bos: bool,
    /// Print a JSON object with `ids` and `pieces`
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result {
    let (model, words) = args.model.with_words(args.text.into_iter().collect())?;
    let tokenizer = bundle::open_tokenizer(&model)?;
    let mut text = words.join(" ");
    if words.is_empty() || text == "-" {
        text.clear();
        if stdin().is_terminal() {
            eprintln!("reading the text from the terminal: end it with Ctrl-D");
        }
        stdin().read_to_string(&mut text)?;
    }
    let mut ids = Vec::new();
    if tokenizer.add_bos() && !args.no_bos {
        ids.extend(tokenizer.bos());
    }
    ids.extend(tokenizer.encode(&text, true)?);
    let piece = |id: &u32| {
        let bytes = tokenizer.piece(*id).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut out = stdout().lock();
    if args.json {
        let pieces: Vec<String> = ids.iter().map(piece).collect();
        writeln!(out, "{}", json!({ "ids": ids, "pieces": pieces }))?;
    } else {
        for id in &ids {
            writeln!(out, "{id:>7}  {:?}", piece(id))?;
        }
    }
    Ok(())
}
