//! A client and a provider with a book each, and an open channel between them on an embedded
//! chain. Jobs are not run here: a receipt says what the test wants it to say.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tussah_commit::{AdmitRules, ChannelRecord, ClientBook, Look, ProviderBook, RedeemPolicy};
use tussah_manifest::{
    Channel, ChannelAddress, Consensus, Determinism, Digest, Evidence, ExitStatus, Label,
    Nanograms, Nonce, Receipt, Request, RequestBody, SigningKey, Version,
};
use tussah_settlement::chain::EmbeddedChain;
use tussah_settlement::chain::embedded::Internal;
use tussah_settlement::channel::{self, ChannelState, ProviderSide, Terms};
use tussah_settlement::voucher::{ChannelId, NetworkId};
use tussah_settlement::wallet::{Wallet, WalletVersion};
use tussah_settlement::{Address, Cell, StateInit};

/// The second at which every test begins.
pub(crate) const START: u32 = 1_800_000_000;
pub(crate) const GRAM: u64 = 1_000_000_000;
pub(crate) const EXPIRY: u32 = START + 30 * 86_400;
pub(crate) const CHALLENGE: u32 = 3_600;
pub(crate) const STEP_MIN: u64 = 5_000_000;
/// What the client puts in.
pub(crate) const DEPOSIT: u64 = 10 * GRAM;
/// What may be unpaid at any time.
pub(crate) const IN_FLIGHT: u64 = GRAM / 2;

pub(crate) const RULES: AdmitRules = AdmitRules {
    grant_max: Nanograms::MAX,
    stop_before_seconds: 600,
};

/// Redeems whatever there is, and sends again at once.
pub(crate) const AT_ONCE: RedeemPolicy = RedeemPolicy {
    value_min: Nanograms::ZERO,
    age_seconds_max: 0,
    before_deadline_seconds: 600,
    resend_seconds: 0,
};

pub(crate) fn nano(amount: u64) -> Nanograms {
    Nanograms::new(amount).unwrap()
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// The chain, and who is on it.
pub(crate) struct World {
    pub(crate) chain: Arc<Mutex<EmbeddedChain>>,
    pub(crate) record: ChannelRecord,
    pub(crate) client_key: SigningKey,
    pub(crate) provider_key: SigningKey,
}

impl World {
    /// A channel with a deposit, open until [`EXPIRY`].
    pub(crate) fn open() -> Self {
        Self::open_with(DEPOSIT)
    }

    pub(crate) fn open_with(deposit: u64) -> Self {
        Self::open_on(deposit, STEP_MIN)
    }

    pub(crate) fn open_on(deposit: u64, redeem_step_min: u64) -> Self {
        let mut chain = EmbeddedChain::new(START).unwrap();
        let [client, owner, payout] = [11, 12, 13].map(|seed| account(&mut chain, seed));
        let (client_key, provider_key) = (key(1), key(2));
        let terms = Terms {
            client: client.clone(),
            owner,
            client_key: client_key.public_key(),
            challenge_seconds: CHALLENGE,
            redeem_step_min: nano(redeem_step_min),
            salt: 7,
        };
        let side = ProviderSide {
            key: provider_key.public_key(),
            payout,
        };
        let address = channel::address(&terms, &side);
        let mut world = Self {
            chain: Arc::new(Mutex::new(chain)),
            record: ChannelRecord {
                id: ChannelId {
                    network: NetworkId::LOCALNET,
                    address,
                    incarnation: [0; 32],
                },
                terms,
                side,
                in_flight_max: nano(IN_FLIGHT),
            },
            client_key,
            provider_key,
        };
        let init = channel::state_init(&world.record.terms, &world.record.side);
        world.deliver(
            &client,
            deposit,
            Some(init),
            channel::open(1, [9; 32], EXPIRY),
        );
        world.record.id.incarnation = world.state().incarnation;
        world
    }

    pub(crate) fn id(&self) -> &ChannelId {
        &self.record.id
    }

    /// Sends a message to the channel as if `from` had.
    pub(crate) fn deliver(&self, from: &Address, value: u64, init: Option<StateInit>, body: Cell) {
        let to = self.record.id.address.clone();
        self.deliver_to(&to, from, value, init, body);
    }

    pub(crate) fn deliver_to(
        &self,
        to: &Address,
        from: &Address,
        value: u64,
        init: Option<StateInit>,
        body: Cell,
    ) {
        let message = Internal {
            from: from.clone(),
            to: to.clone(),
            value: nano(value),
            bounce: true,
            init,
            body,
        };
        let done = self.chain.lock().unwrap().deliver(&message).unwrap();
        assert_eq!(done[0].exit_code, Some(0), "{done:?}");
    }

    pub(crate) fn state(&self) -> ChannelState {
        self.look().state
    }

    pub(crate) fn look(&self) -> Look {
        wait(Look::at(&*self.chain, &self.record.id.address)).unwrap()
    }

    pub(crate) fn balance(&self, address: &Address) -> u64 {
        let chain = self.chain.lock().unwrap();
        chain.account_now(address).unwrap().balance.get()
    }

    pub(crate) fn advance(&self, seconds: u32) {
        self.chain.lock().unwrap().advance(seconds);
    }

    fn clock(&self) -> Box<dyn tussah_commit::Clock> {
        let chain = Arc::clone(&self.chain);
        Box::new(move || chain.lock().unwrap().now())
    }

    pub(crate) fn provider(&self, folder: &Path) -> ProviderBook {
        let book = ProviderBook::open(&folder.join("provider"), self.clock()).unwrap();
        book.add(&self.record, &self.look()).unwrap();
        book
    }

    pub(crate) fn client(&self, folder: &Path) -> ClientBook {
        let book = ClientBook::open(&folder.join("client"), self.clock()).unwrap();
        book.add(&self.record, &self.look()).unwrap();
        book
    }

    /// A request for `index`; `number` makes it another job.
    pub(crate) fn request(&self, index: u64, number: u64, price_max: u64) -> Request {
        request(&self.record.id, &self.client_key, index, number, price_max)
    }

    /// The receipt of a job that went well.
    pub(crate) fn receipt(&self, request: &Request, price: u64) -> Receipt {
        receipt(request, price, ExitStatus::Done, &self.provider_key)
    }
}

/// A wallet that holds a gram; `seed` makes its key.
fn account(chain: &mut EmbeddedChain, seed: u8) -> Address {
    let wallet = Wallet {
        version: WalletVersion::V4R2,
        key: key(seed).public_key(),
        network: NetworkId::LOCALNET,
    };
    let message = Internal {
        from: Address::default(),
        to: wallet.address(),
        value: nano(GRAM),
        bounce: false,
        init: Some(wallet.state_init()),
        body: Cell::default(),
    };
    chain.deliver(&message).unwrap();
    wallet.address()
}

pub(crate) fn request(
    id: &ChannelId,
    key: &SigningKey,
    index: u64,
    number: u64,
    price_max: u64,
) -> Request {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&index.to_be_bytes());
    nonce[8..16].copy_from_slice(&number.to_be_bytes());
    let nonce = Nonce::from_bytes(nonce);
    let body = RequestBody {
        version: Version::V1,
        manifest: Digest::of(b"manifest"),
        module: Digest::of(b"module"),
        input: RequestBody::input_digest(&nonce, b"input"),
        nonce,
        price_nanograms_max: nano(price_max),
        channel: Channel::Ton {
            address: ChannelAddress {
                workchain: i32::from(id.address.workchain),
                account: id.address.address.0,
            },
            index,
        },
        deadline_unix_ms: None,
        client_key: key.public_key(),
    };
    body.sign(key).unwrap()
}

pub(crate) fn receipt(
    request: &Request,
    price: u64,
    exit: ExitStatus,
    key: &SigningKey,
) -> Receipt {
    let consensus = Consensus {
        version: Version::V1,
        job: request.body.job_id(),
        module: request.body.module,
        manifest: request.body.manifest,
        models: BTreeMap::new(),
        output: Digest::of(b"output"),
        exit,
        determinism: if exit.is_rerunnable() {
            Determinism::Exact
        } else {
            Determinism::NotRerunnable
        },
        profile: Digest::of(b"profile"),
        fuel_used: 1,
        inference_units_used: 0,
        price_nanograms: nano(price),
        channel: request.body.channel,
    };
    let label = |text: &str| Label::new(text).unwrap();
    let evidence = Evidence {
        host_build: label("test"),
        wasm_engine: label("none"),
        inference_engine: label("none"),
        kernels: None,
        adapter: None,
        driver: None,
        threads: 1,
        wall_ns: 1,
        gpu_ns: None,
        transcript: Digest::of(b"transcript"),
    };
    Receipt::sign(consensus, evidence, key).unwrap()
}
