//! Rotary position embeddings.

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Number of rotated elements of a head.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f32,
    /// Whether pairs are neighbours (2i, 2i+1), as in DeepSeek, instead of halves (i, i + d/2).
    pub interleaved: bool,
    /// Context extension method.
    pub scaling: RopeScaling,
}

/// Context extension method: how positions beyond the trained length are reached.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// All frequencies are divided by a factor (position interpolation, arXiv 2306.15595).
    Linear {
        /// Ratio of the extended to the trained context.
        factor: f32,
    },
    /// YaRN.
    Yarn(YarnConfig),
    /// The first pairs of a head are rotated, with the wavelengths of a head that is rotated whole
    /// (Gemma 4). Files contain the factors on the wavelengths as a tensor, so the network never
    /// uses this value.
    Proportional {
        /// Number of pairs that are rotated.
        pairs: usize,
    },
    /// Llama 3.1's method. Files contain its factors as a tensor, so the network never uses these
    /// values.
    Llama3(Llama3Config),
}

/// Llama 3.1's scaling of frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Config {
    /// Ratio of the extended to the trained context.
    pub factor: f32,
    /// Rotations within the trained context below which a frequency is interpolated.
    pub low_freq_factor: f32,
    /// Rotations above which a frequency is kept.
    pub high_freq_factor: f32,
    /// Length of the trained context.
    pub original_max_position_embeddings: usize,
}

/// YaRN (arXiv 2309.00071) as DeepSeek uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct YarnConfig {
    /// Ratio of the extended to the trained context.
    pub factor: f32,
    /// Length of the trained context.
    pub original_max_position_embeddings: usize,
    /// Rotations above which a frequency is kept.
    pub beta_fast: f32,
    /// Rotations below which a frequency is interpolated.
    pub beta_slow: f32,
    /// Scale of the rotation's magnitude.
    pub mscale: f32,
    /// Scale of the attention's temperature.
    pub mscale_all_dim: f32,
    /// Factor on the rotated vectors, if a checkpoint states it instead of deriving it from
    /// `mscale`.
    pub attention_factor: Option<f32>,
    /// Whether the bounds of the ramp between kept and interpolated frequencies are rounded to
    /// whole dimensions.
    pub truncate: bool,
}
