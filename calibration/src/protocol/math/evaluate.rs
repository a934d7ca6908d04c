//! Values of terms: exact if they are rational, else as floating-point numbers.

use std::f64::consts::PI;

use super::expression::{Expression, Function};
use super::rational::Rational;

/// Relative difference below which two computed values are equal.
const NEAR: f64 = 1e-9;
/// First values of variables at which terms are compared.
const POINTS: [f64; 3] = [0.618, 1.437, 2.236];

/// Whether two terms are equal. Rational numbers are compared exactly, others by their values;
/// terms with variables are equal if their values are equal at every point.
pub(super) fn equal(left: &Expression, right: &Expression) -> bool {
    if left == right {
        return true;
    }
    if let (Some(left), Some(right)) = (exact(left), exact(right)) {
        return left == right;
    }
    let (mut of_left, mut of_right) = (names(left), names(right));
    of_left.sort();
    of_right.sort();
    if of_left != of_right {
        return false;
    }
    POINTS.iter().all(|point| {
        let (left, right) = (value(left, &of_left, *point), value(right, &of_left, *point));
        match left.is_finite() && right.is_finite() {
            true => (left - right).abs() <= NEAR * left.abs().max(right.abs()).max(NEAR),
            false => left.is_infinite() && left == right,
        }
    })
}

/// The exact value of a term, if it is a rational number that can be computed.
pub(super) fn exact(expression: &Expression) -> Option<Rational> {
    match expression {
        Expression::Number(number) => Some(*number),
        Expression::Sum(a, b) => exact(a)?.plus(exact(b)?),
        Expression::Product(a, b) => exact(a)?.times(exact(b)?),
        Expression::Quotient(a, b) => exact(a)?.over(exact(b)?),
        Expression::Power(a, b) => exact(a)?.power(exact(b)?),
        Expression::Negated(a) => exact(a)?.negated(),
        Expression::Root(a, index) => {
            let index = exact(index)?.to_f64();
            exact(a)?.root((1..=64).find(|whole| f64::from(*whole) == index)?)
        }
        Expression::Variable(_) | Expression::Function(..) => None,
    }
}

/// Names of the variables of a term.
fn names(expression: &Expression) -> Vec<String> {
    let mut found = Vec::new();
    collect(expression, &mut found);
    found
}

fn collect(expression: &Expression, found: &mut Vec<String>) {
    match expression {
        Expression::Number(_) => {}
        Expression::Variable(name) => {
            if name != "π" && name != "\\infty" && !found.contains(name) {
                found.push(name.clone());
            }
        }
        Expression::Sum(a, b)
        | Expression::Product(a, b)
        | Expression::Quotient(a, b)
        | Expression::Power(a, b)
        | Expression::Root(a, b) => {
            collect(a, found);
            collect(b, found);
        }
        Expression::Negated(a) | Expression::Function(_, a) => collect(a, found),
    }
}

/// The value of a term; variables have values of their own that depend on the point.
fn value(expression: &Expression, names: &[String], point: f64) -> f64 {
    let of = |expression: &Expression| value(expression, names, point);
    match expression {
        Expression::Number(number) => number.to_f64(),
        Expression::Variable(name) if name == "π" => PI,
        Expression::Variable(name) if name == "\\infty" => f64::INFINITY,
        Expression::Variable(name) => {
            let index = names.iter().position(|known| known == name).unwrap_or_default();
            point + 0.377 * index as f64
        }
        Expression::Sum(a, b) => of(a) + of(b),
        Expression::Product(a, b) => of(a) * of(b),
        Expression::Quotient(a, b) => of(a) / of(b),
        Expression::Power(a, b) => of(a).powf(of(b)),
        Expression::Negated(a) => -of(a),
        Expression::Root(a, index) => root(of(a), of(index)),
        Expression::Function(function, a) => apply(*function, of(a)),
    }
}

fn root(number: f64, index: f64) -> f64 {
    match number < 0.0 && index % 2.0 == 1.0 {
        true => -(-number).powf(1.0 / index),
        false => number.powf(1.0 / index),
    }
}

fn apply(function: Function, x: f64) -> f64 {
    match function {
        Function::Sine => x.sin(),
        Function::Cosine => x.cos(),
        Function::Tangent => x.tan(),
        Function::Logarithm => x.ln(),
        Function::Decimal => x.log10(),
        Function::Exponential => x.exp(),
        Function::Absolute => x.abs(),
        Function::Factorial if (0.0..=170.0).contains(&x) && x.fract() == 0.0 => {
            (1..=x as u32).map(f64::from).product()
        }
        Function::Factorial => f64::NAN,
    }
}
