//! `Channel`: where a job is paid, if anywhere. An address is carried, never interpreted here.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decode, Decoder};
use minicbor::encode::{Encode, Encoder, Write};
use serde::{Serialize, Serializer};

use crate::digest::{parse_hex, to_hex};
use crate::encoding::expect_array;

/// Where a job is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Channel {
    /// Nowhere: a run on one's own machine.
    Local,
    /// In a payment channel on TON.
    Ton {
        /// The channel's contract.
        address: ChannelAddress,
        /// The place of this job among the channel's receipts, from 0.
        #[serde(serialize_with = "crate::json::u64_string")]
        index: u64,
    },
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Ton { address, index } => write!(f, "{address} index {index}"),
        }
    }
}

// `[0]` or `[1, [workchain, account], index]`.
impl<C> Encode<C> for Channel {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Local => encoder.array(1)?.u8(0)?.ok(),
            Self::Ton { address, index } => {
                encoder.array(3)?.u8(1)?;
                address.encode(encoder, context)?;
                encoder.u64(*index)?.ok()
            }
        }
    }
}

impl<'b, C> Decode<'b, C> for Channel {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = decoder.position();
        let length = decoder.array()?;
        match (length, decoder.u64()?) {
            (Some(1), 0) => Ok(Self::Local),
            (Some(3), 1) => Ok(Self::Ton {
                address: ChannelAddress::decode(decoder, context)?,
                index: decoder.u64()?,
            }),
            _ => Err(minicbor::decode::Error::message("this is no channel").at(at)),
        }
    }
}

/// The raw address of a channel's contract. Prints and parses as `workchain:64 hex digits`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelAddress {
    /// 0 for the basechain, -1 for the masterchain.
    pub workchain: i32,
    /// The account's hash.
    pub account: [u8; 32],
}

impl fmt::Display for ChannelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.workchain, to_hex(&self.account))
    }
}

impl fmt::Debug for ChannelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChannelAddress {
    type Err = ChannelAddressError;

    fn from_str(text: &str) -> Result<Self, ChannelAddressError> {
        let (workchain, account) = text.split_once(':').ok_or(ChannelAddressError)?;
        let address = Self {
            workchain: workchain.parse().map_err(|_| ChannelAddressError)?,
            account: parse_hex(account).map_err(|_| ChannelAddressError)?,
        };
        // `+0` and `-00` parse as numbers, and one address has one spelling.
        if address.to_string() == text {
            Ok(address)
        } else {
            Err(ChannelAddressError)
        }
    }
}

/// The text is no raw address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a raw address is a workchain number, `:` and 64 lowercase hex digits, such as `0:83ae…`")]
pub struct ChannelAddressError;

impl Serialize for ChannelAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<C> Encode<C> for ChannelAddress {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder
            .array(2)?
            .i32(self.workchain)?
            .bytes(&self.account)?
            .ok()
    }
}

impl<'b, C> Decode<'b, C> for ChannelAddress {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        expect_array(decoder, 2)?;
        Ok(Self {
            workchain: decoder.i32()?,
            account: crate::encoding::decode_array(decoder)?,
        })
    }
}
