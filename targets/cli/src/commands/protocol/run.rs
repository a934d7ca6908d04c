//! A model that answers the prompts of a protocol, and the table of the result.

use std::num::NonZero;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use vaquita_calibration::Subject;
use vaquita_calibration::protocol::ask::{Answered, Asking, ask};
use vaquita_calibration::protocol::estimate::Estimate;
use vaquita_calibration::protocol::journal::{Journal, fingerprint};
use vaquita_calibration::protocol::pass_rate::PassRate;
use vaquita_quantize::sources::Identity;
use vaquita_runtime::session::sampler::SamplingOptions;

use super::super::eval::{print, with_bar};
use super::args::Draws;
use crate::bundle::Bundle;
use crate::compute::Compute;
use crate::failure::Result;

/// A model that answers the prompts of a protocol.
pub(super) struct Run {
    pub name: &'static str,
    pub bundle: Bundle,
    pub subject: Subject,
    /// What the answers depend on, for the file that keeps them.
    pub identity: Map<String, Value>,
}

impl Run {
    /// Opens a model.
    pub fn open(compute: &Compute, name: &'static str, model: &Path) -> Result<Self> {
        let bundle = Bundle::open_for_all_threads(compute, model)?;
        let subject = bundle.subject(compute);
        let of_model = Identity::new(model, Vec::new())?.name;
        let files =
            [json!(name), json!(of_model), json!(bytes(model)), json!(bundle.loaded().lossy)];
        let names = ["protocol", "model", "bytes", "lossy"].map(String::from);
        Ok(Self { name, bundle, subject, identity: names.into_iter().zip(files).collect() })
    }

    /// The file of answers to these prompts, or none.
    pub fn journal<T: Serialize + DeserializeOwned>(
        &self,
        path: Option<&Path>,
        prompts: &[String],
        more: Value,
    ) -> Result<Journal<T>> {
        let Some(path) = path else { return Ok(Journal::none()) };
        let mut identity = self.identity.clone();
        identity.insert("prompts".into(), fingerprint(prompts).into());
        identity.insert("options".into(), more);
        Ok(Journal::open(path, &identity.into())?)
    }

    /// How questions are asked, where options do not say it: the number of samples and the
    /// temperature.
    pub fn asking(&self, draws: &Draws, defaults: (usize, f32), chat: bool) -> Result<Asking> {
        let (samples, temperature) = defaults;
        Ok(Asking {
            chat,
            variables: match chat {
                true => draws.template.variables(&self.subject.prompter)?,
                false => Map::new(),
            },
            samples: draws.samples.map_or(samples, NonZero::get),
            sampling: SamplingOptions {
                temperature: draws.temp.unwrap_or(temperature),
                top_p: draws.top_p,
                seed: draws.seed,
                ..SamplingOptions::default()
            },
            max_tokens: draws.max_tokens.map(NonZero::get),
            stop: Vec::new(),
        })
    }

    /// Answers to the first `limit` prompts.
    pub fn ask(
        &self,
        prompts: &[String],
        limit: usize,
        asking: &Asking,
        answers: Option<&Path>,
    ) -> Result<Vec<Vec<Answered>>> {
        let SamplingOptions { temperature, top_p, seed, .. } = asking.sampling;
        let options = json!({
            "chat": asking.chat, "variables": asking.variables, "temperature": temperature,
            "top_p": top_p, "seed": seed, "max_tokens": asking.max_tokens, "stop": asking.stop,
        });
        let journal = self.journal(answers, prompts, options)?;
        let prompts = &prompts[..limit.min(prompts.len())];
        with_bar("answering", |bar| Ok(ask(&self.subject, prompts, asking, &journal, bar)?))
    }

    /// Prints the rate; `strict` names answers in which the strict rule finds none.
    pub fn print_rate(
        &self,
        as_json: bool,
        asking: &Asking,
        strict: &str,
        rate: &PassRate,
    ) -> Result {
        let mut rows = vec![
            ("pass@1", rate.pass_at_1.percent()),
            ("by flexible rule", rate.flexible.percent()),
        ];
        if rate.samples > 1 {
            rows.push(("by majority", rate.majority.percent()));
        }
        rows.extend(subjects(&rate.subjects));
        let answers = rate.questions * rate.samples;
        rows.extend([
            ("questions", format!("{}, {} samples each", rate.questions, rate.samples)),
            (strict, format!("{} of {answers}", rate.without_answer)),
            ("cut short", format!("{} of {answers}", rate.cut)),
            ("tokens per answer", format!("{:.1}", rate.tokens)),
        ]);
        let SamplingOptions { temperature, top_p, seed, .. } = asking.sampling;
        let (temperature, top_p) = (decimal(temperature), decimal(top_p));
        let report = Report { protocol: self.name, temperature, top_p, seed, result: rate };
        print(as_json, self.bundle.loaded().lossy.clone(), &report, &rows)
    }
}

/// What `--json` prints of sampled answers.
#[derive(Serialize)]
struct Report<'a, T> {
    protocol: &'a str,
    temperature: f64,
    top_p: f64,
    seed: u64,
    #[serde(flatten)]
    result: &'a T,
}

/// The number with the digits in which it was given.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| number.into())
}

/// Rows of a table for estimates by subject.
pub(super) fn subjects<'a>(
    of: impl IntoIterator<Item = (&'a String, &'a Estimate)>,
) -> impl Iterator<Item = (&'a str, String)> {
    of.into_iter().map(|(name, estimate)| (name.as_str(), estimate.percent()))
}

/// Size of a model's file or of the files of its folder.
fn bytes(path: &Path) -> u64 {
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| len(&entry.path())).sum(),
        Err(_) => len(path),
    }
}
