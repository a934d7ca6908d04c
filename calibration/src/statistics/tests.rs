use std::path::Path;
use std::sync::Arc;

use vaquita_quantize::Stop;
use vaquita_quantize::container::Inventory;
use vaquita_quantize::hessian::Hessian;
use vaquita_quantize::importance::Importance;
use vaquita_quantize::partial::PartialFile;
use vaquita_quantize::sources::{self, Source};
use vaquita_runtime::checkpoint::{ExpertId, ExpertSpec, HfExpert, LayerId, Projection};
use vaquita_runtime::model::cache::{CacheType, KvCache};
use vaquita_runtime::model::{Compute, Logits, Model};
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::threads::Pool;
use vaquita_runtime::tokenizer::Tokenizer;

use super::forward::Sums;
use super::*;
use crate::read_documents;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/reference"))
}

fn source() -> Source {
    sources::open(folder()).unwrap()
}

fn calibrator(threads: usize) -> Calibrator {
    let tokenizer = Arc::new(Tokenizer::from_folder(folder()).unwrap());
    let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
    let prompter = Prompter::new(tokenizer).unwrap();
    Calibrator { weights: source().weights, prompter, options, pool: Arc::new(Pool::new(threads)) }
}

/// Tokens of the texts.
fn tokens() -> Vec<Vec<u32>> {
    let calibrator = calibrator(1);
    texts().iter().map(|text| calibrator.prompter.document(text).unwrap()).collect()
}

/// Statistics of a complete forward pass.
fn walked(threads: usize, block: Option<usize>, states_in_memory: usize) -> Statistics {
    let folder = std::env::temp_dir();
    let options = ForwardOptions { block, folder, states_in_memory };
    let mut forward = LayerwiseForward::new(calibrator(threads), &texts(), options).unwrap();
    let mut all = Statistics::default();
    while forward.next().is_some() {
        all.extend(forward.layer(&mut |_, _| {}).unwrap().into_statistics());
    }
    all.extend(forward.output().unwrap().into_statistics());
    all
}

fn texts() -> Vec<String> {
    let mut texts = read_documents(&folder().join("calibration.jsonl")).unwrap();
    texts.truncate(6);
    texts
}

impl Statistics {
    fn extend(&mut self, other: Self) {
        self.matrices.extend(other.matrices);
        self.experts.extend(other.experts);
    }

    /// Writes the statistics to a file.
    fn write(&self, origin: &Origin, path: &Path) -> Result<(), CalibrationError> {
        let products = |moments: &Moments| moments.products.as_ref().map(Hessian::block);
        let experts = || self.experts.values().flatten();
        let blocks = self.matrices.values().chain(experts().map(|expert| &expert.input));
        let layers = self.experts.iter().map(|(layer, experts)| LayerShape {
            layer: *layer,
            experts: experts.len(),
            input: experts[0].input.squares.len(),
            hidden: experts[0].hidden.squares.len(),
        });
        let matrices = self.matrices.iter();
        let shape = Shape {
            matrices: matrices.map(|(name, one)| (name.clone(), one.squares.len())).collect(),
            layers: layers.collect(),
            block: blocks.filter_map(products).next(),
        };
        let io = |source| CalibrationError::Io { path: path.into(), source };
        let (partial, file) = PartialFile::create(path).map_err(io)?;
        let mut writer = CalibrationWriter::new(file, path, origin, &shape)?;
        writer.write(self)?;
        writer.finish()?;
        partial.keep().map_err(io)
    }
}

fn spec(expert: usize) -> ExpertSpec {
    let hf = ["gate", "up", "down"].map(String::from);
    let (layer, expert) = (LayerId(1), ExpertId(expert));
    ExpertSpec { layer, expert, hidden_size: 2, intermediate_size: 1, hf: HfExpert::Separate(hf) }
}

/// One expert with a thousand tokens, one with one token, one with none.
fn by_hand() -> Statistics {
    let expert = |tokens: u64, squares: [f64; 2]| {
        let weight = tokens as f64;
        let moments = |squares: &[f64]| Moments {
            weight,
            squares: squares.iter().map(|square| square * weight).collect(),
            products: None,
        };
        let (input, hidden) = (moments(&squares), moments(&squares[..1]));
        ExpertMoments { tokens, mass: weight, input, hidden }
    };
    let experts = vec![expert(1000, [1.0, 4.0]), expert(1, [9.0, 0.0]), ExpertMoments::default()];
    Statistics { matrices: BTreeMap::new(), experts: BTreeMap::from([(1, experts)]) }
}

#[test]
fn every_token_reaches_every_matrix_and_as_many_experts_as_it_should() {
    let found = walked(1, None, STATES_IN_MEMORY);
    let tokens: usize = tokens().iter().map(Vec::len).sum();
    let source = source();
    let config = source.weights.config();
    for layer in 0..config.num_hidden_layers {
        for name in ["attn_kv_a_mqa", "attn_q_a", "attn_q_b", "attn_output"] {
            let moments = &found.matrices[&format!("blk.{layer}.{name}.weight")];
            assert_eq!(moments.weight, tokens as f64, "{name}");
            assert!(moments.squares.iter().all(|sum| sum.is_finite() && *sum >= 0.0));
        }
        let heads = config.attention.num_attention_heads() * tokens;
        assert_eq!(found.matrices[&format!("blk.{layer}.attn_k_b.weight")].weight, heads as f64);
        let Some(experts) = found.experts.get(&layer) else { continue };
        let routed: u64 = experts.iter().map(|expert| expert.tokens).sum();
        assert_eq!(routed as usize, tokens * config.moe.num_experts_per_tok);
        for expert in experts.iter().filter(|expert| expert.tokens > 0) {
            assert!(expert.mass > 0.0 && expert.input.weight > 0.0);
            assert_eq!(expert.input.squares.len(), config.hidden_size);
            assert_eq!(expert.hidden.squares.len(), config.moe.moe_intermediate_size);
        }
    }
    assert_eq!(found.matrices["output.weight"].weight, tokens as f64);
    assert_eq!(found.experts.len(), 3);
    let coverage = found.coverage();
    assert_eq!(coverage.layers.len(), 3);
    assert!(coverage.layers.iter().all(|layer| layer.experts == 32 && layer.most > 0));
}

#[test]
fn layer_by_layer_is_the_whole_model_document_by_document_to_the_last_bit() {
    let Calibrator { weights, options, pool, .. } = calibrator(2);
    let model = Model::load(weights).unwrap();
    let sums = Sums::new(model.config(), Some(64));
    for document in tokens() {
        let ctx = Compute::new(options.tier, &pool).watched_by(&sums);
        let mut cache = KvCache::new(model.config(), options.cache);
        for chunk in document.chunks(7) {
            model.forward(&ctx, chunk, &mut cache, Logits::All).unwrap();
        }
    }
    assert!(walked(2, Some(64), STATES_IN_MEMORY) == sums.finish().unwrap().into_statistics());
}

#[test]
fn neither_threads_nor_where_states_are_kept_change_a_bit() {
    let with = |threads, states_in_memory| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| walked(threads, Some(64), states_in_memory))
    };
    let one = with(1, STATES_IN_MEMORY);
    assert!(one == with(3, STATES_IN_MEMORY));
    assert!(one == with(2, 0));
}

#[test]
fn a_calibrated_model_gives_the_file_of_its_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.calibration");
    let origin = Origin::new("crc32:01234567", &texts());
    let options = ForwardOptions::beside(&path, Some(64));
    let (texts, stop) = (texts(), Stop::default());
    let job = Calibration { origin: &origin, texts: &texts, part: None, out: &path, stop: &stop };
    let coverage = calibrate(calibrator(2), &job, options, &mut |_, _| {}).unwrap();
    let found = walked(1, Some(64), STATES_IN_MEMORY);
    assert_eq!(coverage, found.coverage());
    let file = CalibrationFile::open(&path).unwrap();
    let found = found.rounded();
    for (name, moments) in &found.matrices {
        assert!(file.matrix(name).unwrap() == *moments, "{name}");
    }
    for (layer, experts) in &found.experts {
        assert!(file.layer(*layer).unwrap() == *experts, "{layer}");
    }
    assert!(file.reaches(Some(3)) && file.reaches(None) && !file.reaches(Some(4)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_file_gives_back_what_was_written_and_refuses_what_is_not_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.calibration");
    let mut statistics = by_hand();
    let squares = vec![1.0, 0.5, 0.25];
    let products = Hessian::from_packed(3, 2, vec![1.0, -0.25, 0.5, 0.25]).unwrap();
    for (expert, scale) in
        statistics.experts.get_mut(&1).unwrap()[..2].iter_mut().zip([1000.0, 1.0])
    {
        let of = |cols, sums: &[f32]| {
            Hessian::from_packed(cols, 2, sums.iter().map(|sum| sum * scale).collect())
        };
        expert.input.products = of(2, &[1.0, -0.5, 4.0]);
        expert.hidden.products = of(1, &[1.0]);
    }
    statistics
        .matrices
        .insert("output.weight".into(), Moments { weight: 1.0, squares, products: Some(products) });
    let origin = Origin::new("crc32:01234567", &["a".into(), "b".into()]);
    statistics.write(&origin, &path).unwrap();
    let file = CalibrationFile::open(&path).unwrap();
    let from = file.origin();
    assert_eq!((&from.source, &from.text), (&origin.source, &origin.text));
    assert_eq!(from.documents, 2);
    assert_eq!(file.matrix("output.weight").as_ref(), statistics.matrices.get("output.weight"));
    let estimate = ImportanceEstimate::new(statistics.clone());
    for expert in 0..3 {
        let spec = spec(expert);
        assert_eq!(file.tokens(&spec), estimate.tokens(&spec));
        for projection in Projection::ALL {
            assert_eq!(file.expert(&spec, projection), estimate.expert(&spec, projection));
            let a = file.expert_hessian(&spec, projection).unwrap();
            let b = estimate.expert_hessian(&spec, projection).unwrap();
            assert_eq!(a.packed(), b.packed());
        }
    }

    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(CalibrationFile::open(&path).is_err(), "{len}");
    }
    let nan = statistics.experts.get_mut(&1).unwrap();
    nan[0].input.squares[0] = f64::NAN;
    statistics.write(&origin, &path).unwrap();
    let message = CalibrationFile::open(&path).map(drop).unwrap_err().to_string();
    assert!(message.contains("layer.1.input has NaN"), "{message}");
    let other =
        safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView)>::new(), None);
    std::fs::write(&path, other.unwrap()).unwrap();
    let message = CalibrationFile::open(&path).map(drop).unwrap_err().to_string();
    assert!(message.contains("its format"), "{message}");
}

#[test]
fn a_thin_expert_leans_on_its_layer_and_an_unseen_one_has_its_mean() {
    let statistics = ImportanceEstimate::new(by_hand());
    let ratio = |expert| {
        let importance = statistics.expert(&spec(expert), Projection::Gate).unwrap();
        importance[0] / importance[1]
    };
    assert!((ratio(0) - 0.25).abs() < 0.01, "{}", ratio(0)); // its own
    let layer = (1000.0 + 9.0) / 4000.0;
    assert!((ratio(2) - layer).abs() < 1e-4, "{}", ratio(2)); // the layer's
    assert!(ratio(1) > layer && ratio(1) < 1.0, "{}", ratio(1)); // between
    // More work weighs more, and no expert has zero weight.
    let first = |expert| statistics.expert(&spec(expert), Projection::Gate).unwrap()[0];
    assert!(first(0) > 100.0 * first(1) && first(2) > 0.0);
}

#[test]
fn products_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.calibration");
    let mut statistics = by_hand();
    statistics.experts.get_mut(&1).unwrap()[0].input.products = Some(Hessian::new(5, 2));
    let message = statistics.write(&Origin::default(), &path).unwrap_err().to_string();
    assert!(message.contains("layer.1.input does not fit the model"), "{message}");
    assert!(!path.exists());

    // A file whose metadata contradicts the width of its blocks.
    statistics.experts.get_mut(&1).unwrap()[0].input.products = Some(Hessian::new(2, 2));
    statistics.experts.get_mut(&1).unwrap()[0].hidden.products = Some(Hessian::new(1, 2));
    statistics.write(&Origin::default(), &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|bytes| bytes == b"\"block\":\"2\"").unwrap();
    let mut changed = bytes.clone();
    changed[at + 9] = b'1';
    std::fs::write(&path, changed).unwrap();
    let message = CalibrationFile::open(&path).map(drop).unwrap_err().to_string();
    assert!(message.contains("layer.1.input_products does not fit 2 inputs"), "{message}");
}

#[test]
fn blocks_of_products_are_as_wide_as_a_layer_has_memory_for() {
    let source = source();
    let shape = Shape::of(&Inventory::new(&*source.weights).unwrap(), None);
    assert_eq!(shape.block_within(1 << 30), Some(256));
    assert_eq!(shape.block_within(1 << 20), None);
    let widths = [4, 8, 32].map(|mib| shape.block_within(mib << 20).unwrap());
    assert!(widths.is_sorted() && widths[0] < widths[2], "{widths:?}");
    let found = walked(1, Some(64), STATES_IN_MEMORY);
    let moments = &found.experts[&2][3].input;
    let products = moments.products.as_ref().unwrap();
    assert_eq!((products.cols(), products.block()), (256, 64));
    let first = f64::from(products.packed()[0]);
    assert!((first / moments.squares[0] - 1.0).abs() < 1e-4, "{first} {}", moments.squares[0]);
}

#[test]
fn experts_without_tokens_are_named() {
    let coverage = by_hand().coverage();
    assert_eq!(coverage.layers[0].unseen, [2]);
    assert_eq!((coverage.layers[0].least, coverage.layers[0].most), (0, 1000));
}
