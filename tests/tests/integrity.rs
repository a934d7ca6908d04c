//! What changes in a file is noticed: in its header, in its weights, and while it is mapped.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use vaquita_lcg::Lcg;
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::gguf::{Gguf, GgufWriter, HEADER_CHECKSUM_KEY, Metadata, TensorPlan};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::opening::budget::{MemoryBudget, Workload};
use vaquita_runtime::opening::{self, OpenOptions};
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::variants::Checkpoint;
use vaquita_tests::{bits, golden, quantized};

const TOKENS: [u32; 6] = [5, 301, 17, 44, 9, 250];
const WORKLOAD: Workload =
    Workload { context: 64, prefill_chunk: 8, cache: CacheType::F16, sessions: 1 };

fn logits(model: Arc<Model>) -> Result<Vec<f32>, String> {
    let options = SessionOptions { tier: Tier::best(), ..SessionOptions::default() };
    let mut session = Session::new(model, Arc::new(Pool::new(1)), options);
    session.feed_all(&TOKENS).map_err(|error| error.to_string())
}

/// Opens and runs a file, or says why not.
fn run(path: &Path) -> Result<Vec<f32>, String> {
    let weights = GgufWeights::open(path, Verify::Always).map_err(|error| error.to_string())?;
    logits(Arc::new(Model::load(Arc::new(weights)).map_err(|error| error.to_string())?))
}

#[test]
fn no_flipped_bit_of_a_header_gives_other_logits_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    quantized(&golden("deepseek-v3"), &path, BlockType::E4, None);
    let sound = bits(&run(&path).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let header = Gguf::open(&path).unwrap().tensors()[0].offset;
    let (mut random, mut refused) = (Lcg(1), 0);
    // Every bit of the keys that say that there is a checksum, and others at random.
    let named: Vec<u64> = [HEADER_CHECKSUM_KEY, "vaquita.version"]
        .iter()
        .flat_map(|key| {
            let at = bytes.windows(key.len()).position(|found| found == key.as_bytes()).unwrap();
            (at as u64 - 8) * 8..(at + key.len() + 8) as u64 * 8
        })
        .collect();
    let others: Vec<u64> = (0..1500).map(|_| random.bits() % (header * 8)).collect();
    for bit in named.into_iter().chain(others) {
        let (at, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        bytes[at] ^= mask;
        fs::write(&path, &bytes).unwrap();
        match run(&path) {
            Ok(found) => assert!(bits(&found) == sound, "bit {bit} changes the answer"),
            Err(_) => refused += 1,
        }
        bytes[at] ^= mask;
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn files_of_before_the_checksum_still_open() {
    let folder = tempfile::tempdir().unwrap();
    let [new, old] = ["new.gguf", "old.gguf"].map(|name| folder.path().join(name));
    quantized(&golden("olmoe"), &new, BlockType::E4, None);
    let gguf = Gguf::open(&new).unwrap();
    let [stated, found] = gguf.header_checksum().unwrap();
    assert_eq!(stated, found);
    let mut metadata = gguf.metadata().clone();
    metadata.remove(HEADER_CHECKSUM_KEY).unwrap();
    let write = |metadata: &Metadata| {
        let plan = gguf.tensors().iter().map(|info| TensorPlan {
            name: info.name.clone(),
            dims: info.dims.clone(),
            ty: info.ty,
        });
        let file = File::create(&old).unwrap();
        let mut writer = GgufWriter::new(file, &old, metadata, plan.collect()).unwrap();
        for info in gguf.tensors() {
            writer.write_tensor(&info.name, &gguf.bytes(info)).unwrap();
        }
        writer.finish().unwrap();
    };
    write(&metadata);
    assert!(run(&old).unwrap_err().contains("vaquita.header.crc32 is missing"));
    metadata.insert("vaquita.version", 1u32);
    write(&metadata);
    assert!(bits(&run(&old).unwrap()) == bits(&run(&new).unwrap()));
}

#[test]
fn a_mapped_file_that_changes_is_noticed_at_the_next_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    quantized(&golden("deepseek-v3"), &path, BlockType::E4, None);
    for verify in [Verify::Never, Verify::First, Verify::Always] {
        let options = OpenOptions { verify, ..OpenOptions::new(WORKLOAD) };
        let model = opening::open(&path, &options).unwrap().model;
        let before = logits(model.clone()).unwrap();
        assert!(bits(&before) == bits(&logits(model.clone()).unwrap()));
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(&[0]).unwrap();
        // As coarse as clocks of file systems are.
        let now = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        file.set_modified(now).unwrap();
        let error = logits(model).unwrap_err();
        assert!(error.contains("the file was changed while it is in use"), "{error}");
        quantized(&golden("deepseek-v3"), &path, BlockType::E4, None);
    }
}

#[test]
fn a_mapped_record_is_verified_whenever_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    quantized(&golden("deepseek-v3"), &path, BlockType::E4, None);
    let gguf = Gguf::open(&path).unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let records = gguf.tensors().iter().filter(|info| info.name.contains("ffn_expert"));
    let places: Vec<(u64, u64)> = records.map(|info| (info.offset, info.len)).collect();
    let damage = |byte: u8| {
        let mut file = File::options().write(true).open(&path).unwrap();
        for (offset, len) in &places {
            file.seek(SeekFrom::Start(offset + len - 1)).unwrap();
            file.write_all(&[byte]).unwrap();
        }
        // The time alone does not tell.
        file.set_modified(modified).unwrap();
    };
    let open = |verify| {
        let options = OpenOptions { verify, ..OpenOptions::new(WORKLOAD) };
        opening::open(&path, &options).unwrap().model
    };
    let (first, always) = (open(Verify::First), open(Verify::Always));
    for model in [&first, &always] {
        logits(model.clone()).unwrap();
    }
    damage(0x55);
    damage(0xaa);
    let error = logits(always).unwrap_err();
    assert!(error.contains("is damaged: its checksum is"), "{error}");
    let whole = GgufWeights::open(&path, Verify::First).unwrap().read_whole(&mut |_| {});
    assert!(whole.header && whole.verified == whole.tensors);
    assert_eq!(whole.damaged.len(), places.len());
}

#[test]
fn a_file_that_cannot_be_mapped_is_read_and_has_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours.gguf", "theirs.gguf"].map(|name| folder.path().join(name));
    quantized(&golden("deepseek-v3"), &ours, BlockType::E4, None);
    Checkpoint::golden("deepseek-v3").write_gguf(&theirs);
    let split = golden("gguf").join("deepseek-v3-00001-of-00002.gguf");
    for path in [&ours, &theirs, &split] {
        let open = |map| {
            let options = OpenOptions { map, ..OpenOptions::new(WORKLOAD) };
            opening::open(path, &options).unwrap()
        };
        let expected = bits(&logits(open(true).model).unwrap());
        let read = open(false);
        assert!(!read.weights.gguf().is_mapped());
        assert!(bits(&logits(read.model).unwrap()) == expected);
        // Streamed, in the least memory; as if the process had occupied nothing before.
        let open_within = |bytes| {
            let memory = Some(MemoryBudget::Bytes(bytes));
            let options = OpenOptions { map: false, memory, ..OpenOptions::new(WORKLOAD) };
            opening::open_gguf(Gguf::open_with(path, false).unwrap(), &options, 0).unwrap()
        };
        let floor = open_within(1 << 40).memory.plan().unwrap().footprint.floor();
        let streamed = open_within(floor);
        assert!(bits(&logits(streamed.model).unwrap()) == expected);
        let whole = Gguf::open_with(path, false).unwrap();
        let mapped = Gguf::open(path).unwrap();
        for info in mapped.tensors() {
            assert!(*whole.bytes(info) == *mapped.bytes(info), "{}", info.name);
        }
        assert_eq!(
            whole.identity().unwrap().fingerprint().unwrap(),
            mapped.identity().unwrap().fingerprint().unwrap()
        );
    }
}
