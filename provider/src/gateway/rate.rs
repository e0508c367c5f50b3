//! `Rates`: how many jobs a minute an account may bring.
//!
//! In: accounts, their limits, the time. Out: leave, or when another try may do. It is the generic
//! cell rate algorithm (ITU-T I.371): one time an account, and no window whose edge lets twice as
//! many through. What is forgotten in a restart is at most one minute.

use std::collections::HashMap;
use std::time::Duration;

use crate::ledger::AccountId;

const MINUTE_US: u64 = 60_000_000;
/// Accounts that are remembered before those that have their whole minute again are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// More jobs than the account may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this account may bring {max} jobs a minute")]
pub struct TooOften {
    /// How many.
    pub max: u32,
    /// When another try may do.
    pub retry_after: Duration,
}

/// When each account has its whole minute again, in microseconds since the gateway's start.
#[derive(Debug, Default)]
pub(super) struct Rates {
    whole_again: HashMap<AccountId, u64>,
}

impl Rates {
    /// Leave for one more job, which is not counted yet.
    pub(super) fn check(
        &self,
        account: AccountId,
        max: Option<u32>,
        now: Duration,
    ) -> Result<(), TooOften> {
        let Some(max) = max else {
            return Ok(());
        };
        let now = micros(now);
        let next = self.next(account, max, now);
        // With a minute's worth behind it the account may be ahead by as much, and no more.
        let over = next.saturating_sub(now).saturating_sub(MINUTE_US);
        match over {
            0 => Ok(()),
            over => Err(TooOften {
                max,
                retry_after: Duration::from_micros(over),
            }),
        }
    }

    /// Counts one.
    pub(super) fn count(&mut self, account: AccountId, max: Option<u32>, now: Duration) {
        let Some(max) = max else {
            return;
        };
        let now = micros(now);
        let next = self.next(account, max, now);
        if self.whole_again.len() >= REMEMBERED_MAX {
            self.whole_again.retain(|_, at| *at > now);
        }
        self.whole_again.insert(account, next);
    }

    fn next(&self, account: AccountId, max: u32, now: u64) -> u64 {
        let before = self.whole_again.get(&account).copied().unwrap_or_default();
        let step = MINUTE_US / u64::from(max.max(1));
        before.max(now).saturating_add(step)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_lets_so_many_through_and_then_one_for_one() {
        let (one, other) = (AccountId(1), AccountId(2));
        for max in [1_u32, 3, 7, 60, 1_000] {
            let mut rates = Rates::default();
            let start = Duration::from_secs(1_000);
            for number in 0..max {
                assert_eq!(
                    rates.check(one, Some(max), start),
                    Ok(()),
                    "{number} of {max}"
                );
                rates.count(one, Some(max), start);
            }
            let refused = rates.check(one, Some(max), start).unwrap_err();
            assert_eq!(refused.max, max);
            // What was refused is not counted, and others are not touched.
            assert_eq!(rates.check(one, Some(max), start), Err(refused));
            assert_eq!(rates.check(other, Some(max), start), Ok(()));
            let early = start + refused.retry_after - Duration::from_micros(1);
            assert!(rates.check(one, Some(max), early).is_err());
            let later = start + refused.retry_after;
            assert_eq!(rates.check(one, Some(max), later), Ok(()));
            rates.count(one, Some(max), later);
            assert!(rates.check(one, Some(max), later).is_err());
            // A minute without any gives a whole minute's worth, and no more.
            let rested = later + Duration::from_mins(2);
            for _ in 0..max {
                assert_eq!(rates.check(one, Some(max), rested), Ok(()));
                rates.count(one, Some(max), rested);
            }
            assert!(rates.check(one, Some(max), rested).is_err());
        }
        let mut rates = Rates::default();
        for _ in 0..10_000 {
            assert_eq!(rates.check(one, None, Duration::ZERO), Ok(()));
            rates.count(one, None, Duration::ZERO);
        }
        // The largest numbers do not overflow.
        rates.count(one, Some(u32::MAX), Duration::MAX);
        let _ = rates.check(one, Some(u32::MAX), Duration::MAX);
    }
}
