//! Feed-forward: SwiGLU, and DeepSeekMoE, which adds the outputs of the routed experts to that of the
//! shared ones (DeepSeek-V2, section 2.2).

use std::ops::Range;

use super::Compute;
use super::linear::add_bias;
use super::observer::ExpertInputs;
use super::router::Router;
use super::{ExpertStore, Visit};
use crate::blocks::Matrix;
use crate::checkpoint::config::{Activation, Config};
use crate::checkpoint::{Expert, ExpertId, LayerId, WeightsError};
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

/// Units of one shape, and what each of them sees.
#[derive(Default)]
struct Alike<'a> {
    units: Vec<Glu<'a>>,
    inputs: Vec<Activations<'a>>,
}

/// The products of all units' inputs with some of their matrices, `[tokens, rows]` for each of these: one job.
fn products<const M: usize, const N: usize>(
    ctx: &Compute,
    units: [&[Glu]; M],
    inputs: [&[Activations]; M],
    which: [usize; N],
) -> [[Vec<f32>; N]; M] {
    let mut outs = units.map(|units| {
        let rows = |matrix: usize| units.first().map_or(0, |unit| unit.matrices[matrix].rows());
        let tokens = units.last().map_or(0, |unit| unit.tokens.end);
        which.map(|matrix| vec![0.0; tokens * rows(matrix)])
    });
    let mut products = Vec::with_capacity(N * units.iter().map(|units| units.len()).sum::<usize>());
    for ((units, inputs), outs) in units.iter().zip(inputs).zip(&mut outs) {
        for (out, matrix) in outs.iter_mut().zip(which) {
            let mut left = &mut out[..];
            for (unit, x) in units.iter().zip(inputs) {
                let weights = unit.matrices[matrix];
                let out = left.split_off_mut(..x.tokens() * weights.rows()).expect("rows of all");
                products.push(Product { weights, heads: 1, x, out });
            }
        }
    }
    matmul_all(ctx.tier, ctx.pool, products);
    for (units, outs) in units.iter().zip(&mut outs) {
        for (out, matrix) in outs.iter_mut().zip(which) {
            for unit in *units {
                let Some(biases) = &unit.biases else { continue };
                let (bias, Range { start, end }) = (&biases[matrix], unit.tokens.clone());
                add_bias(ctx, bias, &mut out[start * bias.len()..end * bias.len()]);
            }
        }
    }
    outs
}

/// `out = down(activation(gate x, up x))` of all units, `[tokens, hidden_size]`. `watch` sees what goes into `down`.
fn glu<const M: usize>(
    ctx: &Compute,
    activation: Activation,
    all: &[Alike; M],
    watch: impl FnOnce([&Activations; M]),
) -> [Vec<f32>; M] {
    let units = all.each_ref().map(|alike| &alike.units[..]);
    let inputs = all.each_ref().map(|alike| &alike.inputs[..]);
    let mut gated = products(ctx, units, inputs, [0, 1]);
    for [gate, up] in &mut gated {
        ctx.pool.run_chunks(gate, GATED_AT_ONCE, &|i, gate| {
            let up = &up[i * GATED_AT_ONCE..][..gate.len()];
            match activation {
                Activation::SwiGlu => ctx.tier.run(SwiGlu { gate, up }),
                Activation::ClampedSwiGlu { alpha, limit } => {
                    ctx.tier.run(ClampedSwiGlu { gate, up, alpha, limit });
                }
            }
        });
    }
    let hidden: [_; M] = std::array::from_fn(|i| {
        let width = units[i].first().map_or(1, |unit| unit.matrices[0].rows());
        Activations::new(ctx.tier, &gated[i][0], width)
    });
    watch(hidden.each_ref());
    let inputs: [Vec<_>; M] = std::array::from_fn(|i| {
        units[i].iter().map(|unit| hidden[i].view(unit.tokens.clone())).collect()
    });
    products(ctx, units, inputs.each_ref().map(|inputs| &inputs[..]), [2]).map(|[out]| out)
}

impl Mlp {
    /// It as a unit over `x`.
    fn over<'a>(&'a self, x: &'a Activations) -> Alike<'a> {
        let (matrices, tokens) = ([&self.gate, &self.up, &self.down], 0..x.tokens());
        let inputs = vec![x.view(tokens.clone())];
        Alike { units: vec![Glu { matrices, biases: None, tokens }], inputs }
    }

    /// Applies it.
    fn forward(&self, ctx: &Compute, activation: Activation, x: &Activations) -> Vec<f32> {
        ctx.observe(&["ffn_gate", "ffn_up"], 1, x);
        let down = |[hidden]: [&Activations; 1]| ctx.observe(&["ffn_down"], 1, hidden);
        let [out] = glu(ctx, activation, &[self.over(x)], down);
        out
    }
}

impl Shared {
    /// Scales what its experts gave for `x`, `[tokens, hidden_size]`.
    fn scale(&self, ctx: &Compute, x: &Activations, out: &mut [f32]) {
        let Some(gate) = &self.gate else { return };
        let mut factors = vec![0.0; x.tokens()];
        matmul(ctx.tier, ctx.pool, gate, x, &mut factors);
        ctx.tier.run(Sigmoid(&mut factors));
        for (out, factor) in out.chunks_exact_mut(x.width).zip(factors) {
            out.iter_mut().for_each(|y| *y *= factor);
        }
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
            Self::Dense(mlp) => Ok(mlp.forward(ctx, config.activation, x)),
            Self::Moe(moe) => moe.forward(ctx, config, layer, store, x),
        }
    }
}

impl Moe {
    /// The weighted sum of each token's experts, and the shared ones. Each expert is fetched once and sees all of its
    /// tokens, in whatever order the store has experts ready; outputs are added in slot order.
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
        let (width, per_token) = (x.width, config.moe.num_experts_per_tok);
        let visit = Visit { layer, slots: &slots, per_token };
        let places = vec![(0, 0); slots.len()];
        let mut outputs = Outputs { shared: None, of: Vec::new(), places };
        store.for_each(&visit, &mut |mut experts| {
            loop {
                let done = self.some(ctx, config.activation, &visit, experts, x, &mut outputs);
                experts = &experts[done..];
                if experts.is_empty() {
                    break;
                }
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
        if let (Some(shared), Some(mut of_shared)) = (&self.shared, outputs.shared) {
            shared.scale(ctx, x, &mut of_shared);
            ctx.tier.run(AddScaled { out: &mut out, factor: 1.0, x: &of_shared });
        }
        Ok(out)
    }

    /// The outputs of the first of `experts`, as many as have tokens enough for all threads, and before any others those
    /// of the shared ones. Gives how many of `experts` these are.
    fn some(
        &self,
        ctx: &Compute,
        activation: Activation,
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
            let biases = self.biases.as_ref().map(|biases| biases.of(*id));
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
        let inputs = units.iter().map(input).collect();
        let left = self.shared.as_ref().filter(|_| outputs.shared.is_none());
        let all =
            [left.map_or(Alike::default(), |shared| shared.mlp.over(x)), Alike { units, inputs }];
        if left.is_some() {
            ctx.observe(&["ffn_gate_shexp", "ffn_up_shexp"], 1, x);
        }
        let routed = &all[1];
        let [of_shared, of_routed] = glu(ctx, activation, &all, |[of_shared, hidden]| {
            let Some(watch) = &ctx.watch else { return };
            if left.is_some() {
                watch.matrices(&["ffn_down_shexp"], 1, of_shared);
            }
            for (((id, _), unit), input) in experts.iter().zip(&routed.units).zip(&routed.inputs) {
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
        outputs.of.push(of_routed);
        if left.is_some() {
            outputs.shared = Some(of_shared);
        }
        all[1].units.len()
    }
}

/// What experts gave for the slots, as it came.
struct Outputs {
    /// Of the shared experts, `[tokens, hidden_size]`.
    shared: Option<Vec<f32>>,
    /// Of some experts at a time, `[slots, hidden_size]`.
    of: Vec<Vec<f32>>,
    /// Where the output for each slot is: in which of these, and its row there.
    places: Vec<(usize, usize)>,
}
