//! Texts through a model, and what its matrices saw into a file, layer by layer.

use std::path::Path;

use vaquita_quantize::container::Inventory;

use super::file::{Shape, Writer};
use super::walk::{Reader, Walk, WalkOptions};
use super::{Coverage, Origin};
use crate::EvalError;

/// Calibrates a model on texts and writes the file, which appears when it is whole.
pub fn calibrate(
    reader: Reader,
    origin: &Origin,
    texts: &[String],
    options: WalkOptions,
    out: &Path,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Coverage, EvalError> {
    let inventory = Inventory::new(&*reader.weights).map_err(super::walk::in_model)?;
    let shape = Shape::of(&inventory, options.block);
    let mut walk = Walk::new(reader, texts, options)?;
    let mut file = Writer::create(out, origin, &shape)?;
    let mut coverage = Coverage::default();
    while walk.next().is_some() {
        let layer = walk.layer(on_progress)?;
        file.write(&layer)?;
        coverage.layers.extend(layer.coverage().layers);
    }
    if !walk.config().tie_word_embeddings {
        file.write(&walk.output()?)?;
    }
    file.finish()?;
    Ok(coverage)
}
