//! Decays of Kimi Delta Attention (arXiv 2510.26692), one for each key channel of a head.

use super::vector::{exp, lane_at, sigmoid};
use crate::isa::{Isa, Kernel};

/// From inputs of the gate to factors on the state, in place. NaN for an infinity, which would
/// become a number.
pub struct ChannelDecay<'a> {
    /// `[key_width]`
    pub x: &'a mut [f32],
    /// Added to `x`, `[key_width]`.
    pub bias: &'a [f32],
    /// Rate of the head.
    pub rate: f32,
    /// With a bound, `exp(bound sigmoid(rate x))`; without, `exp(rate softplus(x))`.
    pub bound: Option<f32>,
}

impl Kernel for ChannelDecay<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut out = [0.0; 8];
        for at in (0..self.x.len()).step_by(8) {
            let x = isa.add(isa.load(&lane_at(self.x, at)), isa.load(&lane_at(self.bias, at)));
            isa.store(decays(isa, x, self.rate, self.bound), &mut out);
            self.x[at..].iter_mut().zip(out).for_each(|(x, decay)| *x = decay);
        }
    }
}

#[inline(always)]
fn decays<I: Isa>(isa: I, x: I::F32, rate: f32, bound: Option<f32>) -> I::F32 {
    let rate = isa.splat(rate);
    let exponent = match bound {
        None => isa.mul(rate, softplus(isa, x)),
        Some(bound) => isa.mul(isa.splat(bound), sigmoid(isa, isa.mul(rate, x))),
    };
    // Zero, or NaN.
    let not_finite = isa.mul(x, isa.splat(0.0));
    isa.add(exp(isa, exponent), not_finite)
}

/// `ln(1 + e^x)` as `max(x, 0) + ln(1 + t)` with `t = e^-|x|`, and the logarithm as `2 atanh(z)`
/// with `z = t / (2 + t)`, at most a third, so that eight terms of its series suffice.
#[inline(always)]
fn softplus<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let zero = isa.splat(0.0);
    let t = exp(isa, isa.sub(zero, isa.abs(x)));
    let z = isa.div(t, isa.add(isa.splat(2.0), t));
    let square = isa.mul(z, z);
    let mut series = isa.splat(1.0 / 15.0);
    for k in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = isa.fma(series, square, isa.splat(1.0 / k));
    }
    isa.add(isa.max(zero, x), isa.mul(isa.add(z, z), series))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Tier;

    fn decay(x: f32, bias: f32, rate: f32, bound: Option<f32>) -> f32 {
        let mut x = [x];
        Tier::best().run(ChannelDecay { x: &mut x, bias: &[bias], rate, bound });
        x[0]
    }

    #[test]
    fn decays_are_those_of_the_formulas_and_nan_where_an_input_is_infinite() {
        for i in -400..400 {
            let (x, bias) = (i as f32 / 10.0, 0.25);
            let sum = f64::from(x + bias);
            let exact = libm::exp(-1.5 * libm::log1p(libm::exp(sum)));
            let found = f64::from(decay(x, bias, -1.5, None));
            assert!((found - exact).abs() <= 1e-5 * exact + 1e-30, "{x}: {found} {exact}");
            let exact = libm::exp(-5.0 / (1.0 + libm::exp(-2.0 * sum)));
            let found = f64::from(decay(x, bias, 2.0, Some(-5.0)));
            assert!((found - exact).abs() <= 2e-6 * exact, "{x}: {found} {exact}");
        }
        for bound in [None, Some(-5.0)] {
            for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                assert!(decay(x, 0.0, -1.0, bound).is_nan(), "{x} {bound:?}");
            }
        }
    }
}
