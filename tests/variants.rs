//! Small checkpoints as they are not: copies of the goldens with other keys and tensors, as folders
//! and as GGUF files, and a plain reference that computes a dense one's logits in double precision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use vaquita_quantize::export::{Export, export};
use vaquita_quantize::sources;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::gguf::{GgmlType, Gguf, GgufWriter, Metadata, TensorPlan};

use crate::golden;

/// A matrix, row-major; one row of a vector.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub values: Vec<f32>,
}

/// A checkpoint in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `config.json`
    pub config: Json,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Numbers between -0.5 and 0.5 that have no pattern.
pub fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i + 31 * seed) as f32 * 0.7391).sin() * 0.5;
    (1..=count).map(number).collect()
}

impl Checkpoint {
    /// One of the goldens.
    pub fn golden(name: &str) -> Self {
        let folder = golden(name);
        let config = std::fs::read(folder.join("config.json")).expect("config.json");
        let bytes = std::fs::read(folder.join("model.safetensors")).expect("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).expect("a sound file");
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::BF16 => {
                    let pairs = view.data().as_chunks::<2>().0.iter();
                    pairs.map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
                }
                Dtype::F32 => {
                    view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
                }
                other => panic!("{name} is {other}"),
            };
            (name, Tensor { shape: view.shape().to_vec(), values })
        });
        let config = serde_json::from_slice(&config).expect("JSON");
        Self { config, tensors: tensors.collect() }
    }

    /// Sets a key of the configuration.
    pub fn set(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.config[key] = value.into();
        self
    }

    /// Leaves out a key.
    pub fn without_key(mut self, key: &str) -> Self {
        self.config.as_object_mut().expect("an object").remove(key);
        self
    }

    /// Adds a tensor to all layers: a vector of numbers.
    pub fn with_vectors(mut self, name: &str, len: usize) -> Self {
        let layers = self.config["num_hidden_layers"].as_u64().expect("a number") as usize;
        for layer in 0..layers {
            let values = numbers(len, layer + name.len());
            let name = format!("model.layers.{layer}.{name}");
            self.tensors.insert(name, Tensor { shape: vec![len], values });
        }
        self
    }

    /// Leaves out tensors.
    pub fn without(mut self, left_out: impl Fn(&str) -> bool) -> Self {
        self.tensors.retain(|name, _| !left_out(name));
        self
    }

    /// Renames all tensors.
    pub fn renamed(mut self, rename: impl Fn(&str) -> String) -> Self {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = tensors.map(|(name, tensor)| (rename(&name), tensor)).collect();
        self
    }

    /// Puts the experts of each layer into two tensors, as transformers 5 keeps them.
    pub fn with_fused_experts(mut self) -> Self {
        let layer = |name: &String| Some(name.split_once(".experts.0.")?.0.to_string());
        let layers: BTreeSet<String> = self.tensors.keys().filter_map(layer).collect();
        for layer in layers {
            let mut take = |expert: usize, names: [&str; 2]| {
                let name = |end: &str| format!("{layer}.experts.{expert}.{end}.weight");
                names.iter().find_map(|end| self.tensors.remove(&name(end)))
            };
            let (mut gate_up, mut down) = (Vec::new(), Vec::new());
            let (mut experts, mut width, mut hidden) = (0, 0, 0);
            while let Some(gate) = take(experts, ["gate_proj", "w1"]) {
                (width, hidden) = (gate.shape[0], gate.shape[1]);
                gate_up.extend(gate.values);
                gate_up.extend(take(experts, ["up_proj", "w3"]).expect("an expert's up").values);
                down.extend(take(experts, ["down_proj", "w2"]).expect("an expert's down").values);
                experts += 1;
            }
            let stacks = [
                ("gate_up_proj", vec![experts, 2 * width, hidden], gate_up),
                ("down_proj", vec![experts, hidden, width], down),
            ];
            for (name, shape, values) in stacks {
                let name = format!("{layer}.experts.{name}");
                self.tensors.insert(name, Tensor { shape, values });
            }
        }
        self
    }

    /// Writes it as a folder, in single precision.
    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("config.json"), self.config.to_string()).expect("written");
        let bytes = self.tensors.iter().map(|(name, tensor)| {
            let bytes: Vec<u8> = tensor.values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, &tensor.shape, bytes)
        });
        let bytes: Vec<_> = bytes.collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes).expect("a tensor");
            (name.as_str(), view)
        });
        let file = safetensors::serialize(views, None).expect("a file");
        std::fs::write(folder.join("model.safetensors"), file).expect("written");
    }

    /// Writes it as an ordinary GGUF file, in single precision.
    pub fn write_gguf(&self, out: &Path) {
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path());
        let source = sources::open(folder.path()).expect("the checkpoint opens");
        let job = Export {
            weights: source.weights.as_ref(),
            identity: &source.identity,
            tokenizer: &Metadata::new(),
            ty: BlockType::F32,
            out,
        };
        export(&job, &mut |_| {}).expect("it is exported");
    }
}

/// A GGUF file in memory, to be changed.
pub struct GgufFile {
    /// Metadata.
    pub metadata: Metadata,
    /// Name, extents innermost first, and numbers; all single precision.
    pub tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
}

impl GgufFile {
    /// A file whose tensors are all F32.
    pub fn read(path: &Path) -> Self {
        let gguf = Gguf::open(path).expect("the file opens");
        let tensors = gguf.tensors().iter().map(|info| {
            assert_eq!(info.ty, GgmlType::F32, "{}", info.name);
            let bytes = gguf.bytes(info);
            let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (info.name.clone(), info.dims.clone(), values)
        });
        Self { metadata: gguf.metadata().clone(), tensors: tensors.collect() }
    }

    /// Writes it.
    pub fn write(&self, out: &Path) {
        let plan = self.tensors.iter().map(|(name, dims, _)| TensorPlan {
            name: name.clone(),
            dims: dims.clone(),
            ty: GgmlType::F32,
        });
        let file = File::create(out).expect("a file");
        let mut writer =
            GgufWriter::new(file, out, &self.metadata, plan.collect()).expect("a header");
        for (name, _, values) in &self.tensors {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            writer.write_tensor(name, &bytes).expect("written");
        }
        writer.finish().expect("written");
    }
}

/// A dense decoder with grouped-query attention and pairs of halves, as transformers defines Llama
/// and Qwen2.
pub struct Reference<'a> {
    /// The checkpoint.
    pub checkpoint: &'a Checkpoint,
    /// Positions that a layer sees, its own among them.
    pub window: &'a dyn Fn(usize) -> usize,
    /// Frequency of each pair of a head of the given width.
    pub frequencies: &'a dyn Fn(usize) -> Vec<f64>,
}

impl Reference<'_> {
    fn size(&self, key: &str) -> usize {
        self.checkpoint.config[key].as_u64().expect("a size") as usize
    }

    /// `W x + b`, where there is a bias.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = &self.checkpoint.tensors[&format!("{name}.weight")];
        let bias = self.checkpoint.tensors.get(&format!("{name}.bias"));
        let row = |(i, row): (usize, &[f32])| -> f64 {
            let product: f64 = row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
            product + bias.map_or(0.0, |bias| f64::from(bias.values[i]))
        };
        weight.values.chunks_exact(x.len()).enumerate().map(row).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = &self.checkpoint.tensors[name].values;
        let eps = self.checkpoint.config["rms_norm_eps"].as_f64().expect("a number");
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * f64::from(*w)).collect()
    }

    fn rotate(&self, x: &mut [f64], head_dim: usize, position: usize) {
        let frequencies = (self.frequencies)(head_dim);
        for head in x.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(head_dim / 2);
            for ((a, b), frequency) in first.iter_mut().zip(second).zip(&frequencies) {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }

    /// The logits after each token.
    pub fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        let (hidden, layers) = (self.size("hidden_size"), self.size("num_hidden_layers"));
        let (heads, groups) = (self.size("num_attention_heads"), self.size("num_key_value_heads"));
        let head_dim = hidden / heads;
        let embedding = &self.checkpoint.tensors["model.embed_tokens.weight"].values;
        let row = |token: &u32| &embedding[*token as usize * hidden..][..hidden];
        let embed = |token| row(token).iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let mut states: Vec<Vec<f64>> = tokens.iter().map(embed).collect();
        for layer in 0..layers {
            let name = |name: &str| format!("model.layers.{layer}.{name}");
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (t, x) in states.iter_mut().enumerate() {
                let normed = self.norm(&name("input_layernorm.weight"), x);
                let mut query = self.linear(&name("self_attn.q_proj"), &normed);
                let mut key = self.linear(&name("self_attn.k_proj"), &normed);
                self.rotate(&mut query, head_dim, t);
                self.rotate(&mut key, head_dim, t);
                keys.push(key);
                values.push(self.linear(&name("self_attn.v_proj"), &normed));
                let first = (t + 1).saturating_sub((self.window)(layer));
                let mut mixed = vec![0.0; heads * head_dim];
                for head in 0..heads {
                    let group = head / (heads / groups) * head_dim..;
                    let query = &query[head * head_dim..][..head_dim];
                    let score = |key: &Vec<f64>| -> f64 {
                        let key = &key[group.clone()][..head_dim];
                        let product: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
                        (product / (head_dim as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = keys[first..].iter().map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    for (score, value) in scores.iter().zip(&values[first..]) {
                        let value = &value[group.clone()][..head_dim];
                        let out = &mut mixed[head * head_dim..][..head_dim];
                        out.iter_mut().zip(value).for_each(|(out, v)| *out += score / sum * v);
                    }
                }
                let out = self.linear(&name("self_attn.o_proj"), &mixed);
                x.iter_mut().zip(out).for_each(|(x, y)| *x += y);
                let normed = self.norm(&name("post_attention_layernorm.weight"), x);
                let gate = self.linear(&name("mlp.gate_proj"), &normed);
                let up = self.linear(&name("mlp.up_proj"), &normed);
                let gated: Vec<f64> =
                    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                let out = self.linear(&name("mlp.down_proj"), &gated);
                x.iter_mut().zip(out).for_each(|(x, y)| *x += y);
            }
        }
        let head = match self.checkpoint.tensors.contains_key("lm_head.weight") {
            true => "lm_head",
            false => "model.embed_tokens",
        };
        let logits = |x: Vec<f64>| self.linear(head, &self.norm("model.norm.weight", &x));
        states.into_iter().flat_map(logits).map(|x| x as f32).collect()
    }
}

/// Frequencies of a rotary embedding without scaling.
pub fn frequencies(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect()
}
