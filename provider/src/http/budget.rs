//! `Budget`: how many bytes of bodies, or of answers, are in memory, of everybody and of each account.
//!
//! In: bytes that come, with whose they are. Out: whether there is room for them, until whoever
//! got it gives it back. A body counts from its first byte until its job is on the disk, where the
//! queue's own bounds take over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

use super::error::ApiError;
use crate::ledger::AccountId;

/// When another try may do: most bodies are here for a moment only.
const RETRY_AFTER_S: u64 = 1;

/// Bytes that may be held. Cloning gives another handle to the same budget.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    /// What is counted, as a refusal names it.
    what: &'static str,
    bytes_max: usize,
    account_bytes_max: usize,
    held: Arc<Mutex<Bytes>>,
}

#[derive(Debug, Default)]
struct Bytes {
    all: usize,
    /// Of those accounts that hold any.
    accounts: HashMap<AccountId, usize>,
}

impl Budget {
    pub(super) fn new(what: &'static str, bytes_max: usize, account_bytes_max: usize) -> Self {
        Self {
            what,
            bytes_max,
            account_bytes_max,
            held: Arc::default(),
        }
    }

    /// Nothing yet, for this account.
    pub(super) fn hold(&self, account: AccountId) -> Held {
        Held {
            budget: self.clone(),
            account,
            bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that one request holds, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Budget,
    account: AccountId,
    bytes: usize,
}

impl Held {
    /// Makes room for so many more, or refuses with when to try again.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        let mut held = self.budget.lock();
        let of_account = held.accounts.get(&self.account).copied();
        let of_account = of_account.unwrap_or_default().saturating_add(more);
        if of_account > self.budget.account_bytes_max {
            return Err(full(
                &self.budget,
                "your requests",
                self.budget.account_bytes_max,
            ));
        }
        let all = held.all.saturating_add(more);
        if all > self.budget.bytes_max {
            return Err(full(&self.budget, "all requests", self.budget.bytes_max));
        }
        held.all = all;
        held.accounts.insert(self.account, of_account);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.budget.lock();
        held.all = held.all.saturating_sub(self.bytes);
        if let Some(of_account) = held.accounts.get_mut(&self.account) {
            *of_account = of_account.saturating_sub(self.bytes);
            if *of_account == 0 {
                held.accounts.remove(&self.account);
            }
        }
    }
}

fn full(budget: &Budget, whose: &str, max: usize) -> ApiError {
    let what = budget.what;
    let message = format!("{what} of {whose} take more than {max} bytes at the moment");
    let status = StatusCode::TOO_MANY_REQUESTS;
    ApiError::new(status, "bodies_full", message).retry_after(RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_its_part_and_what_is_done_is_given_back() {
        let budget = Budget::new("the bodies", 100, 60);
        let (one, two) = (AccountId(1), AccountId(2));
        let mut first = budget.hold(one);
        first.grow(50).unwrap();
        let mut second = budget.hold(one);
        // The account's own bound, then everybody's.
        assert!(second.grow(11).unwrap_err().message.contains("your"));
        second.grow(10).unwrap();
        let mut theirs = budget.hold(two);
        assert!(theirs.grow(41).unwrap_err().message.contains("all"));
        theirs.grow(40).unwrap();
        drop(first);
        theirs.grow(20).unwrap();
        drop((second, theirs));
        let held = budget.lock();
        assert!(held.all == 0 && held.accounts.is_empty());
    }
}
