//! The peak of a process stays within `--memory`, by a control group's count, with models whose KV
//! caches take more memory than their experts.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::{Value, json};
use vaquita_lcg::Lcg;

use crate::cgroup::Cgroup;
use crate::program::{output, quantize, reference, success, vaquita};

/// Settings that are tried; `VAQUITA_BUDGETS` states another number.
const SETTINGS: usize = 10;
const MIB: u64 = 1 << 20;
const VOCABULARY: usize = 2048;
const HIDDEN: usize = 64;
const WIDTH: usize = 64;
const EXPERTS: usize = 8;

/// Writes a checkpoint with random weights and the tokenizer of the reference model.
fn write(folder: &Path, config: &Value, tensors: &[(String, Vec<usize>)]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(reference().join(file), folder.join(file)).unwrap();
    }
    let mut random = Lcg(1);
    let bytes = |shape: &Vec<usize>| -> Vec<u8> {
        let scale = (*shape.last().unwrap() as f32).sqrt().recip();
        let number = |_| match shape.len() {
            1 => 1.0,
            _ => (random.unit() - 0.5) * 3.0 * scale,
        };
        let numbers = (0..shape.iter().product()).map(number);
        numbers.flat_map(|x: f32| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
    };
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, shape)| shape).map(bytes).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// Names and shapes of all tensors: those of attention, and of experts named as `expert` says.
fn tensors(
    layers: usize,
    attention: &[(&str, Vec<usize>)],
    router: &str,
    expert: impl Fn(usize, usize) -> String,
) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        ("model.embed_tokens.weight".to_string(), vec![VOCABULARY, HIDDEN]),
        ("lm_head.weight".into(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".into(), vec![HIDDEN]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| {
            all.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
        };
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
        for (name, shape) in attention {
            add(&format!("self_attn.{name}"), shape);
        }
        add(router, &[EXPERTS, HIDDEN]);
        for of in 0..EXPERTS {
            add(&expert(of, 0), &[WIDTH, HIDDEN]);
            add(&expert(of, 1), &[WIDTH, HIDDEN]);
            add(&expert(of, 2), &[HIDDEN, WIDTH]);
        }
    }
    all
}

/// Common keys of the configurations.
fn config(layers: usize, more: Value) -> Value {
    let mut config = json!({
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": layers,
        "num_experts_per_tok": 2, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    });
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    config
}

/// Grouped-query attention in which every head has keys and values of its own: 64 Ki numbers for
/// each token.
fn grouped(folder: &Path) {
    let (layers, heads) = (32, 16);
    let config = config(
        layers,
        json!({
            "model_type": "mixtral", "num_attention_heads": heads, "num_key_value_heads": heads,
            "head_dim": 64, "num_local_experts": EXPERTS, "intermediate_size": WIDTH,
        }),
    );
    let attention = [
        ("q_proj", vec![64 * heads, HIDDEN]),
        ("k_proj", vec![64 * heads, HIDDEN]),
        ("v_proj", vec![64 * heads, HIDDEN]),
        ("o_proj", vec![HIDDEN, 64 * heads]),
    ];
    let expert = |of, part| {
        let part = ["w1", "w3", "w2"][part];
        format!("block_sparse_moe.experts.{of}.{part}")
    };
    write(folder, &config, &tensors(layers, &attention, "block_sparse_moe.gate", expert));
}

/// Latent attention with a wide latent and one head: 18 Ki numbers for each token.
fn latent(folder: &Path) {
    let (layers, rank) = (32, 512);
    let config = config(
        layers,
        json!({
            "model_type": "deepseek_v2", "num_attention_heads": 1, "num_key_value_heads": 1,
            "q_lora_rank": null, "kv_lora_rank": rank, "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 64, "v_head_dim": 32, "n_routed_experts": EXPERTS,
            "n_shared_experts": 0, "moe_intermediate_size": WIDTH, "intermediate_size": WIDTH,
            "first_k_dense_replace": 0, "topk_method": "greedy",
        }),
    );
    let attention = [
        ("q_proj", vec![96, HIDDEN]),
        ("kv_a_proj_with_mqa", vec![rank + 64, HIDDEN]),
        ("kv_a_layernorm", vec![rank]),
        ("kv_b_proj", vec![64, rank]),
        ("o_proj", vec![HIDDEN, 32]),
    ];
    let expert = |of, part| {
        let part = ["gate_proj", "up_proj", "down_proj"][part];
        format!("mlp.experts.{of}.{part}")
    };
    write(folder, &config, &tensors(layers, &attention, "mlp.gate", expert));
}

/// Text of at least so many tokens, each a digit or a space.
fn text(tokens: usize) -> String {
    (0..tokens.div_ceil(2)).map(|i| format!("{} ", i * i % 10)).collect()
}

/// The smallest budget that a command accepts, from the error with which it refuses another.
fn floor(error: &str) -> Option<u64> {
    let (_, stated) = error.split_once("needs at least ")?;
    let mib: f64 = stated.split_once(" MiB")?.0.parse().ok()?;
    Some((mib * MIB as f64) as u64 + MIB / 64)
}

/// Runs a command with the smallest budget that it accepts and `more`; returns the budget and the
/// peak. `None` where there are no control groups. What a process takes before it opens a model
/// differs a little from run to run, and so does that budget.
fn peak(arguments: &[String], file: &Path, more: u64) -> Option<(u64, u64)> {
    let mut budget = MIB;
    for attempt in 0..10 {
        let group = Cgroup::new(&format!("budget-{attempt}"))?;
        let mut command = vaquita(arguments);
        command.args(["--memory", &budget.to_string()]).arg(file);
        let found = output(&mut group.within(&command));
        if found.status.success() {
            return Some((budget, group.peak()));
        }
        let error = String::from_utf8_lossy(&found.stderr);
        budget = floor(&error).unwrap_or_else(|| panic!("{budget}: {error}")) + more;
    }
    panic!("refused ten times, last with {budget}");
}

#[test]
fn the_peak_stays_within_the_budget_where_caches_outweigh_experts() {
    let settings = std::env::var("VAQUITA_BUDGETS").ok().and_then(|text| text.parse().ok());
    let settings: usize = settings.unwrap_or(SETTINGS);
    let folder = tempfile::tempdir().unwrap();
    let files: [PathBuf; 2] =
        [("grouped", grouped as fn(&Path)), ("latent", latent)].map(|(name, make)| {
            let checkpoint = folder.path().join(name);
            make(&checkpoint);
            let file = folder.path().join(format!("{name}.gguf"));
            success(quantize(&checkpoint, &file).args(["--type", "e4"]));
            file
        });
    let mut random = Lcg(settings as u64);
    let mut highest = 0.0f64;
    for setting in 0..settings {
        let grouped = setting % 2 == 0;
        let file = &files[setting % 2];
        let most = if grouped { 500 } else { 1200 };
        let context = 150 + random.below(if settings > SETTINGS { most } else { most / 2 });
        let generated = 1 + random.below(16);
        // The cache is nearly full, or a part of it is used.
        let room = context - generated - 60;
        let prompt = if random.below(3) > 0 { room } else { 1 + random.below(room) };
        let mut arguments: Vec<String> = match random.below(3) {
            // Several sequences, each with a cache of its own.
            0 => [
                "bench",
                "-r",
                "1",
                "-p",
                "0",
                "--sequences",
                &(2 + random.below(3)).to_string(),
                "-n",
                &(generated * 4).to_string(),
            ]
            .map(String::from)
            .to_vec(),
            _ => ["run", "--raw", "-n", &generated.to_string(), "-p", &text(prompt)]
                .map(String::from)
                .to_vec(),
        };
        for (option, value) in [
            ("--context", context.to_string()),
            ("--cache", ["f32", "f16", "q8"][random.below(3)].into()),
            ("--threads", (1 + random.below(4)).to_string()),
            ("--lanes", (1 + random.below(8)).to_string()),
        ] {
            arguments.extend([option.to_string(), value]);
        }
        // From the least to more than the model needs.
        let more = random.below(4) as u64 * MIB;
        let Some((budget, peak)) = peak(&arguments, file, more) else { return };
        let shown: Vec<&String> = arguments.iter().filter(|one| one.len() < 40).collect();
        let share = peak as f64 / budget as f64;
        println!("{:5.1}% of {:4} MiB: {shown:?}", share * 100.0, budget / MIB);
        assert!(share <= 1.0, "{shown:?} takes {:.1}% of {budget}", share * 100.0);
        highest = highest.max(share);
    }
    println!("{settings} settings: at most {:.1}% of the budget", highest * 100.0);
}
