//! Logistic regression by Newton's method.

/// Number of features of an example.
pub(super) const FEATURES: usize = 3;
/// Penalty on squared coefficients: far below what verdicts weigh, but enough for a fit to be
/// finite if one side wins always.
const RIDGE: f64 = 1e-4;
/// Most steps; the method converges within ten.
const STEPS: usize = 100;
/// Change of coefficients at which the fit ends.
const NEAR: f64 = 1e-12;

type Row = [f64; FEATURES];
type Matrix = [Row; FEATURES];

/// An observation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    pub features: Row,
    /// Observed probability of a win.
    pub wins: f64,
    pub weight: f64,
}

/// A fitted model.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    pub coefficients: Row,
    /// Robust covariance of the coefficients ("sandwich").
    covariance: Matrix,
}

/// Fits the coefficients of those features that are used.
pub(super) fn fit(examples: &[Example], used: [bool; FEATURES]) -> Fit {
    let mut coefficients = [0.0; FEATURES];
    let mut inverse = [[0.0; FEATURES]; FEATURES];
    for _ in 0..STEPS {
        let (gradient, curvature) = slopes(examples, &coefficients, used);
        inverse = invert(curvature);
        let step = times(&inverse, &gradient);
        // Halved until the fit gets better: far from the optimum, a whole step may overshoot.
        let before = loss(examples, &coefficients);
        let mut length = 1.0;
        let mut next = moved(&coefficients, &step, length);
        while loss(examples, &next) > before && length > 1e-6 {
            length /= 2.0;
            next = moved(&coefficients, &step, length);
        }
        let largest = step.iter().fold(0.0f64, |most, change| most.max(change.abs()));
        coefficients = next;
        if largest < NEAR {
            break;
        }
    }
    let mut scores = [[0.0; FEATURES]; FEATURES];
    for example in examples {
        let rest = example.weight * (example.wins - predict(&example.features, &coefficients));
        add_square(&mut scores, &example.features, rest * rest);
    }
    Fit { coefficients, covariance: product(&product(&inverse, &scores), &inverse) }
}

impl Fit {
    /// The mean prediction over rows, with the standard error that the coefficients give it.
    pub fn mean_prediction(&self, rows: &[Row]) -> (f64, f64) {
        let n = rows.len().max(1) as f64;
        let (mut mean, mut gradient) = (0.0, [0.0; FEATURES]);
        for row in rows {
            let p = predict(row, &self.coefficients);
            mean += p / n;
            for (slope, feature) in gradient.iter_mut().zip(row) {
                *slope += p * (1.0 - p) * feature / n;
            }
        }
        let spread = times(&self.covariance, &gradient);
        let variance: f64 = spread.iter().zip(&gradient).map(|(a, b)| a * b).sum();
        (mean, variance.max(0.0).sqrt())
    }
}

fn predict(features: &Row, coefficients: &Row) -> f64 {
    let z: f64 = features.iter().zip(coefficients).map(|(x, c)| x * c).sum();
    1.0 / (1.0 + (-z).exp())
}

/// Penalized negative log-likelihood.
fn loss(examples: &[Example], coefficients: &Row) -> f64 {
    let of = |example: &Example| {
        let z: f64 = example.features.iter().zip(coefficients).map(|(x, c)| x * c).sum();
        // log(1 + exp(z)) without overflow.
        let whole = z.max(0.0) + (-z.abs()).exp().ln_1p();
        example.weight * (whole - example.wins * z)
    };
    let penalty: f64 = coefficients.iter().map(|c| c * c).sum();
    examples.iter().map(of).sum::<f64>() + RIDGE / 2.0 * penalty
}

/// Negative gradient and curvature of the loss. Features that are not used get a curvature of
/// their own, which leaves their coefficient at 0.
fn slopes(examples: &[Example], coefficients: &Row, used: [bool; FEATURES]) -> (Row, Matrix) {
    let mut gradient = [0.0; FEATURES];
    let mut curvature = [[0.0; FEATURES]; FEATURES];
    for example in examples {
        let Example { features, wins, weight } = example;
        let p = predict(features, coefficients);
        for (slope, feature) in gradient.iter_mut().zip(features) {
            *slope += weight * (wins - p) * feature;
        }
        add_square(&mut curvature, features, weight * p * (1.0 - p));
    }
    for i in 0..FEATURES {
        gradient[i] -= RIDGE * coefficients[i];
        curvature[i][i] += RIDGE;
    }
    for unused in (0..FEATURES).filter(|i| !used[*i]) {
        gradient[unused] = 0.0;
        curvature[unused] = [0.0; FEATURES];
        curvature.iter_mut().for_each(|row| row[unused] = 0.0);
        curvature[unused][unused] = 1.0;
    }
    (gradient, curvature)
}

/// Adds the products of all pairs of a row's numbers to a matrix.
fn add_square(matrix: &mut Matrix, row: &Row, weight: f64) {
    for (line, a) in matrix.iter_mut().zip(row) {
        for (cell, b) in line.iter_mut().zip(row) {
            *cell += weight * a * b;
        }
    }
}

/// The inverse of a positive matrix, by elimination.
fn invert(mut matrix: Matrix) -> Matrix {
    let mut inverse = [[0.0; FEATURES]; FEATURES];
    for (i, row) in inverse.iter_mut().enumerate() {
        row[i] = 1.0;
    }
    for column in 0..FEATURES {
        let pivot = matrix[column][column];
        let (line, of_inverse) =
            (matrix[column].map(|x| x / pivot), inverse[column].map(|x| x / pivot));
        for row in 0..FEATURES {
            let factor = matrix[row][column];
            matrix[row] = moved(&matrix[row], &line, -factor);
            inverse[row] = moved(&inverse[row], &of_inverse, -factor);
        }
        (matrix[column], inverse[column]) = (line, of_inverse);
    }
    inverse
}

fn times(matrix: &Matrix, row: &Row) -> Row {
    matrix.map(|of| of.iter().zip(row).map(|(a, b)| a * b).sum())
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let cell = |i: usize, j: usize| (0..FEATURES).map(|k| a[i][k] * b[k][j]).sum();
    std::array::from_fn(|i| std::array::from_fn(|j| cell(i, j)))
}

fn moved(from: &Row, step: &Row, length: f64) -> Row {
    std::array::from_fn(|i| from[i] + length * step[i])
}
