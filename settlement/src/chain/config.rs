//! The embedded chain's configuration: TON's parameters, as far as transactions depend on them.
//!
//! Out: gas, forwarding and storage prices, limits, and the version of the TVM. The figures are
//! the main network's of August 2026 (parameters 20, 21, 24 and 25); storage prices (18) are
//! those that npm `@ton/sandbox` 0.41.0 carries. Nothing is fetched: the same build has the same
//! prices everywhere. Validators, elections and other chains have no parameters here.

use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, CellBuilder, HashBytes, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::{
    BlockchainConfig, BlockchainConfigParams, GasLimitsPrices, GlobalCapabilities, GlobalVersion,
    MsgForwardPrices, StoragePrices, WorkchainDescription, WorkchainFormat, WorkchainFormatBasic,
};

use crate::voucher::NetworkId;

/// The version of the TVM that the contracts are compiled for, and that the executor runs.
const GLOBAL_VERSION: u32 = 12;

/// What the main network's parameter 8 states as capabilities.
const CAPABILITIES: u64 = 0x1ee;

/// Prices of the basechain, parameter 21: 66.67 nanograms a gas, in 2^-16 nanograms.
const GAS: GasLimitsPrices = GasLimitsPrices {
    gas_price: 4_369_067,
    gas_limit: 1_000_000,
    special_gas_limit: 1_000_000,
    gas_credit: 10_000,
    block_gas_limit: 10_000_000,
    freeze_due_limit: 100_000_000,
    delete_due_limit: 1_000_000_000,
    flat_gas_limit: 100,
    flat_gas_price: 6_667,
};

/// Prices of the masterchain, parameter 20.
const MASTERCHAIN_GAS: GasLimitsPrices = GasLimitsPrices {
    gas_price: 655_360_000,
    special_gas_limit: 70_000_000,
    block_gas_limit: 2_500_000,
    flat_gas_price: 1_000_000,
    ..GAS
};

/// Forwarding in the basechain, parameter 25.
const FORWARD: MsgForwardPrices = MsgForwardPrices {
    lump_price: 66_667,
    bit_price: 4_369_067,
    cell_price: 436_906_667,
    ihr_price_factor: 98_304,
    first_frac: 21_845,
    next_frac: 21_845,
};

/// Forwarding to and from the masterchain, parameter 24.
const MASTERCHAIN_FORWARD: MsgForwardPrices = MsgForwardPrices {
    lump_price: 10_000_000,
    bit_price: 655_360_000,
    cell_price: 65_536_000_000,
    ..FORWARD
};

/// Rent, parameter 18, in 2^-16 nanograms a second.
const STORAGE: StoragePrices = StoragePrices {
    utime_since: 0,
    bit_price_ps: 1,
    cell_price_ps: 500,
    mc_bit_price_ps: 1_000,
    mc_cell_price_ps: 500_000,
};

/// The configuration of a chain of our own.
///
/// # Errors
/// [`Error`] if a parameter does not fit its layout, which would be a mistake here.
pub fn localnet_config(network: NetworkId) -> Result<ParsedConfig, Error> {
    let mut params = Dict::<u32, Cell>::new();
    // Nobody lives there: the chain has no contracts in the masterchain.
    let config_contract = HashBytes([0x55; 32]);
    params.set(0, built(config_contract)?)?;
    params.set(
        8,
        built(GlobalVersion {
            version: GLOBAL_VERSION,
            capabilities: GlobalCapabilities::new(CAPABILITIES),
        })?,
    )?;
    params.set(12, built(workchains()?)?)?;
    let mut storage = Dict::<u32, StoragePrices>::new();
    storage.set(0, STORAGE)?;
    params.set(18, storage.into_root().ok_or(Error::InvalidData)?)?;
    params.set(19, built(network.0.cast_unsigned())?)?;
    params.set(20, built(MASTERCHAIN_GAS)?)?;
    params.set(21, built(GAS)?)?;
    params.set(24, built(MASTERCHAIN_FORWARD)?)?;
    params.set(25, built(FORWARD)?)?;
    params.set(31, built(Dict::<HashBytes, ()>::new())?)?;
    let root = params.into_root().ok_or(Error::InvalidData)?;
    let config = BlockchainConfig {
        address: config_contract,
        params: BlockchainConfigParams::from_raw(root),
    };
    ParsedConfig::parse(config, u32::MAX)
}

fn built(value: impl Store) -> Result<Cell, Error> {
    CellBuilder::build_from(value)
}

/// The basechain, in the first version of its description, which is the one that the executor reads.
fn workchains() -> Result<Dict<i32, WorkchainDescription>, Error> {
    let mut workchains = Dict::new();
    workchains.set(
        0,
        WorkchainDescription {
            enabled_since: 0,
            actual_min_split: 0,
            min_split: 0,
            max_split: 8,
            active: true,
            accept_msgs: true,
            zerostate_root_hash: HashBytes::ZERO,
            zerostate_file_hash: HashBytes::ZERO,
            version: 0,
            format: WorkchainFormat::Basic(WorkchainFormatBasic {
                vm_version: -1,
                vm_mode: 0,
            }),
        },
    )?;
    Ok(workchains)
}
