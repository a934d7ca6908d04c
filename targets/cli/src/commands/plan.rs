//! `vaquita plan`: sizes and expected errors of mixed plans, without quantizing.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;

use vaquita_hub::{Hub, Purpose};
use vaquita_quantize::plan::{Point, map};
use vaquita_quantize::{Allocation, Material, Survey, Target, sources};

use super::quantize::{Calibration, with_bars};
use crate::compute::Compute;
use crate::failure::{Failure, Result};
use crate::files::write_whole;
use crate::hub::named;
use crate::model_argument::ModelArgument;
use crate::published;
use crate::terminal::table;
use crate::{size, slips};

/// Most points of the curve.
const MOST_STEPS: usize = 1000;

/// Arguments of `plan`.
#[derive(clap::Args)]
#[command(mut_arg("model", |model| model.help("Hugging Face folder, GGUF file, or hf:ORG/MODEL of the hub: of a model that is not in its cache, only headers are read, to show which file suits this machine")))]
pub struct Args {
    #[command(flatten)]
    source: ModelArgument,
    /// Calibration file, made by `calibrate`
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Number of sizes on the curve, from the smallest file to twice its size
    #[arg(long, value_name = "N", default_value = "9")]
    steps: NonZero<usize>,
    /// Leave out layers that only draft tokens (MTP), as `quantize --no-mtp` does
    #[arg(long)]
    no_mtp: bool,
    /// Draw the bits of every expert as an SVG file; needs --target-bpw
    #[arg(long, value_name = "FILE", requires = "target_bpw")]
    map: Option<PathBuf>,
    /// Size of the plan to draw: file bits per weight
    #[arg(long, value_name = "BITS", requires = "map")]
    target_bpw: Option<f64>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether an option needs the weights themselves.
    fn is_for_weights(&self) -> bool {
        let drawn = self.map.is_some() || self.target_bpw.is_some();
        drawn || self.calibration.is_some() || self.no_mtp
    }
}

/// Runs the command.
pub fn run(compute: &Compute, args: Args) -> Result {
    if args.steps.get() > MOST_STEPS {
        let message = format!("--steps is {}; allowed: 1 to {MOST_STEPS}", args.steps);
        return Err(Failure::Usage(message));
    }
    compute.install()?;
    let for_weights = args.is_for_weights();
    let model = args.source.path()?;
    let source = match named(&model)? {
        None => model,
        Some(name) => {
            let hub = Hub::from_env()?;
            match hub.cached(&name, Purpose::Quantize).filter(|path| path.is_dir()) {
                Some(folder) => folder,
                None if for_weights => {
                    let message = "--calibration, --no-mtp, --map and --target-bpw need the weights: fetch them with `vaquita pull`";
                    return Err(Failure::Usage(message.into()));
                }
                None => return published::run(compute, &hub, &name, args.json),
            }
        }
    };
    slips::check_model(&source)?;
    let mut opened = sources::open(&source)?;
    if args.no_mtp {
        opened = opened.without_mtp();
    }
    super::quantize::note_left_out(&opened);
    let calibration = args.calibration.as_deref();
    let calibration = calibration
        .map(|path| Calibration::open(path, &source, &mut opened.identity))
        .transpose()?;
    let importance = calibration.as_ref().map(Calibration::importance);
    let tokenizer = super::quantize::inherited_metadata(&source, &opened)?;
    let (weights, identity) = (opened.weights.as_ref(), &opened.identity);
    let material = Material { weights, identity, tokenizer: &tokenizer, importance };
    let survey = with_bars(|progress| Survey::new(&material, progress))?;
    let curve = survey.curve(&material, args.steps.get())?;
    if let (Some(path), Some(bits)) = (&args.map, args.target_bpw) {
        let target = Target::BitsPerWeight(bits);
        let plan = survey.plan(&material, target, Allocation::PerExpert)?;
        write_whole(path, map(weights.config(), &plan, importance).as_bytes())?;
        eprintln!("{}: types of all experts at {bits} bits per weight, drawn", path.display());
    }
    if args.json {
        writeln!(
            io::stdout(),
            "{}",
            serde_json::to_string(&serde_json::json!({ "curve": curve }))?
        )?;
    } else {
        write!(io::stdout(), "{}", describe(&curve))?;
    }
    Ok(())
}

fn describe(curve: &[Point]) -> String {
    let mut rows = vec![["size", "bits per weight", "predicted error"].map(String::from).to_vec()];
    rows.extend(curve.iter().map(|point| {
        vec![
            size::show(point.file_bytes),
            format!("{:.3}", point.bits_per_weight),
            format!("{:.2}%", point.predicted_error * 100.0),
        ]
    }));
    format!("{}errors are relative to that of the smallest file\n", table(&rows))
}
