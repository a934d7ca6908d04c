//! The rooms of the runtime depend on each other in one direction. docs/architecture.md draws them.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules at the root of `vaquita-runtime`, lowest first. A room imports only rooms before it.
///
/// A new room goes after the highest one that it imports, and into docs/architecture.md.
const ROOMS: [&str; 21] = [
    "bytes",
    "host",
    "svg",
    "isa",
    "blocks",
    "cores",
    "threads",
    "gguf",
    "measure",
    "kernels",
    "tokenizer",
    "checkpoint",
    "model",
    "experts",
    "session",
    "structured",
    "engine",
    "trace",
    "opening",
    "doctor",
    "app",
];

/// Allowed imports against the order, for files that select an implementation from a registry:
/// pairs of a file below `runtime/src` and the room that it may import.
const DISPATCH: [(&str, &str); 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// Code without comments and without the test module at the end of a file.
fn product_code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines();
    lines.map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Names of the modules that paths such as `crate::a::b` and `use crate::{a::b, c}` lead to.
fn imports(code: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name =
        |text: &str| text.trim_start().split(|c| !is_name(c)).next().unwrap_or("").to_string();
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(is_name) {
            continue; // a macro's `$crate::` of another crate, or `xcrate::`
        }
        let rest = &code[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' | ',' if depth == 0 => {
                    found.push(name(&group[start..i]));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn paths_are_read_from_code_and_not_from_comments_or_tests() {
    let code = product_code(
        "use crate::model::{Model, Mla};\n//! crate::app\nfn f(x: crate::isa::Tier) {}\n\
         use crate::{gguf::{Gguf, Value}, bytes::Bytes};\n\n#[cfg(test)]\nmod tests {\nuse crate::session::S;\n}",
    );
    assert_eq!(imports(&code), ["model", "isa", "gguf", "bytes"]);
}

#[test]
fn every_room_has_its_place_and_is_on_the_map() {
    let library = fs::read_to_string(root().join("runtime/src/lib.rs")).unwrap();
    let module = |line: &str| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_string())
    };
    let mut rooms: Vec<String> = library.lines().filter_map(module).collect();
    let mut known = ROOMS.map(String::from).to_vec();
    rooms.sort();
    known.sort();
    assert_eq!(rooms, known, "ROOMS in this file lists the modules of runtime/src/lib.rs in order");
    let map = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for room in ROOMS {
        let listed = [format!("| `{room}/`"), format!("| `{room}.rs`")];
        assert!(
            listed.iter().any(|row| map.contains(row)),
            "docs/architecture.md has no row for {room}"
        );
    }
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    let source = root().join("runtime/src");
    let level = |room: &str| ROOMS.iter().position(|name| *name == room);
    let mut against = Vec::new();
    for path in sources(&source) {
        let file = path.strip_prefix(&source).unwrap().to_string_lossy().replace('\\', "/");
        let room = file.split('/').next().unwrap().trim_end_matches(".rs");
        if room == "lib" || file.ends_with("/tests.rs") {
            continue;
        }
        let own = level(room).unwrap_or_else(|| panic!("{file} is in no known room"));
        let code = product_code(&fs::read_to_string(&path).unwrap());
        for name in imports(&code) {
            let allowed = DISPATCH.contains(&(file.as_str(), name.as_str()));
            if level(&name).is_some_and(|level| level > own) && !allowed {
                against.push(format!("{file} imports {name}"));
            }
        }
    }
    assert!(against.is_empty(), "imports of a room above:\n{}", against.join("\n"));
}
