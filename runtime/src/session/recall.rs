//! Prompts that were read before, for a session.

use crate::model::cache::KvCache;

/// Keeps sequences and finds them again.
pub trait Recall: Send {
    /// A cache with the first of `tokens`, clearly more than `known` of them; `None` if there is none.
    fn find(&self, tokens: &[u32], known: usize) -> Option<KvCache>;

    /// Keeps a sequence, of which `cache` holds `tokens`.
    fn keep(&self, tokens: &[u32], cache: &KvCache);
}
