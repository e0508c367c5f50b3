//! The contracts' compiled code, and what their exit codes say.
//!
//! In: `contracts/compiled`, built into this crate. Out: code cells, errors by name.

use std::fmt;

use tycho_types::cell::Cell;

use crate::cells;

/// The code of `contracts/Channel.tolk`.
pub fn channel_code() -> Cell {
    cells::committed(include_bytes!("../../contracts/compiled/Channel.boc"))
}

/// The code of `contracts/Provider.tolk`.
pub fn provider_code() -> Cell {
    cells::committed(include_bytes!("../../contracts/compiled/Provider.boc"))
}

/// Declares the errors of `contracts/messages.tolk`, under the same names and numbers.
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a contract refused a message: its exit code by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ContractError {
            $($(#[$doc])* $name,)*
        }

        impl ContractError {
            /// The error with this exit code, if a contract of ours has one.
            pub const fn from_exit_code(code: i32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its exit code.
            pub const fn exit_code(self) -> i32 {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

errors! {
    /// The channel or provider is not in a state that takes this message.
    WrongState = 401,
    /// The deadline or the exit delay is not over.
    TooEarly = 402,
    /// The channel's deadline has passed.
    TooLate = 403,
    /// Only the client may send this.
    NotClient = 404,
    /// Only the provider may send this, or may send it now.
    NotOwner = 405,
    /// Terms that no channel or provider can have.
    BadTerms = 406,
    /// The message carries too little.
    NotEnoughValue = 407,
    /// Not the client's voucher for this channel, network and incarnation.
    BadClientSignature = 408,
    /// Not signed by the provider's present key.
    BadProviderSignature = 409,
    /// A smaller or a replayed voucher.
    AmountNotMore = 410,
    /// An external redeem that gains less than its minimum or its own gas.
    StepTooSmall = 411,
    /// A voucher over fewer receipts than those posted.
    CountWentBack = 412,
    /// Another root over as many receipts as those posted.
    RootChanged = 413,
    /// There is nothing to pay out.
    NothingOwed = 414,
    /// There is nothing to pay back.
    NothingToRefund = 415,
    /// The proof does not lead to the root.
    NotIncluded = 416,
    /// An external message with more in it than was signed.
    BulkyMessage = 417,
    /// The deposit has nothing left to credit.
    Underfunded = 418,
    /// Not a key that this provider answers for.
    UnknownKey = 419,
    /// The same receipt twice.
    NoEquivocation = 420,
    /// A claim that the key did not sign.
    BadClaimSignature = 421,
    /// Too many keys were retired within one exit delay.
    TooManyKeys = 422,
    /// No such message.
    UnknownMessage = 0xffff,
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} (exit code {})", self.exit_code())
    }
}
