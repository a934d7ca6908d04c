//! include/vaquita.h is what cbindgen makes of the sources.

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_src(root.join("src/lib.rs")); // and its modules
    let bindings = builder.with_config(config).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = root.join("include/vaquita.h");
    if std::env::var_os("VAQUITA_WRITE_HEADER").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read(&path).unwrap_or_default();
    assert!(
        found == made,
        "targets/capi/include/vaquita.h is stale; write it anew with \
         VAQUITA_WRITE_HEADER=1 cargo test --release -p vaquita-capi --test header"
    );
}
