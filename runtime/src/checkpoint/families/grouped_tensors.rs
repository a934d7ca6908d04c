//! Tensors of families with grouped-query attention, from their descriptions.

use super::grouped::{ExpertLayout, Experts, Grouped, Mtp, Pairs};
use super::{Family, mamba2, mtp};
use crate::checkpoint::config::{
    AttentionConfig, Bias, Config, GroupedConfig, HeadShape, KeysAsValues, LayerType, OutputGate,
    QkNorm, Recurrence, RopeScaling,
};
use crate::checkpoint::config::{MoeConfig, TopkMethod};
use crate::checkpoint::spec::{
    Axis, ExpertId, ExpertSpec, Function, HfExpert, HfTensor, LayerId, Picked, Role, TensorSpec,
};

/// All tensors except routed experts, in file order.
pub fn tensors(family: &Grouped, config: &Config) -> Vec<TensorSpec> {
    let AttentionConfig::Grouped(gqa) = &config.attention else { return Vec::new() };
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let whole = |name: &str| HfTensor::Whole(name.into());
    let names = &family.names;
    let mut specs = Vec::new();
    let embedding = whole("model.embed_tokens.weight");
    specs.push(spec("token_embd.weight", [vocab, hidden], Role::Embedding, embedding));
    specs.push(rope_factors(family, config));
    if config.per_layer_width > 0 {
        specs.extend(per_layer(config));
    }
    for layer in 0..config.num_layers_stored() {
        Layer { family, config, gqa, layer, specs: &mut specs }.tensors();
        if layer >= config.num_hidden_layers {
            specs.extend(match family.mtp {
                Mtp::Module => mtp::module_tensors(config, layer),
                _ => mtp::tensors(config, layer, mtp::NORM),
            });
        }
    }
    let norm = format!("{}.weight", names.gguf_output_norm);
    let from = format!("model.{}.weight", names.output_norm);
    specs.push(spec(&norm, [1, hidden], Role::Vector, family.norm(from)));
    if !config.tie_word_embeddings {
        specs.push(spec("output.weight", [vocab, hidden], Role::Output, whole("lm_head.weight")));
    }
    specs
}

fn spec(name: &str, [rows, cols]: [usize; 2], role: Role, hf: HfTensor) -> TensorSpec {
    TensorSpec { name: name.into(), rows, cols, role, hf, optional: false }
}

/// Wavelength factors of the rotary embedding, which llama.cpp stores as a tensor; absent if the
/// context of the model was not extended.
fn rope_factors(family: &Grouped, config: &Config) -> TensorSpec {
    let rope = &config.rope;
    let hf = match &rope.scaling {
        RopeScaling::Llama3(llama) => HfTensor::Made(llama.factors(rope.theta, rope.dim)),
        RopeScaling::Proportional { pairs } => {
            let factor = |pair| if pair < *pairs { 1.0 } else { UNROTATED };
            HfTensor::Made((0..rope.dim / 2).map(factor).collect())
        }
        _ => HfTensor::Whole("rope_freqs.weight".into()),
    };
    let shape = [1, rope.dim / 2];
    // In a file of Gemma 4, the tensor alone says what is rotated.
    let optional = !family.gemma4;
    TensorSpec { optional, ..spec("rope_freqs.weight", shape, Role::Vector, hf) }
}

/// Factor on the wavelength of a pair that is not rotated, as llama.cpp's converter has it.
const UNROTATED: f32 = 1e30;

/// The table of per-layer embeddings, and the projection of embeddings that is added to them.
fn per_layer(config: &Config) -> [TensorSpec; 3] {
    let all = config.num_hidden_layers * config.per_layer_width;
    let of_model = |name: &str| HfTensor::Whole(format!("model.{name}.weight"));
    [
        spec(
            "per_layer_token_embd.weight",
            [config.vocab_size, all],
            Role::Embedding,
            of_model("embed_tokens_per_layer"),
        ),
        spec(
            "per_layer_model_proj.weight",
            [all, config.hidden_size],
            Role::Attention,
            of_model("per_layer_model_projection"),
        ),
        spec(
            "per_layer_proj_norm.weight",
            [1, config.per_layer_width],
            Role::Vector,
            of_model("per_layer_projection_norm"),
        ),
    ]
}

impl Grouped {
    /// A norm in a checkpoint.
    fn norm(&self, name: String) -> HfTensor {
        match self.zero_centred {
            true => HfTensor::Applied(name, Function::PlusOne, Vec::new()),
            false => HfTensor::Whole(name),
        }
    }
}

struct Layer<'a> {
    family: &'a Grouped,
    config: &'a Config,
    gqa: &'a GroupedConfig,
    layer: usize,
    specs: &'a mut Vec<TensorSpec>,
}

impl Layer<'_> {
    fn hf(&self, name: &str) -> String {
        self.family.layer_prefix(self.config, self.layer) + name
    }

    /// Adds a tensor by its names in GGUF and in the checkpoint, both below the layer.
    fn add(&mut self, name: &str, shape: [usize; 2], role: Role, from: &str) {
        let hf = HfTensor::Whole(self.hf(from));
        self.push(name, shape, role, hf);
    }

    fn push(&mut self, name: &str, shape: [usize; 2], role: Role, hf: HfTensor) {
        self.specs.push(spec(&format!("blk.{}.{name}", self.layer), shape, role, hf));
    }

    /// Adds the bias of a matrix, if it has or may have one.
    fn bias(&mut self, bias: Bias, name: &str, rows: usize, hf: HfTensor) {
        if bias != Bias::None {
            let name = format!("blk.{}.{name}.bias", self.layer);
            let optional = bias == Bias::IfStored;
            self.specs.push(TensorSpec { optional, ..spec(&name, [1, rows], Role::Vector, hf) });
        }
    }

    fn tensors(&mut self) {
        let names = &self.family.names;
        self.norm("attn_norm.weight", names.mixer_norm);
        match self.config.layer_type(self.layer) {
            LayerType::Conv => self.short_conv(),
            LayerType::Recurrent => self.recurrence(),
            LayerType::Full | LayerType::Sliding => self.attention(),
        }
        if self.config.post_norms {
            self.norm("post_attention_norm.weight", names.post_norms[0]);
        }
        self.norm(&format!("{}.weight", names.gguf_ffn_norm), names.ffn_norm);
        if self.config.is_moe(self.layer) {
            self.moe();
        }
        if !self.config.is_moe(self.layer) || self.config.moe.parallel {
            let width = self.config.dense_width(self.layer);
            self.mlp("", width, Role::DenseFfn, names.mlp);
        }
        if self.config.post_norms {
            self.norm("post_ffw_norm.weight", names.post_norms[1]);
        }
        if self.family.gemma4 {
            self.gemma4();
        }
    }

    /// Adds what only Gemma 4 has in a layer.
    fn gemma4(&mut self) {
        let (hidden, experts) = (self.config.hidden_size, self.config.moe.n_routed_experts);
        if self.config.is_moe(self.layer) {
            for (name, from) in [
                ("post_ffw_norm_1", "post_feedforward_layernorm_1"),
                ("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
                ("post_ffw_norm_2", "post_feedforward_layernorm_2"),
            ] {
                self.norm(&format!("{name}.weight"), from);
            }
            self.add("ffn_gate_inp.scale", [1, hidden], Role::Vector, "router.scale");
            let scale = "router.per_expert_scale";
            self.add("ffn_down_exps.scale", [1, experts], Role::Vector, scale);
        }
        let width = self.config.per_layer_width;
        if width > 0 {
            let gate = "per_layer_input_gate.weight";
            self.add("inp_gate.weight", [width, hidden], Role::Attention, gate);
            let from = "per_layer_projection.weight";
            self.add("proj.weight", [hidden, width], Role::Attention, from);
            self.norm("post_norm.weight", "post_per_layer_input_norm");
        }
        self.add("layer_output_scale.weight", [1, 1], Role::Vector, "layer_scalar");
    }

    /// Adds a norm of the residual stream.
    fn norm(&mut self, name: &str, from: &str) {
        let hf = self.family.norm(self.hf(&format!("{from}.weight")));
        self.push(name, [1, self.config.hidden_size], Role::Vector, hf);
    }

    fn recurrence(&mut self) {
        let hidden = self.config.hidden_size;
        match (&self.config.recurrence, self.family.delta) {
            (Some(Recurrence::GatedDelta(delta)), Some(layout)) => {
                layout.tensors(delta, hidden, |name, shape, role, hf, from| {
                    let hf = hf(&self.hf(from));
                    self.push(name, shape, role, hf);
                });
            }
            (Some(Recurrence::Mamba2(mamba)), _) => {
                mamba2::tensors(mamba, hidden, |name, shape, role, hf, from| {
                    let hf = hf(self.hf(from));
                    self.push(name, shape, role, hf);
                });
                let hf = HfTensor::Whole(self.hf("mamba.conv1d.bias"));
                self.bias(mamba.conv_bias, "ssm_conv1d", mamba.conv_dim(), hf);
            }
            _ => {}
        }
    }

    fn attention(&mut self) {
        let ty = self.config.layer_type(self.layer);
        let HeadShape { head_dim, num_key_value_heads } = self.gqa.head_shape(ty);
        let shares = self.config.cache_layer(self.layer) != self.layer;
        let heads = self.gqa.heads(self.layer);
        let hidden = self.config.hidden_size;
        let key_value = num_key_value_heads * head_dim;
        for (name, rows) in [("q", heads * head_dim), ("k", key_value), ("v", key_value)] {
            let as_values = match self.gqa.keys_as_values {
                keys if name == "v" && ty == LayerType::Full => keys,
                _ => KeysAsValues::No,
            };
            if (shares && name != "q") || as_values == KeysAsValues::Yes {
                continue;
            }
            let paired = self.family.pairs == Pairs::NeighboursInGguf && name != "v";
            let stored = |name: String| match paired {
                true => HfTensor::Paired(name, head_dim),
                false => HfTensor::Whole(name),
            };
            // The gate that queries carry along.
            let gated = name == "q" && self.gqa.output_gate == Some(OutputGate::SigmoidInQuery);
            let rows = if gated { 2 * rows } else { rows };
            let hf = stored(self.hf(&format!("self_attn.{name}_proj.weight")));
            self.push(&format!("attn_{name}.weight"), [rows, hidden], Role::Attention, hf);
            if as_values == KeysAsValues::UnlessStored {
                self.specs.last_mut().expect("it was added").optional = true;
            }
            let hf = stored(self.hf(&format!("self_attn.{name}_proj.bias")));
            self.bias(self.gqa.qkv_bias, &format!("attn_{name}"), rows, hf);
        }
        if let Some([query, key]) = self.gqa.qk_norm_widths(ty) {
            let q_norm = self.family.names.q_norm;
            let k_norm = q_norm.replacen('q', "k", 1);
            let optional = self.gqa.qk_norm == QkNorm::PerHeadIfStored;
            let all = [("q", query, q_norm), ("k", key, &k_norm)];
            for (name, width, from) in all.into_iter().take(if shares { 1 } else { 2 }) {
                let name = format!("blk.{}.attn_{name}_norm.weight", self.layer);
                let hf = self.family.norm(self.hf(&format!("self_attn.{from}.weight")));
                let spec = spec(&name, [1, width], Role::Vector, hf);
                self.specs.push(TensorSpec { optional, ..spec });
            }
        }
        let by_itself = |gate: &OutputGate| *gate != OutputGate::SigmoidInQuery;
        if let Some(gate) = self.gqa.output_gate.filter(by_itself) {
            let shape = [heads * gate.width(head_dim), hidden];
            self.add("attn_gate.weight", shape, Role::Attention, "self_attn.g_proj.weight");
        }
        if self.gqa.sinks {
            self.add("attn_sinks.weight", [1, heads], Role::Vector, "self_attn.sinks");
        }
        let output = self.family.names.output;
        let from = format!("self_attn.{output}.weight");
        self.add("attn_output.weight", [hidden, heads * head_dim], Role::Attention, &from);
        let hf = HfTensor::Whole(self.hf(&format!("self_attn.{output}.bias")));
        self.bias(self.gqa.output_bias, "attn_output", hidden, hf);
    }

    fn short_conv(&mut self) {
        let (hidden, taps) = (self.config.hidden_size, self.gqa.conv_l_cache);
        let square = [hidden, hidden];
        self.add("shortconv.conv.weight", [hidden, taps], Role::Vector, "conv.conv.weight");
        let input = [3 * hidden, hidden];
        self.add("shortconv.in_proj.weight", input, Role::Attention, "conv.in_proj.weight");
        self.add("shortconv.out_proj.weight", square, Role::Attention, "conv.out_proj.weight");
    }

    fn mlp(&mut self, suffix: &str, width: usize, role: Role, from: &str) {
        let hidden = self.config.hidden_size;
        let shapes = [[width, hidden], [width, hidden], [hidden, width]];
        let projections = self.family.names.projections;
        let joined = projections[0] == projections[1];
        let names = ["gate", "up", "down"].iter().zip(projections).zip(shapes);
        for (i, ((name, projection), shape)) in names.enumerate() {
            let from = format!("{from}.{projection}.weight");
            let hf = match joined && i < 2 {
                false => HfTensor::Whole(self.hf(&from)),
                true => {
                    let half = i * width..(i + 1) * width;
                    let rows = Picked { axis: Axis::Rows, stored: 2 * width, ranges: vec![half] };
                    HfTensor::Picked(self.hf(&from), rows)
                }
            };
            self.push(&format!("ffn_{name}{suffix}.weight"), shape, role, hf);
            if role == Role::DenseFfn {
                let hf = HfTensor::Whole(self.hf(&from.replace(".weight", ".bias")));
                self.bias(self.config.mlp_bias, &format!("ffn_{name}"), shape[0], hf);
            }
        }
    }

    fn moe(&mut self) {
        let (moe, names) = (&self.config.moe, &self.family.names);
        let (hidden, experts) = (self.config.hidden_size, moe.n_routed_experts);
        let router = names.router;
        let from = format!("{router}.weight");
        self.add("ffn_gate_inp.weight", [experts, hidden], Role::Router, &from);
        if moe.topk_method == TopkMethod::NoauxTc {
            self.add("exp_probs_b.bias", [1, experts], Role::Vector, names.correction);
        }
        let shared = self.family.moe.as_ref().and_then(|experts| experts.shared);
        if let Some(shared) = shared.filter(|_| moe.shared_expert_intermediate_size > 0) {
            let width = moe.shared_expert_intermediate_size;
            self.mlp("_shexp", width, Role::SharedExpert, shared.prefix);
            if shared.gated {
                let from = format!("{}_gate.weight", shared.prefix);
                self.add("ffn_gate_inp_shexp.weight", [1, hidden], Role::Router, &from);
            }
        }
        if moe.bias {
            self.add("ffn_gate_inp.bias", [1, experts], Role::Vector, &format!("{router}.bias"));
            self.expert_biases(moe);
        }
    }

    fn expert_biases(&mut self, moe: &MoeConfig) {
        let experts = self.family.names.experts;
        let (rows, width) = (moe.n_routed_experts, moe.moe_intermediate_size);
        let gate_up = self.hf(&format!("{experts}.gate_up_proj_bias"));
        for (i, name) in ["gate", "up"].into_iter().enumerate() {
            let hf = HfTensor::EverySecond(gate_up.clone(), i);
            self.push(&format!("ffn_{name}_exps.bias"), [rows, width], Role::Vector, hf);
        }
        let hf = HfTensor::Whole(self.hf(&format!("{experts}.down_proj_bias")));
        let shape = [rows, self.config.hidden_size];
        self.push("ffn_down_exps.bias", shape, Role::Vector, hf);
    }
}

/// A routed expert.
pub fn expert(family: &Grouped, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
    let names = &family.names;
    let prefix = family.layer_prefix(config, layer.0) + names.experts;
    let hf = match &family.moe {
        Some(Experts { layout: ExpertLayout::Stacked, .. }) => HfExpert::Stacked(prefix),
        Some(Experts { layout: ExpertLayout::Joined(stacks), .. }) => {
            let layer = family.layer_prefix(config, layer.0);
            HfExpert::Joined(stacks.map(|name| format!("{layer}{name}")))
        }
        _ => {
            let name = |projection| format!("{prefix}.{}.{projection}.weight", expert.0);
            HfExpert::Separate(names.projections.map(name))
        }
    };
    let intermediate_size = config.moe.moe_intermediate_size;
    ExpertSpec { layer, expert, hidden_size: config.hidden_size, intermediate_size, hf }
}
