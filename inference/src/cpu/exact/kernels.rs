//! The operations of a step, once for each width of SIMD.
//! In: packed weights and quantized activations. Out: F values. Every level gives the same bits: integer
//! sums are exact in any order, and the float operations are written once (`generic.rs`) and compiled
//! for each level, without fusing or reassociation.

use crate::cpu::simd::SimdLevel;
use crate::exact::ScoreScale;

use super::activations::{Activations, Writer};
use super::attention::{Block, Row};
use super::generic::Groups;
use super::pack::{Packed, ROWS};
use super::{fast, generic};

/// Multiplies groups of 16 rows with all tokens: from a group on, as many as `out` has room for, which is
/// `[group][token][16]`.
type Product = unsafe fn(&Packed, usize, &Activations, &mut [f32]);
/// Rule 5 in place: the values, the weights, eps. `false` if a value is not finite.
type Norm = unsafe fn(&mut [f32], &[f32], f32) -> bool;
/// Rule 11 in place: the values, weights, biases, eps. `false` if a value is not finite.
type LayerNorm = unsafe fn(&mut [f32], &[f32], &[f32], f32) -> bool;
/// Rule 12 in place on `[token][16]`, after these biases are added.
type Gelu = unsafe fn(&mut [f32], &[f32; ROWS]);
/// Q16 of a token's vector into a batch; `false` if a value is not finite.
type QuantizeVector = unsafe fn(&Writer<'_>, usize, &[f32]) -> bool;
/// 8 bits of a part of a token's vector, from one of its blocks of 32 on; `false` if a value is not finite.
type QuantizeBlocks = unsafe fn(&Writer<'_>, (usize, usize), &[f32]) -> bool;
/// Q16 of a short vector.
type Quantize16 = unsafe fn(&[f32], &mut [i16]) -> Option<i32>;
/// Rule 9: `ups[i] = ups[i] · gate(gates[i])`.
type Gate = unsafe fn(&[f32], &mut [f32]);
/// `values[i] = add(values[i], branch[i])` of a token and its part of a branch.
type Add = unsafe fn(&mut [f32], &Groups<'_>);
/// Rule 7 for rows of query heads that share a kv head, and the blocks that they see.
type Attend = unsafe fn(&mut [Row<'_>], &[Block<'_>], ScoreScale, &mut Vec<f32>);

/// How a token's vector becomes integers.
#[derive(Clone, Copy)]
pub(super) enum Quantize {
    /// With one exponent.
    Vector(QuantizeVector),
    /// With scales of their own for each 32 values, so that parts can be quantized as they come.
    Blocks(QuantizeBlocks),
}

impl Quantize {
    /// A token's vector; `false` if a value is not finite.
    ///
    /// # Safety
    /// The CPU has the level, and no other thread writes the token at the time.
    #[expect(unsafe_code, reason = "forwards the promise of its caller")]
    #[inline]
    pub(super) unsafe fn whole(&self, writer: &Writer<'_>, token: usize, values: &[f32]) -> bool {
        match self {
            // SAFETY: as the caller promises.
            Self::Vector(quantize) => unsafe { quantize(writer, token, values) },
            // SAFETY: as above.
            Self::Blocks(quantize) => unsafe { quantize(writer, (token, 0), values) },
        }
    }
}

/// The operations at one level. Calling them is sound on a CPU that has the level, which
/// [`SimdLevel::resolve`] has checked before [`Kernels::of`] is called.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    pub(super) product: Product,
    pub(super) norm: Norm,
    pub(super) layer_norm: LayerNorm,
    pub(super) biased_gelu: Gelu,
    pub(super) quantize: Quantize,
    pub(super) quantize16: Quantize16,
    pub(super) silu_gate: Gate,
    pub(super) gelu_gate: Gate,
    pub(super) add: Add,
    pub(super) attend: Attend,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernels")
    }
}

/// Compiles the generic operations for a level.
macro_rules! generic_at {
    ($(#[$feature:meta])*) => {
        $(#[$feature])*
        pub(in super::super) fn norm(values: &mut [f32], weights: &[f32], eps: f32) -> bool {
            generic::norm(values, weights, eps)
        }
        $(#[$feature])*
        pub(in super::super) fn layer_norm(values: &mut [f32], weights: &[f32], biases: &[f32], eps: f32) -> bool {
            generic::layer_norm(values, weights, biases, eps)
        }
        $(#[$feature])*
        pub(in super::super) fn biased_gelu(values: &mut [f32], biases: &[f32; super::ROWS]) {
            generic::biased_gelu(values, biases);
        }
        $(#[$feature])*
        #[expect(unsafe_code, reason = "forwards the promise of its caller")]
        pub(in super::super) unsafe fn quantize(writer: &Writer<'_>, token: usize, values: &[f32]) -> bool {
            // SAFETY: the caller keeps the tokens of different threads apart.
            unsafe { writer.write(token, values) }
        }
        $(#[$feature])*
        pub(in super::super) fn quantize16(values: &[f32], out: &mut [i16]) -> Option<i32> {
            super::super::activations::q16(values, out)
        }
        $(#[$feature])*
        pub(in super::super) fn silu_gate(gates: &[f32], ups: &mut [f32]) {
            generic::gate::<generic::Silu>(gates, ups);
        }
        $(#[$feature])*
        pub(in super::super) fn gelu_gate(gates: &[f32], ups: &mut [f32]) {
            generic::gate::<generic::GeluTanh>(gates, ups);
        }
        $(#[$feature])*
        pub(in super::super) fn fast_norm(values: &mut [f32], weights: &[f32], eps: f32) -> bool {
            fast::norm(values, weights, eps)
        }
        $(#[$feature])*
        pub(in super::super) fn add(values: &mut [f32], branch: &Groups<'_>) {
            generic::add(values, branch);
        }
    };
}

/// The same of the fast profile's quantizing, for levels that have none of their own.
macro_rules! quantize_at {
    ($(#[$feature:meta])*) => {
        $(#[$feature])*
        #[expect(unsafe_code, reason = "forwards the promise of its caller")]
        pub(in super::super) unsafe fn fast_quantize(writer: &Writer<'_>, at: (usize, usize), values: &[f32]) -> bool {
            // SAFETY: the caller keeps the tokens of different threads apart.
            unsafe { writer.write_bytes(at, values) }
        }
    };
}

mod at_scalar {
    use super::{Groups, Writer, fast, generic};
    generic_at!();
    quantize_at!();
}

#[cfg(target_arch = "x86_64")]
mod at_avx2 {
    use super::{Groups, Writer, fast, generic};
    generic_at!(#[target_feature(enable = "avx2,f16c")]);
    quantize_at!(#[target_feature(enable = "avx2,f16c")]);
}

#[cfg(target_arch = "x86_64")]
mod at_avx512 {
    use super::{Groups, Writer, fast, generic};
    generic_at!(#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]);
}

/// The table of a level: its own products and attention, the generic operations compiled for it.
macro_rules! table {
    ($own:ident, $attention:ident, $generic:ident) => {
        Kernels {
            product: super::$own::product,
            norm: $generic::norm,
            layer_norm: $generic::layer_norm,
            biased_gelu: $generic::biased_gelu,
            quantize: Quantize::Vector($generic::quantize),
            quantize16: $generic::quantize16,
            silu_gate: $generic::silu_gate,
            gelu_gate: $generic::gelu_gate,
            add: $generic::add,
            attend: super::$attention::attend,
        }
    };
}

/// How precise activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// The exact profile.
    Exact,
    /// 8 bits, and sums in f32.
    Fast,
}

impl Kernels {
    /// The kernels of a level that was resolved.
    ///
    /// # Panics
    /// The level was not resolved: calling the table would not be sound.
    pub(super) fn of(level: SimdLevel, precision: Precision) -> Self {
        assert_eq!(level.resolve(), Ok(level), "not resolved");
        let exact = match level {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512Vnni => table!(avx512, avx512_attention, at_avx512),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => table!(avx2, avx2, at_avx2),
            // The generic operations as they are: every aarch64 has NEON, so they are widened to it.
            #[cfg(target_arch = "aarch64")]
            SimdLevel::NeonDotprod => table!(neon_dotprod, neon_attention, at_scalar),
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon => table!(neon, neon_attention, at_scalar),
            _ => table!(scalar, scalar, at_scalar),
        };
        match precision {
            Precision::Exact => exact,
            Precision::Fast => exact.made_fast(level),
        }
    }

    /// Norms, quantizing and products of the fast profile; the rest is the exact one's, whose keys and values take
    /// as many bytes as in f16. With AVX-512 queries have 8 bits.
    fn made_fast(self, level: SimdLevel) -> Self {
        let (product, norm, quantize, attend): (Product, Norm, QuantizeBlocks, Attend) = match level
        {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512Vnni => (
                super::avx512_fast::product,
                at_avx512::fast_norm,
                super::avx512_fast::quantize,
                super::avx512_fast_attention::attend,
            ),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => (
                super::avx2_fast::product,
                at_avx2::fast_norm,
                at_avx2::fast_quantize,
                self.attend,
            ),
            #[cfg(target_arch = "aarch64")]
            SimdLevel::NeonDotprod => (
                super::neon_dotprod::fast_product,
                at_scalar::fast_norm,
                at_scalar::fast_quantize,
                self.attend,
            ),
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon => (
                super::neon::fast_product,
                at_scalar::fast_norm,
                at_scalar::fast_quantize,
                self.attend,
            ),
            _ => (
                fast::product,
                at_scalar::fast_norm,
                at_scalar::fast_quantize,
                self.attend,
            ),
        };
        Self {
            product,
            norm,
            quantize: Quantize::Blocks(quantize),
            attend,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_table_of_a_level_that_the_cpu_lacks() {
        let other = match cfg!(target_arch = "x86_64") {
            true => SimdLevel::Neon,
            false => SimdLevel::Avx2,
        };
        for level in [SimdLevel::Auto, other] {
            let table = std::panic::catch_unwind(|| Kernels::of(level, Precision::Exact));
            assert!(table.is_err(), "{level:?}");
        }
        for level in SimdLevel::available() {
            let _ = Kernels::of(level, Precision::Fast);
        }
    }
}
