//! What a run costs: memory and energy. What cannot be measured is `None`, never 0.
//!
//! A [`meter`] is read by a [`sampler`] in a thread of its own, which adds readings up over time; [`cost`] says what
//! that makes per token; [`plot`] draws it. One file per meter: [`rapl`], [`ina3221`], [`pmic`], [`battery`] are found
//! on the machine, [`external`] and [`custom`] are brought by whoever measures.

pub mod battery;
pub mod cost;
pub mod custom;
pub mod external;
pub mod ina3221;
pub mod memory;
pub mod meter;
pub mod plot;
pub mod pmic;
pub mod rapl;
pub mod sampler;
pub mod statistics;
pub mod thermal;
