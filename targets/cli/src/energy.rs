//! Options of commands that measure energy: selects the meter.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use vaquita_runtime::host::Host;
use vaquita_runtime::measure::cost::{MeterInfo, mean_watts};
use vaquita_runtime::measure::custom::Assumed;
use vaquita_runtime::measure::external::External;
use vaquita_runtime::measure::meter::{Meter, MeterKind, Meters};
use vaquita_runtime::measure::sampler::MeterSampler;

use crate::failure::{Failure, Result};

/// Meter options.
#[derive(Args, Clone, Debug)]
pub struct EnergyArgs {
    /// Measure energy with an idle baseline: auto, ina3221, pmic, rapl, battery
    #[arg(long, value_name = "METER", value_parser = choice)]
    energy: Option<Choice>,
    /// External meter: a shell command that prints lines such as `7.31 W` or `1234.5 J`
    #[arg(long, value_name = "COMMAND", conflicts_with = "energy")]
    meter_command: Option<String>,
    /// Estimate energy from this constant power; results are marked as an estimate
    #[arg(long, value_name = "W", conflicts_with_all = ["energy", "meter_command"])]
    assume_watts: Option<f64>,
    /// Duration of the idle baseline in seconds; 0 disables it
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    idle: f64,
    /// Recording of a machine to read meters from, for tests
    #[arg(long, value_name = "FILE", env = "VAQUITA_RECORDING", hide = true)]
    recording: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Auto,
    Kind(MeterKind),
}

fn choice(name: &str) -> std::result::Result<Choice, String> {
    if name == "auto" {
        return Ok(Choice::Auto);
    }
    let names = || MeterKind::ALL.map(MeterKind::name).join(", ");
    MeterKind::from_name(name)
        .map(Choice::Kind)
        .ok_or_else(|| format!("allowed: auto, {}", names()))
}

/// The measured machine: this one, except in tests.
pub fn host(recording: Option<&PathBuf>) -> Result<Arc<Host>> {
    let Some(path) = recording else { return Ok(Arc::new(Host::live())) };
    let failed = |error: String| Failure::Error(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(Host::recorded(&text).map_err(|error| failed(error.to_string()))?))
}

/// A running meter with its baseline.
pub struct Energy {
    /// The machine.
    pub host: Arc<Host>,
    /// Samples the meter.
    pub sampler: MeterSampler,
    /// The meter, or the reason why there is none.
    pub source: std::result::Result<MeterInfo, String>,
    /// Idle power in watts; `None` if it was not requested or not measured.
    pub idle_watts: Option<f64>,
    /// Whether energy was requested, rather than read because a meter exists.
    pub asked: bool,
}

impl EnergyArgs {
    /// Starts to measure, first the idle baseline. The model must be loaded and idle.
    pub fn start(&self) -> Result<Energy> {
        if !(0.0..=3600.0).contains(&self.idle) {
            let message = format!("--idle is {}; allowed: 0 to 3600 seconds", self.idle);
            return Err(Failure::Usage(message));
        }
        let host = host(self.recording.as_ref())?;
        let meter = self.meter(&host)?;
        let estimate = meter.as_ref().is_ok_and(|meter| meter.is_estimate());
        let source = meter.as_deref().map(MeterInfo::of).map_err(String::clone);
        let sampler = MeterSampler::start(meter.ok(), host.clone());
        let asked =
            self.energy.is_some() || self.meter_command.is_some() || self.assume_watts.is_some();
        let mut idle_watts = None;
        // A stated power has no idle baseline.
        if asked && self.idle > 0.0 && source.is_ok() && !estimate {
            let before = sampler.mark();
            if host.is_live() {
                std::thread::sleep(Duration::from_secs_f64(self.idle));
            }
            let idle = sampler.mark().since(&before);
            idle_watts = mean_watts(&idle).filter(|_| idle.fresh);
        }
        Ok(Energy { host, sampler, source, idle_watts, asked })
    }

    /// The meter, or the reason why there is none. A meter that was requested by name must exist.
    fn meter(&self, host: &Arc<Host>) -> Result<std::result::Result<Box<dyn Meter>, String>> {
        if let Some(watts) = self.assume_watts {
            let bad =
                || Failure::Usage(format!("--assume-watts is {watts}; give a power, like 6.5"));
            return Ok(Ok(Box::new(Assumed::new(watts).ok_or_else(bad)?)));
        }
        if let Some(line) = &self.meter_command {
            let meter = External::command(line);
            let meter =
                meter.map_err(|error| Failure::Error(format!("--meter-command: {error}")))?;
            return Ok(Ok(Box::new(meter)));
        }
        let Some(Choice::Kind(kind)) = self.energy else {
            return Ok(Meters::find(host).into_best());
        };
        let none = || Failure::Error(format!("--energy {}: this machine has none", kind.name()));
        Ok(Ok(kind.find(host).ok_or_else(none)??))
    }
}
