//! Vector operations of a model besides matrix products: norms, activations, weighted sums.

use crate::isa::{Isa, Kernel, Tier};

/// Replaces the lanes of `x` by `f` of them; a short end is padded with zeros. `f` is called in one
/// place, so that it is inlined: a closure that is not has none of the kernel's target features.
#[inline(always)]
fn map_lanes<I: Isa>(isa: I, x: &mut [f32], f: impl Fn(usize, I::F32) -> I::F32) {
    let mut at = 0;
    while at < x.len() {
        let y = f(at, isa.load(&lane_at(x, at)));
        store_first(isa, y, &mut x[at..]);
        at += 8;
    }
}

/// Stores the lanes of `from` in the first numbers of `to`, as far as they exist.
#[inline(always)]
pub(super) fn store_first<I: Isa>(isa: I, from: I::F32, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(lane) => isa.store(from, lane),
        None => {
            let mut lane = [0.0; 8];
            isa.store(from, &mut lane);
            for (to, from) in to.iter_mut().zip(lane) {
                *to = from;
            }
        }
    }
}

/// Up to eight values of `from`, padded with zeros: one by one, since a call to memcpy would cost the
/// kernel its registers.
#[inline(always)]
fn padded(from: &[f32]) -> [f32; 8] {
    let mut lane = [0.0; 8];
    for (i, x) in lane.iter_mut().enumerate() {
        *x = from.get(i).copied().unwrap_or(0.0);
    }
    lane
}

/// Eight values of `from` at `at`, padded with zeros beyond its end.
#[inline(always)]
pub(super) fn lane_at(from: &[f32], at: usize) -> [f32; 8] {
    match from[at..].first_chunk() {
        Some(lane) => *lane,
        None => padded(&from[at..]),
    }
}

/// The first `N` vectors of `from`, all of which exist.
#[inline(always)]
pub(super) fn lanes<const N: usize>(from: &[f32]) -> &[[f32; 8]; N] {
    from.as_chunks().0.first_chunk().expect("whole vectors")
}

/// The same to be written.
#[inline(always)]
pub(super) fn lanes_mut<const N: usize>(to: &mut [f32]) -> &mut [[f32; 8]; N] {
    to.as_chunks_mut().0.first_chunk_mut().expect("whole vectors")
}

/// `e^x`, within 2 ulp: Cody and Waite's range reduction and Cephes' polynomial. Arguments below
/// -87 give about 1e-38, above 88 about 1e38.
#[inline(always)]
pub(super) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // In this order, NaN stays NaN.
    let x = isa.max(isa.splat(-87.0), isa.min(isa.splat(88.0), x));
    let n = isa.round(isa.mul(x, isa.splat(std::f32::consts::LOG2_E)));
    let nf = isa.to_f32(n);
    let r = isa.fma(nf, isa.splat(-0.693_359_4), x);
    let r = isa.fma(nf, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = isa.fma(p, r, isa.splat(c));
    }
    let p = isa.fma(p, isa.mul(r, r), isa.add(r, isa.splat(1.0)));
    isa.mul(p, isa.exp2i(n))
}

/// `e^x`, in place.
pub struct Exp<'a>(pub &'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        map_lanes(isa, self.0, |_, x| exp(isa, x));
    }
}

/// `1 / (1 + e^-x)`, in place.
pub struct Sigmoid<'a>(pub &'a mut [f32]);

impl Kernel for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        map_lanes(isa, self.0, |_, x| sigmoid(isa, x));
    }
}

#[inline(always)]
pub(super) fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let e = exp(isa, isa.sub(isa.splat(0.0), x));
    isa.div(isa.splat(1.0), isa.add(isa.splat(1.0), e))
}

/// `cap * tanh(x / cap)`, in place.
pub struct SoftCap<'a> {
    /// The numbers.
    pub x: &'a mut [f32],
    /// Limit that they approach.
    pub cap: f32,
}

impl Kernel for SoftCap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (cap, double) = (isa.splat(self.cap), isa.splat(2.0 / self.cap));
        let (one, two) = (isa.splat(1.0), isa.splat(2.0));
        map_lanes(isa, self.x, |_, x| {
            // tanh(y) = 1 - 2 / (1 + e^(2 y))
            let e = exp(isa, isa.mul(double, x));
            let tanh = isa.sub(one, isa.div(two, isa.add(one, e)));
            // Zero, or NaN where the limit would make a number of what is none.
            isa.fma(cap, tanh, isa.mul(x, isa.splat(0.0)))
        });
    }
}

/// `ln(1 + e^x)`, for the few numbers of a token that need it; NaN for an infinity.
pub fn softplus(x: f32) -> f32 {
    match x {
        x if !x.is_finite() => f32::NAN,
        // As in torch: e^-x is below the last bit.
        x if x > 20.0 => x,
        x => libm::log1pf(libm::expf(x)),
    }
}

/// SwiGLU: `gate = gate * sigmoid(gate) * up`.
pub struct SwiGlu<'a> {
    /// Input: gate. Output: result.
    pub gate: &'a mut [f32],
    /// Linear half.
    pub up: &'a [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        gated(isa, Swish, self.gate, self.up);
    }
}

/// GeGLU: `gate = gelu(gate) * up`, with `gelu(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))`,
/// which is the approximation by a hyperbolic tangent.
pub struct GeGlu<'a> {
    /// Input: gate. Output: result.
    pub gate: &'a mut [f32],
    /// Linear half.
    pub up: &'a [f32],
}

impl Kernel for GeGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        gated(isa, Gelu, self.gate, self.up);
    }
}

/// gpt-oss's SwiGLU: `gate = g * sigmoid(alpha g) * (u + 1)`, with `g` and `u` the clamped gate and
/// up.
pub struct ClampedSwiGlu<'a> {
    /// Input: gate. Output: result.
    pub gate: &'a mut [f32],
    /// Linear half.
    pub up: &'a [f32],
    /// Steepness of the gate.
    pub alpha: f32,
    /// Limit: `g = min(gate, limit)`, and `u` is `up` clamped to `[-limit, limit]`.
    pub limit: f32,
}

impl Kernel for ClampedSwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { gate, up, alpha, limit } = self;
        gated(isa, ClampedSwish { alpha, limit }, gate, up);
    }
}

/// Activation of a gated linear unit. Not a closure: one of this size is not inlined, and then each
/// intrinsic becomes a call.
trait Gate {
    fn apply<I: Isa>(&self, isa: I, gate: I::F32, up: I::F32) -> I::F32;
}

struct Swish;

impl Gate for Swish {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        isa.mul(isa.mul(gate, sigmoid(isa, gate)), up)
    }
}

struct Gelu;

impl Gate for Gelu {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        let square = isa.mul(gate, gate);
        let inner = isa.fma(isa.splat(0.071_354_816), square, isa.splat(1.595_769));
        isa.mul(isa.mul(gate, sigmoid(isa, isa.mul(inner, gate))), up)
    }
}

struct ClampedSwish {
    alpha: f32,
    limit: f32,
}

impl Gate for ClampedSwish {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, gate: I::F32, up: I::F32) -> I::F32 {
        let (low, high) = (isa.splat(-self.limit), isa.splat(self.limit));
        // Zero, or NaN where a limit would make a number of what is none.
        let zero = isa.mul(isa.add(gate, up), isa.splat(0.0));
        let gate = isa.min(high, gate);
        let up = isa.max(low, isa.min(high, up));
        let swish = isa.mul(gate, sigmoid(isa, isa.mul(isa.splat(self.alpha), gate)));
        isa.add(isa.fma(swish, up, swish), zero)
    }
}

#[inline(always)]
fn gated<I: Isa>(isa: I, how: impl Gate, gate: &mut [f32], up: &[f32]) {
    let (lanes, rest) = gate.as_chunks_mut::<8>();
    let (up_lanes, up_rest) = up.as_chunks::<8>();
    for (gate, up) in lanes.iter_mut().zip(up_lanes) {
        isa.store(how.apply(isa, isa.load(gate), isa.load(up)), gate);
    }
    if !rest.is_empty() {
        let mut lane = padded(rest);
        isa.store(how.apply(isa, isa.load(&lane), isa.load(&padded(up_rest))), &mut lane);
        rest.copy_from_slice(&lane[..rest.len()]);
    }
}

/// `out = out * x`
pub struct Multiply<'a> {
    /// First factor, replaced by the product.
    pub out: &'a mut [f32],
    /// Second factor.
    pub x: &'a [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let x = self.x;
        map_lanes(isa, self.out, |at, out| isa.mul(out, isa.load(&lane_at(x, at))));
    }
}

/// `out = out + a * b`
pub struct AddProduct<'a> {
    /// Accumulator.
    pub out: &'a mut [f32],
    /// First factor.
    pub a: &'a [f32],
    /// Second factor.
    pub b: &'a [f32],
}

impl Kernel for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (a, b) = (self.a, self.b);
        map_lanes(isa, self.out, |at, out| {
            isa.fma(isa.load(&lane_at(a, at)), isa.load(&lane_at(b, at)), out)
        });
    }
}

/// Softmax in place.
pub struct Softmax<'a>(pub &'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let largest = self.0.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        map_lanes(isa, self.0, |_, x| exp(isa, isa.sub(x, isa.splat(largest))));
        let sum = sum(isa, self.0);
        map_lanes(isa, self.0, |_, x| isa.div(x, isa.splat(sum)));
    }
}

/// The sum of the numbers of `x`, over eight lanes.
#[inline(always)]
fn sum<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let (lanes, rest) = x.as_chunks::<8>();
    let mut sum = isa.splat(0.0);
    for lane in lanes {
        sum = isa.add(sum, isa.load(lane));
    }
    if !rest.is_empty() {
        sum = isa.add(sum, isa.load(&padded(rest)));
    }
    isa.sum(sum)
}

/// The sum of the squares of `x`, over eight lanes.
#[inline(always)]
fn sum_of_squares<I: Isa>(isa: I, x: &[f32]) -> f32 {
    let (lanes, rest) = x.as_chunks::<8>();
    let mut squares = isa.splat(0.0);
    for lane in lanes {
        let x = isa.load(lane);
        squares = isa.fma(x, x, squares);
    }
    if !rest.is_empty() {
        let x = isa.load(&padded(rest));
        squares = isa.fma(x, x, squares);
    }
    isa.sum(squares)
}

/// RMSNorm: `out = x / sqrt(mean(x^2) + eps) * weight`.
pub struct RmsNorm<'a> {
    /// Input, `[width]`.
    pub x: &'a [f32],
    /// Weight, `[width]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// Output, `[width]`.
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mean = sum_of_squares(isa, self.x) / self.x.len() as f32;
        let factor = isa.splat(1.0 / (mean + self.eps).sqrt());
        self.out.copy_from_slice(self.x);
        let weight = self.weight;
        map_lanes(isa, self.out, |at, x| {
            isa.mul(isa.load(&lane_at(weight, at)), isa.mul(x, factor))
        });
    }
}

/// `out = out + factor * x`
pub struct AddScaled<'a> {
    /// Accumulator.
    pub out: &'a mut [f32],
    /// Factor.
    pub factor: f32,
    /// Vector to add.
    pub x: &'a [f32],
}

impl Kernel for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (factor, x) = (isa.splat(self.factor), self.x);
        map_lanes(isa, self.out, |at, out| isa.fma(factor, isa.load(&lane_at(x, at)), out));
    }
}

/// A causal convolution with its activation: `out = silu(sum over j of taps_j * inputs_j)`, per
/// channel (`inputs_j` are neighbouring positions, oldest first).
pub struct CausalConv<'a> {
    /// Inputs, one slice of all channels per position.
    pub inputs: &'a [&'a [f32]],
    /// Factors of each position in the window, as many as inputs.
    pub taps: &'a [Vec<f32>],
    /// Added to each channel's sum.
    pub bias: Option<&'a [f32]>,
    /// `[channels]`
    pub out: &'a mut [f32],
}

impl Kernel for CausalConv<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { inputs, taps, bias, out } = self;
        match bias {
            Some(bias) => out.copy_from_slice(bias),
            None => out.fill(0.0),
        }
        map_lanes(isa, out, |at, mut sum| {
            for (x, tap) in inputs.iter().zip(taps) {
                sum = isa.fma(isa.load(&lane_at(tap, at)), isa.load(&lane_at(x, at)), sum);
            }
            isa.mul(sum, sigmoid(isa, sum))
        });
    }
}

/// `x = factor * x / sqrt(sum(x^2) + eps)`, in place.
pub struct L2Norm<'a> {
    /// The vector.
    pub x: &'a mut [f32],
    /// Factor on the vector of length one.
    pub factor: f32,
    /// Added to the sum of squares.
    pub eps: f32,
}

impl Kernel for L2Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let length = (sum_of_squares(isa, self.x) + self.eps).sqrt();
        let factor = isa.splat(self.factor / length);
        map_lanes(isa, self.x, |_, x| isa.mul(x, factor));
    }
}

/// RMSNorm of each token in `x`, `[tokens, weight.len()]`.
pub fn rms_norm(tier: Tier, x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        tier.run(RmsNorm { x, weight, eps, out });
    }
    out
}
