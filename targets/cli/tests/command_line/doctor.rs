//! `vaquita doctor`, on this machine and on a recorded board.

use std::fs;

use serde_json::Value;

use vaquita_runtime::app::ModelOptions;
use vaquita_runtime::cores::clusters;
use vaquita_runtime::host::Host;

use crate::program::{failure, json, quantize, reference, root, success, vaquita};

#[test]
fn the_doctor_advises_on_a_model_for_this_machine_and_a_recorded_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    success(&mut quantize(&reference(), &file));
    let found = json(vaquita(["doctor", "--json"]).arg(&file));
    assert!(found["memory_bytes_per_second"].as_f64().unwrap() > 1e6);
    assert!(!found["tiers"].as_array().unwrap().is_empty());
    assert_eq!(found["storage"]["rates"].as_array().unwrap().len(), 3, "{found}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the model is left");

    let board = root().join("runtime/tests/meters/board.json");
    let mut command = vaquita(["doctor", "--no-storage"]);
    let text = success(command.arg(&file).env("VAQUITA_RECORDING", &board));
    assert!(text.contains("Radxa ROCK 5B") && text.contains("cores 4,5,6,7"), "{text}");
    assert!(text.contains("8.00 GiB, limited to 4.00 GiB, 3.00 GiB available"), "{text}");
    assert!(text.contains("all of it fits, no --memory; about"), "{text}");
    let mut command = vaquita(["doctor", "--no-storage", "--json"]);
    let found = json(command.arg(&file).env("VAQUITA_RECORDING", &board));
    assert_eq!(found["storage"], Value::Null);
    assert_eq!(
        (&found["model"]["how"], &found["model"]["context"]),
        (&"mapped".into(), &2048.into())
    );
    failure(vaquita(["doctor"]).arg(reference()), 2);
    failure(vaquita(["doctor", "--no-storage", "nothing.gguf"]).current_dir(&folder), 1);
    let text = success(vaquita(["doctor", "--storage", "/nowhere"]).current_dir(&folder));
    assert!(text.contains("unmeasured: /nowhere:"), "{text}");
}

/// A phone of four little, four middle and one prime core; a board of four little and four big ones.
#[test]
fn apps_and_the_program_compute_on_the_same_cores() {
    for (recording, cores) in [("phone-cores", vec![4, 5, 6, 7, 8]), ("board", vec![4, 5, 6, 7])] {
        let recording = root().join(format!("runtime/tests/meters/{recording}.json"));
        let host = Host::recorded(&fs::read_to_string(&recording).unwrap()).unwrap();
        let all: Vec<usize> = clusters(&host).into_iter().flat_map(|c| c.cores).collect();
        let app = ModelOptions::default().cores().assign(&host, Some(&all));
        assert_eq!((app.threads, app.cores.as_ref()), (cores.len(), Some(&cores)));
        let mut doctor = vaquita(["doctor", "--no-storage", "--json"]);
        let found = json(doctor.env("VAQUITA_RECORDING", &recording));
        assert_eq!(found["decode_cores"], serde_json::json!(cores));
    }
}
