//! Quantizes a checkpoint to one block type:
//! `cargo run --release --example quantize -- checkpoint/ e4 model.gguf`

use std::error::Error;
use std::path::Path;

use vaquita_quantize::{Job, Plan, Report, quantize, sources};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::tokenizer::Tokenizer;

/// Quantizes the Hugging Face folder `checkpoint` to `ty` (e2, e3, e4 or e8).
pub fn file(checkpoint: &Path, ty: BlockType, out: &Path) -> Result<Report, Box<dyn Error>> {
    let source = sources::open(checkpoint)?;
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let mut tokenizer = Metadata::new();
    Tokenizer::from_folder(checkpoint)?.write_metadata(&mut tokenizer);
    let plan = Plan::uniform(weights.config(), ty);
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    Ok(quantize(&job, &mut |_| {})?)
}

#[allow(dead_code)] // tests call `file`
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [checkpoint, ty, out] = &arguments[..] else {
        return Err("usage: quantize CHECKPOINT TYPE OUT.gguf".into());
    };
    let ty = BlockType::from_name(ty).ok_or("TYPE is e2, e3, e4 or e8")?;
    let report = file(checkpoint.as_ref(), ty, out.as_ref())?;
    println!("{} bytes, {:.2} bits per weight", report.file_bytes, report.bits_per_weight);
    Ok(())
}
