//! The program as scripts see it: what it prints, where, and how it ends. One file per command.

mod bench;
mod budgets;
mod calibrating;
mod cgroup;
mod chat;
mod closed_output;
#[cfg(unix)]
mod cluster;
mod convert;
mod deploy;
mod doctor;
mod eval;
mod first_hour;
mod full_disk;
mod hub;
mod inspect;
mod kernels;
mod limits;
mod offline;
mod program;
mod quantize;
mod replay;
mod run;
mod serve;
mod structured;
mod tokenize;
mod usage;
mod verify;
