//! Exit codes and messages of wrong usage.

use std::path::Path;

use crate::program::{failure, quantize, reference, success, vaquita};

#[test]
fn wrong_usage_has_its_own_exit_code() {
    failure(&mut vaquita(["quantize"]), 2);
    failure(&mut vaquita(["dance"]), 2);
    let out = Path::new("/tmp/never.gguf");
    let mixed = failure(quantize(&reference(), out).args(["--plan", "mixed"]), 2);
    assert!(mixed.contains("--target-bpw"), "{mixed}");
    failure(quantize(&reference(), out).args(["--type", "q4_k"]), 2);
    failure(quantize(&reference(), out).args(["--target-bpw", "3"]), 2);
    let both = ["--plan", "mixed", "--target-bpw", "3", "--dense-type", "e4"];
    let dense = failure(quantize(&reference(), out).args(both), 2);
    assert!(dense.contains("--dense-type"), "{dense}");
    let isa = failure(vaquita(["run", "-p", "hi", "--isa", "mmx"]).arg(reference()), 2);
    assert!(isa.contains("this machine has: scalar"), "{isa}");
    let context = failure(vaquita(["run", "-p", "hi", "--context", "9999"]).arg(reference()), 2);
    assert!(context.contains("up to 2048"), "{context}");
}

#[test]
fn the_help_of_every_command_is_plain() {
    let overview = success(&mut vaquita(["help"]));
    let commands = overview.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = commands.map_while(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"quantize") && names.contains(&"run"), "{overview}");
    for name in names.into_iter().filter(|name| *name != "help") {
        let help = success(&mut vaquita(["help", name])).to_lowercase();
        for word in ["whoever", " anew", "likewise", "meanwhile", "give way", "trunk", "guess"] {
            assert!(!help.contains(word), "{word:?} in the help of {name}");
        }
    }
}
