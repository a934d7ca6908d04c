//! A conversation on the terminal: `cargo run --example chat -- model.gguf`

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::ops::ControlFlow;
use std::path::Path;

use vaquita_runtime::{AppModel, Event, GenerationOptions, ModelOptions};

/// Answers each line of `input`.
pub fn chat(
    model: &Path,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Box<dyn Error>> {
    let model = AppModel::open(model, &ModelOptions::default())?;
    let mut conversation = model.conversation()?;
    for line in input.lines() {
        let mut written = Ok(());
        let options = GenerationOptions::default();
        conversation.answer(Some(&line?), &options, &mut |event| {
            if let Event::Answer(text) = event {
                written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
            }
            ControlFlow::Continue(())
        })?;
        written?;
        writeln!(output)?;
    }
    Ok(())
}

#[allow(dead_code)] // tests call `chat`
fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args_os().nth(1).ok_or("usage: chat MODEL.gguf")?;
    chat(model.as_ref(), stdin().lock(), stdout())
}
