//! Gated feed-forwards of many experts, computed as few parallel jobs.

use std::iter::zip;
use std::ops::Range;

use super::Compute;
use super::linear::add_bias;
use super::moe::Mlp;
use super::observer::ExpertInputs;
use crate::blocks::Matrix;
use crate::checkpoint::config::Activation;
use crate::checkpoint::{Expert, ExpertId, Projection};
use crate::kernels::vector::{ClampedSwiGlu, GeGlu, SwiGlu};
use crate::kernels::{Activations, Product, matmul_all};

/// Numbers per activation task: a few experts of one token are not worth a hand-over to another
/// thread.
const ACTIVATIONS_PER_TASK: usize = 1 << 14;

/// Matrices of a gated feed-forward.
pub(super) enum FfnWeights<'a> {
    /// Dense layers and shared experts.
    Mlp(&'a Mlp),
    /// A routed expert.
    Expert {
        id: ExpertId,
        expert: &'a Expert,
        /// Biases of gate, up and down.
        biases: Option<[Vec<f32>; 3]>,
        /// Router weight of each token, for an observer; empty without one.
        weights: Vec<f32>,
    },
}

impl FfnWeights<'_> {
    fn matrix(&self, projection: Projection) -> &Matrix {
        match (self, projection) {
            (Self::Mlp(mlp), Projection::Gate) => &mlp.gate.weight,
            (Self::Mlp(mlp), Projection::Up) => &mlp.up.weight,
            (Self::Mlp(mlp), Projection::Down) => &mlp.down.weight,
            (Self::Expert { expert, .. }, Projection::Gate) => &expert.gate,
            (Self::Expert { expert, .. }, Projection::Up) => &expert.up,
            (Self::Expert { expert, .. }, Projection::Down) => &expert.down,
        }
    }

    fn bias(&self, projection: Projection) -> Option<&[f32]> {
        match self {
            Self::Mlp(Mlp { gate, up, down }) => match projection {
                Projection::Gate => gate.bias.as_deref(),
                Projection::Up => up.bias.as_deref(),
                Projection::Down => down.bias.as_deref(),
            },
            Self::Expert { biases, .. } => Some(&biases.as_ref()?[projection as usize]),
        }
    }

    /// Shows `input`, `[tokens, hidden_size]`, and `hidden`, `[tokens, intermediate]`, to the
    /// observer.
    fn observe(&self, ctx: &Compute, input: &Activations, hidden: &Activations) {
        match self {
            Self::Mlp(Mlp { gate, up, down }) => {
                gate.observe(ctx, 1, input);
                up.observe(ctx, 1, input);
                down.observe(ctx, 1, hidden);
            }
            Self::Expert { id, weights, .. } => {
                let (input, hidden) = (&*input.values, &*hidden.values);
                ctx.observe_expert(*id, &ExpertInputs { weights, input, hidden });
            }
        }
    }
}

/// A feed-forward over some rows of its batch.
pub(super) struct Ffn<'a> {
    pub weights: FfnWeights<'a>,
    /// Rows of the batch's input.
    pub input: Range<usize>,
    /// Rows of the batch's output.
    pub rows: Range<usize>,
}

/// Feed-forwards of equal shape. Their outputs are contiguous.
pub(super) struct Batch<'a> {
    /// `[rows, hidden_size]`
    pub input: Activations<'a>,
    pub ffns: Vec<Ffn<'a>>,
}

impl Batch<'_> {
    /// Computes `W_down act(W_gate x, W_up x)` of all feed-forwards, `[rows, hidden_size]` per
    /// batch: one parallel job for gate and up, one for down.
    pub fn forward(ctx: &Compute, activation: Activation, batches: &[Self]) -> Vec<Vec<f32>> {
        let inputs: Vec<Vec<Activations>> = batches
            .iter()
            .map(|Batch { input, ffns }| {
                ffns.iter().map(|ffn| input.view(ffn.input.clone())).collect()
            })
            .collect();
        let mut gated = project(ctx, batches, &inputs, &[Projection::Gate, Projection::Up]);
        for [gate, up] in gated.as_chunks_mut().0 {
            activate(ctx, activation, gate, up);
        }

        let hidden: Vec<Activations> = zip(batches, gated.iter().step_by(2))
            .map(|(batch, gate)| Activations::new(ctx.tier, gate, batch.outputs(Projection::Gate)))
            .collect();
        let hidden: Vec<Vec<Activations>> = zip(batches, &hidden)
            .map(|(batch, x)| batch.ffns.iter().map(|ffn| x.view(ffn.rows.clone())).collect())
            .collect();
        if ctx.watch.is_some() {
            let ffns = batches.iter().flat_map(|batch| &batch.ffns);
            for (ffn, (x, hidden)) in
                zip(ffns, zip(inputs.iter().flatten(), hidden.iter().flatten()))
            {
                ffn.weights.observe(ctx, x, hidden);
            }
        }
        project(ctx, batches, &hidden, &[Projection::Down])
    }

    fn rows(&self) -> usize {
        self.ffns.last().map_or(0, |ffn| ffn.rows.end)
    }

    /// Number of outputs of a projection; 1 for an empty batch.
    fn outputs(&self, projection: Projection) -> usize {
        self.ffns.first().map_or(1, |ffn| ffn.weights.matrix(projection).rows())
    }
}

/// Products of the feed-forwards' inputs with their matrices of the given projections, `[rows,
/// outputs]` per batch and projection, as one parallel job.
fn project(
    ctx: &Compute,
    batches: &[Batch],
    inputs: &[Vec<Activations>],
    projections: &[Projection],
) -> Vec<Vec<f32>> {
    let parts: Vec<_> = zip(batches, inputs)
        .flat_map(|part| projections.iter().map(move |projection| (part, *projection)))
        .collect();
    let mut outs: Vec<_> = parts
        .iter()
        .map(|((batch, _), projection)| vec![0.0; batch.rows() * batch.outputs(*projection)])
        .collect();
    let mut products = Vec::new();
    for (((batch, inputs), projection), out) in zip(&parts, &mut outs) {
        let mut left = &mut out[..];
        for (ffn, x) in zip(&batch.ffns, *inputs) {
            let weights = ffn.weights.matrix(*projection);
            let out = left.split_off_mut(..x.tokens() * weights.rows()).expect("rows of all");
            products.push(Product { weights, heads: 1, x, out });
        }
    }
    matmul_all(ctx.tier, ctx.pool, products);
    for (((batch, _), projection), out) in zip(&parts, &mut outs) {
        for ffn in &batch.ffns {
            if let Some(bias) = ffn.weights.bias(*projection) {
                let Range { start, end } = ffn.rows;
                add_bias(ctx, bias, &mut out[start * bias.len()..end * bias.len()]);
            }
        }
    }
    outs
}

/// `gate = act(gate, up)`
fn activate(ctx: &Compute, activation: Activation, gate: &mut [f32], up: &[f32]) {
    ctx.pool.run_chunks(gate, ACTIVATIONS_PER_TASK, &|i, gate| {
        let up = &up[i * ACTIVATIONS_PER_TASK..][..gate.len()];
        match activation {
            Activation::SwiGlu => ctx.tier.run(SwiGlu { gate, up }),
            Activation::GeGlu => ctx.tier.run(GeGlu { gate, up }),
            Activation::ClampedSwiGlu { alpha, limit } => {
                ctx.tier.run(ClampedSwiGlu { gate, up, alpha, limit });
            }
        }
    });
}
