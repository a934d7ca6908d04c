//! Feed-forward: SwiGLU (arXiv 2002.05202), and DeepSeekMoE (DeepSeek-V2, section 2.2; V3, section
//! 2.1.2), which adds the weighted outputs of the routed experts to those of the shared ones.

use super::Compute;
use super::batch::{Batch, Ffn, FfnWeights};
use super::gqa::sigmoids;
use super::linear::Linear;
use super::router::Router;
use super::store::{ExpertStore, Purpose, Visit};
use crate::blocks::Matrix;
use crate::checkpoint::config::{Activation, Config};
use crate::checkpoint::{Expert, ExpertId, LayerId, WeightsError};
use crate::kernels::vector::{AddScaled, rms_norm};
use crate::kernels::{Activations, matmul};

/// Slots whose experts are computed in one batch: enough for all threads, few enough for the
/// caches.
pub(crate) const SLOTS_AT_ONCE: usize = 512;

/// SwiGLU: `W_down (silu(W_gate x) * W_up x)`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden_size]`
    pub gate: Linear,
    /// `[intermediate, hidden_size]`
    pub up: Linear,
    /// `[hidden_size, intermediate]`
    pub down: Linear,
}

/// The feed-forward of a layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// Dense, in the first `first_k_dense_replace` layers.
    Dense(Box<Mlp>),
    /// Mixture of experts.
    Moe(Box<Moe>),
    /// Mixture of experts beside a dense feed-forward.
    Parallel(Box<Parallel>),
}

/// A mixture of experts beside a dense feed-forward, each with norms of its own (Gemma 4):
/// `norm(FFN(norm(x))) + norm(sum_i g_i FFN_i(norm(x)))`.
#[derive(Clone, Debug)]
pub struct Parallel {
    /// The experts, with the dense feed-forward as a shared one.
    pub moe: Moe,
    /// Norm of the router's inputs, `[hidden_size]`.
    pub router_norm: Vec<f32>,
    /// Norm of the experts' inputs, `[hidden_size]`.
    pub experts_norm: Vec<f32>,
    /// Norm of the experts' output, `[hidden_size]`.
    pub experts_post_norm: Vec<f32>,
    /// Norm of the dense feed-forward's output, `[hidden_size]`.
    pub dense_post_norm: Vec<f32>,
}

/// A mixture of experts.
#[derive(Clone, Debug)]
pub struct Moe {
    /// Chooses and weighs the experts of a token.
    pub router: Router,
    /// Shared experts, where the model has any.
    pub shared: Option<Shared>,
    /// Biases of the routed experts, where they have any.
    pub biases: Option<ExpertBiases>,
}

/// Shared experts, which every token visits, as one feed-forward.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The experts side by side.
    pub mlp: Mlp,
    /// `[1, hidden_size]`: its sigmoid scales the output (Qwen2-MoE).
    pub gate: Option<Matrix>,
}

/// Biases of a layer's routed experts. They are small, so they stay in memory when experts do not.
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
    /// Biases of one expert: gate, up, down.
    fn of(&self, expert: ExpertId) -> [Vec<f32>; 3] {
        [&self.gate, &self.up, &self.down].map(|biases| {
            let mut bias = vec![0.0; biases.cols()];
            biases.decode_row(expert.0, &mut bias);
            bias
        })
    }
}

impl Mlp {
    /// A batch of this feed-forward alone, over `x`, `[tokens, hidden_size]`.
    fn batch<'a>(&'a self, x: &'a Activations) -> Batch<'a> {
        let rows = 0..x.tokens();
        let ffn = Ffn { weights: FfnWeights::Mlp(self), input: rows.clone(), rows: rows.clone() };
        Batch { input: x.view(rows), ffns: vec![ffn] }
    }

    /// Applies the feed-forward to `x`, `[tokens, hidden_size]`.
    fn forward(&self, ctx: &Compute, activation: Activation, x: &Activations) -> Vec<f32> {
        Batch::forward(ctx, activation, &[self.batch(x)]).remove(0)
    }
}

impl Shared {
    /// Scales the experts' output for `x`, `[tokens, hidden_size]`, by the sigmoid of the gate.
    fn scale(&self, ctx: &Compute, x: &Activations, out: &mut [f32]) {
        let Some(gate) = &self.gate else { return };
        let mut factors = vec![0.0; x.tokens()];
        matmul(ctx.tier, ctx.pool, gate, x, &mut factors);
        sigmoids(ctx, &mut factors);
        for (out, factor) in out.chunks_exact_mut(x.width).zip(factors) {
            out.iter_mut().for_each(|y| *y *= factor);
        }
    }
}

impl FeedForward {
    /// Applies the feed-forward to `x`, the norm of `residual`, `[tokens, hidden_size]`;
    /// `purposes`, `[tokens]`, says what each token is for.
    ///
    /// # Errors
    /// If the store cannot provide an expert.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        ctx: &Compute,
        config: &Config,
        layer: LayerId,
        store: &dyn ExpertStore,
        purposes: &[Purpose],
        residual: &[f32],
        x: &Activations,
    ) -> Result<Vec<f32>, WeightsError> {
        let to = &To { config, layer, store, purposes };
        match self {
            Self::Dense(mlp) => Ok(mlp.forward(ctx, config.activation, x)),
            Self::Moe(moe) => moe.forward(ctx, to, x),
            Self::Parallel(parallel) => parallel.forward(ctx, to, residual, x),
        }
    }

    /// The router and its inputs, `[tokens, hidden_size]`, for the residual stream `x`, whose norm
    /// before the feed-forward is `norm`; `None` without experts.
    pub fn router(
        &self,
        ctx: &Compute,
        config: &Config,
        norm: &[f32],
        x: &[f32],
    ) -> Option<(&Router, Vec<f32>)> {
        let (router, norm) = match self {
            Self::Dense(_) => return None,
            Self::Moe(moe) => (&moe.router, norm),
            Self::Parallel(parallel) => (&parallel.moe.router, &*parallel.router_norm),
        };
        Some((router, rms_norm(ctx.tier, x, norm, config.rms_norm_eps)))
    }
}

/// Destination of tokens: a layer and its store.
struct To<'a> {
    config: &'a Config,
    layer: LayerId,
    store: &'a dyn ExpertStore,
    purposes: &'a [Purpose],
}

/// Inputs of the router, the routed and the shared experts, `[tokens, hidden_size]` each.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    router: &'a Activations<'a>,
    routed: &'a Activations<'a>,
    shared: &'a Activations<'a>,
}

impl Parallel {
    fn forward(
        &self,
        ctx: &Compute,
        to: &To,
        residual: &[f32],
        x: &Activations,
    ) -> Result<Vec<f32>, WeightsError> {
        let eps = to.config.rms_norm_eps;
        let [router, routed] = [&self.router_norm, &self.experts_norm]
            .map(|norm| rms_norm(ctx.tier, residual, norm, eps));
        let [router, routed] =
            [&router, &routed].map(|values| Activations::new(ctx.tier, values, x.width));
        let inputs = Inputs { router: &router, routed: &routed, shared: x };
        let (routed, dense) = self.moe.outputs(ctx, to, inputs)?;
        let mut out = rms_norm(ctx.tier, &routed, &self.experts_post_norm, eps);
        if let Some(dense) = dense {
            let dense = rms_norm(ctx.tier, &dense, &self.dense_post_norm, eps);
            ctx.tier.run(AddScaled { out: &mut out, factor: 1.0, x: &dense });
        }
        Ok(out)
    }
}

impl Moe {
    /// DeepSeekMoE without its residual (V2, equation 20; V3, equation 12): `h_t = sum_i
    /// FFN^(s)_i(u_t) + sum_i g_{i,t} FFN^(r)_i(u_t)`.
    fn forward(&self, ctx: &Compute, to: &To, x: &Activations) -> Result<Vec<f32>, WeightsError> {
        let inputs = Inputs { router: x, routed: x, shared: x };
        let (mut out, of_shared) = self.outputs(ctx, to, inputs)?;
        if let (Some(shared), Some(mut of_shared)) = (&self.shared, of_shared) {
            shared.scale(ctx, x, &mut of_shared);
            ctx.tier.run(AddScaled { out: &mut out, factor: 1.0, x: &of_shared });
        }
        Ok(out)
    }

    /// The sums over the routed experts, and the outputs of the shared ones. Each expert is fetched
    /// once and sees all of its tokens, in the order in which experts become resident.
    fn outputs(
        &self,
        ctx: &Compute,
        to: &To,
        inputs: Inputs,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>), WeightsError> {
        let To { config, layer, store, purposes } = *to;
        let x = inputs.routed;
        // g_{i,t}: V2, equations 21 and 22; V3, 13 to 16. A prompt's chunk needs nearly all
        // experts, so a preference pays only where all tokens are generated.
        let decodes = Purpose::all_decode(purposes);
        let preference = if decodes { store.preference(layer) } else { None };
        let slots = self.router.route(ctx, &config.moe, inputs.router, preference.as_ref());
        let per_token = config.moe.num_experts_per_tok;
        let visit = Visit { layer, slots: &slots, per_token, purposes };

        // FFN^(s)_i(u_t), in one job with the first FFN^(r)_i(u_t)
        let mut routed = SlotOutputs::new(x.width, slots.len());
        let mut shared = self.shared.as_ref().map(|shared| shared.mlp.batch(inputs.shared));
        let mut of_shared = None;
        let mut arrivals = store.fetch(&visit)?;
        while let Some(experts) = arrivals.next_ready()? {
            for (batch, slots) in self.batches(ctx, &visit, &experts, x) {
                let batches: Vec<Batch> = shared.take().into_iter().chain([batch]).collect();
                let mut outs = Batch::forward(ctx, config.activation, &batches);
                routed.push(&slots, outs.pop().unwrap_or_default());
                of_shared = of_shared.or(outs.pop());
            }
        }

        // the sums, in slot order
        Ok((routed.weighted_sums(ctx, &visit), of_shared))
    }

    /// Batches of resident experts, each with the slot of every row. Every batch but the last has
    /// at least [`SLOTS_AT_ONCE`] rows. Without experts there is one batch without feed-forwards.
    fn batches<'a>(
        &self,
        ctx: &Compute,
        visit: &Visit,
        mut experts: &'a [(ExpertId, &'a Expert)],
        x: &'a Activations,
    ) -> Vec<(Batch<'a>, Vec<usize>)> {
        let mut batches = Vec::new();
        while !experts.is_empty() || batches.is_empty() {
            let (mut ffns, mut slots) = (Vec::new(), Vec::new());
            while let Some(((id, expert), rest)) = experts.split_first()
                && slots.len() < SLOTS_AT_ONCE
            {
                let first = slots.len();
                slots.extend((0..visit.slots.len()).filter(|&i| visit.slots[i].expert == *id));
                let rows = first..slots.len();
                let biases = self.biases.as_ref().map(|biases| biases.of(*id));
                let weight = |slot: &usize| visit.slots[*slot].weight;
                let weights = match ctx.watch {
                    Some(_) => slots[rows.clone()].iter().map(weight).collect(),
                    None => Vec::new(),
                };
                let weights = FfnWeights::Expert { id: *id, expert, biases, weights };
                // One token alone is not copied: all of its experts read the same row.
                let input = if x.tokens() > 1 { rows.clone() } else { 0..1 };
                ffns.push(Ffn { weights, input, rows });
                experts = rest;
            }
            let tokens: Vec<usize> = slots.iter().map(|slot| slot / visit.per_token).collect();
            let input = if x.tokens() > 1 { x.select(&tokens) } else { x.view(0..1) };
            batches.push((Batch { input, ffns }, slots));
        }
        batches
    }
}

/// Expert outputs in completion order, with an index from slot to row.
struct SlotOutputs {
    width: usize,
    /// `[rows, width]` per batch.
    batches: Vec<Vec<f32>>,
    /// Batch and row of each slot.
    rows: Vec<(usize, usize)>,
}

impl SlotOutputs {
    fn new(width: usize, slots: usize) -> Self {
        Self { width, batches: Vec::new(), rows: vec![(0, 0); slots] }
    }

    /// Adds the outputs of `slots`, `[slots, width]`.
    fn push(&mut self, slots: &[usize], outputs: Vec<f32>) {
        for (row, slot) in slots.iter().enumerate() {
            self.rows[*slot] = (self.batches.len(), row);
        }
        self.batches.push(outputs);
    }

    /// The weighted sum of each token's slots, best first, `[tokens, width]`.
    fn weighted_sums(&self, ctx: &Compute, visit: &Visit) -> Vec<f32> {
        let width = self.width;
        let mut out = vec![0.0; visit.tokens() * width];
        ctx.pool.run_chunks(&mut out, width, &|token, out| {
            let slots = token * visit.per_token..(token + 1) * visit.per_token;
            for (slot, (batch, row)) in visit.slots[slots.clone()].iter().zip(&self.rows[slots]) {
                let x = &self.batches[*batch][row * width..][..width];
                ctx.tier.run(AddScaled { out, factor: slot.weight, x });
            }
        });
        out
    }
}
