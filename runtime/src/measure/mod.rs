//! Cost of a run: memory and energy. Values that cannot be measured are `None`, never 0.
//!
//! A [`sampler`] reads a [`meter`] in a thread of its own and accumulates the readings; [`cost`]
//! computes the energy per token, and [`plot`] draws it. Each meter has a file: [`rapl`],
//! [`ina3221`], [`pmic`] and [`battery`] are found on the machine, [`external`] and [`custom`] are
//! supplied by the caller.

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
