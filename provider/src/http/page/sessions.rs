//! `Sessions`: who has logged in to the owner's page; `Attempts`: how often anybody may try.
//!
//! In: addresses, cookies, the time. Out: whether this is the owner, or when another try may do.
//! Both are in memory alone: after a restart the owner logs in again. A session is known by the
//! hash of its cookie, so that how long a look takes says nothing of another one's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tussah_manifest::Digest;

/// The longest that a login holds.
pub(super) const SESSION_TIME_MAX: Duration = Duration::from_hours(12);
/// How long it holds without a request: an open page makes one every few seconds.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_hours(1);
/// Logins at a time; the one that is idle for longest makes room.
const SESSIONS_MAX: usize = 32;
/// Tries that one address has before it waits, and for how long it waits for each one more.
const TRIES: u32 = 5;
const TRY_EVERY: Duration = Duration::from_secs(12);
/// The same for all addresses together: what a hash costs is ours to pay.
const TRIES_OF_ALL: u32 = 60;
const TRY_OF_ALL_EVERY: Duration = Duration::from_secs(1);
/// Addresses that are remembered before those that have all their tries again are forgotten.
const ADDRESSES_MAX: usize = 1024;

/// A cookie's value; whoever has it is the owner, until it expires.
pub(super) struct Token(String);

impl Token {
    /// 256 bits of the system's random numbers, in hex; `None` where it has none.
    pub(super) fn new() -> Option<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(Digest::from_bytes(bytes).to_hex()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Debug)]
struct Session {
    /// The password that it was opened with: with another one it is over.
    lock: Digest,
    opened: Instant,
    seen: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.opened) >= SESSION_TIME_MAX
            || now.duration_since(self.seen) >= IDLE_TIME_MAX
    }
}

/// Who is logged in.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<Digest, Session>,
}

impl Sessions {
    pub(super) fn open(&mut self, token: &Token, lock: Digest, now: Instant) {
        self.open.retain(|_, session| !session.is_over(now));
        if self.open.len() >= SESSIONS_MAX {
            let idlest = self.open.iter().min_by_key(|(_, session)| session.seen);
            if let Some(id) = idlest.map(|(id, _)| *id) {
                self.open.remove(&id);
            }
        }
        let session = Session {
            lock,
            opened: now,
            seen: now,
        };
        self.open.insert(Digest::of(token.0.as_bytes()), session);
    }

    /// Whether this cookie is a session's under the password of now; then it holds on.
    pub(super) fn knows(&mut self, cookie: &str, lock: &Digest, now: Instant) -> bool {
        let id = Digest::of(cookie.as_bytes());
        let Some(session) = self.open.get_mut(&id) else {
            return false;
        };
        if session.is_over(now) || session.lock != *lock {
            self.open.remove(&id);
            return false;
        }
        session.seen = now;
        true
    }

    pub(super) fn close(&mut self, cookie: &str) {
        self.open.remove(&Digest::of(cookie.as_bytes()));
    }
}

/// How often passwords were tried. It is the generic cell rate algorithm (ITU-T I.371), as for
/// jobs: one time an address.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    whole_again: HashMap<IpAddr, Instant>,
    all_whole_again: Option<Instant>,
}

impl Attempts {
    /// Counts a try, or says when one may do.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let before = self.whole_again.get(&address).copied();
        let of_one = next(before, TRIES, TRY_EVERY, now)?;
        let of_all = next(self.all_whole_again, TRIES_OF_ALL, TRY_OF_ALL_EVERY, now)?;
        if self.whole_again.len() >= ADDRESSES_MAX {
            self.whole_again.retain(|_, at| *at > now);
        }
        self.whole_again.insert(address, of_one);
        self.all_whole_again = Some(of_all);
        Ok(())
    }

    /// Who knows the password has all tries again.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.whole_again.remove(&address);
    }
}

fn next(
    before: Option<Instant>,
    tries: u32,
    every: Duration,
    now: Instant,
) -> Result<Instant, Duration> {
    let at = before.map_or(now, |before| before.max(now)) + every;
    let over = at.duration_since(now).saturating_sub(every * tries);
    if over.is_zero() { Ok(at) } else { Err(over) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_time_idleness_and_a_new_password() {
        let (lock, other) = (Digest::of(b"one"), Digest::of(b"two"));
        let start = Instant::now();
        let token = Token::new().unwrap();
        let mut sessions = Sessions::default();
        sessions.open(&token, lock, start);
        assert!(!sessions.knows("", &lock, start));
        let just_before = IDLE_TIME_MAX - Duration::from_millis(1);
        let mut now = start;
        // What is used holds on, to its longest.
        while now + just_before < start + SESSION_TIME_MAX {
            now += just_before;
            assert!(sessions.knows(token.as_str(), &lock, now));
        }
        assert!(!sessions.knows(token.as_str(), &lock, start + SESSION_TIME_MAX));
        assert!(!sessions.knows(token.as_str(), &lock, now));

        sessions.open(&token, lock, start);
        assert!(!sessions.knows(token.as_str(), &lock, start + IDLE_TIME_MAX));
        sessions.open(&token, lock, start);
        assert!(!sessions.knows(token.as_str(), &other, start));
        assert!(!sessions.knows(token.as_str(), &lock, start));
        sessions.open(&token, lock, start);
        sessions.close(token.as_str());
        assert!(!sessions.knows(token.as_str(), &lock, start));
        // There are only so many, and the idlest goes.
        let tokens: Vec<Token> = (0..=SESSIONS_MAX).filter_map(|_| Token::new()).collect();
        for (seconds, token) in (0..).zip(&tokens) {
            sessions.open(token, lock, start + Duration::from_secs(seconds));
        }
        let now = start + Duration::from_mins(1);
        let known: Vec<bool> = tokens
            .iter()
            .map(|token| sessions.knows(token.as_str(), &lock, now))
            .collect();
        assert!(!known[0] && known[1..].iter().all(|known| *known));
    }

    #[test]
    fn tries_are_few_from_one_address_and_bounded_from_all() {
        let start = Instant::now();
        let of = |number: u32| IpAddr::from(number.to_be_bytes());
        let mut attempts = Attempts::default();
        for _ in 0..TRIES {
            assert_eq!(attempts.take(of(1), start), Ok(()));
        }
        assert_eq!(attempts.take(of(1), start), Err(TRY_EVERY));
        assert_eq!(attempts.take(of(2), start), Ok(()));
        let later = start + TRY_EVERY;
        assert_eq!(attempts.take(of(1), later), Ok(()));
        assert!(attempts.take(of(1), later).is_err());
        attempts.forget(of(1));
        assert_eq!(attempts.take(of(1), later), Ok(()));
        // However many addresses there are.
        let mut attempts = Attempts::default();
        let taken = (0..1000).filter(|number| attempts.take(of(*number), start).is_ok());
        assert_eq!(taken.count(), usize::try_from(TRIES_OF_ALL).unwrap());
        // What was refused for all is not counted for one.
        assert!(!attempts.whole_again.contains_key(&of(999)));
    }
}
