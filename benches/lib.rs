//! Helpers shared by the benches.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use vaquita_quantize::sources;
use vaquita_quantize::{Job, Plan, quantize};
use vaquita_runtime::blocks::{BlockType, GROUP, Matrix, TILE_ROWS};
use vaquita_runtime::gguf::Metadata;
use vaquita_runtime::isa::{Features, Isa, Kernel, TileSimd};
use vaquita_runtime::threads::Pool;

/// Weights with arbitrary codes, and grid indices spread over all entries: speed does not depend on
/// the values otherwise. Plain numbers are all 0x3c3c..., a normal number in each type, and so are
/// MXFP4's scales: denormals would be slow.
///
/// # Panics
/// Panics if the type cannot have that shape.
pub fn matrix(ty: BlockType, rows: usize, cols: usize) -> Matrix {
    let len = ty.byte_len(rows, cols).expect("the shape fits the type");
    let mut bytes = vec![0x3c; len];
    if ty.is_coded() {
        bytes.iter_mut().enumerate().skip(64).for_each(|(i, byte)| *byte = (i * 31 % 61) as u8);
    } else if !ty.is_plain() && ty != BlockType::Mxfp4 {
        let mix = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 24;
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = mix(i) as u8);
    }
    Matrix::new(ty, rows, cols, bytes.into()).expect("the length is right")
}

/// The reference model in e4, in a file in `folder`.
///
/// # Panics
/// Panics if it cannot be written.
pub fn reference_file(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calibration/reference");
    let source = sources::open(&source).expect("the reference model opens");
    let (weights, identity) = (source.weights.as_ref(), &source.identity);
    let (tokenizer, plan) = (&Metadata::new(), &Plan::uniform(weights.config(), BlockType::E4));
    std::fs::create_dir_all(folder).expect("a folder");
    let out = folder.join("reference.gguf");
    let job = Job { weights, identity, tokenizer, importance: None, plan, out: &out };
    quantize(&job, &mut |_| {}).expect("it is quantized");
    out
}

/// Reads all of `bytes` on all threads and nothing else: the upper bound on decoding.
pub fn read(pool: &Pool, bytes: &[u8]) {
    let chunk = bytes.len().div_ceil(pool.threads());
    pool.run(pool.threads(), &|i| {
        let part = bytes.chunks(chunk).nth(i).unwrap_or_default();
        let words = part.as_chunks::<8>().0.iter();
        black_box(words.fold(0u64, |sum, word| sum ^ u64::from_le_bytes(*word)));
    });
}

/// Peak rate of an instruction set's int8 products, with weights in registers and inputs in the L1
/// cache: the upper bound on prompts.
pub struct Int8Peak {
    /// Number of iterations.
    pub rounds: usize,
}

impl Kernel for Int8Peak {
    const FEATURES: Features = Features::Products;
    /// Operations; a multiplication and an addition count as two.
    type Output = usize;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        self.in_registers(isa.wide())
    }
}

impl Int8Peak {
    #[inline(always)]
    fn in_registers<W: TileSimd>(self, wide: W) -> usize {
        const TOKENS: usize = 8;
        let codes: [[u8; 32]; 8] = black_box([[1; 32]; 8]);
        let inputs = [[[1i8; 4]; 8]; TOKENS];
        let mut weights = [wide.load_bytes_tiles([&codes[0]; 2]); 8];
        for (weights, codes) in weights.iter_mut().zip(&codes) {
            *weights = wide.load_bytes_tiles([codes; 2]);
        }
        let mut sums = [[wide.splat_i32(0); 2]; TOKENS / 2];
        for _ in 0..self.rounds {
            // Prevents the compiler from treating the inputs as constant.
            let inputs = black_box(&inputs);
            for (sums, pair) in sums.iter_mut().zip(inputs.as_chunks::<2>().0) {
                *sums = wide.dot_table_pair(*sums, &weights, [&pair[0], &pair[1]]);
            }
        }
        for sum in sums.as_flattened() {
            let mut out = [0.0; 16];
            wide.store_tiles(wide.to_f32(*sum), &mut out);
            black_box(out);
        }
        self.rounds * TOKENS * W::TILES * TILE_ROWS * GROUP * 2
    }
}
