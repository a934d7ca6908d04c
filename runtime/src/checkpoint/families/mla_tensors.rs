//! Tensors of the families with MLA and DeepSeekMoE.

use super::mla_moe::Layout;
use super::mtp;
use crate::checkpoint::config::{AttentionConfig, Config, LayerType, MlaConfig, TopkMethod};
use crate::checkpoint::spec::{
    ExpertId, ExpertSpec, HfExpert, HfTensor, KvB, LayerId, Role, TensorSpec,
};

/// All tensors except routed experts, in file order.
pub fn tensors(layout: &Layout, config: &Config) -> Vec<TensorSpec> {
    let hidden = config.hidden_size;
    let mut specs = Vec::new();
    let table = [config.vocab_size, hidden];
    let add = |specs: &mut Vec<_>, name: &str, shape, role, from: &str| {
        specs.push(spec(name, shape, role, HfTensor::Whole(from.into())));
    };
    let embedding = layout.names.embedding;
    add(&mut specs, "token_embd.weight", table, Role::Embedding, embedding);
    for layer in 0..config.num_layers_stored() {
        Layer { layout, config, layer, specs: &mut specs }.tensors();
    }
    add(&mut specs, "output_norm.weight", [1, hidden], Role::Vector, "model.norm.weight");
    if !config.tie_word_embeddings {
        add(&mut specs, "output.weight", table, Role::Output, "lm_head.weight");
    }
    specs
}

fn spec(name: &str, [rows, cols]: [usize; 2], role: Role, hf: HfTensor) -> TensorSpec {
    TensorSpec { name: name.into(), rows, cols, role, hf, optional: false }
}

struct Layer<'a> {
    layout: &'a Layout,
    config: &'a Config,
    layer: usize,
    specs: &'a mut Vec<TensorSpec>,
}

impl Layer<'_> {
    fn push(&mut self, name: &str, shape: [usize; 2], role: Role, hf: HfTensor) {
        self.specs.push(spec(&format!("blk.{}.{name}", self.layer), shape, role, hf));
    }

    fn hf(&self, name: &str) -> String {
        format!("model.layers.{}.{name}", self.layer)
    }

    /// Adds a tensor by its names in GGUF and in the checkpoint, both below the layer.
    fn add(&mut self, name: &str, shape: [usize; 2], role: Role, from: &str) {
        let hf = HfTensor::Whole(self.hf(from));
        self.push(name, shape, role, hf);
    }

    fn tensors(&mut self) {
        let hidden = self.config.hidden_size;
        self.add("attn_norm.weight", [1, hidden], Role::Vector, "input_layernorm.weight");
        let recurrent = self.config.layer_type(self.layer) == LayerType::Recurrent;
        let mla = match &self.config.attention {
            AttentionConfig::Mla(mla) if !recurrent => Some(mla),
            _ => None,
        };
        match mla {
            Some(mla) => self.attention(mla),
            None => self.recurrence(),
        }
        self.add("ffn_norm.weight", [1, hidden], Role::Vector, "post_attention_layernorm.weight");
        match self.config.is_moe(self.layer) {
            true => self.moe(),
            false => self.mlp("", self.config.intermediate_size, Role::DenseFfn, "mlp"),
        }
        if let Some(mla) = mla {
            self.kv_b(mla);
        }
        if self.layer >= self.config.num_hidden_layers {
            self.specs.extend(mtp::tensors(self.config, self.layer, self.layout.names.mtp_norm));
        }
    }

    fn attention(&mut self, mla: &MlaConfig) {
        let hidden = self.config.hidden_size;
        let heads = mla.num_attention_heads;
        let rows = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim);
        let names = &self.layout.names;
        let mixer = |name: &str| format!("{}.{name}.weight", names.mixer);
        let role = Role::Attention;
        match mla.q_lora_rank {
            None => self.add("attn_q.weight", [rows, hidden], role, &mixer("q_proj")),
            Some(rank) => {
                self.add("attn_q_a.weight", [rank, hidden], role, &mixer("q_a_proj"));
                let norm = mixer("q_a_layernorm");
                self.add("attn_q_a_norm.weight", [1, rank], Role::Vector, &norm);
                self.add("attn_q_b.weight", [rows, rank], role, &mixer("q_b_proj"));
            }
        }
        let rank = mla.kv_lora_rank;
        let kv_a = [rank + mla.qk_rope_head_dim, hidden];
        self.add("attn_kv_a_mqa.weight", kv_a, role, &mixer("kv_a_proj_with_mqa"));
        let norm = mixer("kv_a_layernorm");
        self.add("attn_kv_a_norm.weight", [1, rank], Role::Vector, &norm);
        if mla.output_gate {
            self.add("attn_gate.weight", [heads, hidden], role, &mixer("g_proj"));
        }
        let output = [hidden, heads * mla.v_head_dim];
        self.add("attn_output.weight", output, role, &mixer(names.output));
    }

    /// The halves of `kv_b_proj`.
    fn kv_b(&mut self, mla: &MlaConfig) {
        let (heads, rank) = (mla.num_attention_heads, mla.kv_lora_rank);
        let kv_b = self.hf(&format!("{}.kv_b_proj.weight", self.layout.names.mixer));
        let shape = KvB { heads, nope: mla.qk_nope_head_dim, v: mla.v_head_dim, rank };
        let (key, value) = (HfTensor::KvBKey(kv_b.clone(), shape), HfTensor::KvBValue(kv_b, shape));
        let k_b = [heads * rank, mla.qk_nope_head_dim];
        self.push("attn_k_b.weight", k_b, Role::Attention, key);
        let v_b = [heads * mla.v_head_dim, rank];
        self.push("attn_v_b.weight", v_b, Role::Attention, value);
    }

    fn recurrence(&mut self) {
        let Some(delta) = &self.layout.delta else { return };
        let prefix = self.hf(self.layout.names.mixer);
        delta.tensors(self.config, self.layout.names.output, |name, shape, role, hf, from| {
            self.push(name, shape, role, hf(format!("{prefix}.{from}")));
        });
    }

    fn moe(&mut self) {
        let moe = &self.config.moe;
        let names = &self.layout.names;
        if moe.n_shared_experts > 0 {
            let shared = format!("{}.shared_experts", names.moe);
            let width = moe.shared_expert_intermediate_size;
            self.mlp("_shexp", width, Role::SharedExpert, &shared);
        }
        let router = [moe.n_routed_experts, self.config.hidden_size];
        let from = format!("{}.gate.weight", names.moe);
        self.add("ffn_gate_inp.weight", router, Role::Router, &from);
        if moe.topk_method == TopkMethod::NoauxTc {
            let from = format!("{}.{}", names.moe, names.correction);
            self.add("exp_probs_b.bias", [1, moe.n_routed_experts], Role::Vector, &from);
        }
    }

    fn mlp(&mut self, suffix: &str, width: usize, role: Role, from: &str) {
        let hidden = self.config.hidden_size;
        for (name, shape) in
            [("gate", [width, hidden]), ("up", [width, hidden]), ("down", [hidden, width])]
        {
            let from = format!("{from}.{name}_proj.weight");
            self.add(&format!("ffn_{name}{suffix}.weight"), shape, role, &from);
        }
    }
}

/// A routed expert.
pub fn expert(layout: &Layout, config: &Config, layer: LayerId, expert: ExpertId) -> ExpertSpec {
    let hf = |projection: &str| {
        let moe = layout.names.moe;
        format!("model.layers.{}.{moe}.experts.{}.{projection}.weight", layer.0, expert.0)
    };
    ExpertSpec {
        layer,
        expert,
        hidden_size: config.hidden_size,
        intermediate_size: config.moe.moe_intermediate_size,
        hf: HfExpert::Separate(layout.names.experts.map(hf)),
    }
}
