//! `Books`: the provider's book of payment channels, for the gateway.
//!
//! In: requests, receipts with their claims, vouchers, what a chain says. Out: what the book
//! answers, durable. It has no key: what is handed out was signed by the signer. A channel is held
//! from its first job until the daemon ends, so that no other command of this host takes a job that
//! goes on for one that was cut off.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tussah_commit::{ChannelView, Look, ProviderBook, ProviderError};
use tussah_manifest::{Channel, ChannelAddress, Commitment, Digest, PublicKey, Receipt, Request};
use tussah_provider::{
    gateway::{PayError, Paymaster, PlaceClaim, PlaceGrant, Standing, VoucherForm},
    wire::Opening,
};
use tussah_settlement::{
    Address, Chain as _,
    channel::ChannelStatus,
    voucher::{ChannelId, Claim, SignedVoucher, Voucher},
};

use crate::{
    chain_option::{OpenChain, chain_failure},
    channels::{Held, RULES, chain_clock, hold, provider_failure, store_failure},
    failure::Failure,
    home::Home,
    ui::Ui,
};

/// What was said last of each channel.
pub(super) type Told = HashMap<Address, String>;

/// Between two looks at the chain: a close is seen well within its window of challenge.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The book, and the channels that are held.
pub(super) struct Books {
    folder: PathBuf,
    book: ProviderBook,
    provider: PublicKey,
    held: Mutex<HashMap<Address, Held>>,
    /// Channels from before the start whose chain has not borne the book out yet: one that was
    /// brought back from an older copy would give a place that is taken to another receipt.
    unchecked: Mutex<HashSet<Address>>,
    chain_time: Arc<AtomicU32>,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books").finish_non_exhaustive()
    }
}

impl Books {
    /// Opens the provider's book of this home. `provider` is the signer's key.
    ///
    /// # Errors
    /// A host failure if it cannot be used.
    pub(super) fn open(home: &Home, provider: PublicKey) -> Result<Self, Failure> {
        let folder = home.folder("channels")?;
        let chain_time = Arc::default();
        let path = folder.join("provider.sqlite");
        let book = ProviderBook::open(&path, chain_clock(&chain_time)).map_err(store_failure)?;
        let views = book.channels().map_err(provider_failure)?;
        let addresses = views.into_iter().map(|view| view.record.id.address);
        Ok(Self {
            unchecked: Mutex::new(addresses.collect()),
            folder,
            book,
            provider,
            held: Mutex::default(),
            chain_time,
        })
    }

    /// The newest opening of a channel whose receipts this provider signs.
    fn view(&self, address: &ChannelAddress) -> Result<ChannelView, PayError> {
        self.find(address, |_| true)
    }

    /// A certain one.
    fn view_of(&self, address: &ChannelAddress, of: &Opening) -> Result<ChannelView, PayError> {
        self.find(address, |view| opening(&view.record.id) == *of)
    }

    fn find(
        &self,
        address: &ChannelAddress,
        fits: impl Fn(&ChannelView) -> bool,
    ) -> Result<ChannelView, PayError> {
        let views = self
            .book
            .channels()
            .map_err(|error| refused(address, error))?;
        let found = views.into_iter().rev().find(|view| {
            let found = &view.record.id.address;
            i32::from(found.workchain) == address.workchain
                && found.address.0 == address.account
                && fits(view)
        });
        found
            .filter(|view| view.provider_key == self.provider)
            .ok_or(PayError::NoChannel(*address))
    }

    fn hold(&self, address: &ChannelAddress, account: &Address) -> Result<(), PayError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.contains_key(account) {
            let lock = hold(&self.folder, account).map_err(|_| PayError::Busy(*address))?;
            held.insert(account.clone(), lock);
        }
        Ok(())
    }

    /// Looks at every channel that is not over, again and again, from a while after now on.
    pub(super) async fn watch(self: Arc<Self>, chain: OpenChain, ui: Ui, mut told: Told) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.look_at_all(&chain, &ui, &mut told).await;
        }
    }

    /// Looks at every channel that is not over, and warns of what its provider has to know: once,
    /// as long as it stays the same.
    pub(super) async fn look_at_all(&self, chain: &OpenChain, ui: &Ui, told: &mut Told) {
        for view in self.book.channels().unwrap_or_default() {
            if view.provider_key != self.provider || view.status == ChannelStatus::Closed {
                continue;
            }
            let said = self.look(chain, &view.record.id).await.unwrap_or_default();
            let address = view.record.id.address;
            if !said.is_empty() && told.get(&address) != Some(&said) {
                ui.warn(&said);
            }
            told.insert(address, said);
        }
    }

    /// What its provider has to know of a channel.
    async fn look(&self, chain: &OpenChain, id: &ChannelId) -> Option<String> {
        if let Ok(time) = chain.time().await {
            self.chain_time.fetch_max(time, Ordering::Relaxed);
        }
        let address = &id.address;
        if let Err(failure) = self.check(chain, id).await {
            let reason = failure.chain().join(": ");
            return Some(format!(
                "no job is taken through channel {address}: {reason}"
            ));
        }
        match self.book.see(chain, id).await {
            Ok(view) if view.status == ChannelStatus::Closing => Some(format!(
                "channel {address} is being closed: `tussah channel redeem {address}` before \
                 second {} posts what is owed",
                view.deadline
            )),
            Ok(_) => None,
            Err(error) => {
                let reason = Failure::host(error).chain().join(": ");
                Some(format!(
                    "channel {address} could not be looked at: {reason}"
                ))
            }
        }
    }
}

impl Books {
    /// Whether the book has what the chain has, of a channel that nothing was taken through since
    /// the start.
    async fn check(&self, chain: &OpenChain, id: &ChannelId) -> Result<(), Failure> {
        if !self.unchecked().contains(&id.address) {
            return Ok(());
        }
        let look = Look::at(chain, &id.address).await;
        let posted = look.map_err(chain_failure)?.state.commitment;
        let checked = self.book.check_posted(id, &posted);
        checked.map_err(provider_failure)?;
        self.unchecked().remove(&id.address);
        Ok(())
    }

    fn unchecked(&self) -> MutexGuard<'_, HashSet<Address>> {
        self.unchecked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn opening(id: &ChannelId) -> Opening {
    Opening {
        network: id.network.0,
        incarnation: id.incarnation,
    }
}

/// Whose business it is.
fn refused(address: &ChannelAddress, error: ProviderError) -> PayError {
    match error {
        ProviderError::Unknown(_) => PayError::NoChannel(*address),
        ProviderError::Store(_) | ProviderError::Posted(_) | ProviderError::Tree(_) => {
            PayError::Failed(Failure::host(error).chain().join(": "))
        }
        other => PayError::Refused(other.to_string()),
    }
}

fn place(channel: Channel) -> Result<(ChannelAddress, u64), PayError> {
    match channel {
        Channel::Ton { address, index } => Ok((address, index)),
        Channel::Local => Err(PayError::Failed("the document names no channel".to_owned())),
    }
}

impl Paymaster for Books {
    fn admit(&self, request: &Request) -> Result<PlaceGrant, PayError> {
        let (address, _) = place(request.body.channel)?;
        let id = self.view(&address)?.record.id;
        if self.unchecked().contains(&id.address) {
            return Err(PayError::Unchecked(address));
        }
        self.hold(&address, &id.address)?;
        let granted = self.book.admit(&id, request, RULES);
        let granted = granted.map_err(|error| refused(&address, error))?;
        Ok(PlaceGrant {
            opening: opening(&id),
            granted: granted.granted,
            stop_at_unix_s: granted.stop_at,
        })
    }

    fn release(&self, request: &Request, of: &Opening) -> Result<(), PayError> {
        let (address, index) = place(request.body.channel)?;
        let id = self.view_of(&address, of)?.record.id;
        let released = self.book.release(&id, request);
        match released.map_err(|error| refused(&address, error))? {
            true => Ok(()),
            false => Err(PayError::Failed(format!("place {index} is not the last"))),
        }
    }

    fn opening(&self, channel: &ChannelAddress) -> Result<Opening, PayError> {
        Ok(opening(&self.view(channel)?.record.id))
    }

    fn finish(&self, receipt: &Receipt, claim: &PlaceClaim) -> Result<(), PayError> {
        let (address, _) = place(receipt.consensus.channel)?;
        let id = self.view_of(&address, &claim.opening)?.record.id;
        // A job from before a restart: nobody has asked for the channel since.
        self.hold(&address, &id.address)?;
        let claim = Claim {
            channel: id.clone(),
            index: claim.index,
            receipt: claim.receipt,
            signature: claim.signature,
        };
        let finished = self.book.finish_claimed(&id, receipt, &claim);
        finished
            .map(drop)
            .map_err(|error| match refused(&address, error) {
                // What does not fit here is not the client's to change.
                PayError::Refused(message) => PayError::Failed(message),
                error => error,
            })
    }

    fn claim(
        &self,
        channel: &ChannelAddress,
        of: &Opening,
        index: u64,
    ) -> Result<Option<PlaceClaim>, PayError> {
        let id = self.view_of(channel, of)?.record.id;
        let kept = self.book.finished(&id, index);
        let kept = kept.map_err(|error| refused(channel, error))?;
        Ok(kept.map(|(_, claim)| PlaceClaim {
            opening: opening(&id),
            address: *channel,
            index,
            receipt: claim.receipt,
            signature: claim.signature,
        }))
    }

    fn unfinished(&self) -> Result<Vec<Digest>, PayError> {
        let failed = |error| PayError::Failed(Failure::host(error).chain().join(": "));
        let mut jobs = Vec::new();
        for view in self.book.channels().map_err(failed)? {
            if view.provider_key == self.provider {
                let unfinished = self.book.unfinished(&view.record.id).map_err(failed)?;
                jobs.extend(unfinished.into_iter().map(|unfinished| unfinished.job));
            }
        }
        Ok(jobs)
    }

    fn standing(&self, channel: &ChannelAddress) -> Result<Standing, PayError> {
        let view = self.view(channel)?;
        let next_index = self.book.next_index(&view.record.id);
        Ok(Standing {
            opening: opening(&view.record.id),
            next_index: next_index.map_err(|error| refused(channel, error))?,
            receipts: view.commitment.receipts,
            root: view.commitment.root,
            earned: view.earned,
            promised: view.promised,
            vouchered: view.vouchered(),
            in_flight_max: view.record.in_flight_max,
            capacity: view.capacity,
            deadline_unix_s: view.deadline,
            is_open: view.status == ChannelStatus::Open,
        })
    }

    fn accept(&self, channel: &ChannelAddress, voucher: &VoucherForm) -> Result<(), PayError> {
        let id = self.view(channel)?.record.id;
        let signed = SignedVoucher {
            voucher: Voucher {
                channel: id.clone(),
                amount: voucher.amount,
                commitment: Commitment {
                    receipts: voucher.receipts,
                    root: voucher.root,
                },
            },
            signature: voucher.signature,
        };
        let accepted = self.book.accept(&id, &signed);
        accepted.map(drop).map_err(|error| refused(channel, error))
    }
}
