//! Everything a device needs to run a DeepSeek-class mixture-of-experts model.

pub mod blocks;
pub mod bytes;
pub mod kernels;
pub mod threads;
