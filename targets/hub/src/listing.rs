//! The hub's description of a model: its commit, licence, and files with sizes and checksums.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;

use crate::error::HubError;
use crate::name::{ModelName, RepoId, is_inside};

/// Longest description that is read.
pub(crate) const LONGEST: u64 = 64 << 20;
/// Files that a model may have.
const MOST_FILES: usize = 100_000;

/// Checksum of a file, and its name in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256 of the content, for files in large file storage.
    Sha256(String),
    /// SHA-1 that git gives a blob, for all others.
    Git(String),
}

impl Digest {
    /// The checksum in hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex())
    }
}

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path within the model's folder, which it cannot leave.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Checksum.
    pub digest: Digest,
}

/// A model at a commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Organization and name.
    pub repo: RepoId,
    /// The commit that the revision is at.
    pub commit: String,
    /// Licence by its short name, such as `mit`.
    pub license: Option<String>,
    /// Whether one must accept terms before the files can be fetched.
    pub gated: bool,
    /// Model that this one was made from.
    pub base_model: Option<String>,
    /// All files.
    pub files: Vec<RemoteFile>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: Option<u64>,
}

impl Listing {
    /// Parses the answer of `api/models/ORG/MODEL/revision/REVISION?blobs=true`.
    pub(crate) fn parse(name: &ModelName, url: &str, text: &[u8]) -> Result<Self, HubError> {
        let wrong = |problem, found: &dyn fmt::Display| HubError::Answer {
            url: url.into(),
            problem,
            found: found.to_string().chars().filter(|c| !c.is_control()).take(200).collect(),
        };
        let answer: Answer = serde_json::from_slice(text)
            .map_err(|error| wrong("the answer is not a description of a model", &error))?;
        if !is_hex(&answer.sha, 40) {
            return Err(wrong("the commit should be 40 hexadecimal digits", &answer.sha));
        }
        if answer.siblings.len() > MOST_FILES {
            return Err(wrong("the model has too many files", &answer.siblings.len()));
        }
        let mut paths = HashSet::new();
        let mut files = Vec::with_capacity(answer.siblings.len());
        for sibling in answer.siblings {
            let path = &sibling.rfilename;
            if !is_inside(path) || !paths.insert(path.clone()) {
                let file = path.chars().take(200).collect();
                return Err(HubError::FileName { name: name.repo.to_string(), file });
            }
            files.push(sibling.file(name)?);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let tag = |prefix: &str| {
            let mut tags = answer.tags.iter().filter_map(|tag| tag.strip_prefix(prefix));
            tags.next().map(|tag| tag.chars().filter(|c| !c.is_control()).take(100).collect())
        };
        Ok(Self {
            repo: name.repo.clone(),
            commit: answer.sha.clone(),
            license: tag("license:"),
            gated: !matches!(
                answer.gated,
                serde_json::Value::Bool(false) | serde_json::Value::Null
            ),
            base_model: tag("base_model:quantized:").or_else(|| tag("base_model:")),
            files,
        })
    }

    /// Files of the cache as a listing without checksums.
    pub(crate) fn of_files(repo: &RepoId, commit: &str, files: Vec<(String, u64)>) -> Self {
        let digest = || Digest::Git(String::new());
        let file = |(path, bytes)| RemoteFile { path, bytes, digest: digest() };
        Self {
            repo: repo.clone(),
            commit: commit.into(),
            license: None,
            gated: false,
            base_model: None,
            files: files.into_iter().map(file).collect(),
        }
    }

    /// The file with that path.
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl Sibling {
    fn file(self, name: &ModelName) -> Result<RemoteFile, HubError> {
        let Self { rfilename: path, size, blob, lfs } = self;
        let missing =
            |what| HubError::NoChecksum { name: name.repo.to_string(), file: path.clone(), what };
        let bytes = lfs.as_ref().and_then(|lfs| lfs.size).or(size);
        let bytes = bytes.ok_or_else(|| missing("size"))?;
        let digest = match (lfs, blob) {
            (Some(lfs), _) if is_hex(&lfs.sha256, 64) => Digest::Sha256(lfs.sha256),
            (None, Some(blob)) if is_hex(&blob, 40) => Digest::Git(blob),
            _ => return Err(missing("checksum")),
        };
        Ok(RemoteFile { path, bytes, digest })
    }
}

/// Whether a text is that many hexadecimal digits in lower case: safe as a file name.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(siblings: &str) -> Result<Listing, HubError> {
        let sha = "0".repeat(40);
        let text = format!(
            r#"{{"sha":"{sha}","gated":"auto","tags":["license:mit"],"siblings":[{siblings}]}}"#
        );
        Listing::parse(&ModelName::parse("a/b").unwrap(), "http://hub", text.as_bytes())
    }

    #[test]
    fn files_have_the_checksum_of_their_kind() {
        let (git, sha256) = ("1".repeat(40), "2".repeat(64));
        let listing = parse(&format!(
            r#"{{"rfilename":"x.gguf","size":9,"blobId":"{git}","lfs":{{"sha256":"{sha256}","size":9}}}},
               {{"rfilename":"a/config.json","size":3,"blobId":"{git}"}}"#
        ));
        let listing = listing.unwrap();
        assert!(listing.gated && listing.license.as_deref() == Some("mit"));
        assert_eq!(listing.files[0].digest, Digest::Git(git));
        assert_eq!(listing.file("x.gguf").unwrap().digest, Digest::Sha256(sha256));
    }

    #[test]
    fn hostile_listings_are_refused() {
        let git = "1".repeat(40);
        for path in ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "C:x", "a\\\\b", "a\\nb"]
        {
            let file = format!(r#"{{"rfilename":"{path}","size":9,"blobId":"{git}"}}"#);
            let found = parse(&file);
            assert!(matches!(found, Err(HubError::FileName { .. })), "{path}: {found:?}");
        }
        let file = |rest: &str| parse(&format!(r#"{{"rfilename":"x"{rest}}}"#));
        let twice =
            format!(r#","size":9,"blobId":"{git}"}},{{"rfilename":"x","size":9,"blobId":"{git}""#);
        assert!(matches!(file(&twice), Err(HubError::FileName { .. })));
        for rest in [r#","size":1"#, r#","size":1,"blobId":"../../x""#, r#","blobId":"1""#] {
            assert!(matches!(file(rest), Err(HubError::NoChecksum { .. })), "{rest}");
        }
        assert!(matches!(file(r#","size":-1"#), Err(HubError::Answer { .. })));
    }
}
