//! Tiers that are another tier with a few better instructions.

/// Operations that are another tier's.
macro_rules! forward {
    ($(fn $name:ident$(<const $shift:ident: i32>)?($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        #[inline(always)]
        fn $name$(<const $shift: i32>)?(self, $($arg: $ty),*) -> $out {
            self.0.$name$(::<$shift>)?($($arg),*)
        }
    )*};
}

pub(super) use forward;
