//! The layouts of tensors in folders and files: shapes that differ by layer, stacked and separate
//! tensors, and names that programs before used.

use serde_json::json;
use vaquita_quantize::sources;
use vaquita_runtime::blocks::BlockType;
use vaquita_tests::variants::{Checkpoint, Tensor, numbers};
use vaquita_tests::{bits, golden, largest_error, quantized};

use super::{error_of_file, error_of_folder, gguf, llama, of_file, of_folder, of_gguf};

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

/// No golden has these layouts: a folder and a file of the same model are compared instead.
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
