//! What is said: to and from the worker, to and from the signer.
//!
//! Byte strings named after a document are its canonical encoding. What belongs to a client
//! (inputs, outputs, logs) is [`Content`], which shows nothing of itself when it is printed, so
//! that no log line can hold it.

use std::fmt;

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that are nobody's to print.
#[derive(Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Content(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// 32 secret bytes; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(transparent)]
pub struct Secret(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// From the gateway to the worker.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToWorker {
    /// The first message, once.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Run a job; many run at a time.
    #[n(1)]
    Run(#[n(0)] RunRequest),
    /// End a run; one that is unknown or over is left alone.
    #[n(2)]
    Cancel {
        /// Which.
        #[n(0)]
        run: u64,
    },
    /// Take no more runs, let those under way end, and close the connection.
    #[n(3)]
    Drain,
    /// Say that you are there.
    #[n(4)]
    Ping,
}

/// What a worker has to know before it can start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Authenticates compiled code and GPU kernels in the cache.
    #[n(0)]
    pub cache_key: Secret,
    /// The most runs at a time.
    #[n(1)]
    pub runs_max: u32,
}

/// A job to run. Module and models are read from the blob store by digest, and hashed again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RunRequest {
    /// The gateway's number for it, never used twice on one connection.
    #[n(0)]
    pub run: u64,
    /// A `Request`.
    #[n(1)]
    pub request: Content,
    /// A `Manifest`.
    #[n(2)]
    pub manifest: Content,
    /// The job's input.
    #[n(3)]
    pub input: Content,
    /// After so many milliseconds the run is cancelled, besides the manifest's own limit.
    #[n(4)]
    pub time_max_ms: Option<u64>,
}

/// From the worker to the gateway. A run has one `Started` before all else that is said of it, and
/// one `Done`, `Refused` or `Lost` after; what lies between comes in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FromWorker {
    /// The answer to the hello: runs are welcome.
    #[n(0)]
    Ready(#[n(0)] Ready),
    /// The job is verified and its code is ready; it runs from now on.
    #[n(1)]
    Started {
        /// Which run.
        #[n(0)]
        run: u64,
    },
    /// The job emitted output; at most [`super::CHUNK_BYTES_MAX`] at a time.
    #[n(2)]
    Output {
        /// Which run.
        #[n(0)]
        run: u64,
        /// What.
        #[n(1)]
        bytes: Content,
    },
    /// The job says how far it is.
    #[n(3)]
    Progress {
        /// Which run.
        #[n(0)]
        run: u64,
        /// Steps done.
        #[n(1)]
        done: u64,
        /// Steps in all, if it knows.
        #[n(2)]
        total: Option<u64>,
        /// What it is doing: UTF-8, the job's own words.
        #[n(3)]
        note: Content,
    },
    /// The job wrote to its log; at most [`super::CHUNK_BYTES_MAX`] at a time.
    #[n(4)]
    Log {
        /// Which run.
        #[n(0)]
        run: u64,
        /// What.
        #[n(1)]
        bytes: Content,
    },
    /// Tokens since the last message of this kind.
    #[n(5)]
    Tokens {
        /// Which run.
        #[n(0)]
        run: u64,
        /// Tokens of prompts that were read.
        #[n(1)]
        prompt: u64,
        /// Tokens that were generated.
        #[n(2)]
        generated: u64,
    },
    /// The run is over, and this is its account, unsigned.
    #[n(6)]
    Done(#[n(0)] Box<RunDone>),
    /// Nothing was run.
    #[n(7)]
    Refused(#[n(0)] RunRefused),
    /// Something that the provider should know and that fails nothing.
    #[n(8)]
    Warning {
        /// A line without content of a job.
        #[n(0)]
        text: String,
    },
    /// The run failed within this host, and there is no account of it: `crate::lost` makes one.
    #[n(9)]
    Lost {
        /// Which run.
        #[n(0)]
        run: u64,
        /// Why, for people.
        #[n(1)]
        message: String,
    },
    /// The answer to [`ToWorker::Ping`].
    #[n(10)]
    Pong,
}

impl FromWorker {
    /// The run that it is about.
    pub fn run(&self) -> Option<u64> {
        match self {
            Self::Started { run }
            | Self::Output { run, .. }
            | Self::Progress { run, .. }
            | Self::Log { run, .. }
            | Self::Tokens { run, .. }
            | Self::Lost { run, .. } => Some(*run),
            Self::Done(done) => Some(done.run),
            Self::Refused(refused) => Some(refused.run),
            Self::Ready(_) | Self::Warning { .. } | Self::Pong => None,
        }
    }
}

/// What a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ready {
    /// Where models run, for people: the GPU's name, or the CPU.
    #[n(0)]
    pub device: String,
    /// Memory that models can take there, if it is known.
    #[n(1)]
    pub memory_bytes: Option<u64>,
    /// What keeps the worker from the rest of this machine.
    #[n(2)]
    pub isolation: Isolation,
    /// A `Profile` as this worker's receipts have it, but for the limits, which are a job's own,
    /// and the arithmetic of graphs: for the account of a run that a dead worker cannot give.
    #[n(3)]
    pub profile: Content,
    /// An `Evidence` of nothing: this build, no time, no calls.
    #[n(4)]
    pub evidence: Content,
}

/// What keeps a worker from the rest of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Isolation {
    /// It sees the files that it needs and no others, and opens no TCP connection.
    #[n(0)]
    Full {
        /// The version of the kernel's interface that enforces it.
        #[n(0)]
        abi: u32,
    },
    /// The kernel enforces a part of it.
    #[n(1)]
    Partial {
        /// What is not enforced.
        #[n(0)]
        missing: String,
    },
    /// Nothing but the limits of any process.
    #[n(2)]
    None {
        /// Why.
        #[n(0)]
        reason: String,
    },
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { abi } => write!(f, "isolated by Landlock {abi} and seccomp"),
            Self::Partial { missing } => write!(f, "isolated in part: {missing}"),
            Self::None { reason } => write!(f, "not isolated: {reason}"),
        }
    }
}

/// The account of a run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RunDone {
    /// Which run.
    #[n(0)]
    pub run: u64,
    /// A `Consensus` with a price of 0: prices are the gateway's.
    #[n(1)]
    pub consensus: Content,
    /// An `Evidence`.
    #[n(2)]
    pub evidence: Content,
    /// An `Opening`.
    #[n(3)]
    pub opening: Content,
    /// What to tell its client about an end that is not done.
    #[n(4)]
    pub fault: Option<GuestFault>,
}

/// Why a run ended without being done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GuestFault {
    /// The job's own code, if it returned an error of its own.
    #[n(0)]
    pub code: Option<u32>,
    /// UTF-8: the job's own words if it returned an error, else ours.
    #[n(1)]
    pub message: Content,
}

/// Why nothing was run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RunRefused {
    /// Which run.
    #[n(0)]
    pub run: u64,
    /// Whose change would make a retry succeed.
    #[n(1)]
    pub fault: WhoseFault,
    /// The exit code that `tussah run` would have ended with.
    #[n(2)]
    pub exit_code: u8,
    /// Why, with its causes, for people.
    #[n(3)]
    pub message: String,
}

/// Whose change would make a retry succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum WhoseFault {
    /// The author of the module or its manifest.
    #[n(0)]
    Developer,
    /// Who submitted the job.
    #[n(1)]
    Client,
    /// The machine it should run on.
    #[n(2)]
    Provider,
}

/// From the gateway to the signer. Answers carry the number of what they answer, and come in
/// any order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToSigner {
    /// Sign a request of a client without a key of its own.
    #[n(0)]
    SignRequest {
        /// The gateway's number for this.
        #[n(0)]
        id: u64,
        /// A `RequestBody` with the signer's client key in it.
        #[n(1)]
        body: Content,
    },
    /// Sign the account of a job.
    #[n(1)]
    SignReceipt {
        /// The gateway's number for this.
        #[n(0)]
        id: u64,
        /// A `Consensus` with its price.
        #[n(1)]
        consensus: Content,
        /// An `Evidence`.
        #[n(2)]
        evidence: Content,
    },
    /// Sign the claim that a job's receipt, which the ledger has, is the one at its place in its
    /// channel.
    #[n(2)]
    SignClaim {
        /// The gateway's number for this.
        #[n(0)]
        id: u64,
        /// The job's id: 32 bytes.
        #[cbor(n(1), with = "minicbor::bytes")]
        job: [u8; 32],
        /// Which opening of the channel that its request names.
        #[n(2)]
        opening: Opening,
    },
    /// Sign that a client's voucher may be posted.
    #[n(3)]
    SignPosting {
        /// The gateway's number for this.
        #[n(0)]
        id: u64,
        /// Which voucher.
        #[n(1)]
        posting: Posting,
    },
}

/// A client's voucher, as it will be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Posting {
    /// The channel's workchain.
    #[n(0)]
    pub workchain: i32,
    /// The channel's account: 32 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub account: [u8; 32],
    /// Which opening of the channel.
    #[n(2)]
    pub opening: Opening,
    /// All that the client promises, in nanograms.
    #[n(3)]
    pub amount: u64,
    /// How many receipts it is over.
    #[n(4)]
    pub receipts: u64,
    /// The root over them: 32 bytes.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub root: [u8; 32],
}

/// What tells one opening of a channel from every other; its address is the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opening {
    /// The network's global id.
    #[n(0)]
    pub network: i32,
    /// As the contract states it: 32 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub incarnation: [u8; 32],
}

/// From the signer to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FromSigner {
    /// The first message, without being asked.
    #[n(0)]
    Hello(#[n(0)] SignerHello),
    /// Signed.
    #[n(1)]
    Signed {
        /// The number of what was asked.
        #[n(0)]
        id: u64,
        /// A `Request` or a `Receipt`, or the 64 bytes of the signature of a claim or a posting.
        #[n(1)]
        document: Content,
    },
    /// Not signed.
    #[n(2)]
    Denied {
        /// The number of what was asked.
        #[n(0)]
        id: u64,
        /// Why.
        #[n(1)]
        denial: Denial,
    },
}

/// Whose keys the signer holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignerHello {
    /// Signs receipts: 32 bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub provider_key: [u8; 32],
    /// Signs requests of clients without a key: 32 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub client_key: [u8; 32],
}

/// Why the signer did not sign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Denial {
    /// The bytes are not the document that they should be.
    #[error("what was to be signed is no such document: {message}")]
    #[n(0)]
    Malformed {
        /// What is wrong with them.
        #[n(0)]
        message: String,
    },
    /// A request in another client's name.
    #[error("the request names another client's key")]
    #[n(1)]
    OtherClient,
    /// A request that would be paid through a channel: this key signs none.
    #[error("the request is paid through a channel, which is for the client's own key to sign")]
    #[n(2)]
    Channel,
    /// The ledger knows no such job.
    #[error("the ledger knows no such job")]
    #[n(3)]
    UnknownJob,
    /// The job has its receipt.
    #[error("the job has its receipt already")]
    #[n(4)]
    Finished,
    /// The account says something else than the job's request.
    #[error("the account differs from the job's request in `{field}`")]
    #[n(5)]
    OtherThanRequested {
        /// The field's name.
        #[n(0)]
        field: String,
    },
    /// The price is above what the client pays at most.
    #[error("the price of {price} nanograms is above the request's cap of {cap}")]
    #[n(6)]
    OverCap {
        /// What it would cost.
        #[n(0)]
        price: u64,
        /// What the client pays.
        #[n(1)]
        cap: u64,
    },
    /// Another account of this job was signed before, and may have been stored.
    #[error("another account of this job was signed before")]
    #[n(7)]
    OtherAccount,
    /// A claim to the receipt of a job that has none.
    #[error("the ledger has no receipt of the job")]
    #[n(9)]
    NoReceipt,
    /// A claim to a place of no channel, or by a signer that signs none.
    #[error("the job is not paid through a channel that this signer signs for")]
    #[n(10)]
    NoChannel,
    /// The ledger cannot be read; it may be later.
    #[error("the ledger cannot be read: {message}")]
    #[n(8)]
    Ledger {
        /// Why.
        #[n(0)]
        message: String,
    },
    /// The job's row in the ledger is damaged, and another try will find it so.
    #[error("the ledger's row of the job is damaged: {message}")]
    #[n(11)]
    Damaged {
        /// What is wrong with it.
        #[n(0)]
        message: String,
    },
}
