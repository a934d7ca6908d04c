//! Layer-streamed forward pass: runs all tokens through one layer before loading the next. In
//! memory are one layer, the activations, and the statistics of that layer.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use vaquita_quantize::Part;
use vaquita_runtime::blocks::Matrix;
use vaquita_runtime::checkpoint::{Config, Expert, ExpertId, LayerId, Weights, WeightsError};
use vaquita_runtime::model::cache::LayerCache;
use vaquita_runtime::model::layerwise::Layerwise;
use vaquita_runtime::model::observer::{ExpertInputs, Observer};
use vaquita_runtime::model::{Arrivals, Compute, ExpertStore, ModelError, Visit};
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::session::{SessionError, SessionOptions};
use vaquita_runtime::threads::Pool;

use super::exact::{ExactExpert, ExactStatistics, OutOfRange};
use super::file::CalibrationError;
use super::hidden_states::HiddenStates;
use crate::{EvalError, subject};

/// Bytes of hidden states above which they are kept in a file.
pub const STATES_IN_MEMORY: usize = 256 << 20;
/// Bytes of activations within a layer. With more tokens per batch, each expert is fetched fewer
/// times.
const SCRATCH: usize = 256 << 20;

/// Everything needed to run texts through a model.
pub struct Calibrator {
    /// Weights of the model.
    pub weights: Arc<dyn Weights>,
    /// Tokenizes texts.
    pub prompter: Prompter,
    /// Session options.
    pub options: SessionOptions,
    /// Thread pool.
    pub pool: Arc<Pool>,
}

/// Options of a forward pass.
#[derive(Clone, Debug)]
pub struct ForwardOptions {
    /// Block width of products, in inputs; products are not collected if `None`.
    pub block: Option<usize>,
    /// Folder for hidden states that are too large for memory.
    pub folder: PathBuf,
    /// Limit on the hidden states in memory, in bytes.
    pub states_in_memory: usize,
}

impl ForwardOptions {
    /// Options for a calibration that ends in the file `out`.
    pub fn beside(out: &Path, block: Option<usize>) -> Self {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_path_buf();
        Self { block, folder, states_in_memory: STATES_IN_MEMORY }
    }
}

/// Texts on their way through a model.
pub struct LayerwiseForward {
    model: Layerwise,
    options: SessionOptions,
    pool: Arc<Pool>,
    block: Option<usize>,
    folder: PathBuf,
    states: HiddenStates,
    /// End of each document, in tokens.
    ends: Vec<usize>,
    /// Tokens of all documents, where layers have embeddings of their own; otherwise empty.
    tokens: Vec<u32>,
    /// Caches of each document in the layers whose keys and values later layers use.
    kept: BTreeMap<usize, Vec<LayerCache>>,
    /// CRC-32 of the tokens of all parts' documents.
    checksum: u32,
    layers_done: usize,
}

impl LayerwiseForward {
    /// Tokenizes texts, each after the begin-of-sentence token, and embeds them.
    pub fn new(
        calibrator: Calibrator,
        texts: &[String],
        options: ForwardOptions,
    ) -> Result<Self, EvalError> {
        Self::of_part(calibrator, texts, None, options)
    }

    /// Tokenizes and embeds a part's share of the documents. Parts have about equal numbers of
    /// tokens.
    pub fn of_part(
        calibrator: Calibrator,
        texts: &[String],
        part: Option<Part>,
        options: ForwardOptions,
    ) -> Result<Self, EvalError> {
        let Calibrator { weights, prompter, options: session, pool } = calibrator;
        let model = Layerwise::new(weights.clone(), Arc::new(OneByOne { weights }));
        let model = model.map_err(in_model)?;
        let context = match session.context {
            0 => model.config().max_position_embeddings,
            context => context,
        };
        let mut documents = subject::tokenize(&prompter, context, texts)?;
        let mut hasher = crc32fast::Hasher::new();
        for document in &documents {
            hasher.update(&(document.len() as u64).to_le_bytes());
            document.iter().for_each(|token| hasher.update(&token.to_le_bytes()));
        }
        let checksum = hasher.finalize();
        if let Some(part) = part {
            documents = shared(documents, part);
        }
        let ForwardOptions { block, folder, states_in_memory } = options;
        let in_states = |source| EvalError::Io { path: folder.clone(), source };
        let tokens = documents.iter().map(Vec::len).sum();
        let width = model.config().hidden_size;
        let mut states =
            HiddenStates::new(tokens, width, &folder, states_in_memory).map_err(in_states)?;
        let mut ends = Vec::with_capacity(documents.len());
        let mut end = 0;
        for document in &documents {
            let embedded = model.embed(document).map_err(SessionError::from)?;
            states.write(end, &embedded).map_err(in_states)?;
            end += document.len();
            ends.push(end);
        }
        let tokens = match model.config().per_layer_width {
            0 => Vec::new(),
            _ => documents.concat(),
        };
        let (kept, layers_done) = (BTreeMap::new(), 0);
        Ok(Self {
            model,
            options: session,
            pool,
            block,
            folder,
            states,
            ends,
            tokens,
            kept,
            checksum,
            layers_done,
        })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        self.model.config()
    }

    /// Block width of products, in inputs.
    pub fn block(&self) -> Option<usize> {
        self.block
    }

    /// Number of tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Description of everything besides source and products that determines the statistics: tokens
    /// of all parts, and the cache's element type.
    pub(super) fn description(&self) -> String {
        format!("tokens crc32:{:08x}, cache {}", self.checksum, self.options.cache.name())
    }

    /// Writes the hidden states to a file and returns their checksum.
    pub(super) fn save(&mut self, path: &Path) -> io::Result<u32> {
        self.states.save(path)
    }

    /// Resumes after that many layers with the hidden states of a file. If the file is damaged, or
    /// later layers need keys and values of earlier ones, which it does not have, nothing changes.
    pub(super) fn resume(&mut self, layers: usize, path: &Path, checksum: u32) -> io::Result<()> {
        let config = self.config();
        if (layers..config.num_hidden_layers).any(|layer| config.cache_layer(layer) < layers) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.states.load(path, checksum)?;
        self.layers_done = layers;
        Ok(())
    }

    /// The next layer; `None` after the last.
    pub fn next(&self) -> Option<LayerId> {
        (self.layers_done < self.config().num_hidden_layers).then_some(LayerId(self.layers_done))
    }

    /// Runs all tokens through the next layer and returns the statistics of its matrices. Progress
    /// is in tokens, each counted once per layer.
    pub fn layer(
        &mut self,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ExactStatistics, EvalError> {
        let sums = Sums::new(self.config(), self.block);
        self.through(Some(&sums), on_progress)?;
        sums.finish()
    }

    /// Runs all tokens through the next layer without collecting statistics.
    pub fn skip_layer(
        &mut self,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), EvalError> {
        self.through(None, on_progress)
    }

    fn through(
        &mut self,
        sums: Option<&Sums>,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), EvalError> {
        let Some(id) = self.next() else { return Ok(()) };
        if self.tokens() == 0 {
            self.layers_done += 1;
            return Ok(());
        }
        let (tokens, config) = (self.tokens(), self.model.config());
        let (width, chunk) = (config.hidden_size, self.options.prefill_chunk.max(1));
        let ctx = Compute::new(self.options.tier, &self.pool);
        let ctx = match sums {
            Some(sums) => ctx.watched_by(sums),
            None => ctx,
        };
        let in_states = |source| EvalError::Io { path: self.folder.clone(), source };
        let layer = self.model.layer(id).map_err(in_model)?;
        let empty = || LayerCache::new(config, id.0, self.options.cache);
        let source = config.cache_layer(id.0);
        let is_source =
            (id.0 + 1..config.num_hidden_layers).any(|later| config.cache_layer(later) == id.0);
        // One cache after the other, or one for each document where several layers use them.
        let mut caches = match source == id.0 {
            true => vec![empty()],
            false => self.kept.remove(&source).unwrap_or_default(),
        };
        let of = |document: usize| if is_source || source != id.0 { document } else { 0 };
        // Their projection is counted once.
        let of_model = if id.0 == 0 { ctx } else { Compute::new(self.options.tier, &self.pool) };
        let (mut document, mut first) = (0, 0);
        for batch in batches(tokens, config) {
            let mut x = self.states.read(batch.clone()).map_err(in_states)?;
            let mut at = batch.start;
            while at < batch.end {
                if at == self.ends[document] {
                    (document, first) = (document + 1, at);
                    if is_source {
                        caches.push(empty());
                    } else if source == id.0 {
                        caches[0] = empty();
                    }
                }
                let end = (at + chunk).min(self.ends[document]).min(batch.end);
                let x = &mut x[(at - batch.start) * width..(end - batch.start) * width];
                let cache = &mut caches[of(document)];
                layer.mix(&ctx, x, cache, at - first).map_err(in_model)?;
                at = end;
            }
            let inputs = match self.tokens.get(batch.clone()) {
                Some(tokens) => self.model.inputs(&of_model, tokens).map_err(SessionError::from)?,
                None => Vec::new(),
            };
            layer.feed_forward(&ctx, &inputs, &mut x).map_err(in_model)?;
            self.states.write(batch.start, &x).map_err(in_states)?;
            on_progress(id.0 * tokens + batch.end, config.num_hidden_layers * tokens);
        }
        drop(layer);
        if is_source || source != id.0 {
            self.kept.insert(source, caches);
        }
        self.layers_done += 1;
        Ok(())
    }

    /// Statistics of the output head, after the last layer.
    pub fn output(&mut self) -> Result<ExactStatistics, EvalError> {
        let sums = Sums::new(self.config(), self.block);
        let ctx = Compute::new(self.options.tier, &self.pool).watched_by(&sums);
        for batch in batches(self.tokens(), self.model.config()) {
            let x = self.states.read(batch);
            let x = x.map_err(|source| EvalError::Io { path: self.folder.clone(), source })?;
            self.model.show_output(&ctx, &x).map_err(in_model)?;
        }
        sums.finish()
    }
}

/// A part's share of documents: a document belongs to the part that contains its midpoint, in
/// tokens.
fn shared(documents: Vec<Vec<u32>>, part: Part) -> Vec<Vec<u32>> {
    let total: usize = documents.iter().map(Vec::len).sum();
    let share = part.share(total as u64);
    let mut before = 0;
    let mine = documents.into_iter().filter(|document| {
        let middle = before + document.len() / 2;
        before += document.len();
        share.contains(&(middle as u64))
    });
    mine.collect()
}

pub(super) fn in_model(source: WeightsError) -> EvalError {
    EvalError::Session(ModelError::from(source).into())
}

/// Ranges of tokens that are computed together.
fn batches(tokens: usize, config: &Config) -> impl Iterator<Item = Range<usize>> + use<> {
    let outputs = (config.moe.num_experts_per_tok + 4) * config.hidden_size;
    let hidden = 4 * (config.intermediate_size + config.hidden_size);
    let inputs = 3 * config.num_hidden_layers * config.per_layer_width;
    let batch = (SCRATCH / 4 / (outputs.max(hidden) + inputs).max(1)).max(1);
    (0..tokens).step_by(batch).map(move |at| at..tokens.min(at + batch))
}

/// Expert store that loads experts for one visit and drops them after it.
struct OneByOne {
    weights: Arc<dyn Weights>,
}

impl ExpertStore for OneByOne {
    fn fetch<'a>(&'a self, visit: &Visit) -> Result<Box<dyn Arrivals + 'a>, WeightsError> {
        Ok(Box::new(Fetch {
            weights: &*self.weights,
            layer: visit.layer,
            wanted: visit.wanted().into(),
            read: VecDeque::new(),
            handed_out: None,
            first: true,
        }))
    }
}

/// The experts of one visit, handed out one at a time.
struct Fetch<'a> {
    weights: &'a dyn Weights,
    layer: LayerId,
    wanted: VecDeque<ExpertId>,
    read: VecDeque<(ExpertId, Expert)>,
    handed_out: Option<(ExpertId, Expert)>,
    first: bool,
}

impl Fetch<'_> {
    /// Gives the pages of the expert that was handed out back to the system.
    fn release(&mut self) {
        if let Some((_, expert)) = self.handed_out.take() {
            [&expert.gate, &expert.up, &expert.down].into_iter().for_each(Matrix::release);
        }
    }
}

impl Arrivals for Fetch<'_> {
    fn next_ready(&mut self) -> Result<Option<Vec<(ExpertId, &Expert)>>, WeightsError> {
        self.release();
        if std::mem::take(&mut self.first) {
            return Ok(Some(Vec::new()));
        }
        if self.read.is_empty() {
            // Some sources compute their weights, which all threads can share.
            let count = self.wanted.len().min(rayon::current_num_threads());
            let ids: Vec<ExpertId> = self.wanted.drain(..count).collect();
            let (weights, layer) = (self.weights, self.layer);
            let config = weights.config();
            let read =
                |id: ExpertId| Ok((id, weights.expert(&config.family.expert(config, layer, id))?));
            self.read = ids.into_par_iter().map(read).collect::<Result<_, WeightsError>>()?;
        }
        self.handed_out = self.read.pop_front();
        Ok(self.handed_out.as_ref().map(|(id, expert)| vec![(*id, expert)]))
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Accumulates observed inputs. The sums are exact, so they do not depend on threads, on the batch
/// size, or on which documents came before.
pub(super) struct Sums {
    experts: usize,
    found: Mutex<Found>,
}

/// Sums so far, and the first matrix whose sums were out of range.
#[derive(Default)]
struct Found {
    statistics: ExactStatistics,
    broken: Option<(String, OutOfRange)>,
}

impl Sums {
    pub fn new(config: &Config, block: Option<usize>) -> Self {
        let statistics = ExactStatistics { block, ..ExactStatistics::default() };
        let found = Mutex::new(Found { statistics, broken: None });
        Self { experts: config.moe.n_routed_experts, found }
    }

    pub fn finish(self) -> Result<ExactStatistics, EvalError> {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        match found.broken {
            None => Ok(found.statistics),
            Some((name, source)) => Err(CalibrationError::OutOfRange { name, source }.into()),
        }
    }

    fn add(
        &self,
        name: impl FnOnce() -> String,
        add: impl FnOnce(&mut ExactStatistics) -> Result<(), OutOfRange>,
    ) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.broken.is_none()
            && let Err(error) = add(&mut found.statistics)
        {
            found.broken = Some((name(), error));
        }
    }
}

impl Observer for Sums {
    fn matrix(&self, name: &str, width: usize, inputs: &[f32]) {
        self.add(
            || name.into(),
            |sums| {
                let block = sums.block;
                sums.matrices.entry(name.into()).or_default().add(inputs, width, None, block)
            },
        );
    }

    fn expert(&self, layer: LayerId, expert: ExpertId, inputs: &ExpertInputs) {
        let name = || format!("blk.{}.ffn_expert.{}", layer.0, expert.0);
        self.add(name, |sums| {
            let block = sums.block;
            let layer = sums.experts.entry(layer.0).or_default();
            layer.resize(self.experts, ExactExpert::default());
            match layer.get_mut(expert.0) {
                Some(expert) => expert.add(inputs, block),
                None => Ok(()),
            }
        });
    }
}
