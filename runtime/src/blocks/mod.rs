//! Block types: layouts of weight matrices in bytes, one file per type, and the registry.
//!
//! Plain types (F32, F16, BF16) are row-major, as in a checkpoint. Coded types (e2, e3, e4, e8) are
//! stored in the order in which kernels read them; see [`coded`]. [`ggml`]'s types are read from
//! other programs' files and never written. Decoding here is the reference for every kernel.

pub mod coded;
mod e2;
mod e3;
mod e4;
mod e8;
pub mod ggml;
mod matrix;
mod plain;

pub use matrix::{Matrix, MatrixError};

/// Number of weights along a row that share one scale.
pub const GROUP: usize = 32;
/// Number of rows that are stored together, so that one load serves all of them.
pub const TILE_ROWS: usize = 8;

/// Storage type of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BlockType {
    /// IEEE single precision, row-major.
    F32 = 0,
    /// IEEE half precision, row-major.
    F16 = 1,
    /// The upper half of a single, row-major.
    BF16 = 2,
    /// 2-bit codes into a table of 4, a scale per 32: 2.25 bits and 32 bits per row.
    E2 = 16,
    /// 3-bit codes into a table of 8, a scale per 32: 3.25 bits and 32 bits per row.
    E3 = 17,
    /// 4-bit codes into a table of 16, a scale per 32: 4.25 bits and 32 bits per row.
    E4 = 18,
    /// 8-bit integers, a scale per 32: 8.25 bits and 32 bits per row.
    E8 = 19,
    /// ggml's Q4_0: 4.5 bits.
    Q4_0 = 34,
    /// ggml's Q4_1: 5 bits.
    Q4_1 = 35,
    /// ggml's Q5_0: 5.5 bits.
    Q5_0 = 38,
    /// ggml's Q5_1: 6 bits.
    Q5_1 = 39,
    /// ggml's Q8_0: 8.5 bits.
    Q8_0 = 40,
    /// ggml's Q2_K: 2.625 bits.
    Q2K = 42,
    /// ggml's Q3_K: 3.4375 bits.
    Q3K = 43,
    /// ggml's Q4_K: 4.5 bits.
    Q4K = 44,
    /// ggml's Q5_K: 5.5 bits.
    Q5K = 45,
    /// ggml's Q6_K: 6.5625 bits.
    Q6K = 46,
    /// ggml's IQ2_XXS: 2.0625 bits.
    Iq2Xxs = 48,
    /// ggml's IQ2_XS: 2.3125 bits.
    Iq2Xs = 49,
    /// ggml's IQ3_XXS: 3.0625 bits.
    Iq3Xxs = 50,
    /// ggml's IQ1_S: 1.5625 bits.
    Iq1S = 51,
    /// ggml's IQ4_NL: 4.5 bits.
    Iq4Nl = 52,
    /// ggml's IQ3_S: 3.4375 bits.
    Iq3S = 53,
    /// ggml's IQ2_S: 2.5625 bits.
    Iq2S = 54,
    /// ggml's IQ4_XS: 4.25 bits.
    Iq4Xs = 55,
    /// ggml's IQ1_M: 1.75 bits.
    Iq1M = 61,
    /// ggml's TQ1_0: 1.6875 bits.
    Tq1_0 = 66,
    /// ggml's TQ2_0: 2.0625 bits.
    Tq2_0 = 67,
    /// ggml's MXFP4: 4.25 bits.
    Mxfp4 = 71,
    /// ggml's NVFP4: 4.5 bits.
    Nvfp4 = 72,
    /// ggml's Q1_0: 1.125 bits.
    Q1_0 = 73,
    /// ggml's Q2_0: 2.25 bits.
    Q2_0 = 74,
    /// ik_llama.cpp's IQ2_K: 2.375 bits.
    Iq2K = 169,
    /// ik_llama.cpp's IQ3_K: 3.4375 bits.
    Iq3K = 170,
    /// ik_llama.cpp's IQ4_K: 4.5 bits.
    Iq4K = 171,
    /// ik_llama.cpp's IQ5_K: 5.5 bits.
    Iq5K = 172,
    /// ik_llama.cpp's IQ6_K: 6.625 bits.
    Iq6K = 173,
    /// ik_llama.cpp's IQ4_KS: 4.25 bits and 32 bits per row.
    Iq4Ks = 176,
    /// ik_llama.cpp's IQ2_KS: 2.1875 bits and 16 bits per row.
    Iq2Ks = 177,
    /// ik_llama.cpp's IQ4_KSS: 4 bits and 32 bits per row.
    Iq4Kss = 178,
    /// ik_llama.cpp's IQ5_KS: 5.25 bits and 32 bits per row.
    Iq5Ks = 184,
    /// ik_llama.cpp's IQ3_KS: 3.1875 bits and 16 bits per row.
    Iq3Ks = 188,
}

impl BlockType {
    /// Types that the quantizer writes, smallest first.
    pub const WRITTEN: [Self; 7] =
        [Self::E2, Self::E3, Self::E4, Self::E8, Self::F16, Self::BF16, Self::F32];

    /// Every block type.
    pub const ALL: [Self; 42] = [
        Self::E2,
        Self::E3,
        Self::E4,
        Self::E8,
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::Iq1S,
        Self::Iq1M,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq3Xxs,
        Self::Iq3S,
        Self::Nvfp4,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::Q1_0,
        Self::Q2_0,
        Self::Iq2K,
        Self::Iq3K,
        Self::Iq4K,
        Self::Iq5K,
        Self::Iq6K,
        Self::Iq4Ks,
        Self::Iq2Ks,
        Self::Iq4Kss,
        Self::Iq5Ks,
        Self::Iq3Ks,
    ];

    /// Name in files, options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::E2 => "e2",
            Self::E3 => "e3",
            Self::E4 => "e4",
            Self::E8 => "e8",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Iq4Nl => "iq4_nl",
            Self::Iq4Xs => "iq4_xs",
            Self::Mxfp4 => "mxfp4",
            Self::Iq1S => "iq1_s",
            Self::Iq1M => "iq1_m",
            Self::Iq2Xxs => "iq2_xxs",
            Self::Iq2Xs => "iq2_xs",
            Self::Iq2S => "iq2_s",
            Self::Iq3Xxs => "iq3_xxs",
            Self::Iq3S => "iq3_s",
            Self::Nvfp4 => "nvfp4",
            Self::Tq1_0 => "tq1_0",
            Self::Tq2_0 => "tq2_0",
            Self::Q1_0 => "q1_0",
            Self::Q2_0 => "q2_0",
            Self::Iq2K => "iq2_k",
            Self::Iq3K => "iq3_k",
            Self::Iq4K => "iq4_k",
            Self::Iq5K => "iq5_k",
            Self::Iq6K => "iq6_k",
            Self::Iq4Ks => "iq4_ks",
            Self::Iq2Ks => "iq2_ks",
            Self::Iq4Kss => "iq4_kss",
            Self::Iq5Ks => "iq5_ks",
            Self::Iq3Ks => "iq3_ks",
        }
    }

    /// The type with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
    }

    /// The type with that number in a file's metadata.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| *ty as u8 == id)
    }

    /// Whether this is a coded type: tiles of codes, with scales per group and row.
    pub fn is_coded(self) -> bool {
        self.code_bits().is_some()
    }

    /// Whether this is a floating-point type.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Bits per code of a coded type.
    pub fn code_bits(self) -> Option<usize> {
        match self {
            Self::E2 => Some(2),
            Self::E3 => Some(3),
            Self::E4 => Some(4),
            Self::E8 => Some(8),
            _ => None,
        }
    }

    /// Bytes of a matrix of this type; `None` if the shape does not fit the type (columns of a
    /// coded type must be a multiple of 32, of ggml's K types of 256) or the product overflows.
    pub fn byte_len(self, rows: usize, cols: usize) -> Option<usize> {
        match self {
            Self::F32 => rows.checked_mul(cols)?.checked_mul(4),
            Self::F16 | Self::BF16 => rows.checked_mul(cols)?.checked_mul(2),
            Self::E2 | Self::E3 | Self::E4 | Self::E8 => {
                coded::Layout::new(self, rows, cols).map(|layout| layout.byte_len)
            }
            _ => ggml::byte_len(self, rows, cols),
        }
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
