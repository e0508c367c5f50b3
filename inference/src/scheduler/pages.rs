//! Which pages of the cache belong to which sequence.
//! In: how many positions a sequence may have, and has. Out: page numbers. A page is shared by a sequence
//! and its forks, and by sequences that begin equally, until one of them writes to it; what a sequence was promised is always there.

/// Positions of a page.
pub(crate) const PAGE: usize = 32;

/// The pages of all sequences of a model.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// How many sequences hold each page.
    holders: Vec<u32>,
    free: Vec<u32>,
    /// Pages promised to sequences that do not have them yet.
    promised: usize,
}

/// A sequence's pages.
#[derive(Debug)]
pub(super) struct Table {
    pages: Vec<u32>,
    /// How many more it may take.
    promised: usize,
}

impl Table {
    pub(super) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Whether it may take another page.
    pub(super) fn has_room(&self) -> bool {
        self.promised > 0
    }
}

impl Pages {
    /// Pages that exist.
    pub(super) fn capacity(&self) -> usize {
        self.holders.len()
    }

    /// Pages that nobody holds.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Whether no sequence has any, or was promised one.
    pub(super) fn unused(&self) -> bool {
        self.promised == 0 && self.free.len() == self.holders.len()
    }

    /// How many must exist for `more` to be promised.
    pub(super) fn needed(&self, more: usize) -> usize {
        self.capacity() - self.free.len() + self.promised + more
    }

    /// Adds pages up to a capacity.
    pub(super) fn grow(&mut self, capacity: usize) {
        let from = self.capacity();
        self.holders.resize(capacity.max(from), 0);
        let numbers = (from..self.capacity()).rev();
        self.free
            .extend(numbers.filter_map(|page| u32::try_from(page).ok()));
    }

    /// Promises room for so many positions; the caller has grown the pages before.
    pub(super) fn open(&mut self, positions: usize) -> Table {
        let promised = positions.div_ceil(PAGE);
        self.promised += promised;
        Table {
            pages: Vec::new(),
            promised,
        }
    }

    /// Pages that a fork at `positions` of a sequence with room for `room` would be promised.
    pub(super) fn fork_needs(room: usize, positions: usize) -> usize {
        room.div_ceil(PAGE) - positions / PAGE
    }

    /// A second table that shares the full pages before `positions`; the page that both would write to is
    /// taken anew, and its number returned with the origin's, to be copied.
    pub(super) fn fork(
        &mut self,
        table: &Table,
        room: usize,
        positions: usize,
    ) -> (Table, Option<(u32, u32)>) {
        let full = positions / PAGE;
        let shared = table.pages[..full].to_vec();
        for page in &shared {
            self.holders[*page as usize] += 1;
        }
        let promised = Self::fork_needs(room, positions);
        self.promised += promised;
        let mut fork = Table {
            pages: shared,
            promised,
        };
        let mut copy = None;
        if !positions.is_multiple_of(PAGE) {
            self.extend(&mut fork, positions);
            copy = Some((table.pages[full], fork.pages[full]));
        }
        (fork, copy)
    }

    /// Takes pages until the table covers so many positions, within what was promised.
    pub(super) fn extend(&mut self, table: &mut Table, positions: usize) {
        while table.pages.len() * PAGE < positions && table.promised > 0 {
            let Some(page) = self.free.pop() else { return };
            self.holders[page as usize] = 1;
            self.promised -= 1;
            table.promised -= 1;
            table.pages.push(page);
        }
    }

    /// Gives a table a page that another sequence has filled, in the place of one that it was promised.
    pub(super) fn share(&mut self, table: &mut Table, page: u32) {
        self.hold(page);
        self.promised -= 1;
        table.promised -= 1;
        table.pages.push(page);
    }

    /// Gives a table another page that holds the same as its own.
    pub(super) fn swap(&mut self, table: &mut Table, at: usize, page: u32) {
        self.hold(page);
        let own = std::mem::replace(&mut table.pages[at], page);
        self.let_go(own);
    }

    pub(super) fn holders(&self, page: u32) -> u32 {
        self.holders[page as usize]
    }

    /// Holds a page that somebody holds.
    pub(super) fn hold(&mut self, page: u32) {
        self.holders[page as usize] += 1;
    }

    /// Holds a page no more; it is free once nobody does.
    pub(super) fn let_go(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
    }

    /// Gives a sequence's pages back.
    pub(super) fn close(&mut self, table: &mut Table) {
        self.promised -= table.promised;
        table.promised = 0;
        for page in table.pages.drain(..) {
            self.let_go(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_share_full_pages_and_copy_the_one_they_write_to() {
        let mut pages = Pages::default();
        pages.grow(pages.needed(4));
        let mut first = pages.open(4 * PAGE);
        pages.extend(&mut first, PAGE + 1);
        assert_eq!(first.pages().len(), 2);
        let needs = Pages::fork_needs(4 * PAGE, PAGE + 1);
        assert_eq!(needs, 3);
        pages.grow(pages.needed(needs));
        assert_eq!(pages.capacity(), 7);
        let (mut second, copy) = pages.fork(&first, 4 * PAGE, PAGE + 1);
        assert_eq!(second.pages()[0], first.pages()[0]);
        assert_eq!(copy, Some((first.pages()[1], second.pages()[1])));
        assert_ne!(second.pages()[1], first.pages()[1]);
        // Both have all that they were promised, whoever goes first.
        pages.extend(&mut second, 4 * PAGE);
        pages.extend(&mut first, 4 * PAGE);
        assert_eq!((first.pages().len(), second.pages().len()), (4, 4));
        let shared = first.pages()[0];
        pages.close(&mut first);
        assert!(!pages.free.contains(&shared), "its fork still has it");
        pages.close(&mut second);
        assert_eq!((pages.free.len(), pages.promised), (7, 0));
    }

    #[test]
    fn a_fork_at_a_page_border_copies_nothing() {
        let mut pages = Pages::default();
        pages.grow(8);
        let mut first = pages.open(2 * PAGE);
        pages.extend(&mut first, PAGE);
        let (second, copy) = pages.fork(&first, 2 * PAGE, PAGE);
        assert_eq!((second.pages().len(), copy), (1, None));
        let (third, copy) = pages.fork(&first, 2 * PAGE, 0);
        assert_eq!((third.pages().len(), copy), (0, None));
    }
}
