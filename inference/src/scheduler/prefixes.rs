//! Full pages by the tokens that they hold, so that equal beginnings are computed once.
//! In: pages that a sequence has filled. Out: for tokens, the pages that hold them already. Pages are shared inside
//! one [`Scope`] alone: elsewhere the time that a prompt takes would tell what others have asked.
//! A page that no sequence holds any more is kept for a while, the most recently used ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::tokenizer::TokenId;

use super::pages::{PAGE, Pages};

/// Sessions that may share what they have computed of equal beginnings; clones are the same scope. What is shared
/// can be told by how long a prompt takes, so a scope is for sessions of one owner.
#[derive(Debug, Clone)]
pub struct Scope(Arc<u64>);

impl Scope {
    /// A scope that no session is in yet.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

/// What a page holds: the page before it says what came before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    scope: u64,
    before: Option<u32>,
    tokens: [TokenId; PAGE],
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// Larger of what was used later.
    last: u64,
    scope: Weak<u64>,
}

/// The pages that can be shared; each is held once more for that.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    by_key: HashMap<Key, u32>,
    entries: HashMap<u32, Entry>,
    uses: u64,
}

impl Prefixes {
    /// The page that holds these tokens after the page before.
    pub(super) fn find(
        &self,
        scope: &Scope,
        before: Option<u32>,
        tokens: &[TokenId; PAGE],
    ) -> Option<u32> {
        let key = Key {
            scope: *scope.0,
            before,
            tokens: *tokens,
        };
        self.by_key.get(&key).copied()
    }

    /// Makes a full page known, which nobody writes to from now on.
    pub(super) fn insert(
        &mut self,
        pages: &mut Pages,
        (scope, before, page): (&Scope, Option<u32>, u32),
        tokens: &[TokenId; PAGE],
    ) {
        let key = Key {
            scope: *scope.0,
            before,
            tokens: *tokens,
        };
        pages.hold(page);
        let entry = Entry {
            key: key.clone(),
            last: 0,
            scope: Arc::downgrade(&scope.0),
        };
        self.by_key.insert(key, page);
        self.entries.insert(page, entry);
    }

    /// Notes that a sequence uses a chain of pages; those it begins with count as used last.
    pub(super) fn touch(&mut self, chain: &[u32]) {
        for page in chain.iter().rev() {
            self.uses += 1;
            if let Some(entry) = self.entries.get_mut(page) {
                entry.last = self.uses;
            }
        }
    }

    /// Pages that are held for this alone.
    fn idle(&self, pages: &Pages) -> usize {
        let idle = |page: &&u32| pages.holders(**page) == 1;
        self.entries.keys().filter(idle).count()
    }

    /// Lets go of what no session can ask for any more, and of what is more than so many idle pages.
    pub(super) fn trim(&mut self, pages: &mut Pages, idle_max: usize) {
        let gone =
            |(page, entry): (&u32, &Entry)| (entry.scope.strong_count() == 0).then_some(*page);
        for page in self.entries.iter().filter_map(gone).collect::<Vec<_>>() {
            self.forget(pages, page);
        }
        let mut idle = self.idle(pages);
        while idle > idle_max && self.evict(pages) {
            idle = self.idle(pages);
        }
    }

    /// Lets go of the idle page that was not used for longest; `false` where there is none.
    pub(super) fn evict(&mut self, pages: &mut Pages) -> bool {
        let idle = self
            .entries
            .iter()
            .filter(|(page, _)| pages.holders(**page) == 1);
        let Some((page, _)) = idle.min_by_key(|(_, entry)| entry.last) else {
            return false;
        };
        self.forget(pages, *page);
        true
    }

    /// Forgets a page, and those after it: without it nothing says what they follow.
    fn forget(&mut self, pages: &mut Pages, page: u32) {
        let mut going = vec![page];
        while let Some(page) = going.pop() {
            let Some(entry) = self.entries.remove(&page) else {
                continue;
            };
            self.by_key.remove(&entry.key);
            let after =
                |(at, entry): (&u32, &Entry)| (entry.key.before == Some(page)).then_some(*at);
            going.extend(self.entries.iter().filter_map(after));
            pages.let_go(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_for_their_scope_and_the_oldest_go_first() {
        let (mut pages, mut prefixes) = (Pages::default(), Prefixes::default());
        pages.grow(4);
        let scope = Scope::new();
        let mut table = pages.open(3 * PAGE);
        pages.extend(&mut table, 3 * PAGE);
        let numbers = table.pages().to_vec();
        let tokens = |token| [TokenId(token); PAGE];
        let mut before = None;
        for (page, token) in numbers.iter().zip(0..) {
            prefixes.insert(&mut pages, (&scope, before, *page), &tokens(token));
            before = Some(*page);
        }
        prefixes.touch(&numbers);
        assert_eq!(prefixes.find(&scope, None, &tokens(0)), Some(numbers[0]));
        assert_eq!(
            prefixes.find(&scope, None, &tokens(1)),
            None,
            "it follows another"
        );
        assert_eq!(prefixes.find(&Scope::new(), None, &tokens(0)), None);
        // In use they stay, whatever is wanted.
        assert!(!prefixes.evict(&mut pages));
        pages.close(&mut table);
        assert_eq!(pages.free(), 1);
        // Of a chain the end goes first.
        assert!(prefixes.evict(&mut pages));
        let second = |prefixes: &Prefixes| prefixes.find(&scope, Some(numbers[0]), &tokens(1));
        let third = prefixes.find(&scope, Some(numbers[1]), &tokens(2));
        assert_eq!((third, second(&prefixes)), (None, Some(numbers[1])));
        prefixes.trim(&mut pages, 1);
        assert_eq!((second(&prefixes), pages.free()), (None, 3));
        drop(scope);
        prefixes.trim(&mut pages, 1);
        assert_eq!(pages.free(), 4);
    }

    #[test]
    fn what_follows_a_forgotten_page_is_forgotten() {
        let (mut pages, mut prefixes) = (Pages::default(), Prefixes::default());
        pages.grow(2);
        let scope = Scope::new();
        let mut table = pages.open(2 * PAGE);
        pages.extend(&mut table, 2 * PAGE);
        let [first, second] = *table.pages() else {
            panic!("two pages");
        };
        prefixes.insert(&mut pages, (&scope, None, first), &[TokenId(0); PAGE]);
        prefixes.insert(
            &mut pages,
            (&scope, Some(first), second),
            &[TokenId(1); PAGE],
        );
        prefixes.forget(&mut pages, first);
        assert_eq!(
            prefixes.find(&scope, Some(first), &[TokenId(1); PAGE]),
            None
        );
        pages.close(&mut table);
        assert_eq!(pages.free(), 2);
    }
}
