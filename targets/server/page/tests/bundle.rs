//! The bundle: its size, its licences, and that all languages say the same.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Bytes of the compressed document.
const LIMIT: usize = 200_000;

fn source() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(vaquita_page::files()[0].body).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_document_is_small() {
    let size = vaquita_page::files()[0].body.len();
    println!("{size} bytes compressed");
    assert!(size <= LIMIT, "{size} bytes compressed, at most {LIMIT}");
}

#[test]
fn the_policy_names_the_hashes_of_the_inline_script_and_style() {
    let document = document();
    let policy = vaquita_page::headers()[2].1;
    for tag in ["script", "style"] {
        assert_eq!(document.matches(&format!("<{tag}>")).count(), 1);
        let (_, rest) = document.split_once(&format!("<{tag}>")).unwrap();
        let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap();
        let hash = base64(&Sha256::digest(text));
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{tag}");
    }
    assert!(!policy.contains("unsafe"));
}

/// Standard alphabet with padding, written out so that the test shares no code with the build step.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let word = (0..3).fold(0, |word, i| word << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        let digit = |i: usize| char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]);
        (0..4).map(|i| if i <= chunk.len() { digit(i) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

#[test]
fn vendored_files_are_those_that_were_published() {
    let vendor = source().join("vendor");
    let mut listed = BTreeSet::new();
    for line in fs::read_to_string(vendor.join("CHECKSUMS")).unwrap().lines() {
        let (expected, name) = line.split_once("  ").unwrap();
        let bytes = fs::read(vendor.join(name)).unwrap();
        let found: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, expected, "{name}");
        listed.insert(name.to_string());
    }
    for folder in ["marked", "dompurify", "temml"] {
        assert!(listed.contains(&format!("{folder}/LICENSE")));
        for entry in fs::read_dir(vendor.join(folder)).unwrap() {
            let name = format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(listed.contains(&name), "{name} has no checksum");
        }
    }
}

#[test]
fn every_language_has_every_sentence() {
    let folder = source().join("languages");
    let read = |path: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let english = read(&folder.join("en.json"));
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let language = read(&path);
        for (key, sentence) in english.as_object().unwrap() {
            let translated = language.get(key).unwrap_or_else(|| panic!("{path:?} lacks {key}"));
            let all: Vec<BTreeSet<String>> = forms(translated).iter().map(|f| blanks(f)).collect();
            // A form for "one" may say the number in words.
            let wanted = forms(sentence).iter().map(|form| blanks(form)).max_by_key(|b| b.len());
            assert!(all.contains(&wanted.clone().unwrap()), "{path:?}: {key} needs {wanted:?}");
            assert!(all.iter().all(|blanks| blanks.is_subset(wanted.as_ref().unwrap())), "{key}");
        }
        let known = english.as_object().unwrap();
        let extra: Vec<_> =
            language.as_object().unwrap().keys().filter(|key| !known.contains_key(*key)).collect();
        assert!(extra.is_empty(), "{path:?} has {extra:?}");
        count += 1;
    }
    assert_eq!(count, 10);
}

/// A sentence, or its forms by number.
fn forms(sentence: &Value) -> Vec<String> {
    match sentence {
        Value::String(text) => vec![text.clone()],
        Value::Object(forms) => forms.values().map(|f| f.as_str().unwrap().to_string()).collect(),
        _ => panic!("{sentence} is neither a sentence nor its forms"),
    }
}

/// Names in braces.
fn blanks(text: &str) -> BTreeSet<String> {
    let mut parts = text.split('{');
    parts.next();
    parts.map(|part| part.split('}').next().unwrap().to_string()).collect()
}

#[test]
fn sentences_that_scripts_use_exist_and_no_others() {
    let english: Value =
        serde_json::from_str(&fs::read_to_string(source().join("languages/en.json")).unwrap())
            .unwrap();
    let mut text = fs::read_to_string(source().join("document.html")).unwrap();
    for entry in fs::read_dir(source().join("script")).unwrap() {
        text += &fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    let mut used = BTreeSet::new();
    for (before, after) in
        [("say('", "'"), ("data-say=\"", "\""), ("data-name=\"", "\""), ("data-hint=\"", "\"")]
    {
        for part in text.split(before).skip(1) {
            used.insert(part.split(after).next().unwrap().to_string());
        }
    }
    let known: BTreeSet<String> = english.as_object().unwrap().keys().cloned().collect();
    let missing: Vec<_> = used.difference(&known).collect();
    let unused: Vec<_> = known.difference(&used).collect();
    assert!(missing.is_empty() && unused.is_empty(), "missing {missing:?}, unused {unused:?}");
}
