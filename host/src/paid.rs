//! A run that is paid through a channel whose client and provider both are this host.
//!
//! In: an open channel, a job, what its run came to. Out: a priced receipt at its place in the
//! channel, a voucher over it, what it cost. Every step is on disk before the next, so that a run
//! that was cut off leaves a place that the next one fills with a receipt of failure.

mod books;

use std::time::Duration;

use tussah_commit::{RedeemError, Tended};
use tussah_manifest::{Channel, ChannelAddress, ExitStatus, Nanograms, Nonce, Receipt, Request};
use tussah_runtime::SignedRun;
use tussah_settlement::Address;
use tussah_settlement::voucher::ChannelId;

use crate::{
    chain_option::{ChainOption, OpenChain, block_on},
    channels::{
        BY_ITSELF, Channels, Held, Known, RULES, client_failure, provider_failure, redeem_failure,
    },
    failure::Failure,
    grams::grams,
    home::Home,
    road::{self, Job},
    wallets::random,
};

pub(crate) use books::Books;

/// A channel that a run is paid through.
#[derive(Debug)]
pub(crate) struct Payment {
    channels: Channels,
    known: Known,
    chain: OpenChain,
    held: Held,
}

/// A run that may begin.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) request: Request,
    /// From now until it has to have stopped: the channel ends soon after.
    pub(crate) time_max: Duration,
}

/// What a run cost.
#[derive(Debug)]
pub(crate) struct Cost {
    /// This run's price.
    pub(crate) price: Nanograms,
    /// What the newest voucher promises, for all runs so far.
    pub(crate) vouchered: Nanograms,
    /// The run's place in the channel.
    pub(crate) index: u64,
}

impl Payment {
    /// Opens the channel, and fills the places of runs that were cut off.
    ///
    /// # Errors
    /// A failure if the channel is not this host's on both sides, or the chain does not answer.
    pub(crate) fn open(
        home: &Home,
        chain: &ChainOption,
        address: &Address,
    ) -> Result<Self, Failure> {
        let channels = Channels::open(home)?;
        let held = channels.hold(address)?;
        let (chain, known) = block_on(async {
            let chain = chain.open().await?;
            let known = channels.find(&chain, address).await?;
            Ok((chain, known))
        })?;
        known.require_client()?;
        known.require_provider()?;
        known.require_open()?;
        channels.require_unsigned_close(address)?;
        channels.require_current(&known)?;
        let payment = Self {
            channels,
            known,
            chain,
            held,
        };
        payment.books().recover(home)?;
        Ok(payment)
    }

    const fn books(&self) -> Books<'_> {
        Books::new(&self.channels, &self.known, &self.held)
    }

    fn id(&self) -> &ChannelId {
        &self.known.id
    }

    /// A request for the channel's next place, kept and admitted.
    ///
    /// # Errors
    /// A usage failure if nobody said what the run may cost, or the manifest allows less; a
    /// failure if the deposit or the in-flight maximum does not cover it.
    pub(crate) fn request(
        &self,
        home: &Home,
        job: &Job,
        asked: Option<Nanograms>,
    ) -> Result<Admitted, Failure> {
        let price_max = price_cap(job.manifest.job.price_nanograms_max, asked)?;
        let (client, provider) = (&self.channels.client, &self.channels.provider);
        let index = provider.next_index(self.id()).map_err(provider_failure)?;
        let mut nonce = [0; 32];
        random(&mut nonce)?;
        let channel = Channel::Ton {
            address: ChannelAddress {
                workchain: i32::from(self.id().address.workchain),
                account: self.id().address.address.0,
            },
            index,
        };
        let nonce = Nonce::from_bytes(nonce);
        let request = road::request(home, job, nonce, channel, price_max)?;
        client.issue(self.id(), &request).map_err(client_failure)?;
        let admitted = provider.admit(self.id(), &request, RULES);
        let grant = admitted.map_err(provider_failure)?;
        let seconds = grant.stop_at.saturating_sub(self.channels.now());
        Ok(Admitted {
            request,
            time_max: Duration::from_secs(u64::from(seconds)),
        })
    }

    /// Prices the run's receipt and pays for it.
    ///
    /// # Errors
    /// A host failure if a book or the receipt cannot be written.
    pub(crate) fn settle(&self, request: &Request, run: &mut SignedRun) -> Result<Cost, Failure> {
        let consensus = &mut run.receipt.consensus;
        consensus.price_nanograms = match consensus.exit {
            // Nobody pays for what the provider broke.
            ExitStatus::HostFailure | ExitStatus::DeviceLost => Nanograms::ZERO,
            _ => self.known.agreed.prices.of(
                consensus.fuel_used,
                consensus.inference_units_used,
                request.body.price_nanograms_max,
            ),
        };
        let key = &self.channels.provider_key;
        let (consensus, evidence) = (consensus.clone(), run.receipt.evidence.clone());
        run.receipt = Receipt::sign(consensus, evidence, key).map_err(Failure::host)?;
        let vouchered = self.books().finish(&run.receipt)?;
        let Channel::Ton { index, .. } = request.body.channel else {
            return Err(Failure::host("the request names no channel"));
        };
        Ok(Cost {
            price: run.receipt.consensus.price_nanograms,
            vouchered,
            index,
        })
    }

    /// Redeems the voucher where that is due; or says why it was not. It is on the disk, and the
    /// next run tries again.
    ///
    /// # Errors
    /// A host failure if the provider's book cannot be used.
    pub(crate) fn redeem(&self) -> Result<Option<String>, Failure> {
        let (provider, key) = (&self.channels.provider, &self.channels.provider_key);
        block_on(async {
            let tended = provider.tend(&self.chain, self.id(), key, BY_ITSELF).await;
            Ok(match tended {
                Ok(Tended::Idle | Tended::Sent { .. } | Tended::Waiting) => None,
                Ok(Tended::Small { gain, .. }) => Some(format!(
                    "{} are due, less than the channel redeems at once: \
                     `tussah channel redeem --wallet NAME`",
                    grams(gain)
                )),
                Ok(Tended::Late { lost }) => Some(format!(
                    "the channel has ended, and {} can be redeemed no more",
                    grams(lost)
                )),
                Err(RedeemError::Chain(error)) => Some(format!(
                    "the voucher is not redeemed yet: {}",
                    Failure::host(error).chain().join(": ")
                )),
                Err(error) => return Err(redeem_failure(error)),
            })
        })
    }

    /// Fills the place of a run that came to nothing.
    ///
    /// # Errors
    /// A host failure if a book cannot be written.
    pub(crate) fn give_up(&self, request: &Request) -> Result<(), Failure> {
        let books = self.books();
        books.finish(&books.failed(request)?).map(drop)
    }
}

/// What a run may cost: what was asked for, up to what the manifest allows. A manifest that says
/// nothing leaves it to whoever pays.
fn price_cap(allowed: Nanograms, asked: Option<Nanograms>) -> Result<Nanograms, Failure> {
    match asked {
        None if allowed == Nanograms::ZERO => Err(Failure::usage(
            "nobody said what the run may cost: the manifest has no price_nanograms_max",
        )
        .help("give --price-max GRAM")),
        None => Ok(allowed),
        Some(asked) if allowed > Nanograms::ZERO && asked > allowed => {
            let (asked, allowed) = (grams(asked), grams(allowed));
            let message = format!("--price-max is {asked}, and the manifest allows {allowed}");
            Err(Failure::usage(message)
                .help("give less, or raise price_nanograms_max in the job's tussah.toml"))
        }
        Some(asked) => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::Exit;

    #[test]
    fn a_run_costs_at_most_what_both_allow() {
        let nano = |nanograms| Nanograms::new(nanograms).unwrap();
        for (allowed, asked, expected, reason) in [
            (0, None, None, "nobody said anything"),
            (0, Some(5), Some(5), "the manifest leaves it open"),
            (0, Some(0), Some(0), "free of charge, as was asked for"),
            (7, None, Some(7), "the manifest's"),
            (7, Some(5), Some(5), "less"),
            (7, Some(7), Some(7), "as much"),
            (7, Some(8), None, "more than the manifest allows"),
        ] {
            let cap = price_cap(nano(allowed), asked.map(nano));
            let cap = cap.map_err(|failure| failure.exit);
            assert_eq!(cap, expected.map(nano).ok_or(Exit::USAGE), "{reason}");
        }
    }
}
