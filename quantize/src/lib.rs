//! Offline quantizer.
pub mod encoders;
pub mod sources;
