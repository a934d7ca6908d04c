//! A model card: the `README.md` that the Hugging Face hub shows of a published file, with the
//! metadata that it reads.

use std::fmt::Write;

use super::Report;
use crate::sources::Identity;

/// Facts for a card that the report lacks.
#[derive(Clone, Copy, Debug)]
pub struct Card<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// The source.
    pub source: &'a Identity,
    /// Model of the hub that the source is, `ORG/MODEL`.
    pub base_model: Option<&'a str>,
    /// Licence of the source by its short name on the hub.
    pub license: Option<&'a str>,
    /// The command that made the file.
    pub command: &'a str,
    /// Version of the program.
    pub version: &'a str,
}

impl Card<'_> {
    /// The card as Markdown.
    pub fn markdown(&self, report: &Report) -> String {
        let mut text = String::from("---\n");
        // A key that is not known is left out: the hub would take an empty one for an answer.
        if let Some(license) = self.license.and_then(plain) {
            text.push_str(&format!("license: {license}\n"));
        }
        if let Some(model) = self.base_model.and_then(plain) {
            text.push_str(&format!("base_model: {model}\nbase_model_relation: quantized\n"));
        }
        text.push_str("pipeline_tag: text-generation\ntags:\n- gguf\n- vaquita\n---\n\n");
        let name = one_line(&self.source.name);
        let base = match self.base_model.and_then(plain) {
            Some(model) => format!("[{model}](https://huggingface.co/{model})"),
            None => name.clone(),
        };
        let calibration = self.source.calibration.as_deref().map(one_line);
        let calibration = calibration.unwrap_or("none".into());
        let rows = [
            ("base model", base),
            ("licence", self.license.and_then(plain).unwrap_or("not stated by the source").into()),
            (
                "file",
                format!("`{}`, {:.2} GB", one_line(self.file), report.file_bytes as f64 / 1e9),
            ),
            ("bits per weight", format!("{:.3}", report.bits_per_weight)),
            (
                "without draft layers (MTP)",
                report.bits_per_weight_without_drafts.map_or(String::new(), |b| format!("{b:.3}")),
            ),
            ("of the experts", format!("{:.3}", report.expert_bits_per_weight)),
            ("matrices of experts by type", counts(&report.expert_types)),
            ("dense matrices by type", counts(&report.dense_types)),
            ("plan", one_line(&report.plan)),
            ("calibration", calibration),
            ("source", format!("{name}, {}", one_line(&self.source.fingerprint))),
            ("divergence from the source", "unmeasured".into()),
            ("made by", format!("vaquita {}", self.version)),
        ];
        let _ = write!(text, "# {name}, quantized for small machines\n\n| | |\n|---|---|\n");
        for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("| {key} | {value} |\n"));
        }
        let (file, command) = (one_line(self.file), one_line(self.command));
        let _ = write!(
            text,
            "\nMade with:\n\n```sh\n{command}\n```\n\nRun it within a memory budget; experts that do not fit are read \
             from storage:\n\n```sh\nvaquita run {file} --memory 3GiB -p \"Why is the sky blue?\"\n```\n\nMeasure its \
             divergence from the source:\n\n```sh\nvaquita eval reference SOURCE --text texts.jsonl -o source.reference\n\
             vaquita eval kld {file} --reference source.reference\n```\n\nThe file is in vaquita's expert-major layout; \
             `vaquita export {file} -o stock.gguf` writes one for other programs.\n",
        );
        text
    }
}

/// `e2 10, e4 22`
fn counts(types: &std::collections::BTreeMap<String, usize>) -> String {
    let counts: Vec<String> = types.iter().map(|(ty, count)| format!("{ty} {count}")).collect();
    counts.join(", ")
}

/// A value that YAML takes for a text as it is; `None` for any other.
fn plain(value: &str) -> Option<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let fits = !value.is_empty() && value.len() <= 200 && value.chars().all(allowed);
    Some(value).filter(|_| fits)
}

/// Names come from files of strangers: a line break or a pipe would end a row of the table.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '|' || c == '`' { ' ' } else { c }).collect()
}

/// The licence that a model card states in its metadata.
pub fn license_of(card: &str) -> Option<String> {
    let mut lines = card.lines();
    (lines.next()?.trim() == "---").then_some(())?;
    let mut metadata = lines.take_while(|line| line.trim() != "---");
    let value = metadata.find_map(|line| line.strip_prefix("license:"))?;
    plain(value.trim().trim_matches(['"', '\''])).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            plan: "mixed".into(),
            file_bytes: 5_000_000_000,
            parameters: 16_000_000_000,
            resumed_parameters: 0,
            bits_per_weight_without_drafts: None,
            bits_per_weight: 2.5,
            expert_bits_per_weight: 2.25,
            expert_types: [("e2".into(), 10), ("e3".into(), 2)].into(),
            dense_types: [("e4".into(), 3)].into(),
            layers: Vec::new(),
            worst: Vec::new(),
            seconds: 1.0,
        }
    }

    #[test]
    fn a_card_states_what_is_known_and_says_what_is_not() {
        let source = Identity { name: "Model".into(), ..Identity::default() };
        let card = Card {
            file: "model.gguf",
            source: &source,
            base_model: Some("org/Model"),
            license: Some("mit"),
            command: "vaquita quantize hf:org/Model -o model.gguf",
            version: "0.1.0",
        };
        let text = card.markdown(&report());
        assert!(text.starts_with("---\nlicense: mit\nbase_model: org/Model\n"), "{text}");
        for expected in ["| 2.500 |", "e2 10, e3 2", "unmeasured", "quantize hf:org/Model -o"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(license_of(&text).as_deref(), Some("mit"));
        let hostile = Identity { name: "a|b\n---\nlicense: x".into(), ..Identity::default() };
        let evil = "mit\nbase_model: other/x";
        let unknown = Card { source: &hostile, base_model: None, license: Some(evil), ..card };
        let text = unknown.markdown(&report());
        assert!(text.starts_with("---\npipeline_tag") && !text.contains("other/x"), "{text}");
        assert_eq!(
            (license_of(&text), text.lines().filter(|line| *line == "---").count()),
            (None, 2)
        );
    }

    #[test]
    fn licences_are_read_from_the_metadata_alone() {
        assert_eq!(
            license_of("---\ntags: x\nlicense: apache-2.0\n---\n").as_deref(),
            Some("apache-2.0")
        );
        for text in ["license: mit", "---\n---\nlicense: mit", "---\nlicense: a: b\n---", ""] {
            assert_eq!(license_of(text), None, "{text}");
        }
    }
}
