//! Whether two answers to a question of mathematics are equal, in whatever form they are written:
//! fractions, decimals, roots, percent, units, thousands separators, tuples, intervals, sets, and
//! terms with variables, in LaTeX or plain text.
//!
//! [`clean`] removes what does not carry meaning, [`answer`] finds the structure, [`expression`]
//! parses terms, and [`evaluate`] compares them: exactly if both are rational numbers, else by
//! their values, with variables at a few points.

mod answer;
mod clean;
mod evaluate;
mod expression;
mod rational;
#[cfg(test)]
mod tests;
mod units;

use answer::Answer;
pub(super) use clean::group;

/// Longest answer in bytes that is parsed; longer ones are compared as text.
const LONGEST: usize = 2000;

/// Whether two answers are equal.
pub fn equal(given: &str, right: &str) -> bool {
    let (given, right) = (clean::clean(given), clean::clean(right));
    if given == right {
        return !right.is_empty();
    }
    if given.len() > LONGEST || right.len() > LONGEST {
        return false;
    }
    Answer::parse(&given) == Answer::parse(&right)
}
