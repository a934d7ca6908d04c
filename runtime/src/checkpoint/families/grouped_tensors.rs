//! Tensors of families with grouped-query attention, from their descriptions.

use super::grouped::{Grouped, Mtp, Pairs};
use super::{Family, mtp};
use crate::checkpoint::config::{
    AttentionConfig, Bias, Config, GroupedConfig, LayerType, OutputGate, QkNorm, Recurrence,
    RopeScaling,
};
use crate::checkpoint::config::{MoeConfig, TopkMethod};
use crate::checkpoint::spec::{
    ExpertId, ExpertSpec, Function, HfExpert, HfTensor, LayerId, Role, TensorSpec,
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
    specs.push(rope_factors(config));
    for layer in 0..config.num_layers_stored() {
        Layer { family, config, gqa, layer, specs: &mut specs }.tensors();
        if layer >= config.num_hidden_layers {
            specs.extend(match family.mtp {
                Mtp::Module => mtp::module_tensors(config, layer),
                _ => mtp::tensors(config, layer),
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
fn rope_factors(config: &Config) -> TensorSpec {
    let rope = &config.rope;
    let hf = match &rope.scaling {
        RopeScaling::Llama3(llama) => HfTensor::Made(llama.factors(rope.theta, rope.dim)),
        _ => HfTensor::Whole("rope_freqs.weight".into()),
    };
    let shape = [1, rope.dim / 2];
    TensorSpec { optional: true, ..spec("rope_freqs.weight", shape, Role::Vector, hf) }
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
        } else {
            self.mlp("", self.config.intermediate_size, Role::DenseFfn, names.mlp);
        }
        if self.config.post_norms {
            self.norm("post_ffw_norm.weight", names.post_norms[1]);
        }
    }

    /// Adds a norm of the residual stream.
    fn norm(&mut self, name: &str, from: &str) {
        let hf = self.family.norm(self.hf(&format!("{from}.weight")));
        self.push(name, [1, self.config.hidden_size], Role::Vector, hf);
    }

    fn recurrence(&mut self) {
        let (Some(layout), Some(recurrence)) = (self.family.delta, &self.config.recurrence) else {
            return;
        };
        let Recurrence::GatedDelta(delta) = recurrence;
        layout.tensors(delta, self.config.hidden_size, |name, shape, role, hf, from| {
            let hf = hf(&self.hf(from));
            self.push(name, shape, role, hf);
        });
    }

    fn attention(&mut self) {
        let GroupedConfig { head_dim, .. } = *self.gqa;
        let heads = self.gqa.heads(self.layer);
        let hidden = self.config.hidden_size;
        let key_value = self.gqa.num_key_value_heads * head_dim;
        for (name, rows) in [("q", heads * head_dim), ("k", key_value), ("v", key_value)] {
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
            let hf = stored(self.hf(&format!("self_attn.{name}_proj.bias")));
            self.bias(self.gqa.qkv_bias, &format!("attn_{name}"), rows, hf);
        }
        if let Some([query, key]) = self.gqa.qk_norm_widths() {
            let q_norm = self.family.names.q_norm;
            let k_norm = q_norm.replacen('q', "k", 1);
            let optional = self.gqa.qk_norm == QkNorm::PerHeadIfStored;
            for (name, width, from) in [("q", query, q_norm), ("k", key, &k_norm)] {
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
        let names = ["gate", "up", "down"].iter().zip(self.family.names.projections).zip(shapes);
        for ((name, projection), shape) in names {
            let from = format!("{from}.{projection}.weight");
            self.add(&format!("ffn_{name}{suffix}.weight"), shape, role, &from);
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
        Some(experts) if experts.stacked => HfExpert::Stacked(prefix),
        _ => {
            let name = |projection| format!("{prefix}.{}.{projection}.weight", expert.0);
            HfExpert::Separate(names.projections.map(name))
        }
    };
    let intermediate_size = config.moe.moe_intermediate_size;
    ExpertSpec { layer, expert, hidden_size: config.hidden_size, intermediate_size, hf }
}
