//! Bundles the page: languages, libraries and scripts become one inline script, style sheets one inline style, and both
//! one document. Their hashes are the only code that its Content-Security-Policy lets run. No Node is needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

/// Style sheets in the order of the document.
const STYLES: [&str; 6] = ["colours", "frame", "history", "messages", "prose", "dialogs"];

/// Scripts in the order of the document. All share one scope, so a script uses what those before it define.
const SCRIPTS: [&str; 25] = [
    "dom",
    "icons",
    "languages",
    "settings",
    "words",
    "ids",
    "bus",
    "database",
    "tree",
    "stream",
    "api",
    "answer",
    "highlight",
    "math",
    "markdown",
    "prose",
    "figures",
    "speaker",
    "transfer",
    "generation",
    "message",
    "transcript",
    "composer",
    "panels",
    "main",
];

/// Libraries: name, file below `vendor`, and the expression that is the library once its file has run.
const LIBRARIES: [(&str, &str, &str); 3] = [
    ("marked", "marked/marked.umd.js", "module.exports"),
    ("DOMPurify", "dompurify/purify.min.js", "module.exports"),
    ("temml", "temml/temml.min.js", "temml"),
];

fn main() {
    let source = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
    for input in ["build.rs", "document.html", "icon.svg", "manifest.webmanifest"]
        .into_iter()
        .chain(["service-worker.js", "script", "style", "languages", "vendor"])
    {
        println!("cargo::rerun-if-changed={input}");
    }

    let style = format!("\n{}\n{}", math_style(&source), joined(&source, "style", "css", &STYLES));
    let script = script(&source);
    let icon = data_url(&read(&source.join("icon.svg")));
    let document = read(&source.join("document.html"))
        .replace("{{icon}}", &icon)
        .replace("{{style}}", &style)
        .replace("{{script}}", &script);
    let manifest = read(&source.join("manifest.webmanifest")).replace("{{icon}}", &icon);
    let worker = read(&source.join("service-worker.js"));

    for (name, text) in [("page", &document), ("manifest", &manifest), ("worker", &worker)] {
        write(&out, &format!("{name}.gz"), &gzip(text));
        write(&out, &format!("{name}.etag"), format!("\"{}\"", &hash(text)[..22]).as_bytes());
    }
    write(&out, "policy", policy(&script, &style).as_bytes());
}

/// Content-Security-Policy: the inline script and style of this build, and requests to the server that sent the page.
fn policy(script: &str, style: &str) -> String {
    [
        "default-src 'none'",
        &format!("script-src 'sha256-{}'", hash(script)),
        &format!("style-src 'sha256-{}'", hash(style)),
        "img-src data: blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify vaquita",
    ]
    .join("; ")
}

/// The inline script: one function scope with all libraries, languages and scripts.
fn script(source: &Path) -> String {
    let languages = files(source, "languages", "json");
    let languages: Vec<String> = languages
        .iter()
        .map(|name| {
            let text = read(&source.join("languages").join(format!("{name}.json")));
            format!("{name:?}: {}", text.trim())
        })
        .collect();
    // Functions that nobody calls are not compiled: a library costs time when it is first used.
    let libraries: Vec<String> = LIBRARIES
        .iter()
        .map(|(name, file, value)| {
            let text = read(&source.join("vendor").join(file));
            let kept = text.lines().filter(|line| !line.starts_with("//# sourceMappingURL="));
            let kept = kept.collect::<Vec<_>>().join("\n");
            format!("{name}(module, exports) {{\n{kept}\nreturn {value};\n}}")
        })
        .collect();
    let script = format!(
        "\n(() => {{\n'use strict';\nconst LANGUAGES = {{\n{}\n}};\nconst LIBRARIES = {{\n{}\n}};\n{}}})();\n",
        languages.join(",\n"),
        libraries.join(",\n"),
        joined(source, "script", "js", &SCRIPTS),
    );
    let lower = script.to_lowercase();
    assert!(
        !lower.contains("</script") && !lower.contains("<script"),
        "an inline script ends at the first tag of its own name: write it as '<' + 'script'",
    );
    script
}

/// Temml's style sheet without its font, which no document could embed within the budget.
fn math_style(source: &Path) -> String {
    let text = read(&source.join("vendor/temml/Temml-Local.css"));
    let (before, rest) = text.split_once("@font-face").expect("Temml's font");
    let (_, after) = rest.split_once('}').expect("end of Temml's font");
    format!("{before}{after}")
}

/// Files of `folder`, joined in the order of `names`, each under a comment with its name.
fn joined(source: &Path, folder: &str, end: &str, names: &[&str]) -> String {
    let listed: BTreeSet<String> = names.iter().map(|name| name.to_string()).collect();
    let found = files(source, folder, end);
    assert_eq!(listed, found, "{folder}: names in build.rs and files of the folder");
    let text = |name: &&str| {
        let file = format!("{folder}/{name}.{end}");
        format!("/* {file} */\n{}\n", read(&source.join(&file)))
    };
    names.iter().map(text).collect()
}

/// Names of the files of `folder` that end in `end`, without it.
fn files(source: &Path, folder: &str, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(source.join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(&format!(".{end}"))?.to_string())).collect()
}

fn data_url(svg: &str) -> String {
    format!("data:image/svg+xml;base64,{}", base64::encode(svg))
}

/// SHA-256 in base64, as policies write it.
fn hash(text: &str) -> String {
    base64::encode(Sha256::digest(text))
}

/// Equal text gives equal bytes: the header has neither name nor time.
fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap()
}

/// Browsers see line ends as `\n`, whatever this checkout has, and hash them so.
fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.replace("\r\n", "\n")
}

fn write(out: &Path, name: &str, bytes: &[u8]) {
    let path = out.join(name);
    fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
