//! Published suites against structured output and calls of tools, without a model:
//!
//! ```sh
//! cargo run --release -p vaquita-tests --example suites -- json-schema JSON-Schema-Test-Suite/tests/draft2020-12
//! cargo run --release -p vaquita-tests --example suites -- maskbench jsonschemabench/maskbench/data
//! cargo run --release -p vaquita-tests --example suites -- bfcl bfcl_eval/data
//! ```
//!
//! The folders are those of github.com/json-schema-org/JSON-Schema-Test-Suite, github.com/guidance-ai/jsonschemabench and
//! the package `bfcl-eval` of PyPI. For suites of schemas, a folder with a tokenizer may follow; the reference model's is
//! the default. Refusing a schema is allowed, and counted; accepting an invalid instance is not, and fails.

mod bfcl;
mod published;
mod schemas;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vaquita_tests::reference;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let right = match arguments[..] {
        ["bfcl", folder] => bfcl::run(Path::new(folder)),
        [suite @ ("json-schema" | "maskbench"), folder, ref rest @ ..] if rest.len() < 2 => {
            let tokenizer = rest.first().map_or_else(reference, PathBuf::from);
            schemas::run(suite, Path::new(folder), &tokenizer)
        }
        _ => {
            eprintln!(
                "usage: suites json-schema|maskbench FOLDER [TOKENIZER], or suites bfcl FOLDER"
            );
            return ExitCode::from(2);
        }
    };
    ExitCode::from(u8::from(!right))
}
