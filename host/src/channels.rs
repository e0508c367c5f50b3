//! The payment channels of this host: the terms of each in a file, and the books of both roles.
//!
//! In: addresses, terms, answers of a chain. Out: channels that a command can use. The terms are
//! on disk before the money leaves the wallet, so that a channel whose opening was cut off is
//! found again by its address. Never: a channel whose terms this host does not have.

mod terms;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tussah_commit::{
    AdmitRules, ChannelRecord, ClientBook, ClientError, Clock, Look, PostedError, ProviderBook,
    ProviderError, RedeemError, RedeemPolicy, StoreError,
};
use tussah_manifest::{Nanograms, SigningKey};
use tussah_settlement::channel::ChannelStatus;
use tussah_settlement::voucher::{ChannelId, NetworkId};
use tussah_settlement::{Address, Chain, ChainError};

use crate::{
    chain_option::chain_failure,
    clock,
    exit_code::Exit,
    failure::{Failure, file_failure},
    grams::grams,
    home::Home,
    keys::{self, KeyName},
    road, wallets,
};

pub(crate) use terms::{Agreed, PriceOption};

/// Before its deadline a channel takes no job that could not be vouchered and redeemed any more.
pub(crate) const RULES: AdmitRules = AdmitRules {
    grant_max: Nanograms::MAX,
    stop_before_seconds: 600,
};

/// Redeems what there is, and sends again what has left no trace for a minute.
pub(crate) const AT_ONCE: RedeemPolicy = RedeemPolicy {
    value_min: Nanograms::ZERO,
    age_seconds_max: 0,
    before_deadline_seconds: 0,
    resend_seconds: 60,
};

/// Of the file that says that both sides have signed a close.
const CLOSE_SUFFIX: &str = "close";

/// The smallest step of redeeming, 0.001 GRAM: about twice what an external redeem costs.
pub(crate) const REDEEM_STEP_MIN: Nanograms = match Nanograms::new(1_000_000) {
    Some(step) => step,
    None => Nanograms::MAX,
};

/// What the provider's role does by itself after each job.
pub(crate) const BY_ITSELF: RedeemPolicy = RedeemPolicy {
    value_min: match Nanograms::new(1_000_000_000) {
        Some(gram) => gram,
        None => Nanograms::MAX,
    },
    age_seconds_max: 86_400,
    before_deadline_seconds: 3_600,
    resend_seconds: 60,
};

/// What to do about a book that is an older copy.
const TAKE_IN_NEWEST: &str =
    "take in the newest file of `tussah channel export` with `tussah channel import`";

/// And where there is no such file.
const OR_ALONE: &str = "or end the channel with `tussah channel close --one-sided`, which needs \
                        no book";

/// Why a channel whose terms are here is not one of a chain's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Absent {
    #[error("channel {0} was never opened")]
    NeverOpened(Address),
    #[error("the channel is on network {own}, and this chain is network {other}")]
    OtherNetwork { own: i32, other: i32 },
}

/// A channel on chain, in the books of the roles that this host has in it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) id: ChannelId,
    pub(crate) agreed: Agreed,
    pub(crate) look: Look,
    pub(crate) is_client: bool,
    pub(crate) is_provider: bool,
}

/// This host's channels.
#[derive(Debug)]
pub(crate) struct Channels {
    folder: PathBuf,
    pub(crate) client: ClientBook,
    pub(crate) provider: ProviderBook,
    pub(crate) client_key: SigningKey,
    pub(crate) provider_key: SigningKey,
    /// The newest second that a chain has said; what the books take for now is never before it.
    chain_time: Arc<AtomicU32>,
}

/// A channel that no other process pays a run through.
#[derive(Debug)]
pub(crate) struct Held {
    /// Held, never read; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Channels {
    /// Opens the books, or starts them.
    ///
    /// # Errors
    /// A host failure if a book or a key cannot be used.
    pub(crate) fn open(home: &Home) -> Result<Self, Failure> {
        let folder = home.folder("channels")?;
        let key = |name| -> Result<SigningKey, Failure> {
            Ok(SigningKey::from_bytes(&*keys::load_or_create(home, name)?))
        };
        let chain_time = Arc::default();
        let client = ClientBook::open(&folder.join("client.sqlite"), chain_clock(&chain_time));
        let provider =
            ProviderBook::open(&folder.join("provider.sqlite"), chain_clock(&chain_time));
        Ok(Self {
            client: client.map_err(store_failure)?,
            provider: provider.map_err(store_failure)?,
            client_key: key(KeyName::Client)?,
            provider_key: key(KeyName::Provider)?,
            chain_time,
            folder,
        })
    }

    /// The second that the books take for now.
    pub(crate) fn now(&self) -> u32 {
        seconds(&self.chain_time)
    }

    fn path(&self, address: &Address, suffix: &str) -> PathBuf {
        file_of(&self.folder, address, suffix)
    }

    /// Keeps other processes of this host from paying runs through the channel: what one of them
    /// has not finished would look like a run that was cut off to the other.
    ///
    /// # Errors
    /// A host failure if another process does so.
    pub(crate) fn hold(&self, address: &Address) -> Result<Held, Failure> {
        hold(&self.folder, address)
    }

    /// Keeps a channel's terms; what is kept already is the same, since its address follows from it.
    ///
    /// # Errors
    /// A failure if the file cannot be written; nothing is left behind.
    pub(crate) fn keep(&self, address: &Address, agreed: &Agreed) -> Result<(), Failure> {
        write_whole(&self.path(address, "json"), agreed.to_json()?.as_bytes())
    }

    /// Records that both sides sign the channel's close: whoever has the signatures can bring them
    /// to the chain at any time, so from now on nothing is to be earned in it.
    ///
    /// # Errors
    /// A failure if that cannot be written; then nothing is to be signed.
    pub(crate) fn sign_close(&self, address: &Address) -> Result<(), Failure> {
        write_whole(&self.path(address, CLOSE_SUFFIX), b"")
    }

    /// # Errors
    /// A usage failure if both sides have signed the channel's close.
    pub(crate) fn require_unsigned_close(&self, address: &Address) -> Result<(), Failure> {
        if !is_close_signed(&self.folder, address) {
            return Ok(());
        }
        let message = format!("both sides have signed the close of channel {address}");
        Err(Failure::usage(message).help("`tussah channel close` sends it again"))
    }

    /// The addresses of all channels that there are terms of.
    ///
    /// # Errors
    /// A failure if the folder cannot be read.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, Failure> {
        let failed = |error| file_failure("read", &self.folder, error);
        let mut addresses = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            let address = name.strip_suffix(".json").map(|raw| raw.replace('_', ":"));
            addresses.extend(address.and_then(|raw| raw.parse::<Address>().ok()));
        }
        addresses.sort();
        Ok(addresses)
    }

    fn agreed(&self, address: &Address) -> Result<Agreed, Failure> {
        let path = self.path(address, "json");
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::usage(format!("this host has no channel {address}"))
                    .help("`tussah channel status` lists those that it has")
            }
            _ => file_failure("read", &path, error),
        })?;
        let damaged = |what: &str| Failure::usage(format!("{} is damaged: {what}", path.display()));
        let agreed = Agreed::from_json(&text).map_err(|what| damaged(&what))?;
        if tussah_settlement::channel::address(&agreed.terms, &agreed.side) != *address {
            return Err(damaged("the address does not follow from the terms"));
        }
        Ok(agreed)
    }

    /// The channel at an address, as the chain has it now, in the books of both roles.
    ///
    /// # Errors
    /// A usage failure if this host does not have it, it is on another network or not open yet.
    pub(crate) async fn find<C: Chain>(
        &self,
        chain: &C,
        address: &Address,
    ) -> Result<Known, Failure> {
        let known = self.look_at(chain, address, &self.agreed(address)?).await?;
        let record = known.record();
        if known.is_client {
            let added = self.client.add(&record, &known.look);
            added.map_err(client_failure)?;
            let seen = self.client.see(&known.id, &known.look);
            seen.map_err(client_failure)?;
        }
        if known.is_provider {
            let added = self.provider.add(&record, &known.look);
            added.map_err(provider_failure)?;
            let seen = self.provider.see(chain, &known.id).await;
            seen.map_err(redeem_failure)?;
        }
        Ok(known)
    }

    /// The channel of these terms, as the chain has it now; no book learns of it.
    ///
    /// # Errors
    /// A usage failure if it is on another network or not open yet.
    pub(crate) async fn look_at<C: Chain>(
        &self,
        chain: &C,
        address: &Address,
        agreed: &Agreed,
    ) -> Result<Known, Failure> {
        require_network(agreed.network, chain)?;
        let time = chain.time().await.map_err(chain_failure)?;
        self.chain_time.fetch_max(time, Ordering::Relaxed);
        let look = Look::at(chain, address)
            .await
            .map_err(|error| match error {
                ChainError::NoCode(_) => never_opened(address),
                error => chain_failure(error),
            })?;
        if look.state.status == ChannelStatus::Unopened {
            return Err(never_opened(address));
        }
        Ok(Known {
            id: ChannelId {
                network: agreed.network,
                address: address.clone(),
                incarnation: look.state.incarnation,
            },
            is_client: agreed.terms.client_key == self.client_key.public_key(),
            is_provider: agreed.side.key == self.provider_key.public_key(),
            agreed: agreed.clone(),
            look,
        })
    }

    /// That both roles' books have what is posted: to go on from an older copy would put a second
    /// receipt, with a second claim, where the chain has one.
    ///
    /// # Errors
    /// Not verified if the chain is further on than a book, or has other receipts.
    pub(crate) fn require_current(&self, known: &Known) -> Result<(), Failure> {
        let posted = &known.look.state.commitment;
        if known.is_client {
            let checked = self.client.check_posted(&known.id, posted);
            checked.map_err(|error| client_failure(error).context("the client's book"))?;
        }
        self.require_provider_current(known)
    }

    /// The same of the provider's book alone.
    ///
    /// # Errors
    /// Not verified if the chain is further on than it, or has other receipts.
    pub(crate) fn require_provider_current(&self, known: &Known) -> Result<(), Failure> {
        if known.is_provider {
            let posted = &known.look.state.commitment;
            let checked = self.provider.check_posted(&known.id, posted);
            checked.map_err(|error| provider_failure(error).context("the provider's book"))?;
        }
        Ok(())
    }
}

impl Known {
    /// What the books have of it.
    pub(crate) fn record(&self) -> ChannelRecord {
        ChannelRecord {
            id: self.id.clone(),
            terms: self.agreed.terms.clone(),
            side: self.agreed.side.clone(),
            in_flight_max: self.agreed.in_flight_max,
        }
    }

    /// # Errors
    /// A usage failure if the channel is closed, or somebody has started to close it.
    pub(crate) fn require_open(&self) -> Result<(), Failure> {
        let words = match self.look.state.status {
            ChannelStatus::Open => return Ok(()),
            ChannelStatus::Unopened => "it was never opened",
            ChannelStatus::Closing => "it is closing",
            ChannelStatus::Closed => "it is closed",
        };
        let message = format!("the channel takes no more jobs: {words}");
        Err(Failure::usage(message).help("open another one with `tussah channel open`"))
    }

    /// That the client signs for no less than was credited, all of which it has signed for.
    ///
    /// # Errors
    /// Not verified if it would: then its book is an older copy.
    pub(crate) fn require_credited(&self, amount: Nanograms) -> Result<(), Failure> {
        let redeemed = self.look.state.redeemed;
        if redeemed <= amount {
            return Ok(());
        }
        let (redeemed, amount) = (grams(redeemed), grams(amount));
        let message = format!(
            "{redeemed} are redeemed on chain, and the client's book comes to {amount}: it is an \
             older copy"
        );
        Err(Failure::not_verified(message).help(format!("{TAKE_IN_NEWEST}, {OR_ALONE}")))
    }

    /// # Errors
    /// A usage failure unless this host is the channel's provider.
    pub(crate) fn require_provider(&self) -> Result<(), Failure> {
        if self.is_provider {
            return Ok(());
        }
        let key = self.agreed.side.key;
        Err(Failure::usage(format!(
            "this channel's provider is {key}, another host"
        )))
    }

    /// # Errors
    /// A usage failure unless this host is the channel's client.
    pub(crate) fn require_client(&self) -> Result<(), Failure> {
        if self.is_client {
            return Ok(());
        }
        let key = self.agreed.terms.client_key;
        Err(Failure::usage(format!(
            "this channel's client is {key}, another host"
        )))
    }
}

/// As [`Channels::hold`], in a home's folder of channels.
///
/// # Errors
/// A host failure if another process pays runs through the channel.
pub(crate) fn hold(folder: &Path, address: &Address) -> Result<Held, Failure> {
    let path = file_of(folder, address, "lock");
    let failed = |error| file_failure("lock", &path, error);
    let mut options = File::options();
    let lock = options.create(true).truncate(false).write(true);
    let lock = lock.open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(Held { _lock: lock }),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another run is being paid through channel {address}");
            Err(Failure::host(message).help("try again when it has ended"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether both sides have signed the channel's close, so that nothing is to be earned in it.
pub(crate) fn is_close_signed(folder: &Path, address: &Address) -> bool {
    file_of(folder, address, CLOSE_SUFFIX).exists()
}

fn file_of(folder: &Path, address: &Address, suffix: &str) -> PathBuf {
    // A raw address has a colon, which not every file system takes.
    let name = address.to_string().replace(':', "_");
    folder.join(format!("{name}.{suffix}"))
}

/// # Errors
/// A usage failure if a channel's network is not the chain's.
pub(crate) fn require_network<C: Chain>(own: NetworkId, chain: &C) -> Result<(), Failure> {
    let (own, other) = (own.0, chain.network().0);
    if own == other {
        return Ok(());
    }
    Err(Failure::usage(Absent::OtherNetwork { own, other })
        .help("name the chain that you mean with --chain"))
}

fn never_opened(address: &Address) -> Failure {
    Failure::usage(Absent::NeverOpened(address.clone())).help("open one with `tussah channel open`")
}

/// The books' clock. Deadlines are in the chain's time, which can be ahead of this machine's.
pub(crate) fn chain_clock(chain_time: &Arc<AtomicU32>) -> Box<dyn Clock> {
    let chain_time = Arc::clone(chain_time);
    Box::new(move || seconds(&chain_time))
}

fn seconds(chain_time: &AtomicU32) -> u32 {
    clock::seconds().max(chain_time.load(Ordering::Relaxed))
}

/// A file that is whole before it has its name.
///
/// # Errors
/// A failure if it cannot be written; nothing is left behind.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| file_failure("write", path, error);
    let file = road::stage(path, bytes, 0o600)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    wallets::sync_folder(road::folder_of(path)).map_err(failed)
}

/// What a book's file fails with.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    Failure::host(error)
}

/// What a client's book fails with.
pub(crate) fn client_failure(error: ClientError) -> Failure {
    match error {
        ClientError::Store(error) => store_failure(error),
        ClientError::Equivocation { .. } | ClientError::Receipt(_) | ClientError::Signature(_) => {
            Failure::not_verified(error)
        }
        ClientError::Posted(error) => posted_failure(error),
        ClientError::Underfunded { total, capacity } => underfunded(total, capacity),
        ClientError::OtherReceipt { .. } | ClientError::NotNext { .. } => apart(error),
        other => Failure::usage(other),
    }
}

/// What a provider's book fails with.
pub(crate) fn provider_failure(error: ProviderError) -> Failure {
    match error {
        ProviderError::Store(error) => store_failure(error),
        ProviderError::AtRisk {
            asked,
            at_risk,
            in_flight_max,
        } => {
            let message = format!(
                "{} more would leave {} at risk, and the channel allows {}",
                grams(asked),
                grams(at_risk),
                grams(in_flight_max)
            );
            Failure::new(Exit::LIMIT, message)
                .help("lower --price-max, or open a channel with a higher --in-flight")
        }
        ProviderError::Posted(error) => posted_failure(error),
        ProviderError::Underfunded { total, capacity } => underfunded(total, capacity),
        ProviderError::Lower { .. } | ProviderError::OtherRoot { .. } => apart(error),
        other => Failure::usage(other),
    }
}

fn posted_failure(error: PostedError) -> Failure {
    match error {
        PostedError::Store(error) => store_failure(error),
        other => Failure::not_verified(other).help(TAKE_IN_NEWEST),
    }
}

/// The two books of this host do not agree: one of them is an older copy, as after a disk was
/// restored.
fn apart(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::usage(error).help(format!(
        "where one of the channel's books is an older copy, {TAKE_IN_NEWEST}, {OR_ALONE}"
    ))
}

fn underfunded(total: Nanograms, capacity: Nanograms) -> Failure {
    let (total, capacity) = (grams(total), grams(capacity));
    let message = format!("the deposit covers {capacity} in all, and this would come to {total}");
    Failure::usage(message).help("`tussah channel top-up` adds to the deposit")
}

/// What redeeming fails with.
pub(crate) fn redeem_failure(error: RedeemError) -> Failure {
    match error {
        RedeemError::Book(error) => provider_failure(error),
        RedeemError::Chain(error) => chain_failure(error),
        other => Failure::usage(other),
    }
}
