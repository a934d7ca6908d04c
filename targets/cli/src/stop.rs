//! How a scheduler ends long work: SIGTERM, and time to finish a step.

use vaquita_quantize::Stop;

use crate::failure::Result;

/// A request to stop that SIGTERM makes. A second one ends the process at once, as it would without this.
pub fn on_sigterm() -> Result<Stop> {
    let stop = Stop::default();
    #[cfg(unix)]
    {
        use signal_hook::consts::SIGTERM;
        const TERMINATED: i32 = 128 + SIGTERM;
        signal_hook::flag::register_conditional_shutdown(SIGTERM, TERMINATED, stop.flag())?;
        signal_hook::flag::register(SIGTERM, stop.flag())?;
    }
    Ok(stop)
}
