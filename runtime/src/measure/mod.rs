//! What a run costs: memory and energy. What cannot be measured is `None`, never 0.

pub mod energy;
pub mod memory;
mod rapl;
