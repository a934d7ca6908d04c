//! What a code does to the reference model: its routed experts are written and read back, everything else stays.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use vaquita_calibration::divergence::{Divergence, divergence};
use vaquita_calibration::statistics::CalibrationFile;
use vaquita_calibration::{Subject, read_documents};
use vaquita_quantize::importance::Importance;
use vaquita_quantize::plan::{expert_layers, expert_specs};
use vaquita_quantize::sources::HfFolder;
use vaquita_runtime::blocks::Matrix;
use vaquita_runtime::checkpoint::{
    Config, Expert, ExpertSpec, Projection, TensorSpec, Weights, WeightsError,
};
use vaquita_runtime::model::Model;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::SessionOptions;
use vaquita_runtime::session::prompt::Prompter;
use vaquita_runtime::tokenizer::Tokenizer;

use crate::Result;
use crate::code::Code;
use crate::data::Data;
use crate::factors::Factors;
use crate::search::{Scratch, write_row};

/// The reference model, what it reads, and what calibration knows of it.
pub struct Bench {
    folder: Arc<HfFolder>,
    prompter: Prompter,
    full: Subject,
    texts: Vec<String>,
    calibration: Option<CalibrationFile>,
    specs: Vec<ExpertSpec>,
}

impl Bench {
    pub fn open(path: &Path, documents: usize, calibration: Option<&Path>) -> Result<Self> {
        let folder = Arc::new(HfFolder::open(path)?);
        let prompter = Prompter::new(Arc::new(Tokenizer::from_folder(path)?))?;
        let full = subject(&prompter, folder.clone())?;
        let mut texts = read_documents(&path.join("heldout.jsonl"))?;
        texts.truncate(documents);
        let calibration = calibration.map(CalibrationFile::open).transpose()?;
        let config = folder.config();
        let layers = expert_layers(config).filter(|layer| layer.0 < config.num_hidden_layers);
        let specs = layers.flat_map(|layer| expert_specs(config, layer)).collect();
        Ok(Self { folder, prompter, full, texts, calibration, specs })
    }

    /// Whole matrices of the experts: of every so many, one projection.
    pub fn matrices(&self, projection: Projection, step: usize) -> Result<Vec<Data>> {
        let some = self.specs.iter().step_by(step);
        some.map(|spec| {
            let matrix = projection_of(&self.folder.expert(spec)?, projection).clone();
            Ok(Data { cols: matrix.cols(), values: matrix.decode() })
        })
        .collect()
    }

    /// The divergence of the model whose experts are written in a code from what it was.
    pub fn measure(&self, code: &dyn Code, rotated: bool) -> Result<Divergence> {
        let written = self.specs.par_iter().map_init(Scratch::default, |scratch, spec| {
            Ok(((spec.layer.0, spec.expert.0), self.write(code, spec, rotated, scratch)?.0))
        });
        let experts = written.collect::<Result<_>>()?;
        let rewritten = Rewritten { folder: self.folder.clone(), experts };
        let subject = subject(&self.prompter, Arc::new(rewritten))?;
        Ok(divergence(&subject, &self.full, &self.texts, &|_, _| {})?)
    }

    /// The errors of every so many experts under the second moments of their inputs, added up.
    pub fn error(&self, code: &dyn Code, rotated: bool, step: usize) -> Result<f64> {
        let some: Vec<_> = self.specs.iter().step_by(step).collect();
        let errors = some.par_iter().map_init(Scratch::default, |scratch, spec| {
            Ok(self.write(code, spec, rotated, scratch)?.1)
        });
        Ok(errors.collect::<Result<Vec<f64>>>()?.iter().sum())
    }

    /// An expert as it is after writing, and its error where there is a calibration.
    fn write(
        &self,
        code: &dyn Code,
        spec: &ExpertSpec,
        rotated: bool,
        scratch: &mut Scratch,
    ) -> Result<(Expert, f64)> {
        let expert = self.folder.expert(spec)?;
        let mut error = 0.0;
        let mut write = |projection| {
            let matrix = projection_of(&expert, projection);
            let calibration = self.calibration.as_ref();
            let hessian = calibration.and_then(|all| all.expert_hessian(spec, projection));
            let mut data = Data { cols: matrix.cols(), values: matrix.decode() };
            let rotations = if rotated { data.rotations() } else { [None, None] };
            data.rotate(&rotations);
            let factors = hessian.and_then(|all| Factors::new(&all, rotations[0].as_ref()));
            for row in data.values.chunks_exact_mut(data.cols) {
                let values = write_row(code, row, factors.as_ref(), scratch).values;
                if let Some(factors) = &factors {
                    let errors: Vec<f32> = row.iter().zip(&values).map(|(a, b)| a - b).collect();
                    error += factors.error(&errors);
                }
                row.copy_from_slice(&values);
            }
            data.rotate_back(&rotations);
            Matrix::from_f32(matrix.rows(), matrix.cols(), &data.values)
        };
        let expert = Expert {
            gate: write(Projection::Gate)?,
            up: write(Projection::Up)?,
            down: write(Projection::Down)?,
        };
        Ok((expert, error))
    }
}

fn projection_of(expert: &Expert, projection: Projection) -> &Matrix {
    match projection {
        Projection::Gate => &expert.gate,
        Projection::Up => &expert.up,
        Projection::Down => &expert.down,
    }
}

fn subject(prompter: &Prompter, weights: Arc<dyn Weights>) -> Result<Subject> {
    let model = Arc::new(Model::load(weights)?);
    let options = SessionOptions { cache: CacheType::F32, ..SessionOptions::default() };
    Ok(Subject { model, prompter: prompter.clone(), options })
}

/// A checkpoint with other experts.
struct Rewritten {
    folder: Arc<HfFolder>,
    experts: HashMap<(usize, usize), Expert>,
}

impl Weights for Rewritten {
    fn config(&self) -> &Config {
        self.folder.config()
    }

    fn tensor(&self, spec: &TensorSpec) -> std::result::Result<Option<Matrix>, WeightsError> {
        self.folder.tensor(spec)
    }

    fn expert(&self, spec: &ExpertSpec) -> std::result::Result<Expert, WeightsError> {
        match self.experts.get(&(spec.layer.0, spec.expert.0)) {
            Some(expert) => Ok(expert.clone()),
            None => self.folder.expert(spec),
        }
    }
}
