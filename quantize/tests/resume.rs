//! Work that was cut off goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vaquita_quantize::export::{Export, export};
use vaquita_quantize::sources::{self, Source};
use vaquita_quantize::{
    Job, Plan, Progress, QuantizeError, Report, Stop, journal, quantize, quantize_until,
};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::gguf::Metadata;

fn source() -> Source {
    sources::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference")).unwrap()
}

fn write(
    source: &Source,
    ty: BlockType,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, QuantizeError> {
    let Source { weights, identity, .. } = source;
    let (tokenizer, plan) = (Metadata::new(), Plan::uniform(weights.config(), ty));
    let (weights, importance) = (weights.as_ref(), None);
    let job = Job { weights, identity, tokenizer: &tokenizer, importance, plan: &plan, out };
    quantize(&job, progress)
}

/// Stops as a kill would, without a word, once so many weights are written.
fn cut_off(source: &Source, ty: BlockType, out: &Path, weights: u64) {
    let run = || {
        write(source, ty, out, &mut |progress| {
            if progress.done > weights {
                std::panic::resume_unwind(Box::new(()));
            }
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_file_that_was_cut_off_again_and_again_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let whole = folder.path().join("whole.gguf");
    let report = write(&source, BlockType::E2, &whole, &mut |_| {}).unwrap();
    let total = report.parameters;
    let out = folder.path().join("model.gguf");
    for part in [1, 2, 5, 6, 8, 9] {
        cut_off(&source, BlockType::E2, &out, total / 10 * part);
        assert!(!out.exists());
    }
    let resumed = write(&source, BlockType::E2, &out, &mut |_| {}).unwrap();
    assert!(resumed.resumed_parameters > total / 2, "{resumed:?}");
    assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap());
    assert_eq!(resumed.layers, report.layers);
    assert_eq!(files(folder.path()).len(), 2, "nothing else is left");
}

#[test]
fn work_that_is_asked_to_stop_ends_after_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let [whole, out] = ["whole.gguf", "model.gguf"].map(|name| folder.path().join(name));
    write(&source, BlockType::E2, &whole, &mut |_| {}).unwrap();
    let Source { weights, identity, .. } = &source;
    let (tokenizer, plan) = (Metadata::new(), Plan::uniform(weights.config(), BlockType::E2));
    let (weights, out) = (weights.as_ref(), &*out);
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    let mut turns = Vec::new();
    loop {
        let (stop, mut first) = (Stop::default(), None);
        let made = quantize_until(&job, None, &stop, &mut |progress| {
            if progress.done > *first.get_or_insert(progress.done) {
                stop.request();
            }
        });
        match made {
            Ok(_) => break,
            Err(QuantizeError::Stopped { out: found }) => assert_eq!(found, out),
            Err(error) => panic!("{error}"),
        }
        turns.push(journal::progress(out).unwrap());
    }
    assert!(turns.len() >= 4 && turns.is_sorted_by(|a, b| a.0 < b.0), "{turns:?}");
    assert!(turns.iter().all(|(done, total)| done <= total));
    assert!(fs::read(&whole).unwrap() == fs::read(out).unwrap());
    assert_eq!(files(folder.path()).len(), 2, "nothing else is left");
}

#[test]
fn other_options_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let [whole, out] = ["whole.gguf", "model.gguf"].map(|name| folder.path().join(name));
    write(&source, BlockType::E3, &whole, &mut |_| {}).unwrap();
    cut_off(&source, BlockType::E2, &out, 12_000_000);
    let report = write(&source, BlockType::E3, &out, &mut |_| {}).unwrap();
    assert_eq!(report.resumed_parameters, 0);
    assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap());
}

#[test]
fn a_partial_file_that_lost_its_end_begins_anew_and_damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let source = source();
    let out = folder.path().join("model.gguf");
    cut_off(&source, BlockType::E2, &out, 12_000_000);
    let partial = folder.path().join(".model.gguf.partial");
    let bytes = fs::read(&partial).unwrap();
    fs::write(&partial, &bytes[..1_000_000]).unwrap();
    let report = write(&source, BlockType::E2, &out, &mut |_| {}).unwrap();
    assert_eq!(report.resumed_parameters, 0);

    cut_off(&source, BlockType::E2, &out, 12_000_000);
    let mut bytes = fs::read(&partial).unwrap();
    bytes[1_000_000] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    let error = write(&source, BlockType::E2, &out, &mut |_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::Verify { .. }), "{error}");
    assert_eq!(files(folder.path()), [out], "the damaged file is gone, the older one is not");
}

/// A small file system, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        disk.run(&format!("size={size}")).then_some(disk)
    }

    fn run(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(self.0.path());
        mount.output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount("256k") else {
        vaquita_skips::skipped("this user may not mount a small file system (root may)");
        return;
    };
    let source = source();
    let out = disk.0.path().join("model.gguf");
    let error = write(&source, BlockType::E8, &out, &mut |_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::NoRoom { .. }), "{error}");
    assert!(
        error.to_string().contains("is full") && error.to_string().contains("starts over"),
        "{error}"
    );
    assert!(files(disk.0.path()).is_empty(), "nothing was whole");

    assert!(disk.run("remount,size=10m"));
    write(&source, BlockType::E8, &out, &mut |_| {}).unwrap_err();
    assert!(!out.exists());
    assert!(disk.run("remount,size=40m"));
    let report = write(&source, BlockType::E8, &out, &mut |_| {}).unwrap();
    assert!(report.resumed_parameters > 0, "{report:?}");
    let whole = tempfile::tempdir().unwrap();
    let whole = whole.path().join("whole.gguf");
    write(&source, BlockType::E8, &whole, &mut |_| {}).unwrap();
    assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap());
}

#[test]
fn an_export_on_a_full_disk_leaves_nothing_and_says_that_it_starts_over() {
    let Some(disk) = SmallDisk::mount("256k") else {
        vaquita_skips::skipped("this user may not mount a small file system (root may)");
        return;
    };
    let Source { weights, identity, .. } = &source();
    let (tokenizer, out) = (Metadata::new(), disk.0.path().join("model.gguf"));
    let (weights, ty) = (weights.as_ref(), BlockType::Q8_0);
    let job = Export { weights, identity, tokenizer: &tokenizer, ty, out: &out };
    let error = export(&job, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("is full") && error.contains("starts over"), "{error}");
    assert!(files(disk.0.path()).is_empty());
}
