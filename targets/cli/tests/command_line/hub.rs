//! `vaquita pull`, `vaquita models` and `hf:` names, on a hub on loopback.

use std::fs;
use std::path::Path;
use std::process::Command;

use vaquita_test_hub::{Hub, file, small};

use crate::program::{failure, golden, json, output, reference, success, vaquita};

/// The program with the cache in `folder` and the hub's address.
fn hub_command(hub: &Hub, folder: &Path, args: &[&str]) -> Command {
    let mut command = vaquita(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HF_")) {
        command.env_remove(name);
    }
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", folder);
    command
}

/// The hub with the files of a folder, or nothing where curl is missing.
fn publish(model: &str, folder: &Path) -> Option<Hub> {
    if Command::new("curl").arg("--version").output().is_err() {
        vaquita_skips::skipped("curl is missing (Debian: curl)");
        return None;
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut file = small(name, fs::read(&path).unwrap());
        file.large = name.ends_with(".safetensors") || name.ends_with(".gguf");
        files.push(file);
    }
    Some(Hub::new(model, files))
}

#[test]
fn a_checkpoint_of_the_hub_is_pulled_quantized_and_removed() {
    let Some(hub) = publish("org/Reference", &reference()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| hub_command(&hub, folder.path(), args);
    let out = folder.path().join("reference-e4.gguf");
    let quantize = ["quantize", "hf:org/Reference", "-o", out.to_str().unwrap()];
    let refused = failure(&mut run(&quantize), 1);
    assert!(refused.contains("--yes fetches") && refused.contains("licence mit"), "{refused}");
    assert_eq!(hub.counts().served(), 0);

    let pulled = json(&mut run(&["pull", "org/Reference", "--json"]));
    let bytes = pulled["bytes"].as_u64().unwrap();
    assert_eq!((pulled["fetched_bytes"].as_u64(), hub.counts().served()), (Some(bytes), bytes));
    let again = json(&mut run(&["pull", "hf:org/Reference", "--json"]));
    assert_eq!((&again["path"], &again["fetched_bytes"]), (&pulled["path"], &0.into()));

    // Everything is here, so the hub is not asked.
    let asked = hub.counts().hub;
    success(&mut run(&quantize));
    assert_eq!((hub.counts().hub, hub.counts().served()), (asked, bytes));
    let made = json(vaquita(["inspect", "--json"]).arg(&out));
    assert_eq!(made["made"]["vaquita.source.name"], "Reference");

    let listed = json(&mut run(&["models", "--json"]));
    assert_eq!(listed["models"][0]["model"], "org/Reference");
    assert!(success(&mut run(&["models"])).contains("model.safetensors"));
    assert!(failure(&mut run(&["models", "remove", "org/Other"]), 1).contains("is not in"));
    let freed = json(&mut run(&["models", "--json", "remove", "org/Reference"]));
    assert!(freed["freed_bytes"].as_u64().unwrap() >= bytes);
    assert!(success(&mut run(&["models"])).contains("no models in"));
}

#[test]
fn names_of_the_hub_that_are_no_use_say_what_is() {
    let Some(hub) = publish("org/Model", &golden("gguf")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| hub_command(&hub, folder.path(), args);
    for (args, expected) in [
        (&["run", "hf:org/Other", "-p", "x"][..], "no such model"),
        (&["run", "hf:org/Model:Q3_K", "-p", "x"], "it has: "),
        (&["run", "org/Model", "-p", "x"], "hf:org/Model"),
        (&["run", "hf:org/../x", "-p", "x"], "is not a model of the hub"),
        (&["eval", "perplexity", "hf:org/Model", "--text", "x"], "vaquita pull hf:org/Model"),
    ] {
        let error = output(&mut run(args));
        let error = String::from_utf8_lossy(&error.stderr).into_owned();
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    assert!(failure(&mut run(&["pull", "nonsense"]), 2).contains("ORG/MODEL"));
    let mut offline = run(&["pull", "org/Model"]);
    assert!(failure(offline.env("HF_HUB_OFFLINE", "1"), 1).contains("HF_HUB_OFFLINE"));
}

#[test]
fn the_hubs_own_tools_find_what_was_pulled() {
    let python = |script: &str, folder: &Path| {
        let mut command = Command::new("python3");
        command.args(["-c", script]).env("HF_HOME", folder).env("HF_HUB_OFFLINE", "1").output()
    };
    let folder = tempfile::tempdir().unwrap();
    if !python("import huggingface_hub", folder.path()).is_ok_and(|ran| ran.status.success()) {
        vaquita_skips::skipped("python3 has no huggingface_hub (pip install huggingface_hub)");
        return;
    }
    let published = tempfile::tempdir().unwrap();
    fs::write(published.path().join("x-Q4_0.gguf"), &*file("", 100_000, 1).bytes).unwrap();
    let Some(hub) = publish("org/Model", published.path()) else { return };
    let path = success(&mut hub_command(&hub, folder.path(), &["pull", "org/Model:Q4_0"]));
    let script = "from huggingface_hub import hf_hub_download, scan_cache_dir\n\
        print(hf_hub_download('org/Model', 'x-Q4_0.gguf'))\n\
        repo, = scan_cache_dir().repos\n\
        print(repo.repo_id, repo.size_on_disk, sorted(repo.refs))";
    let found = python(script, folder.path()).unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(text, format!("{path}org/Model 100000 ['main']\n"), "{:?}", found.stderr);
}

#[test]
fn published_files_are_described_and_planned_for_from_their_headers() {
    let folder = tempfile::tempdir().unwrap();
    let published = tempfile::tempdir().unwrap();
    let local = published.path().join("Reference-e4.gguf");
    success(vaquita(["quantize", "-o"]).arg(&local).arg(reference()));
    // The same file with more bytes behind it, as a larger quantization of the same model.
    let mut larger = fs::read(&local).unwrap();
    larger.resize(larger.len() * 2, 0);
    fs::write(published.path().join("Reference-e8.gguf"), larger).unwrap();
    let bytes = fs::metadata(&local).unwrap().len();
    let Some(hub) = publish("org/Reference", published.path()) else { return };
    let run = |args: &[&str]| json(&mut hub_command(&hub, folder.path(), args));

    let found = run(&["inspect", "hf:org/Reference:e4", "--json"]);
    assert_eq!(found, json(vaquita(["inspect", "--json"]).arg(&local)));
    assert!(hub.counts().served() <= bytes / 4, "{:?}", hub.counts());

    let plan = run(&["plan", "hf:org/Reference", "--json"]);
    assert_eq!((&plan["license"], &plan["family"]), (&"mit".into(), &found["family"]));
    let files = plan["files"].as_array().unwrap();
    let sizes: Vec<u64> = files.iter().map(|file| file["bytes"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [bytes, 2 * bytes]);
    assert!(files.iter().all(|file| file["how"] == "mapped"), "{plan}");
    // The largest fits, so its header was read, too: it says that its weights are no larger.
    assert_eq!((&plan["take"], &files[1]["estimated"]), (&"e8".into(), &false.into()));
    assert_eq!(files[0]["tokens_per_second"], files[1]["tokens_per_second"]);
    assert!(hub.counts().served() <= bytes, "{:?}", hub.counts());
    let text = success(&mut hub_command(&hub, folder.path(), &["plan", "hf:org/Reference"]));
    assert!(text.contains("vaquita run hf:org/Reference:e8"), "{text}");
    assert!(!folder.path().join("hub").exists(), "headers are not models: they are not kept");
}

#[test]
fn a_published_checkpoint_is_planned_for_as_what_quantize_makes_of_it() {
    let Some(hub) = publish("org/Reference", &reference()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| json(&mut hub_command(&hub, folder.path(), args));
    let plan = run(&["plan", "hf:org/Reference", "--json"]);
    let files = plan["files"].as_array().unwrap();
    let labels: Vec<&str> = files.iter().map(|file| file["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["--type e2", "--type e3", "--type e4", "--type e8"]);
    let out = folder.path().join("e4.gguf");
    success(vaquita(["quantize", "-o"]).arg(&out).arg(reference()));
    let (planned, made) = (files[2]["bytes"].as_u64().unwrap(), fs::metadata(out).unwrap().len());
    // The plan has no tokenizer in it.
    assert!(planned <= made && planned > made / 10 * 9, "{planned} of {made}");
    let bytes = plan["checkpoint_bytes"].as_u64().unwrap();
    assert!(hub.counts().served() < bytes / 4, "{:?}", hub.counts());

    let found = run(&["inspect", "hf:org/Reference", "--json"]);
    let local = json(vaquita(["inspect", "--json"]).arg(reference()));
    for key in ["family", "parameters", "shape", "tensors", "runs"] {
        assert_eq!(found[key], local[key], "{key}");
    }
    let refused = ["plan", "hf:org/Reference", "--map", "x.svg", "--target-bpw", "3"];
    assert!(failure(&mut hub_command(&hub, folder.path(), &refused), 2).contains("vaquita pull"));
}
