use std::path::Path;
use std::sync::Arc;

use vaquita_quantize::importance::Importance;
use vaquita_quantize::sources;
use vaquita_runtime::model::{ExpertId, ExpertSpec, HfExpert, LayerId, Model, Projection};
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::tokenizer::Tokenizer;

use super::*;
use crate::{Subject, read_documents};

fn subject() -> Subject {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/reference"));
    let source = sources::open(folder).unwrap();
    Subject {
        model: Arc::new(Model::load(source.weights).unwrap()),
        prompter: Prompter::new(Arc::new(Tokenizer::from_folder(folder).unwrap())).unwrap(),
        options: SessionOptions::default(),
    }
}

fn texts() -> Vec<String> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/reference"));
    let mut texts = read_documents(&folder.join("calibration.jsonl")).unwrap();
    texts.truncate(6);
    texts
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
    let (subject, texts) = (subject(), texts());
    let found = collect(&subject, &texts, None, &|_, _| {}).unwrap();
    let tokens: usize = subject.tokenize(&texts).unwrap().iter().map(Vec::len).sum();
    let config = subject.model.config();
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
    assert_eq!(found.experts.len(), 3);
    let coverage = found.coverage();
    assert_eq!(coverage.layers.len(), 3);
    assert!(coverage.layers.iter().all(|layer| layer.experts == 32 && layer.most > 0));
}

#[test]
fn the_sums_do_not_depend_on_the_number_of_threads() {
    let (subject, texts) = (subject(), texts());
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| collect(&subject, &texts, Some(64), &|_, _| {}).unwrap())
    };
    assert!(with(1) == with(3));
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
    let (found, from) = Statistics::read(&path).unwrap();
    assert_eq!((&from.source, &from.text), (&origin.source, &origin.text));
    assert_eq!(from.documents, 2);
    assert_eq!(found.matrices, statistics.matrices);
    assert_eq!(found.coverage(), statistics.coverage());
    let weighings = [Weighing::new(found), Weighing::new(statistics.clone())];
    for expert in 0..3 {
        for projection in Projection::ALL {
            let (spec, [a, b]) = (spec(expert), &weighings);
            assert_eq!(a.expert(&spec, projection), b.expert(&spec, projection));
            let [a, b] = [a, b].map(|one| one.expert_hessian(&spec, projection).unwrap());
            assert_eq!(a.packed(), b.packed());
        }
    }

    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(Statistics::read(&path).is_err(), "{len}");
    }
    let nan = statistics.experts.get_mut(&1).unwrap();
    nan[0].input.squares[0] = f64::NAN;
    statistics.write(&origin, &path).unwrap();
    let message = Statistics::read(&path).unwrap_err().to_string();
    assert!(message.contains("layer.1.input has NaN"), "{message}");
    let other =
        safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView)>::new(), None);
    std::fs::write(&path, other.unwrap()).unwrap();
    let message = Statistics::read(&path).unwrap_err().to_string();
    assert!(message.contains("its format"), "{message}");
}

#[test]
fn a_thin_expert_leans_on_its_layer_and_an_unseen_one_has_its_mean() {
    let statistics = Weighing::new(by_hand());
    let ratio = |expert| {
        let importance = statistics.expert(&spec(expert), Projection::Gate).unwrap();
        importance[0] / importance[1]
    };
    assert!((ratio(0) - 0.25).abs() < 0.01, "{}", ratio(0)); // its own
    let layer = (1000.0 + 9.0) / 4000.0;
    assert!((ratio(2) - layer).abs() < 1e-4, "{}", ratio(2)); // the layer's
    assert!(ratio(1) > layer && ratio(1) < 1.0, "{}", ratio(1)); // between
    // Work counts, and none does none.
    let first = |expert| statistics.expert(&spec(expert), Projection::Gate).unwrap()[0];
    assert!(first(0) > 100.0 * first(1) && first(2) > 0.0);
}

#[test]
fn products_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.calibration");
    let mut statistics = by_hand();
    statistics.experts.get_mut(&1).unwrap()[0].input.products = Some(Hessian::new(5, 2));
    statistics.write(&Origin::default(), &path).unwrap();
    let message = Statistics::read(&path).unwrap_err().to_string();
    assert!(message.contains("layer.1.input_products does not fit 2 inputs"), "{message}");
}

#[test]
fn blocks_of_products_are_as_wide_as_memory_allows() {
    let subject = subject();
    let config = subject.model.config();
    assert_eq!(block_within(1 << 30, config), Some(256));
    assert_eq!(block_within(1 << 20, config), None);
    let widths = [20, 40, 80].map(|mib| block_within(mib << 20, config).unwrap());
    assert!(widths.is_sorted() && widths[0] < widths[2], "{widths:?}");
    let found = collect(&subject, &texts(), Some(64), &|_, _| {}).unwrap();
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
