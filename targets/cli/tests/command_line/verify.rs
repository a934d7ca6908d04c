//! `vaquita verify`.

use std::fs;

use crate::program::{exported, failure, golden, json, quantize, success, vaquita};

#[test]
fn a_whole_file_is_compared_with_its_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    success(&mut quantize(&golden("olmoe"), &file));
    let found = json(vaquita(["verify", "--json"]).arg(&file));
    assert_eq!(found["tensors_verified"], found["tensors"]);
    assert_eq!((&found["header_verified"], &found["runs"]), (&true.into(), &false.into()));
    let text = success(vaquita(["verify"]).arg(&file));
    assert!(text.contains("match their checksums; the model does not run"), "{text}");

    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 4096;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = failure(vaquita(["verify"]).arg(&file), 1);
    assert!(error.contains("1 of ") && error.contains("tensors are damaged"), "{error}");
    let name = b"olmoe.context_length";
    let at = bytes.windows(name.len()).position(|found| found == name).unwrap();
    bytes[at + name.len() + 4] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = failure(vaquita(["verify"]).arg(&file), 1);
    assert!(error.contains("the header is damaged"), "{error}");
    let found = json(vaquita(["inspect", "--json"]).arg(&file));
    assert!(found["problem"].as_str().unwrap().contains("the header is damaged"), "{found}");

    let text = success(vaquita(["verify"]).arg(exported("olmoe", folder.path())));
    assert!(text.contains("the file has no checksums"), "{text}");
    assert!(failure(vaquita(["verify"]).arg(golden("olmoe")), 1).contains("folders have no"));
}
