//! Rotary position embedding, with YaRN's frequencies where the context was extended.

use super::part::{Part, positions};
use crate::checkpoint::Config;
use crate::checkpoint::config::{LayerType, Llama3Config, RopeConfig, RopeScaling, YarnConfig};
use crate::isa::Tier;
use crate::kernels::rotary::Rotate;

/// The rotary embeddings of a model.
#[derive(Clone, Debug)]
pub struct Rope {
    full: Rotation,
    /// That of sliding layers, if it differs.
    sliding: Option<Rotation>,
}

impl Rope {
    /// Creates the embeddings of a model. A file may provide `factors`, `[dim / 2]`, that multiply
    /// the wavelengths of full layers.
    pub fn new(config: &Config, factors: Option<&[f32]>) -> Self {
        let sliding = config.sliding_rope.as_ref().map(|rope| Rotation::new(rope, None));
        Self { full: Rotation::new(&config.rope, factors), sliding }
    }
}

/// Angles of the tokens of a pass, which all heads of all layers share.
#[derive(Clone, Debug, Default)]
pub struct Angles {
    positions: Vec<usize>,
    full: Turns,
    /// Turns of the sliding layers, if they differ.
    sliding: Option<Turns>,
}

impl Angles {
    /// Moves to the positions of a layer's parts: they are computed again only where they changed.
    pub fn move_to(&mut self, rope: &Rope, parts: &[Part]) {
        let positions = positions(parts);
        if positions != self.positions {
            self.full = rope.full.turns(&positions);
            self.sliding = rope.sliding.as_ref().map(|sliding| sliding.turns(&positions));
            self.positions = positions;
        }
    }

    /// The turns of the layers of a type.
    pub fn of(&self, ty: LayerType) -> &Turns {
        match &self.sliding {
            Some(sliding) if ty == LayerType::Sliding => sliding,
            _ => &self.full,
        }
    }
}

/// Turns to the positions of several tokens.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// Cosines, `[tokens, pairs]`, times the magnitude.
    cos: Vec<f32>,
    /// Sines, `[tokens, pairs]`, times the magnitude.
    sin: Vec<f32>,
    pairs: usize,
    interleaved: bool,
}

impl Turns {
    /// Rotates the heads of `x`, `[tokens, heads, head_width]`, in place: the numbers from `at` on.
    pub fn rotate(&self, tier: Tier, x: &mut [f32], head_width: usize, at: usize) {
        let Self { cos, sin, pairs, interleaved } = self;
        let tokens = cos.len() / pairs.max(&1);
        let token_width = x.len() / tokens.max(1);
        let (pairs, interleaved) = (*pairs, *interleaved);
        tier.run(Rotate { x, token_width, head_width, at, cos, sin, pairs, interleaved });
    }
}

/// Frequencies of the positional part of queries and keys.
#[derive(Clone, Debug)]
pub struct Rotation {
    inverse_frequencies: Vec<f32>,
    magnitude: f32,
    interleaved: bool,
}

impl Rotation {
    /// Creates an embedding; `factors`, `[dim / 2]`, multiply the wavelengths.
    pub fn new(config: &RopeConfig, factors: Option<&[f32]>) -> Self {
        let (theta, dim) = (f64::from(config.theta), config.dim);
        let mut base = frequencies(theta, dim);
        for (frequency, factor) in base.iter_mut().zip(factors.unwrap_or_default()) {
            *frequency /= f64::from(*factor);
        }
        let (inverse_frequencies, magnitude) = match &config.scaling {
            RopeScaling::None | RopeScaling::Llama3(_) | RopeScaling::Proportional { .. } => {
                (base, 1.0)
            }
            RopeScaling::Linear { factor } => {
                (base.iter().map(|frequency| frequency / f64::from(*factor)).collect(), 1.0)
            }
            RopeScaling::Yarn(yarn) => {
                (yarn_frequencies(yarn, theta, dim, &base), yarn.rotation_magnitude())
            }
        };
        Self {
            inverse_frequencies: inverse_frequencies.into_iter().map(|f| f as f32).collect(),
            magnitude,
            interleaved: config.interleaved,
        }
    }

    /// The turns to positions.
    pub fn turns(&self, positions: &[usize]) -> Turns {
        let pairs = self.inverse_frequencies.len();
        let numbers = positions.len() * pairs;
        let (mut cos, mut sin) = (Vec::with_capacity(numbers), Vec::with_capacity(numbers));
        for position in positions {
            for frequency in &self.inverse_frequencies {
                let (s, c) = libm::sincosf(*position as f32 * frequency);
                cos.push(c * self.magnitude);
                sin.push(s * self.magnitude);
            }
        }
        Turns { cos, sin, pairs, interleaved: self.interleaved }
    }
}

/// `theta^(-2 i / dim)`
fn frequencies(theta: f64, dim: usize) -> Vec<f64> {
    (0..dim / 2).map(|i| libm::pow(theta, -(2.0 * i as f64) / dim as f64)).collect()
}

impl Llama3Config {
    /// Wavelength factors for a head of `dim` numbers: 1 for wavelengths that fit often into the
    /// trained context, the factor for those that do not, interpolated smoothly between.
    pub fn factors(&self, theta: f32, dim: usize) -> Vec<f32> {
        let trained = self.original_max_position_embeddings as f64;
        let (low, high) = (f64::from(self.low_freq_factor), f64::from(self.high_freq_factor));
        let factor = f64::from(self.factor);
        let grown = |frequency: f64| {
            let rotations = trained * frequency / (2.0 * std::f64::consts::PI);
            let kept = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - kept) / factor + kept)) as f32
        };
        frequencies(f64::from(theta), dim).into_iter().map(grown).collect()
    }
}

/// YaRN frequencies (section 3.2): those that turn often within the trained context are unchanged,
/// those that turn rarely are divided by the factor, with a ramp between.
fn yarn_frequencies(yarn: &YarnConfig, theta: f64, dim: usize, base: &[f64]) -> Vec<f64> {
    let trained = yarn.original_max_position_embeddings as f64;
    let dim_of_rotations = |rotations: f64| {
        let tau = 2.0 * std::f64::consts::PI;
        dim as f64 * libm::log(trained / (rotations * tau)) / (2.0 * libm::log(theta))
    };
    let (low, high) = (f64::from(yarn.beta_fast), f64::from(yarn.beta_slow));
    let (mut low, mut high) = (dim_of_rotations(low), dim_of_rotations(high));
    if yarn.truncate {
        (low, high) = (libm::floor(low), libm::ceil(high));
    }
    let low = low.max(0.0);
    high = high.min(dim as f64 - 1.0);
    if low == high {
        high += 0.001; // the ramp is then a step
    }
    let factor = f64::from(yarn.factor);
    let blend = |(i, f): (usize, &f64)| {
        let interpolated = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        f / factor * interpolated + f * (1.0 - interpolated)
    };
    base.iter().enumerate().map(blend).collect()
}

/// `0.1 m ln(factor) + 1`, YaRN's correction of the attention's temperature.
fn mscale(factor: f32, m: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * m * libm::logf(factor) + 1.0 }
}

impl RopeConfig {
    /// Factor on the attention's scores: YaRN's temperature, where a checkpoint has it.
    pub fn score_scale(&self) -> f32 {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => yarn.score_scale(),
            _ => 1.0,
        }
    }
}

impl YarnConfig {
    /// Factor on the rotated vectors.
    fn rotation_magnitude(&self) -> f32 {
        if let Some(factor) = self.attention_factor {
            factor
        } else if self.mscale != 0.0 && self.mscale_all_dim != 0.0 {
            mscale(self.factor, self.mscale) / mscale(self.factor, self.mscale_all_dim)
        } else {
            mscale(self.factor, 1.0)
        }
    }

    /// Factor on the attention's scores, which DeepSeek applies to all dimensions.
    fn score_scale(&self) -> f32 {
        let m =
            if self.mscale_all_dim == 0.0 { 1.0 } else { mscale(self.factor, self.mscale_all_dim) };
        m * m
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(interleaved: bool) -> RopeConfig {
        RopeConfig { dim: 16, theta: 10000.0, interleaved, scaling: RopeScaling::None }
    }

    #[test]
    fn a_rotation_keeps_lengths_and_depends_only_on_the_distance() {
        for interleaved in [false, true] {
            let rope = Rotation::new(&config(interleaved), None);
            let q: Vec<f32> = (0..16).map(|i| libm::sinf(i as f32)).collect();
            let k: Vec<f32> = (0..16).map(|i| libm::cosf(3.0 * i as f32)).collect();
            let product = |p: usize, s: usize| {
                let (mut q, mut k) = (q.clone(), k.clone());
                rope.turns(&[p]).rotate(Tier::best(), &mut q, 16, 0);
                rope.turns(&[s]).rotate(Tier::best(), &mut k, 16, 0);
                q.iter().zip(&k).map(|(a, b)| a * b).sum::<f32>()
            };
            assert!((product(7, 3) - product(104, 100)).abs() < 1e-4);
            assert!((product(5, 5) - product(0, 0)).abs() < 1e-4);
        }
    }

    #[test]
    fn yarn_keeps_fast_frequencies_and_divides_slow_ones() {
        let yarn = YarnConfig {
            factor: 40.0,
            original_max_position_embeddings: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: 1.0,
            mscale_all_dim: 1.0,
            attention_factor: None,
            truncate: true,
        };
        let plain = RopeConfig { dim: 64, ..config(true) };
        let rope = RopeConfig { scaling: RopeScaling::Yarn(yarn), ..plain.clone() };
        let plain = Rotation::new(&plain, None).inverse_frequencies;
        let long = Rotation::new(&rope, None).inverse_frequencies;
        assert_eq!(plain[0], long[0]);
        assert!((plain[31] / long[31] - 40.0).abs() < 1e-3);
    }
}
