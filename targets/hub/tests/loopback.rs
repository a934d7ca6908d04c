//! Fetching from a hub on loopback, with everything that goes wrong on the way: what arrives is what
//! was published, what fails says why, and nothing is fetched twice.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use vaquita_hub::{Cache, FetchOptions, HubError, ModelName, Notice, Purpose, Retry, choose};
use vaquita_test_hub::{COMMIT, File, Hub, checksum, file, sibling, small};

const MODEL: &str = "org/Model";
const MIB: usize = 1 << 20;
/// Written to a connection, and not read from it yet when it ends.
const IN_FLIGHT: u64 = 1 << 18;

fn options() -> FetchOptions {
    FetchOptions {
        connections: 3,
        range_bytes: 256 << 10,
        record_bytes: 64 << 10,
        retry: Retry { attempts: 4, pause: Duration::from_millis(1) },
    }
}

/// Whether the machine has curl; says so where it does not.
fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        vaquita_skips::skipped("curl is missing (Debian: curl)");
    }
    found
}

fn client(hub: &Hub, cache: &Path) -> vaquita_hub::Hub {
    let token = Some("secret-token".into());
    vaquita_hub::Hub::new(&hub.endpoint, token, Cache::new(cache), options()).unwrap()
}

fn fetch_with(
    client: &vaquita_hub::Hub,
    name: &str,
    progress: &(dyn Fn(Notice<'_>) + Sync),
) -> Result<PathBuf, HubError> {
    let name = ModelName::parse(name).unwrap();
    let listing = client.listing(&name)?;
    let choice = choose(&listing, &name, Purpose::Run)?;
    client.fetch(&name, &listing, &choice, progress)
}

fn fetch(hub: &Hub, cache: &Path, name: &str) -> Result<PathBuf, HubError> {
    fetch_with(&client(hub, cache), name, &|_| {})
}

/// Entries of a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn one_file() -> File {
    file("model-Q4_0.gguf", 3 * MIB + 12345, 7)
}

/// A model of one file, a folder for the cache, and whether the test can run.
fn setup() -> Option<(Hub, tempfile::TempDir, File)> {
    let file = one_file();
    let hub = Hub::new(MODEL, vec![file.clone()]);
    has_curl().then(|| (hub, tempfile::tempdir().unwrap(), file))
}

fn assert_arrived(at: &Path, file: &File) {
    assert!(fs::read(at).unwrap() == *file.bytes, "{} differs", file.path);
}

fn model_folder(cache: &Path) -> PathBuf {
    cache.join("models--org--Model")
}

#[test]
fn a_model_arrives_in_the_layout_of_the_hubs_own_tools_and_is_fetched_once() {
    if !has_curl() {
        return;
    }
    let files = vec![
        small("README.md", "# A model"),
        file("Q8 0/Model-Q8_0-00001-of-00002.gguf", 2 * MIB + 1, 1),
        file("Q8 0/Model-Q8_0-00002-of-00002.gguf", MIB, 2),
        file("Model-Q2_K.gguf", 77, 3),
    ];
    let hub = Hub::new(MODEL, files.clone());
    let folder = tempfile::tempdir().unwrap();
    let last = Mutex::new((0, 0));
    let client = client(&hub, folder.path());
    let progress = |notice: Notice<'_>| {
        if let Notice::Progress { done, total } = notice {
            let mut last = last.lock().unwrap();
            assert!(done >= last.0 && done <= total);
            *last = (done, total);
        }
    };
    let opened = fetch_with(&client, "org/Model:Q8_0", &progress).unwrap();
    let total = (3 * MIB + 1) as u64;
    assert_eq!(*last.lock().unwrap(), (total, total));

    let model = model_folder(folder.path());
    let snapshot = model.join("snapshots").join(COMMIT);
    assert_eq!(opened, snapshot.join("Q8 0/Model-Q8_0-00001-of-00002.gguf"));
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    for file in &files[1..3] {
        assert_arrived(&snapshot.join(&file.path), file);
        let target = PathBuf::from(format!("../../../blobs/{}", checksum(file)));
        assert_eq!(fs::read_link(snapshot.join(&file.path)).unwrap(), target);
    }
    let mut blobs: Vec<String> = files[1..3].iter().map(checksum).collect();
    blobs.sort();
    assert_eq!(names(&model.join("blobs")), blobs);

    let counts = hub.counts();
    assert_eq!(counts.served(), total);
    assert!(counts.hub_tokens == counts.hub && counts.storage > 0 && counts.storage_tokens == 0);
    assert!(counts.hub < counts.storage, "the redirect is asked for too often: {counts:?}");

    // Another name for the same commit, another file, and the same again.
    assert_arrived(&fetch(&hub, folder.path(), "org/Model@v1:Q2_K").unwrap(), &files[3]);
    fetch(&hub, folder.path(), &format!("org/Model@{COMMIT}:Q8_0")).unwrap();
    fetch(&hub, folder.path(), "org/Model:README.md").unwrap();
    assert_eq!(names(&model.join("refs")), ["main", "v1"]);
    let all: usize = files.iter().map(|file| file.bytes.len()).sum();
    assert_eq!(hub.counts().served(), all as u64);

    let cached = |name: &str| client.cached(&ModelName::parse(name).unwrap(), Purpose::Run);
    assert_eq!(cached("org/Model:q8_0"), Some(opened));
    assert_eq!((cached("org/Model:Q3_K"), cached("org/Other")), (None, None));
    let models = client.cache().models().unwrap();
    assert_eq!((models.len(), models[0].files.len()), (1, 4));
    let removed = vec!["Model-Q2_K.gguf".to_string()];
    client.cache().repo(&models[0].repo).remove_files(&removed).unwrap();
    assert_eq!(names(&model.join("blobs")).len(), 3);
    client.cache().repo(&models[0].repo).remove().unwrap();
    assert!(client.cache().models().unwrap().is_empty());
}

#[test]
fn connections_that_break_resume_where_they_broke() {
    let Some((hub, folder, file)) = setup() else { return };
    hub.faults().cut_after = Some(100_000);
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);
    assert_eq!(hub.counts().served(), file.bytes.len() as u64);
}

#[test]
fn a_download_ends_when_the_caller_panics_and_resumes_later() {
    let Some((hub, folder, file)) = setup() else { return };
    let client = client(&hub, folder.path());
    for panics_at in [1, MIB as u64] {
        let progress = |notice: Notice<'_>| {
            let Notice::Progress { done, .. } = notice else { return };
            assert!(done < panics_at, "as the caller may");
        };
        let fetched = || fetch_with(&client, MODEL, &progress);
        assert!(std::panic::catch_unwind(AssertUnwindSafe(fetched)).is_err());
    }
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);
    let lost = 2 * 3 * (options().range_bytes + IN_FLIGHT);
    assert!(hub.counts().served() <= file.bytes.len() as u64 + lost, "{:?}", hub.counts());
}

#[test]
fn a_busy_hub_is_asked_again_when_it_says_and_not_for_ever() {
    let Some((hub, folder, file)) = setup() else { return };
    *hub.faults() =
        vaquita_test_hub::Faults { busy: 2, retry_after: Some("1".into()), ..Default::default() };
    let start = Instant::now();
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(hub.counts().served(), file.bytes.len() as u64);

    let folder = tempfile::tempdir().unwrap();
    hub.faults().busy = 100;
    hub.faults().retry_after = Some("3600".into());
    let error = fetch(&hub, folder.path(), MODEL).unwrap_err().to_string();
    assert!(error.contains("429") && error.contains("3600 seconds"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn damaged_files_are_deleted_and_named() {
    let Some((hub, folder, file)) = setup() else { return };
    hub.faults().damaged = true;
    let error = fetch(&hub, folder.path(), MODEL).unwrap_err();
    assert!(matches!(error, HubError::Checksum { .. }), "{error}");
    assert!(names(&model_folder(folder.path()).join("blobs")).is_empty());
    assert!(!model_folder(folder.path()).join("snapshots").exists());
    hub.faults().damaged = false;
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);

    let folder = tempfile::tempdir().unwrap();
    hub.faults().longer = true;
    let error = fetch(&hub, folder.path(), MODEL).unwrap_err().to_string();
    assert!(error.contains(&format!("/{}", file.bytes.len() + 1)), "{error}");
}

#[test]
fn a_hub_without_ranges_serves_the_whole_once() {
    let Some((hub, folder, file)) = setup() else { return };
    hub.faults().no_ranges = true;
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);
    // The first answer, which is not the range that was asked for, is ended at once.
    assert_eq!(hub.counts().storage, 2);
}

#[test]
fn addresses_of_the_storage_that_expire_are_asked_for_again() {
    let Some((hub, folder, file)) = setup() else { return };
    hub.faults().expires_after = Some(5);
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);
    assert_eq!(hub.counts().served(), file.bytes.len() as u64);
}

#[test]
fn redirects_are_followed_within_reason() {
    let Some((hub, folder, _)) = setup() else { return };
    for (to, reason) in [
        (format!("/{MODEL}/resolve/{COMMIT}/model-Q4_0.gguf"), "too many"),
        ("file:///etc/passwd".into(), "not an address of the web"),
        ("http://127.0.0.1:1/x?secret".into(), "127.0.0.1:1"),
    ] {
        hub.faults().redirect = Some(to);
        let error = fetch(&hub, folder.path(), MODEL).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let Some((hub, folder, _)) = setup() else { return };
    let refused = |name: &str| fetch(&hub, folder.path(), name).unwrap_err().to_string();
    assert!(refused("org/Other").contains("token"));
    assert!(refused("org/Model@v7").contains("no revision \"v7\""));
    assert!(refused("org/Model:Q2_K").contains("it has: Q4_0"));
    hub.faults().token = Some(("other".into(), 403, "GatedRepo".into()));
    let error = refused(MODEL);
    assert!(
        error.contains("accept its terms at http://127") && error.contains("HF_TOKEN"),
        "{error}"
    );
    hub.faults().token = Some(("other".into(), 401, String::new()));
    assert!(refused(MODEL).contains("does not accept the token"));
    assert!(names(folder.path()).is_empty(), "a refusal leaves nothing behind");
}

#[test]
fn file_names_that_leave_the_folder_are_refused() {
    if !has_curl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    for path in ["../../../escaped.gguf", "/tmp/escaped.gguf", "a/../../escaped.gguf"] {
        let mut evil = one_file();
        evil.path = path.into();
        let description = serde_json::json!({"sha": COMMIT, "siblings": [sibling(&evil)]});
        let hub = Hub::with_description(MODEL, vec![evil], description);
        let error = fetch(&hub, &cache, MODEL).unwrap_err().to_string();
        assert!(
            error.contains("escaped.gguf, which is refused") || error.contains("refused"),
            "{error}"
        );
        assert_eq!(hub.counts().served(), 0);
        assert!(!cache.exists());
    }
}

#[test]
fn two_processes_fetch_a_file_once() {
    let Some((hub, folder, file)) = setup() else { return };
    let lock = folder.path().join(".locks/models--org--Model").join(checksum(&file) + ".lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    // As the hub's own tools hold it.
    let held = fs::File::create(lock).unwrap();
    held.lock().unwrap();
    let held = Mutex::new(Some(held));
    let waited = |notice: Notice<'_>| {
        if let Notice::Locked(path) = notice {
            assert_eq!((path, hub.counts().served()), (&*file.path, 0));
            held.lock().unwrap().take();
        }
    };
    assert_arrived(&fetch_with(&client(&hub, folder.path()), MODEL, &waited).unwrap(), &file);
    assert!(held.lock().unwrap().is_none(), "the lock was not waited for");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_before_and_during_a_download() {
    let Some((hub, folder, file)) = setup() else { return };
    let mount = |size: &str| {
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path());
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    if !mount("2m") {
        vaquita_skips::skipped("this user may not mount a small file system (root may)");
        return;
    }
    let small_disk = Unmount(folder.path().into());
    let error = fetch(&hub, folder.path(), MODEL).unwrap_err();
    assert!(matches!(error, HubError::NoSpace { .. }), "{error}");
    assert_eq!(hub.counts().served(), 0);
    drop(small_disk);

    assert!(mount("4m"));
    let _large_disk = Unmount(folder.path().into());
    let filler = folder.path().join("filler");
    let fill = |notice: Notice<'_>| {
        if let Notice::Progress { done: 1.., .. } = notice {
            // Takes what is left, as another program may.
            let _ = fs::write(&filler, vec![1; 4 * MIB]);
        }
    };
    let error = fetch_with(&client(&hub, folder.path()), MODEL, &fill).unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
    fs::remove_file(&filler).unwrap();
    assert_arrived(&fetch(&hub, folder.path(), MODEL).unwrap(), &file);
    // Ranges that were on their way when the disk was full are fetched again.
    let most = file.bytes.len() as u64 + 3 * ((256 << 10) + IN_FLIGHT);
    assert!(hub.counts().served() <= most, "{:?}", hub.counts());
}

/// The process that the next test kills.
#[test]
#[ignore = "started by another test"]
fn child() {
    let variable = |name| std::env::var(name).unwrap();
    let (endpoint, cache) = (variable("TEST_ENDPOINT"), variable("TEST_CACHE"));
    let client = vaquita_hub::Hub::new(&endpoint, None, Cache::new(cache), options()).unwrap();
    fetch_with(&client, MODEL, &|_| {}).unwrap();
}

#[test]
fn kills_at_random_moments_lose_what_was_on_its_way_and_no_more() {
    let Some((hub, folder, file)) = setup() else { return };
    hub.faults().slow = Duration::from_millis(12);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "child"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.env("TEST_ENDPOINT", &hub.endpoint).env("TEST_CACHE", folder.path());
    let (mut kills, mut random) = (0, 40);
    loop {
        let mut child = command.spawn().unwrap();
        // Longer and longer, so that slow machines make progress and fast ones are killed.
        random = (random * 37 + 11) % 1009;
        std::thread::sleep(Duration::from_millis(20 + random % (20 + 10 * kills)));
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => child.kill().unwrap(),
        }
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 100, "no progress: {:?}", hub.counts());
    }
    hub.faults().slow = Duration::ZERO;
    let blob = model_folder(folder.path()).join("blobs").join(checksum(&file));
    assert_arrived(&blob, &file);
    assert!(kills > 1, "it was too fast to be killed");
    // Per connection: what was not recorded, and what was on its way.
    let lost = kills * 3 * ((64 << 10) + IN_FLIGHT);
    let served = hub.counts().served();
    assert!(served <= file.bytes.len() as u64 + lost, "{kills} kills, {served} bytes");
    assert_eq!(names(&model_folder(folder.path()).join("blobs")).len(), 1);
}
