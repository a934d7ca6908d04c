//! Evaluation by published protocols, on question files that the user has: AIME and MATH (pass@1
//! over several samples, answers in boxes), MMLU (multiple choice by likelihood or by generated
//! answers), GSM8K, and AlpacaEval (outputs for a judge, and win rates from its verdicts).
//!
//! [`questions`] reads files, [`prompts`] makes prompts, [`mod@ask`] and [`multiple_choice`] run the
//! model, [`journal`] keeps the answers of runs that end early, [`extract`] and [`gsm8k`] find final
//! answers, [`math`] compares them, and [`pass_rate`] and [`win_rate`] report [`estimate`]s.

pub mod ask;
pub mod estimate;
pub mod extract;
pub mod gsm8k;
pub mod journal;
pub mod math;
pub mod multiple_choice;
pub mod pass_rate;
pub mod prompts;
pub mod questions;
mod regression;
pub mod win_rate;
#[cfg(test)]
mod win_rate_tests;
