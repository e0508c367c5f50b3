//! The float operations of a step, written once.
//! Rules 5, 6, 9 and 10 of `docs/exact-arithmetic.md`. Loops over lanes that do not depend on each other,
//! so the compiler may widen them at each level of SIMD without changing a bit.

use crate::arithmetic::{
    NOT_FINITE, add as add_f, div, gelu_erf, gelu_gate, int_to_float, magnitude_bits, mul,
    q16_exponent, round_small, scale2, silu_gate, sqrt, sub,
};

use crate::model::plan::RopePairs;

use super::activations::factors;
use super::pack::{Group, ROWS};

/// Rule 4's last step: the sums of a group's rows and a token's exponent to F.
#[inline(always)]
pub(super) fn finish(sums: &[i64; ROWS], group: &Group, exponent: i32, out: &mut [f32]) {
    for ((out, sum), row) in out.iter_mut().zip(sums).zip(&group.exponent) {
        *out = scale2(int_to_float(*sum), row + exponent);
    }
}

/// Rule 5, in place.
#[inline(always)]
pub(super) fn norm(values: &mut [f32], weights: &[f32], eps: f32) -> bool {
    let largest = magnitude_bits(values);
    if largest >= NOT_FINITE {
        return false;
    }
    let exponent = q16_exponent(f32::from_bits(largest));
    let (one, two) = factors(exponent);
    let mut squares = 0i64;
    for value in values.iter() {
        let q = round_small(*value * one * two);
        squares += i64::from(q * q);
    }
    let mean = div(
        scale2(int_to_float(squares), 2 * exponent),
        values.len() as f32,
    );
    let scale = div(1.0, sqrt(add_f(mean, eps)));
    for (value, weight) in values.iter_mut().zip(weights) {
        *value = mul(mul(*value, scale), *weight);
    }
    true
}

/// Rule 11, in place.
#[inline(always)]
pub(super) fn layer_norm(values: &mut [f32], weights: &[f32], biases: &[f32], eps: f32) -> bool {
    let largest = magnitude_bits(values);
    if largest >= NOT_FINITE {
        return false;
    }
    let exponent = q16_exponent(f32::from_bits(largest));
    let (one, two) = factors(exponent);
    let (mut sum, mut squares) = (0i64, 0i64);
    for value in values.iter() {
        let q = round_small(*value * one * two);
        sum += i64::from(q);
        squares += i64::from(q * q);
    }
    // Below 2^62, since vectors have at most 2^16 values.
    let spread = squares * values.len() as i64 - sum * sum;
    let count = values.len() as f32;
    let mean = div(scale2(int_to_float(sum), exponent), count);
    let variance = scale2(int_to_float(spread), 2 * exponent);
    let variance = div(div(variance, count), count);
    let scale = div(1.0, sqrt(add_f(variance, eps)));
    for ((value, weight), bias) in values.iter_mut().zip(weights).zip(biases) {
        *value = add_f(mul(mul(sub(*value, mean), scale), *weight), *bias);
    }
    true
}

/// Rule 12 on all tokens of a group, `[token][16]`, after the group's biases are added.
#[inline(always)]
pub(super) fn biased_gelu(values: &mut [f32], biases: &[f32; ROWS]) {
    for row in values.as_chunks_mut::<ROWS>().0 {
        for i in 0..ROWS {
            row[i] = gelu_erf(add_f(row[i], biases[i]));
        }
    }
}

/// Rule 9 on one pair. A type and no closure: what is not inlined loses the level's SIMD.
pub(super) trait Gate {
    fn of(gate: f32, up: f32) -> f32;
}

#[derive(Debug)]
pub(super) struct Silu;

impl Gate for Silu {
    #[inline(always)]
    fn of(gate: f32, up: f32) -> f32 {
        silu_gate(gate, up)
    }
}

#[derive(Debug)]
pub(super) struct GeluTanh;

impl Gate for GeluTanh {
    #[inline(always)]
    fn of(gate: f32, up: f32) -> f32 {
        gelu_gate(gate, up)
    }
}

/// Gates and ups of whole groups; the ups become the results.
#[inline(always)]
pub(super) fn gate<G: Gate>(gates: &[f32], ups: &mut [f32]) {
    // Several groups at a time, since one is a long chain of operations that wait for each other.
    let (gates_by_four, gates) = gates.as_chunks::<{ 4 * ROWS }>();
    let (ups_by_four, ups) = ups.as_chunks_mut::<{ 4 * ROWS }>();
    for (ups, gates) in ups_by_four.iter_mut().zip(gates_by_four) {
        for i in 0..4 * ROWS {
            ups[i] = G::of(gates[i], ups[i]);
        }
    }
    for (up, value) in ups.iter_mut().zip(gates) {
        *up = G::of(*value, *up);
    }
}

/// One token's part of products that lie as `[row group][n][16]`.
#[derive(Clone, Copy)]
pub(super) struct Groups<'a> {
    pub(super) values: &'a [f32],
    pub(super) n: usize,
    pub(super) token: usize,
}

impl<'a> Groups<'a> {
    /// Values that lie one after the other.
    pub(super) fn of(values: &'a [f32]) -> Self {
        Self {
            values,
            n: 1,
            token: 0,
        }
    }

    /// The token's rows of each group.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = &'a [f32; ROWS]> {
        let groups = self.values.as_chunks().0.iter();
        groups.skip(self.token).step_by(self.n)
    }

    /// The token's rows, as many whole groups as `out` has room for.
    #[inline(always)]
    pub(super) fn copy_to(&self, out: &mut [f32]) {
        for (out, row) in out.as_chunks_mut().0.iter_mut().zip(self.rows()) {
            *out = *row;
        }
    }
}

/// A token's values and its rows of a branch.
#[inline(always)]
pub(super) fn add(values: &mut [f32], branch: &Groups<'_>) {
    for (values, branch) in values
        .as_chunks_mut::<ROWS>()
        .0
        .iter_mut()
        .zip(branch.rows())
    {
        for i in 0..ROWS {
            values[i] = add_f(values[i], branch[i]);
        }
    }
}

/// Rule 6: turns the pairs of a head by the angles whose cosines and sines are given; what is not turned
/// stays as it is.
pub(super) fn rope(head: &mut [f32], turns: &[(f32, f32)], pairs: RopePairs) {
    let (stride, offset) = match pairs {
        RopePairs::Adjacent => (2, 1),
        RopePairs::Halves => (1, turns.len()),
    };
    for (pair, (cos, sin)) in turns.iter().enumerate() {
        let (first, second) = (pair * stride, pair * stride + offset);
        let (a, b) = (head[first], head[second]);
        head[first] = sub(mul(a, *cos), mul(b, *sin));
        head[second] = add_f(mul(a, *sin), mul(b, *cos));
    }
}
