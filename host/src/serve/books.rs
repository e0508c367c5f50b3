//! `Books`: the provider's book of payment channels, for the gateway.
//!
//! In: requests, receipts with their claims, vouchers, what a chain says. Out: what the book
//! answers, durable. It has no key: what is handed out was signed by the signer. A channel is held
//! from its first job until the daemon ends, so that no other command of this host takes a job that
//! goes on for one that was cut off.

mod sights;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
};

use tokio::sync::Notify;
use tussah_commit::{ChannelView, ProviderBook, ProviderError, RedeemPolicy};
use tussah_manifest::{
    Channel, ChannelAddress, Commitment, Digest, Nanograms, PublicKey, Receipt, Request,
};
use tussah_provider::{
    gateway::{ChannelCounts, PayError, Paymaster, PlaceClaim, PlaceGrant, Standing, VoucherForm},
    wire::Opening,
};
use tussah_settlement::{
    Address,
    channel::ChannelStatus,
    voucher::{ChannelId, Claim, SignedVoucher, Voucher},
};

use sights::{Moment, Sights, Unseen};

use crate::{
    channels::{
        BY_ITSELF, Held, RULES, chain_clock, hold, is_close_signed, provider_failure, store_failure,
    },
    failure::Failure,
    home::Home,
};

/// The book, and the channels that are held.
pub(super) struct Books {
    folder: PathBuf,
    book: ProviderBook,
    provider: PublicKey,
    held: Mutex<HashMap<Address, Held>>,
    /// Channels whose chain has borne the book out, and when: one that was brought back from an
    /// older copy would give a place that is taken to another receipt.
    sights: Sights,
    /// Channels of which so much is owed by now that it is posted at once.
    due: Mutex<HashSet<Address>>,
    /// Somebody asks for a channel that was not seen of late, or there is one that is due.
    wanted: Notify,
    /// When what is owed is posted without being asked for.
    policy: RedeemPolicy,
    chain_time: Arc<AtomicU32>,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books").finish_non_exhaustive()
    }
}

impl Books {
    /// Opens the provider's book of this home. `provider` is the signer's key; from `redeem_from` on
    /// what is owed is posted at once.
    ///
    /// # Errors
    /// A host failure if it cannot be used.
    pub(super) fn open(
        home: &Home,
        provider: PublicKey,
        redeem_from: Nanograms,
    ) -> Result<Self, Failure> {
        let folder = home.folder("channels")?;
        let chain_time = Arc::default();
        let path = folder.join("provider.sqlite");
        let book = ProviderBook::open(&path, chain_clock(&chain_time)).map_err(store_failure)?;
        let books = Self {
            sights: Sights::default(),
            due: Mutex::default(),
            wanted: Notify::new(),
            policy: RedeemPolicy {
                value_min: redeem_from,
                ..BY_ITSELF
            },
            folder,
            book,
            provider,
            held: Mutex::default(),
            chain_time,
        };
        let views = books.to_watch().map_err(provider_failure)?;
        books.sights.keep(views.iter());
        Ok(books)
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

    /// The channels that are watched: those of this provider that are not over.
    fn to_watch(&self) -> Result<Vec<ChannelView>, ProviderError> {
        let mut views = self.book.channels()?;
        views.retain(|view| view.provider_key == self.provider);
        Ok(sights::to_watch(views))
    }

    /// Whether the channel was seen of late; if not, it is looked at next.
    fn require_seen(&self, address: &ChannelAddress, id: &ChannelId) -> Result<(), PayError> {
        let seen = self.sights.require(id, Moment::now());
        seen.map_err(|unseen| {
            self.wanted.notify_one();
            match unseen {
                Unseen::Never => PayError::Unchecked(*address),
                Unseen::Since(age) => PayError::Unseen {
                    channel: *address,
                    seconds: age.as_secs(),
                },
            }
        })
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
        let record = self.view(&address)?.record;
        // A stranger's request holds no channel, and has nobody look at the chain.
        if request.body.client_key != record.terms.client_key {
            let message = format!("channel {address} is another client's");
            return Err(PayError::Refused(message));
        }
        let id = record.id;
        self.require_seen(&address, &id)?;
        let require_open = || match is_close_signed(&self.folder, &id.address) {
            false => Ok(()),
            true => {
                let message = format!("both sides have signed the close of channel {address}");
                Err(PayError::Refused(message))
            }
        };
        // A channel that is being closed is not held, so that its close can go on.
        require_open()?;
        self.hold(&address, &id.address)?;
        // None is signed from now on.
        require_open()?;
        let granted = self.book.admit(&id, request, RULES);
        let granted = granted.map_err(|error| refused(&address, error))?;
        Ok(PlaceGrant {
            opening: opening(&id),
            granted: granted.granted,
            stop_at_unix_s: granted.stop_at,
        })
    }

    fn release(&self, request: &Request, of: &Opening) -> Result<bool, PayError> {
        let (address, _) = place(request.body.channel)?;
        let id = self.view_of(&address, of)?.record.id;
        let released = self.book.release(&id, request);
        released.map_err(|error| refused(&address, error))
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
            takes_jobs: view.status == ChannelStatus::Open
                && !is_close_signed(&self.folder, &view.record.id.address)
                && self.require_seen(channel, &view.record.id).is_ok(),
        })
    }

    fn counts(&self) -> ChannelCounts {
        self.sights.counts(Moment::now())
    }

    fn accept(&self, channel: &ChannelAddress, voucher: &VoucherForm) -> Result<(), PayError> {
        let before = self.view(channel)?;
        let id = before.record.id.clone();
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
        accepted.map_err(|error| refused(channel, error))?;
        let due = before
            .redeemed
            .get()
            .saturating_add(self.policy.value_min.get());
        // Once, when it comes to so much; the watch sees it in its own time from then on.
        if before.vouchered().get() < due && voucher.amount.get() >= due {
            let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(id.address);
            drop(all);
            self.wanted.notify_one();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tussah_commit::{ChannelRecord, Look};
    use tussah_manifest::{Nonce, RequestBody, SigningKey, TreeHash, Version};
    use tussah_settlement::{
        channel::{self, ChannelState, ProviderSide, Terms},
        voucher::NetworkId,
    };

    use super::{sights::Sight, *};

    const WINDOW: u32 = 4 * 3_600;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32])
    }

    /// A channel with a deposit of a GRAM, as an open one is seen.
    fn open_channel() -> (ChannelRecord, Look) {
        let gram = Nanograms::new(1_000_000_000).unwrap();
        let [client, owner] = [1, 2].map(|byte| Address::new(0, [byte; 32].into()));
        let terms = Terms {
            client,
            owner: owner.clone(),
            client_key: key(1).public_key(),
            challenge_seconds: WINDOW,
            redeem_step_min: Nanograms::ZERO,
            salt: 7,
        };
        let side = ProviderSide {
            key: key(2).public_key(),
            payout: owner,
        };
        let id = ChannelId {
            network: NetworkId::LOCALNET,
            address: channel::address(&terms, &side),
            incarnation: [5; 32],
        };
        let state = ChannelState {
            status: ChannelStatus::Open,
            payout_bounced: false,
            deadline: u32::MAX,
            rent_reserve: Nanograms::ZERO,
            redeemed: Nanograms::ZERO,
            owed: Nanograms::ZERO,
            commitment: Commitment {
                receipts: 0,
                root: TreeHash::empty_root(),
            },
            incarnation: id.incarnation,
        };
        let record = ChannelRecord {
            id,
            terms,
            side,
            in_flight_max: gram,
        };
        let capacity = gram;
        (record, Look { state, capacity })
    }

    fn request(address: ChannelAddress) -> Request {
        request_by(1, address)
    }

    fn request_by(client: u8, address: ChannelAddress) -> Request {
        let nonce = Nonce::from_bytes([3; 32]);
        let body = RequestBody {
            version: Version::V1,
            manifest: Digest::of(b"manifest"),
            module: Digest::of(b"module"),
            input: RequestBody::input_digest(&nonce, b"input"),
            nonce,
            price_nanograms_max: Nanograms::new(7).unwrap(),
            channel: Channel::Ton { address, index: 0 },
            deadline_unix_ms: None,
            client_key: key(client).public_key(),
        };
        body.sign(&key(client)).unwrap()
    }

    #[test]
    fn a_strangers_request_holds_no_channel() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().to_owned()).unwrap();
        let books = Books::open(&home, key(2).public_key(), Nanograms::MAX).unwrap();
        let (record, look) = open_channel();
        books.book.add(&record, &look).unwrap();
        books.sights.keep(books.to_watch().unwrap().iter());
        let account = &record.id.address;
        let address = ChannelAddress {
            workchain: 0,
            account: account.address.0,
        };
        let sight = Sight::new(Moment::now(), crate::clock::seconds());
        books.sights.saw(&record.id, sight);
        let refused = books.admit(&request_by(9, address));
        assert!(matches!(refused, Err(PayError::Refused(_))), "{refused:?}");
        // Another command of this host may use it.
        drop(hold(&books.folder, account).unwrap());
        books.admit(&request(address)).unwrap();
        assert!(hold(&books.folder, account).is_err());
    }

    #[test]
    fn a_job_is_taken_through_a_channel_that_was_seen_of_late_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().to_owned()).unwrap();
        let books = Books::open(&home, key(2).public_key(), Nanograms::MAX).unwrap();
        let (record, look) = open_channel();
        books.book.add(&record, &look).unwrap();
        books.sights.keep(books.to_watch().unwrap().iter());
        let id = &record.id;
        let address = ChannelAddress {
            workchain: 0,
            account: id.address.address.0,
        };
        let request = request(address);
        assert_eq!(books.admit(&request), Err(PayError::Unchecked(address)));
        let taken = |sight| {
            books.sights.saw(id, sight);
            let counts = books.counts();
            assert_eq!(counts.watched, 1);
            (books.admit(&request).map(drop), counts.unseen)
        };
        let seen = |seconds_ago| {
            let now = crate::clock::seconds();
            Sight::new(Moment::now(), now - seconds_ago)
        };
        let (refused, unseen) = taken(seen(WINDOW / 4 + 5));
        let channel = address;
        assert!(
            matches!(refused, Err(PayError::Unseen { channel: of, .. }) if of == channel),
            "{refused:?}"
        );
        assert_eq!(unseen, 1);
        assert_eq!(taken(seen(WINDOW / 4 - 60)), (Ok(()), 0));
        // What the chain has and the book lacks is no sight.
        books.sights.doubt(id);
        assert_eq!(books.admit(&request), Err(PayError::Unchecked(address)));
    }
}
