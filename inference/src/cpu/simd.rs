//! Which kernels this CPU can run.
//! In: what the caller asks for. Out: a level that was detected at run time, or an error.
//! It never falls back in silence: a level that is asked for by name and missing is an error.

/// Which kernels the exact engine uses. The bits do not depend on it, only the speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SimdLevel {
    /// The fastest that this CPU has.
    #[default]
    Auto,
    /// Plain Rust, on every CPU.
    Scalar,
    /// x86-64 with AVX2 and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// aarch64, which always has NEON.
    Neon,
    /// aarch64 with NEON's extension of dot products.
    NeonDotprod,
}

/// The CPU lacks the kernels that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this CPU cannot run the {} kernels", level.name())]
pub struct SimdUnavailable {
    /// What was asked for.
    pub level: SimdLevel,
}

impl SimdLevel {
    /// All that name kernels; of those of one architecture the slowest first.
    const KERNELS: [Self; 5] = [
        Self::Scalar,
        Self::Avx2,
        Self::Avx512Vnni,
        Self::Neon,
        Self::NeonDotprod,
    ];

    /// A short name, such as `avx2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
        }
    }

    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = [Self::Auto].into_iter().chain(Self::KERNELS);
        all.find(|level| level.name() == name)
    }

    /// The levels that this CPU has, the slowest first.
    pub fn available() -> Vec<Self> {
        Self::KERNELS
            .into_iter()
            .filter(|level| level.is_available())
            .collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Auto | Self::Scalar => true,
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Neon | Self::NeonDotprod => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected;
        match self {
            Self::Auto | Self::Scalar => true,
            Self::Neon => is_aarch64_feature_detected!("neon"),
            Self::NeonDotprod => {
                Self::Neon.is_available() && is_aarch64_feature_detected!("dotprod")
            }
            Self::Avx2 | Self::Avx512Vnni => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        matches!(self, Self::Auto | Self::Scalar)
    }

    /// A level that this CPU can run; never [`SimdLevel::Auto`].
    pub(crate) fn resolve(self) -> Result<Self, SimdUnavailable> {
        match self {
            Self::Auto => Ok(Self::available().pop().unwrap_or(Self::Scalar)),
            level if level.is_available() => Ok(level),
            level => Err(SimdUnavailable { level }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_name_of_its_own() {
        for level in SimdLevel::KERNELS {
            assert_eq!(SimdLevel::from_name(level.name()), Some(level));
        }
        assert_eq!(SimdLevel::from_name("auto"), Some(SimdLevel::Auto));
        assert_eq!(SimdLevel::from_name("sse"), None);
    }

    /// `REQUIRE_SIMD` is the name of a level that may not be missing where the tests run.
    #[test]
    fn the_fastest_level_is_the_required_one() {
        let fastest = SimdLevel::Auto.resolve().unwrap();
        if let Ok(required) = std::env::var("REQUIRE_SIMD") {
            assert_eq!(fastest.name(), required);
        }
    }

    #[test]
    fn a_level_of_another_cpu_is_an_error() {
        let other = match cfg!(target_arch = "x86_64") {
            true => SimdLevel::Neon,
            false => SimdLevel::Avx2,
        };
        assert_eq!(other.resolve(), Err(SimdUnavailable { level: other }));
    }
}
