//! One file per command, with its arguments and implementation.

pub mod bench;
pub mod calibrate;
pub mod chat;
pub mod cluster;
pub mod completions;
pub mod convert;
pub mod demo;
pub mod deploy;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod inspect;
pub mod join;
pub mod man;
pub mod models;
pub mod plan;
pub mod protocol;
pub mod pull;
pub mod quantize;
pub mod replay;
pub mod run;
pub mod serve;
pub mod tokenize;
pub mod verify;
