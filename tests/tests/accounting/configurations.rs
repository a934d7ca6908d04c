//! Keys of configurations: what is left out has transformers' default, what would change numbers and
//! is not computed is refused.

use serde_json::{Value as Json, json};
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_tests::variants::{Checkpoint, Reference, frequencies};
use vaquita_tests::{FAMILIES, bits, largest_error};

use super::{TOKENS, agree, error_of_file, error_of_folder, gguf, llama, of_folder, of_gguf};

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
