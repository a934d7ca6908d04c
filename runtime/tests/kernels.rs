//! Every kernel on every tier this CPU has, held to the scalar definition bit for bit.

use std::sync::Arc;

use proptest::prelude::*;
use vaquita_lcg::Lcg;
use vaquita_runtime::blocks::coded::Packer;
use vaquita_runtime::blocks::{BlockType, GROUP, Matrix};
use vaquita_runtime::isa::{Features, HighBits, Isa, Kernel, Tier};
use vaquita_runtime::kernels::attention::{CausalAttention, Entries, EntryLayout, PAGE};
use vaquita_runtime::kernels::cached::EntryFormat;
use vaquita_runtime::kernels::decay::ChannelDecay;
use vaquita_runtime::kernels::delta::DeltaRule;
use vaquita_runtime::kernels::ssd::StateSpace;
use vaquita_runtime::kernels::vector::{
    AddProduct, AddScaled, CausalConv, ClampedSwiGlu, Exp, GeGlu, L2Norm, Multiply, RmsNorm,
    Sigmoid, SoftCap, Softmax, SwiGlu,
};
use vaquita_runtime::kernels::{Activations, matmul, matmul_per_head};
use vaquita_runtime::threads::Pool;

// Miri, which interprets every operation, gets small matrices.
const WIDTHS: &[usize] = if cfg!(miri) { &[32, 96] } else { &[32, 96, 256, 1408, 2880] };
const MOST_TOKENS: usize = if cfg!(miri) { 4 } else { 40 };
const MOST_PAST: usize = if cfg!(miri) { 36 } else { 100 };

/// Numbers from -2 to 2.
fn floats(random: &mut Lcg, n: usize) -> Vec<f32> {
    (0..n).map(|_| 4.0 * random.unit() - 2.0).collect()
}

fn scalar() -> Tier {
    Tier::from_name("scalar").unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Any matrix of that type: random codes, tables at their limits, scales of both signs.
fn matrix(ty: BlockType, rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut random = Lcg(seed);
    let data = match ty {
        BlockType::F32 => {
            floats(&mut random, rows * cols).iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        BlockType::F16 => {
            let values = floats(&mut random, rows * cols);
            values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
        }
        BlockType::BF16 => {
            let values = floats(&mut random, rows * cols);
            values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
        }
        _ => coded(ty, rows, cols, &mut random),
    };
    Matrix::new(ty, rows, cols, data.into()).unwrap()
}

fn coded(ty: BlockType, rows: usize, cols: usize, random: &mut Lcg) -> Vec<u8> {
    let mut table: [i8; 16] = std::array::from_fn(|_| (random.bits() % 129) as i32 as i16 as i8);
    table = table.map(|entry| entry.clamp(-64, 64));
    (table[0], table[1]) = (-64, 64);
    let codes_of_type = 1u64 << ty.code_bits().unwrap();
    let mut packer = Packer::new(ty, rows, cols, &table).unwrap();
    for row in 0..rows {
        let codes: Vec<u8> = (0..cols).map(|_| (random.bits() % codes_of_type) as u8).collect();
        let scales: Vec<u8> = (0..cols / GROUP).map(|_| random.bits() as u8).collect();
        packer.set_row(row, floats(random, 1)[0], &scales, &codes);
    }
    packer.finish()
}

fn product(tier: Tier, threads: usize, w: &Matrix, x: &[f32]) -> Vec<f32> {
    let x = Activations::new(tier, x, w.cols());
    let mut out = vec![f32::NAN; x.tokens() * w.rows()];
    matmul(tier, &Pool::new(threads), w, &x, &mut out);
    out
}

/// That every tier gives the bits that scalar does.
fn multiplies_alike(w: &Matrix, x: &[f32]) -> Result<(), TestCaseError> {
    let expected = bits(&product(scalar(), 1, w, x));
    for tier in Tier::available() {
        prop_assert_eq!(&bits(&product(tier, 3, w, x)), &expected, "{}", tier.name());
    }
    Ok(())
}

/// Operations on entries of grids, with bytes and floats at random.
struct OnEntries<'a> {
    bits: &'a HighBits,
    seed: u64,
}

impl Kernel for OnEntries<'_> {
    const FEATURES: Features = Features::Dots;
    type Output = (Vec<u8>, [u16; 16], Vec<u32>);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let mut random = Lcg(self.seed);
        let random: Vec<u8> = (0..1024).map(|_| random.bits() as u8).collect();
        let (fours, eights) = (random.as_chunks::<4>().0, random.as_chunks::<8>().0);
        let (sixteens, sixties) = (random.as_chunks::<16>().0, random.as_chunks::<64>().0);

        let mut bytes = [[0; 32]; 2];
        let [a, b, c, d, ..] = eights else { unreachable!() };
        isa.store_bytes(isa.load_eights([d, b, a, c]), &mut bytes[0]);
        isa.store_bytes(isa.odd_bytes(&sixties[1]), &mut bytes[1]);
        let numbers = isa.extended(&sixteens[8], &sixteens[9], self.bits);

        let mut rows = [isa.splat(0.0); 8];
        let activations = random[256..512].iter().map(|x| (*x as i8).max(-127)).collect::<Vec<_>>();
        let activations = activations.as_chunks().0.as_chunks().0.as_array().unwrap();
        let mut codes = [isa.splat_bytes(0); 8];
        for (codes, random) in codes.iter_mut().zip(random[512..].chunks(32)) {
            *codes = isa.load_bytes(&std::array::from_fn(|i| random[i] % 65));
        }
        let signs = fours[..8].as_array().unwrap();
        [rows[0], rows[1]] = isa.dot_groups(codes, Some(signs), activations);
        for (codes, signs) in codes.iter_mut().zip(&fours[8..]) {
            *codes = isa.negate_where(*codes, isa.masks(signs));
        }
        let [first, second] = isa.dot_groups(codes, None, activations);
        (rows[2], rows[7]) = (first, second);
        rows[5] = isa.load(&std::array::from_fn(|i| f32::from(random[i])));
        let mut lanes = Vec::new();
        for row in isa.transpose_lanes(rows) {
            let mut eight = [0.0; 8];
            isa.store(row, &mut eight);
            lanes.extend(bits(&eight));
        }
        (bytes.concat(), numbers, lanes)
    }
}

fn any_type() -> impl Strategy<Value = BlockType> {
    proptest::sample::select(BlockType::WRITTEN.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 96 }))]

    #[test]
    fn every_tier_multiplies_as_scalar_does(
        ty in any_type(),
        rows in 1usize..40,
        cols in proptest::sample::select(WIDTHS),
        tokens in 1..MOST_TOKENS.min(20),
        seed: u64,
    ) {
        let w = matrix(ty, rows, cols, seed);
        multiplies_alike(&w, &floats(&mut Lcg(seed ^ 1), tokens * cols))?;
    }

    #[test]
    fn a_token_gets_the_same_bits_alone_and_among_others(
        ty in any_type(),
        tokens in 1..MOST_TOKENS,
        seed: u64,
    ) {
        let w = matrix(ty, 24, 96, seed);
        let x = floats(&mut Lcg(seed ^ 1), tokens * 96);
        let together = product(Tier::best(), 2, &w, &x);
        let alone: Vec<f32> = x.chunks(96).flat_map(|x| product(Tier::best(), 1, &w, x)).collect();
        prop_assert_eq!(bits(&together), bits(&alone));
    }

    #[test]
    fn plain_numbers_of_any_width_give_the_same_bits_on_every_tier(
        ty in proptest::sample::select(vec![BlockType::F32, BlockType::F16, BlockType::BF16]),
        rows in 1usize..20,
        cols in 1usize..70,
        tokens in 1usize..20,
        seed: u64,
    ) {
        let w = matrix(ty, rows, cols, seed);
        multiplies_alike(&w, &floats(&mut Lcg(seed ^ 1), tokens * cols))?;
    }

    #[test]
    fn a_product_is_that_of_the_decoded_weights(ty in any_type(), rows in 1usize..20, seed: u64) {
        let w = matrix(ty, rows, 64, seed);
        let x = floats(&mut Lcg(seed ^ 1), 64);
        let y = product(Tier::best(), 1, &w, &x);
        for (row, y) in w.decode().chunks(64).zip(y) {
            let exact: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            let size: f64 = row.iter().map(|w| f64::from(w.abs())).sum();
            // an int8 activation is off by at most half of 2 / 127
            let slack = if ty.is_coded() { size / 127.0 } else { size * 1e-6 };
            prop_assert!((exact - f64::from(y)).abs() <= slack * 1.01 + 1e-9, "{exact} {y}");
        }
    }

    #[test]
    fn heads_see_their_own_columns(ty in any_type(), heads in 1usize..5, seed: u64) {
        let w = matrix(ty, heads * 16, 32, seed);
        let x = floats(&mut Lcg(seed ^ 1), 2 * heads * 32);
        let all = Activations::new(Tier::best(), &x, heads * 32);
        let mut out = vec![0.0; 2 * heads * 16];
        matmul_per_head(Tier::best(), &Pool::new(2), &w, heads, &all, &mut out);
        for (i, got) in out.chunks(16).enumerate() {
            let y = product(scalar(), 1, &w, &x[i * 32..][..32]);
            prop_assert_eq!(bits(got), bits(&y[i % heads * 16..][..16]));
        }
    }

    #[test]
    fn a_soft_cap_is_a_hyperbolic_tangent(x in -200.0f32..200.0, cap in 1.0f32..60.0) {
        let mut y = [x, f32::INFINITY, f32::NAN];
        Tier::best().run(SoftCap { x: &mut y, cap });
        let exact = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
        prop_assert!((f64::from(y[0]) - exact).abs() <= 1e-6 * f64::from(cap), "{} {exact}", y[0]);
        prop_assert!(y[1].is_nan() && y[2].is_nan());
    }

    #[test]
    fn every_tier_has_the_same_vector_functions(
        x in proptest::collection::vec(-100.0f32..100.0, 1..70),
        factor in -3.0f32..3.0,
    ) {
        let other: Vec<f32> = x.iter().rev().copied().collect();
        let on = |tier: Tier| {
            let mut results = Vec::new();
            let mut apply = |f: &dyn Fn(&mut [f32])| {
                let mut y = x.clone();
                f(&mut y);
                results.extend(bits(&y));
            };
            apply(&|y| tier.run(Exp(y)));
            apply(&|y| tier.run(Sigmoid(y)));
            apply(&|y| tier.run(Softmax(y)));
            apply(&|x| tier.run(SoftCap { x, cap: 30.0 }));
            apply(&|y| tier.run(SwiGlu { gate: y, up: &other }));
            apply(&|y| tier.run(GeGlu { gate: y, up: &other }));
            let (alpha, limit) = (1.702, 1.5);
            apply(&|y| tier.run(ClampedSwiGlu { gate: y, up: &other, alpha, limit }));
            apply(&|y| tier.run(Multiply { out: y, x: &other }));
            apply(&|y| tier.run(AddProduct { out: y, a: &x, b: &other }));
            apply(&|y| tier.run(AddScaled { out: y, factor, x: &other }));
            apply(&|y| tier.run(RmsNorm { x: &x, weight: &other, eps: 1e-6, out: y }));
            apply(&|y| tier.run(L2Norm { x: y, factor, eps: 1e-6 }));
            let (inputs, taps) = ([&x[..], &other], [other.clone(), x.clone()]);
            for bias in [None, Some(&x[..])] {
                apply(&|y| tier.run(CausalConv { inputs: &inputs, taps: &taps, bias, out: y }));
            }
            for bound in [None, Some(-5.0)] {
                apply(&|y| tier.run(ChannelDecay { x: y, bias: &other, rate: factor, bound }));
            }
            results
        };
        let expected = on(scalar());
        for tier in Tier::available() {
            prop_assert_eq!(&on(tier), &expected, "{}", tier.name());
        }
    }

    #[test]
    fn every_tier_has_the_same_operations_on_entries_of_grids(
        bytes in proptest::array::uniform32(any::<u8>()),
        times in proptest::array::uniform16(any::<u16>()),
        mask: u16,
        seed: u64,
    ) {
        let place = |byte: u8| if byte % 20 < 16 { byte % 20 } else { HighBits::NONE };
        let from = std::array::from_fn(|i| [place(bytes[i]), place(bytes[16 + i])]);
        let bits = HighBits { from, times, mask };
        let expected = scalar().run(OnEntries { bits: &bits, seed });
        for tier in Tier::available() {
            let found = tier.run(OnEntries { bits: &bits, seed });
            prop_assert_eq!(&found, &expected, "{}", tier.name());
        }
    }

    #[test]
    fn every_tier_has_the_state_space_of_scalar_and_the_textbook(
        groups in 1usize..3,
        per_group in 1usize..4,
        state_width in 1usize..20,
        vectors in 1usize..7,
        seed: u64,
    ) {
        let (tokens, heads, head_width) = (3, groups * per_group, 8 * vectors);
        let mut random = Lcg(seed);
        let row = heads * head_width + 2 * groups * state_width;
        let inputs = floats(&mut random, tokens * row);
        let step = floats(&mut random, tokens * heads);
        let decay: Vec<f32> =
            floats(&mut random, tokens * heads).iter().map(|x| x.abs() / 2.0).collect();
        let skip = floats(&mut random, heads);
        let before = floats(&mut random, heads * state_width * head_width);
        let space = StateSpace {
            heads, groups, head_width, state_width,
            inputs: &inputs, step: &step, decay: &decay, skip: &skip,
        };
        let on = |tier, threads| {
            let (mut state, mut out) = (before.clone(), vec![f32::NAN; tokens * heads * head_width]);
            space.run(tier, &Pool::new(threads), &mut state, &mut out);
            (state, out)
        };
        let (state, out) = on(scalar(), 1);
        for tier in Tier::available() {
            let (found, outputs) = on(tier, 3);
            prop_assert!(bits(&found) == bits(&state) && bits(&outputs) == bits(&out), "{}", tier.name());
        }

        let mut exact: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
        for token in 0..tokens {
            let (x, bc) = inputs[token * row..][..row].split_at(heads * head_width);
            let (b, c) = bc.split_at(groups * state_width);
            for head in 0..heads {
                let (at, group) = (token * heads + head, head / per_group);
                let s = &mut exact[head * state_width * head_width..][..state_width * head_width];
                for j in 0..head_width {
                    let x = f64::from(x[head * head_width + j]);
                    let (mut y, mut size) = (f64::from(skip[head]) * x, 1.0f64);
                    for i in 0..state_width {
                        let [b, c] = [b, c].map(|of| f64::from(of[group * state_width + i]));
                        let s = &mut s[i * head_width + j];
                        *s = f64::from(decay[at]) * *s + b * f64::from(step[at]) * x;
                        y += *s * c;
                        size += (*s * c).abs();
                    }
                    let found = f64::from(out[at * head_width + j]);
                    prop_assert!((found - y).abs() <= 1e-5 * size, "{found} {y}");
                }
            }
        }
    }

    #[test]
    fn every_tier_has_the_delta_rule_of_scalar_and_the_textbook(
        key_heads in 1usize..3,
        per_key in 1usize..4,
        key_width in 1usize..20,
        vectors in 1usize..7,
        channels: bool,
        tiled: bool,
        seed: u64,
    ) {
        let (tokens, heads, value_width) = (3, key_heads * per_key, 8 * vectors);
        let mut random = Lcg(seed);
        let queries = floats(&mut random, tokens * key_heads * key_width);
        let keys = floats(&mut random, tokens * key_heads * key_width);
        let values = floats(&mut random, tokens * heads * value_width);
        let decays = if channels { key_width } else { 1 };
        let decay: Vec<f32> =
            floats(&mut random, tokens * heads * decays).iter().map(|x| x.abs() / 2.0).collect();
        let beta = floats(&mut random, tokens * heads);
        let before = floats(&mut random, heads * key_width * value_width);
        let rule = DeltaRule {
            heads, key_heads, tiled, key_width, value_width,
            queries: &queries, keys: &keys, values: &values, decay: &decay, beta: &beta,
        };
        let on = |tier, threads| {
            let (mut state, mut out) = (before.clone(), vec![f32::NAN; values.len()]);
            rule.run(tier, &Pool::new(threads), &mut state, &mut out);
            (state, out)
        };
        let (state, out) = on(scalar(), 1);
        for tier in Tier::available() {
            let (found, outputs) = on(tier, 3);
            prop_assert!(bits(&found) == bits(&state) && bits(&outputs) == bits(&out), "{}", tier.name());
        }

        let mut exact: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
        for token in 0..tokens {
            for head in 0..heads {
                let key_head = if tiled { head % key_heads } else { head / per_key };
                let (key_at, at) = (token * key_heads + key_head, token * heads + head);
                let key = &keys[key_at * key_width..][..key_width];
                let query = &queries[key_at * key_width..][..key_width];
                let s = &mut exact[head * key_width * value_width..][..key_width * value_width];
                for j in 0..value_width {
                    let mut recalled = 0.0;
                    for i in 0..key_width {
                        let g = decay[at * decays + if channels { i } else { 0 }];
                        s[i * value_width + j] *= f64::from(g);
                        recalled += s[i * value_width + j] * f64::from(key[i]);
                    }
                    let delta = f64::from(beta[at])
                        * (f64::from(values[at * value_width + j]) - recalled);
                    let mut y = 0.0;
                    for i in 0..key_width {
                        s[i * value_width + j] += f64::from(key[i]) * delta;
                        y += s[i * value_width + j] * f64::from(query[i]);
                    }
                    let (found, size) = (f64::from(out[at * value_width + j]), y.abs());
                    // Keys longer than one make the state grow with every token.
                    let largest = s.iter().fold(1.0f64, |a, b| a.max(b.abs()));
                    let slack = 1e-4 * (size + largest * key_width as f64);
                    prop_assert!((found - y).abs() <= slack, "{found} {y}");
                }
            }
        }
    }

    #[test]
    fn every_tier_attends_as_scalar_does_and_as_the_textbook(
        past in 0..MOST_PAST,
        pairs in 1usize..4,
        heads_per_pair in 1usize..6,
        value_width in prop::sample::select(vec![32, 72]),
        latent: bool,
        window in prop::option::of(1usize..80),
        sink: bool,
        format in 0usize..3,
        seed: u64,
    ) {
        let (tokens, key_width, heads) = (3, value_width + 8, pairs * heads_per_pair);
        // MLA's values begin its keys; the others' come after all keys.
        let (width, values_at) = match latent {
            true => (pairs * key_width, 0),
            false => (pairs * (key_width + value_width), pairs * key_width),
        };
        let layout = EntryLayout { width, key_value_heads: pairs, key_width, values_at, value_width };
        let mut random = Lcg(seed);
        let queries = floats(&mut random, tokens * heads * key_width);
        let mut entries = floats(&mut random, (past + tokens) * width);
        let sinks = floats(&mut random, heads);
        // What follows MLA's values in a key may stay in half precision.
        let halves = if latent && pairs == 1 { key_width - value_width } else { 0 };
        let format = [EntryFormat::F32, EntryFormat::F16, EntryFormat::Q8 { halves }][format];
        let mut bytes = Vec::new();
        for entry in entries.chunks_exact_mut(width) {
            let at = bytes.len();
            format.encode(entry, &mut bytes);
            format.decode(&bytes[at..], entry);
        }
        let pages = bytes.chunks(PAGE * format.bytes(width));
        let pages: Vec<_> = pages.map(|page| Arc::new(page.to_vec().into())).collect();
        let run = |tier: Tier, threads: usize| {
            let mut out = vec![0.0; tokens * heads * value_width];
            let entries = Entries { format, pages: &pages };
            let attention = CausalAttention {
                queries: &queries, entries, past, heads, layout, scale: 0.3, window,
                sinks: sink.then_some(&sinks[..]),
            };
            attention.run(tier, &Pool::new(threads), &mut out);
            out
        };
        let expected = run(scalar(), 1);
        for tier in Tier::available() {
            prop_assert_eq!(bits(&run(tier, 3)), bits(&expected), "{}", tier.name());
        }
        let pair = pairs - 1; // the last head's
        let last = &queries[(tokens * heads - 1) * key_width..];
        let seen = (past + tokens).saturating_sub(window.unwrap_or(usize::MAX));
        let seen = &entries[seen * width..];
        let score = |entry: &[f32]| {
            let key = &entry[pair * key_width..];
            key.iter().zip(last).map(|(a, b)| f64::from(a * b)).sum::<f64>()
        };
        let weights: Vec<f64> = seen.chunks(width).map(|e| (0.3 * score(e)).exp()).collect();
        let sunk = if sink { f64::from(sinks[heads - 1]).exp() } else { 0.0 };
        let total: f64 = weights.iter().sum::<f64>() + sunk;
        for v in 0..value_width {
            let at = values_at + pair * value_width + v;
            let values = seen.chunks(width).map(|entry| f64::from(entry[at]));
            let mean = values.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / total;
            let got = f64::from(expected[(tokens * heads - 1) * value_width + v]);
            prop_assert!((mean - got).abs() < 2e-2, "{mean} {got}");
        }
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    let step = if cfg!(miri) { 1_000 } else { 1 };
    for i in (-86_000..88_000).step_by(step) {
        let x = i as f32 * 1e-3;
        let mut y = [x];
        Tier::best().run(Exp(&mut y));
        let exact = f64::from(x).exp();
        let unit = f64::from(f32::from_bits(y[0].to_bits() + 1)) - f64::from(y[0]);
        assert!((f64::from(y[0]) - exact).abs() <= 2.0 * unit, "exp({x}) = {} not {exact}", y[0]);
    }
}

#[test]
fn extremes_of_codes_and_activations_do_not_overflow() {
    let cols = WIDTHS[WIDTHS.len() - 1];
    let mut table = [64i8; 16];
    table[1] = -64;
    for ty in [BlockType::E2, BlockType::E3, BlockType::E4, BlockType::E8] {
        let mut packer = Packer::new(ty, 8, cols, &table).unwrap();
        let code = if ty == BlockType::E8 { 0x80 } else { 1 };
        for row in 0..8 {
            packer.set_row(row, 1.0, &vec![0x7f; cols / GROUP], &vec![code; cols]);
        }
        let w = Matrix::new(ty, 8, cols, packer.finish().into()).unwrap();
        for x in [-3.0, 3.0e38, 1e-38, 0.0] {
            let x = vec![x; cols];
            let expected = product(scalar(), 1, &w, &x);
            for tier in Tier::available() {
                let y = product(tier, 1, &w, &x);
                assert_eq!(bits(&y), bits(&expected), "{ty} {}", tier.name());
            }
        }
    }
}

#[test]
fn tiers_are_found_by_name() {
    for tier in Tier::available() {
        assert_eq!(Tier::from_name(tier.name()).unwrap().name(), tier.name());
    }
    assert!(Tier::from_name("abacus").is_none());
}
