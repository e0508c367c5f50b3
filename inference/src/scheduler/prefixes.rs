//! Full pages by the tokens that they hold, so that equal beginnings are computed once.
//! In: pages that a sequence has filled. Out: for tokens, the pages that hold them already. Pages are shared inside
//! one [`Scope`] alone: elsewhere the time that a prompt takes would tell what others have asked.
//! A page that no sequence holds any more is kept for a while, the most recently used ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::tokenizer::TokenId;

use super::Shared;
use super::pages::{PAGE, Pages};

/// Sessions that may share what they have computed of equal beginnings; clones are the same scope. What is shared
/// can be told by how long a prompt takes, so a scope is for sessions of one owner. Once the last clone and the
/// last session are gone, so is what was kept for them.
#[derive(Debug, Clone)]
pub struct Scope(Arc<Shares>);

#[derive(Debug)]
struct Shares {
    number: u64,
    /// The models that keep pages for it.
    kept_by: Mutex<Vec<Weak<Shared>>>,
}

impl Scope {
    /// A scope that no session is in yet.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Shares {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            kept_by: Mutex::new(Vec::new()),
        }))
    }

    /// Notes that a model keeps pages for it.
    pub(super) fn keep(&self, model: &Arc<Shared>) {
        let kept_by = self.0.kept_by.lock();
        let mut kept_by = kept_by.unwrap_or_else(PoisonError::into_inner);
        let model = Arc::downgrade(model);
        if !kept_by.iter().any(|known| known.ptr_eq(&model)) {
            kept_by.retain(|known| known.strong_count() > 0);
            kept_by.push(model);
        }
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        let kept_by = self.kept_by.get_mut();
        let kept_by = kept_by.unwrap_or_else(PoisonError::into_inner);
        for model in kept_by.drain(..).filter_map(|model| model.upgrade()) {
            model.lock().let_go(&model.limits);
        }
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
    scope: Weak<Shares>,
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
            scope: scope.0.number,
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
            scope: scope.0.number,
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
    pub(super) fn idle(&self, pages: &Pages) -> usize {
        let idle = |page: &&u32| pages.holders(**page) == 1;
        self.entries.keys().filter(idle).count()
    }

    /// Lets go of what no session can ask for any more, and of what is more than so many idle pages.
    pub(super) fn trim(&mut self, pages: &mut Pages, idle_max: usize) {
        self.forget(pages, |_, entry| entry.scope.strong_count() == 0);
        let idle = self.idle(pages);
        self.evict(pages, idle.saturating_sub(idle_max));
    }

    /// Lets go of so many idle pages, those that were not used for longest; says of how many.
    pub(super) fn evict(&mut self, pages: &mut Pages, count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        let idle = self.entries.iter();
        let idle = idle.filter(|(page, _)| pages.holders(**page) == 1);
        let mut last: Vec<u64> = idle.map(|(_, entry)| entry.last).collect();
        let going = count.min(last.len());
        let Some(newest) = going.checked_sub(1) else {
            return 0;
        };
        let newest = *last.select_nth_unstable(newest).1;
        self.forget(pages, |holders, entry| holders == 1 && entry.last <= newest);
        going
    }

    /// Forgets pages by their holders and what they hold. Whoever uses a page uses those before it, and then
    /// they count as used later: so none is left that follows a forgotten one.
    fn forget(&mut self, pages: &mut Pages, goes: impl Fn(u32, &Entry) -> bool) {
        let by_key = &mut self.by_key;
        self.entries.retain(|page, entry| {
            let stays = !goes(pages.holders(*page), entry);
            if !stays {
                by_key.remove(&entry.key);
                pages.let_go(*page);
            }
            stays
        });
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
        assert_eq!(prefixes.evict(&mut pages, 1), 0);
        pages.close(&mut table);
        assert_eq!(pages.free(), 1);
        // Of a chain the end goes first.
        assert_eq!(prefixes.evict(&mut pages, 1), 1);
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
    fn many_idle_pages_go_at_once_and_no_chain_loses_its_beginning() {
        const CHAINS: u32 = 200;
        const LENGTH: u32 = 20;
        let (mut pages, mut prefixes) = (Pages::default(), Prefixes::default());
        pages.grow((CHAINS * LENGTH) as usize);
        let scope = Scope::new();
        for chain in 0..CHAINS {
            let mut table = pages.open(LENGTH as usize * PAGE);
            pages.extend(&mut table, LENGTH as usize * PAGE);
            let mut before = None;
            for (page, at) in table.pages().iter().zip(0..) {
                let tokens = [TokenId(chain * LENGTH + at); PAGE];
                prefixes.insert(&mut pages, (&scope, before, *page), &tokens);
                before = Some(*page);
            }
            prefixes.touch(table.pages());
            pages.close(&mut table);
        }
        prefixes.trim(&mut pages, 1050);
        assert_eq!(prefixes.idle(&pages), 1050);
        let chains_left = |prefixes: &Prefixes| {
            let first = prefixes
                .by_key
                .iter()
                .filter(|(key, _)| key.before.is_none());
            first.count()
        };
        // 52 whole ones that were used last, and the first half of another.
        assert_eq!(chains_left(&prefixes), 53);
        let followed = |key: &Key| {
            let before = key.before;
            before.is_none_or(|page| prefixes.entries.contains_key(&page))
        };
        assert!(prefixes.by_key.keys().all(followed));
        assert_eq!(pages.free(), (CHAINS * LENGTH) as usize - 1050);
    }
}
