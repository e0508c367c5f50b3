//! A TON network in one process, for developers and tests: the embedded chain behind toncenter's
//! HTTP API, so that programs written for testnet and mainnet run against it unchanged.
//!
//! In: HTTP requests from this machine, a folder. Out: toncenter's answers, real transactions.
//! It never talks to another machine, never moves money that was not sent, and acknowledges
//! nothing before it is on disk.
//!
//! `docs/localnet.md` says how it is used.

mod address;
mod blocks;
mod cells;
mod methods;
mod network;
mod parameters;
mod server;
mod stack;
mod store;
mod transaction;

pub use blocks::{Block, Blocks};
pub use methods::{ApiError, Asked, call};
pub use network::{Clock, FAUCET_MAX, LocalnetError, Network, developer, giver};
pub use parameters::Parameters;
pub use server::{BODY_BYTES_MAX, Server, ServerConfig};
pub use store::StoreError;
