//! The last stage of the road, `Receipt` → `Commitment`: both sides' books of a payment channel.
//!
//! In: requests, receipts, vouchers, what a chain says, keys that the caller keeps. Out: indices,
//! claims, vouchers, messages to the channel's contract, proofs from the tree. What a book answers
//! is durable before it is answered. It opens its own database and no other file, reads no clock
//! but the one it was given, stores no secret key, and does not know what a job computes.
//!
//! `docs/settlement.md` says what is durable when, and how each side recovers.

pub mod backup;
mod channel;
mod client;
mod clock;
mod provider;
mod redeem;
mod rows;
mod store;
mod tree;

pub use channel::{ChannelRecord, ChannelView, Look, PostedError};
pub use client::{ClientBook, ClientError, Conflict, Delivery};
pub use clock::Clock;
pub use provider::{AdmitRules, Grant, ProviderBook, ProviderError, Unfinished};
pub use redeem::{Due, RedeemError, RedeemPolicy, Tended, Weighed};
pub use store::StoreError;
pub use tree::TreeError;
