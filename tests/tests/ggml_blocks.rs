//! ggml's block types, decoded like the `gguf` Python package, and ik_llama.cpp's like that program;
//! both multiplied with the same bits on every instruction set. tests/golden/blocks/make_blocks.py
//! and make_ik_blocks.py make the vectors.

use safetensors::{Dtype, SafeTensors};
use vaquita_quantize::encoders::{GGML_TYPES, encode_ggml};
use vaquita_runtime::blocks::{BlockType, Matrix};
use vaquita_runtime::isa::Tier;
use vaquita_runtime::kernels::{Activations, matmul};
use vaquita_runtime::threads::Pool;
use vaquita_tests::{bits, golden};

fn ggml_types() -> impl Iterator<Item = BlockType> {
    BlockType::ALL.into_iter().filter(|ty| !BlockType::WRITTEN.contains(ty))
}

/// The stored blocks of a type as a matrix, and the values they decode to.
fn stored(ty: BlockType) -> (Matrix, Vec<f32>) {
    stored_in("blocks", ty).or_else(|| stored_in("ik", ty)).unwrap()
}

/// The same of blocks at the limits.
fn extremes(ty: BlockType) -> (Matrix, Vec<f32>) {
    stored_in("extremes", ty).or_else(|| stored_in("ik_extremes", ty)).unwrap()
}

/// The same from another file, which may have no blocks of that type.
fn stored_in(file: &str, ty: BlockType) -> Option<(Matrix, Vec<f32>)> {
    let bytes = std::fs::read(golden("blocks").join(format!("{file}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let blocks = file.tensor(&format!("{ty}.bytes")).ok()?;
    let values = file.tensor(&format!("{ty}.values")).unwrap();
    let (rows, cols) = (values.shape()[0], values.shape()[1]);
    let floats = match values.dtype() {
        Dtype::I8 => values.data().iter().map(|&x| f32::from(x as i8)).collect(),
        _ => {
            let values = values.data().as_chunks::<4>().0.iter();
            values.map(|x| f32::from_le_bytes(*x)).collect()
        }
    };
    Some((Matrix::new(ty, rows, cols, blocks.data().to_vec().into()).unwrap(), floats))
}

/// Bits, where all NaNs count as equal.
fn bits_or_nan(values: &[f32]) -> Vec<Option<u32>> {
    values.iter().map(|value| (!value.is_nan()).then_some(value.to_bits())).collect()
}

fn product(tier: Tier, threads: usize, weights: &Matrix, x: &[f32]) -> Vec<f32> {
    let x = Activations::new(tier, x, weights.cols());
    let mut out = vec![f32::NAN; x.tokens() * weights.rows()];
    matmul(tier, &Pool::new(threads), weights, &x, &mut out);
    out
}

fn inputs(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 100.0).collect()
}

#[test]
fn every_type_decodes_as_its_own_program_does() {
    assert_eq!(ggml_types().count(), 35);
    for ty in ggml_types() {
        let (matrix, values) = stored(ty);
        assert_eq!(bits(&matrix.decode()), bits(&values), "{ty}");
    }
}

#[test]
fn blocks_at_the_limits_decode_as_its_own_program_does() {
    // Zeros, ones, the largest and smallest scales of both signs, infinities and NaN.
    for ty in ggml_types() {
        let (matrix, values) = extremes(ty);
        assert_eq!(bits_or_nan(&matrix.decode()), bits_or_nan(&values), "{ty}");
    }
}

#[test]
fn scales_that_are_not_numbers_make_weights_that_are_not() {
    for ty in ggml_types() {
        let (matrix, _) = extremes(ty);
        let ones = &matrix.decode()[matrix.cols()..][..matrix.cols()];
        match ty {
            // Exponents alone: the largest weight is beyond single precision.
            BlockType::Mxfp4 => assert!(ones.iter().all(|x| x.is_infinite())),
            // 255 is a number as well, and 127 counts as zero.
            BlockType::Nvfp4 => {
                assert!(ones.iter().all(|x| x.is_finite()));
                let not = &matrix.decode()[6 * matrix.cols()..][..matrix.cols()];
                assert!(not.iter().all(|x| *x == 0.0));
            }
            _ => assert!(ones.iter().all(|x| x.is_nan()), "{ty}"),
        }
    }
}

#[test]
fn every_entry_of_every_grid_is_that_of_the_gguf_package_on_every_tier() {
    let grids = ggml_types().filter_map(|ty| stored_in("grids", ty));
    let mut count = 0;
    for (matrix, values) in grids {
        let ty = matrix.block_type();
        assert_eq!(bits(&matrix.decode()), bits(&values), "{ty}");
        let x = inputs(matrix.cols());
        let expected = bits(&product(Tier::from_name("scalar").unwrap(), 1, &matrix, &x));
        for tier in Tier::available() {
            assert_eq!(bits(&product(tier, 1, &matrix, &x)), expected, "{ty} {}", tier.name());
        }
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn every_tier_multiplies_blocks_at_the_limits_as_scalar_does() {
    for ty in ggml_types() {
        let (weights, _) = extremes(ty);
        let x = inputs(9 * weights.cols());
        let expected = bits_or_nan(&product(Tier::from_name("scalar").unwrap(), 1, &weights, &x));
        // One token and a few have kernels of their own.
        for tokens in [1, 2, 3, 9] {
            let (x, expected) =
                (&x[..tokens * weights.cols()], &expected[..tokens * weights.rows()]);
            for tier in Tier::available() {
                let got = bits_or_nan(&product(tier, 2, &weights, x));
                assert_eq!(got, expected, "{ty} {} {tokens}", tier.name());
            }
        }
    }
}

#[test]
fn every_tier_multiplies_as_scalar_does() {
    for ty in ggml_types() {
        let (weights, _) = stored(ty);
        let x = inputs(7 * weights.cols());
        let expected = bits(&product(Tier::from_name("scalar").unwrap(), 1, &weights, &x));
        for tier in Tier::available() {
            assert_eq!(bits(&product(tier, 2, &weights, &x)), expected, "{ty} {}", tier.name());
        }
        // Alone and among others.
        let alone = x.chunks(weights.cols()).flat_map(|x| product(Tier::best(), 1, &weights, x));
        assert_eq!(bits(&alone.collect::<Vec<f32>>()), expected, "{ty}");
    }
}

/// A matrix of any shape, of the stored blocks in turn.
fn repeated(ty: BlockType, rows: usize, cols: usize) -> Option<Matrix> {
    let len = ty.byte_len(rows, cols)?;
    let (matrix, _) = stored(ty);
    // Bytes of a row's scale, which stays before its blocks.
    let scale = ty.byte_len(1, 256).map_or(0, |one| 2 * one - ty.byte_len(1, 512).unwrap());
    let of_row = len / rows;
    let stored = matrix.data().chunks_exact(matrix.data().len() / matrix.rows()).cycle();
    let bytes: Vec<u8> = match scale {
        0 => matrix.data().iter().copied().cycle().take(len).collect(),
        _ => stored
            .take(rows)
            .flat_map(|row| {
                let (scale, blocks) = row.split_at(scale);
                let blocks = blocks.iter().cycle().take(of_row - scale.len());
                scale.iter().chain(blocks).copied().collect::<Vec<u8>>()
            })
            .collect(),
    };
    Some(Matrix::new(ty, rows, cols, bytes.into()).unwrap())
}

#[test]
fn shapes_that_fill_no_tile_and_no_run_of_columns_are_multiplied_alike() {
    let best = Tier::best();
    for ty in ggml_types() {
        // One, two and three tokens have kernels of their own.
        let few = [(1, 32, 1), (20, 1280, 1), (20, 1280, 2), (20, 1280, 3), (9, 1408, 2)];
        let more = [(9, 96, 70), (23, 1408, 9), (17, 2880, 4), (31, 2816, 66)];
        for (rows, cols, tokens) in few.into_iter().chain(more) {
            let Some(weights) = repeated(ty, rows, cols) else { continue };
            let x = inputs(tokens * cols);
            let expected = bits(&product(Tier::from_name("scalar").unwrap(), 1, &weights, &x));
            for tier in Tier::available() {
                let got = bits(&product(tier, 3, &weights, &x));
                assert_eq!(got, expected, "{ty} {} {rows} x {cols}", tier.name());
            }
            let alone = x.chunks(cols).flat_map(|x| product(best, 1, &weights, x));
            assert_eq!(bits(&alone.collect::<Vec<f32>>()), expected, "{ty} {rows} x {cols}");
        }
    }
}

#[test]
fn one_input_alone_gives_its_weights() {
    for ty in ggml_types() {
        let (weights, values) = stored(ty);
        let (rows, cols) = (weights.rows(), weights.cols());
        let mut x = vec![0.0; cols * cols];
        x.iter_mut().step_by(cols + 1).for_each(|x| *x = 127.0);
        let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
        for tier in [Tier::best(), Tier::from_name("scalar").unwrap()] {
            let products = product(tier, 1, &weights, &x);
            for (col, products) in products.chunks(rows).enumerate() {
                for (row, y) in products.iter().enumerate() {
                    let weight = values[row * cols + col];
                    // Offsets are rounded differently than in decoding.
                    let slack = 127.0 * largest * 4.0 * f32::EPSILON;
                    assert!((y - 127.0 * weight).abs() <= slack, "{ty} {row} {col}: {y} {weight}");
                }
            }
        }
    }
}

#[test]
fn a_product_is_that_of_the_decoded_weights() {
    for ty in ggml_types() {
        let (weights, values) = stored(ty);
        let x = inputs(weights.cols());
        let largest = x.iter().fold(0f32, |a, b| a.max(b.abs()));
        let products = product(Tier::best(), 1, &weights, &x);
        for (row, y) in values.chunks(weights.cols()).zip(products) {
            let exact: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let size: f64 = row.iter().map(|w| f64::from(w.abs())).sum();
            // The error of an activation is at most half of 1/127 of its group's largest.
            let slack = size * f64::from(largest) / 254.0 * 1.01;
            assert!((exact - f64::from(y)).abs() <= slack, "{ty}: {exact} {y}");
        }
    }
}

#[test]
fn rows_must_be_whole_blocks() {
    assert_eq!(BlockType::Q4K.byte_len(2, 512), Some(2 * 2 * 144));
    assert_eq!(BlockType::Q4K.byte_len(2, 128), None);
    assert_eq!(BlockType::Q8_0.byte_len(3, 96), Some(3 * 3 * 34));
    assert_eq!(BlockType::Q8_0.byte_len(3, 100), None);
    assert_eq!(BlockType::Q6K.byte_len(usize::MAX, 256), None);
}

#[test]
fn four_types_are_written_with_the_bits_of_ggmls_quantizers() {
    let bytes = std::fs::read(golden("blocks").join("quantized.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = file.tensor("values").unwrap();
    let (rows, cols) = (values.shape()[0], values.shape()[1]);
    let values = values.data().to_vec().into();
    let values = Matrix::new(BlockType::F32, rows, cols, values).unwrap();
    for ty in GGML_TYPES {
        let expected = file.tensor(ty.name()).unwrap();
        let found = encode_ggml(ty, &values).unwrap();
        let differ = found.iter().zip(expected.data()).position(|(a, b)| a != b);
        assert_eq!((found.len(), differ), (expected.data().len(), None), "{ty}");
    }
    let nan = Matrix::new(BlockType::F32, 1, 256, [0xff; 1024].to_vec().into()).unwrap();
    assert!(encode_ggml(BlockType::Q4K, &nan).is_err());
    assert!(encode_ggml(BlockType::Q5K, &values).is_err());
}
