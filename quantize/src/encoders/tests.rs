//! Properties of all encoders.

use std::f32::consts::TAU;
use vaquita_lcg::Lcg;

use proptest::prelude::*;
use vaquita_runtime::blocks::{BlockType, GROUP, Matrix};

use super::*;
use crate::hessian::Hessian;

const CODED: [BlockType; 4] = [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8];

fn round_trip(ty: BlockType, cols: usize, values: &[f32]) -> (Vec<f32>, Distortion) {
    let rows = Slice::new(cols, values);
    let (bytes, distortion) = encode(ty, &rows, Guide::default()).unwrap();
    let matrix = Matrix::new(ty, rows.rows(), cols, bytes.into()).unwrap();
    (matrix.decode(), distortion)
}

/// Normal deviates by Box and Muller's method, from a small generator.
fn gaussian(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 + 0.5) / (1u64 << 24) as f32
    };
    (0..count).map(|_| (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos()).collect()
}

#[test]
fn gaussian_weights_lose_no_more_than_stated() {
    let values = gaussian(64 * 1024);
    // Measured: 0.0954, 0.0235, 0.0057, 3.2e-5.
    let limits = [0.0975, 0.0240, 0.00585, 3.3e-5];
    for (ty, limit) in CODED.into_iter().zip(limits) {
        let (decoded, distortion) = round_trip(ty, 1024, &values);
        assert!(distortion.relative() < limit, "{ty}: {}", distortion.relative());
        let real: f64 =
            values.iter().zip(&decoded).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum();
        assert!(
            (real / distortion.squared_error - 1.0).abs() < 1e-3,
            "{ty}: {real} {distortion:?}"
        );
    }
}

#[test]
fn the_values_of_mxfp4_are_kept_exactly() {
    let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let weights: Vec<f32> = (0..64 * 128usize)
        .map(|i| {
            let hash = i.wrapping_mul(0x9e37_79b9) >> 7;
            let value = values[hash % if i % 512 < 256 { 8 } else { 5 }];
            let exponent = (i / GROUP % 9) as i32 - 6;
            if hash & 8 == 0 { value * 2f32.powi(exponent) } else { -value * 2f32.powi(exponent) }
        })
        .collect();
    let (decoded, distortion) = round_trip(BlockType::E4, 128, &weights);
    assert_eq!(decoded, weights);
    assert_eq!(distortion.squared_error, 0.0);
}

#[test]
fn a_row_of_zeros_stays_zero() {
    for ty in CODED {
        let (decoded, distortion) = round_trip(ty, 64, &[0.0; 192]);
        assert_eq!(decoded, [0.0; 192], "{ty}");
        assert_eq!(distortion, Distortion::default());
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for ty in BlockType::WRITTEN {
        let mut values = vec![0.5; 128];
        values[64 + 7] = f32::NAN;
        let error = encode(ty, &Slice::new(64, &values), Guide::default()).unwrap_err();
        assert!(matches!(error, EncodeError::NotFinite { row: 1, col: 7, .. }), "{error}");
        assert!(error.to_string().contains("row 1, column 7 is NaN"));
    }
}

#[test]
fn half_precision_refuses_what_it_cannot_hold() {
    let error =
        encode(BlockType::F16, &Slice::new(2, &[1.0, 70_000.0]), Guide::default()).unwrap_err();
    assert!(matches!(error, EncodeError::TooLarge { col: 1, .. }), "{error}");
}

#[test]
fn plain_types_round_to_the_nearest_even() {
    let values = [1.0, 1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), -0.1];
    let (decoded, _) = round_trip(BlockType::F16, 4, &values);
    assert_eq!(decoded[..3], [1.0, 1.0, 1.0 + 2f32.powi(-9)]);
    let (decoded, _) = round_trip(BlockType::F32, 4, &values);
    assert_eq!(decoded, values);
    let (decoded, _) = round_trip(BlockType::BF16, 1, &[1.0 + 3.0 * 2f32.powi(-8)]);
    assert_eq!(decoded, [1.0 + 2f32.powi(-6)]);
}

#[test]
fn odd_shapes_are_refused_with_a_way_out() {
    let error = encode(BlockType::E4, &Slice::new(48, &[0.0; 96]), Guide::default()).unwrap_err();
    assert!(error.to_string().contains("f16 holds any shape"), "{error}");
}

#[test]
fn importance_must_fit_the_columns() {
    let values = [0.5; 64];
    for importance in [vec![1.0; 63], vec![-1.0; 64], vec![f32::NAN; 64]] {
        let error =
            encode(BlockType::E4, &Slice::new(64, &values), Guide::importance(Some(&importance)));
        assert!(matches!(error, Err(EncodeError::Importance { .. })));
    }
}

#[test]
fn important_columns_lose_less() {
    let values = gaussian(32 * 1024);
    let importance: Vec<f32> = (0..1024).map(|col| if col % 8 == 0 { 30.0 } else { 1.0 }).collect();
    let rows = Slice::new(1024, &values);
    let loss = |importance: Option<&[f32]>| -> f64 {
        let (bytes, _) = encode(BlockType::E3, &rows, Guide::importance(importance)).unwrap();
        let decoded = Matrix::new(BlockType::E3, 32, 1024, bytes.into()).unwrap().decode();
        let pairs = values.iter().zip(&decoded).step_by(8);
        pairs.map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
    };
    assert!(loss(Some(&importance)) < 0.7 * loss(None));
}

#[test]
fn measuring_says_what_encoding_does() {
    let values = gaussian(16 * 256);
    let rows = Slice::new(256, &values);
    for ty in BlockType::WRITTEN {
        let (_, encoded) = encode(ty, &rows, Guide::default()).unwrap();
        assert_eq!(measure(ty, &rows, Guide::default()).unwrap(), encoded, "{ty}");
    }
}

/// Rows of all kinds: ordinary, tiny, huge, denormal, mixed, with outliers.
fn any_row() -> impl Strategy<Value = Vec<f32>> {
    let magnitude = prop_oneof![
        Just(1f32),
        Just(1e-3),
        Just(1e-30),
        Just(1e30),
        Just(1e37),
        Just(f32::MIN_POSITIVE),
        Just(f32::from_bits(9)),
    ];
    let kinds = prop_oneof![
        proptest::collection::vec(-1f32..1.0, 96),
        proptest::collection::vec(prop_oneof![Just(0f32), -1f32..1.0], 96),
        (
            proptest::collection::vec(-0.01f32..0.01, 96),
            0..96usize,
            prop_oneof![Just(1f32), Just(-1.0)]
        )
            .prop_map(|(mut row, at, outlier)| {
                row[at] = outlier;
                row
            }),
    ];
    (kinds, magnitude).prop_map(|(row, scale)| row.iter().map(|value| value * scale).collect())
}

proptest! {
    #[test]
    fn no_weight_is_far_from_what_it_was(row in any_row()) {
        let row_largest = row.iter().fold(0f32, |most, value| most.max(value.abs()));
        // Half the widest gap of the table, or the clipping error, relative to the group's largest
        // weight.
        for (ty, bound) in CODED.into_iter().zip([0.75, 0.5, 0.25, 0.02]) {
            let (decoded, _) = round_trip(ty, 96, &row);
            for (was, is) in row.chunks(GROUP).zip(decoded.chunks(GROUP)) {
                let largest = was.iter().fold(0f32, |most, value| most.max(value.abs()));
                // A group far below the rest of its row gets the row's smallest scale; so does a
                // denormal row.
                let floor = (row_largest * 2f32.powi(-14)).max(2f32.powi(-118));
                for (was, is) in was.iter().zip(is) {
                    let error = (was - is).abs();
                    prop_assert!(error <= (bound * largest).max(floor), "{ty}: {was} became {is}, group {largest}");
                }
            }
        }
    }

    #[test]
    fn more_bits_never_lose_more(row in any_row()) {
        let errors = CODED.map(|ty| round_trip(ty, 96, &row).1.squared_error);
        for pair in errors.windows(2) {
            prop_assert!(pair[1] <= pair[0], "{errors:?}");
        }
    }
}

/// Weights, and inputs whose columns are strongly correlated.
fn correlated() -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut random = Lcg(11);
    let mut number = || random.normal(6);
    let weights = (0..16 * 128).map(|_| number()).collect();
    let inputs = (0..400).map(|_| {
        let mut last = 0.0;
        let next = |_| {
            last = 0.8 * last + number();
            last
        };
        (0..128).map(next).collect()
    });
    (weights, inputs.collect())
}

#[test]
fn feedback_brings_outputs_closer() {
    let (weights, inputs) = correlated();
    let output_error = |bytes: Vec<u8>, ty| {
        let matrix = Matrix::new(ty, 16, 128, bytes.into()).unwrap().decode();
        let rows = weights.chunks_exact(128).zip(matrix.chunks_exact(128));
        let errors = rows.flat_map(|(a, b)| {
            inputs.iter().map(move |x| {
                let sum: f32 = a.iter().zip(b).zip(x).map(|((a, b), x)| (a - b) * x).sum();
                f64::from(sum * sum)
            })
        });
        errors.sum::<f64>()
    };
    let rows = Slice::new(128, &weights);
    for (ty, block, part) in [
        (BlockType::E2, 128, 0.6),
        (BlockType::E3, 128, 0.6),
        (BlockType::E4, 128, 0.6),
        (BlockType::E8, 128, 0.7),
        (BlockType::E2, 32, 0.8),
        (BlockType::E2, 48, 0.8), // groups that lie in two blocks
    ] {
        let mut hessian = Hessian::new(128, block);
        inputs.iter().for_each(|x| hessian.add_rows(x, |_| 1.0));
        let feedback = Feedback::new(&hessian);
        let (plain, _) = encode(ty, &rows, Guide::default()).unwrap();
        let guide = Guide { importance: None, feedback: Some(&feedback) };
        let (bytes, distortion) = encode(ty, &rows, guide).unwrap();
        let (found, without) = (output_error(bytes, ty), output_error(plain, ty));
        assert!(found < part * without, "{ty} in blocks of {block}: {found} against {without}");
        if block == 128 {
            // Damping contributes as well.
            let ratio = distortion.squared_error / found;
            assert!((1.0..1.2).contains(&ratio), "{ty}: {ratio}");
            assert_eq!(measure(ty, &rows, guide).unwrap(), distortion);
        }
    }
    let feedback = Feedback::new(&Hessian::new(64, 64));
    let guide = Guide { importance: None, feedback: Some(&feedback) };
    assert!(matches!(encode(BlockType::E4, &rows, guide), Err(EncodeError::Importance { .. })));
}
