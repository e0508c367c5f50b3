//! The watch over the channels: the chain is opened as soon as it answers, and looked at from then on.
//!
//! In: which chain, the book, the signer behind the gateway. Out: sights of channels, vouchers that
//! are posted in time, and words for their provider. A chain that does not answer keeps nothing but
//! channels waiting. What is posted earns the channel's own payout account; no wallet is opened.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;
use tussah_commit::{Due, ProviderError, RedeemError, Tended, Weighed};
use tussah_provider::{gateway::Gateway, wire::Posting};
use tussah_settlement::{Address, Chain as _, channel::ChannelStatus, voucher::ChannelId};

use super::{
    Books, opening,
    sights::{Moment, Sight},
};

use crate::{
    chain_option::{ChainOption, OpenChain},
    channels::provider_failure,
    exit_code::Exit,
    failure::Failure,
    grams::grams,
    ui::Ui,
};

/// What was said last.
#[derive(Default)]
struct Told {
    /// How long channels that could not be seen are left alone by whoever asks for them.
    rests: Rests,
    /// Of each channel.
    channels: HashMap<Address, String>,
    /// Of a book that cannot be read.
    unread: Option<String>,
}

/// Between two looks at every channel: a close is seen well within its window of challenge.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// At the least between two looks, however many ask for channels that were not seen.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// The longest that a channel which was not seen is left alone by whoever asks for it.
const REST_MAX: Duration = Duration::from_secs(8);
/// Between two tries to reach the chain: twice as long each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Channels that a look did not show: until when no wish has them looked at again, and how long that was.
/// However many ask, a chain that fails is asked twice as late each time, up to [`REST_MAX`].
#[derive(Debug, Default)]
struct Rests(HashMap<Address, (Instant, Duration)>);

impl Rests {
    fn is_resting(&self, address: &Address, now: Instant) -> bool {
        self.0.get(address).is_some_and(|(until, _)| now < *until)
    }

    /// After a look.
    fn looked(&mut self, address: &Address, is_seen: bool, now: Instant) {
        if is_seen {
            self.0.remove(address);
            return;
        }
        let last = self.0.get(address).map_or(LOOK_PAUSE, |(_, last)| *last);
        let rest = REST_MAX.min(last * 2);
        self.0.insert(address.clone(), (now + rest, rest));
    }
}

/// What the watch works with.
struct Watcher {
    /// Reaches the signer, for the provider's consent.
    signer: Gateway,
    chain: OpenChain,
    ui: Ui,
}

/// Which channels are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    /// Those that were not seen of late, and those that are due.
    Wanted,
}

impl Books {
    /// Looks at the channels for as long as the daemon runs; ends only where the option names no
    /// chain, or one on another network.
    pub(in crate::serve) async fn watch(
        self: Arc<Self>,
        option: ChainOption,
        signer: Gateway,
        ui: Ui,
    ) -> Failure {
        let chain = match connect(&option, &ui).await {
            Ok(chain) => chain,
            Err(failure) => return failure,
        };
        let watcher = Watcher { signer, chain, ui };
        let mut told = Told::default();
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let which = tokio::select! {
                _ = ticks.tick() => Which::All,
                () = self.wanted.notified() => Which::Wanted,
            };
            self.look_at(&watcher, which, &mut told).await;
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Warns of what the provider has to know of its channels: once, as long as it stays the same.
    async fn look_at(&self, watcher: &Watcher, which: Which, told: &mut Told) {
        let due = std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner));
        let views = match self.to_watch() {
            Ok(views) => views,
            Err(error) => {
                let failure = provider_failure(error).chain().join(": ");
                let said =
                    format!("the book of channels cannot be read, and none is watched: {failure}");
                if told.unread.as_ref() != Some(&said) {
                    watcher.ui.warn(&said);
                    told.unread = Some(said);
                }
                return;
            }
        };
        told.unread = None;
        self.sights.keep(views.iter());
        for view in views {
            let id = &view.record.id;
            let is_seen = || self.sights.require(id, Moment::now()).is_ok();
            let rests = is_seen() || told.rests.is_resting(&id.address, Instant::now());
            if which == Which::Wanted && rests && !due.contains(&id.address) {
                continue;
            }
            let said = self.look(watcher, id).await.unwrap_or_default();
            told.rests.looked(&id.address, is_seen(), Instant::now());
            if !said.is_empty() && told.channels.get(&id.address) != Some(&said) {
                watcher.ui.warn(&said);
            }
            told.channels.insert(id.address.clone(), said);
        }
    }

    /// What its provider has to know of a channel.
    async fn look(&self, watcher: &Watcher, id: &ChannelId) -> Option<String> {
        let (at, address, chain) = (Moment::now(), &id.address, &watcher.chain);
        let seen = async {
            let time = chain.time().await?;
            self.chain_time.fetch_max(time, Ordering::Relaxed);
            let (view, weighed) = self.book.weigh(chain, id, self.policy).await?;
            Ok::<_, RedeemError>((view, weighed, time))
        };
        match seen.await {
            Ok((view, weighed, time)) => {
                self.sights.saw(id, Sight::new(at, time));
                let posted = self.post(watcher, id, weighed).await;
                let closing = (view.status == ChannelStatus::Closing).then(|| {
                    let deadline = view.deadline;
                    format!("channel {address} is being closed, until second {deadline}")
                });
                let said: Vec<String> = closing.into_iter().chain(posted).collect();
                (!said.is_empty()).then(|| said.join("; "))
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

impl Books {
    /// Posts the newest voucher where that is due; what its provider has to know of it.
    async fn post(&self, watcher: &Watcher, id: &ChannelId, weighed: Weighed) -> Option<String> {
        let address = &id.address;
        let tended = match weighed {
            Weighed::Rests(tended) => Ok(tended),
            Weighed::Due(due) => self.post_due(watcher, id, &due).await,
        };
        match tended {
            Ok(Tended::Idle | Tended::Waiting) => None,
            Ok(Tended::Sent { amount, .. }) => {
                let amount = grams(amount);
                watcher.ui.note(&format!(
                    "channel {address}: posted the voucher for {amount}"
                ));
                None
            }
            Ok(Tended::Small { gain, .. }) => Some(format!(
                "channel {address} owes {}, which is less than it redeems at once: \
                 `tussah channel redeem {address} --wallet NAME` has a wallet pay for it",
                grams(gain)
            )),
            Ok(Tended::Late { lost }) => Some(format!(
                "channel {address} has ended, and {} can be redeemed no more",
                grams(lost)
            )),
            Err(failure) => Some(format!(
                "the voucher of channel {address} is not posted yet: {}",
                failure.chain().join(": ")
            )),
        }
    }

    async fn post_due(
        &self,
        watcher: &Watcher,
        id: &ChannelId,
        due: &Due,
    ) -> Result<Tended, Failure> {
        let voucher = &due.signed.voucher;
        let posting = Posting {
            workchain: i32::from(id.address.workchain),
            account: id.address.address.0,
            opening: opening(id),
            amount: voucher.amount.get(),
            receipts: voucher.commitment.receipts,
            root: *voucher.commitment.root.as_bytes(),
        };
        let consent = watcher.signer.consent(posting).await;
        let consent = consent.map_err(Failure::host)?;
        let (book, chain) = (&self.book, &watcher.chain);
        let posted = book.post(chain, id, due, &consent, self.policy).await;
        posted.map_err(Failure::host)
    }
}

/// Tries until the chain answers. What is wrong with the option shows at the first try.
async fn connect(option: &ChainOption, ui: &Ui) -> Result<OpenChain, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_is_not_seen_is_looked_at_ever_later_however_often_it_is_asked_for() {
        let [one, other] = [1, 2].map(|byte| Address::new(0, [byte; 32].into()));
        let start = Instant::now();
        let (mut rests, mut now, mut looks) = (Rests::default(), start, 0);
        // Ten minutes of somebody who asks all the time.
        while now < start + Duration::from_secs(600) {
            if !rests.is_resting(&one, now) {
                rests.looked(&one, false, now);
                looks += 1;
            }
            now += LOOK_PAUSE;
        }
        // After 1, 2, 4 and 8 seconds, and then every 8, where there were 1,200 wishes.
        assert_eq!(looks, 78);
        assert!(!rests.is_resting(&other, now));
        rests.looked(&one, true, now);
        assert!(!rests.is_resting(&one, now));
    }
}
