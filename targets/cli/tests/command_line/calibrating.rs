//! Calibration of checkpoints larger than memory, calibration during quantization, and files in parts.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_runtime::checkpoint::families::config_from_hf;
use vaquita_runtime::checkpoint::{HfExpert, HfTensor, Projection, Role};
use vaquita_runtime::gguf::Gguf;

use crate::program::{failure, reference, success, vaquita};

/// `quantize --type e2` that calibrates on the same run.
fn quantize_calibrating(out: &Path) -> Command {
    let mut command = vaquita(["quantize", "--type", "e2", "--threads", "1"]);
    command.args(["--products", "4MiB", "--limit", "15"]).arg(reference()).arg("-o").arg(out);
    command.arg("--calibrate").arg(reference().join("calibration.jsonl"));
    command
}

#[test]
fn calibrating_while_quantizing_gives_the_weights_that_a_calibration_file_gives() {
    let folder = tempfile::tempdir().unwrap();
    let [calibration, by_file, out] =
        ["a.calibration", "by-file.gguf", "model.gguf"].map(|name| folder.path().join(name));
    let mut calibrate =
        vaquita(["calibrate", "--products", "4MiB", "--limit", "15", "--threads", "1"]);
    calibrate.arg(reference()).arg("-o").arg(&calibration);
    success(calibrate.arg("--text").arg(reference().join("calibration.jsonl")));
    let mut quantize = vaquita(["quantize", "--type", "e2", "--calibration"]);
    success(quantize.arg(&calibration).arg(reference()).arg("-o").arg(&by_file));
    success(&mut quantize_calibrating(&out));

    let [a, b] = [&by_file, &out].map(|path| Gguf::open(path).unwrap());
    for (a_tensor, b_tensor) in a.tensors().iter().zip(b.tensors()) {
        assert_eq!(a_tensor.name, b_tensor.name);
        assert!(a.bytes(a_tensor)[..] == b.bytes(b_tensor)[..], "{}", a_tensor.name);
    }
    let said = b.metadata().str("vaquita.calibration").unwrap().unwrap();
    assert!(said.starts_with("15 documents, crc32:") && said.contains("products of"), "{said}");
    drop((a, b));

    // Killed in the middle, it goes on.
    let undisturbed = fs::read(&out).unwrap();
    fs::remove_file(&out).unwrap();
    let journal = folder.path().join(".model.gguf.journal");
    let mut child = quantize_calibrating(&out).stdout(Stdio::null()).spawn().unwrap();
    let steps = || fs::read_to_string(&journal).unwrap_or_default().lines().count();
    while steps() < 3 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    success(quantize_calibrating(&out).stdout(Stdio::null()));
    assert!(fs::read(&out).unwrap() == undisturbed);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let refused = |options: &[&str]| {
        let mut command = vaquita(["quantize", "-o", "never.gguf"]);
        failure(command.arg(reference()).args(options), 2)
    };
    refused(&["--calibrate", "a.txt", "--calibration", "a.calibration"]);
    refused(&["--calibrate", "a.txt", "--part", "1/2"]);
    let error = refused(&["--part", "3/2"]);
    assert!(error.contains("write it like 2/8"), "{error}");
    let error = refused(&["--limit", "3"]);
    assert!(error.contains("for --calibrate"), "{error}");
    refused(&["--plan", "frequency", "--target-bpw", "3", "--calibrate", "a.txt"]);
}

#[test]
fn parts_are_joined_and_a_report_is_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let quantize = |out: &str, more: &[&str]| {
        let mut command = vaquita(["quantize", "--type", "e3"]);
        command.arg(reference()).arg("-o").arg(path(out)).args(more);
        command
    };
    let page = path("report.html");
    let text = success(quantize("whole.gguf", &["--report"]).arg(&page));
    assert!(text.contains("worst tensors") && text.contains("ffn_expert"), "{text}");
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<title>whole.gguf</title>") && page.ends_with("</html>\n"));

    success(&mut quantize("1.part", &["--part", "1/2"]));
    let mut join = vaquita(["join", "--json", "-o"]);
    join.arg(path("model.gguf")).arg(path("1.part"));
    let error = failure(&mut join, 1);
    assert!(error.contains("of 2 parts these are missing: 2"), "{error}");
    success(&mut quantize("2.part", &["--part", "2/2"]));
    let joined = crate::program::json(join.arg(path("2.part")));
    assert_eq!(joined["parts"], 2);
    assert!(fs::read(path("model.gguf")).unwrap() == fs::read(path("whole.gguf")).unwrap());
    let error = failure(vaquita(["run", "-p", "hi"]).arg(path("1.part")), 1);
    assert!(error.contains("only part 1 of a file"), "{error}");
}

/// A checkpoint of 180 MB with a tokenizer: four layers of 28 experts, random weights.
fn large_checkpoint(folder: &Path) {
    let (layers, experts, width) = (4, 28, 512);
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 2048,
        "hidden_size": width, "intermediate_size": width, "moe_intermediate_size": width,
        "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
        "num_local_experts": experts, "num_experts": experts, "num_experts_per_tok": 4, "norm_topk_prob": true,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(reference().join(name), folder.join(name)).unwrap();
    }
    let config = config_from_hf(&config).unwrap();
    let mut tensors: Vec<(String, Vec<usize>, bool)> = Vec::new();
    for spec in config.family.tensors(&config) {
        let (HfTensor::Whole(name) | HfTensor::Paired(name, _)) = &spec.hf else { continue };
        if !spec.optional {
            let vector = spec.role == Role::Vector;
            let shape = if vector { vec![spec.cols] } else { vec![spec.rows, spec.cols] };
            tensors.push((name.clone(), shape, vector));
        }
    }
    for spec in expert_layers(&config).flat_map(|layer| expert_specs(&config, layer)) {
        let HfExpert::Separate(names) = &spec.hf else { panic!("experts are apart") };
        for (name, projection) in names.iter().zip(Projection::ALL) {
            let (rows, cols) = spec.shape(projection);
            tensors.push((name.clone(), vec![rows, cols], false));
        }
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape, _) in &tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({ "dtype": "BF16", "shape": shape, "data_offsets": [begin, end] }),
        );
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let file = fs::File::create(folder.join("model.safetensors")).unwrap();
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for (_, shape, ones) in &tensors {
        for _ in 0..shape.iter().product::<usize>() / 4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Four numbers of either sign from 1/32 to 1/16; or ones, for norms.
            let four = random & 0x807f_807f_807f_807f | 0x3d00_3d00_3d00_3d00;
            let four = if *ones { 0x3f80_3f80_3f80_3f80 } else { four };
            out.write_all(&four.to_le_bytes()).unwrap();
        }
    }
    out.into_inner().unwrap().sync_all().unwrap();
}

/// A group of processes that have so much memory together, what the system keeps of files for them included.
struct MemoryGroup {
    folder: PathBuf,
    felt: &'static str,
}

impl MemoryGroup {
    fn of(bytes: u64) -> Option<Self> {
        let name = format!("vaquita-test-{}", std::process::id());
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.failcnt"),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
        ];
        versions.into_iter().find_map(|(root, limit, felt)| {
            let folder = Path::new(root).join(&name);
            fs::create_dir(&folder).ok()?;
            let group = Self { folder, felt };
            let limit = group.folder.join(limit);
            let written = limit.exists() && fs::write(limit, bytes.to_string()).is_ok();
            written.then_some(group)
        })
    }

    /// Runs the command in the group.
    fn run(&self, command: &Command) {
        let procs = self.folder.join("cgroup.procs");
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(procs);
        success(inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null()));
    }

    /// How often the limit was felt.
    fn times_felt(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.felt)).unwrap();
        let events = text.lines().filter(|line| !line.contains(' ') || line.starts_with("max "));
        events.filter_map(|line| line.split(' ').next_back()?.parse::<u64>().ok()).sum()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

#[test]
fn a_checkpoint_several_times_larger_than_memory_is_calibrated_and_quantized() {
    // With 40 MiB for the program itself: the rest is what was written and has not reached the disk,
    // which a busy one takes late.
    const MEMORY: u64 = 56 << 20;
    let Some(group) = MemoryGroup::of(MEMORY) else {
        vaquita_skips::skipped(
            "no memory control group of version 1 can be made here (root may, where it is mounted)",
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("checkpoint");
    fs::create_dir(&source).unwrap();
    large_checkpoint(&source);
    let weights = source.join("model.safetensors");
    assert!(fs::metadata(&weights).unwrap().len() > 3 * MEMORY);
    // What the system keeps of the file since it was written would count for nobody in the group.
    let mut forget = Command::new("dd");
    let of = format!("of={}", weights.display());
    success(forget.arg(of).args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0"]));

    let calibrate = |out: &str| {
        let mut command = vaquita(["calibrate", "--limit", "6", "--products", "8MiB"]);
        command.arg(&source).arg("-o").arg(folder.path().join(out));
        command.arg("--text").arg(reference().join("calibration.jsonl"));
        command
    };
    let text = reference().join("calibration.jsonl");
    let out = folder.path().join("model.gguf");
    let mut quantize = vaquita(["quantize", "--type", "e8", "--limit", "6", "--products", "none"]);
    quantize.arg(&source).arg("-o").arg(&out).arg("--calibrate").arg(text);
    group.run(&calibrate("within.calibration"));
    assert!(group.times_felt() > 0, "the limit was never met");
    group.run(&quantize);
    success(&mut calibrate("freely.calibration"));
    let [within, freely] = ["within", "freely"]
        .map(|name| fs::read(folder.path().join(format!("{name}.calibration"))).unwrap());
    assert!(within == freely);
}
