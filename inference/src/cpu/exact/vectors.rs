//! The vectors of `docs/exact-arithmetic.md`, computed anew at every level of SIMD and compared with the text.

use crate::arithmetic::{exp, flush, gelu_erf, gelu_gate, silu_gate};
use crate::cpu::buffer::Arena;
use crate::cpu::pool::Pool;
use crate::cpu::simd::SimdLevel;
use crate::gguf::Gguf;
use crate::model::plan::{Matrix, Tensors};
use crate::quant::{QuantType, f16_to_f32};
use crate::sampler::{Sampler, Sampling};

use super::activations::{Activations, q16};
use super::kernels::{Kernels, Precision};
use super::pack::{Packed, ROWS};

/// `s = 1664525 s + 1013904223 mod 2^32`, before each number.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// From -1 to 1, exact.
    fn float(&mut self) -> f32 {
        (self.next() >> 8) as f32 / 8_388_608.0 - 1.0
    }
}

/// Rows of random blocks: every byte from the generator, then scales of magnitude 2^-6 to 2^-3; plain
/// values of that magnitude in F16, of 2^-7 to 2^-1 in BF16 and F32.
fn weights(quant: QuantType, rows: usize, columns: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..quant.bytes_for(rows * columns))
        .map(|_| numbers.byte())
        .collect();
    for block in bytes.chunks_exact_mut(quant.block_bytes()) {
        for at in high_bytes(quant) {
            let (least, count) = match quant {
                QuantType::F32 | QuantType::BF16 => (0x3c, 3),
                _ => (0x24, 12),
            };
            block[at] = (block[at] & 0x80) | (least + block[at] % count);
        }
    }
    bytes
}

/// Where the high bytes of scales and plain values stand in a block.
fn high_bytes(quant: QuantType) -> Vec<usize> {
    match quant.is_float() {
        true => vec![quant.block_bytes() - 1],
        false => quant.scales_at().iter().map(|at| at + 1).collect(),
    }
}

/// A file with one matrix, and the matrix.
fn file(quant: QuantType, rows: usize, columns: usize, data: &[u8]) -> (Gguf, Matrix) {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend([1u64, 0, 1].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(b"w");
    bytes.extend(2u32.to_le_bytes());
    bytes.extend(
        [columns as u64, rows as u64]
            .iter()
            .flat_map(|word| word.to_le_bytes()),
    );
    bytes.extend(quant.code().to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend(data);
    let gguf = Gguf::from_bytes(bytes).unwrap();
    let matrix = Tensors::new(&gguf).matrix("w", rows, columns).unwrap();
    (gguf, matrix)
}

/// Products of a matrix with some vectors at a level: `[vector][row]`.
fn products(
    level: SimdLevel,
    (gguf, matrix): &(Gguf, Matrix),
    vectors: &[Vec<f32>],
) -> Vec<Vec<f32>> {
    let pool = Pool::new(1).unwrap();
    let packed = Packed::new(&matrix.rows_in(gguf), &pool, &mut Arena::default(), None).unwrap();
    let kernels = Kernels::of(level.resolve().unwrap(), Precision::Exact);
    let mut x = Activations::new(matrix.columns, vectors.len()).unwrap();
    let writer = x.begin(vectors.len());
    for (token, vector) in vectors.iter().enumerate() {
        #[expect(unsafe_code, reason = "kernels need their CPU")]
        // SAFETY: the level was resolved, and this is the only thread.
        let finite = unsafe { kernels.quantize.whole(&writer, token, vector) };
        assert!(finite);
    }
    let mut out = vec![vec![0.0; matrix.rows]; vectors.len()];
    let mut group_out = vec![0.0; vectors.len() * ROWS];
    for group in 0..packed.group_count() {
        #[expect(unsafe_code, reason = "kernels need their CPU")]
        // SAFETY: the level was resolved.
        unsafe {
            (kernels.product)(&packed, group, &x, &mut group_out);
        }
        for (out, products) in out.iter_mut().zip(group_out.chunks_exact(ROWS)) {
            let rows = group * ROWS..matrix.rows.min((group + 1) * ROWS);
            let count = rows.len();
            out[rows].copy_from_slice(&products[..count]);
        }
    }
    out
}

/// The exact value of every weight of a row, and of plain values what rule 3 makes of them.
fn values(quant: QuantType, row: &[u8]) -> Vec<f64> {
    if quant.is_float() {
        let mut plain = vec![0.0; row.len() / quant.block_bytes()];
        quant.dequantize(row, &mut plain);
        let plain: Vec<f32> = plain.into_iter().map(flush).collect();
        let mut w = vec![0; plain.len()];
        let exponent = q16(&plain, &mut w).unwrap();
        let value = |w: i16| f64::from(w) * 2f64.powi(exponent);
        return w.into_iter().map(value).collect();
    }
    let columns = row.len() / quant.block_bytes() * quant.block_elements();
    let half = |half| f64::from(f16_to_f32(half));
    let block = |index| {
        let scales = quant.scales32(row, index);
        let mut bits = [0; 32];
        quant.unpack32(row, index, &mut bits);
        let minimum = half(scales.minimum) * f64::from(scales.minimum_factor.unwrap_or(0));
        let value = move |(i, bits): (usize, u8)| {
            let weight = f64::from(i32::from(bits) - quant.bias());
            half(scales.scale) * f64::from(scales.factors[i / 16]) * weight + minimum
        };
        bits.into_iter().enumerate().map(value)
    };
    (0..columns / 32).flat_map(block).collect()
}

/// Naive sums in f64, which are exact for these scales, and one rounding.
fn naive(file: &(Gguf, Matrix), row: usize, vector: &[f32]) -> f32 {
    let (gguf, matrix) = file;
    let weights = values(matrix.quant(), matrix.row(gguf, row));
    let mut q = vec![0; vector.len()];
    let exponent = q16(vector, &mut q).unwrap();
    let sum: f64 = weights
        .iter()
        .zip(&q)
        .map(|(w, q)| w * f64::from(*q))
        .fold(0.0, |sum, product| sum + product);
    #[expect(clippy::cast_possible_truncation, reason = "the one rounding")]
    let rounded = (sum * 2f64.powi(exponent)) as f32;
    rounded
}

#[test]
fn products_of_every_format_are_the_naive_sums() {
    for quant in QuantType::ALL {
        for (seed, rows, columns) in [(1, 1, 256), (2, 16, 512), (3, 37, 768), (4, 160, 256)] {
            let mut numbers = Numbers(seed);
            let file = file(
                quant,
                rows,
                columns,
                &weights(quant, rows, columns, &mut numbers),
            );
            let mut vectors: Vec<Vec<f32>> = (0..7)
                .map(|_| (0..columns).map(|_| numbers.float()).collect())
                .collect();
            // Edges: all zeros, one spike, the most negative half, very small values.
            vectors.push(vec![0.0; columns]);
            vectors.push(
                (0..columns)
                    .map(|i| if i == 33 { -1e20 } else { 0.0 })
                    .collect(),
            );
            vectors.push(
                (0..columns)
                    .map(|i| if i % 2 == 0 { -1.0 } else { 1.0 })
                    .collect(),
            );
            vectors.push((0..columns).map(|_| numbers.float() * 1e-30).collect());
            for level in SimdLevel::available() {
                let found = products(level, &file, &vectors);
                for (vector, found) in vectors.iter().zip(found) {
                    for (row, found) in found.iter().enumerate() {
                        let wanted = naive(&file, row, vector);
                        assert_eq!(
                            found.to_bits(),
                            wanted.to_bits(),
                            "{} {level:?} row {row} of {rows}x{columns}: {found} for {wanted}",
                            quant.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn long_rows_of_the_largest_halves_do_not_overflow() {
    // 2^16 columns and a block more: past what a sum of 32 bits could hold of a byte times a plane.
    let columns = (1 << 16) + 32;
    for (weight, value) in [(0x7bff_u16, -1.992_f32), (0xfbff, -1.992), (0x7bff, 1.992)] {
        let file = file(
            QuantType::F16,
            1,
            columns,
            &weight.to_le_bytes().repeat(columns),
        );
        let vector = vec![value; columns];
        for level in SimdLevel::available() {
            let found = products(level, &file, std::slice::from_ref(&vector))[0][0];
            assert_eq!(
                found,
                naive(&file, 0, &vector),
                "{weight:04x} {value} {level:?}"
            );
        }
    }
}

#[test]
fn scales_far_below_the_largest_are_rounded_to_even() {
    // A row of two blocks with scales 1.5 · 2^0 and 1.25 · 2^-14: rule 3's E is -21, so the second
    // coefficient is 1.25 · 2^7 = 160, exact; with 2^-22 and more between them bits are lost the same way
    // at every level, which the equality of levels on wild scales shows.
    let mut numbers = Numbers(7);
    for quant in QuantType::ALL {
        let mut data: Vec<u8> = (0..quant.bytes_for(32 * 512))
            .map(|_| numbers.byte())
            .collect();
        for block in data.chunks_exact_mut(quant.block_bytes()) {
            for at in high_bytes(quant) {
                if block[at] & 0x7c == 0x7c {
                    block[at] &= 0xbf;
                }
            }
        }
        let file = file(quant, 32, 512, &data);
        let vectors: Vec<Vec<f32>> = (0..5)
            .map(|_| (0..512).map(|_| numbers.float()).collect())
            .collect();
        let scalar = products(SimdLevel::Scalar, &file, &vectors);
        for level in SimdLevel::available() {
            assert_eq!(
                products(level, &file, &vectors),
                scalar,
                "{} {level:?}",
                quant.name()
            );
        }
    }
}

const GATES: [(f32, f32); 6] = [
    (0.0, 1.0),
    (1.0, 1.0),
    (-1.0, 2.0),
    (5.5, -0.25),
    (-90.0, 3.0),
    (90.0, 3.0),
];

fn hex(value: f32) -> String {
    format!("{:08x}", value.to_bits())
}

/// The block of vectors as the document has it.
fn document_vectors() -> String {
    let mut lines = vec!["exp: x bits -> bits".to_owned()];
    for x in [
        0.0, 1.0, -1.0, 0.5, -0.001, 10.0, -20.5, 87.0, -87.0, -1000.0,
    ] {
        lines.push(format!("{} -> {}", hex(x), hex(exp(x))));
    }
    lines.push("SiLU gate: gate, up -> bits".to_owned());
    for (gate, up) in GATES {
        lines.push(format!(
            "{} {} -> {}",
            hex(gate),
            hex(up),
            hex(silu_gate(gate, up))
        ));
    }
    lines.push("GELU gate: gate, up -> bits".to_owned());
    for (gate, up) in GATES {
        lines.push(format!(
            "{} {} -> {}",
            hex(gate),
            hex(up),
            hex(gelu_gate(gate, up))
        ));
    }
    lines.push("Q16: values -> exponent: integers".to_owned());
    for values in [
        [0.0, 0.0, 0.0, 0.0],
        [1.0, -0.5, 0.25, 1e-5],
        [1.999_9, 1.0, -1.999_9, 3e-5],
        [1e-30, -3e-31, 0.0, 2e-38],
        [3e38, 1.0, -3e38, 0.0],
    ] {
        let mut q = [0; 4];
        let exponent = q16(&values, &mut q).unwrap();
        lines.push(format!(
            "{} -> {exponent}: {q:?}",
            values.map(hex).join(" ")
        ));
    }
    lines.push("mat-vec row: format -> bits".to_owned());
    for quant in QuantType::ALL {
        let mut numbers = Numbers(1);
        let file = file(quant, 1, 256, &weights(quant, 1, 256, &mut numbers));
        let vectors = vec![(0..256).map(|_| numbers.float()).collect()];
        for level in SimdLevel::available() {
            assert_eq!(
                products(level, &file, &vectors)[0][0],
                naive(&file, 0, &vectors[0])
            );
        }
        lines.push(format!(
            "{} -> {}",
            quant.name(),
            hex(naive(&file, 0, &vectors[0]))
        ));
    }
    lines.push("sampler: temperature, top-k, top-p, min-p, penalty -> tokens".to_owned());
    for (temperature, top_k, top_p, min_p, repetition_penalty) in [
        (0.0, 0, 1.0, 0.0, 1.0),
        (1.0, 0, 1.0, 0.0, 1.0),
        (0.7, 5, 1.0, 0.0, 1.0),
        (1.0, 0, 0.5, 0.0, 1.0),
        (1.5, 0, 1.0, 0.25, 1.0),
        (0.8, 40, 0.95, 0.05, 1.3),
    ] {
        let sampling = Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
        };
        let seed = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let mut sampler = Sampler::new(sampling, &seed, 100);
        let mut numbers = Numbers(2);
        let logits: Vec<f32> = (0..100).map(|_| numbers.float() * 4.0).collect();
        let tokens: Vec<u32> = (0..8)
            .map(|_| {
                let token = sampler.pick(&logits).unwrap();
                sampler.note(token);
                token.0
            })
            .collect();
        lines.push(format!(
            "{temperature} {top_k} {top_p} {min_p} {repetition_penalty} -> {tokens:?}"
        ));
    }
    lines.join("\n")
}

#[test]
fn the_document_has_these_vectors() {
    let document = include_str!("../../../../docs/exact-arithmetic.md");
    let vectors = document_vectors();
    assert!(
        document.contains(&vectors),
        "docs/exact-arithmetic.md has other vectors than the code; the code's are:\n{vectors}"
    );
}

/// Lines of the document's vectors for encoders under a heading: what stands before the arrow and behind it.
fn encoder_vectors(heading: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let document = include_str!("../../../../docs/exact-arithmetic.md");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let lines = document.lines().skip_while(|line| *line != heading).skip(1);
    let pairs = lines.map_while(|line| line.split_once(" -> "));
    let lines: Vec<(Vec<String>, Vec<String>)> = pairs
        .take_while(|(input, _)| !input.contains(':'))
        .map(|(input, output)| (words(input), words(output)))
        .collect();
    assert!(!lines.is_empty(), "`{heading}` is not in the document");
    lines
}

#[test]
fn layer_norm_is_the_documents_at_every_level() {
    for (input, wanted) in encoder_vectors("LayerNorm: seed, n, scale bits -> bits") {
        let mut numbers = Numbers(input[0].parse().unwrap());
        let n: usize = input[1].parse().unwrap();
        let scale = f32::from_bits(u32::from_str_radix(&input[2], 16).unwrap());
        let [x, weight, bias]: [Vec<f32>; 3] =
            std::array::from_fn(|_| (0..n).map(|_| numbers.float()).collect());
        for level in SimdLevel::available() {
            let kernels = Kernels::of(level.resolve().unwrap(), Precision::Exact);
            let mut out: Vec<f32> = x.iter().map(|it| flush(it * scale)).collect();
            #[expect(unsafe_code, reason = "kernels need their CPU")]
            // SAFETY: the level was resolved.
            let finite = unsafe { (kernels.layer_norm)(&mut out, &weight, &bias, 1e-12) };
            assert!(finite);
            let found: Vec<String> = out.into_iter().map(hex).collect();
            assert_eq!(found, wanted, "{input:?} {level:?}");
        }
    }
}

#[test]
fn gelu_is_the_documents_at_every_level() {
    for (input, wanted) in encoder_vectors("GELU: x bits -> bits") {
        let x = f32::from_bits(u32::from_str_radix(&input[0], 16).unwrap());
        assert_eq!(hex(gelu_erf(x)), wanted[0], "{x}");
        for level in SimdLevel::available() {
            let kernels = Kernels::of(level.resolve().unwrap(), Precision::Exact);
            let mut out = [x; ROWS];
            #[expect(unsafe_code, reason = "kernels need their CPU")]
            // SAFETY: the level was resolved.
            unsafe {
                (kernels.biased_gelu)(&mut out, &[0.0; ROWS]);
            }
            assert_eq!(hex(out[ROWS - 1]), wanted[0], "{x} {level:?}");
        }
    }
}
