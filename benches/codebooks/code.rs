//! What is compared: ways to write a weight in so many bits, relative to a group's scale.

/// A way to go on: the entry whose values come next, and the state after it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub entry: u32,
    pub state: u32,
}

/// A code: entries of one or more values, of which a stream of bits names one after the other. What bits mean may
/// depend on those before them: the state.
pub trait Code: Sync {
    fn name(&self) -> String;

    /// Bits per weight.
    fn bits(&self) -> f64;

    /// Values of an entry; 32 is a multiple of it.
    fn width(&self) -> usize;

    /// All entries, one after the other.
    fn values(&self) -> &[f32];

    /// Whether turning all signs gives another code: then the sign of a group's scale is of use.
    fn lopsided(&self) -> bool;

    /// Pushes the entries that may follow `state`, or those near `wanted` where there are many.
    fn follow(&self, state: u32, wanted: &[f32], steps: &mut Vec<Step>);

    /// Whether the state says all that matters for what follows: then only the best way to each is kept.
    fn merges(&self) -> bool {
        false
    }

    /// Ways that are kept while searching.
    fn beam(&self) -> usize;

    /// The root of the mean square of all values.
    fn spread(&self) -> f32 {
        let values = self.values();
        (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
    }
}
