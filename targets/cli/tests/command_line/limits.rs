//! Numbers that no machine has a use for, and a control group with little memory.

use crate::cgroup::Cgroup;
use crate::program::{failure, json, output, quantize, reference, success, vaquita};

#[test]
fn absurd_numbers_are_refused_with_a_sentence() {
    let refused = |options: &[&str]| {
        let mut command = vaquita(["run", "-p", "2+2?", "-n", "1"]);
        failure(command.args(options).arg(reference()), 2)
    };
    let error = refused(&["--threads", "100000"]);
    assert!(error.contains("100000 threads are not possible; this machine takes up to"), "{error}");
    assert!(refused(&["--lanes", "1000"]).contains("allowed: 1 to 64"));
    assert!(refused(&["--context", "1000000000"]).contains("this model takes up to"));
    let mut plan = vaquita(["plan", "--steps", "1000000000"]);
    assert!(failure(plan.arg(reference()), 2).contains("allowed: 1 to 1000"));
}

#[test]
fn a_small_control_group_is_not_exceeded() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    success(&mut quantize(&reference(), &file));
    for limit in [20 * MIB, 34 * MIB, 48 * MIB, 64 * MIB] {
        let group = Cgroup::new(&format!("limit-{limit}"));
        let Some(group) = group.and_then(|group| group.limited(limit)) else { return };
        if limit == 64 * MIB {
            let found = json(&mut group.within(&vaquita(["doctor", "--no-storage", "--json"])));
            assert_eq!(found["memory_limit_bytes"], limit);
        }
        let mut run = vaquita(["run", "-p", "2+2?", "-n", "8", "--memory", "auto", "--json"]);
        run.args(["--context", "128", "--cache", "q8"]).arg(&file);
        let found = output(&mut group.within(&run));
        let error = String::from_utf8_lossy(&found.stderr).into_owned();
        // It runs, or says that this is too little; it is not killed.
        match found.status.code() {
            Some(0) => {}
            Some(1) => assert!(error.contains("are too few"), "{limit}: {error}"),
            other => panic!("{limit}: {other:?}: {error}"),
        }
    }
}
