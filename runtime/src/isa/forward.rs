//! Tiers that extend another tier by a few better instructions.

/// Forwards operations to another tier.
macro_rules! forward {
    ($(fn $name:ident$(<const $number:ident: $of:ty>)?($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        #[inline(always)]
        fn $name$(<const $number: $of>)?(self, $($arg: $ty),*) -> $out {
            self.0.$name$(::<$number>)?($($arg),*)
        }
    )*};
}

pub(in crate::isa) use forward;
