//! The contracts in a real TVM: what each message does, and where the money goes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bond;
mod close;
mod confirm;
mod fixture;
mod gas;
mod history;
mod inclusion;
mod key_file;
mod localnet;
mod mnemonic;
mod offer;
mod pay;
mod payout;
mod poverty;
mod random;
mod random_bond;
mod redeem;
mod second_opinion;
mod server;
mod toncenter;
#[cfg(feature = "tonlib")]
mod tonlib;
mod wallet;
