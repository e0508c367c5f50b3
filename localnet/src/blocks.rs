//! Blocks: one for each message from outside and all that it caused.
//!
//! In: when and between which logical times something happened. Out: numbered blocks with hashes.
//! Clients count blocks and ask which transactions are in one. There are no validators, so a block
//! here is no bag of cells, and its hashes are of its number, time and extent alone.

use tycho_types::cell::{CellBuilder, CellContext, CellSlice, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;

/// One block of the basechain, and the masterchain's block of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number; 0 is the state before anything happened.
    pub seqno: u32,
    /// Second of the Unix epoch.
    pub now: u32,
    /// The least logical time that is in it.
    pub start_lt: u64,
    /// The greatest.
    pub end_lt: u64,
}

impl Block {
    /// What stands for its hash, different for each workchain and for the file.
    pub(crate) fn hash(&self, workchain: i8, is_file: bool) -> Result<[u8; 32], Error> {
        let mut builder = CellBuilder::new();
        builder.store_u8(workchain.cast_unsigned())?;
        builder.store_bit(is_file)?;
        builder.store_u32(self.seqno)?;
        builder.store_u32(self.now)?;
        builder.store_u64(self.start_lt)?;
        builder.store_u64(self.end_lt)?;
        Ok(builder.build()?.repr_hash().0)
    }
}

/// `block$_ now:uint32 start_lt:uint64 end_lt:uint64 = Block;`
pub(crate) struct Extent {
    now: u32,
    start_lt: u64,
    end_lt: u64,
}

impl Store for Extent {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), Error> {
        builder.store_u32(self.now)?;
        builder.store_u64(self.start_lt)?;
        builder.store_u64(self.end_lt)
    }
}

impl<'a> Load<'a> for Extent {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, Error> {
        Ok(Self {
            now: slice.load_u32()?,
            start_lt: slice.load_u64()?,
            end_lt: slice.load_u64()?,
        })
    }
}

/// All blocks, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    /// Block 0 alone.
    pub(crate) fn starting(now: u32, lt: u64) -> Self {
        Self {
            blocks: vec![Block {
                seqno: 0,
                now,
                start_lt: 0,
                end_lt: lt,
            }],
        }
    }

    /// The first.
    pub fn first(&self) -> Block {
        self.blocks[0]
    }

    /// The newest.
    pub fn last(&self) -> Block {
        self.blocks[self.blocks.len() - 1]
    }

    /// The one with this number.
    pub fn get(&self, seqno: u32) -> Option<Block> {
        self.blocks.get(usize::try_from(seqno).ok()?).copied()
    }

    /// The block that this logical time is in.
    pub fn at_lt(&self, lt: u64) -> Option<Block> {
        let index = self.blocks.partition_point(|block| block.end_lt < lt);
        self.blocks.get(index).copied()
    }

    /// The newest block that is not after this second.
    pub fn at_time(&self, now: u32) -> Option<Block> {
        let after = self.blocks.partition_point(|block| block.now <= now);
        self.blocks.get(after.checked_sub(1)?).copied()
    }

    /// Adds the block that ends at `end_lt`.
    pub(crate) fn push(&mut self, now: u32, end_lt: u64) {
        let last = self.last();
        self.blocks.push(Block {
            seqno: last.seqno.saturating_add(1),
            now,
            start_lt: last.end_lt.saturating_add(1),
            end_lt,
        });
    }

    /// `(HashmapE 32 Block)` by number.
    pub(crate) fn to_dict(&self) -> Result<Dict<u32, Extent>, Error> {
        let mut dict = Dict::new();
        for block in &self.blocks {
            dict.set(
                block.seqno,
                Extent {
                    now: block.now,
                    start_lt: block.start_lt,
                    end_lt: block.end_lt,
                },
            )?;
        }
        Ok(dict)
    }

    /// What [`Blocks::to_dict`] wrote, if the numbers have no gap and time does not go back.
    pub(crate) fn from_dict(dict: &Dict<u32, Extent>) -> Result<Self, Error> {
        let mut blocks: Vec<Block> = Vec::new();
        for entry in dict.iter() {
            let (seqno, extent) = entry?;
            let follows = match blocks.last() {
                None => seqno == 0,
                Some(last) => {
                    last.seqno.checked_add(1) == Some(seqno)
                        && last.end_lt.checked_add(1) == Some(extent.start_lt)
                        && last.now <= extent.now
                }
            };
            if !follows || extent.end_lt < extent.start_lt {
                return Err(Error::InvalidData);
            }
            blocks.push(Block {
                seqno,
                now: extent.now,
                start_lt: extent.start_lt,
                end_lt: extent.end_lt,
            });
        }
        if blocks.is_empty() {
            return Err(Error::InvalidData);
        }
        Ok(Self { blocks })
    }
}
