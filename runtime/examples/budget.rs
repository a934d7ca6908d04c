//! An answer within a memory budget; experts that do not fit are read from the file on demand:
//! `cargo run --example budget -- model.gguf 3GiB "Why is the sky blue?"`

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use vaquita_runtime::{AppModel, GenerationOptions, MemoryBudget, ModelOptions, Turn};

/// Answers `question` with at most `memory`, such as `3GiB` or `60%`.
pub fn answer(model: &Path, memory: &str, question: &str) -> Result<Turn, Box<dyn Error>> {
    let memory = Some(MemoryBudget::parse(memory)?);
    let options = ModelOptions { memory, context: 512, ..ModelOptions::default() };
    let mut conversation = AppModel::open(model, &options)?.conversation()?;
    let options = GenerationOptions::default();
    Ok(conversation.answer(Some(question), &options, &mut |_| ControlFlow::Continue(()))?)
}

#[allow(dead_code)] // tests call `answer`
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, memory, question] = &arguments[..] else {
        return Err("usage: budget MODEL.gguf MEMORY QUESTION".into());
    };
    let turn = answer(model.as_ref(), memory, question)?;
    println!("{}", turn.generation.answer);
    match turn.streaming {
        Some(stats) => println!("read {} bytes, {:?} hit", stats.bytes_read, stats.hit_rate()),
        None => println!("the whole model fits"),
    }
    Ok(())
}
