//! `vaquita tokenize`.

use std::process::Stdio;

use serde_json::Value;

use crate::program::{json, reference, vaquita};

#[test]
fn a_text_is_cut_into_tokens_and_pieces() {
    let cut = |args: &[&str]| json(vaquita(["tokenize", "--json"]).arg(reference()).args(args));
    let with = cut(&["a whale 🐋"]);
    let without = cut(&["a whale 🐋", "--no-bos"]);
    let ids = |value: &Value| value["ids"].as_array().unwrap().clone();
    assert_eq!(ids(&with)[0], 0);
    assert_eq!(ids(&with)[1..], ids(&without)[..]);
    assert_eq!(with["pieces"].as_array().unwrap().len(), ids(&with).len());

    let mut piped = vaquita(["tokenize", "--json"]);
    piped.arg(reference()).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), "a whale 🐋".as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), with);
}
