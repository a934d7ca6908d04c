//! Which files of a model to fetch: one GGUF model with all its splits, or a checkpoint folder.

use std::collections::BTreeMap;

use crate::error::HubError;
use crate::listing::{Listing, RemoteFile};
use crate::name::ModelName;

/// Quantizations to take where none is named, the preferred one first: about four bits per weight,
/// which is what small machines have memory for at little loss.
const PREFERRED: [&str; 13] = [
    "Q4_K_M",
    "UD-Q4_K_XL",
    "Q4_K_XL",
    "MXFP4",
    "MXFP4_MOE",
    "IQ4_XS",
    "Q4_K_S",
    "Q4_0",
    "IQ4_NL",
    "e4",
    "Q5_K_M",
    "Q6_K",
    "Q8_0",
];
/// Names of a checkpoint's configuration and tokenizer files.
const BESIDE_WEIGHTS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tiktoken.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "README.md",
];
const INDEX: &str = "model.safetensors.index.json";
/// Part that names the checkpoint, where a model has GGUF files too.
pub const CHECKPOINT: &str = "safetensors";

/// Purpose of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be run: a GGUF file where there is one.
    Run,
    /// To be quantized: the checkpoint where there is one.
    Quantize,
}

/// A published GGUF model, single or split.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Quantization, such as `Q4_K_M`, or the file's name where it has none.
    pub label: String,
    /// Its files, in order.
    pub files: Vec<RemoteFile>,
    /// Number of files of the split model.
    pub count: usize,
}

impl Variant {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        total(&self.files)
    }

    /// The files of this model as a choice.
    pub fn choice(&self) -> Choice {
        let open = self.files.first().map(|file| file.path.clone());
        Choice { label: self.label.clone(), files: self.files.clone(), open }
    }
}

/// Files to fetch, and where a program opens them.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Quantization, or [`CHECKPOINT`].
    pub label: String,
    /// The files.
    pub files: Vec<RemoteFile>,
    /// Path within the model's folder of the file to open; `None` for the folder itself.
    pub open: Option<String>,
}

impl Choice {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        total(&self.files)
    }
}

fn total(files: &[RemoteFile]) -> u64 {
    files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
}

/// The GGUF models of a listing, smallest first; projectors of images and importance matrices are
/// left out.
pub fn variants(listing: &Listing) -> Vec<Variant> {
    let mut found = BTreeMap::<String, Variant>::new();
    for file in &listing.files {
        let Some(stem) = file.path.strip_suffix(".gguf") else { continue };
        let name = stem.rsplit('/').next().unwrap_or(stem).to_ascii_lowercase();
        if name.starts_with("mmproj") || name.contains("imatrix") {
            continue;
        }
        let (stem, count) = without_split(stem);
        let label = || Variant { label: label(stem), files: Vec::new(), count };
        found.entry(stem.into()).or_insert_with(label).files.push(file.clone());
    }
    let mut found: Vec<Variant> = found.into_values().collect();
    found.sort_by_key(Variant::bytes);
    found
}

/// A path without `-00001-of-00003`, and the number of files.
fn without_split(stem: &str) -> (&str, usize) {
    let split = || {
        let (head, count) = stem.rsplit_once("-of-")?;
        let (head, number) = head.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        (digits(number) && digits(count)).then_some(())?;
        Some((head, count.parse().ok()?))
    };
    split().unwrap_or((stem, 1))
}

/// The quantization in a file's name: its last part that is one, with `UD-` before it.
fn label(stem: &str) -> String {
    let name = stem.rsplit('/').next().unwrap_or(stem);
    let mut at = name.len();
    while let Some(separator) = name[..at].rfind(['-', '.']) {
        if is_quantization(&name[separator + 1..]) {
            let head = &name[..separator];
            let dynamic = head.len() > 3 && head.to_ascii_uppercase().ends_with("-UD");
            let start = if dynamic { separator - 2 } else { separator + 1 };
            return name[start..].into();
        }
        at = separator;
    }
    name.into()
}

/// Whether a text reads like `Q4_K_M`, `IQ3_XXS`, `BF16`, `MXFP4_MOE` or `e4`.
fn is_quantization(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let rest = ["IQ", "TQ", "Q", "BF", "F", "FP", "MXFP", "NVFP", "E"]
        .iter()
        .find_map(|prefix| upper.strip_prefix(prefix).filter(|rest| starts_with_digit(rest)));
    rest.is_some_and(|rest| {
        rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Selects the files that a name and a purpose ask for.
pub fn choose(listing: &Listing, name: &ModelName, purpose: Purpose) -> Result<Choice, HubError> {
    let variants = variants(listing);
    let checkpoint = checkpoint(listing);
    let repo = || listing.repo.to_string();
    let all = || {
        let labels = variants.iter().map(|variant| variant.label.clone());
        let folder = checkpoint.iter().map(|choice| choice.label.clone());
        labels.chain(folder).collect::<Vec<_>>().join(", ")
    };
    let Some(part) = &name.part else {
        return match checkpoint {
            Some(folder) if variants.is_empty() || purpose == Purpose::Quantize => Ok(folder),
            _ => match preferred(&variants) {
                Some(variant) => whole(listing, variant),
                None if variants.is_empty() => Err(HubError::NoWeights { name: repo() }),
                None => Err(HubError::Ambiguous { name: repo(), available: all() }),
            },
        };
    };
    if part.eq_ignore_ascii_case(CHECKPOINT)
        && let Some(folder) = checkpoint
    {
        return Ok(folder);
    }
    let matching = [
        select(&variants, |variant| variant.files.iter().any(|file| file.path == *part)),
        select(&variants, |variant| variant.label.eq_ignore_ascii_case(part)),
        select(&variants, |variant| ends_with(variant, part)),
    ];
    match matching.into_iter().find(|found| !found.is_empty()).as_deref() {
        Some([variant]) => whole(listing, variant),
        Some(several) => {
            let paths = several.iter().filter_map(|variant| variant.files.first());
            let paths: Vec<&str> = paths.map(|file| &*file.path).collect();
            Err(HubError::Ambiguous { name: repo(), available: paths.join(", ") })
        }
        None => match listing.file(part) {
            Some(file) => {
                let (label, open) = (part.clone(), Some(part.clone()));
                Ok(Choice { label, files: vec![file.clone()], open })
            }
            None => Err(HubError::NoPart { name: repo(), part: part.clone(), available: all() }),
        },
    }
}

fn select(variants: &[Variant], matches: impl Fn(&Variant) -> bool) -> Vec<&Variant> {
    variants.iter().filter(|variant| matches(variant)).collect()
}

/// Whether the name of a model without its ending ends in `part`, as a part of its own.
fn ends_with(variant: &Variant, part: &str) -> bool {
    let Some(first) = variant.files.first() else { return false };
    let (stem, _) = without_split(first.path.trim_end_matches(".gguf"));
    let (stem, part) = (stem.to_ascii_lowercase(), part.to_ascii_lowercase());
    let (stem, part) = (&*stem, part.trim_end_matches(".gguf"));
    stem.strip_suffix(part)
        .is_some_and(|head| head.is_empty() || head.ends_with(['-', '.', '_', '/']))
}

fn preferred(variants: &[Variant]) -> Option<&Variant> {
    if let [only] = variants {
        return Some(only);
    }
    PREFERRED.iter().find_map(|label| {
        let mut matching =
            variants.iter().filter(|variant| variant.label.eq_ignore_ascii_case(label));
        matching.next().filter(|_| matching.next().is_none())
    })
}

fn whole(listing: &Listing, variant: &Variant) -> Result<Choice, HubError> {
    let Variant { label, files, count } = variant;
    if files.len() != *count {
        return Err(HubError::MissingSplit {
            name: listing.repo.to_string(),
            label: label.clone(),
            found: files.len(),
            count: *count,
        });
    }
    Ok(variant.choice())
}

/// The checkpoint of a listing: configuration, tokenizer, and weights at the top of the folder. Of
/// several formats, that of transformers, whose files begin with `model`.
fn checkpoint(listing: &Listing) -> Option<Choice> {
    listing.file("config.json")?;
    let top = || listing.files.iter().filter(|file| !file.path.contains('/'));
    let weights = || top().filter(|file| file.path.ends_with(".safetensors"));
    let usual = weights().any(|file| file.path.starts_with("model"));
    let weights: Vec<RemoteFile> =
        weights().filter(|file| !usual || file.path.starts_with("model")).cloned().collect();
    if weights.is_empty() {
        return None;
    }
    let beside = top().filter(|file| {
        let name = &*file.path;
        BESIDE_WEIGHTS.contains(&name) || name == INDEX || name.starts_with("LICENSE")
    });
    let files = beside.cloned().chain(weights.iter().cloned()).collect();
    Some(Choice { label: CHECKPOINT.into(), files, open: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::Digest;

    fn listing(paths: &[&str]) -> Listing {
        let name = ModelName::parse("a/b").unwrap();
        let file = |(i, path): (usize, &&str)| RemoteFile {
            path: path.to_string(),
            bytes: i as u64 + 1,
            digest: Digest::Git(String::new()),
        };
        let files = paths.iter().enumerate().map(file).collect();
        let (license, base_model) = (None, None);
        Listing { repo: name.repo, commit: String::new(), license, gated: false, base_model, files }
    }

    fn chosen(paths: &[&str], name: &str, purpose: Purpose) -> Result<Vec<String>, String> {
        let name = ModelName::parse(name).unwrap();
        let choice = choose(&listing(paths), &name, purpose).map_err(|error| error.to_string())?;
        Ok(choice.files.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn labels_are_the_quantizations_of_file_names() {
        for (path, expected) in [
            ("Qwen3-30B-A3B-Q4_K_M", "Q4_K_M"),
            ("x/Kimi-K2-UD-IQ2_XXS", "UD-IQ2_XXS"),
            ("DeepSeek-V2-Lite-Chat.IQ3_M", "IQ3_M"),
            ("gpt-oss-20b-mxfp4", "mxfp4"),
            ("reference-e4", "e4"),
            ("GLM-4.7-Flash-Q8_0", "Q8_0"),
            ("model", "model"),
            ("Qwen3-8B", "Qwen3-8B"),
        ] {
            assert_eq!(label(path), expected, "{path}");
        }
    }

    #[test]
    fn a_quantization_names_one_model_with_all_its_splits() {
        let paths = [
            "B-Q2_K.gguf",
            "B-UD-Q4_K_M.gguf",
            "B-Q4_K_M.gguf",
            "Q8_0/B-Q8_0-00001-of-00002.gguf",
            "Q8_0/B-Q8_0-00002-of-00002.gguf",
            "BF16/B-BF16-00001-of-00003.gguf",
            "mmproj-F16.gguf",
            "imatrix.gguf",
        ];
        let run = |name: &str| chosen(&paths, name, Purpose::Run);
        assert_eq!(run("a/b").unwrap(), ["B-Q4_K_M.gguf"]);
        assert_eq!(run("a/b:ud-q4_k_m").unwrap(), ["B-UD-Q4_K_M.gguf"]);
        assert_eq!(run("a/b:q8_0").unwrap().len(), 2);
        assert_eq!(run("a/b:Q8_0/B-Q8_0-00001-of-00002.gguf").unwrap().len(), 2);
        assert_eq!(run("a/b:mmproj-F16.gguf").unwrap(), ["mmproj-F16.gguf"]);
        assert!(run("a/b:BF16").unwrap_err().contains("1 of 3 files"));
        let error = run("a/b:Q3_K").unwrap_err();
        assert!(error.contains("Q2_K, ") && error.contains("UD-Q4_K_M"), "{error}");
        let other = ["B-Q2_K.gguf", "B-Q3_K.gguf"];
        assert!(chosen(&other, "a/b", Purpose::Run).unwrap_err().contains("Q2_K, Q3_K"));
        let twice = ["x/B-Q2_K.gguf", "y/B-Q2_K.gguf"];
        let error = chosen(&twice, "a/b:Q2_K", Purpose::Run).unwrap_err();
        assert!(error.contains("x/B-Q2_K.gguf, y/B-Q2_K.gguf"), "{error}");
    }

    #[test]
    fn a_checkpoint_is_what_quantize_reads_and_no_more() {
        let paths = [
            "config.json",
            "README.md",
            "LICENSE",
            "consolidated.safetensors",
            "model-1-of-2.safetensors",
            "model-2-of-2.safetensors",
            "model.safetensors.index.json",
            "original/x.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
        ];
        let found = chosen(&paths, "a/b", Purpose::Run).unwrap();
        let left = ["consolidated.safetensors", "original/x.safetensors", "pytorch_model.bin"];
        assert_eq!(found.len(), paths.len() - left.len());
        assert!(!found.iter().any(|path| left.contains(&&**path)));
        let both = ["config.json", "model.safetensors", "B-Q4_0.gguf"];
        assert_eq!(chosen(&both, "a/b", Purpose::Run).unwrap(), ["B-Q4_0.gguf"]);
        assert_eq!(chosen(&both, "a/b", Purpose::Quantize).unwrap().len(), 2);
        assert_eq!(chosen(&both, "a/b:safetensors", Purpose::Run).unwrap().len(), 2);
        assert!(chosen(&["x.bin"], "a/b", Purpose::Run).unwrap_err().contains("neither"));
    }
}
