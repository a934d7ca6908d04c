//! The Java classes are compiled and run on the desktop's virtual machine against the real library.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with the library that cargo built for this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let mut folders = [deps, deps.parent().unwrap()].into_iter();
    let found = folders.find(|folder| folder.join("libvaquita_jni.so").exists());
    found.expect("cargo builds the cdylib with its tests").to_path_buf()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension() == Some(OsStr::new("java"))).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (text, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}{error}", output.status);
    text.into_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn an_app_in_java_streams_cancels_and_closes_while_it_generates() {
    if Command::new("javac").arg("-version").output().is_err() {
        vaquita_skips::skipped("there is no javac (Debian: default-jdk-headless)");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let (classes, model) = (folder.path().join("classes"), folder.path().join("model.gguf"));
    run(Command::new("javac")
        .args(["-Xlint:all", "-Werror", "--release", "17", "-d"])
        .arg(&classes)
        .args(sources(&root.join("library/src/main/java/dev/vaquita")))
        .args(sources(&root.join("tests/java/dev/vaquita"))));
    vaquita_tests::reference_file(&model);
    let text = run(Command::new("java")
        .args(["-ea", "-Xcheck:jni", "-cp"])
        .arg(&classes)
        .arg(format!("-Djava.library.path={}", library().display()))
        .arg("dev.vaquita.Check")
        .arg(&model)
        .arg(folder.path()));
    assert!(text.ends_with("all checks passed\n"), "{text}");
    assert!(!text.contains("native method"), "the virtual machine's checks complain:\n{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn segments_are_aligned_to_pages_of_16_kib() {
    let alignments = vaquita_tests::segment_alignments(&library().join("libvaquita_jni.so"));
    assert!(!alignments.is_empty());
    assert!(alignments.iter().all(|alignment| *alignment == 16384), "{alignments:?}");
}
