//! Feed-forward: SwiGLU, and DeepSeekMoE, which adds the outputs of the routed experts to that of the
//! shared ones (DeepSeek-V2, section 2.2).

use super::config::{Activation, Config};
use super::linear::add_bias;
use super::observer::ExpertInputs;
use super::router::Router;
use super::transformer::Compute;
use super::{Expert, ExpertId, LayerId, WeightsError};
use crate::blocks::Matrix;
use crate::experts::{ExpertStore, Visit};
use crate::kernels::vector::{AddScaled, ClampedSwiGlu, Sigmoid, SwiGlu};
use crate::kernels::{Activations, matmul};

/// `down(silu(gate x) * up x)`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden_size]`
    pub gate: Matrix,
    /// `[intermediate, hidden_size]`
    pub up: Matrix,
    /// `[hidden_size, intermediate]`
    pub down: Matrix,
}

/// The feed-forward of a layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// The first layers'.
    Dense(Mlp),
    /// Of experts.
    Moe(Box<Moe>),
}

/// A mixture of experts.
#[derive(Clone, Debug)]
pub struct Moe {
    /// Which experts.
    pub router: Router,
    /// The shared experts, where there are any.
    pub shared: Option<Shared>,
    /// The routed experts' biases, where they have any.
    pub biases: Option<ExpertBiases>,
}

/// The experts that every token visits, as one.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What they compute.
    pub mlp: Mlp,
    /// `[1, hidden_size]`: its sigmoid scales the output (Qwen2-MoE).
    pub gate: Option<Matrix>,
}

/// The biases of a layer's routed experts: small, so they stay in memory when experts do not.
#[derive(Clone, Debug)]
pub struct ExpertBiases {
    /// `[n_routed_experts, moe_intermediate_size]`
    pub gate: Matrix,
    /// `[n_routed_experts, moe_intermediate_size]`
    pub up: Matrix,
    /// `[n_routed_experts, hidden_size]`
    pub down: Matrix,
}

impl ExpertBiases {
    /// Those of one expert: gate, up, down.
    fn of(&self, expert: ExpertId) -> [Vec<f32>; 3] {
        [&self.gate, &self.up, &self.down].map(|biases| {
            let mut bias = vec![0.0; biases.cols()];
            biases.decode_row(expert.0, &mut bias);
            bias
        })
    }
}

/// `out = down(activation(gate x, up x))`, `[tokens, hidden_size]`.
/// `hidden` sees what goes into `down`.
fn glu(
    ctx: &Compute,
    activation: Activation,
    [gate, up, down]: [&Matrix; 3],
    biases: Option<[Vec<f32>; 3]>,
    x: &Activations,
    hidden: impl FnOnce(&Activations),
) -> Vec<f32> {
    let mut g = vec![0.0; x.tokens() * gate.rows()];
    let mut u = vec![0.0; x.tokens() * up.rows()];
    matmul(ctx.tier, ctx.pool, gate, x, &mut g);
    matmul(ctx.tier, ctx.pool, up, x, &mut u);
    if let Some([gate, up, _]) = &biases {
        add_bias(ctx, gate, &mut g);
        add_bias(ctx, up, &mut u);
    }
    match activation {
        Activation::SwiGlu => ctx.tier.run(SwiGlu { gate: &mut g, up: &u }),
        Activation::ClampedSwiGlu { alpha, limit } => {
            ctx.tier.run(ClampedSwiGlu { gate: &mut g, up: &u, alpha, limit });
        }
    }
    let mut out = vec![0.0; x.tokens() * down.rows()];
    let g = Activations::new(ctx.tier, &g, gate.rows());
    hidden(&g);
    matmul(ctx.tier, ctx.pool, down, &g, &mut out);
    if let Some([_, _, down]) = &biases {
        add_bias(ctx, down, &mut out);
    }
    out
}

impl Mlp {
    /// Applies it. `names` are those of gate, up and down.
    fn forward(
        &self,
        ctx: &Compute,
        activation: Activation,
        names: [&str; 3],
        x: &Activations,
    ) -> Vec<f32> {
        ctx.observe(&names[..2], 1, x);
        let matrices = [&self.gate, &self.up, &self.down];
        glu(ctx, activation, matrices, None, x, |hidden| ctx.observe(&names[2..], 1, hidden))
    }
}

impl Shared {
    /// Applies it to `x`, `[tokens, hidden_size]`.
    fn forward(&self, ctx: &Compute, activation: Activation, x: &Activations) -> Vec<f32> {
        let names = ["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"];
        let mut out = self.mlp.forward(ctx, activation, names, x);
        if let Some(gate) = &self.gate {
            let mut factors = vec![0.0; x.tokens()];
            matmul(ctx.tier, ctx.pool, gate, x, &mut factors);
            ctx.tier.run(Sigmoid(&mut factors));
            for (out, factor) in out.chunks_exact_mut(x.width).zip(factors) {
                out.iter_mut().for_each(|y| *y *= factor);
            }
        }
        out
    }
}

impl FeedForward {
    /// Applies it to `x`, `[tokens, hidden_size]`.
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        layer: LayerId,
        store: &dyn ExpertStore,
        x: &Activations,
    ) -> Result<Vec<f32>, WeightsError> {
        match self {
            Self::Dense(mlp) => {
                let names = ["ffn_gate", "ffn_up", "ffn_down"];
                Ok(mlp.forward(ctx, config.activation, names, x))
            }
            Self::Moe(moe) => moe.forward(ctx, config, layer, store, x),
        }
    }
}

impl Moe {
    fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        layer: LayerId,
        store: &dyn ExpertStore,
        x: &Activations,
    ) -> Result<Vec<f32>, WeightsError> {
        // A prompt's chunk needs nearly all experts anyway.
        let preference = if x.tokens() == 1 { store.preference(layer) } else { None };
        let slots = self.router.route(ctx.tier, ctx.pool, &config.moe, x, preference.as_ref());
        let per_token = config.moe.num_experts_per_tok;
        let visit = Visit { layer, slots: &slots, per_token };
        let activation = config.activation;
        let mut of_shared = None;
        let mut meanwhile = || {
            of_shared = self.shared.as_ref().map(|shared| shared.forward(ctx, activation, x));
        };
        let experts = Routed { activation, biases: self.biases.as_ref(), store };
        let mut out = experts.forward(ctx, &visit, &mut meanwhile, x)?;
        if let Some(shared) = of_shared {
            ctx.tier.run(AddScaled { out: &mut out, factor: 1.0, x: &shared });
        }
        Ok(out)
    }
}

/// A layer's routed experts.
struct Routed<'a> {
    activation: Activation,
    biases: Option<&'a ExpertBiases>,
    store: &'a dyn ExpertStore,
}

impl Routed<'_> {
    /// The weighted sum of each token's experts. Each expert is fetched once and sees all of its tokens, in
    /// whatever order the store has experts ready; outputs are added in slot order. The store may do
    /// `meanwhile` before it waits.
    fn forward(
        &self,
        ctx: &Compute,
        visit: &Visit,
        meanwhile: &mut dyn FnMut(),
        x: &Activations,
    ) -> Result<Vec<f32>, WeightsError> {
        let (width, slots, per_token) = (x.width, visit.slots, visit.per_token);
        let mut outputs = vec![0.0; slots.len() * width];
        self.store.for_each(visit, meanwhile, &mut |id: ExpertId, expert: &Expert| {
            let mine: Vec<usize> = (0..slots.len()).filter(|&i| slots[i].expert == id).collect();
            let tokens: Vec<usize> = mine.iter().map(|i| i / per_token).collect();
            let x = x.select(&tokens);
            let matrices = [&expert.gate, &expert.up, &expert.down];
            let biases = self.biases.map(|biases| biases.of(id));
            let y = glu(ctx, self.activation, matrices, biases, &x, |hidden| {
                if let Some(watch) = &ctx.watch {
                    let weights: Vec<f32> = mine.iter().map(|i| slots[*i].weight).collect();
                    let (input, hidden) = (&*x.values, &*hidden.values);
                    let inputs = ExpertInputs { weights: &weights, input, hidden };
                    watch.observer.expert(visit.layer, id, &inputs);
                }
            });
            for (slot, y) in mine.into_iter().zip(y.chunks_exact(width)) {
                outputs[slot * width..][..width].copy_from_slice(y);
            }
        })?;

        let mut out = vec![0.0; x.tokens() * width];
        for (i, (slot, y)) in slots.iter().zip(outputs.chunks_exact(width)).enumerate() {
            let out = &mut out[i / per_token * width..][..width];
            ctx.tier.run(AddScaled { out, factor: slot.weight, x: y });
        }
        Ok(out)
    }
}
