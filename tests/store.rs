//! Models with streamed experts for tests: files to stream from, and a source that fails or stalls
//! on demand.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vaquita_quantize::sources;
use vaquita_quantize::{Job, Material, Plan, Target, mixed, quantize};
use vaquita_runtime::blocks::BlockType;
use vaquita_runtime::checkpoint::source::{ByteSource, Files};
use vaquita_runtime::checkpoint::{GgufWeights, Verify};
use vaquita_runtime::experts::policies::PolicyKind;
use vaquita_runtime::experts::{PrefetchMode, Streaming, StreamingOptions};
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::model::Model;
use vaquita_runtime::session::{Session, SessionOptions};
use vaquita_runtime::threads::Pool;

/// Quantizes a checkpoint into `out`: all experts e4, or mixed types if `bits` per weight are
/// given.
pub fn quantize_to(source: &Path, out: &Path, bits: Option<f64>) {
    let source = sources::open(source).expect("the checkpoint opens");
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let tokenizer = Metadata::new();
    let plan = match bits {
        None => Plan::uniform(weights.config(), BlockType::E4),
        Some(bits) => {
            let target = Target::BitsPerWeight(bits);
            let material = Material { weights, identity, tokenizer: &tokenizer, importance: None };
            mixed(&material, target, &mut |_| {}).expect("it can be reached")
        }
    };
    let job = Job { weights, identity, tokenizer: &tokenizer, importance: None, plan: &plan, out };
    quantize(&job, &mut |_| {}).expect("the checkpoint is quantized");
}

/// The model with all experts resident, and with its multi-token-prediction layer if it has one.
pub fn resident(file: &Path) -> Arc<Model> {
    let weights = Arc::new(GgufWeights::open(file, Verify::First).expect("the file opens"));
    let mut model = Model::load(weights.clone()).expect("the file loads");
    model.load_mtp(&*weights).expect("the layer loads");
    Arc::new(model)
}

/// Settings of a streamed model.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Memory for experts in bytes; `None` for the minimum.
    pub budget: Option<usize>,
    /// Eviction policy.
    pub policy: PolicyKind,
    /// Parallel reads.
    pub lanes: usize,
    /// When to prefetch.
    pub prefetch: PrefetchMode,
    /// Whether to bypass the page cache.
    pub direct: bool,
    /// When to verify checksums.
    pub verify: Verify,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            budget: None,
            policy: PolicyKind::default(),
            lanes: 2,
            prefetch: PrefetchMode::Off,
            direct: true,
            verify: Verify::First,
        }
    }
}

/// A model that streams its experts, and its store.
pub struct Streamed {
    /// The model.
    pub model: Arc<Model>,
    /// Its store.
    pub store: Arc<Streaming>,
}

/// Opens a file for streaming; reads go through the source that `wrap` makes of the files.
pub fn streamed_through(
    file: &Path,
    setting: Setting,
    wrap: impl FnOnce(Arc<Files>) -> Arc<dyn ByteSource>,
) -> Streamed {
    let mut weights = GgufWeights::open(file, setting.verify).expect("the file opens");
    let files = Files::open(weights.gguf(), setting.direct).expect("the file opens again");
    weights.detach(files.clone());
    let weights = Arc::new(weights);
    let source = wrap(files);
    let mut options = StreamingOptions {
        budget_bytes: setting.budget.unwrap_or(usize::MAX),
        policy: setting.policy,
        lanes: setting.lanes,
        prefetch: setting.prefetch,
        prefer_resident: None,
    };
    if setting.budget.is_none() {
        let roomy = Streaming::new(weights.clone(), source.clone(), &options);
        options.budget_bytes = roomy.expect("the store opens").index().least_bytes();
    }
    let store = Streaming::new(weights.clone(), source, &options).expect("the store opens");
    let store = Arc::new(store);
    let mut model = Model::with_experts(&*weights, store.clone()).expect("the model loads");
    model.load_mtp(&*weights).expect("the layer loads");
    Streamed { model: Arc::new(model), store }
}

/// Opens a file for streaming.
pub fn streamed(file: &Path, setting: Setting) -> Streamed {
    streamed_through(file, setting, |files| files)
}

/// A session that reads prompts in chunks of `prefill_chunk` tokens.
pub fn session(model: &Arc<Model>, prefill_chunk: usize) -> Session {
    let options = SessionOptions { prefill_chunk, ..SessionOptions::default() };
    Session::new(model.clone(), Arc::new(Pool::new(2)), options)
}

/// The bits of all logits, for a prompt that is fed in chunks and for tokens that are fed one by
/// one.
pub fn run(model: &Arc<Model>, tokens: &[u32], prompt: usize) -> Vec<u32> {
    let mut session = session(model, 7);
    let mut logits = session.feed_all(&tokens[..prompt]).expect("the prompt is read");
    for &token in &tokens[prompt..] {
        logits.extend(session.feed(&[token]).expect("a token is read"));
    }
    super::bits(&logits)
}

/// Behaviour of a source instead of a read.
pub enum Fault {
    /// Reads normally.
    None,
    /// Fails.
    Error(io::ErrorKind),
    /// Fails after a delay.
    SlowError(Duration, io::ErrorKind),
    /// Reads after a delay.
    Stall(Duration),
    /// Flips one bit of the data read.
    Flip,
}

/// A source with a fault that is a function of the read's number.
pub struct Faulty<F> {
    files: Arc<Files>,
    reads: std::sync::atomic::AtomicU64,
    fault: F,
}

impl<F: Fn(u64) -> Fault + Send + Sync> Faulty<F> {
    /// Reads `files`, with the faults that `fault` returns.
    pub fn new(files: Arc<Files>, fault: F) -> Arc<Self> {
        Arc::new(Self { files, reads: Default::default(), fault })
    }
}

impl<F: Fn(u64) -> Fault + Send + Sync> ByteSource for Faulty<F> {
    fn read(&self, part: usize, offset: u64, into: &mut [u8], needed: usize) -> io::Result<()> {
        let number = self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match (self.fault)(number) {
            Fault::Error(kind) => return Err(kind.into()),
            Fault::SlowError(time, kind) => {
                std::thread::sleep(time);
                return Err(kind.into());
            }
            Fault::Stall(time) => std::thread::sleep(time),
            Fault::None | Fault::Flip => {}
        }
        self.files.read(part, offset, into, needed)?;
        if let Fault::Flip = (self.fault)(number) {
            into[needed / 2] ^= 1;
        }
        Ok(())
    }
}
