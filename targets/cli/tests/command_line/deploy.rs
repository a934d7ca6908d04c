//! `vaquita deploy`, with a script in place of ssh.

use std::fs;

use crate::program::{failure, quantize, reference, success, vaquita};

#[test]
#[cfg(target_os = "linux")]
fn a_deployment_brings_program_and_model_and_runs_the_doctor_there() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    success(&mut quantize(&reference(), &file));
    // Stands in for ssh: `ssh -- HOST SCRIPT` in a folder that stands in for the user's own. The real one is tested
    // in targets/deploy.
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let ssh = folder.path().join("ssh");
    let script = format!("#!/bin/sh\ncd {} && exec sh -c \"$3\"\n", home.display());
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let deploy = |host: &str, more: &[&str]| {
        let mut command = vaquita(["deploy", "--binary", env!("CARGO_BIN_EXE_vaquita"), "--ssh"]);
        command.arg(&ssh).args(more).arg("--").arg(host).arg(&file);
        command
    };
    let text = success(&mut deploy("pi@board", &[]));
    assert!(text.contains("m.gguf: sent") && text.contains("tokens/s"), "{text}");
    assert!(fs::read(home.join("vaquita/m.gguf")).unwrap() == fs::read(&file).unwrap());
    let text = success(&mut deploy("pi@board", &[]));
    assert!(text.contains("m.gguf: sent 0 B") && text.contains("vaquita: sent 0 B"), "{text}");

    let error = failure(&mut deploy("-oProxyCommand=true", &[]), 1);
    assert!(error.contains("is not a host"), "{error}");
    for given in [&["no-such.gguf"][..], &["-m", "no-such.gguf"]] {
        let error = failure(vaquita(["deploy", "pi@board"]).args(given).current_dir(&folder), 2);
        assert!(error.contains("no-such.gguf is not a model file"), "{error}");
    }
}
