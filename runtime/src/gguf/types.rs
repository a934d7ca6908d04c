//! Tensor types of ggml: number, name, and block size.

use crate::blocks::BlockType;

/// A tensor type, by its number in ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GgmlType(pub u32);

/// Number, name, weights per block, bytes per block.
const TYPES: [(u32, &str, u64, u64); 45] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
    (137, "IQ2_K", 256, 76),
    (138, "IQ3_K", 256, 110),
    (139, "IQ4_K", 256, 144),
    (140, "IQ5_K", 256, 176),
    (141, "IQ6_K", 256, 212),
    (144, "IQ4_KS", 256, 136),
    (145, "IQ2_KS", 256, 70),
    (146, "IQ4_KSS", 256, 128),
    (152, "IQ5_KS", 256, 168),
    (156, "IQ3_KS", 256, 102),
];

/// Bytes before the blocks of each row, of types that have any: a scale.
const ROW_BYTES: [(u32, u64); 5] = [(144, 4), (145, 2), (146, 4), (152, 4), (156, 2)];

/// Other types of ik_llama.cpp alone, by number. Those with a row count at the end of their name interleave
/// as many rows for that program's kernels.
const IK_TYPES: [(u32, &str); 38] = [
    (133, "Q6_0"),
    (134, "IQ1_BN"),
    (135, "IQ2_BN"),
    (151, "Q8_KV"),
    (153, "IQ2_KT"),
    (154, "IQ3_KT"),
    (155, "IQ4_KT"),
    (157, "IQ2_KL"),
    (158, "IQ1_KT"),
    (202, "Q4_0_R8"),
    (206, "Q5_0_R4"),
    (208, "Q8_0_R8"),
    (210, "Q2_K_R4"),
    (211, "Q3_K_R4"),
    (212, "Q4_K_R4"),
    (213, "Q5_K_R4"),
    (214, "Q6_K_R4"),
    (216, "IQ2_XXS_R4"),
    (217, "IQ2_XS_R4"),
    (218, "IQ3_XXS_R4"),
    (219, "IQ1_S_R4"),
    (220, "IQ4_NL_R4"),
    (221, "IQ3_S_R4"),
    (222, "IQ2_S_R4"),
    (223, "IQ4_XS_R8"),
    (229, "IQ1_M_R4"),
    (230, "BF16_R16"),
    (233, "Q6_0_R4"),
    (335, "IQ2_BN_R4"),
    (337, "IQ2_K_R4"),
    (338, "IQ3_K_R4"),
    (339, "IQ4_K_R4"),
    (340, "IQ5_K_R4"),
    (344, "IQ4_KS_R4"),
    (352, "IQ5_KS_R4"),
    (353, "MXFP4_R8"),
    (398, "Q8_KV_R8"),
    (399, "Q8_K_R8"),
];

/// The numbers that [`GgmlType::is_known`] accepts.
pub(super) const KNOWN: &str = "ggml's types 0 to 3, 6 to 30, 34, 35 and 39 to 42, and ik_llama.cpp's IQ2_K to IQ6_K, IQ2_KS to \
    IQ5_KS and IQ4_KSS";

impl GgmlType {
    /// Single precision.
    pub const F32: Self = Self(0);
    /// Half precision.
    pub const F16: Self = Self(1);
    /// 8-bit integers, also the type of opaque bytes.
    pub const I8: Self = Self(24);
    /// bfloat16.
    pub const BF16: Self = Self(30);

    fn entry(self) -> Option<&'static (u32, &'static str, u64, u64)> {
        TYPES.iter().find(|(number, ..)| *number == self.0)
    }

    /// Whether this is a type of known size.
    pub fn is_known(self) -> bool {
        self.entry().is_some()
    }

    /// ik_llama.cpp's name, of a type that it alone has.
    pub fn ik_name(self) -> Option<&'static str> {
        IK_TYPES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        self.entry().map_or("an unknown type", |(_, name, ..)| name)
    }

    /// Weights per block, along a row.
    pub fn block_weights(self) -> Option<u64> {
        self.entry().map(|(_, _, weights, _)| *weights)
    }

    /// Bytes of a tensor; `None` if the type is unknown, rows are not a whole number of blocks, or
    /// the product overflows.
    pub fn byte_len(self, dims: &[u64]) -> Option<u64> {
        let (_, _, weights, bytes) = self.entry()?;
        if !dims.first()?.is_multiple_of(*weights) {
            return None;
        }
        let total = dims.iter().try_fold(1u64, |total, dim| total.checked_mul(*dim))?;
        let rows = ROW_BYTES.iter().find(|(number, _)| *number == self.0);
        let rows =
            rows.map_or(Some(0), |(_, bytes)| total.checked_div(dims[0])?.checked_mul(*bytes))?;
        (total / weights).checked_mul(*bytes)?.checked_add(rows)
    }

    /// The type that stores a block type, if ggml has one.
    pub fn of(ty: BlockType) -> Option<Self> {
        match ty {
            BlockType::F32 => Some(Self::F32),
            BlockType::F16 => Some(Self::F16),
            BlockType::BF16 => Some(Self::BF16),
            BlockType::Q4_0 => Some(Self(2)),
            BlockType::Q4_1 => Some(Self(3)),
            BlockType::Q5_0 => Some(Self(6)),
            BlockType::Q5_1 => Some(Self(7)),
            BlockType::Q8_0 => Some(Self(8)),
            BlockType::Q2K => Some(Self(10)),
            BlockType::Q3K => Some(Self(11)),
            BlockType::Q4K => Some(Self(12)),
            BlockType::Q5K => Some(Self(13)),
            BlockType::Q6K => Some(Self(14)),
            BlockType::Iq4Nl => Some(Self(20)),
            BlockType::Iq4Xs => Some(Self(23)),
            BlockType::Mxfp4 => Some(Self(39)),
            BlockType::Iq1S => Some(Self(19)),
            BlockType::Iq1M => Some(Self(29)),
            BlockType::Iq2Xxs => Some(Self(16)),
            BlockType::Iq2Xs => Some(Self(17)),
            BlockType::Iq2S => Some(Self(22)),
            BlockType::Iq3Xxs => Some(Self(18)),
            BlockType::Iq3S => Some(Self(21)),
            BlockType::Nvfp4 => Some(Self(40)),
            BlockType::Tq1_0 => Some(Self(34)),
            BlockType::Tq2_0 => Some(Self(35)),
            BlockType::Q1_0 => Some(Self(41)),
            BlockType::Q2_0 => Some(Self(42)),
            BlockType::Iq2K => Some(Self(137)),
            BlockType::Iq3K => Some(Self(138)),
            BlockType::Iq4K => Some(Self(139)),
            BlockType::Iq5K => Some(Self(140)),
            BlockType::Iq6K => Some(Self(141)),
            BlockType::Iq4Ks => Some(Self(144)),
            BlockType::Iq2Ks => Some(Self(145)),
            BlockType::Iq4Kss => Some(Self(146)),
            BlockType::Iq5Ks => Some(Self(152)),
            BlockType::Iq3Ks => Some(Self(156)),
            BlockType::E2 | BlockType::E3 | BlockType::E4 | BlockType::E8 => None,
        }
    }

    /// The block type that computes with this type.
    pub fn block_type(self) -> Option<BlockType> {
        BlockType::ALL.into_iter().find(|&ty| Self::of(ty) == Some(self))
    }
}
