//! Slots: a client names one in its requests, and saves, restores or erases what is kept in it.
//!
//! Files are read and written on the caller's thread. The caches belong to the engine's thread, which follows an
//! [`Order`] between two passes.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use super::Engine;
use super::prompts::Owner;
use crate::model::cache::KvCache;
use crate::session::Session;
use crate::session::save::SaveError;

/// An order to the engine's thread, with the channel for its result.
pub(super) enum Order {
    /// The sequence that was used last.
    Find { owner: Owner, found: Sender<Option<(Vec<u32>, KvCache)>> },
    /// Evict until there is room for these bytes.
    MakeRoom { bytes: u64, made: Sender<bool> },
    /// Keep a sequence.
    Keep { owner: Owner, tokens: Vec<u32>, cache: KvCache, kept: Sender<()> },
    /// Forget all sequences, and return the number of their tokens.
    Erase { owner: Owner, erased: Sender<usize> },
}

/// Reason why a slot cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// Nothing is kept of the slot.
    #[error("nothing is kept in the slot: send a request in it first")]
    Empty,
    /// The memory for prompts is too small.
    #[error("the memory for prompts has no room for {bytes} bytes; give it more")]
    NoRoom {
        /// Size of the file.
        bytes: u64,
    },
    /// The model has no fingerprint that a file could carry.
    #[error("slots of a model that is not a GGUF file cannot be saved")]
    NoFingerprint,
    /// The file cannot be written, read or used.
    #[error(transparent)]
    File(#[from] SaveError),
    /// The engine has ended.
    #[error("the engine has ended")]
    Ended,
}

impl Engine {
    /// Writes the last sequence of a client's slot, or with `None` of its requests without a slot, to
    /// a file with a note ([`Session::save`]). Returns the number of its tokens.
    ///
    /// This and the other methods for slots wait for the running pass: do not call them from a
    /// [`Sink`](super::Sink).
    pub fn save_slot(
        &self,
        client: &str,
        slot: Option<usize>,
        path: &Path,
        note: &[u8],
    ) -> Result<usize, SlotError> {
        let fingerprint = self.model.fingerprint.ok_or(SlotError::NoFingerprint)?;
        let owner = Owner { client: client.into(), slot };
        let found = self.order(|found| Order::Find { owner, found })?;
        let (tokens, cache) = found.ok_or(SlotError::Empty)?;
        let count = tokens.len();
        let mut session = self.session();
        session.put(tokens, cache);
        session.save(path, fingerprint, note)?;
        Ok(count)
    }

    /// Keeps the sequence in a file as the last one of a client's slot. Returns the number of its tokens.
    pub fn restore_slot(
        &self,
        client: &str,
        slot: Option<usize>,
        path: &Path,
    ) -> Result<usize, SlotError> {
        let fingerprint = self.model.fingerprint.ok_or(SlotError::NoFingerprint)?;
        let io = |source| SaveError::Io { path: path.into(), source };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        if !self.order(|made| Order::MakeRoom { bytes, made })? {
            return Err(SlotError::NoRoom { bytes });
        }
        let mut session = self.session();
        session.restore(path, fingerprint)?;
        let (tokens, cache) = session.into_parts();
        let (owner, count) = (Owner { client: client.into(), slot }, tokens.len());
        self.order(|kept| Order::Keep { owner, tokens, cache, kept })?;
        Ok(count)
    }

    /// Forgets what is kept in a client's slot, or with `None` all that it sent without a slot, also
    /// on disk. Returns the number of tokens that were in memory.
    pub fn erase_slot(&self, client: &str, slot: Option<usize>) -> Result<usize, SlotError> {
        let owner = Owner { client: client.into(), slot };
        self.order(|erased| Order::Erase { owner, erased })
    }

    fn session(&self) -> Session {
        let model = &self.model;
        Session::new(model.model.clone(), model.pool.clone(), model.session.clone())
    }

    /// Gives an order to the engine's thread, and waits for what comes of it.
    fn order<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T, SlotError> {
        let (send, receive) = channel();
        let mut state = self.shared.lock();
        if state.ended {
            return Err(SlotError::Ended);
        }
        state.orders.push(order(send));
        drop(state);
        self.shared.changed.notify_all();
        receive.recv().map_err(|_| SlotError::Ended)
    }
}
