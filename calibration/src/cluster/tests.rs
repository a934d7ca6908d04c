use std::path::Path;
use std::process::Command;

use boon::{Compiler, Schemas};
use serde::Deserialize;
use serde_json::Value;

use super::estimate::{self, Amounts};
use super::*;

fn workflow() -> Workflow {
    Workflow {
        program: "/opt/vaquita".into(),
        model: "/data/a model's".into(),
        out: "/data/model.gguf".into(),
        tasks: 4,
        cpus: 8,
        options: vec!["--type".into(), "e2".into()],
        weighing: Weighing::Text("/data/texts.jsonl".into(), vec!["--limit".into(), "9".into()]),
    }
}

fn estimated(model: &Path, amounts: Amounts) -> Estimate {
    Estimate::new(&estimate::config(model).unwrap(), &amounts)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

fn steps(workflow: &Workflow) -> Vec<Step> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference");
    let (tasks, cpus) = (workflow.tasks, workflow.cpus);
    let amounts = Amounts { model_bytes: 20 << 20, tokens: 90_000, products: 2 << 30, tasks, cpus };
    workflow.steps(&estimated(&model, amounts))
}

#[test]
fn every_step_has_a_readable_script_that_bash_takes() {
    let (workflow, scratch) = (workflow(), Some("/scratch/me".into()));
    let options = slurm::Options { partition: Some("long".into()), scratch, ..Default::default() };
    let steps = steps(&workflow);
    let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
    assert_eq!(names, ["calibrate", "merge", "quantize", "join"]);
    for step in &steps {
        let script = slurm::script(&workflow, step, &options);
        let parsed = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
        let array = script.contains("#SBATCH --array=1-4\n");
        assert_eq!(array, step.tasks.is_some());
        assert_eq!(script.contains("/scratch/me/vaquita-"), array);
        assert!(script.contains("#SBATCH --partition=long\n") && script.contains("--requeue"));
        assert!(script.lines().all(|line| line.len() <= 200), "{script}");
    }
    let script = slurm::script(&workflow, &steps[2], &options);
    let model = r"'/data/a model'\''s'";
    let line = format!(
        "quantize {model} --calibration /data/model.gguf.parts/c.calibration --type e2 --part \"$task\"/4"
    );
    assert!(script.contains(&line), "{script}");
    let script = slurm::script(&workflow, &steps[3], &options);
    assert!(script.contains("join /data/model.gguf.parts/quantize-{1..4}-of-4.part"), "{script}");
}

#[test]
fn manifests_are_as_the_api_publishes_them() {
    let schema = include_str!("testdata/kubernetes.schema.json");
    let mut compiler = Compiler::new();
    compiler.add_resource("api.json", serde_json::from_str(schema).unwrap()).unwrap();
    let mut schemas = Schemas::new();
    let [job, claim] = ["Job", "PersistentVolumeClaim"]
        .map(|kind| compiler.compile(&format!("api.json#/kinds/{kind}"), &mut schemas).unwrap());
    let options = kubernetes::Options {
        image: "registry.example/vaquita:1".into(),
        claim: "models".into(),
        mount: "/data".into(),
        storage: Some(2 << 40),
        memory_bytes: None,
    };
    let workflow = workflow();
    let text = kubernetes::manifests(&workflow, &steps(&workflow), &options).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let documents: Vec<Value> = documents.map(|one| Value::deserialize(one).unwrap()).collect();
    let documents: Vec<&Value> = documents.iter().filter(|one| !one.is_null()).collect();
    assert_eq!(documents.len(), 5);
    for document in &documents {
        let schema = if document["kind"] == "Job" { job } else { claim };
        schemas
            .validate(document, schema)
            .unwrap_or_else(|error| panic!("{error:#}\n{document:#}"));
    }
    // The schema must reject an invalid manifest.
    let mut wrong = documents[1].clone();
    wrong["spec"]["completionMod"] = "Indexed".into();
    assert!(schemas.validate(&wrong, job).is_err());

    let jobs = &documents[1..];
    for (job, indexed) in jobs.iter().zip([true, false, true, false]) {
        assert_eq!(job["spec"]["completionMode"] == "Indexed", indexed);
        let pod = &job["spec"]["template"]["spec"];
        for container in [&pod["initContainers"][0], &pod["containers"][0]] {
            let script = container["command"][2].as_str().unwrap();
            let parsed = Command::new("bash").args(["-n", "-c", script]).output().unwrap();
            assert!(parsed.status.success(), "{script}");
        }
    }
    let waits = |job: usize| {
        let pod = &jobs[job]["spec"]["template"]["spec"];
        pod["initContainers"][0]["command"][2].as_str().unwrap().to_string()
    };
    assert!(!waits(0).contains("exit 75"));
    assert!(waits(1).contains("calibrate-4-of-4.part") && waits(2).contains("c.calibration"));

    let outside = Workflow { out: "/home/model.gguf".into(), ..workflow };
    let error = kubernetes::manifests(&outside, &[], &options).unwrap_err().to_string();
    assert!(error.contains("/home/model.gguf is not below /data"), "{error}");
}

#[test]
fn parts_of_other_work_are_not_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    let first = Workflow { out: folder.path().join("model.gguf"), ..workflow() };
    first.prepare().unwrap();
    Workflow { cpus: 2, program: "other".into(), ..first.clone() }.prepare().unwrap();
    let others = [
        Workflow { tasks: 5, ..first.clone() },
        Workflow { options: vec![], ..first.clone() },
        Workflow { weighing: Weighing::None, ..first.clone() },
    ];
    for other in others {
        let error = other.prepare().unwrap_err().to_string();
        assert!(error.contains("parts of other work"), "{error}");
    }
    for tasks in [0, MAX_TASKS + 1] {
        let error = Workflow { tasks, ..first.clone() }.check().unwrap_err().to_string();
        assert!(error.contains("allowed: 1 to"), "{error}");
    }
    assert!(Workflow { model: "/a\nb".into(), ..first }.check().is_err());
}

#[test]
fn tasks_share_the_time_and_need_no_more_memory_than_one() {
    let amounts = |tasks| Amounts {
        model_bytes: 31 << 30,
        tokens: 1 << 20,
        products: 2 << 30,
        tasks,
        cpus: 8,
    };
    let model = golden("deepseek-v3");
    let [one, eight] = [1, 8].map(|tasks| estimated(&model, amounts(tasks)));
    assert!(eight.calibrate.memory_bytes <= one.calibrate.memory_bytes);
    assert!(eight.quantize.memory_bytes <= one.quantize.memory_bytes);
    assert!(eight.quantize.seconds <= one.quantize.seconds);
    assert!(eight.merge.read_bytes > 4 * one.merge.read_bytes);
}
