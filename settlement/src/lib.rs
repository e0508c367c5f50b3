//! Receipts to money: the only crate that knows TON.
//!
//! In: a client's and a provider's keys, receipt trees, answers of a chain. Out: vouchers, the
//! messages of the two contracts in `contracts/`, their states as typed values, and a chain that
//! runs them in process. This crate draws no keys, keeps no files and never pays by itself.
//!
//! `docs/settlement.md` has the contracts' states, invariants and costs.

mod address;
mod cells;
pub mod chain;
pub mod channel;
mod contracts;
pub mod message;
pub mod offer;
pub mod provider;
mod signed;
#[cfg(feature = "tonlib")]
pub mod tonlib;
pub mod voucher;
pub mod wallet;

pub use address::{AddressError, FriendlyAddress};
pub use chain::{Account, AccountStatus, Chain, ChainError, StackValue, Transaction};
pub use contracts::{ContractError, channel_code, provider_code};
pub use tycho_types::cell::Cell;
pub use tycho_types::models::{StateInit, StdAddr as Address};
