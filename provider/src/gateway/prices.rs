//! `PriceSheet`: what work costs here, in nanograms.
//!
//! In: how much fuel and inference was, or may be, used. Out: an amount, rounded up once for each
//! kind of work, never above all the grams there are.

use tussah_manifest::{Consensus, ExitStatus, Limits, Nanograms};

/// Fuel that one price of fuel pays.
const FUEL_UNIT: u128 = 1_000_000_000;
/// Multiply-accumulates that one price of inference pays.
const INFERENCE_UNIT: u128 = 1_000_000_000_000;

/// What a provider asks for; by default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PriceSheet {
    /// For each job that ran.
    pub base: Nanograms,
    /// For each 10^9 units of fuel.
    pub fuel: Nanograms,
    /// For each 10^12 units of inference.
    pub inference: Nanograms,
}

impl PriceSheet {
    /// What so much work costs.
    pub fn price(&self, fuel: u64, inference_units: u64) -> Nanograms {
        let part = |used: u64, price: Nanograms, unit: u128| {
            (u128::from(used) * u128::from(price.get())).div_ceil(unit)
        };
        let sum = u128::from(self.base.get())
            + part(fuel, self.fuel, FUEL_UNIT)
            + part(inference_units, self.inference, INFERENCE_UNIT);
        let all = u64::try_from(sum).ok().and_then(Nanograms::new);
        all.unwrap_or(Nanograms::MAX)
    }

    /// The most that a job of these limits can cost.
    pub fn price_max(&self, limits: &Limits) -> Nanograms {
        self.price(limits.fuel_max, limits.inference_units_max)
    }

    /// What a run costs for which `cap` was set aside. One whose device or host failed costs
    /// nothing; one that reached a limit of its own manifest, its time among them, costs its work.
    pub fn price_of(&self, run: &Consensus, cap: Nanograms) -> Nanograms {
        match run.exit {
            ExitStatus::DeviceLost | ExitStatus::HostFailure => Nanograms::ZERO,
            ExitStatus::Done
            | ExitStatus::JobError { .. }
            | ExitStatus::Trapped { .. }
            | ExitStatus::LimitHit { .. }
            | ExitStatus::DeadlineExceeded
            | ExitStatus::Cancelled => {
                let price = self.price(run.fuel_used, run.inference_units_used);
                price.min(cap)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_rounded_up_and_nothing_overflows() {
        let nano = |amount| Nanograms::new(amount).unwrap();
        let sheet = PriceSheet {
            base: nano(10),
            fuel: nano(3),
            inference: nano(7),
        };
        for (fuel, inference, expected) in [
            (0, 0, 10),
            // The smallest piece of work costs the smallest amount.
            (1, 0, 11),
            (1_000_000_000, 0, 13),
            (1_000_000_001, 0, 14),
            (0, 1_000_000_000_000, 17),
            (2_000_000_000, 2_000_000_000_001, 31),
        ] {
            assert_eq!(
                sheet.price(fuel, inference),
                nano(expected),
                "{fuel} {inference}"
            );
        }
        // Each sheet and amount of work at the ends of what there can be.
        let max = Nanograms::MAX;
        let free = PriceSheet::default();
        let all = u64::MAX;
        for (sheet, fuel, inference, expected) in [
            (free, 0, 0, 0),
            (free, all, all, 0),
            (
                PriceSheet {
                    fuel: nano(1),
                    ..free
                },
                all,
                0,
                18_446_744_074,
            ),
            (
                PriceSheet {
                    inference: nano(1),
                    ..free
                },
                0,
                all,
                18_446_745,
            ),
            (PriceSheet { base: max, ..free }, 0, 0, max.get()),
            (
                PriceSheet {
                    base: max,
                    fuel: nano(1),
                    ..free
                },
                1,
                0,
                max.get(),
            ),
            (
                PriceSheet { fuel: max, ..free },
                1_000_000_000,
                0,
                max.get(),
            ),
            (
                PriceSheet { fuel: max, ..free },
                1_000_000_001,
                0,
                max.get(),
            ),
            (PriceSheet { fuel: max, ..free }, 1, 0, 5_000_000_000),
            (
                PriceSheet {
                    inference: max,
                    ..free
                },
                0,
                1,
                5_000_000,
            ),
        ] {
            let found = sheet.price(fuel, inference).get();
            assert_eq!(found, expected, "{sheet:?} {fuel} {inference}");
        }
        let dear = PriceSheet {
            base: Nanograms::MAX,
            fuel: Nanograms::MAX,
            inference: Nanograms::MAX,
        };
        assert_eq!(dear.price(u64::MAX, u64::MAX), Nanograms::MAX);
        assert_eq!(
            PriceSheet::default().price(u64::MAX, u64::MAX),
            Nanograms::ZERO
        );
    }
}
