//! Sampling options that a model's authors suggest: `generation_config.json` in a checkpoint, and
//! llama.cpp's `general.sampling.*` keys in a GGUF file.
//!
//! They are suggestions: a value that is missing or out of range is left out.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::gguf::Metadata;

/// Most bytes of `generation_config.json` that are read.
const MOST_BYTES: u64 = 1 << 20;
/// Largest temperature and repetition penalty that are taken for meant.
const MOST: f32 = 100.0;

/// Suggested values; `None` where there is no suggestion.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SuggestedSampling {
    /// Sampling temperature; 0 is greedy decoding.
    pub temperature: Option<f32>,
    /// Number of most likely tokens to keep; 0 keeps all.
    pub top_k: Option<usize>,
    /// Probability that the kept tokens reach together.
    pub top_p: Option<f32>,
    /// Least probability of a kept token, relative to the most likely one.
    pub min_p: Option<f32>,
    /// Repetition penalty; 1 is none.
    pub repetition_penalty: Option<f32>,
}

impl SuggestedSampling {
    /// The suggestions of a checkpoint folder.
    pub fn from_folder(folder: &Path) -> Self {
        let mut text = Vec::new();
        let read = File::open(folder.join("generation_config.json"))
            .and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
        match read.ok().and_then(|_| serde_json::from_slice(&text).ok()) {
            Some(config) => Self::from_generation_config(&config),
            None => Self::default(),
        }
    }

    /// The suggestions of `generation_config.json`.
    pub fn from_generation_config(config: &Value) -> Self {
        let number = |key: &str| config[key].as_f64().map(|x| x as f32);
        let suggested = Self {
            temperature: number("temperature"),
            top_k: config["top_k"].as_u64().and_then(|k| k.try_into().ok()),
            top_p: number("top_p"),
            min_p: number("min_p"),
            repetition_penalty: number("repetition_penalty"),
        };
        // transformers decodes greedily then, whatever the other values are.
        let greedy = config["do_sample"] == Value::Bool(false);
        Self { temperature: if greedy { Some(0.0) } else { suggested.temperature }, ..suggested }
            .within_range()
    }

    /// The suggestions of a GGUF file.
    pub fn from_metadata(metadata: &Metadata) -> Self {
        let number = |key: &str| metadata.f32(key).ok().flatten();
        let suggested = Self {
            temperature: number(TEMPERATURE),
            top_k: metadata.usize(TOP_K).ok().flatten(),
            top_p: number(TOP_P),
            min_p: number(MIN_P),
            repetition_penalty: number(REPETITION_PENALTY),
        };
        suggested.within_range()
    }

    /// Writes the suggestions to the metadata of a GGUF file.
    pub fn write_metadata(&self, metadata: &mut Metadata) {
        let numbers = [
            (TEMPERATURE, self.temperature),
            (TOP_P, self.top_p),
            (MIN_P, self.min_p),
            (REPETITION_PENALTY, self.repetition_penalty),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                metadata.insert(key, value);
            }
        }
        if let Some(top_k) = self.top_k.and_then(|k| i32::try_from(k).ok()) {
            metadata.insert(TOP_K, top_k);
        }
    }

    fn within_range(self) -> Self {
        let share = |x: &f32| (0.0..=1.0).contains(x);
        Self {
            temperature: self.temperature.filter(|x| (0.0..=MOST).contains(x)),
            top_k: self.top_k,
            top_p: self.top_p.filter(|x| share(x) && *x > 0.0),
            min_p: self.min_p.filter(share),
            repetition_penalty: self.repetition_penalty.filter(|x| *x > 0.0 && *x <= MOST),
        }
    }
}

const TEMPERATURE: &str = "general.sampling.temp";
const TOP_K: &str = "general.sampling.top_k";
const TOP_P: &str = "general.sampling.top_p";
const MIN_P: &str = "general.sampling.min_p";
const REPETITION_PENALTY: &str = "general.sampling.penalty_repeat";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn suggestions_survive_the_way_into_a_file() {
        let config = json!({"do_sample": true, "temperature": 0.3, "top_k": 20, "top_p": 0.8});
        let suggested = SuggestedSampling::from_generation_config(&config);
        assert_eq!(suggested.temperature, Some(0.3));
        assert_eq!((suggested.top_k, suggested.min_p), (Some(20), None));
        let mut metadata = Metadata::new();
        suggested.write_metadata(&mut metadata);
        assert_eq!(SuggestedSampling::from_metadata(&metadata), suggested);
    }

    #[test]
    fn a_model_that_does_not_sample_is_greedy() {
        let config = json!({"do_sample": false, "temperature": 0.7});
        let suggested = SuggestedSampling::from_generation_config(&config);
        assert_eq!(suggested.temperature, Some(0.0));
    }

    #[test]
    fn values_out_of_range_and_of_other_types_are_left_out() {
        let config = json!({"temperature": -1, "top_k": -5, "top_p": "high", "min_p": 7,
            "repetition_penalty": 0});
        let suggested = SuggestedSampling::from_generation_config(&config);
        assert_eq!(suggested, SuggestedSampling::default());
        let mut metadata = Metadata::new();
        metadata.insert(TEMPERATURE, f32::NAN);
        metadata.insert(TOP_P, "0.9");
        assert_eq!(SuggestedSampling::from_metadata(&metadata), SuggestedSampling::default());
    }
}
