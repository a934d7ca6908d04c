//! A scale that is not a number, in one block of any type and of any role, ends a run, an evaluation
//! and a quantization with an error.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use safetensors::SafeTensors;
use serde_json::json;
use vaquita_calibration::Subject;
use vaquita_calibration::perplexity::perplexity;
use vaquita_quantize::{Job, Plan, QuantizeError, quantize, sources};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::checkpoint::spec::{ExpertId, LayerId, Role};
use vaquita_runtime::checkpoint::{Config, GgufWeights, Verify, Weights};
use vaquita_runtime::gguf::{GgmlType, GgufWriter, Metadata, TensorPlan};
use vaquita_runtime::model::Model;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;
use vaquita_tests::variants::numbers;
use vaquita_tests::{bits, golden, quantized, reference};

/// All experts of the models below are visited.
const TOKENS: [u32; 12] = [5, 301, 17, 44, 9, 250, 81, 3, 120, 77, 6, 199];

/// Block types of ggml and of ik_llama.cpp that have a scale, half-precision numbers included.
const KINDS: usize = 36;

/// Widths of 256 suit the blocks of all types.
fn config() -> Config {
    let config = json!({
        "model_type": "qwen3_moe", "hidden_size": 256, "num_hidden_layers": 1, "vocab_size": 320,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "num_experts": 4,
        "num_experts_per_tok": 3, "moe_intermediate_size": 256, "intermediate_size": 256,
        "norm_topk_prob": true, "max_position_embeddings": 256, "tie_word_embeddings": false,
    });
    config_from_hf(&config).expect("it is read")
}

/// A tensor of a file: name, extents (innermost first), type and bytes.
type Stored = (String, Vec<u64>, BlockType, Vec<u8>);

/// Blocks of a type: sound ones, one whose bits are all set, and one with an infinite scale.
struct Blocks {
    sound: Vec<u8>,
    bad: [Vec<u8>; 2],
}

impl Blocks {
    fn of(ty: BlockType) -> Self {
        if ty == BlockType::F16 || ty == BlockType::BF16 {
            let [one, nan, infinite] = match ty {
                BlockType::F16 => [0x1c00u16, 0x7e00, 0x7c00],
                _ => [0x3c80, 0x7fc0, 0xff80],
            };
            let sound = (0..97).flat_map(|i| (one ^ (i % 3) << 15 ^ i & 15).to_le_bytes());
            let bad = [nan, infinite].map(|bad| bad.to_le_bytes().to_vec());
            return Self { sound: sound.collect(), bad };
        }
        let bytes = |file: &str| {
            let file = fs::read(golden("blocks").join(file)).expect("blocks");
            let tensors = SafeTensors::deserialize(&file).expect("a sound file");
            tensors.tensor(&format!("{ty}.bytes")).ok().map(|tensor| tensor.data().to_vec())
        };
        let of_ik = || {
            // Rows of three blocks, some with a scale before them: of each, a row of one block.
            let (rows, row) = (bytes("ik.safetensors")?, ty.byte_len(1, 256)?);
            let rows = rows.chunks(rows.len() / 8).flat_map(|blocks| &blocks[..row]).copied();
            Some((rows.collect(), bytes("ik_extremes.safetensors")?))
        };
        let of_ggml = bytes("blocks.safetensors").zip(bytes("extremes.safetensors"));
        let (mut sound, extremes): (Vec<u8>, _) = of_ggml.or_else(of_ik).expect("all types");
        let block = extremes.len() / 8;
        if ty == BlockType::Mxfp4 {
            // Weights of about 2^-7.
            sound.iter_mut().step_by(block).for_each(|exponent| *exponent = 120 | *exponent & 3);
        }
        let row = |row: usize| extremes[row * block..][..block].to_vec();
        // A scale of MXFP4 alone is an exponent, and none is infinite.
        let infinite = if ty == BlockType::Mxfp4 { 1 } else { 6 };
        Self { sound, bad: [row(1), row(infinite)] }
    }
}

/// The tensors of a model whose matrices have a type; the router and vectors are single precision.
fn tensors(config: &Config, ty: BlockType) -> Vec<Stored> {
    let blocks = Blocks::of(ty);
    let matrix = |name: &str, dims: Vec<u64>| {
        let (cols, rows) = (dims[0] as usize, dims[1..].iter().product::<u64>() as usize);
        let len = ty.byte_len(rows, cols).expect("whole blocks");
        let bytes = blocks.sound.iter().copied().cycle().skip(7 * blocks.bad[0].len());
        (name.to_string(), dims, ty, bytes.take(len).collect())
    };
    let floats = |name: &str, dims: Vec<u64>, values: Vec<f32>| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name.to_string(), dims, BlockType::F32, bytes)
    };
    let mut tensors: Vec<Stored> = Vec::new();
    for spec in config.family.tensors(config) {
        let (rows, cols) = (spec.rows as u64, spec.cols as u64);
        tensors.push(match spec.role {
            Role::Vector => floats(&spec.name, vec![cols], vec![1.0; spec.cols]),
            Role::Router => {
                let values = numbers(spec.rows * spec.cols, 5).iter().map(|x| x / 4.0).collect();
                floats(&spec.name, vec![cols, rows], values)
            }
            _ => matrix(&spec.name, vec![cols, rows]),
        });
    }
    for part in ["gate", "up", "down"] {
        tensors.push(matrix(&format!("blk.0.ffn_{part}_exps.weight"), vec![256, 256, 4]));
    }
    tensors
}

fn write(config: &Config, tensors: &[Stored], path: &Path) {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", config.family.architecture());
    config.family.write_metadata(config, &mut metadata);
    let plan = tensors.iter().map(|(name, dims, ty, _)| TensorPlan {
        name: name.clone(),
        dims: dims.clone(),
        ty: GgmlType::of(*ty).expect("a type of ggml"),
    });
    let file = File::create(path).expect("a file");
    let mut writer = GgufWriter::new(file, path, &metadata, plan.collect()).expect("a header");
    for (name, _, _, bytes) in tensors {
        writer.write_tensor(name, bytes).expect("written");
    }
    writer.finish().expect("written");
}

fn model(path: &Path, verify: Verify) -> Result<Arc<Model>, String> {
    let weights = GgufWeights::open(path, verify).map_err(|error| error.to_string())?;
    Model::load(Arc::new(weights)).map(Arc::new).map_err(|error| error.to_string())
}

/// Logits, or why there are none.
fn run(path: &Path) -> Result<Vec<f32>, String> {
    let options = SessionOptions { prefill_chunk: 5, ..SessionOptions::default() };
    let mut session = Session::new(model(path, Verify::Never)?, Arc::new(Pool::new(1)), options);
    session.feed_all(&TOKENS).map_err(|error| error.to_string())
}

/// Why a file is not evaluated.
fn evaluation(path: &Path) -> Option<String> {
    let tokenizer = Tokenizer::from_folder(&reference()).expect("a tokenizer");
    let subject = Subject {
        model: model(path, Verify::Never).ok()?,
        prompter: Prompter::new(Arc::new(tokenizer)).expect("a template"),
        options: SessionOptions::default(),
    };
    let texts = ["2+2".to_string()];
    perplexity(&subject, &texts, &|_, _| {}).err().map(|error| error.to_string())
}

fn quantization(
    path: &Path,
    out: &Path,
    plan: impl FnOnce(&dyn Weights) -> Plan,
) -> Option<QuantizeError> {
    let source = sources::open(path).expect("it opens");
    let (weights, tokenizer) = (source.weights.as_ref(), Metadata::new());
    let plan = plan(weights);
    let job = Job {
        weights,
        identity: &source.identity,
        tokenizer: &tokenizer,
        importance: None,
        plan: &plan,
        out,
    };
    quantize(&job, &mut |_| {}).err()
}

#[test]
fn a_scale_that_is_not_a_number_is_refused_in_every_type_and_role() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["model.gguf", "out.gguf"].map(|name| folder.path().join(name));
    let config = config();
    let types = BlockType::ALL.into_iter().filter(|ty| GgmlType::of(*ty).is_some());
    let (mut kinds, mut refusals) = (0, 0);
    // Every scale of NVFP4 is a number.
    for ty in types.filter(|ty| !matches!(ty, BlockType::F32 | BlockType::Nvfp4)) {
        let mut tensors = tensors(&config, ty);
        write(&config, &tensors, &path);
        run(&path).unwrap_or_else(|error| panic!("{ty}: {error}"));
        let (bad, mut evaluated) = (Blocks::of(ty).bad, 0);
        let coded = (0..tensors.len()).filter(|i| tensors[*i].2 == ty);
        for i in coded.collect::<Vec<_>>() {
            for bad in &bad {
                let (name, dims, _, sound) = tensors[i].clone();
                // In a row that a token uses, where not all are used.
                let rows = dims[1..].iter().product::<u64>() as usize;
                let row = if name == "token_embd.weight" { TOKENS[3] as usize } else { rows / 2 };
                let at = sound.len() / rows * row;
                tensors[i].3[at..at + bad.len()].copy_from_slice(bad);
                write(&config, &tensors, &path);
                let what = format!("{ty} in {name}");
                let error = run(&path).expect_err(&what);
                assert!(error.contains("damaged"), "{what}: {error}");
                if !matches!(name.as_str(), "token_embd.weight") && evaluated < 3 {
                    let error = evaluation(&path).expect(&what);
                    assert!(error.contains("damaged"), "{what}: {error}");
                    evaluated += 1;
                }
                let to_f32 = |_: &dyn Weights| Plan::uniform(&config, BlockType::F32);
                let error = quantization(&path, &out, to_f32).expect(&what).to_string();
                assert!(error.contains("every weight must be a finite number"), "{what}: {error}");
                assert!(!out.exists(), "{what}");
                tensors[i].3 = sound;
                refusals += 1;
            }
        }
        kinds += 1;
    }
    // Embedding, head, four of attention and three of experts; two scales each.
    assert_eq!((kinds, refusals), (KINDS, KINDS * 9 * 2));
}

#[test]
fn a_conversion_that_copies_blocks_refuses_such_a_scale_too() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["model.gguf", "out.gguf"].map(|name| folder.path().join(name));
    let config = config();
    for ty in [BlockType::Q8_0, BlockType::Q4K, BlockType::Iq2Xxs, BlockType::Mxfp4] {
        let mut tensors = tensors(&config, ty);
        let bad = &Blocks::of(ty).bad[0];
        let at = tensors.iter().position(|(name, ..)| name == "blk.0.ffn_up_exps.weight").unwrap();
        tensors[at].3[..bad.len()].copy_from_slice(bad);
        write(&config, &tensors, &path);
        let as_stored = |weights: &dyn Weights| Plan::as_stored(weights).expect("a plan");
        let error = quantization(&path, &out, as_stored).map(|error| error.to_string());
        let error = error.unwrap_or_else(|| run(&out).expect_err("no error"));
        println!("{ty}: {error}");
        assert!(error.contains("damaged"), "{ty}: {error}");
    }
}

#[test]
fn a_scale_of_a_coded_row_that_is_not_a_number_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for ty in [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8] {
        quantized(&golden("deepseek-v3"), &path, ty, None);
        let sound = bits(&run(&path).expect("it runs"));
        let file = fs::read(&path).unwrap();
        let weights = GgufWeights::open(&path, Verify::Never).unwrap();
        let config = weights.config();
        let dense = config.family.tensors(config).into_iter().filter_map(|spec| {
            let matrix = weights.tensor(&spec).unwrap()?;
            (matrix.block_type() as u8 >= BlockType::E2 as u8).then_some((spec.name, matrix))
        });
        let mut matrices: Vec<_> = dense.collect();
        let expert =
            weights.expert(&config.family.expert(config, LayerId(1), ExpertId(3))).unwrap();
        for (name, matrix) in [("gate", expert.gate), ("up", expert.up), ("down", expert.down)] {
            matrices.push((format!("{name} of an expert"), matrix));
        }
        for (name, matrix) in matrices {
            let at = file.windows(matrix.data().len()).position(|part| part == matrix.data());
            let row = if name == "token_embd.weight" { TOKENS[3] as usize } else { 5 };
            let at = at.expect("it is in the file") + 64 + 4 * row;
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut damaged = file.clone();
                damaged[at..at + 4].copy_from_slice(&bad.to_le_bytes());
                fs::write(&path, &damaged).unwrap();
                let what = format!("{ty}: {bad} in {name}");
                match run(&path) {
                    Ok(found) => {
                        assert!(name.contains("expert") && bits(&found) == sound, "{what}");
                    }
                    Err(error) => assert!(error.contains("damaged"), "{what}: {error}"),
                }
                // With checksums, damage is found before it is used.
                let checked = GgufWeights::open(&path, Verify::Always).map_err(|e| e.to_string());
                let checked = checked.and_then(|weights| {
                    Model::load(Arc::new(weights)).map_err(|error| error.to_string())
                });
                let expert = name.contains("expert");
                assert!(checked.is_err() || expert, "{what}");
            }
            fs::write(&path, &file).unwrap();
        }
    }
}
