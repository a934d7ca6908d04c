//! Handles SIGTERM, with which a scheduler ends long work: the current step is completed first.

use vaquita_quantize::Stop;

use crate::failure::Result;

/// A stop request made by SIGTERM. A second SIGTERM ends the process at once.
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
