//! Tests of the quantizer, in one program: its tests run side by side, and it is linked once.

mod importance;
mod mxfp4;
mod parts;
mod pipeline;
mod report;
mod resume;
