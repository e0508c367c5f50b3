//! Keys and values of all sequences of a model, in pages.
//! In: page numbers, which the scheduler gives out. Out: the blocks of a page, one a layer and kv head, laid out for
//! `attention.rs`. It knows nothing of sequences.

use crate::backend::BackendError;
use crate::cpu::buffer::Buffer;
use crate::cpu::pool::Parts;
use crate::model::plan::Plan;
use crate::scheduler::{ContextMemory, PAGE, Taken};

use super::attention::{Block, VALUES, store_key, store_value};

// A page has one block of a head: attention never crosses into another page within a block.
const _: () = assert!(PAGE == VALUES);

/// Keys and values as Q16, in slabs of pages; a slab stays where it is.
#[derive(Debug)]
pub(super) struct Cache {
    /// Blocks of a page: layers times kv heads.
    blocks: usize,
    head_size: usize,
    /// Of one page.
    page_bytes: u64,
    memory: ContextMemory,
    slabs: Vec<Slab>,
    /// Where each page is: its slab, and its place in it.
    places: Vec<(usize, usize)>,
}

/// `[page][layer][kv head]` of blocks.
#[derive(Debug)]
struct Slab {
    keys: Buffer<i16>,
    values: Buffer<i16>,
    key_exponents: Buffer<i32>,
    value_exponents: Buffer<i32>,
    _taken: Taken,
}

impl Cache {
    pub(super) fn new(plan: &Plan, memory: ContextMemory) -> Self {
        Self {
            blocks: plan.layers.len() * plan.kv_heads,
            head_size: plan.head_size,
            page_bytes: Self::bytes(plan, PAGE),
            memory,
            slabs: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Memory of keys and values of so many positions, in whole pages.
    pub(super) fn bytes(plan: &Plan, positions: usize) -> u64 {
        let rows = plan.layers.len() * plan.kv_heads * positions.next_multiple_of(PAGE);
        rows as u64 * (4 * plan.head_size as u64 + 8)
    }

    pub(super) fn pages(&self) -> usize {
        self.places.len()
    }

    /// As many as there is memory for.
    pub(super) fn pages_max(&self) -> usize {
        let more = self.memory.left_bytes() / self.page_bytes.max(1);
        self.pages()
            .saturating_add(usize::try_from(more).unwrap_or(usize::MAX))
    }

    /// Adds a slab of the pages that are missing.
    pub(super) fn grow(&mut self, pages: usize) -> Result<(), BackendError> {
        let more = pages.saturating_sub(self.places.len());
        if more == 0 {
            return Ok(());
        }
        let rows = more.saturating_mul(self.blocks * PAGE);
        let values = rows.saturating_mul(self.head_size);
        let taken = self.page_bytes.saturating_mul(more as u64);
        let slab = Slab {
            _taken: self.memory.take(taken)?,
            keys: Buffer::zeroed(values, "keys")?,
            values: Buffer::zeroed(values, "values")?,
            key_exponents: Buffer::zeroed(rows, "exponents of keys")?,
            value_exponents: Buffer::zeroed(rows, "exponents of values")?,
        };
        let index = self.slabs.len();
        self.slabs.push(slab);
        self.places.extend((0..more).map(|place| (index, place)));
        Ok(())
    }

    /// Gives all memory back.
    pub(super) fn clear(&mut self) {
        self.slabs.clear();
        self.places.clear();
    }

    pub(super) fn copy_page(&mut self, from: u32, to: u32) {
        for block in 0..self.blocks {
            let from = self.block(from, block);
            let copy = (
                from.keys.to_vec(),
                from.values.to_vec(),
                *from.key_exponents,
                *from.value_exponents,
            );
            let (slab, at) = self.at(to, block);
            let values = at * self.head_size;
            let slab = &mut self.slabs[slab];
            slab.keys[values..][..copy.0.len()].copy_from_slice(&copy.0);
            slab.values[values..][..copy.1.len()].copy_from_slice(&copy.1);
            slab.key_exponents[at..][..PAGE].copy_from_slice(&copy.2);
            slab.value_exponents[at..][..PAGE].copy_from_slice(&copy.3);
        }
    }

    /// The slab of a page's block, and its first row there.
    #[inline]
    fn at(&self, page: u32, block: usize) -> (usize, usize) {
        let (slab, place) = self.places[page as usize];
        (slab, (place * self.blocks + block) * PAGE)
    }

    /// Keys and values of a layer's kv head in a page; `block` is `layer · kv heads + kv head`.
    #[inline]
    pub(super) fn block(&self, page: u32, block: usize) -> Block<'_> {
        let (slab, at) = self.at(page, block);
        let slab = &self.slabs[slab];
        let (from, count) = (at * self.head_size, PAGE * self.head_size);
        Block {
            keys: &slab.keys[from..from + count],
            values: &slab.values[from..from + count],
            key_exponents: exponents(&slab.key_exponents, at),
            value_exponents: exponents(&slab.value_exponents, at),
        }
    }

    /// For threads that write blocks of their own.
    pub(super) fn writer(&mut self) -> Writer<'_> {
        Writer {
            blocks: self.blocks,
            head_size: self.head_size,
            slabs: self.slabs.iter_mut().map(SlabParts::of).collect(),
            places: &self.places,
        }
    }
}

#[inline]
fn exponents(of_slab: &[i32], at: usize) -> &[i32; VALUES] {
    &of_slab[at..].as_chunks::<VALUES>().0[0]
}

/// Writes keys and values from any thread.
pub(super) struct Writer<'a> {
    blocks: usize,
    head_size: usize,
    slabs: Vec<SlabParts<'a>>,
    places: &'a [(usize, usize)],
}

struct SlabParts<'a> {
    keys: Parts<'a, i16>,
    values: Parts<'a, i16>,
    key_exponents: Parts<'a, i32>,
    value_exponents: Parts<'a, i32>,
}

impl<'a> SlabParts<'a> {
    fn of(slab: &'a mut Slab) -> Self {
        Self {
            keys: Parts::new(&mut slab.keys),
            values: Parts::new(&mut slab.values),
            key_exponents: Parts::new(&mut slab.key_exponents),
            value_exponents: Parts::new(&mut slab.value_exponents),
        }
    }
}

impl Writer<'_> {
    fn at(&self, page: u32, block: usize) -> (&SlabParts<'_>, usize, usize) {
        let (slab, place) = self.places[page as usize];
        let at = (place * self.blocks + block) * PAGE;
        (&self.slabs[slab], at, PAGE * self.head_size)
    }

    /// Writes a key at a position of a page's block.
    ///
    /// # Safety
    /// No two threads may write keys of the same block at a time.
    #[expect(unsafe_code, reason = "blocks of one page go to several threads")]
    pub(super) unsafe fn key(
        &self,
        (page, block): (u32, usize),
        position: usize,
        (key, exponent): (&[i16], i32),
    ) {
        let (slab, at, count) = self.at(page, block);
        // SAFETY: the caller keeps blocks apart.
        let (keys, exponents) = unsafe {
            (
                slab.keys.part(at * self.head_size, count),
                slab.key_exponents.part(at, PAGE),
            )
        };
        store_key(keys, position % PAGE, key);
        exponents[position % PAGE] = exponent;
    }

    /// Writes a value at a position of a page's block.
    ///
    /// # Safety
    /// No two threads may write values of the same block at a time.
    #[expect(unsafe_code, reason = "blocks of one page go to several threads")]
    pub(super) unsafe fn value(
        &self,
        (page, block): (u32, usize),
        position: usize,
        (value, exponent): (&[i16], i32),
    ) {
        let (slab, at, count) = self.at(page, block);
        // SAFETY: the caller keeps blocks apart.
        let (values, exponents) = unsafe {
            (
                slab.values.part(at * self.head_size, count),
                slab.value_exponents.part(at, PAGE),
            )
        };
        store_value(values, position % PAGE, value);
        exponents[position % PAGE] = exponent;
    }
}
