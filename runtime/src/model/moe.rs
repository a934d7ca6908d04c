//! Feed-forward: SwiGLU, and DeepSeekMoE, which adds the outputs of the routed experts to that of the
//! shared ones (DeepSeek-V2, section 2.2).

use std::ops::Range;

use super::config::{Activation, Config};
use super::linear::add_bias;
use super::observer::ExpertInputs;
use super::router::Router;
use super::transformer::Compute;
use super::{Expert, ExpertId, LayerId, WeightsError};
use crate::blocks::Matrix;
use crate::experts::{ExpertStore, Visit};
use crate::kernels::vector::{AddScaled, ClampedSwiGlu, Sigmoid, SwiGlu};
use crate::kernels::{Activations, Product, matmul, matmul_all};

/// Slots whose experts are computed side by side: enough for all threads, and few enough for caches.
pub(crate) const SLOTS_AT_ONCE: usize = 512;

/// Numbers that one task puts through an activation: those of a few experts of one token are not worth a hand-over.
const GATED_AT_ONCE: usize = 1 << 14;

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

/// A gated unit over some tokens, whose outputs follow those of the unit before: an expert, or all of a dense layer.
struct Glu<'a> {
    /// Gate, up and down.
    matrices: [&'a Matrix; 3],
    biases: Option<[Vec<f32>; 3]>,
    tokens: Range<usize>,
}

/// The products of each unit's inputs with some of its matrices, `[tokens, rows]` for each of these: one job.
fn products<const N: usize>(
    ctx: &Compute,
    units: &[Glu],
    which: [usize; N],
    inputs: &[Activations],
) -> [Vec<f32>; N] {
    let rows = |matrix: usize| units.first().map_or(0, |unit| unit.matrices[matrix].rows());
    let tokens = units.last().map_or(0, |unit| unit.tokens.end);
    let mut outs = which.map(|matrix| vec![0.0; tokens * rows(matrix)]);
    let mut products = Vec::with_capacity(N * units.len());
    for (out, matrix) in outs.iter_mut().zip(which) {
        let mut left = &mut out[..];
        for (unit, x) in units.iter().zip(inputs) {
            let weights = unit.matrices[matrix];
            let out = left.split_off_mut(..x.tokens() * weights.rows()).expect("rows of all units");
            products.push(Product { weights, heads: 1, x, out });
        }
    }
    matmul_all(ctx.tier, ctx.pool, products);
    for (out, matrix) in outs.iter_mut().zip(which) {
        for unit in units {
            let Some(biases) = &unit.biases else { continue };
            let bias = &biases[matrix];
            add_bias(
                ctx,
                bias,
                &mut out[unit.tokens.start * bias.len()..unit.tokens.end * bias.len()],
            );
        }
    }
    outs
}

/// `out = down(activation(gate x, up x))` of each unit and its inputs, `[tokens, hidden_size]`. `watch` sees what goes
/// into `down`.
fn glu(
    ctx: &Compute,
    activation: Activation,
    units: &[Glu],
    inputs: &[Activations],
    watch: impl FnOnce(&Activations),
) -> Vec<f32> {
    let [mut gate, up] = products(ctx, units, [0, 1], inputs);
    ctx.pool.run_chunks(&mut gate, GATED_AT_ONCE, &|i, gate| {
        let up = &up[i * GATED_AT_ONCE..][..gate.len()];
        match activation {
            Activation::SwiGlu => ctx.tier.run(SwiGlu { gate, up }),
            Activation::ClampedSwiGlu { alpha, limit } => {
                ctx.tier.run(ClampedSwiGlu { gate, up, alpha, limit });
            }
        }
    });
    let tokens = units.last().map_or(1, |unit| unit.tokens.end.max(1));
    let hidden = Activations::new(ctx.tier, &gate, gate.len() / tokens);
    watch(&hidden);
    let inputs: Vec<_> = units.iter().map(|unit| hidden.view(unit.tokens.clone())).collect();
    let [out] = products(ctx, units, [2], &inputs);
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
        let unit = Glu { matrices, biases: None, tokens: 0..x.tokens() };
        let x = [x.view(0..x.tokens())];
        glu(ctx, activation, &[unit], &x, |hidden| ctx.observe(&names[2..], 1, hidden))
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
        let mut outputs = Outputs { of: Vec::new(), places: vec![(0, 0); slots.len()] };
        self.store.for_each(visit, meanwhile, &mut |mut experts| {
            while !experts.is_empty() {
                let done = self.some(ctx, visit, experts, x, &mut outputs);
                experts = &experts[done..];
            }
        })?;

        let mut out = vec![0.0; x.tokens() * width];
        ctx.pool.run_chunks(&mut out, width, &|token, out| {
            let mine = token * per_token..(token + 1) * per_token;
            for (slot, (some, row)) in slots[mine.clone()].iter().zip(&outputs.places[mine]) {
                let x = &outputs.of[*some][row * width..][..width];
                ctx.tier.run(AddScaled { out, factor: slot.weight, x });
            }
        });
        Ok(out)
    }

    /// The outputs of the first of `experts`, as many as have tokens enough for all threads. Gives how many these are.
    fn some(
        &self,
        ctx: &Compute,
        visit: &Visit,
        experts: &[(ExpertId, &Expert)],
        x: &Activations,
        outputs: &mut Outputs,
    ) -> usize {
        let slots = visit.slots;
        // One expert's slots after the other's.
        let mut order = Vec::new();
        let mut units = Vec::new();
        for (id, expert) in experts {
            let start = order.len();
            order.extend((0..slots.len()).filter(|&i| slots[i].expert == *id));
            let matrices = [&expert.gate, &expert.up, &expert.down];
            let biases = self.biases.map(|biases| biases.of(*id));
            units.push(Glu { matrices, biases, tokens: start..order.len() });
            if order.len() >= SLOTS_AT_ONCE {
                break;
            }
        }
        let tokens: Vec<usize> = order.iter().map(|i| i / visit.per_token).collect();
        // One token alone needs no copies.
        let selected = (x.tokens() > 1).then(|| x.select(&tokens));
        let input = |unit: &Glu| match &selected {
            Some(selected) => selected.view(unit.tokens.clone()),
            None => x.view(0..1),
        };
        let inputs: Vec<_> = units.iter().map(input).collect();
        let y = glu(ctx, self.activation, &units, &inputs, |hidden| {
            let Some(watch) = &ctx.watch else { return };
            for (((id, _), unit), input) in experts.iter().zip(&units).zip(&inputs) {
                let mine = &order[unit.tokens.clone()];
                let weights: Vec<f32> = mine.iter().map(|i| slots[*i].weight).collect();
                let (input, hidden) = (&*input.values, &hidden.view(unit.tokens.clone()).values);
                let inputs = ExpertInputs { weights: &weights, input, hidden };
                watch.observer.expert(visit.layer, *id, &inputs);
            }
        });
        for (row, slot) in order.iter().enumerate() {
            outputs.places[*slot] = (outputs.of.len(), row);
        }
        outputs.of.push(y);
        units.len()
    }
}

/// What experts gave for the slots, as it came.
struct Outputs {
    /// Of some experts at a time, `[slots, hidden_size]`.
    of: Vec<Vec<f32>>,
    /// Where the output for each slot is: in which of these, and its row there.
    places: Vec<(usize, usize)>,
}
