//! What was agreed on for a channel, and the file that it is kept in.
//!
//! In: terms and prices, or a file's text. Out: the text, or the terms again. An unknown field is
//! an error: what it says would have been agreed on too.

use clap::Args;
use serde::{Deserialize, Serialize};
use tussah_manifest::Nanograms;
use tussah_settlement::Address;
use tussah_settlement::channel::{ProviderSide, Terms};
use tussah_settlement::voucher::NetworkId;

use crate::{failure::Failure, grams};

/// The file's format.
const FORMAT: u32 = 1;

/// What a run costs: nanograms for a billion units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    pub(crate) fuel_price_nanograms: u64,
    pub(crate) inference_price_nanograms: u64,
}

impl Prices {
    /// The price of what was used, rounded up, and never above what was agreed on.
    pub(crate) fn of(&self, fuel: u64, inference_units: u64, price_max: Nanograms) -> Nanograms {
        const UNITS: u128 = 1_000_000_000;
        let fuel = u128::from(self.fuel_price_nanograms) * u128::from(fuel);
        let inference = u128::from(self.inference_price_nanograms) * u128::from(inference_units);
        let price = fuel.saturating_add(inference).div_ceil(UNITS);
        let price = u64::try_from(price).ok().and_then(Nanograms::new);
        price.unwrap_or(Nanograms::MAX).min(price_max)
    }
}

/// The prices of a channel's jobs, as they are typed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PriceOption {
    /// GRAM for a billion units of fuel.
    #[arg(long, value_name = "GRAM", default_value = "0.00001", value_parser = grams::parse)]
    fuel_price: Nanograms,
    /// GRAM for a billion inference units.
    #[arg(long, value_name = "GRAM", default_value = "0.00002", value_parser = grams::parse)]
    inference_price: Nanograms,
}

impl PriceOption {
    pub(crate) fn prices(self) -> Prices {
        Prices {
            fuel_price_nanograms: self.fuel_price.get(),
            inference_price_nanograms: self.inference_price.get(),
        }
    }
}

/// A channel's terms, as they are kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsFile {
    /// [`FORMAT`].
    channel: u32,
    network: i32,
    client: String,
    owner: String,
    payout: String,
    client_key: String,
    provider_key: String,
    challenge_seconds: u32,
    redeem_step_min_nanograms: u64,
    salt: u64,
    in_flight_max_nanograms: u64,
    prices: Prices,
}

/// A channel that is not open yet, or that is known by its terms alone.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    pub(crate) network: NetworkId,
    pub(crate) terms: Terms,
    pub(crate) side: ProviderSide,
    pub(crate) in_flight_max: Nanograms,
    pub(crate) prices: Prices,
}

impl Agreed {
    /// The file's text.
    ///
    /// # Errors
    /// A host failure if it cannot be written as JSON.
    pub(super) fn to_json(&self) -> Result<String, Failure> {
        let (terms, side) = (&self.terms, &self.side);
        let file = TermsFile {
            channel: FORMAT,
            network: self.network.0,
            client: terms.client.to_string(),
            owner: terms.owner.to_string(),
            payout: side.payout.to_string(),
            client_key: terms.client_key.to_string(),
            provider_key: side.key.to_string(),
            challenge_seconds: terms.challenge_seconds,
            redeem_step_min_nanograms: terms.redeem_step_min.get(),
            salt: terms.salt,
            in_flight_max_nanograms: self.in_flight_max.get(),
            prices: self.prices,
        };
        serde_json::to_string_pretty(&file).map_err(Failure::host)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let file: TermsFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.channel != FORMAT {
            return Err(format!("it is of format {}", file.channel));
        }
        let account = |text: &str| {
            let account = text.parse::<Address>();
            account.map_err(|_| format!("`{text}` is no address"))
        };
        let key = |text: &str| text.parse().map_err(|_| format!("`{text}` is no key"));
        let amount = |nanograms| {
            Nanograms::new(nanograms).ok_or_else(|| format!("{nanograms} is more than there is"))
        };
        Ok(Self {
            network: NetworkId(file.network),
            terms: Terms {
                client: account(&file.client)?,
                owner: account(&file.owner)?,
                client_key: key(&file.client_key)?,
                challenge_seconds: file.challenge_seconds,
                redeem_step_min: amount(file.redeem_step_min_nanograms)?,
                salt: file.salt,
            },
            side: ProviderSide {
                key: key(&file.provider_key)?,
                payout: account(&file.payout)?,
            },
            in_flight_max: amount(file.in_flight_max_nanograms)?,
            prices: file.prices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano(nanograms: u64) -> Nanograms {
        Nanograms::new(nanograms).unwrap()
    }

    #[test]
    fn a_price_is_rounded_up_once_and_never_above_the_cap() {
        let prices = |fuel, inference| Prices {
            fuel_price_nanograms: fuel,
            inference_price_nanograms: inference,
        };
        let max = Nanograms::MAX;
        for (prices, fuel, units, cap, expected, reason) in [
            (prices(10, 20), 0, 0, max, 0, "nothing was used"),
            (
                prices(0, 0),
                u64::MAX,
                u64::MAX,
                max,
                0,
                "nothing is asked for it",
            ),
            (prices(1, 1), 1, 0, max, 1, "a part of a nanogram is one"),
            (
                prices(1, 1),
                500_000_000,
                500_000_000,
                max,
                1,
                "both parts make one",
            ),
            (
                prices(1, 1),
                1_000_000_000,
                1,
                max,
                2,
                "a whole one and a part",
            ),
            (
                prices(10, 20),
                2_000_000_000,
                3_000_000_000,
                max,
                80,
                "whole ones",
            ),
            (
                prices(10, 20),
                2_000_000_000,
                3_000_000_000,
                nano(79),
                79,
                "the cap",
            ),
            (
                prices(u64::MAX, u64::MAX),
                u64::MAX,
                u64::MAX,
                max,
                max.get(),
                "more than there is",
            ),
        ] {
            assert_eq!(prices.of(fuel, units, cap), nano(expected), "{reason}");
        }
    }
}
