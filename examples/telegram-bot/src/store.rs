//! The messages that a chat let the bot remember.
//!
//! In: messages of chats that said so. Out: the last of them, as one text for a prompt. A bounded
//! number of chats and of messages each, in memory alone: a restart forgets everything.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Chats that are remembered at a time.
const CHATS_MAX: usize = 1000;
/// Messages of each.
pub(crate) const MESSAGES_MAX: usize = 100;
/// Characters of a message.
const CHARACTERS_MAX: usize = 500;
/// Characters of what a prompt is made of: some 1,500 tokens.
const PROMPT_MAX: usize = 6000;
/// How long a message is remembered.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is remembered.
#[derive(Debug, Default)]
pub struct Store {
    chats: HashMap<i64, VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    name: String,
    text: String,
    at: Instant,
}

impl Store {
    /// Remembers this chat from now on; false where there is no room for another.
    pub fn begin(&mut self, chat: i64) -> bool {
        if self.chats.len() >= CHATS_MAX && !self.chats.contains_key(&chat) {
            return false;
        }
        self.chats.entry(chat).or_default();
        true
    }

    /// Forgets this chat; false where nothing was remembered.
    pub fn forget(&mut self, chat: i64) -> bool {
        self.chats.remove(&chat).is_some()
    }

    /// Whether this chat is remembered.
    pub fn knows(&self, chat: i64) -> bool {
        self.chats.contains_key(&chat)
    }

    /// Takes a message of a chat that is remembered; of others nothing.
    pub fn add(&mut self, chat: i64, name: &str, text: &str, now: Instant) {
        let Some(messages) = self.chats.get_mut(&chat) else {
            return;
        };
        messages.push_back(Kept {
            name: cut(name, 64),
            text: cut(text, CHARACTERS_MAX),
            at: now,
        });
        while messages.len() > MESSAGES_MAX {
            messages.pop_front();
        }
    }

    /// The last messages, a line each, as many as a prompt takes; none where there are none.
    pub fn recent(&mut self, chat: i64, now: Instant) -> Option<String> {
        let messages = self.chats.get_mut(&chat)?;
        messages.retain(|kept| now.saturating_duration_since(kept.at) <= AGE_MAX);
        let (mut lines, mut characters) = (Vec::new(), 0);
        for kept in messages.iter().rev() {
            let line = format!("{}: {}", kept.name, kept.text.replace('\n', " "));
            characters += line.chars().count() + 1;
            if characters > PROMPT_MAX {
                break;
            }
            lines.push(line);
        }
        lines.reverse();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// The first characters of a text.
pub(crate) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_allowed_is_remembered_and_not_too_much_of_it() {
        let (mut store, now) = (Store::default(), Instant::now());
        store.add(1, "Ada", "before", now);
        assert_eq!(store.recent(1, now), None);
        assert!(store.begin(1));
        assert_eq!(store.recent(1, now), None);
        for number in 0..150 {
            store.add(1, "Ada", &format!("number {number}"), now);
        }
        store.add(2, "Bob", "elsewhere", now);
        let recent = store.recent(1, now).unwrap();
        assert_eq!(recent.lines().count(), MESSAGES_MAX);
        assert!(recent.starts_with("Ada: number 50\n"), "{recent}");
        // Long ones leave room for fewer.
        for _ in 0..20 {
            store.add(1, "Ada", &"ü".repeat(5000), now);
        }
        let recent = store.recent(1, now).unwrap();
        assert!(recent.chars().count() <= PROMPT_MAX && recent.lines().count() == 11);
        // A day later it is gone.
        let later = now + AGE_MAX + Duration::from_secs(1);
        assert_eq!(store.recent(1, later), None);
        assert!(store.forget(1) && !store.forget(1));
        assert!(!store.knows(1));
        for chat in 0..1000 {
            assert!(store.begin(chat));
        }
        assert!(!store.begin(1000) && store.begin(999));
    }
}
