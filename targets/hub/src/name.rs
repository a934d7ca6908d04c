//! Names of models: `ORG/MODEL[@REVISION][:FILE or quantization]`, or an address of the hub's site.

use std::fmt;

use crate::error::HubError;

/// Longest name of an organization or model that the hub allows.
const LONGEST: usize = 96;
/// Longest revision or file name that is accepted.
const LONGEST_PATH: usize = 1024;

/// Organization and name of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoId {
    /// User or organization.
    pub owner: String,
    /// Name of the model.
    pub name: String,
}

impl RepoId {
    /// The id `owner/name`, if the hub allows both.
    pub fn new(owner: &str, name: &str) -> Option<Self> {
        let valid = |part: &str| {
            let mut bytes = part.bytes();
            !part.is_empty()
                && part.len() <= LONGEST
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        (valid(owner) && valid(name)).then(|| Self { owner: owner.into(), name: name.into() })
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A model of the hub, with revision and part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// Organization and name.
    pub repo: RepoId,
    /// Branch, tag or commit; `None` for the main branch.
    pub revision: Option<String>,
    /// File name or quantization.
    pub part: Option<String>,
}

impl ModelName {
    /// The name that `text` asks for explicitly, by `hf:` or an address of the site; `None` if it
    /// is something else, such as a path.
    pub fn explicit(text: &str) -> Option<Result<Self, HubError>> {
        const PREFIXES: [&str; 5] =
            ["hf:", "hf.co/", "huggingface.co/", "https://huggingface.co/", "https://hf.co/"];
        let rest = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix))?;
        Some(Self::parse(rest.trim_start_matches('/')))
    }

    /// Parses a name, with or without `hf:`.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let bad = |problem| HubError::Name { found: text.into(), problem };
        if let Some(rest) = text.strip_prefix("hf:") {
            return Self::parse(rest);
        }
        if let Some(found) = Self::explicit(text) {
            return found;
        }
        let (id, part) = match text.split_once(':') {
            Some((id, part)) => (id, Some(part)),
            None => (text, None),
        };
        let (id, revision) = match id.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (id, None),
        };
        let mut parts = id.trim_end_matches('/').splitn(5, '/');
        let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
            return Err(bad("organization and model are separated by a slash"));
        };
        // The rest of an address of the site: /blob/main/FILE, /tree/main.
        let (kind, branch, file) = (parts.next(), parts.next(), parts.next());
        if kind.is_some_and(|kind| !["blob", "resolve", "tree"].contains(&kind)) {
            return Err(bad("it has more than one slash"));
        }
        let branch = branch.filter(|branch| *branch != "main");
        let file = file.map(|file| file.split(['?', '#']).next().unwrap_or(file));
        let repo = RepoId::new(owner, name)
            .ok_or_else(|| bad("names consist of letters, digits, '-', '_' and '.'"))?;
        let revision = revision.or(branch);
        if !revision.is_none_or(is_revision) {
            return Err(bad("the revision is not a branch, tag or commit"));
        }
        let part = part.or(file);
        if !part.is_none_or(is_inside) {
            return Err(bad("after the colon comes a file or a quantization"));
        }
        Ok(Self { repo, revision: revision.map(Into::into), part: part.map(Into::into) })
    }

    /// The revision to ask for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(part) = &self.part {
            write!(f, ":{part}")?;
        }
        Ok(())
    }
}

/// Whether a revision may become part of an address and of a path.
fn is_revision(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    is_inside(text) && text.chars().all(plain)
}

/// Whether a relative path stays within its folder on any system, and has only printable
/// characters.
pub(crate) fn is_inside(path: &str) -> bool {
    let component = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= LONGEST_PATH
        && path.split('/').all(component)
        && !path.chars().any(|c| c.is_control() || c == '\\' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_organization_and_may_have_a_revision_and_a_part() {
        let cases = [
            ("Qwen/Qwen3-30B-A3B", ("Qwen", "Qwen3-30B-A3B", None, None)),
            ("hf:a/b:Q4_K_M", ("a", "b", None, Some("Q4_K_M"))),
            ("a/b@refs/pr/1:x/y.gguf", ("a", "b", Some("refs/pr/1"), Some("x/y.gguf"))),
            ("https://huggingface.co/a/b.c", ("a", "b.c", None, None)),
            ("hf.co/a/b:IQ4_XS", ("a", "b", None, Some("IQ4_XS"))),
            (
                "https://huggingface.co/a/b/blob/main/q/x.gguf?download=true",
                ("a", "b", None, Some("q/x.gguf")),
            ),
            ("https://huggingface.co/a/b/tree/v1", ("a", "b", Some("v1"), None)),
        ];
        for (text, (owner, name, revision, part)) in cases {
            let found = ModelName::parse(text).unwrap();
            assert_eq!((&*found.repo.owner, &*found.repo.name), (owner, name), "{text}");
            assert_eq!(found.revision.as_deref(), revision, "{text}");
            assert_eq!(found.part.as_deref(), part, "{text}");
            assert_eq!(ModelName::parse(&found.to_string()).unwrap(), found);
        }
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for text in [
            "",
            "a",
            "/a/b",
            "a//b",
            "../b",
            "a/..",
            "a/b/c",
            "a/-b",
            "a/b--c",
            "a/b@",
            "a/b@../x",
            "a/b@x?y",
            "a/b:",
            "a/b:../x",
            "a/b:/x",
            "a/b:x//y",
            "a/b:x\\y",
            "a/b:c:d",
            "a b/c",
            "a/b:x\n",
            "./model.gguf",
        ] {
            assert!(ModelName::parse(text).is_err(), "{text:?}");
        }
        assert!(ModelName::explicit("models/x.gguf").is_none());
        assert!(ModelName::explicit("hf:../x").is_some_and(|found| found.is_err()));
    }
}
