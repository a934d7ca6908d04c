//! Mixtures of experts.

/// DeepSeekMoE (V2, section 2.2; V3, section 2.1.2); other mixtures of experts are special cases.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Routed experts per layer; 0 in a dense model.
    pub n_routed_experts: usize,
    /// Shared experts, which every token uses; stored as one.
    pub n_shared_experts: usize,
    /// Width of the combined shared expert; 0 if there is none.
    pub shared_expert_intermediate_size: usize,
    /// Whether a separate gate scales the shared experts' output (Qwen2-MoE).
    pub shared_expert_gate: bool,
    /// Whether router and experts have biases (gpt-oss).
    pub bias: bool,
    /// Whether a dense feed-forward runs beside the experts, and it, the experts and the router
    /// have norms of their own (Gemma 4).
    pub parallel: bool,
    /// Experts per token.
    pub num_experts_per_tok: usize,
    /// Width of one routed expert.
    pub moe_intermediate_size: usize,
    /// Number of layers at the start with a dense feed-forward.
    pub first_k_dense_replace: usize,
    /// Function from logits to scores.
    pub scoring_func: Scoring,
    /// Selection of the experts from scores.
    pub topk_method: TopkMethod,
    /// Number of groups of experts.
    pub n_group: usize,
    /// Number of groups that a token may select from.
    pub topk_group: usize,
    /// Whether the selected weights are normalized to sum to 1.
    pub norm_topk_prob: bool,
    /// Factor on the routed experts' weights.
    pub routed_scaling_factor: f32,
}

/// Function from router logits to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts (V2).
    Softmax,
    /// Sigmoid of each logit (V3).
    Sigmoid,
}

/// Selection of a token's experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopkMethod {
    /// The highest scores (V2-Lite).
    Greedy,
    /// The highest scores within the groups that contain the highest single scores (V2).
    GroupLimitedGreedy,
    /// The highest scores plus `e_score_correction_bias`, within the groups with the largest sum of
    /// their two highest (V3); balanced without an auxiliary loss.
    NoauxTc,
}

impl MoeConfig {
    /// A model without experts.
    pub const DENSE: Self = Self {
        n_routed_experts: 0,
        n_shared_experts: 0,
        shared_expert_intermediate_size: 0,
        shared_expert_gate: false,
        bias: false,
        parallel: false,
        num_experts_per_tok: 0,
        moe_intermediate_size: 0,
        first_k_dense_replace: 0,
        scoring_func: Scoring::Softmax,
        topk_method: TopkMethod::Greedy,
        n_group: 1,
        topk_group: 1,
        norm_topk_prob: false,
        routed_scaling_factor: 1.0,
    };
}
