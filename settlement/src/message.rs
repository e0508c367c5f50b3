//! Messages by name: what a body says, in the words of `contracts/messages.tolk`.
//!
//! In: a message's cell, whoever wrote it. Out: the name of its operation and its fields as text,
//! for people and JSON. It only reads: what does not fit its layout to the last bit has no name,
//! and nobody should pay or sign anything by what is shown here.

use tussah_manifest::Nanograms;
use tycho_types::cell::{Cell, CellBuilder, CellSlice, Load};
use tycho_types::error::Error;
use tycho_types::models::{IntAddr, MsgInfo, OwnedMessage, StdAddr};

/// A message as it can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownMessage {
    /// Who sent it; nothing if it came from outside.
    pub from: Option<StdAddr>,
    /// Whom it is for; nothing if it leaves the chain.
    pub to: Option<StdAddr>,
    /// What it carries.
    pub value: Nanograms,
    /// It came back.
    pub bounced: bool,
    /// The operation, such as `Redeem`; nothing where it is not known.
    pub name: Option<&'static str>,
    /// Its first 32 bits, if it has so many.
    pub opcode: Option<u32>,
    /// Its fields, in order.
    pub fields: Vec<(&'static str, String)>,
}

/// How a field lies in its cell.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Uint32,
    Uint64,
    Bits256,
    Bits512,
    Coins,
    Address,
    MaybeCell,
    /// A cell of its own.
    Cell(&'static [(&'static str, Kind)]),
}

type Layout = &'static [(&'static str, Kind)];

const QUERY: (&str, Kind) = ("query_id", Kind::Uint64);
const PLAIN: Layout = &[QUERY];
const SIGNATURE: Layout = &[("client_signature", Kind::Bits512)];
const VOUCHER: Layout = &[
    ("provider_signature", Kind::Bits512),
    ("amount", Kind::Uint64),
    ("receipts", Kind::Uint64),
    ("root", Kind::Bits256),
    ("client", Kind::Cell(SIGNATURE)),
];
const CLAIM: Layout = &[("receipt", Kind::Bits256), ("signature", Kind::Bits512)];
const OFFER: Layout = &[
    ("offer_digest", Kind::Bits256),
    ("attestation_digest", Kind::Bits256),
    ("fuel_price", Kind::Coins),
    ("inference_price", Kind::Coins),
];
const POSTED: Layout = &[
    ("incarnation", Kind::Bits256),
    ("receipts", Kind::Uint64),
    ("root", Kind::Bits256),
];

/// Every operation of `contracts/messages.tolk`, by its number and under its name.
const OPERATIONS: &[(u32, &str, Layout)] = &[
    (
        0x5475_0101,
        "Open",
        &[
            QUERY,
            ("random", Kind::Bits256),
            ("expires_at", Kind::Uint32),
        ],
    ),
    (0x5475_0102, "TopUp", PLAIN),
    (0x5475_0103, "Redeem", VOUCHER),
    (
        0x5475_0104,
        "Withdraw",
        &[QUERY, ("bounceable", Kind::Bool)],
    ),
    (0x5475_0105, "CloseAgreed", VOUCHER),
    (0x5475_0106, "StartClose", PLAIN),
    (0x5475_0107, "Refund", PLAIN),
    (
        0x5475_0108,
        "Rotate",
        &[QUERY, ("key", Kind::Bits256), ("payout", Kind::Address)],
    ),
    (
        0x5475_0109,
        "ProveInclusion",
        &[
            QUERY,
            ("receipt", Kind::Bits256),
            ("index", Kind::Uint64),
            ("path", Kind::MaybeCell),
        ],
    ),
    (0x5475_0181, "Payout", PLAIN),
    (0x5475_0182, "Refunded", PLAIN),
    (
        0x5475_0183,
        "InclusionProven",
        &[
            QUERY,
            ("receipt", Kind::Bits256),
            ("index", Kind::Uint64),
            ("posted", Kind::Cell(POSTED)),
        ],
    ),
    (
        0x5475_0201,
        "List",
        &[
            QUERY,
            ("payout", Kind::Address),
            ("key", Kind::Bits256),
            ("endpoint", Kind::Bits256),
            ("offer", Kind::Cell(OFFER)),
        ],
    ),
    (0x5475_0202, "AddBond", PLAIN),
    (0x5475_0203, "StartExit", PLAIN),
    (0x5475_0204, "CancelExit", PLAIN),
    (0x5475_0205, "TakeBond", PLAIN),
    (
        0x5475_0206,
        "Equivocation",
        &[
            QUERY,
            ("key", Kind::Bits256),
            ("channel", Kind::Address),
            ("incarnation", Kind::Bits256),
            ("index", Kind::Uint64),
            ("first", Kind::Cell(CLAIM)),
            ("second", Kind::Cell(CLAIM)),
        ],
    ),
    (0x5475_0281, "BondPaid", PLAIN),
    (0x5475_0282, "Reward", PLAIN),
    (0x5475_0283, "Burnt", PLAIN),
    // The operation that wallets know, from TEP-74.
    (0xd532_76db, "Excess", PLAIN),
];

/// What a body that came back begins with.
const BOUNCED: u32 = 0xffff_ffff;

/// Reads a message.
///
/// # Errors
/// [`Error`] if the cell is no message.
pub fn show(message: &Cell) -> Result<ShownMessage, Error> {
    let parsed = message.parse::<OwnedMessage>()?;
    let body = CellBuilder::build_from(CellSlice::apply(&parsed.body)?)?;
    let standard = |address: &IntAddr| address.as_std().cloned();
    let mut shown = ShownMessage {
        from: None,
        to: None,
        value: Nanograms::ZERO,
        bounced: false,
        name: None,
        opcode: None,
        fields: Vec::new(),
    };
    match &parsed.info {
        MsgInfo::Int(info) => {
            shown.from = standard(&info.src);
            shown.to = standard(&info.dst);
            shown.bounced = info.bounced;
            let value = u64::try_from(info.value.tokens.into_inner()).ok();
            shown.value = value.and_then(Nanograms::new).ok_or(Error::IntOverflow)?;
        }
        MsgInfo::ExtIn(info) => shown.to = standard(&info.dst),
        MsgInfo::ExtOut(info) => shown.from = standard(&info.src),
    }
    let Ok(mut slice) = body.as_slice() else {
        return Ok(shown);
    };
    let Ok(first) = slice.load_u32() else {
        if body.bit_len() == 0 {
            shown.name = Some("Transfer");
        }
        return Ok(shown);
    };
    shown.opcode = Some(first);
    if shown.bounced && first == BOUNCED {
        // Only the first 256 bits of what was sent come back: the fields are not whole.
        shown.opcode = slice.load_u32().ok();
        shown.name = shown.opcode.and_then(operation).map(|(name, _)| name);
        return Ok(shown);
    }
    if let Some((name, layout)) = operation(first) {
        let mut fields = Vec::new();
        if read(&mut slice, layout, &mut fields).is_ok() && is_empty(&slice) {
            shown.name = Some(name);
            shown.fields = fields;
        }
    } else if first == 0 {
        shown.name = Some("Comment");
    }
    Ok(shown)
}

fn operation(opcode: u32) -> Option<(&'static str, Layout)> {
    let found = OPERATIONS.iter().find(|(number, _, _)| *number == opcode);
    found.map(|(_, name, layout)| (*name, *layout))
}

fn is_empty(slice: &CellSlice<'_>) -> bool {
    slice.is_data_empty() && slice.is_refs_empty()
}

fn read(
    slice: &mut CellSlice<'_>,
    layout: Layout,
    fields: &mut Vec<(&'static str, String)>,
) -> Result<(), Error> {
    for (name, kind) in layout {
        let text = match kind {
            Kind::Bool => slice.load_bit()?.to_string(),
            Kind::Uint32 => slice.load_u32()?.to_string(),
            Kind::Uint64 => slice.load_u64()?.to_string(),
            Kind::Bits256 => hex(&bits::<32>(slice)?),
            Kind::Bits512 => hex(&bits::<64>(slice)?),
            Kind::Coins => {
                let tokens = tycho_types::num::Tokens::load_from(slice)?;
                tokens.into_inner().to_string()
            }
            Kind::Address => StdAddr::load_from(slice)?.to_string(),
            Kind::MaybeCell => match slice.load_bit()? {
                true => slice.load_reference()?.repr_hash().to_string(),
                false => "none".to_owned(),
            },
            Kind::Cell(inside) => {
                let mut own = slice.load_reference_as_slice()?;
                read(&mut own, inside, fields)?;
                if !is_empty(&own) {
                    return Err(Error::InvalidData);
                }
                continue;
            }
        };
        fields.push((name, text));
    }
    Ok(())
}

fn bits<const N: usize>(slice: &mut CellSlice<'_>) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let count = u16::try_from(N * 8).map_err(|_| Error::CellOverflow)?;
    slice.load_raw(&mut bytes, count)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::embedded::external_message;
    use crate::channel;

    fn shown(body: &Cell) -> ShownMessage {
        let to = StdAddr::new(0, tycho_types::cell::HashBytes([7; 32]));
        show(&external_message(&to, None, body).unwrap()).unwrap()
    }

    #[test]
    fn a_message_is_shown_by_its_name_and_fields() {
        let open = shown(&channel::open(5, [9; 32], 1_800_000_000));
        assert_eq!(open.name, Some("Open"));
        let expected = [
            ("query_id", "5".to_owned()),
            ("random", "09".repeat(32)),
            ("expires_at", "1800000000".to_owned()),
        ];
        assert_eq!(open.fields, expected);
        assert_eq!(shown(&channel::top_up(1)).name, Some("TopUp"));
        assert_eq!(shown(&Cell::default()).name, Some("Transfer"));
    }

    #[test]
    fn what_does_not_fit_has_no_name() {
        let mut long = CellBuilder::new();
        let plain = channel::refund(1);
        long.store_slice(plain.as_slice().unwrap()).unwrap();
        long.store_bit_one().unwrap();
        let long = shown(&long.build().unwrap());
        assert_eq!((long.name, long.opcode), (None, Some(0x5475_0107)));
        assert!(long.fields.is_empty());
    }

    /// The names and numbers are those of the contracts' source.
    #[test]
    fn every_operation_of_the_source_is_here() {
        let source = include_str!("../../contracts/messages.tolk");
        let mut found = 0;
        for line in source.lines() {
            let Some(rest) = line.strip_prefix("struct (0x") else {
                continue;
            };
            let (number, rest) = rest.split_once(") ").unwrap();
            let number = u32::from_str_radix(number, 16).unwrap();
            let name = rest.split([' ', '{']).next().unwrap();
            assert_eq!(operation(number).map(|(name, _)| name), Some(name));
            found += 1;
        }
        assert_eq!(found, OPERATIONS.len());
    }
}
