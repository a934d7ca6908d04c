//! A slice that several threads write at the same time, each in its own part.

use std::marker::PhantomData;

/// A mutable slice shared by threads that write disjoint ranges.
#[derive(Clone, Copy)]
pub(super) struct Disjoint<'a> {
    start: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: elements are reached only through `write` and `slice`, whose callers keep them disjoint.
unsafe impl Send for Disjoint<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// # Safety
    /// No other thread uses these elements.
    #[inline(always)]
    pub(super) unsafe fn slice(&self, at: usize, len: usize) -> &'a mut [f32] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: within the original slice, and not aliased, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}
