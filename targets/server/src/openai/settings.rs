//! Fields of sampling and ends that the APIs of OpenAI and llama.cpp share, checked and ranged.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::Value;
use vaquita_runtime::session::sampler::SamplingOptions;
use vaquita_runtime::session::sampler::dry::{Breakers, DryOptions};

use crate::chat::Settings;
use crate::error::{ApiError, Result};
use crate::http::record::random_number;
use crate::llama::slots;
use crate::served::Served;

/// Maximum number of stop strings.
const STOPS: usize = 64;
/// Maximum size of all stop strings in bytes.
const STOP_BYTES: usize = 16 << 10;
/// Maximum number of tokens with a bias.
const BIASES: usize = 4096;

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    One(String),
    Several(Vec<String>),
}

/// The fields.
#[derive(Deserialize)]
pub(crate) struct SettingsBody {
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    max_output_tokens: Option<i64>,
    n_predict: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    repeat_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    repeat_last_n: Option<i64>,
    xtc_probability: Option<f64>,
    xtc_threshold: Option<f64>,
    dry_multiplier: Option<f64>,
    dry_base: Option<f64>,
    dry_allowed_length: Option<i64>,
    seed: Option<i64>,
    #[serde(default, alias = "stop_sequences")]
    stop: Option<Texts>,
    n: Option<i64>,
    logit_bias: Option<Value>,
    /// llama.cpp: the model does not end the answer.
    ignore_eos: Option<bool>,
    /// llama.cpp: whether the prompt may be known, and is kept.
    cache_prompt: Option<bool>,
    /// llama.cpp: the slot whose prompt is looked up and replaced; -1 is any.
    id_slot: Option<i64>,
}

/// Checks that a number is within a range.
pub(crate) fn within(
    param: &str,
    number: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<f32>> {
    match number {
        None => Ok(None),
        Some(number) if range.contains(&number) => Ok(Some(number as f32)),
        Some(_) => {
            let message = format!("{param}: allowed: {} to {}", range.start(), range.end());
            Err(ApiError::value(param, message))
        }
    }
}

/// Checks that a whole number is within a range.
pub(crate) fn whole(
    param: &str,
    number: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<usize>> {
    match number {
        None => Ok(None),
        Some(number) if range.contains(&number) => Ok(usize::try_from(number).ok()),
        Some(_) => {
            let message = format!("{param}: allowed: {} to {}", range.start(), range.end());
            Err(ApiError::value(param, message))
        }
    }
}

impl SettingsBody {
    /// Checks the fields.
    pub fn settings(self, model: &Served) -> Result<Settings> {
        let max_tokens = self.max_tokens()?.or(model.info.defaults.max_tokens);
        let n = whole("n", self.n, 1..=model.slots.min(128) as i64)?.unwrap_or(1);
        let stop = stops(self.stop)?;
        let defaults = model.defaults();
        let penalty = self.repeat_penalty.or(self.repetition_penalty);
        let mut logit_bias =
            self.logit_bias.as_ref().map_or(Ok(Vec::new()), |json| bias(json, model))?;
        if self.ignore_eos == Some(true) {
            logit_bias.retain(|(token, _)| !model.ends.contains(token));
            logit_bias.extend(model.ends.iter().map(|end| (*end, f32::NEG_INFINITY)));
        }
        let dry = DryOptions::default();
        let multiplier = within("dry_multiplier", self.dry_multiplier, 0.0..=100.0)?;
        let breakers = match multiplier.is_some_and(|multiplier| multiplier > 0.0) {
            true => Breakers::new(model.prompter().tokenizer(), Breakers::DEFAULT)
                .map_err(|error| ApiError::internal(error.to_string()))?,
            false => dry.breakers.clone(),
        };
        let sampling = SamplingOptions {
            temperature: within("temperature", self.temperature, 0.0..=100.0)?
                .unwrap_or(defaults.temperature),
            top_p: match within("top_p", self.top_p, 0.0..=1.0)? {
                // OpenAI allows 0, which keeps the most likely token alone.
                Some(top_p) => top_p.max(f32::MIN_POSITIVE),
                None => defaults.top_p,
            },
            // llama.cpp: 0 and less keep all.
            top_k: whole("top_k", self.top_k.map(|k| k.max(0)), 0..=i64::from(i32::MAX))?
                .unwrap_or(defaults.top_k),
            min_p: within("min_p", self.min_p, 0.0..=1.0)?.unwrap_or(defaults.min_p),
            presence_penalty: within("presence_penalty", self.presence_penalty, -2.0..=2.0)?
                .unwrap_or(defaults.presence_penalty),
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?
                .unwrap_or(defaults.frequency_penalty),
            repetition_penalty: within("repeat_penalty", penalty, 0.01..=100.0)?
                .unwrap_or(defaults.repetition_penalty),
            // llama.cpp: -1 is the whole context.
            repetition_window: match self.repeat_last_n {
                Some(-1) => model.context(),
                last => whole("repeat_last_n", last, 0..=i64::from(i32::MAX))?
                    .unwrap_or(defaults.repetition_window),
            },
            xtc_probability: within("xtc_probability", self.xtc_probability, 0.0..=1.0)?
                .unwrap_or(defaults.xtc_probability),
            xtc_threshold: within("xtc_threshold", self.xtc_threshold, 0.0..=1.0)?
                .unwrap_or(defaults.xtc_threshold),
            dry: DryOptions {
                multiplier: multiplier.unwrap_or(dry.multiplier),
                base: within("dry_base", self.dry_base, 1.0..=100.0)?.unwrap_or(dry.base),
                allowed_length: whole("dry_allowed_length", self.dry_allowed_length, 0..=65_536)?
                    .unwrap_or(dry.allowed_length),
                breakers,
                ..dry
            },
            logit_bias,
            // llama.cpp: -1 is a random one.
            seed: self
                .seed
                .filter(|seed| *seed != -1)
                .map(|seed| seed as u64)
                .or(model.info.defaults.seed)
                .unwrap_or_else(random_number),
        };
        let uncached = self.cache_prompt == Some(false);
        let slot = slots::of_request(model, self.id_slot)?;
        Ok(Settings { sampling, max_tokens, stop, logprobs: None, odds: false, n, uncached, slot })
    }

    fn max_tokens(&self) -> Result<Option<usize>> {
        let given = [
            ("max_tokens", self.max_tokens),
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_output_tokens", self.max_output_tokens),
            ("n_predict", self.n_predict),
        ];
        let mut most = None;
        for (param, value) in given {
            // llama.cpp: -1 is no limit.
            let Some(value) = value.filter(|value| *value != -1) else { continue };
            let value = whole(param, Some(value), 0..=i64::from(i32::MAX))?;
            if most.is_some_and(|most| value != Some(most)) {
                let message = format!("{param} contradicts max_tokens: send one of them");
                return Err(ApiError::field(param, message));
            }
            most = value;
        }
        Ok(most)
    }
}

fn stops(stop: Option<Texts>) -> Result<Vec<String>> {
    let stop = match stop {
        None => Vec::new(),
        Some(Texts::One(text)) => vec![text],
        Some(Texts::Several(texts)) => texts,
    };
    if stop.len() > STOPS || stop.iter().map(String::len).sum::<usize>() > STOP_BYTES {
        let message = format!("stop: allowed: {STOPS} strings of {STOP_BYTES} bytes in all");
        return Err(ApiError::value("stop", message));
    }
    Ok(stop.into_iter().filter(|text| !text.is_empty()).collect())
}

/// Biases in OpenAI's form (`{"42": -1}`) and in llama.cpp's (`[[42, -1], ["text", false]]`); both
/// have texts, too.
fn bias(json: &Value, model: &Served) -> Result<Vec<(u32, f32)>> {
    let wrong = || {
        let message = "logit_bias: an object of token numbers and biases from -100 to 100, or a list of \
                       [token number or text, bias or false]";
        ApiError::field("logit_bias", message)
    };
    let pairs: Vec<(Value, Value)> = match json {
        Value::Null => Vec::new(),
        Value::Object(map) => {
            map.iter().map(|(key, bias)| (Value::from(key.as_str()), bias.clone())).collect()
        }
        Value::Array(list) => list
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([token, bias]) => Ok((token.clone(), bias.clone())),
                _ => Err(wrong()),
            })
            .collect::<Result<_>>()?,
        _ => return Err(wrong()),
    };
    if pairs.len() > BIASES {
        let message = format!("logit_bias: {} tokens; allowed: {BIASES}", pairs.len());
        return Err(ApiError::value("logit_bias", message));
    }
    let rows = model.app.loaded().model.config().vocab_size;
    let mut biases = BTreeMap::new();
    for (token, bias) in pairs {
        let bias = match bias {
            Value::Bool(false) => f32::NEG_INFINITY,
            bias => {
                let bias = bias.as_f64().ok_or_else(wrong)?;
                within("logit_bias", Some(bias), -100.0..=100.0)?.unwrap_or(0.0)
            }
        };
        let number = token.as_u64().or_else(|| token.as_str()?.parse().ok());
        let tokens = match (number, &token) {
            (Some(number), _) => vec![u32::try_from(number).map_err(|_| wrong())?],
            (None, Value::String(text)) => {
                let encoded = model.prompter().tokenizer().encode_within(text, false, BIASES);
                encoded.map_err(|error| ApiError::field("logit_bias", error.to_string()))?
            }
            _ => return Err(wrong()),
        };
        // Tokens that the model does not have cannot be generated.
        biases.extend(tokens.into_iter().filter(|t| (*t as usize) < rows).map(|t| (t, bias)));
    }
    Ok(biases.into_iter().collect())
}
