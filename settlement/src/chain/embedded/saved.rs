//! The embedded chain as bytes, and back: a localnet that goes on where it stopped.
//!
//! In: a chain, or bytes that were one. Out: bytes, or the same chain; what is recorded for a
//! second machine is not kept. Where the bytes lie, and whether they are whole, is the caller's
//! business: a bag of cells says what it is malformed in, not who changed it.

use std::collections::BTreeMap;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::{ShardAccount, StdAddr};

use crate::cells::context;
use crate::chain::{ChainError, EmbeddedChain, localnet_config};
use crate::voucher::NetworkId;

/// localnet#5475e001 network:int32 now:uint32 lt:uint64 fees:uint128
///   accounts:(HashmapE 267 ShardAccount) logs:(HashmapE 267 ^(Hashmap 64 ^Transaction)) = Localnet;
const TAG: u32 = 0x5475_e001;

impl EmbeddedChain {
    /// All of it, as a bag of cells.
    ///
    /// # Errors
    /// [`ChainError::Cell`] if an account does not fit its layout.
    pub fn save(&self) -> Result<Vec<u8>, ChainError> {
        let mut accounts = Dict::<StdAddr, ShardAccount>::new();
        for (address, account) in &self.accounts {
            accounts.set(address, account)?;
        }
        let mut logs = Dict::<StdAddr, Cell>::new();
        for (address, log) in &self.transactions {
            let mut transactions = Dict::<u64, Cell>::new();
            for (lt, transaction) in log {
                transactions.set(lt, transaction.clone())?;
            }
            if let Some(root) = transactions.into_root() {
                logs.set(address, root)?;
            }
        }
        let mut root = CellBuilder::new();
        root.store_u32(TAG)?;
        root.store_u32(self.network.0.cast_unsigned())?;
        root.store_u32(self.now)?;
        root.store_u64(self.lt)?;
        root.store_u128(self.fees)?;
        accounts.store_into(&mut root, context())?;
        logs.store_into(&mut root, context())?;
        Ok(Boc::encode(root.build()?))
    }

    /// The chain that [`EmbeddedChain::save`] wrote.
    ///
    /// # Errors
    /// [`ChainError::Saved`] if these are not its bytes, [`ChainError::Cell`] if a cell in them
    /// is malformed.
    pub fn restore(bytes: &[u8]) -> Result<Self, ChainError> {
        let root = Boc::decode(bytes).map_err(|error| ChainError::Saved(error.to_string()))?;
        let mut slice = root.as_slice()?;
        if slice.load_u32()? != TAG {
            return Err(ChainError::Saved("its first 32 bits are others".to_owned()));
        }
        let network = NetworkId(slice.load_u32()?.cast_signed());
        let now = slice.load_u32()?;
        let lt = slice.load_u64()?;
        let fees = slice.load_u128()?;
        let mut accounts = BTreeMap::new();
        for entry in Dict::<StdAddr, ShardAccount>::load_from(&mut slice)?.iter() {
            let (address, account) = entry?;
            accounts.insert(address, account);
        }
        let transactions = load_logs(&mut slice)?;
        Ok(Self {
            network,
            config: localnet_config(network)?,
            accounts,
            transactions,
            lt,
            now,
            fees,
            steps: None,
        })
    }
}

fn load_logs(slice: &mut CellSlice<'_>) -> Result<BTreeMap<StdAddr, BTreeMap<u64, Cell>>, Error> {
    let mut logs = BTreeMap::new();
    for entry in Dict::<StdAddr, Cell>::load_from(slice)?.iter() {
        let (address, root) = entry?;
        let log = Dict::<u64, Cell>::from_raw(Some(root));
        logs.insert(address, log.iter().collect::<Result<_, _>>()?);
    }
    Ok(logs)
}
