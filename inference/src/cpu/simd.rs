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
}

/// The CPU lacks the kernels that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this CPU cannot run the {} kernels", level.name())]
pub struct SimdUnavailable {
    /// What was asked for.
    pub level: SimdLevel,
}

impl SimdLevel {
    /// A short name, such as `avx2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Auto, Self::Scalar, Self::Avx2, Self::Avx512Vnni];
        all.into_iter().find(|level| level.name() == name)
    }

    /// The levels that this CPU has, the slowest first.
    pub fn available() -> Vec<Self> {
        let all = [Self::Scalar, Self::Avx2, Self::Avx512Vnni];
        all.into_iter()
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
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
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
