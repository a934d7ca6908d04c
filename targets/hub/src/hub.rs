//! A hub and its cache: what a model's name stands for, and fetching it.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::address::{Address, escape_component, escape_path};
use crate::cache::{Cache, create_parent, home, open_lock};
use crate::download::{Download, FetchOptions, Notice, Progress, bytes_here};
use crate::error::HubError;
use crate::http::Http;
use crate::listing::{self, Listing, RemoteFile};
use crate::name::ModelName;
use crate::select::{Choice, Purpose, choose};

/// The hub where `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";
/// Longest token file.
const TOKEN_BYTES: u64 = 4096;

/// A hub, the token for it, and the cache for what it serves.
#[derive(Debug)]
pub struct Hub {
    http: Http,
    cache: Cache,
    options: FetchOptions,
    offline: bool,
}

impl Hub {
    /// The hub at `endpoint`.
    pub fn new(
        endpoint: &str,
        token: Option<String>,
        cache: Cache,
        options: FetchOptions,
    ) -> Result<Self, HubError> {
        Ok(Self { http: Http::new(endpoint, token)?, cache, options, offline: false })
    }

    /// The hub and cache that `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`,
    /// `HF_HUB_CACHE` and `HF_HUB_OFFLINE` describe.
    pub fn from_env() -> Result<Self, HubError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(token_file).map(|token| token.trim().to_string());
        let mut hub = Self::new(&endpoint, token, Cache::from_env()?, FetchOptions::default())?;
        let on = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_ascii_lowercase());
        hub.offline = variable("HF_HUB_OFFLINE").is_some_and(on);
        Ok(hub)
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Asks the hub for a model's description.
    pub fn listing(&self, name: &ModelName) -> Result<Listing, HubError> {
        if self.offline {
            return Err(HubError::Offline { name: name.to_string() });
        }
        let revision = escape_component(name.revision());
        let address =
            self.at(&format!("/api/models/{}/revision/{revision}?blobs=true", name.repo))?;
        let text = self.http.text(&address, listing::LONGEST, &self.options.retry);
        let text = text.map_err(|error| self.explain(name, error))?;
        Listing::parse(name, &address.shown(), &text)
    }

    fn at(&self, path: &str) -> Result<Address, HubError> {
        let endpoint = self.http.endpoint().to_string();
        let text = format!("{}{path}", endpoint.trim_end_matches('/'));
        Address::parse(&text).ok_or(HubError::Address { found: text })
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    pub(crate) fn options(&self) -> &FetchOptions {
        &self.options
    }

    /// Address of a file.
    pub(crate) fn address(
        &self,
        listing: &Listing,
        file: &RemoteFile,
    ) -> Result<Address, HubError> {
        let path = escape_path(&file.path);
        self.at(&format!("/{}/resolve/{}/{path}", listing.repo, listing.commit))
    }

    /// Turns a status of the hub into its reason.
    fn explain(&self, name: &ModelName, error: HubError) -> HubError {
        let HubError::Status { status, ref code, ref said, .. } = error else { return error };
        let endpoint = self.http.endpoint().shown().trim_end_matches('/').to_string();
        let model = || name.repo.to_string();
        match (status, &**code) {
            (_, "GatedRepo") => HubError::Gated { name: model(), endpoint, said: said.clone() },
            (_, "RevisionNotFound") => {
                HubError::NoRevision { name: model(), revision: name.revision().into() }
            }
            (404, "") | (_, "RepoNotFound") => HubError::NoModel { name: model(), endpoint },
            (401, _) if self.http.has_token() => HubError::Token { endpoint },
            // To strangers, the hub does not say whether a model exists.
            (401, _) => HubError::NoModel { name: model(), endpoint },
            (403, _) => HubError::Gated { name: model(), endpoint, said: said.clone() },
            _ => error,
        }
    }

    /// Bytes of a choice that are not here yet.
    pub fn missing_bytes(&self, listing: &Listing, choice: &Choice) -> u64 {
        let folder = self.cache.repo(&listing.repo);
        let missing = |file: &RemoteFile| file.bytes - bytes_here(&folder.blob(&file.digest), file);
        choice.files.iter().map(missing).fold(0, u64::saturating_add)
    }

    /// Fetches the files of a choice that are not here, and returns the path to open.
    pub fn fetch(
        &self,
        name: &ModelName,
        listing: &Listing,
        choice: &Choice,
        progress: Progress<'_>,
    ) -> Result<PathBuf, HubError> {
        self.check_space(listing, choice)?;
        let folder = self.cache.repo(&listing.repo);
        let total = choice.bytes();
        let here = |file: &RemoteFile| bytes_here(&folder.blob(&file.digest), file);
        let counts = Mutex::new(choice.files.iter().map(here).collect::<Vec<u64>>());
        for (i, file) in choice.files.iter().enumerate() {
            let set = |bytes: u64| {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                // Connections may count in one order and arrive here in another.
                counts[i] = counts[i].max(bytes);
                let done = counts.iter().sum();
                progress(Notice::Progress { done, total });
            };
            self.fetch_file(listing, file, &set, progress)
                .map_err(|error| self.explain(name, error))?;
            set(file.bytes);
            folder.link(&listing.commit, &file.path, &file.digest)?;
        }
        folder.set_commit(name.revision(), &listing.commit)?;
        let snapshot = folder.snapshot(&listing.commit);
        Ok(choice.open.as_ref().map_or(snapshot.clone(), |path| snapshot.join(path)))
    }

    fn fetch_file(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        progress: &(dyn Fn(u64) + Sync),
        notice: Progress<'_>,
    ) -> Result<(), HubError> {
        let folder = self.cache.repo(&listing.repo);
        let blob = folder.blob(&file.digest);
        let is_here = || fs::metadata(&blob).is_ok_and(|found| found.len() == file.bytes);
        if is_here() {
            return Ok(());
        }
        let (path, lock) = (folder.lock(&file.digest), open_lock(&folder.lock(&file.digest))?);
        if lock.try_lock().is_err() {
            notice(Notice::Locked(&file.path));
            lock.lock().map_err(HubError::io(path))?;
        }
        // Another process may have been faster.
        if is_here() {
            return Ok(());
        }
        create_parent(&blob)?;
        let (http, options) = (&self.http, &self.options);
        let address = self.address(listing, file)?;
        Download { http, options, address, file, progress, notice }.run(&blob)
    }

    /// Checks that the missing files fit on the disk, before any of them is fetched.
    fn check_space(&self, listing: &Listing, choice: &Choice) -> Result<(), HubError> {
        let needed = self.missing_bytes(listing, choice);
        let folder = self.cache.repo(&listing.repo).path().to_path_buf();
        fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        match free_bytes(&folder) {
            Some(free) if free < needed => Err(HubError::NoSpace { folder, free, needed }),
            _ => Ok(()),
        }
    }

    /// The path of a model that is in the cache as a whole, without asking the hub: what an earlier
    /// fetch of the same name and purpose left there.
    pub fn cached(&self, name: &ModelName, purpose: Purpose) -> Option<PathBuf> {
        let folder = self.cache.repo(&name.repo);
        let commit = folder.commit(name)?;
        let listing = Listing::of_files(&name.repo, &commit, folder.files(&commit).ok()?);
        let choice = choose(&listing, name, purpose).ok()?;
        let snapshot = folder.snapshot(&commit);
        match choice.open {
            Some(path) => Some(snapshot.join(path)),
            None => whole_checkpoint(&snapshot, &listing).then_some(snapshot),
        }
    }
}

/// Whether the index of a checkpoint, where it has one, names only files that are here.
fn whole_checkpoint(snapshot: &std::path::Path, listing: &Listing) -> bool {
    let Ok(text) = fs::read(snapshot.join("model.safetensors.index.json")) else {
        return listing.file("model.safetensors").is_some();
    };
    let index: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
    let map = index.as_ref().and_then(|index| index["weight_map"].as_object());
    map.is_some_and(|map| {
        map.values().all(|path| path.as_str().is_some_and(|path| listing.file(path).is_some()))
    })
}

/// The token that the hub's own tools store at a login.
fn token_file() -> Option<String> {
    let path = std::env::var_os("HF_TOKEN_PATH").map(PathBuf::from);
    let path = path.or_else(|| Some(home()?.join("token")))?;
    let short = fs::metadata(&path).is_ok_and(|file| file.len() <= TOKEN_BYTES);
    let text = short.then(|| fs::read_to_string(path).ok()).flatten()?;
    Some(text).filter(|text| !text.trim().is_empty())
}

#[cfg(unix)]
fn free_bytes(folder: &std::path::Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_folder: &std::path::Path) -> Option<u64> {
    None
}
