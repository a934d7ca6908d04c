//! Checkpoints of Kimi-Linear and Ling 3 as they are published, whose configurations differ from
//! those that transformers writes; and what is refused of them.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::checkpoint::{GgufWeights, Verify, Weights};
use vaquita_runtime::model::Model;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::bits;
use vaquita_tests::variants::{Checkpoint, GgufFile, Tensor, numbers};

const TOKENS: [u32; 12] = [5, 301, 17, 44, 9, 250, 81, 3, 120, 77, 6, 199];

fn logits(weights: Arc<dyn Weights>) -> Vec<u32> {
    let model = Arc::new(Model::load(weights).expect("it loads"));
    let mut session = Session::new(model, Arc::new(Pool::new(2)), SessionOptions::default());
    bits(&session.feed_all(&TOKENS).expect("it runs"))
}

fn of_folder(checkpoint: &Checkpoint) -> Vec<u32> {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path());
    logits(Arc::new(HfFolder::open(folder.path()).expect("the folder opens")))
}

fn of_file(path: &Path) -> Vec<u32> {
    logits(Arc::new(GgufWeights::open(path, Verify::First).expect("the file opens")))
}

/// The golden with keys of the published configuration instead of transformers' own.
fn published(name: &str, left_out: &[&str], keys: Json) -> Checkpoint {
    let golden = Checkpoint::golden(name);
    let golden = left_out.iter().fold(golden, |golden, key| golden.without_key(key));
    let keys = keys.as_object().unwrap().clone();
    keys.into_iter().fold(golden, |golden, (key, value)| golden.set(&key, value))
}

#[test]
fn kimi_linear_is_read_as_it_is_published() {
    let left_out = ["layer_types", "mlp_layer_types", "linear_head_dim", "linear_num_heads"];
    let keys = json!({
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "moe_router_activation_func": "sigmoid",
        "mla_use_nope": true, "use_grouped_topk": true, "head_dim": 72, "rope_theta": 10000.0,
        "num_nextn_predict_layers": 0, "linear_attn_config": {
            "full_attn_layers": [2, 4], "kda_layers": [1, 3], "head_dim": 16, "num_heads": 4,
            "short_conv_kernel_size": 4,
        },
    });
    // transformers saves the dense layer below the module of experts.
    let dense = |name: &str| match name.starts_with("model.layers.0.block_sparse_moe.") {
        true => name.replace("block_sparse_moe", "mlp"),
        false => name.into(),
    };
    let found = of_folder(&published("kimi-linear", &left_out, keys).renamed(dense));
    assert_eq!(found, of_folder(&Checkpoint::golden("kimi-linear")));
}

#[test]
fn ling_3_is_read_as_it_is_published() {
    let left_out = [
        "layer_types",
        "mlp_layer_types",
        "linear_head_dim",
        "linear_num_heads",
        "linear_conv_kernel_dim",
        "rope_parameters",
        "moe_renormalize",
        "num_expert_group",
        "num_experts_per_token",
        "qk_head_dim",
    ];
    let keys = json!({
        "norm_topk_prob": true, "n_group": 4, "num_experts_per_tok": 4, "rope_interleave": true,
        "partial_rotary_factor": 0.5, "rotary_dim": 16, "no_kda_lora": true, "use_qkv_bias": false,
        "gated_attention_proj_granularity_type": "head_wise", "score_function": "sigmoid",
        "moe_shared_expert_intermediate_size": 64, "expert_swiglu_limit_list": [null, 0.0],
        "rope_scaling": null,
    });
    // transformers saves the output projections of all layers under one name.
    let recurrent = |name: &str| match [2, 5].iter().any(|n| name.contains(&format!("s.{n}."))) {
        true => name.into(),
        false => name.replace("attention.dense", "attention.o_proj"),
    };
    let found = of_folder(&published("ling-3", &left_out, keys).renamed(recurrent));
    assert_eq!(found, of_folder(&Checkpoint::golden("ling-3")));
}

#[test]
fn what_these_layers_do_not_compute_is_refused() {
    for (name, key, value, says) in [
        ("ling-3", "kda_safe_gate", json!(false), "kda_safe_gate is false"),
        ("ling-3", "kda_lower_bound", json!(1.0), "kda_lower_bound is 1"),
        ("ling-3", "no_kda_lora", json!(false), "no_kda_lora is false"),
        ("ling-3", "expert_swiglu_limit_list", json!([null, 7.0]), "expert_swiglu_limit_list"),
        ("ling-3", "gated_attention_proj_granularity_type", json!("element_wise"), "head_wise"),
        ("ling-3", "layer_types", json!(vec!["conv"; 6]), "layer_types is conv"),
        ("ling-3", "linear_head_dim", json!(12), "head_dim is 12"),
        ("kimi-linear", "linear_num_heads", json!(8), "num_heads is 8"),
        ("kimi-linear", "layer_types", json!(["full_attention"]), "layer_types is 1"),
        ("kimi-linear", "mla_use_nope", json!(false), "mla_use_nope is false"),
    ] {
        let config = Checkpoint::golden(name).set(key, value).config;
        let error = config_from_hf(&config).unwrap_err().to_string();
        assert!(error.contains(says), "{name} {key}: {error}");
    }
    let ungrouped = Checkpoint::golden("ling-3").without_key("layer_types");
    let error = config_from_hf(&ungrouped.set("layer_group_size", 4).config).unwrap_err();
    assert!(error.to_string().contains("layer_group_size is 4"), "{error}");
}

#[test]
fn files_have_llama_cpps_keys_and_dimensions() {
    let folder = tempfile::tempdir().unwrap();
    for (name, architecture, rates) in
        [("kimi-linear", "kimi-linear", -1.0), ("ling-3", "bailingmoe3", 1.0)]
    {
        let path = folder.path().join("model.gguf");
        let golden = Checkpoint::golden(name);
        golden.write_gguf(&path);
        assert_eq!(of_file(&path), of_folder(&golden), "{name}");
        let mut file = GgufFile::read(&path);
        let key = |name: &str| format!("{architecture}.{name}");
        let heads = file.metadata.u32s(&key("attention.head_count_kv")).unwrap().unwrap();
        let recurrent = |layer: usize| golden.config["layer_types"][layer] == "linear_attention";
        let expected: Vec<u32> =
            (0..heads.len()).map(|layer| u32::from(!recurrent(layer))).collect();
        assert_eq!(heads, expected);
        let dims = |name: &str| &file.tensors.iter().find(|(n, ..)| n == name).unwrap().1;
        let inner = dims("blk.0.ssm_dt.bias")[0];
        assert_eq!(dims("blk.0.ssm_conv1d_k.weight"), &[4, 1, inner]);
        assert_eq!(dims("blk.0.ssm_a"), &[1, 4]);
        let (.., a) = file.tensors.iter().find(|(n, ..)| n == "blk.0.ssm_a").unwrap();
        assert!(a.iter().all(|rate| rate * rates > 0.0), "{a:?}");
        // What a file must not leave open.
        for key in [key("kda.head_dim"), key("attention.head_count_kv")] {
            let value = file.metadata.remove(&key).unwrap();
            file.write(&path);
            let error = GgufWeights::open(&path, Verify::First).err().unwrap().to_string();
            assert!(error.contains(&key), "{error}");
            file.metadata.insert(key, value);
        }
    }
}

/// A layer of the kind that predicts a token further, made of the last layer.
#[test]
fn the_layer_of_ling_3_that_predicts_further_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::golden("ling-3").set("num_nextn_predict_layers", 1);
    let last: Vec<_> = checkpoint
        .tensors
        .iter()
        .filter_map(|(name, tensor)| {
            let rest = name.strip_prefix("model.layers.5.")?;
            Some((format!("model.layers.6.{rest}"), tensor.clone()))
        })
        .collect();
    checkpoint.tensors.extend(last);
    for (name, shape) in [
        ("eh_proj", vec![64, 128]),
        ("enorm", vec![64]),
        ("hnorm", vec![64]),
        ("final_layernorm", vec![64]),
    ] {
        let values = numbers(shape.iter().product(), name.len());
        checkpoint
            .tensors
            .insert(format!("model.layers.6.{name}.weight"), Tensor { shape, values });
    }
    checkpoint.write(folder.path());
    let weights = Arc::new(HfFolder::open(folder.path()).expect("the folder opens"));
    let mut model = Model::load(weights.clone()).expect("it loads");
    assert!(model.load_mtp(&*weights).expect("it loads"));
    assert!(model.has_mtp());
}
