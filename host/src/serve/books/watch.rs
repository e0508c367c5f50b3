//! The watch over the channels: the chain is opened as soon as it answers, and looked at from then on.
//!
//! In: which chain, the book. Out: sights of channels, and words for their provider. A chain that
//! does not answer keeps nothing but channels waiting.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tussah_commit::{ProviderError, RedeemError};
use tussah_settlement::{Address, Chain as _, channel::ChannelStatus, voucher::ChannelId};

use super::{
    Books,
    sights::{Moment, Sight},
};
use crate::{
    chain_option::{ChainOption, OpenChain},
    exit_code::Exit,
    failure::Failure,
    ui::Ui,
};

/// What was said last of each channel.
type Told = HashMap<Address, String>;

/// Between two looks at every channel: a close is seen well within its window of challenge.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// At the least between two looks, however many ask for channels that were not seen.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Between two tries to reach the chain: twice as long each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Which channels are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    /// Those that were not seen of late.
    Unseen,
}

impl Books {
    /// Looks at the channels for as long as the daemon runs; ends only where the option names no
    /// chain, or one on another network.
    pub(in crate::serve) async fn watch(self: Arc<Self>, option: ChainOption, ui: Ui) -> Failure {
        let chain = match open(&option, &ui).await {
            Ok(chain) => chain,
            Err(failure) => return failure,
        };
        let mut told = Told::new();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let which = tokio::select! {
                _ = ticks.tick() => Which::All,
                () = self.wanted.notified() => Which::Unseen,
            };
            self.look_at(&chain, which, &ui, &mut told).await;
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Warns of what the provider has to know of its channels: once, as long as it stays the same.
    async fn look_at(&self, chain: &OpenChain, which: Which, ui: &Ui, told: &mut Told) {
        let views = self.to_watch();
        self.sights.keep(views.iter());
        for view in views {
            let id = &view.record.id;
            if which == Which::Unseen && self.sights.require(id, Moment::now()).is_ok() {
                continue;
            }
            let said = self.look(chain, id).await.unwrap_or_default();
            if !said.is_empty() && told.get(&id.address) != Some(&said) {
                ui.warn(&said);
            }
            told.insert(id.address.clone(), said);
        }
    }

    /// What its provider has to know of a channel.
    async fn look(&self, chain: &OpenChain, id: &ChannelId) -> Option<String> {
        let (at, address) = (Moment::now(), &id.address);
        let seen = async {
            let time = chain.time().await?;
            self.chain_time.fetch_max(time, Ordering::Relaxed);
            let view = self.book.compare(chain, id).await?;
            Ok::<_, RedeemError>((view, time))
        };
        match seen.await {
            Ok((view, time)) => {
                self.sights.saw(id, Sight::new(at, time));
                (view.status == ChannelStatus::Closing).then(|| {
                    format!(
                        "channel {address} is being closed: `tussah channel redeem {address}` \
                         before second {} posts what is owed",
                        view.deadline
                    )
                })
            }
            Err(error) => {
                if let RedeemError::Book(ProviderError::Posted(_)) = &error {
                    self.sights.doubt(id);
                }
                let reason = Failure::host(error).chain().join(": ");
                let taken = match self.sights.require(id, Moment::now()) {
                    Ok(()) => "jobs are taken through it for some time yet",
                    Err(_) => "no job is taken through it",
                };
                Some(format!(
                    "channel {address} is not seen, and {taken}: {reason}"
                ))
            }
        }
    }
}

/// Tries until the chain answers. What is wrong with the option shows at the first try.
async fn open(option: &ChainOption, ui: &Ui) -> Result<OpenChain, Failure> {
    let (mut pause, mut said) = (RETRY.0, None);
    loop {
        let failure = match option.open().await {
            Ok(chain) => {
                if said.is_some() {
                    ui.note("the chain answers: channels are looked at");
                }
                return Ok(chain);
            }
            Err(failure) => failure,
        };
        if failure.exit == Exit::USAGE && said.is_none() {
            return Err(failure);
        }
        let reason = failure.chain().join(": ");
        if said.as_ref() != Some(&reason) {
            ui.warn(&format!(
                "no channel is seen, and no job is taken through any until the chain answers: \
                 {reason}"
            ));
        }
        said = Some(reason);
        tokio::time::sleep(pause).await;
        pause = RETRY.1.min(pause * 2);
    }
}
