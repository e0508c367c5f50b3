//! `Wallet`: the two common wallet contracts, V4R2 and V5R1, as far as sending messages needs them.
//!
//! In: a public key, messages, a signing key that the caller keeps. Out: the wallet's address and
//! first state, and signed external messages. It never stores a key, and never knows the seqno by
//! itself: whoever signs asks the chain for it first.
//!
//! The layouts are those of the wallets' own repositories; the code in `wallet/*.boc` is what npm
//! `@ton/ton` 16.3.0 (MIT) deploys. Tests compare addresses, states and signed messages with it.

mod key_file;
mod mnemonic;
mod pay;

use tussah_manifest::{Nanograms, PublicKey, SigningKey};
use tycho_types::cell::{Cell, CellBuilder, CellSliceParts};
use tycho_types::error::Error;
use tycho_types::models::{
    CurrencyCollection, IntAddr, OwnedRelaxedMessage, RelaxedIntMsgInfo, RelaxedMsgInfo, StateInit,
    StdAddr,
};

use crate::cells::{self, BuilderExt};
use crate::signed;
use crate::voucher::NetworkId;

pub use key_file::{FILE_BYTES_MAX, KdfCost, KeyFile, KeyFileError};
pub use mnemonic::{Mnemonic, MnemonicError};
pub(crate) use pay::destination;
pub use pay::{Paid, PayError, pay, seqno};

/// The wallet id that V4R2 wallets of the basechain have unless somebody chose another.
const V4_WALLET_ID: u32 = 698_983_191;
/// V5R1: the wallet is used by a client, in the basechain, version 0, number 0.
const V5_CLIENT_CONTEXT: u32 = 1 << 31;
/// "sign": an external message that is authorised by a signature.
const V5_SIGNED_EXTERNAL: u32 = 0x7369_676e;
/// Pays the forwarding fee besides the value, and goes on if a message cannot be sent: an error
/// after acceptance would undo the seqno, and the message could be replayed for its gas.
const SEND_MODE: u8 = 1 | 2;

/// Which contract a wallet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalletVersion {
    /// Up to four messages at once; the same on every network.
    V4R2,
    /// Up to 255 messages at once; bound to its network.
    V5R1,
}

impl WalletVersion {
    /// Its code, which is the same whoever's wallet it is.
    pub fn code(self) -> Cell {
        cells::committed(match self {
            Self::V4R2 => include_bytes!("wallet/v4r2.boc"),
            Self::V5R1 => include_bytes!("wallet/v5r1.boc"),
        })
    }

    /// Messages that fit one transfer.
    pub const fn messages_max(self) -> usize {
        match self {
            Self::V4R2 => 4,
            Self::V5R1 => 255,
        }
    }
}

/// A message that a wallet sends.
#[derive(Debug, Clone)]
pub struct OutMessage {
    /// Whom it is for.
    pub to: StdAddr,
    /// What it carries.
    pub value: Nanograms,
    /// Whether it comes back if it fails; without it, money reaches accounts without code.
    pub bounce: bool,
    /// The code and state to deploy with it.
    pub init: Option<StateInit>,
    /// What it says.
    pub body: Cell,
}

impl OutMessage {
    fn cell(&self) -> Result<Cell, Error> {
        let info = RelaxedMsgInfo::Int(RelaxedIntMsgInfo {
            ihr_disabled: true,
            bounce: self.bounce,
            dst: IntAddr::Std(self.to.clone()),
            value: CurrencyCollection::new(self.value.get().into()),
            ..RelaxedIntMsgInfo::default()
        });
        CellBuilder::build_from(OwnedRelaxedMessage {
            info,
            init: self.init.clone(),
            body: CellSliceParts::from(self.body.clone()),
            layout: None,
        })
    }
}

/// A wallet of the basechain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wallet {
    /// Which contract it is.
    pub version: WalletVersion,
    /// Whose it is.
    pub key: PublicKey,
    /// Where it is used. A V5R1 wallet has another address on each network.
    pub network: NetworkId,
}

impl Wallet {
    fn id(&self) -> u32 {
        match self.version {
            WalletVersion::V4R2 => V4_WALLET_ID,
            WalletVersion::V5R1 => V5_CLIENT_CONTEXT ^ self.network.0.cast_unsigned(),
        }
    }

    /// Its code and first state.
    pub fn state_init(&self) -> StateInit {
        let data = cells::cell(|b| {
            if self.version == WalletVersion::V5R1 {
                b.store_bit_one()?; // signatures are allowed
            }
            b.store_u32(0)?; // seqno
            b.store_u32(self.id())?;
            b.bytes(self.key.as_bytes())?;
            b.store_bit_zero() // plugins or extensions: none
        });
        cells::state_init(self.version.code(), data)
    }

    /// Its address.
    pub fn address(&self) -> StdAddr {
        cells::address_of(&self.state_init())
    }

    /// The body of an external message that sends `messages`, in their order. It is good for
    /// exactly this `seqno`, until the second `valid_until`.
    ///
    /// # Errors
    /// - [`WalletError::TooMany`] if they do not fit one transfer of this version.
    /// - [`WalletError::Key`] if `key` is not the wallet's.
    /// - [`WalletError::Message`] if a message does not fit its cell.
    pub fn transfer(
        &self,
        key: &SigningKey,
        seqno: u32,
        valid_until: u32,
        messages: &[OutMessage],
    ) -> Result<Cell, WalletError> {
        if key.public_key() != self.key {
            return Err(WalletError::Key);
        }
        let messages_max = self.version.messages_max();
        if messages.len() > messages_max {
            return Err(WalletError::TooMany {
                messages: messages.len(),
                messages_max,
            });
        }
        let cells = messages.iter().map(OutMessage::cell);
        let cells = cells.collect::<Result<Vec<Cell>, Error>>()?;
        let mut unsigned = CellBuilder::new();
        match self.version {
            WalletVersion::V4R2 => self.fill_v4(&mut unsigned, seqno, valid_until, cells)?,
            WalletVersion::V5R1 => self.fill_v5(&mut unsigned, seqno, valid_until, cells)?,
        }
        let hash = unsigned.clone().build()?.repr_hash().0;
        let signature = signed::sign(key, hash);
        let mut body = CellBuilder::new();
        if self.version == WalletVersion::V4R2 {
            body.bytes(signature.as_bytes())?;
        }
        body.store_builder(&unsigned)?;
        if self.version == WalletVersion::V5R1 {
            body.bytes(signature.as_bytes())?;
        }
        Ok(body.build()?)
    }

    /// `wallet_id valid_until seqno 0:uint8 (mode:uint8 ^message)*`
    fn fill_v4(
        &self,
        b: &mut CellBuilder,
        seqno: u32,
        valid_until: u32,
        messages: Vec<Cell>,
    ) -> Result<(), Error> {
        b.store_u32(self.id())?;
        b.store_u32(valid_until)?;
        b.store_u32(seqno)?;
        b.store_u8(0)?;
        for message in messages {
            b.store_u8(SEND_MODE)?;
            b.store_reference(message)?;
        }
        Ok(())
    }

    /// `"sign" wallet_id valid_until seqno (Maybe ^actions) 0:Bool`
    fn fill_v5(
        &self,
        b: &mut CellBuilder,
        seqno: u32,
        valid_until: u32,
        messages: Vec<Cell>,
    ) -> Result<(), Error> {
        b.store_u32(V5_SIGNED_EXTERNAL)?;
        b.store_u32(self.id())?;
        b.store_u32(valid_until)?;
        b.store_u32(seqno)?;
        // out_list$_ prev:^(OutList n) action:OutAction; the innermost is sent first.
        let mut actions = Cell::default();
        for message in messages {
            let mut action = CellBuilder::new();
            action.store_reference(actions)?;
            action.store_u32(0x0ec3_c86d)?; // action_send_msg
            action.store_u8(SEND_MODE)?;
            action.store_reference(message)?;
            actions = action.build()?;
        }
        b.maybe_reference(Some(actions))?;
        b.store_bit_zero() // no other actions
    }
}

/// Why a wallet cannot send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletError {
    /// The key is another wallet's.
    #[error("this key is not the wallet's")]
    Key,
    /// More messages than fit one transfer.
    #[error("{messages} messages do not fit one transfer, which takes {messages_max}")]
    TooMany {
        /// How many there are.
        messages: usize,
        /// How many fit.
        messages_max: usize,
    },
    /// A message does not fit its cell.
    #[error("a message does not fit its cell")]
    Message(#[from] Error),
}
