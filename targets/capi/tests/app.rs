//! A C program is compiled against the header, linked to the library, and run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that cargo built for this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let found = [deps, deps.parent().unwrap()].map(|folder| folder.join("libvaquita.so"));
    found.into_iter().find(|path| path.exists()).expect("cargo builds the cdylib with its tests")
}

#[test]
#[cfg(target_os = "linux")]
fn an_app_in_c_gets_what_the_header_promises() {
    if Command::new("gcc").arg("--version").output().is_err() {
        vaquita_skips::skipped("there is no gcc (Debian: gcc)");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let (program, model) = (folder.path().join("app"), folder.path().join("model.gguf"));
    let library = library();
    let compiled = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-O1", "-I"])
        .arg(root.join("include"))
        .arg(root.join("tests/app.c"))
        .arg("-o")
        .arg(&program)
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()))
        .args(["-lpthread", "-lm"])
        .status()
        .unwrap();
    assert!(compiled.success());
    vaquita_tests::reference_file(&model);
    // cargo's own path may lead to a library that it built before this one.
    let output = Command::new(&program)
        .env("LD_LIBRARY_PATH", library.parent().unwrap())
        .args([model.as_os_str(), folder.path().as_os_str()])
        .args(["1000", "2"])
        .output()
        .unwrap();
    let (text, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}{error}", output.status);
    assert!(text.ends_with("all checks passed\n"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn segments_are_aligned_to_pages_of_16_kib() {
    let alignments = vaquita_tests::segment_alignments(&library());
    assert!(!alignments.is_empty());
    assert!(alignments.iter().all(|alignment| *alignment == 16384), "{alignments:?}");
}
