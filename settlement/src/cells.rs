//! Building cells, and reading the numbers of a TVM stack, in the few ways that contracts need.
//!
//! In: values of fixed or bounded width. Out: cells. Never: a cell from a stranger's bytes.

use tussah_manifest::Nanograms;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellContext, CellFamily, HashBytes, Store};
use tycho_types::error::Error;
use tycho_types::models::{StateInit, StdAddr};
use tycho_types::num::Tokens;

/// Fills a cell. Each layout here has a largest size, which is written beside it in
/// `contracts/messages.tolk` and fits, so a cell that overflows is a mistake of ours.
pub(crate) fn cell(fill: impl FnOnce(&mut CellBuilder) -> Result<(), Error>) -> Cell {
    let mut builder = CellBuilder::new();
    let built = fill(&mut builder).and_then(|()| builder.build());
    built.expect("the layouts of this crate fit a cell")
}

/// The hash that a contract computes of the same layout.
pub(crate) fn hash_of(fill: impl FnOnce(&mut CellBuilder) -> Result<(), Error>) -> [u8; 32] {
    cell(fill).repr_hash().0
}

/// What the layouts are made of, beyond the builder's own integers.
pub(crate) trait BuilderExt {
    fn coins(&mut self, amount: Nanograms) -> Result<(), Error>;
    fn address(&mut self, address: &StdAddr) -> Result<(), Error>;
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// `Maybe ^Cell`
    fn maybe_reference(&mut self, cell: Option<Cell>) -> Result<(), Error>;
}

impl BuilderExt for CellBuilder {
    fn coins(&mut self, amount: Nanograms) -> Result<(), Error> {
        Tokens::new(amount.get().into()).store_into(self, context())
    }

    fn address(&mut self, address: &StdAddr) -> Result<(), Error> {
        address.store_into(self, context())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let bits = u16::try_from(bytes.len() * 8).map_err(|_| Error::CellOverflow)?;
        self.store_raw(bytes, bits)
    }

    fn maybe_reference(&mut self, cell: Option<Cell>) -> Result<(), Error> {
        self.store_bit(cell.is_some())?;
        cell.map_or(Ok(()), |cell| self.store_reference(cell))
    }
}

/// What cells are built with: no limit on gas, as nothing here runs.
pub(crate) fn context() -> &'static dyn CellContext {
    Cell::empty_context()
}

/// Code that is built into this crate, from the bag of cells that is committed beside it.
pub(crate) fn committed(boc: &[u8]) -> Cell {
    Boc::decode(boc).expect("the committed code is a bag of cells")
}

/// The address in the basechain that a contract deployed with `init` has.
pub(crate) fn address_of(init: &StateInit) -> StdAddr {
    let cell = CellBuilder::build_from(init).expect("a state-init of two cells fits a cell");
    StdAddr::new(0, HashBytes(cell.repr_hash().0))
}

/// Code and data, and nothing else.
pub(crate) fn state_init(code: Cell, data: Cell) -> StateInit {
    StateInit {
        code: Some(code),
        data: Some(data),
        ..StateInit::default()
    }
}
