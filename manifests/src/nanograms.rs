//! `Nanograms`: an amount of Gram in its smallest unit. Never a float, never negative.

use std::fmt;

use serde::{Serialize, Serializer};

/// A billionth of a gram is one nanogram.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    minicbor::Encode,
    minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Nanograms(#[n(0)] u64);

impl Nanograms {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Five billion grams, about all there is: amounts past it are mistakes.
    pub const MAX: Self = Self(5_000_000_000_000_000_000);

    /// An amount; more than [`Nanograms::MAX`] is `None`.
    pub const fn new(nanograms: u64) -> Option<Self> {
        if nanograms <= Self::MAX.0 {
            Some(Self(nanograms))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Nanograms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nanograms", self.0)
    }
}

impl Serialize for Nanograms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
