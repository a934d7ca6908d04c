//! Energy of an answer, with the meter that this machine has:
//! `cargo run --example energy -- model.gguf "Why is the sky blue?"`

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use vaquita_runtime::{AppModel, GenerationOptions, ModelOptions, Turn};

/// Answers `question`; [`Turn`] says what it cost.
pub fn measure(model: &Arc<AppModel>, question: &str) -> Result<Turn, Box<dyn Error>> {
    let mut conversation = model.conversation()?;
    let options = GenerationOptions::default();
    Ok(conversation.answer(Some(question), &options, &mut |_| ControlFlow::Continue(()))?)
}

#[allow(dead_code)] // tests call `measure`
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, question] = &arguments[..] else {
        return Err("usage: energy MODEL.gguf QUESTION".into());
    };
    let model = AppModel::open(Path::new(path), &ModelOptions::default())?;
    let turn = measure(&model, question)?;
    println!("{} tokens: {}", turn.generation.tokens.len(), turn.generation.answer);
    match (turn.joules, turn.joules_per_token) {
        (Some(all), Some(token)) => println!("{all:.1} J, {token:.3} J per generated token"),
        _ => println!("energy: unmeasured, this machine has no meter"),
    }
    Ok(())
}
