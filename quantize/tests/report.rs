//! What a report says, and the page that shows it.

use std::path::Path;

use vaquita_quantize::importance::Importance;
use vaquita_quantize::sources::{self, Source};
use vaquita_quantize::{Job, Plan, quantize, report};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{ExpertSpec, GgufWeights, Projection, Verify, Weights};
use vaquita_runtime::gguf::Metadata;

/// Knows how many tokens experts saw, and nothing else.
struct Tokens;

impl Importance for Tokens {
    fn tensor(&self, _name: &str, _cols: usize) -> Option<Vec<f32>> {
        None
    }

    fn expert(&self, _spec: &ExpertSpec, _projection: Projection) -> Option<Vec<f32>> {
        None
    }

    fn tokens(&self, spec: &ExpertSpec) -> Option<u64> {
        Some(1000 + spec.expert.0 as u64)
    }
}

#[test]
fn the_worst_tensors_are_named_and_a_page_shows_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference");
    let Source { weights, identity, .. } = &sources::open(&reference).unwrap();
    let (weights, tokenizer) = (weights.as_ref(), &Metadata::new());
    let plan = &Plan::uniform(weights.config(), BlockType::E2);
    let out = &folder.path().join("model.gguf");
    let job = Job { weights, identity, tokenizer, importance: None, plan, out };
    let made = quantize(&job, &mut |_| {}).unwrap();

    assert_eq!(made.worst.len(), 10);
    assert!(made.worst.windows(2).all(|pair| pair[0].error >= pair[1].error));
    let first = &made.worst[0];
    assert!(first.name.contains("ffn_expert") && first.ty == "e2", "{first:?}");
    assert!((0.02..0.2).contains(&first.error), "{first:?}");

    // The layer that only drafts is told apart.
    assert!(made.worst.iter().all(|one| !one.name.starts_with("blk.4.")), "{:?}", made.worst);
    let drafts = made.layers.iter().filter(|layer| layer.drafts);
    assert_eq!(drafts.map(|layer| layer.layer).collect::<Vec<_>>(), [Some(4)]);
    let without = made.bits_per_weight_without_drafts.unwrap();
    assert!(without > 0.0 && without != made.bits_per_weight);

    let config = weights.config();
    let name = "<script>alert('&')</script>.gguf";
    let page = report::page(name, &made, config, plan, Some(&Tokens));
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</body></html>\n"));
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert('&amp;')"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<title>expert ").count(), 4 * 32);
    assert!(page.contains("4 (drafts)") && page.contains("layer 4 (MTP)"), "{page}");
    assert!(page.contains(">e2</text>") && page.contains(">tokens</text>"), "a legend: {page}");
    assert!(page.contains("1031 tokens") && page.contains(&first.name), "{page}");
    for (open, close) in [("<table>", "</table>"), ("<tr>", "</tr>"), ("<td>", "</td>")] {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }
    // Nothing comes from elsewhere.
    assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("@import"));
}

#[test]
fn a_file_without_draft_layers_has_only_what_answers_need_and_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference");
    let Source { weights, identity, .. } = &sources::open(&reference).unwrap().without_mtp();
    let (weights, tokenizer) = (weights.as_ref(), &Metadata::new());
    let plan = &Plan::uniform(weights.config(), BlockType::E4);
    let out = &folder.path().join("model.gguf");
    let job = Job { weights, identity, tokenizer, importance: None, plan, out };
    let made = quantize(&job, &mut |_| {}).unwrap();
    assert_eq!(made.bits_per_weight_without_drafts, None);
    assert!(made.layers.iter().all(|layer| !layer.drafts));

    let file = GgufWeights::open(out, Verify::First).unwrap();
    assert_eq!(file.config().num_nextn_predict_layers, 0);
    assert!(file.gguf().tensors().iter().all(|tensor| !tensor.name.starts_with("blk.4.")));
    let text = |key| file.gguf().metadata().str(key).unwrap();
    assert_eq!(text("general.size_label"), Some("32x3.6M"));
    assert!(text("general.quantized_by").unwrap().starts_with("vaquita "));
    assert_eq!(file.gguf().metadata().u32("general.file_type").unwrap(), Some(1024));
}
