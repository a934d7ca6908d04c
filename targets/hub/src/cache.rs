//! The hub's cache on disk, in the layout of `huggingface_hub`:
//!
//! ```text
//! models--ORG--MODEL/blobs/CHECKSUM             contents
//! models--ORG--MODEL/snapshots/COMMIT/PATH      symbolic links to them
//! models--ORG--MODEL/refs/REVISION              the commit of a branch or tag
//! .locks/models--ORG--MODEL/CHECKSUM.lock       held while a content is fetched
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::HubError;
use crate::listing::{Digest, Listing, is_hex};
use crate::name::{ModelName, RepoId};

/// Longest content of a file in `refs`.
const REF_BYTES: u64 = 1024;
/// Folders below a snapshot that are searched.
const DEEPEST: usize = 16;

/// The folder that holds all models.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A model in the cache.
#[derive(Clone, Debug)]
pub struct CachedModel {
    /// Organization and name.
    pub repo: RepoId,
    /// Bytes of all contents, unfinished ones included.
    pub bytes: u64,
    /// Bytes of unfinished ones.
    pub unfinished_bytes: u64,
    /// Files of all snapshots, each path once, with their bytes.
    pub files: Vec<(String, u64)>,
    /// Names in `refs`.
    pub revisions: Vec<String>,
}

/// One model's part of the cache.
#[derive(Clone, Debug)]
pub struct RepoFolder {
    folder: PathBuf,
    locks: PathBuf,
}

impl CachedModel {
    /// The files of all snapshots as a listing, for [`crate::choose`]; without checksums.
    pub fn listing(&self) -> Listing {
        Listing::of_files(&self.repo, "", self.files.clone())
    }
}

impl Cache {
    /// The cache below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache that `HF_HUB_CACHE`, `HF_HOME` or `XDG_CACHE_HOME` name, or
    /// `~/.cache/huggingface/hub`.
    pub fn from_env() -> Result<Self, HubError> {
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let root = cache.or_else(|| Some(home()?.join("hub")));
        root.map(Self::new).ok_or(HubError::NoHome)
    }

    /// Path of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The part of a model.
    pub fn repo(&self, repo: &RepoId) -> RepoFolder {
        let name = format!("models--{}--{}", repo.owner, repo.name);
        RepoFolder { folder: self.root.join(&name), locks: self.root.join(".locks").join(name) }
    }

    /// All models, by name. Folders of other names, such as those of data sets, are skipped.
    pub fn models(&self) -> Result<Vec<CachedModel>, HubError> {
        let mut models = Vec::new();
        for name in names(&self.root)? {
            let id = name.strip_prefix("models--").and_then(|id| id.split_once("--"));
            if let Some(repo) = id.and_then(|(owner, name)| RepoId::new(owner, name)) {
                let folder = self.repo(&repo);
                models.push(folder.describe(repo)?);
            }
        }
        models.sort_by(|a, b| a.repo.cmp(&b.repo));
        Ok(models)
    }
}

/// `HF_HOME`, or its default.
pub(crate) fn home() -> Option<PathBuf> {
    let caches =
        || variable("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
    variable("HF_HOME").or_else(|| Some(caches()?.join("huggingface")))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Names in a folder; none if it does not exist.
fn names(folder: &Path) -> Result<Vec<String>, HubError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(HubError::io(folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(HubError::io(folder))?.file_name();
        names.extend(name.into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

impl RepoFolder {
    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Path of a content.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.hex())
    }

    /// Path of the lock of a content.
    pub(crate) fn lock(&self, digest: &Digest) -> PathBuf {
        self.locks.join(format!("{digest}.lock"))
    }

    /// Folder of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit of a revision, as known here.
    pub fn commit(&self, name: &ModelName) -> Option<String> {
        let revision = name.revision();
        if is_hex(revision, 40) {
            return self.snapshot(revision).is_dir().then(|| revision.into());
        }
        let path = self.folder.join("refs").join(revision);
        let short = fs::metadata(&path).is_ok_and(|file| file.len() <= REF_BYTES);
        let text = short.then(|| fs::read_to_string(path).ok()).flatten()?;
        Some(text.trim().to_string()).filter(|commit| is_hex(commit, 40))
    }

    /// Records the commit of a revision.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_hex(revision, 40) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        create_parent(&path)?;
        fs::write(&path, commit).map_err(HubError::io(&path))
    }

    /// Puts a content into a commit's folder, under its path.
    pub(crate) fn link(
        &self,
        commit: &str,
        path: &str,
        digest: &Digest,
    ) -> Result<PathBuf, HubError> {
        let at = self.snapshot(commit).join(path);
        create_parent(&at)?;
        let up = "../".repeat(path.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{digest}"));
        if fs::read_link(&at).is_ok_and(|found| found == target) && at.exists() {
            return Ok(at);
        }
        if at.symlink_metadata().is_ok() {
            fs::remove_file(&at).map_err(HubError::io(&at))?;
        }
        place(&target, &self.blob(digest), &at).map_err(HubError::io(&at))?;
        Ok(at)
    }

    fn describe(&self, repo: RepoId) -> Result<CachedModel, HubError> {
        let blobs = self.folder.join("blobs");
        let (mut bytes, mut unfinished_bytes) = (0, 0);
        for name in names(&blobs)? {
            let allocated = fs::metadata(blobs.join(&name)).map_or(0, |file| allocated(&file));
            bytes += allocated;
            if !is_hex(&name, 64) && !is_hex(&name, 40) {
                unfinished_bytes += allocated;
            }
        }
        let mut files = BTreeSet::new();
        for commit in names(&self.folder.join("snapshots"))? {
            collect(&self.snapshot(&commit), "", 0, &mut files)?;
        }
        let mut revisions = BTreeSet::new();
        collect(&self.folder.join("refs"), "", 0, &mut revisions)?;
        let revisions = revisions.into_iter().map(|(name, _)| name).collect();
        Ok(CachedModel {
            repo,
            bytes,
            unfinished_bytes,
            files: files.into_iter().collect(),
            revisions,
        })
    }

    /// Files of a commit that are here, as paths within its folder.
    pub(crate) fn files(&self, commit: &str) -> Result<Vec<(String, u64)>, HubError> {
        let mut files = BTreeSet::new();
        collect(&self.snapshot(commit), "", 0, &mut files)?;
        Ok(files.into_iter().collect())
    }

    /// Removes the model. Returns the bytes that became free.
    pub fn remove(&self) -> Result<u64, HubError> {
        let before = self.blob_bytes()?;
        remove_all(&self.folder)?;
        remove_all(&self.locks)?;
        Ok(before)
    }

    /// Removes files from all snapshots, and the contents that no other file refers to. Returns the
    /// bytes that became free.
    pub fn remove_files(&self, paths: &[String]) -> Result<u64, HubError> {
        let before = self.blob_bytes()?;
        let snapshots = names(&self.folder.join("snapshots"))?;
        for commit in &snapshots {
            for path in paths {
                let at = self.snapshot(commit).join(path);
                if at.symlink_metadata().is_ok() {
                    fs::remove_file(&at).map_err(HubError::io(&at))?;
                }
            }
        }
        let mut used = BTreeSet::new();
        for commit in &snapshots {
            for (path, _) in self.files(commit)? {
                let target = fs::read_link(self.snapshot(commit).join(path)).ok();
                let name = target.as_deref().and_then(Path::file_name).map(ToOwned::to_owned);
                used.extend(name);
            }
        }
        let blobs = self.folder.join("blobs");
        for name in names(&blobs)? {
            // Unfinished contents stay: another process may be at them.
            let whole = is_hex(&name, 64) || is_hex(&name, 40);
            if whole && !used.contains(Path::new(&name).as_os_str()) {
                let path = blobs.join(name);
                fs::remove_file(&path).map_err(HubError::io(&path))?;
            }
        }
        Ok(before.saturating_sub(self.blob_bytes()?))
    }

    fn blob_bytes(&self) -> Result<u64, HubError> {
        let blobs = self.folder.join("blobs");
        let bytes = |name| fs::metadata(blobs.join(name)).map_or(0, |file| allocated(&file));
        Ok(names(&blobs)?.into_iter().map(bytes).sum())
    }
}

/// Adds the files below a folder, as paths with slashes. Folders that are links are not entered.
fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeSet<(String, u64)>,
) -> Result<(), HubError> {
    for name in names(folder)? {
        let (at, path) = (folder.join(&name), format!("{prefix}{name}"));
        let is_folder = at.symlink_metadata().is_ok_and(|file| file.is_dir());
        match fs::metadata(&at) {
            Ok(_) if is_folder && depth < DEEPEST => {
                collect(&at, &format!("{path}/"), depth + 1, files)?;
            }
            Ok(file) if file.is_file() => {
                files.insert((path, file.len()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn remove_all(folder: &Path) -> Result<(), HubError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::io(folder)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io(parent))
}

/// Creates or opens a lock file.
pub(crate) fn open_lock(path: &Path) -> Result<File, HubError> {
    create_parent(path)?;
    let mut options = File::options();
    options.create(true).write(true).truncate(false);
    options.open(path).map_err(HubError::io(path))
}

#[cfg(unix)]
fn place(target: &Path, _blob: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

/// Where links need privileges, the hub's own tools move the content into the snapshot.
#[cfg(not(unix))]
fn place(_target: &Path, blob: &Path, at: &Path) -> io::Result<()> {
    fs::rename(blob, at)
}

/// Bytes that a file takes on disk: an unfinished one has holes.
#[cfg(unix)]
pub(crate) fn allocated(file: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    (file.blocks() * 512).min(file.len().next_multiple_of(4096))
}

#[cfg(not(unix))]
pub(crate) fn allocated(file: &fs::Metadata) -> u64 {
    file.len()
}
