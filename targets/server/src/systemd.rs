//! Tells systemd about the state of the service (`sd_notify`).

use std::env;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Sends a state, if systemd has asked for it (`NOTIFY_SOCKET`).
pub(crate) fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // Nothing can be done where systemd does not listen.
    let _ = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::SocketAddr;
            SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.send_to_addr(state.as_bytes(), &address))
        }
        _ => socket.send_to(state.as_bytes(), path),
    };
}

/// Time between two signs of life that systemd expects; `None` if it expects none.
pub(crate) fn watchdog() -> Option<Duration> {
    let microseconds: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(microseconds / 2)).filter(|time| !time.is_zero())
}
