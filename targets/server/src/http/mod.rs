//! HTTP below the APIs: connections, limits, keys, bodies, log and figures.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod guard;
pub(crate) mod io;
pub(crate) mod json;
pub(crate) mod keys;
pub(crate) mod listen;
pub(crate) mod metrics;
pub(crate) mod record;
pub(crate) mod sse;
