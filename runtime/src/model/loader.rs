//! Builds the layers of a model from its tensors, which it finds by their names in GGUF.

use std::cell::RefCell;
use std::collections::HashMap;

use super::delta_net::{BetaAlpha, GatedDeltaNet};
use super::gqa::{Gqa, KeyValue};
use super::kimi_delta::{Gate, KimiDeltaAttention};
use super::layer::Layer;
use super::linear::Linear;
use super::mamba2::Mamba2;
use super::mixer::Mixer;
use super::mla::{Mla, Query};
use super::moe::{ExpertBiases, FeedForward, Mlp, Moe, Parallel, Shared};
use super::per_layer::LayerEmbedding;
use super::router::Router;
use super::short_conv::ShortConv;
use crate::blocks::Matrix;
use crate::checkpoint::config::{
    AttentionConfig, GatedDeltaConfig, GroupedConfig, KimiDeltaConfig, LayerType, Mamba2Config,
    MlaConfig, OutputGate, QkNorm, Recurrence,
};
use crate::checkpoint::{LayerId, TensorSpec, Weights, WeightsError};
use crate::kernels::scan::all_finite;

pub(super) struct Loader<'a> {
    weights: &'a dyn Weights,
    specs: HashMap<String, TensorSpec>,
    /// Matrices handed out.
    lent: RefCell<Vec<Matrix>>,
}

impl<'a> Loader<'a> {
    pub fn new(weights: &'a dyn Weights) -> Self {
        let config = weights.config();
        let specs = config.family.tensors(config);
        let specs = specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Self { weights, specs, lent: RefCell::default() }
    }

    /// Every matrix handed out.
    pub fn into_lent(self) -> Vec<Matrix> {
        self.lent.into_inner()
    }

    pub fn find(&self, name: &str) -> Result<Option<Matrix>, WeightsError> {
        let Some(spec) = self.specs.get(name) else { return Ok(None) };
        let found = self.weights.tensor(spec)?;
        self.lent.borrow_mut().extend(found.clone());
        Ok(found)
    }

    pub fn matrix(&self, name: &str) -> Result<Matrix, WeightsError> {
        self.find(name)?
            .ok_or_else(|| WeightsError::Missing { path: "model".into(), name: name.into() })
    }

    /// A tensor that is decoded once and kept: all its numbers must be finite.
    pub fn find_vector(&self, name: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let Some(vector) = self.find(name)?.map(|vector| vector.decode()) else { return Ok(None) };
        match all_finite(&vector) {
            true => Ok(Some(vector)),
            false => Err(WeightsError::NotFinite { name: format!("tensor {name}") }),
        }
    }

    pub fn vector(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let missing = || WeightsError::Missing { path: "model".into(), name: name.into() };
        self.find_vector(name)?.ok_or_else(missing)
    }

    /// The norm before the output head, which LFM2 names after the embedding.
    pub fn output_norm(&self) -> Result<Vec<f32>, WeightsError> {
        match self.find_vector("token_embd_norm.weight")? {
            Some(norm) => Ok(norm),
            None => self.vector("output_norm.weight"),
        }
    }

    /// Factors on the wavelengths of the rotary embedding.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>, WeightsError> {
        self.find_vector("rope_freqs.weight")
    }

    pub fn layer(&self, id: LayerId) -> Result<Layer, WeightsError> {
        let layer = InLayer { loader: self, layer: id.0 };
        let after_mixer = layer.optional_vector("post_attention_norm.weight")?;
        // Where the outputs are not normalized, this is the name of the norm before the
        // feed-forward in some families.
        let (mixer_post_norm, ffn_norm) = match after_mixer {
            Some(norm) if !self.weights.config().post_norms => (None, norm),
            after_mixer => (after_mixer, layer.vector("ffn_norm.weight")?),
        };
        Ok(Layer {
            id,
            mixer_norm: layer.vector("attn_norm.weight")?,
            mixer: layer.mixer()?,
            mixer_post_norm,
            ffn_norm,
            ffn: layer.feed_forward()?,
            ffn_post_norm: layer.optional_vector("post_ffw_norm.weight")?,
            embedding: match self.weights.config().per_layer_width {
                0 => None,
                _ => Some(LayerEmbedding {
                    gate: layer.linear("inp_gate")?,
                    projection: layer.linear("proj")?,
                    norm: layer.vector("post_norm.weight")?,
                }),
            },
            scale: layer
                .optional_vector("layer_output_scale.weight")?
                .and_then(|scale| scale.first().copied()),
        })
    }
}

/// The tensors of one layer.
struct InLayer<'a> {
    loader: &'a Loader<'a>,
    layer: usize,
}

impl InLayer<'_> {
    fn matrix(&self, name: &str) -> Result<Matrix, WeightsError> {
        self.loader.matrix(&format!("blk.{}.{name}", self.layer))
    }

    fn optional(&self, name: &str) -> Result<Option<Matrix>, WeightsError> {
        self.loader.find(&format!("blk.{}.{name}", self.layer))
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        self.loader.vector(&format!("blk.{}.{name}", self.layer))
    }

    fn optional_vector(&self, name: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        self.loader.find_vector(&format!("blk.{}.{name}", self.layer))
    }

    fn linear(&self, name: &'static str) -> Result<Linear, WeightsError> {
        let weight = self.matrix(&format!("{name}.weight"))?;
        Ok(Linear { name, weight, bias: self.optional_vector(&format!("{name}.bias"))? })
    }

    /// A matrix that a file may leave out.
    fn optional_linear(&self, name: &'static str) -> Result<Option<Linear>, WeightsError> {
        let Some(weight) = self.optional(&format!("{name}.weight"))? else { return Ok(None) };
        Ok(Some(Linear { name, weight, bias: self.optional_vector(&format!("{name}.bias"))? }))
    }

    fn mlp(&self, [gate, up, down]: [&'static str; 3]) -> Result<Mlp, WeightsError> {
        Ok(Mlp { gate: self.linear(gate)?, up: self.linear(up)?, down: self.linear(down)? })
    }

    fn mixer(&self) -> Result<Mixer, WeightsError> {
        let config = self.loader.weights.config();
        if config.layer_type(self.layer) == LayerType::Recurrent
            && let Some(recurrence) = &config.recurrence
        {
            return Ok(match recurrence {
                Recurrence::GatedDelta(shape) => {
                    Mixer::GatedDeltaNet(Box::new(self.gated_delta_net(shape)?))
                }
                Recurrence::Mamba2(shape) => Mixer::Mamba2(Box::new(self.mamba2(shape)?)),
                Recurrence::KimiDelta(shape) => Mixer::KimiDelta(Box::new(self.kimi_delta(shape)?)),
            });
        }
        match (&config.attention, config.layer_type(self.layer)) {
            (AttentionConfig::Mla(shape), _) => self.mla(shape).map(Mixer::Mla),
            (AttentionConfig::Grouped(_), LayerType::Conv) => {
                self.short_conv().map(Mixer::ShortConv)
            }
            (AttentionConfig::Grouped(shape), ty) => self.gqa(shape, ty).map(Mixer::Gqa),
        }
    }

    fn mla(&self, shape: &MlaConfig) -> Result<Mla, WeightsError> {
        let query = match shape.q_lora_rank {
            None => Query::Full(self.linear("attn_q")?),
            Some(_) => Query::LowRank {
                a: self.linear("attn_q_a")?,
                norm: self.vector("attn_q_a_norm.weight")?,
                b: self.linear("attn_q_b")?,
            },
        };
        Ok(Mla {
            shape: shape.clone(),
            query,
            kv_a: self.linear("attn_kv_a_mqa")?,
            kv_a_norm: self.vector("attn_kv_a_norm.weight")?,
            k_b: self.linear("attn_k_b")?,
            v_b: self.linear("attn_v_b")?,
            gate: match shape.output_gate {
                true => Some(self.linear("attn_gate")?),
                false => None,
            },
            output: self.linear("attn_output")?,
        })
    }

    fn gqa(&self, shape: &GroupedConfig, ty: LayerType) -> Result<Gqa, WeightsError> {
        let norm = |name: &str| match shape.qk_norm {
            QkNorm::None => Ok(None),
            QkNorm::PerHeadIfStored => self.optional_vector(name),
            QkNorm::PerHead | QkNorm::Whole => self.vector(name).map(Some),
        };
        let shares = shape.key_value_layer(self.layer) != self.layer;
        let key_value = match shares {
            true => None,
            false => Some(KeyValue {
                key: self.linear("attn_k")?,
                value: self.optional_linear("attn_v")?,
                key_norm: norm("attn_k_norm.weight")?,
                value_norm: shape.value_norm.then(|| vec![1.0; shape.head_shape(ty).head_dim]),
            }),
        };
        let query_norm = norm("attn_q_norm.weight")?;
        let gate = match shape.output_gate {
            None | Some(OutputGate::SigmoidInQuery) => None,
            Some(_) => Some(self.linear("attn_gate")?),
        };
        Ok(Gqa {
            shape: shape.clone(),
            heads: shape.heads(self.layer),
            ty,
            rotates: shape.rotates(self.layer),
            query: self.linear("attn_q")?,
            key_value,
            output: self.linear("attn_output")?,
            query_norm,
            sinks: self.optional_vector("attn_sinks.weight")?,
            gate,
        })
    }

    fn short_conv(&self) -> Result<ShortConv, WeightsError> {
        Ok(ShortConv {
            input: self.linear("shortconv.in_proj")?,
            taps: self.taps("shortconv.conv.weight")?,
            output: self.linear("shortconv.out_proj")?,
        })
    }

    /// Factors of a convolution by position in its window, from one row per channel.
    fn taps(&self, name: &str) -> Result<Vec<Vec<f32>>, WeightsError> {
        let kernel = self.matrix(name)?;
        let (weights, taps) = (kernel.decode(), kernel.cols());
        let tap = |j: usize| weights.iter().skip(j).step_by(taps).copied().collect();
        Ok((0..taps).map(tap).collect())
    }

    fn gated_delta_net(&self, shape: &GatedDeltaConfig) -> Result<GatedDeltaNet, WeightsError> {
        let joined = format!("blk.{}.ssm_ba.weight", self.layer);
        Ok(GatedDeltaNet {
            shape: shape.clone(),
            qkv: self.linear("attn_qkv")?,
            gate: self.linear("attn_gate")?,
            beta_alpha: match self.loader.specs.contains_key(&joined) {
                true => BetaAlpha::Joined(self.linear("ssm_ba")?),
                false => BetaAlpha::Separate(self.linear("ssm_beta")?, self.linear("ssm_alpha")?),
            },
            taps: self.taps("ssm_conv1d.weight")?,
            a: self.vector("ssm_a")?,
            dt_bias: self.vector("ssm_dt.bias")?,
            norm: self.vector("ssm_norm.weight")?,
            output: self.linear("ssm_out")?,
        })
    }

    fn mamba2(&self, shape: &Mamba2Config) -> Result<Mamba2, WeightsError> {
        Ok(Mamba2 {
            shape: shape.clone(),
            input: self.linear("ssm_in")?,
            taps: self.taps("ssm_conv1d.weight")?,
            conv_bias: self.optional_vector("ssm_conv1d.bias")?,
            a: self.vector("ssm_a")?,
            skip: self.vector("ssm_d")?,
            dt_bias: self.vector("ssm_dt.bias")?,
            norm: self.vector("ssm_norm.weight")?,
            output: self.linear("ssm_out")?,
        })
    }

    fn kimi_delta(&self, shape: &KimiDeltaConfig) -> Result<KimiDeltaAttention, WeightsError> {
        let gate = |down, up: &'static str| {
            let name = format!("blk.{}.{up}.weight", self.layer);
            Ok(match self.loader.specs.contains_key(&name) {
                true => Gate::LowRank(self.linear(down)?, self.linear(up)?),
                false => Gate::Full(self.linear(down)?),
            })
        };
        let [query, key, value] =
            ["q", "k", "v"].map(|x| self.taps(&format!("ssm_conv1d_{x}.weight")));
        let mut taps = query?;
        for (taps, (key, value)) in taps.iter_mut().zip(key?.into_iter().zip(value?)) {
            taps.extend(key.into_iter().chain(value));
        }
        Ok(KimiDeltaAttention {
            shape: shape.clone(),
            qkv: [self.linear("attn_q")?, self.linear("attn_k")?, self.linear("attn_v")?],
            beta: self.linear("ssm_beta")?,
            decay: gate("ssm_f_a", "ssm_f_b")?,
            gate: gate("ssm_g_a", "ssm_g_b")?,
            taps,
            rates: self.vector("ssm_a")?,
            dt_bias: self.vector("ssm_dt.bias")?,
            norm: self.vector("ssm_norm.weight")?,
            output: self.linear("attn_output")?,
        })
    }

    fn feed_forward(&self) -> Result<FeedForward, WeightsError> {
        let config = self.loader.weights.config();
        if !config.is_moe(self.layer) {
            let mlp = self.mlp(["ffn_gate", "ffn_up", "ffn_down"])?;
            return Ok(FeedForward::Dense(Box::new(mlp)));
        }
        let router = Router {
            weight: self.matrix("ffn_gate_inp.weight")?,
            bias: self.optional_vector("ffn_gate_inp.bias")?,
            correction: self.optional_vector("exp_probs_b.bias")?,
            scale: self.optional_vector("ffn_down_exps.scale")?,
        };
        let shared = match config.moe.shared_expert_intermediate_size {
            _ if config.moe.parallel => {
                Some(Shared { mlp: self.mlp(["ffn_gate", "ffn_up", "ffn_down"])?, gate: None })
            }
            0 => None,
            _ => Some(Shared {
                mlp: self.mlp(["ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"])?,
                gate: self.optional("ffn_gate_inp_shexp.weight")?,
            }),
        };
        let biases = match config.moe.bias {
            false => None,
            true => Some(ExpertBiases {
                gate: self.matrix("ffn_gate_exps.bias")?,
                up: self.matrix("ffn_up_exps.bias")?,
                down: self.matrix("ffn_down_exps.bias")?,
            }),
        };
        let moe = Moe { router, shared, biases };
        if !config.moe.parallel {
            return Ok(FeedForward::Moe(Box::new(moe)));
        }
        let root = (config.hidden_size as f32).sqrt();
        let router_norm = self.vector("ffn_gate_inp.scale")?;
        Ok(FeedForward::Parallel(Box::new(Parallel {
            moe,
            router_norm: router_norm.into_iter().map(|scale| scale / root).collect(),
            experts_norm: self.vector("pre_ffw_norm_2.weight")?,
            experts_post_norm: self.vector("post_ffw_norm_2.weight")?,
            dense_post_norm: self.vector("post_ffw_norm_1.weight")?,
        })))
    }
}
