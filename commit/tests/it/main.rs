//! Both books against each other, against the embedded chain, and against kill -9.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod books;
mod fixture;
mod kill;
mod random;
mod redeem;
mod unreliable;
