//! Every tensor and every key of a checkpoint is used, known to be dispensable, or an error that
//! names it. Where a configuration leaves something open, tensors decide, and else the defaults of
//! transformers.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vaquita_quantize::sources::{self, HfFolder};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::variants::{Checkpoint, GgufFile, Reference, Tensor, frequencies, numbers};
use vaquita_tests::{FAMILIES, bits, golden, largest_error, quantized};

const TOKENS: [u32; 24] =
    [5, 301, 17, 44, 9, 250, 81, 3, 3, 120, 77, 6, 199, 42, 8, 310, 64, 2, 91, 33, 150, 7, 21, 88];

fn session(model: Arc<Model>) -> Session {
    let options = SessionOptions {
        cache: CacheType::F32,
        tier: Tier::best(),
        prefill_chunk: 7,
        ..SessionOptions::default()
    };
    Session::new(model, Arc::new(Pool::new(2)), options)
}

fn logits(model: Arc<Model>) -> Vec<f32> {
    session(model).feed_all(&TOKENS).expect("it runs")
}

fn of_folder(checkpoint: &Checkpoint) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path());
    let weights = HfFolder::open(folder.path()).expect("the folder opens");
    logits(Arc::new(Model::load(Arc::new(weights)).expect("it loads")))
}

fn of_file(path: &Path) -> Vec<f32> {
    let weights = GgufWeights::open(path, Verify::First).expect("the file opens");
    logits(Arc::new(Model::load(Arc::new(weights)).expect("it loads")))
}

/// Why a folder does not open.
fn error_of_folder(checkpoint: &Checkpoint) -> String {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path());
    HfFolder::open(folder.path()).err().expect("it is refused").to_string()
}

/// Why a file does not open, load or run.
fn error_of_file(file: &GgufFile) -> String {
    refusal_of_file(file).expect("it is refused")
}

/// Why a file does not open, load or run, if it does not.
fn refusal_of_file(file: &GgufFile) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    file.write(&path);
    let weights = match GgufWeights::open(&path, Verify::First) {
        Err(error) => return Some(error.to_string()),
        Ok(weights) => weights,
    };
    match Model::load(Arc::new(weights)) {
        Err(error) => Some(error.to_string()),
        Ok(model) => session(Arc::new(model)).feed(&TOKENS).err().map(|error| error.to_string()),
    }
}

fn gguf(checkpoint: &Checkpoint) -> GgufFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    checkpoint.write_gguf(&path);
    GgufFile::read(&path)
}

fn of_gguf(file: &GgufFile) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    file.write(&path);
    of_file(&path)
}

/// A Llama without scaling of its frequencies, which the reference does not compute.
fn llama() -> Checkpoint {
    Checkpoint::golden("r1-distill-llama")
        .set("rope_parameters", json!({"rope_type": "default", "rope_theta": 10000.0}))
}

fn plain(checkpoint: &Checkpoint) -> Vec<f32> {
    let (window, frequencies) = (|_| usize::MAX, |dim| frequencies(10000.0, dim));
    Reference { checkpoint, window: &window, frequencies: &frequencies }.logits(&TOKENS)
}

fn agree(found: &[f32], expected: &[f32]) {
    let error = largest_error(found, expected);
    assert!(error < 2e-3, "{error}");
}

const ATTENTION: [(&str, usize); 4] = [
    ("self_attn.q_proj.bias", 64),
    ("self_attn.k_proj.bias", 32),
    ("self_attn.v_proj.bias", 32),
    ("self_attn.o_proj.bias", 64),
];
const MLP: [(&str, usize); 3] =
    [("mlp.gate_proj.bias", 128), ("mlp.up_proj.bias", 128), ("mlp.down_proj.bias", 64)];

#[test]
fn biases_of_attention_and_feed_forward_run_stated_or_not_in_folders_and_files() {
    let all: Vec<_> = ATTENTION.iter().chain(&MLP).collect();
    let of_attention: Vec<_> = ATTENTION.iter().collect();
    let of_queries: Vec<_> = ATTENTION[..3].iter().collect();
    let none = plain(&llama());
    for biases in [of_queries, of_attention, MLP.iter().collect(), all] {
        let unstated = llama().without_key("attention_bias").without_key("mlp_bias");
        let biased = biases.iter().fold(unstated, |c, (name, len)| c.with_vectors(name, *len));
        let expected = plain(&biased);
        assert!(largest_error(&expected, &none) > 0.1);
        let found = of_folder(&biased);
        agree(&found, &expected);
        agree(&of_gguf(&gguf(&biased)), &expected);

        let folder = tempfile::tempdir().unwrap();
        biased.write(&folder.path().join("checkpoint"));
        let ours = folder.path().join("ours.gguf");
        let model = quantized(&folder.path().join("checkpoint"), &ours, BlockType::F32, None);
        agree(&logits(model), &expected);
    }
}

#[test]
fn biases_of_zero_have_the_bits_of_none() {
    let mut zero = llama().set("attention_bias", true).set("mlp_bias", true);
    for (name, len) in ATTENTION.iter().chain(&MLP) {
        zero = zero.with_vectors(name, *len);
    }
    for (name, tensor) in &mut zero.tensors {
        if name.ends_with(".bias") {
            tensor.values.fill(0.0);
        }
    }
    assert!(bits(&of_folder(&zero)) == bits(&of_folder(&llama())));
}

#[test]
fn keys_and_biases_that_contradict_each_other_are_errors() {
    let biased = llama().with_vectors("self_attn.o_proj.bias", 64);
    let error = error_of_folder(&biased);
    assert!(error.contains("no use for model.layers.0.self_attn.o_proj.bias"), "{error}");
    let error = error_of_folder(&llama().set("mlp_bias", true));
    assert!(error.contains("mlp.gate_proj.bias is missing"), "{error}");
    let error = error_of_folder(
        &Checkpoint::golden("r1-distill-qwen")
            .without(|name| name == "model.layers.1.self_attn.k_proj.bias"),
    );
    assert!(error.contains("model.layers.1.self_attn.k_proj.bias is missing"), "{error}");
}

#[test]
fn every_tensor_of_every_family_is_needed_and_none_can_be_added() {
    for name in FAMILIES {
        let checkpoint = Checkpoint::golden(name);
        let folder = tempfile::tempdir().unwrap();
        for removed in checkpoint.tensors.keys() {
            if removed.contains(".experts.") && !removed.contains(".experts.1.") {
                continue; // one expert of each layer stands for all
            }
            checkpoint.clone().without(|name| name == removed).write(folder.path());
            let error = HfFolder::open(folder.path()).err().map(|error| error.to_string());
            // A head that a folder does not say to be the embedding is needed; every golden says.
            let error = error.unwrap_or_else(|| panic!("{name} opens without {removed}"));
            // Kimi-Linear's first layer is published under the usual name.
            let usual = match name {
                "kimi-linear" => removed.replace("layers.0.block_sparse_moe.", "layers.0.mlp."),
                _ => removed.clone(),
            };
            assert!(error.contains(&usual), "{name}: {error}");
        }
        for added in
            ["self_attn.q_proj.scale", "mlp.extra.weight", "self_attn.q_proj.lora_A.weight"]
        {
            let error = error_of_folder(&checkpoint.clone().with_vectors(added, 64));
            assert!(error.contains(&format!("no use for model.layers.0.{added}")), "{error}");
        }
        let buffers = checkpoint.clone().with_vectors("self_attn.rotary_emb.inv_freq", 8);
        assert!(bits(&of_folder(&buffers)) == bits(&of_folder(&checkpoint)), "{name}");
    }
}

/// Tensors that a file may leave out in llama.cpp too, with the beginning of the family's name: a
/// head is the embedding then, values are the keys, and nothing is added or scaled.
const OPTIONAL: [(&str, &str); 4] = [
    ("", "output.weight"),
    ("gemma-4", "attn_v.weight"),
    ("granite-4", "ssm_conv1d.bias"),
    ("r1-distill-llama", "rope_freqs.weight"),
];

#[test]
fn every_tensor_of_a_file_is_needed_and_none_can_be_added() {
    let mut problems = Vec::new();
    for name in FAMILIES {
        let mut file = gguf(&Checkpoint::golden(name));
        for i in 0..file.tensors.len() {
            let removed = file.tensors.remove(i);
            match refusal_of_file(&file) {
                Some(error) if error.contains(&removed.0) => {}
                None if OPTIONAL
                    .iter()
                    .any(|(family, end)| name.starts_with(family) && removed.0.ends_with(end)) => {}
                found => problems.push(format!("{name} without {}: {found:?}", removed.0)),
            }
            file.tensors.insert(i, removed);
        }
        let added = "blk.1.attn_q.scale";
        file.tensors.push((added.into(), vec![64], numbers(64, 1)));
        assert!(error_of_file(&file).contains(&format!("no use for {added}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_correction_of_the_scores_says_that_they_are_sigmoids() {
    for name in ["deepseek-v3", "glm-4.7-flash", "moonlight"] {
        let mut file = gguf(&Checkpoint::golden(name));
        let expected = of_gguf(&file);
        file.metadata.remove("deepseek2.expert_gating_func").expect("it is there");
        assert!(bits(&of_gguf(&file)) == bits(&expected), "{name}");
        file.metadata.insert("deepseek2.expert_gating_func", 1u32);
        let error = error_of_file(&file);
        assert!(error.contains("no use for blk.1.exp_probs_b.bias"), "{error}");
    }
    let mut file = gguf(&Checkpoint::golden("deepseek-v2"));
    let expected = of_gguf(&file);
    file.metadata.remove("deepseek2.expert_gating_func").expect("it is there");
    assert!(bits(&of_gguf(&file)) == bits(&expected), "V2 has no correction");
    let corrected =
        Checkpoint::golden("deepseek-v2").with_vectors("mlp.gate.e_score_correction_bias", 12);
    assert!(error_of_folder(&corrected).contains("e_score_correction_bias"));
}

/// The configuration that is read, or why not.
fn read(json: &Json) -> String {
    format!("{:?}", config_from_hf(json))
}

#[test]
fn a_key_that_is_left_out_has_the_default_of_transformers() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/src/checkpoint/families/defaults.json");
    let classes: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for name in FAMILIES {
        let config = Checkpoint::golden(name).config;
        let class = &classes[config["model_type"].as_str().unwrap()];
        for key in config.as_object().unwrap().keys().filter(|key| *key != "model_type") {
            let mut without = config.clone();
            without.as_object_mut().unwrap().remove(key);
            if let Some(default) = class["defaults"].get(key) {
                let mut written = config.clone();
                written[key] = default.clone();
                assert_eq!(read(&without), read(&written), "{name} without {key}");
            }
        }
    }
}

/// The figures are those that transformers 5.24 gives for configurations without the key.
#[test]
fn defaults_are_the_familys() {
    let without = |name: &str, key: &str| {
        config_from_hf(&Checkpoint::golden(name).without_key(key).config).expect("it is read")
    };
    assert_eq!(without("deepseek-v3", "routed_scaling_factor").moe.routed_scaling_factor, 2.5);
    assert_eq!(without("glm-4.7-flash", "routed_scaling_factor").moe.routed_scaling_factor, 1.8);
    assert_eq!(without("deepseek-v3", "n_shared_experts").moe.n_shared_experts, 1);
    assert_eq!(without("deepseek-v2", "n_shared_experts").moe.n_shared_experts, 2);
    assert!(!without("qwen3-moe", "norm_topk_prob").moe.norm_topk_prob);
    for (name, theta) in
        [("mixtral", 1e6), ("lfm2-moe", 1e6), ("gpt-oss", 150000.0), ("olmoe", 1e4)]
    {
        assert_eq!(without(name, "rope_parameters").rope.theta, theta, "{name}");
    }
    for (name, eps) in [
        ("olmoe", 1e-5),
        ("mixtral", 1e-5),
        ("gpt-oss", 1e-5),
        ("glm-4.7-flash", 1e-5),
        ("deepseek-v3", 1e-6),
        ("r1-distill-llama", 1e-6),
    ] {
        assert_eq!(without(name, "rms_norm_eps").rms_norm_eps, eps, "{name}");
    }
}

#[test]
fn keys_of_other_networks_are_refused_where_they_change_numbers() {
    for (key, value) in [
        ("final_logit_softcapping", json!(30.0)),
        ("residual_multiplier", json!(0.22)),
        ("logit_scale", json!(0.0625)),
        ("clip_qkv", json!(8.0)),
        ("index_topk", json!(2048)),
    ] {
        let error = error_of_folder(&llama().set(key, value));
        assert!(error.contains(key), "{error}");
    }
    let neutral =
        llama().set("residual_multiplier", 1.0).set("final_logit_softcapping", Json::Null);
    assert!(bits(&of_folder(&neutral)) == bits(&of_folder(&llama())));

    let mut file = gguf(&llama());
    for (key, value) in [("final_logit_softcapping", 30.0f32), ("logit_scale", 0.5)] {
        let key = format!("llama.{key}");
        file.metadata.insert(key.clone(), value);
        let error = error_of_file(&file);
        assert!(error.contains(&key), "{error}");
        file.metadata.remove(&key);
    }
    // Only families that leave a part of each head unrotated may do so.
    file.metadata.insert("llama.rope.dimension_count", 8u32);
    assert!(error_of_file(&file).contains("rope.dimension_count is 8"));
}

#[test]
fn layers_of_other_types_and_with_other_keys_are_refused() {
    let types = json!(["full_attention", "sliding_attention", "full_attention"]);
    for name in ["deepseek-v2", "deepseek-v3", "moonlight", "mixtral", "r1-distill-llama"] {
        let sliding = Checkpoint::golden(name).set("sliding_window", 4);
        let error = error_of_folder(&sliding.set("layer_types", types.clone()));
        assert!(error.contains("layer_types is \"sliding_attention\""), "{name}: {error}");
    }
    let error = error_of_folder(&llama().set("per_layer_config", json!({"1": {"head_dim": 8}})));
    assert!(error.contains("per_layer_config"), "{error}");
    let ling = Checkpoint::golden("ling-3");
    let error = error_of_folder(&ling.set("architectures", json!(["BailingMoeV2_5ForCausalLM"])));
    assert!(error.contains("lightning attention"), "{error}");
    let none = llama().set("per_layer_config", json!({}));
    assert!(bits(&of_folder(&none)) == bits(&of_folder(&llama())));
}

/// The numbers of folders are compared in `keys.rs`.
#[test]
fn latents_have_an_epsilon_of_their_own_in_folders_and_the_models_in_files_of_llama_cpp() {
    let coarse = Checkpoint::golden("glm-4.7-flash").set("rms_norm_eps", 0.25);
    let expected = of_folder(&coarse);
    let mut file = gguf(&coarse);
    assert!(bits(&of_gguf(&file)) == bits(&expected));
    file.metadata.remove("vaquita.attention.latent_norm_eps").expect("it is there");
    assert!(largest_error(&of_gguf(&file), &expected) > 1e-2);
    let usual = gguf(&Checkpoint::golden("glm-4.7-flash"));
    assert!(usual.metadata.get("vaquita.attention.latent_norm_eps").is_none());
}

#[test]
fn a_window_is_used_where_its_switch_is_on_from_max_window_layers_on() {
    let qwen = || Checkpoint::golden("r1-distill-qwen").without_key("layer_types");
    let full = of_folder(&qwen());
    let off = qwen().set("sliding_window", 4).without_key("use_sliding_window");
    assert!(bits(&of_folder(&off)) == bits(&full), "the switch is off by default");
    let on =
        qwen().set("sliding_window", 4).set("use_sliding_window", true).set("max_window_layers", 1);
    let window = |layer| if layer >= 1 { 4 } else { usize::MAX };
    let frequencies = |dim| frequencies(10000.0, dim);
    let reference = Reference { checkpoint: &on, window: &window, frequencies: &frequencies };
    let expected = reference.logits(&TOKENS);
    assert!(largest_error(&expected, &full) > 0.1);
    agree(&of_folder(&on), &expected);
    let beyond = on.clone().set("max_window_layers", 28);
    assert!(bits(&of_folder(&beyond)) == bits(&full));
}

#[test]
fn mistral_is_llama_with_a_window_in_every_layer() {
    let mistral = llama().set("model_type", "mistral").set("sliding_window", 5);
    let (window, frequencies) = (|_| 5, |dim| frequencies(10000.0, dim));
    let reference = Reference { checkpoint: &mistral, window: &window, frequencies: &frequencies };
    agree(&of_folder(&mistral), &reference.logits(&TOKENS));
    let without = mistral.set("sliding_window", Json::Null);
    assert!(bits(&of_folder(&without)) == bits(&of_folder(&llama())));
    let llama_ignores_it = llama().set("sliding_window", 5);
    assert!(bits(&of_folder(&llama_ignores_it)) == bits(&of_folder(&llama())));
}

#[test]
fn linear_scaling_divides_all_frequencies() {
    for scaling in [
        json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
        json!({"type": "linear", "factor": 4.0}),
    ] {
        let key = if scaling.get("type").is_some() { "rope_scaling" } else { "rope_parameters" };
        let linear = llama().without_key("rope_parameters").set(key, scaling);
        let frequencies = |dim| frequencies(10000.0, dim).iter().map(|f| f / 4.0).collect();
        let window = |_| usize::MAX;
        let reference =
            Reference { checkpoint: &linear, window: &window, frequencies: &frequencies };
        let expected = reference.logits(&TOKENS);
        agree(&of_folder(&linear), &expected);
        let mut file = gguf(&linear);
        agree(&of_gguf(&file), &expected);
        file.metadata.remove("llama.rope.scaling.type").expect("it is there");
        agree(&of_gguf(&file), &expected);
    }
}

#[test]
fn rope_parameters_by_layer_type_are_read_where_they_are_alike() {
    let parameters = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0});
    let flat = llama().set("rope_parameters", parameters.clone());
    let nested = |sliding: Json| {
        let by_type = json!({"full_attention": parameters, "sliding_attention": sliding});
        llama().set("rope_parameters", by_type)
    };
    assert!(bits(&of_folder(&nested(parameters.clone()))) == bits(&of_folder(&flat)));
    let error = error_of_folder(&nested(json!({"rope_type": "default", "rope_theta": 1e6})));
    assert!(error.contains("rope_parameters.sliding_attention"), "{error}");
}

#[test]
fn a_tied_head_is_known_under_any_name_of_its_key() {
    let untied = |c: Checkpoint| c.without_key("tie_word_embeddings");
    let lfm2 = || untied(Checkpoint::golden("lfm2-moe"));
    let expected = of_folder(&Checkpoint::golden("lfm2-moe"));
    for tied in [lfm2(), lfm2().set("tie_embedding", true)] {
        assert!(bits(&of_folder(&tied)) == bits(&expected));
    }
    // Where no key says so, the head that is not there does.
    let tied = llama().without(|name| name == "lm_head.weight");
    let expected = of_folder(&tied.clone().set("tie_word_embeddings", true));
    assert!(bits(&of_folder(&untied(tied.clone()))) == bits(&expected));
    assert!(error_of_folder(&tied).contains("lm_head.weight is missing"));
    // A head that differs from the embedding contradicts the key; one that does not is dispensable.
    let mut both = llama().set("tie_word_embeddings", true);
    assert!(error_of_folder(&both).contains("no use for lm_head.weight"));
    let embedding = both.tensors["model.embed_tokens.weight"].clone();
    both.tensors.insert("lm_head.weight".into(), embedding);
    assert!(bits(&of_folder(&both)) == bits(&expected));
}

#[test]
fn lfm2_lists_its_attention_layers_in_either_way() {
    let types = Checkpoint::golden("lfm2-moe");
    let indices = types.clone().without_key("layer_types").set("full_attn_idxs", json!([1]));
    assert!(bits(&of_folder(&indices)) == bits(&of_folder(&types)));
}

#[test]
fn names_of_models_and_methods_that_are_the_same_are_known() {
    let v3 = Checkpoint::golden("deepseek-v3");
    let kimi = v3.clone().set("model_type", "kimi_k2");
    assert!(bits(&of_folder(&kimi)) == bits(&of_folder(&v3)));
    let lite = Checkpoint::golden("deepseek-v2-lite");
    let gready = lite.clone().set("topk_method", "gready");
    assert!(bits(&of_folder(&gready)) == bits(&of_folder(&lite)));
}

#[test]
fn widths_of_experts_follow_where_a_file_does_not_state_them() {
    let mut checkpoint = Checkpoint::golden("qwen2-moe");
    let width = checkpoint.config["moe_intermediate_size"].as_u64().unwrap();
    let visited = checkpoint.config["num_experts_per_tok"].as_u64().unwrap();
    checkpoint.config["intermediate_size"] = (width * visited).into();
    let mut file = gguf(&checkpoint);
    let expected = of_gguf(&file);
    file.metadata.remove("qwen2moe.expert_feed_forward_length").expect("it is there");
    assert!(bits(&of_gguf(&file)) == bits(&expected));
}

#[test]
fn experts_that_a_file_has_one_by_one_are_named() {
    let mut file = gguf(&Checkpoint::golden("mixtral"));
    let stacks = |name: &str| name.contains("_exps.");
    let stacked: Vec<_> = file.tensors.extract_if(.., |(name, ..)| stacks(name)).collect();
    for (name, dims, values) in stacked {
        let (experts, matrix) = (dims[2] as usize, dims[..2].to_vec());
        for (i, values) in values.chunks(values.len() / experts).enumerate() {
            let name = name.replace("_exps.", &format!(".{i}."));
            file.tensors.push((name, matrix.clone(), values.to_vec()));
        }
    }
    let error = error_of_file(&file);
    assert!(error.contains("ffn_gate.0.weight") || error.contains("ffn_down.0.weight"), "{error}");
}

#[test]
fn queries_keys_and_values_are_cut_off() {
    let olmoe = |clip: Json| of_folder(&Checkpoint::golden("olmoe").set("clip_qkv", clip));
    let expected = olmoe(Json::Null);
    assert!(bits(&olmoe(json!(1e9))) == bits(&expected));
    let clipped = olmoe(json!(0.25));
    assert!(largest_error(&clipped, &expected) > 1e-2);
    let checkpoint = Checkpoint::golden("olmoe").set("clip_qkv", 0.25);
    assert!(bits(&of_gguf(&gguf(&checkpoint))) == bits(&clipped));
}

#[test]
fn the_language_model_within_another_is_found() {
    let v3 = Checkpoint::golden("deepseek-v3");
    let expected = of_folder(&v3);
    let vision = |mut c: Checkpoint| {
        let tensor = Tensor { shape: vec![8], values: numbers(8, 3) };
        c.tensors.insert("vision_tower.blocks.0.weight".into(), tensor);
        c
    };
    let wrap = |c: Checkpoint| {
        let config = json!({"model_type": "kimi_vl", "text_config": c.config.clone()});
        Checkpoint { config, ..c }
    };
    let below = |prefix: &'static str| v3.clone().renamed(move |name| format!("{prefix}{name}"));
    let nested = v3.clone().renamed(|name| match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => name.into(),
    });
    let bare = v3.clone().renamed(|name| name.trim_start_matches("model.").into());
    for checkpoint in [
        below("language_model."),
        nested.clone(),
        bare,
        wrap(vision(below("language_model."))),
        wrap(vision(nested)),
    ] {
        assert!(bits(&of_folder(&checkpoint)) == bits(&expected));
    }
    let error = error_of_folder(&vision(v3));
    assert!(error.contains("no use for vision_tower.blocks.0.weight"), "{error}");
}

#[test]
fn what_is_left_out_around_a_language_model_is_said_in_one_line() {
    let mut wrapped =
        Checkpoint::golden("smollm3").renamed(|name| format!("language_model.{name}"));
    wrapped.config = json!({"model_type": "other", "text_config": wrapped.config});
    for name in ["vision_tower.blocks.0.weight", "projector.weight", "projector.bias"] {
        let tensor = Tensor { shape: vec![8], values: numbers(8, 3) };
        wrapped.tensors.insert(name.into(), tensor);
    }
    let folder = tempfile::tempdir().unwrap();
    wrapped.write(folder.path());
    let line = sources::open(folder.path()).unwrap().left_out_line().unwrap();
    assert!(line.contains("without projector, vision_tower (3 tensors)"), "{line}");
    let whole = sources::open(&golden("smollm3")).unwrap();
    assert_eq!(whole.left_out_line(), None);
}

/// What goldens leave out: checked by what must be equal.
#[test]
fn layers_may_differ_in_heads_windows_and_rotation_in_folders_and_files_alike() {
    // a number of rotated elements instead of a share
    let minimax = || Checkpoint::golden("minimax-m2");
    let rope = json!({"rope_type": "default", "rope_theta": 5e6});
    let share = json!({"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5});
    let half = of_folder(&minimax().set("rope_parameters", share));
    let number = minimax().set("rope_parameters", rope).set("rotary_dim", 16);
    assert!(bits(&of_folder(&number)) == bits(&half));
    assert!(largest_error(&half, &of_folder(&minimax())) > 0.1);
    assert!(bits(&of_gguf(&gguf(&number))) == bits(&half));

    // sliding layers with twice the heads, half of which do nothing
    let narrow = Checkpoint::golden("laguna").set("sliding_window", 5).set(
        "layer_types",
        json!(["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"]),
    );
    let expected = of_folder(&narrow);
    let full = of_folder(&Checkpoint::golden("laguna"));
    assert!(largest_error(&expected, &full) > 0.1);
    let mut wide = narrow.clone().set("num_attention_heads_per_layer", json!([4, 8, 8, 8]));
    for layer in 1..4 {
        // Head i of 4, which shares a key with its neighbour, becomes head 2 i of 8.
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let spread = |rows: &Tensor, head: usize| {
            let row = head * rows.shape[1];
            let zeros = vec![0.0; row];
            let values = rows.values.chunks(row).flat_map(|head| [head, &zeros].concat()).collect();
            Tensor { shape: vec![2 * rows.shape[0], rows.shape[1]], values }
        };
        for (part, head) in [("q_proj", 32), ("g_proj", 1)] {
            let rows = spread(&wide.tensors[&name(part)], head);
            wide.tensors.insert(name(part), rows);
        }
        let output = &wide.tensors[&name("o_proj")];
        let zeros = [0.0; 32];
        let values = output.values.chunks(32).flat_map(|head| [head, &zeros].concat()).collect();
        let output = Tensor { shape: vec![64, 256], values };
        wide.tensors.insert(name("o_proj"), output);
    }
    assert!(largest_error(&of_folder(&wide), &expected) < 1e-4);
    for checkpoint in [&narrow, &wide] {
        assert!(bits(&of_gguf(&gguf(checkpoint))) == bits(&of_folder(checkpoint)));
    }

    // one factor for each element of a head instead of one for each head
    let mut elements = narrow.clone().set("gating", "per-element");
    for layer in 0..4 {
        let gate = format!("model.layers.{layer}.self_attn.g_proj.weight");
        let heads = elements.tensors[&gate].clone();
        let values = heads.values.chunks(64).flat_map(|row| row.repeat(32)).collect();
        elements.tensors.insert(gate, Tensor { shape: vec![128, 64], values });
    }
    assert!(bits(&of_folder(&elements)) == bits(&expected));
    assert!(bits(&of_gguf(&gguf(&elements))) == bits(&expected));
}

/// GLM-4.5's large model normalizes queries and keys, the small one does not; both have an MTP
/// layer.
#[test]
fn norms_and_prediction_layers_of_glm_are_read_where_they_are() {
    let glm = || Checkpoint::golden("glm-4.5");
    let norms = |c: Checkpoint| {
        c.with_vectors("self_attn.q_norm.weight", 32).with_vectors("self_attn.k_norm.weight", 32)
    };
    let normed = norms(glm()).set("use_qk_norm", true);
    let expected = of_folder(&normed);
    assert!(largest_error(&expected, &of_folder(&glm())) > 0.1);
    let mut file = gguf(&normed);
    assert!(bits(&of_gguf(&file)) == bits(&expected));
    file.metadata.remove("vaquita.attention.qk_norm").expect("it is there");
    assert!(bits(&of_gguf(&file)) == bits(&expected), "the tensors decide");
    assert!(error_of_folder(&norms(glm())).contains("no use for"));

    let mut predicting = glm();
    for (name, tensor) in glm().tensors {
        if let Some(rest) = name.strip_prefix("model.layers.2.") {
            predicting.tensors.insert(format!("model.layers.3.{rest}"), tensor);
        }
    }
    for (name, shape) in [
        ("eh_proj.weight", vec![64, 128]),
        ("enorm.weight", vec![64]),
        ("hnorm.weight", vec![64]),
        ("shared_head.norm.weight", vec![64]),
    ] {
        let values = numbers(shape.iter().product(), name.len());
        predicting.tensors.insert(format!("model.layers.3.{name}"), Tensor { shape, values });
    }
    let folder = tempfile::tempdir().unwrap();
    predicting.write(folder.path());
    let file = folder.path().join("model.gguf");
    let model = quantized(folder.path(), &file, BlockType::F32, None);
    assert_eq!(model.config().num_nextn_predict_layers, 1);
    let expected = bits(&of_folder(&glm()));
    assert!(bits(&of_folder(&predicting)) == expected && bits(&of_file(&file)) == expected);
}

#[test]
fn a_method_of_quantization_that_is_not_read_is_named() {
    for method in ["hqq", "eetq", "bitsandbytes", "quanto"] {
        let error =
            error_of_folder(&llama().set("quantization_config", json!({"quant_method": method})));
        assert!(error.contains(&format!("quant_method is {method}")), "{error}");
    }
    let mlx = llama().set("quantization", json!({"group_size": 64, "bits": 4}));
    assert!(error_of_folder(&mlx).contains("MLX"));
}

/// Layer types and the like as llama.cpp's converter states them, without keys of our own.
#[test]
fn files_of_granite_and_gemma_need_no_keys_but_llama_cpps() {
    for name in [
        "granite-3",
        "granite-3-moe",
        "granite-3-moe-shared",
        "granite-4",
        "granite-4-dense",
        "gemma-4-26b",
        "gemma-4-e2b",
    ] {
        let checkpoint = Checkpoint::golden(name);
        let mut file = gguf(&checkpoint);
        let own = ["vaquita.layer_types", "vaquita.expert_correction"];
        own.into_iter().for_each(|key| drop(file.metadata.remove(key)));
        assert!(bits(&of_gguf(&file)) == bits(&of_folder(&checkpoint)), "{name}");
    }
}

#[test]
fn gates_and_ups_that_a_file_stacks_together_are_taken_apart() {
    let mut file = gguf(&Checkpoint::golden("gemma-4-26b"));
    let expected = of_gguf(&file);
    for layer in 0..6 {
        let mut take = |part: &str| {
            let name = format!("blk.{layer}.ffn_{part}_exps.weight");
            let at = file.tensors.iter().position(|(of, ..)| *of == name).expect("it is there");
            file.tensors.remove(at)
        };
        let ((_, dims, gates), (_, _, ups)) = (take("gate"), take("up"));
        let expert = (dims[0] * dims[1]) as usize;
        let experts = gates.chunks(expert).zip(ups.chunks(expert));
        let both = experts.flat_map(|(gate, up)| [gate, up].concat()).collect();
        let name = format!("blk.{layer}.ffn_gate_up_exps.weight");
        file.tensors.push((name, vec![dims[0], 2 * dims[1], dims[2]], both));
    }
    assert!(bits(&of_gguf(&file)) == bits(&expected));
    file.tensors.pop();
    assert!(error_of_file(&file).contains("blk.5.ffn_gate_exps.weight is missing"));
}

/// Published checkpoints have projections to keys and values that no network reads.
#[test]
fn gemmas_layers_that_share_keys_and_values_may_have_their_own_and_do_not_read_them() {
    let checkpoint = Checkpoint::golden("gemma-4-e2b");
    let (expected, mut file) = (of_folder(&checkpoint), gguf(&checkpoint));
    let mut spare = checkpoint.clone();
    for name in ["k_proj.weight", "v_proj.weight", "k_norm.weight"] {
        let tensor = Tensor { shape: vec![64], values: numbers(64, 1) };
        spare.tensors.insert(format!("model.layers.7.self_attn.{name}"), tensor.clone());
        let in_file = format!("blk.7.attn_{}", name.replace("_proj", ""));
        file.tensors.push((in_file, vec![64], tensor.values));
    }
    assert!(bits(&of_folder(&spare)) == bits(&expected));
    assert!(bits(&of_gguf(&file)) == bits(&expected));
    let tensor = Tensor { shape: vec![64], values: numbers(64, 1) };
    spare.tensors.insert("model.layers.3.self_attn.v_norm.weight".into(), tensor);
    assert!(error_of_folder(&spare).contains("no use for model.layers.3.self_attn.v_norm"));
}

#[test]
fn gemmas_global_heads_are_stated_in_two_ways() {
    let listed = || Checkpoint::golden("gemma-4-26b");
    let named = || listed().without_key("per_layer_config").set("global_head_dim", 64);
    let expected = of_folder(&listed());
    let same = named().set("num_global_key_value_heads", 1);
    assert!(bits(&of_folder(&same)) == bits(&expected));
    for layers in [
        json!({"2": {"head_dim": 64, "num_key_value_heads": 1}}),
        json!({"0": {"head_dim": 64}}),
        json!({"2": {"rope_theta": 1e4}, "5": {"rope_theta": 1e4}}),
    ] {
        assert!(error_of_folder(&listed().set("per_layer_config", layers)).contains("per_layer"));
    }
}

#[test]
fn what_granite_and_gemma_do_not_compute_is_refused() {
    let limited = json!([0.0, 0.5]);
    for (name, key, value) in [
        ("granite-4", "time_step_limit", limited),
        ("granite-4", "mamba_proj_bias", json!(true)),
        ("granite-4", "mamba_d_head", json!(8)),
        ("granite-4", "position_embedding_type", json!("alibi")),
        ("granite-4", "logits_scaling", json!(0.0)),
        ("gemma-4-moe", "use_bidirectional_attention", json!("all")),
        ("gemma-4-moe", "final_logit_softcapping", json!(-1.0)),
        ("gemma-4-e", "vocab_size_per_layer_input", json!(100)),
        ("gemma-4-e", "num_kv_shared_layers", json!(5)),
    ] {
        let error = error_of_folder(&Checkpoint::golden(name).set(key, value));
        assert!(error.contains(key), "{name}: {error}");
    }
}
