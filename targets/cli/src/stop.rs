//! Handles SIGTERM, with which a scheduler ends long work: the current step is completed first.

use vaquita_quantize::Stop;

use crate::failure::Result;

/// A stop request made by SIGTERM. Further ones change nothing, since a scheduler may signal all processes of a task and
/// its script may pass the signal on as well; Ctrl-C and SIGKILL end the process at once.
pub fn on_sigterm() -> Result<Stop> {
    let stop = Stop::default();
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.flag())?;
    Ok(stop)
}
