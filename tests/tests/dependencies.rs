//! Dependencies: the runtime has no C, so that a device build needs only Rust's own tools, and the
//! server nothing that connects to others.

use std::process::Command;

/// Crates that compile or link C. Names that end in `-sys` are declarations alone where they are `linux-raw-sys`.
const BUILDERS: [&str; 5] = ["cc", "cmake", "bindgen", "pkg-config", "vcpkg"];

/// Crates that connect to servers.
const CLIENTS: [&str; 9] = [
    "reqwest",
    "ureq",
    "curl",
    "isahc",
    "attohttpc",
    "hyper-rustls",
    "native-tls",
    "rustls",
    "vaquita-hub",
];

/// Names of the crates that a package is built from, one in a line, and with their features.
fn tree(package: &str, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none"])
        .args(["-p", package])
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_server_has_no_client_of_http() {
    let text = tree("vaquita-server", &["--edges", "normal,build", "--format", "{p} [{f}]"]);
    let found = text.lines().find(|line| line.starts_with("hyper v"));
    let features = found.and_then(|line| line.split(['[', ']']).nth(1)).unwrap();
    assert!(features.split(',').all(|feature| feature != "client"), "hyper: {features}");
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let found: Vec<&&str> = names.iter().filter(|name| CLIENTS.contains(*name)).collect();
    assert!(found.is_empty(), "the server is built from {found:?}");
}

#[test]
fn the_runtime_and_the_library_for_apps_build_no_c() {
    for (package, features) in [("vaquita-runtime", "structured"), ("vaquita-capi", "")] {
        let target = ["--edges", "normal,build", "--target", "aarch64-linux-android"];
        let text =
            tree(package, &[&target[..], &["--format", "{p}", "--features", features]].concat());
        let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(names.contains(&"minijinja"), "{text}");
        let c = |name: &&&str| {
            BUILDERS.contains(*name)
                || (name.ends_with("-sys") && **name != "linux-raw-sys")
                || name.ends_with("_sys")
        };
        let found: Vec<&&str> = names.iter().filter(c).collect();
        assert!(found.is_empty(), "{package} builds C through {found:?}");
    }
}
