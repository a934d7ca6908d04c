//! Each key of each family's `config.json`, left out and with other values: the numbers are those of
//! transformers, or an error names the key. `golden/keys` has what transformers makes of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::{golden, goldens, largest_error};

/// Golden, or `*`, and key.
type Exception = (&'static str, &'static str);

/// Keys that are refused by name, or by the name of a tensor or of a key that contradicts, although transformers computes with
/// them or passes over them; `*` is any family.
static REFUSED: [Exception; 53] = [
    // Other activations, scalings of positions, and limits: no published model of these has them.
    ("*", "hidden_act"),
    ("*", "hidden_activation"),
    ("*", "rope_parameters"),
    ("gemma-3", "attn_logit_softcapping"),
    ("gemma-3", "final_logit_softcapping"),
    ("ernie-4.5", "moe_norm_min"),
    ("granite-4", "time_step_limit"),
    ("granite-4-dense", "time_step_limit"),
    ("laguna", "moe_router_logit_softcapping"),
    ("ling-3", "kda_safe_gate"),
    ("gemma-3", "use_bidirectional_attention"),
    ("gemma-4-26b", "use_bidirectional_attention"),
    ("gemma-4-e", "use_bidirectional_attention"),
    ("gemma-4-e2b", "use_bidirectional_attention"),
    ("gemma-4-moe", "use_bidirectional_attention"),
    // Windows and groups in which nothing is left.
    ("*", "sliding_window"),
    ("*", "topk_group"),
    ("qwen2-moe", "layer_types"),
    ("qwen2-moe", "use_sliding_window"),
    ("deepseek-v2", "n_group"),
    ("deepseek-v3", "num_experts_per_tok"),
    // transformers ignores tensors that a configuration has no use for, and ties a head that a
    // checkpoint does not have.
    ("*", "num_hidden_layers"),
    ("*", "tie_word_embeddings"),
    ("gpt-oss", "attention_bias"),
    ("qwen2-moe", "qkv_bias"),
    ("lfm2-moe", "use_expert_bias"),
    ("granite-3-moe-shared", "shared_intermediate_size"),
    ("granite-4", "mamba_conv_bias"),
    ("granite-4-dense", "mamba_conv_bias"),
    ("gemma-4-26b", "enable_moe_block"),
    ("gemma-4-moe", "enable_moe_block"),
    ("gemma-4-e", "attention_k_eq_v"),
    ("gemma-4-e2b", "attention_k_eq_v"),
    ("gemma-4-moe", "attention_k_eq_v"),
    // Published checkpoints leave out the width of global heads, which is 512 then.
    ("gemma-4-e", "per_layer_config"),
    ("gemma-4-moe", "per_layer_config"),
    // transformers' class passes over it, DeepSeek's own code does not.
    ("deepseek-v2", "norm_topk_prob"),
    ("deepseek-v2-lite", "norm_topk_prob"),
    // Two names of one key with two values.
    ("kimi-linear", "max_position_embeddings"),
    ("ling-3", "max_position_embeddings"),
    ("kimi-linear", "n_group"),
    ("ling-3", "n_group"),
    ("kimi-linear", "n_shared_experts"),
    ("ling-3", "n_shared_experts"),
    ("kimi-linear", "norm_topk_prob"),
    ("ling-3", "norm_topk_prob"),
    ("kimi-linear", "num_experts_per_tok"),
    ("ling-3", "num_experts_per_tok"),
    ("kimi-linear", "num_local_experts"),
    ("ling-3", "num_local_experts"),
    ("qwen3-moe", "num_experts"),
    ("*", "num_mtp_layers"),
    // Not the width of a head, but another name of the rotated part of it.
    ("glm-4.7-flash", "head_dim"),
];

/// Keys with which transformers fails and vaquita does not. A key whose value is null is one that is
/// left out, besides.
static BEYOND: [Exception; 8] = [
    // Lists that dense families do not have are checked in length there.
    ("*", "mlp_layer_types"),
    // Another name of the rotated part of a head in its class, which no checkpoint has.
    ("*", "head_dim"),
    // The padding's default lies outside the vocabulary of 320 tokens.
    ("*", "pad_token_id"),
    // The bases of all layers in entries for each type, in families of one type.
    ("*", "sliding_attention"),
    // Its class has no default of the context's length, from which YaRN takes the factor.
    ("mixtral", "rope_parameters"),
    // Values of another type.
    ("*", "use_bidirectional_attention"),
    // Errors of its own.
    ("granite-4-dense", "output_router_logits"),
    ("gemma-4-26b", "num_kv_shared_layers"),
];

/// Keys that are read, and that transformers passes over: positions in entries for each type of
/// layer, all alike, in a family of one type.
static UNLIKE: [Exception; 1] = [("*", "sliding_attention")];

/// What transformers makes of a case.
#[derive(Debug)]
enum Outcome {
    /// Logits at a few places.
    Logits(Vec<f32>),
    /// An error, or tensors that the checkpoint does not have.
    None(String),
}

struct Family {
    name: &'static str,
    config: Json,
    tokens: Vec<u32>,
    vocabulary: usize,
    record: Json,
    /// How it is read unchanged.
    read: String,
    /// Exceptions that were needed.
    needed: RefCell<BTreeSet<&'static Exception>>,
    tolerance: f32,
}

fn floats(json: &Json) -> Vec<f32> {
    let numbers = json.as_array().expect("a list").iter();
    numbers.map(|number| number.as_f64().expect("a number") as f32).collect()
}

fn sizes(json: &Json) -> Vec<usize> {
    let numbers = json.as_array().expect("a list").iter();
    numbers.map(|number| number.as_u64().expect("a number") as usize).collect()
}

impl Family {
    fn new(name: &'static str) -> Self {
        let read = |path: &Path| serde_json::from_slice(&fs::read(path).expect("it is there"));
        let config: Json = read(&golden(name).join("config.json")).expect("JSON");
        let record = read(&golden("keys").join(format!("{name}.json"))).expect("JSON");
        let first = goldens(&golden(name).join("golden.safetensors")).swap_remove(0);
        let vocabulary = first.logits.len() / first.tokens.len();
        let read = format!("{:?}", config_from_hf(&config));
        // Gemma's logits are wide.
        let tolerance = if name.starts_with("gemma") { 1e-2 } else { 2e-3 };
        let needed = RefCell::default();
        Self { name, config, tokens: first.tokens, vocabulary, record, read, needed, tolerance }
    }

    /// The logits of the golden at the recorded places.
    fn unchanged(&self) -> Vec<f32> {
        floats(&self.record["logits"])
    }

    /// The logits at the recorded places, or why there are none.
    fn run(&self, config: &Json) -> Result<Vec<f32>, String> {
        if format!("{:?}", config_from_hf(config)) == self.read {
            return Ok(self.unchanged());
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
        let weights = golden(self.name).join("model.safetensors");
        std::os::unix::fs::symlink(weights, folder.path().join("model.safetensors")).expect("made");
        let weights = HfFolder::open(folder.path()).map_err(|error| error.to_string())?;
        let model = Model::load(Arc::new(weights)).map_err(|error| error.to_string())?;
        let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
        let mut session = Session::new(Arc::new(model), Arc::new(Pool::new(1)), options);
        let logits = session.feed_all(&self.tokens).map_err(|error| error.to_string())?;
        let ids = sizes(&self.record["ids"]);
        let at = |position: usize| ids.iter().map(move |id| position * self.vocabulary + id);
        let places = sizes(&self.record["positions"]).into_iter().flat_map(at);
        Ok(places.map(|place| logits[place]).collect())
    }

    /// Compares a configuration with `expected`; says what is wrong.
    fn check(&self, case: &Json, keys: &BTreeSet<String>, expected: Outcome) -> Option<String> {
        let changed = changed(&self.config, case);
        let found = self.run(&changed);
        let named = |error: &str| keys.iter().any(|key| error.contains(key.as_str()));
        let of_tensor = |error: &str| error.contains("tensor ") || error.contains("no use for ");
        let listed = |list: &'static [Exception]| {
            let fits = |(family, key): &&Exception| {
                (*family == "*" || *family == self.name) && keys.contains(*key)
            };
            let exceptions: Vec<_> = list.iter().filter(fits).collect();
            self.needed.borrow_mut().extend(exceptions.iter().copied());
            !exceptions.is_empty()
        };
        let typed = |error: &str| error.contains("; allowed: ") || error.contains(" is missing");
        let problem = match (&found, &expected) {
            (Ok(found), Outcome::Logits(expected)) => {
                let error = largest_error(found, expected);
                let differs = error > self.tolerance && !listed(&UNLIKE);
                differs.then(|| format!("differs by {error}"))
            }
            (Ok(_), Outcome::None(reason)) => {
                let null = |set: &Map<String, Json>| set.values().any(Json::is_null);
                let beyond = case["set"].as_object().is_some_and(null) || listed(&BEYOND);
                (!beyond).then(|| format!("runs, where transformers says: {reason}"))
            }
            // Keys that contradict each other are named by any of them.
            (Err(error), Outcome::None(_)) => {
                let named = typed(error) || named(error) || of_tensor(error);
                (!named).then(|| format!("names no key: {error}"))
            }
            (Err(error), Outcome::Logits(_)) => {
                let named = typed(error) || of_tensor(error);
                let problem = if named { "is refused" } else { "names no key" };
                (!named || !listed(&REFUSED)).then(|| format!("{problem}: {error}"))
            }
        };
        let name = self.name;
        problem.map(|problem| format!("{name}: {case} {problem}"))
    }
}

/// The configuration with the keys of a case left out and set.
fn changed(config: &Json, case: &Json) -> Json {
    let mut config = config.as_object().expect("an object").clone();
    for key in case["without"].as_array().into_iter().flatten() {
        config.remove(key.as_str().expect("a name"));
    }
    config
        .extend(case["set"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    Json::Object(config)
}

/// Names of the keys that a case changes, those within objects included.
fn keys(config: &Json, case: &Json) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in case["without"].as_array().into_iter().flatten() {
        keys.insert(key.as_str().expect("a name").to_string());
    }
    for (key, value) in case["set"].as_object().into_iter().flatten() {
        keys.insert(key.clone());
        inner(&config[key.as_str()], value, &mut keys);
    }
    keys
}

/// Adds the keys in which two objects differ.
fn inner(from: &Json, to: &Json, keys: &mut BTreeSet<String>) {
    let entries = |json: &Json| json.as_object().cloned().unwrap_or_else(Map::new);
    let (from, to) = (entries(from), entries(to));
    for key in from.keys().chain(to.keys()) {
        let (from, to) = (from.get(key).unwrap_or(&Json::Null), to.get(key).unwrap_or(&Json::Null));
        if from != to {
            keys.insert(key.clone());
            inner(from, to, keys);
        }
    }
}

fn compare(name: &'static str) {
    let family = Family::new(name);
    let mut problems = Vec::new();
    for case in family.record["cases"].as_array().expect("a list") {
        let text = |key: &str| case[key].as_str().map(str::to_string);
        let expected = match (text("error").or_else(|| text("tensors")), &case["logits"]) {
            (Some(reason), _) => Outcome::None(reason),
            (None, Json::Null) => Outcome::Logits(family.unchanged()),
            (None, logits) => Outcome::Logits(floats(logits)),
        };
        let change: Map<String, Json> = ["without", "set"]
            .into_iter()
            .filter_map(|key| Some((key.to_string(), case.get(key)?.clone())))
            .collect();
        let change = Json::Object(change);
        problems.extend(family.check(&change, &keys(&family.config, case), expected));
    }
    for (key, value) in family.record["foreign"].as_object().expect("an object") {
        let case = Json::Object(Map::from_iter([(
            "set".into(),
            Json::Object(Map::from_iter([(key.clone(), value.clone())])),
        )]));
        let found = family.run(&changed(&family.config, &case));
        match found {
            Err(error) if error.contains(key.as_str()) => {}
            Err(error) => problems.push(format!("{name}: {case} names no key: {error}")),
            Ok(found) if largest_error(&found, &family.unchanged()) < family.tolerance => {}
            Ok(_) => problems.push(format!("{name}: {case} changes numbers")),
        }
    }
    let needed = family.needed.take();
    for exception in REFUSED.iter().chain(&BEYOND).chain(&UNLIKE) {
        if exception.0 == name && !needed.contains(exception) {
            problems.push(format!("{name}: {} is no exception any more", exception.1));
        }
    }
    assert!(problems.is_empty(), "{}\n{} in all", problems.join("\n"), problems.len());
}

macro_rules! families {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                compare($name);
            }
        )*

        #[test]
        fn no_family_is_left_out() {
            assert_eq!([$($name),*], vaquita_tests::FAMILIES);
        }
    };
}

families! {
    keys_of_deepseek_v2: "deepseek-v2",
    keys_of_deepseek_v2_lite: "deepseek-v2-lite",
    keys_of_deepseek_v3: "deepseek-v3",
    keys_of_ernie_4_5: "ernie-4.5",
    keys_of_gemma_3: "gemma-3",
    keys_of_gemma_4_26b: "gemma-4-26b",
    keys_of_gemma_4_e: "gemma-4-e",
    keys_of_gemma_4_e2b: "gemma-4-e2b",
    keys_of_gemma_4_with_experts: "gemma-4-moe",
    keys_of_glm_4_5: "glm-4.5",
    keys_of_glm_4_7_flash: "glm-4.7-flash",
    keys_of_gpt_oss: "gpt-oss",
    keys_of_granite_3: "granite-3",
    keys_of_granite_3_moe: "granite-3-moe",
    keys_of_granite_3_moe_shared: "granite-3-moe-shared",
    keys_of_granite_4: "granite-4",
    keys_of_granite_4_dense: "granite-4-dense",
    keys_of_kimi_linear: "kimi-linear",
    keys_of_laguna: "laguna",
    keys_of_lfm2: "lfm2-moe",
    keys_of_ling_3: "ling-3",
    keys_of_minimax_m2: "minimax-m2",
    keys_of_mistral: "mistral",
    keys_of_mixtral: "mixtral",
    keys_of_moonlight: "moonlight",
    keys_of_olmoe: "olmoe",
    keys_of_qwen2_moe: "qwen2-moe",
    keys_of_qwen3: "qwen3",
    keys_of_qwen3_moe: "qwen3-moe",
    keys_of_qwen3_next: "qwen3-next",
    keys_of_qwen3_5: "qwen3.5",
    keys_of_qwen3_5_moe: "qwen3.5-moe",
    keys_of_llama: "r1-distill-llama",
    keys_of_qwen2: "r1-distill-qwen",
    keys_of_smollm3: "smollm3",
}
