//! A client, a provider, strangers, and a channel between the first two on an embedded chain.

use tussah_manifest::{Commitment, Digest, Nanograms, ReceiptTree, SigningKey};
use tussah_settlement::chain::embedded::{Internal, external_message};
use tussah_settlement::chain::{StackValue, Transaction};
use tussah_settlement::channel::{self, ChannelState, ProviderSide, Terms};
use tussah_settlement::voucher::{ChannelId, NetworkId, SignedVoucher, Voucher};
use tussah_settlement::{
    AccountStatus, Address, Cell, ChainError, ContractError, StateInit, chain::EmbeddedChain,
};
use tycho_types::cell::{CellBuilder, HashBytes};

/// The second at which every test begins.
pub(crate) const START: u32 = 1_800_000_000;
/// One gram.
pub(crate) const GRAM: u64 = 1_000_000_000;
/// What a message carries for its gas.
pub(crate) const FEE: u64 = GRAM / 20;
pub(crate) const CHALLENGE: u32 = 3_600;
pub(crate) const EXPIRY: u32 = START + 30 * 86_400;
pub(crate) const STEP_MIN: u64 = 5_000_000;

pub(crate) fn nano(amount: u64) -> Nanograms {
    Nanograms::new(amount).unwrap()
}

/// An account that takes whatever it is sent: its code is empty.
pub(crate) const TAKES: &[u8] = &[];
/// An account that throws: it drops more than there is on the stack.
pub(crate) const THROWS: &[u8] = &[0x30; 8];

/// Puts an account with `code` on the chain; `name` makes its address.
pub(crate) fn account(chain: &mut EmbeddedChain, name: &str, code: &[u8]) -> Address {
    let cell = |bytes: &[u8]| {
        let mut builder = CellBuilder::new();
        builder
            .store_raw(bytes, u16::try_from(bytes.len() * 8).unwrap())
            .unwrap();
        builder.build().unwrap()
    };
    let init = StateInit {
        code: Some(cell(code)),
        data: Some(cell(name.as_bytes())),
        ..StateInit::default()
    };
    let hash = *CellBuilder::build_from(&init).unwrap().repr_hash();
    let address = Address::new(0, hash);
    let message = Internal {
        from: Address::new(0, HashBytes([0xfa; 32])),
        to: address.clone(),
        value: nano(GRAM),
        bounce: false,
        init: Some(init),
        body: Cell::default(),
    };
    chain.deliver(&message).unwrap();
    address
}

/// Everybody, and a channel that is open unless the test says otherwise.
pub(crate) struct World {
    pub(crate) chain: EmbeddedChain,
    pub(crate) client: Address,
    pub(crate) owner: Address,
    pub(crate) payout: Address,
    pub(crate) stranger: Address,
    pub(crate) client_key: SigningKey,
    pub(crate) provider_key: SigningKey,
    pub(crate) terms: Terms,
    pub(crate) side: ProviderSide,
    pub(crate) channel: Address,
    pub(crate) tree: ReceiptTree,
    /// What was brought onto the chain so far.
    pub(crate) brought: u128,
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

impl World {
    /// A channel that is deployed and opened with a deposit of `deposit` nanograms.
    pub(crate) fn open(deposit: u64) -> Self {
        let mut world = Self::unopened("payout", TAKES);
        let opened = world.open_with(deposit);
        assert_eq!(opened, "ok");
        world
    }

    /// A channel whose payout account runs `payout_code`; not deployed yet.
    pub(crate) fn unopened(payout_name: &str, payout_code: &[u8]) -> Self {
        let mut chain = EmbeddedChain::new(START).unwrap();
        let client = account(&mut chain, "client", TAKES);
        let owner = account(&mut chain, "owner", TAKES);
        let payout = account(&mut chain, payout_name, payout_code);
        let stranger = account(&mut chain, "stranger", TAKES);
        let (client_key, provider_key) = (key(1), key(2));
        let terms = Terms {
            client: client.clone(),
            owner: owner.clone(),
            client_key: client_key.public_key(),
            challenge_seconds: CHALLENGE,
            redeem_step_min: nano(STEP_MIN),
            salt: 7,
        };
        let side = ProviderSide {
            key: provider_key.public_key(),
            payout: payout.clone(),
        };
        let brought = chain.total().unwrap() + chain.fees();
        Self {
            channel: channel::address(&terms, &side),
            tree: ReceiptTree::new(),
            chain,
            client,
            owner,
            payout,
            stranger,
            client_key,
            provider_key,
            terms,
            side,
            brought,
        }
    }

    pub(crate) fn open_with(&mut self, deposit: u64) -> String {
        let body = channel::open(1, [9; 32], EXPIRY);
        let init = channel::state_init(&self.terms, &self.side);
        let from = self.client.clone();
        self.deliver(&from, deposit, Some(init), body)
    }

    /// Sends `body` to the channel; says how the channel's own transaction ended.
    pub(crate) fn send(&mut self, from: &Address, body: Cell) -> String {
        self.deliver(from, FEE, None, body)
    }

    pub(crate) fn deliver(
        &mut self,
        from: &Address,
        value: u64,
        init: Option<StateInit>,
        body: Cell,
    ) -> String {
        let channel = self.channel.clone();
        ended(&self.deliver_to(&channel, from, value, init, body)[0])
    }

    /// Sends `body` to any account; returns all that it caused.
    pub(crate) fn deliver_to(
        &mut self,
        to: &Address,
        from: &Address,
        value: u64,
        init: Option<StateInit>,
        body: Cell,
    ) -> Vec<Transaction> {
        self.brought += u128::from(value);
        let message = Internal {
            from: from.clone(),
            to: to.clone(),
            value: nano(value),
            bounce: true,
            init,
            body,
        };
        let done = self.chain.deliver(&message).unwrap();
        self.check_conservation();
        done
    }

    /// Sends an external message; says how it ended.
    pub(crate) fn external(&mut self, body: &Cell) -> String {
        let message = external_message(&self.channel, None, body).unwrap();
        self.raw_external(message)
    }

    pub(crate) fn raw_external(&mut self, message: Cell) -> String {
        let before = self.chain.total().unwrap();
        let ended = match self.chain.send(message) {
            Ok(done) => ended(&done[0]),
            Err(ChainError::NotAccepted { exit_code }) => {
                // What was refused cost nobody anything.
                assert_eq!(self.chain.total().unwrap(), before);
                format!("refused: {}", name(exit_code))
            }
            Err(other) => panic!("{other}"),
        };
        self.check_conservation();
        ended
    }

    /// Money is on accounts or was earned by validators; none appears and none is lost.
    pub(crate) fn check_conservation(&self) {
        assert_eq!(
            self.chain.total().unwrap() + self.chain.fees(),
            self.brought
        );
    }

    pub(crate) fn state(&self) -> ChannelState {
        let stack = self
            .chain
            .get(&self.channel, ChannelState::METHOD, Vec::new())
            .unwrap();
        ChannelState::from_stack(stack).unwrap()
    }

    pub(crate) fn capacity(&self) -> u64 {
        let stack = self
            .chain
            .get(&self.channel, "channel_capacity", Vec::new())
            .unwrap();
        match &stack[..] {
            [StackValue::Int(value)] => u64::try_from(value.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn balance(&self, address: &Address) -> u64 {
        self.chain.account_now(address).unwrap().balance.get()
    }

    pub(crate) fn status(&self) -> AccountStatus {
        self.chain.account_now(&self.channel).unwrap().status
    }

    pub(crate) fn id(&self) -> ChannelId {
        ChannelId {
            network: NetworkId::LOCALNET,
            address: self.channel.clone(),
            incarnation: self.state().incarnation,
        }
    }

    /// Adds receipts to the tree that both sides keep.
    pub(crate) fn receipts(&mut self, count: u64) {
        for _ in 0..count {
            let index = self.tree.len();
            self.tree.append(&receipt(index));
        }
    }

    /// A voucher over the tree as it is.
    pub(crate) fn voucher(&self, amount: u64) -> SignedVoucher {
        self.voucher_over(amount, self.tree.commitment())
    }

    pub(crate) fn voucher_over(&self, amount: u64, commitment: Commitment) -> SignedVoucher {
        let voucher = Voucher {
            channel: self.id(),
            amount: nano(amount),
            commitment,
        };
        voucher.sign(&self.client_key)
    }

    /// One more receipt, and what redeems a voucher over it.
    pub(crate) fn redeem_body(&mut self, amount: u64) -> Cell {
        self.receipts(1);
        self.voucher(amount).redeem_message(&self.provider_key)
    }

    /// One more receipt, a voucher of `amount` in all, redeemed.
    pub(crate) fn redeem(&mut self, amount: u64) -> String {
        let body = self.redeem_body(amount);
        self.external(&body)
    }
}

pub(crate) fn receipt(index: u64) -> Digest {
    Digest::of(&index.to_be_bytes())
}

/// How a transaction ended, in a word.
pub(crate) fn ended(transaction: &Transaction) -> String {
    match (transaction.exit_code, transaction.action_code) {
        (Some(0), Some(0)) => "ok".to_owned(),
        (Some(0), Some(code)) => format!("action {code}"),
        (code, _) => name(code),
    }
}

fn name(exit_code: Option<i32>) -> String {
    match exit_code {
        None => "no code ran".to_owned(),
        Some(code) => ContractError::from_exit_code(code)
            .map_or_else(|| format!("exit code {code}"), |error| format!("{error:?}")),
    }
}

/// The size of a cell's tree: bits and distinct cells.
pub(crate) fn size(root: &Cell) -> (u64, u64) {
    let (mut bits, mut seen, mut todo) = (0, std::collections::BTreeSet::new(), vec![root.clone()]);
    while let Some(cell) = todo.pop() {
        if seen.insert(*cell.repr_hash()) {
            bits += u64::from(cell.bit_len());
            for index in 0..cell.reference_count() {
                todo.extend(cell.reference_cloned(index));
            }
        }
    }
    (bits, seen.len() as u64)
}
