//! Divergence of a model from a reference: the Kullback-Leibler divergence at each token, and other
//! comparisons of the predictions.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;
use vaquita_runtime::session::SessionError;

use crate::reference_file::{ReferenceFile, Row};
use crate::softmax::{log_softmax, top};
use crate::{EvalError, OnProgress, Subject};

/// Divergence of a model from its reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Mean divergence, in nats.
    pub mean_kld: f64,
    /// Standard error of the mean.
    pub mean_kld_se: f64,
    /// 99th percentile of the divergence over tokens.
    pub p99_kld: f64,
    /// Fraction of tokens for which both predict the same most likely token.
    pub same_top: f64,
    /// The model's perplexity divided by the reference's.
    pub ppl_ratio: f64,
    /// Standard error of the ratio, from paired differences.
    pub ppl_ratio_se: f64,
    /// Perplexity of the model.
    pub perplexity: f64,
    /// Perplexity of the reference.
    pub reference_perplexity: f64,
    /// Number of tokens compared.
    pub tokens: usize,
}

/// Comparison at one token.
#[derive(Clone, Copy, Debug)]
struct Sample {
    divergence: f64,
    same_top: bool,
    loss: f64,
    reference_loss: f64,
}

/// Compares a model with the predictions in a reference file, over its first `limit` documents.
pub fn divergence_from_file(
    subject: &Subject,
    reference: &ReferenceFile,
    limit: usize,
    on_progress: OnProgress,
) -> Result<Divergence, EvalError> {
    let vocab_size = subject.model.config().vocab_size;
    reference.check(vocab_size, subject.tokenizer_fingerprint())?;
    let count = reference.documents().min(limit);
    let context = subject.session().context();
    let done = AtomicUsize::new(0);
    let samples: Vec<Vec<Sample>> = (0..count)
        .into_par_iter()
        .map(|at| {
            let document = reference.document(at)?;
            if document.tokens.len() > context {
                let needed = document.tokens.len();
                return Err(SessionError::ContextFull { limit: context, needed }.into());
            }
            let mut samples = Vec::with_capacity(document.tokens.len());
            let mut rows = document.rows();
            for ours in subject.chunks(document.tokens) {
                let (ours, targets) = ours?;
                for (logits, target) in ours.chunks_exact(vocab_size).zip(targets) {
                    // There is a row per prediction: the file was checked when it was opened.
                    let Some(row) = rows.next() else { break };
                    samples.push(compare_with(logits, &row?, *target));
                }
            }
            document.release();
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
            Ok(samples)
        })
        .collect::<Result<_, EvalError>>()?;
    Ok(summarize(&samples.concat()))
}

/// Compares two models over texts, tokenized by the reference, each after the begin-of-sentence
/// token.
pub fn divergence(
    subject: &Subject,
    reference: &Subject,
    texts: &[String],
    on_progress: OnProgress,
) -> Result<Divergence, EvalError> {
    let sizes = [subject, reference].map(|one| one.model.config().vocab_size);
    if sizes[0] != sizes[1] {
        return Err(EvalError::Vocabularies { model: sizes[0], reference: sizes[1] });
    }
    let documents = reference.tokenize(texts)?;
    let done = AtomicUsize::new(0);
    let samples: Vec<Vec<Sample>> = documents
        .par_iter()
        .map(|document| {
            let mut samples = Vec::with_capacity(document.len());
            for (ours, theirs) in subject.chunks(document).zip(reference.chunks(document)) {
                let ((ours, targets), (theirs, _)) = (ours?, theirs?);
                let rows = ours.chunks_exact(sizes[0]).zip(theirs.chunks_exact(sizes[0]));
                samples.extend(rows.zip(targets).map(|((p, q), target)| compare(p, q, *target)));
            }
            on_progress(done.fetch_add(1, Ordering::Relaxed) + 1, documents.len());
            Ok(samples)
        })
        .collect::<Result<_, EvalError>>()?;
    Ok(summarize(&samples.concat()))
}

fn compare(logits: &[f32], reference: &[f32], target: u32) -> Sample {
    let log_probs = log_softmax(reference);
    let row = Row { top: top(reference), loss: -log_probs[target as usize], log_probs };
    compare_with(logits, &row, target)
}

fn compare_with(logits: &[f32], reference: &Row, target: u32) -> Sample {
    let (ours, theirs) = (log_softmax(logits), &reference.log_probs);
    let terms = ours.iter().zip(theirs).filter(|(_, q)| **q > f64::NEG_INFINITY);
    Sample {
        // Rounding may leave it a little below zero where both are the same. NaN stays NaN.
        divergence: match terms.map(|(p, q)| q.exp() * (q - p)).sum::<f64>() {
            below if below < 0.0 => 0.0,
            divergence => divergence,
        },
        same_top: top(logits) == reference.top,
        loss: -ours[target as usize],
        reference_loss: reference.loss,
    }
}

fn summarize(samples: &[Sample]) -> Divergence {
    let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.divergence).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() * 99).div_ceil(100).max(1) - 1;
    let (mean_kld, mean_kld_se) = mean(samples.iter().map(|sample| sample.divergence));
    let differences = samples.iter().map(|sample| sample.loss - sample.reference_loss);
    let (difference, difference_se) = mean(differences);
    let same = samples.iter().filter(|sample| sample.same_top).count();
    Divergence {
        mean_kld,
        mean_kld_se,
        p99_kld: sorted[rank],
        same_top: same as f64 / samples.len() as f64,
        ppl_ratio: difference.exp(),
        // To first order: the derivative of the exponential is the exponential.
        ppl_ratio_se: difference.exp() * difference_se,
        perplexity: mean(samples.iter().map(|sample| sample.loss)).0.exp(),
        reference_perplexity: mean(samples.iter().map(|sample| sample.reference_loss)).0.exp(),
        tokens: samples.len(),
    }
}

/// Mean and its standard error.
fn mean(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_computed_by_hand() {
        let logits = |p: [f32; 2]| p.map(f32::ln);
        let sample = compare(&logits([0.5, 0.5]), &logits([0.75, 0.25]), 1);
        // 0.75 ln(0.75/0.5) + 0.25 ln(0.25/0.5)
        assert!((sample.divergence - 0.130_812).abs() < 1e-5, "{sample:?}");
        assert!(sample.same_top); // the first of equals
        assert!((sample.loss - 0.5f64.ln().abs()).abs() < 1e-6);
        assert!((sample.reference_loss - 0.25f64.ln().abs()).abs() < 1e-6);
        assert_eq!(compare(&[1.0, 2.0], &[1.0, 2.0], 0).divergence, 0.0);
        assert!(compare(&[f32::NAN, 2.0], &[1.0, 2.0], 0).divergence.is_nan());
    }

    #[test]
    fn a_summary_computed_by_hand() {
        let sample = |divergence, loss| Sample {
            divergence,
            same_top: divergence < 0.015,
            loss,
            reference_loss: 1.0,
        };
        let divergence = summarize(&[sample(0.01, 1.1), sample(0.03, 1.3)]);
        assert!((divergence.mean_kld - 0.02).abs() < 1e-12);
        assert!((divergence.mean_kld_se - 0.01).abs() < 1e-12);
        assert_eq!(divergence.p99_kld, 0.03);
        assert_eq!(divergence.same_top, 0.5);
        assert!((divergence.ppl_ratio - 0.2f64.exp()).abs() < 1e-12);
        // Differences 0.1 and 0.3: standard deviation 0.1414, of the mean 0.1.
        assert!((divergence.ppl_ratio_se - 0.2f64.exp() * 0.1).abs() < 1e-12);
        assert_eq!(divergence.tokens, 2);
    }
}
