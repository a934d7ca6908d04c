//! Dependencies of the runtime: no C, so that a device build needs only Rust's own tools.

use std::process::Command;

/// Crates that compile or link C. Names that end in `-sys` are declarations alone where they are `linux-raw-sys`.
const BUILDERS: [&str; 5] = ["cc", "cmake", "bindgen", "pkg-config", "vcpkg"];

#[test]
fn the_runtime_and_the_library_for_apps_build_no_c() {
    for (package, features) in [("vaquita-runtime", "structured"), ("vaquita-capi", "")] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}"])
            .args(["--edges", "normal,build", "--target", "aarch64-linux-android"])
            .args(["-p", package, "--features", features])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
