//! Prices from what an hour of this machine is to bring, and what it does in one.
//!
//! In: rates, as measured counts and times; an amount an hour. Out: a price sheet at which a
//! machine that does nothing else all the time earns that amount. Integers alone, rounded up.
//!
//! For each kind of work, with `count` units done in `time`:
//!
//! ```text
//! price of a unit of the sheet = per hour × sheet's unit × time / (count × 1 hour)
//! ```

use std::time::Duration;

use tussah_manifest::Nanograms;

/// So much was done in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) count: u64,
    pub(super) time: Duration,
}

impl Rate {
    /// Units a second, rounded to a hundredth.
    pub(super) fn per_second(self) -> f64 {
        let nanos = self.time.as_nanos().max(1);
        let hundredths = u128::from(self.count) * 100_000_000_000 / nanos;
        let hundredths = u32::try_from(hundredths / 100)
            .map(|whole| f64::from(whole) + f64::from(last_two(hundredths)) / 100.0);
        // Larger numbers need no hundredths.
        hundredths.unwrap_or_else(|_| {
            let whole = u128::from(self.count) * 1_000_000_000 / nanos;
            let thousands = u32::try_from(whole / 1_000_000).unwrap_or(u32::MAX);
            f64::from(thousands) * 1e6
        })
    }
}

fn last_two(number: u128) -> u8 {
    u8::try_from(number % 100).unwrap_or_default()
}

/// What an hour costs and is to bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hour {
    /// What is to be left.
    pub(super) wished: Nanograms,
    /// What a kWh costs.
    pub(super) electricity: Nanograms,
    /// What the machine draws under load.
    pub(super) watts: u32,
}

impl Hour {
    /// All that it has to bring: the wish, and the power.
    pub(super) fn total(self) -> Nanograms {
        let power = u128::from(self.electricity.get()) * u128::from(self.watts);
        amount(Some(u128::from(self.wished.get()) + power.div_ceil(1000)))
    }
}

/// Prices, in the sheet's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sheet {
    /// For each job that ran.
    pub(super) base: Nanograms,
    /// For each 10^9 units of fuel.
    pub(super) fuel: Nanograms,
    /// For each 10^12 units of inference; none without a model.
    pub(super) inference: Option<Nanograms>,
}

/// What to ask. Fuel's rate is that of all cores, and inference's the lowest that was seen.
pub(super) fn prices(hour: Hour, jobs: Rate, fuel: Rate, inference: Option<Rate>) -> Sheet {
    let total = hour.total();
    Sheet {
        base: price(total, 1, jobs),
        fuel: price(total, 1_000_000_000, fuel),
        inference: inference.map(|rate| price(total, 1_000_000_000_000, rate)),
    }
}

fn price(per_hour: Nanograms, unit: u64, rate: Rate) -> Nanograms {
    const HOUR_NANOS: u128 = 3_600_000_000_000;
    let spent = u128::from(per_hour.get())
        .checked_mul(u128::from(unit))
        .and_then(|spent| spent.checked_mul(rate.time.as_nanos()));
    let done = u128::from(rate.count.max(1)) * HOUR_NANOS;
    amount(spent.map(|spent| spent.div_ceil(done)))
}

/// What does not fit is all there is.
fn amount(nanograms: Option<u128>) -> Nanograms {
    let nanograms = nanograms.and_then(|all| u64::try_from(all).ok());
    nanograms.and_then(Nanograms::new).unwrap_or(Nanograms::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano(amount: u64) -> Nanograms {
        Nanograms::new(amount).unwrap()
    }

    fn rate(count: u64, millis: u64) -> Rate {
        Rate {
            count,
            time: Duration::from_millis(millis),
        }
    }

    #[test]
    fn an_hour_of_nothing_else_brings_what_was_wished() {
        let hour = Hour {
            wished: nano(3_600_000_000),
            electricity: nano(0),
            watts: 0,
        };
        // 1 GRAM in 1000 s: 1,000,000 nanograms a second.
        let sheet = prices(
            hour,
            rate(1000, 1000),
            rate(2_000_000_000, 1000),
            Some(rate(500_000_000_000, 2000)),
        );
        let expected = Sheet {
            base: nano(1000),
            fuel: nano(500_000),
            inference: Some(nano(4_000_000)),
        };
        assert_eq!(sheet, expected);
        // The machine does 3600 s × 10^12 / 4 units in an hour, at that price: the wish.
        let units_per_hour: u64 = 900;
        assert_eq!(units_per_hour * 4_000_000, 3_600_000_000);
    }

    #[test]
    fn power_is_paid_and_everything_is_rounded_up() {
        for (wished, electricity, watts, total) in [
            (0, 0, 0, 0),
            (5, 0, 400, 5),
            (0, 2_000, 500, 1_000),
            // A part of a nanogram is one.
            (0, 1, 1, 1),
            (Nanograms::MAX.get(), 1_000, 1, Nanograms::MAX.get()),
        ] {
            let hour = Hour {
                wished: nano(wished),
                electricity: nano(electricity),
                watts,
            };
            assert_eq!(hour.total(), nano(total), "{hour:?}");
        }
        // Work that takes hardly any time costs the smallest amount, and free is free.
        assert_eq!(price(nano(1), 1, rate(u64::MAX, 1)), nano(1));
        assert_eq!(price(nano(0), 1_000_000_000, rate(1, 1000)), nano(0));
        assert_eq!(
            price(Nanograms::MAX, 1_000_000_000_000, rate(1, u64::MAX)),
            Nanograms::MAX
        );
        assert_eq!(price(nano(3600), 1, rate(0, 1000)), nano(1));
    }

    #[test]
    fn rates_are_a_second() {
        for (count, millis, expected) in [
            (0, 1000, 0.0),
            (1, 3000, 0.33),
            (250, 500, 500.0),
            (5_000_000_000_000, 1000, 5e12),
        ] {
            let found = rate(count, millis).per_second();
            assert!((found - expected).abs() <= expected * 1e-9, "{found}");
        }
    }
}
