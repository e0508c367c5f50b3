//! `tussah receipt verify --chain`: whether a receipt is in the root that its channel holds.
//!
//! In: a receipt, a chain, and the way up from the receipt to the root: from this host's book, or
//! from a file that somebody who has the book made. Out: what is posted, and the proof. What can
//! be computed here is: that the account runs the channel's code, and that the way leads to the
//! posted root. The contract is asked too, so that a defect here does not pass for a proof.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use tussah_commit::{ClientError, ProviderError, TreeError};
use tussah_manifest::{Channel, Commitment, Digest, InclusionProof, Receipt};
use tussah_settlement::channel::{ChannelState, verify_inclusion_arguments};
use tussah_settlement::voucher::ChannelId;
use tussah_settlement::{
    AccountStatus, Address, Chain, ContractError, FriendlyAddress, StackValue, channel_code,
};

use crate::{
    chain_option::{ApiKeyOption, ChainOption, OpenChain, block_on, chain_failure},
    channels::{Channels, client_failure, provider_failure},
    failure::Failure,
    home::Home,
    input,
};

/// More than `--json` prints of any receipt.
const PROOF_BYTES_MAX: u64 = 64 * 1024;

/// Where to look for the receipt.
#[derive(Debug, Args)]
pub(super) struct InclusionOption {
    /// The chain whose channel has to hold the receipt: `mainnet`, `testnet`, the URL of a
    /// toncenter API v2, or `embedded:FOLDER`. Without it only the signature is checked.
    #[arg(long, value_name = "CHAIN")]
    chain: Option<String>,
    #[command(flatten)]
    api_key: ApiKeyOption,
    /// What this command printed with --json where the channel's book is; this host's own book if
    /// not given.
    #[arg(long, value_name = "FILE", requires = "chain")]
    proof: Option<PathBuf>,
}

/// That a receipt is on chain, as `--json` shows it.
#[derive(Serialize)]
pub(super) struct Inclusion {
    pub(super) channel: String,
    pub(super) posted: Commitment,
    pub(super) proof: InclusionProof,
}

/// What of the same JSON is read again.
#[derive(Deserialize)]
struct ProofFile {
    inclusion: InclusionText,
}

#[derive(Deserialize)]
struct InclusionText {
    proof: ProofText,
}

#[derive(Deserialize)]
struct ProofText {
    index: String,
    receipts: String,
    path: Vec<String>,
}

impl InclusionOption {
    /// Looks for the receipt on chain, if that was asked for.
    ///
    /// # Errors
    /// A usage failure if nobody paid for it or there is no proof here, not verified if the chain
    /// does not hold it.
    pub(super) fn check(&self, receipt: &Receipt) -> Result<Option<Inclusion>, Failure> {
        let Some(chain) = &self.chain else {
            return Ok(None);
        };
        let Channel::Ton { address, index } = receipt.consensus.channel else {
            return Err(Failure::usage(
                "the receipt is of a local run: nobody paid for it, and no chain has it",
            ));
        };
        let address: Address = address.to_string().parse().map_err(|_| {
            Failure::not_verified(format!("the receipt's channel {address} is no account"))
        })?;
        let option = ChainOption::new(chain.clone(), self.api_key.clone());
        block_on(async {
            let chain = option.open().await?;
            let state = state(&chain, &address).await?;
            let posted = state.commitment;
            if index >= posted.receipts {
                let count = posted.receipts;
                let message =
                    format!("receipt {index} is not posted yet: the root is over {count}");
                return Err(Failure::not_verified(message)
                    .help("`tussah channel redeem` posts the newest root"));
            }
            let digest = receipt.digest();
            let proof = match &self.proof {
                Some(file) => read_proof(file)?,
                None => {
                    let id = ChannelId {
                        network: chain.network(),
                        address: address.clone(),
                        incarnation: state.incarnation,
                    };
                    prove(&id, index, posted.receipts, &digest)?
                }
            };
            if proof.index != index {
                let message = format!("the proof is of receipt {}, not {index}", proof.index);
                return Err(Failure::not_verified(message));
            }
            proof.verify(&digest, &posted).map_err(|error| {
                Failure::not_verified(error)
                    .context("the proof does not lead to the posted root")
                    .help("redeeming posts another root: make the proof anew")
            })?;
            ask(&chain, &address, &digest, &proof).await?;
            let channel = FriendlyAddress::contract(address, chain.network()).to_string();
            Ok(Some(Inclusion {
                channel,
                posted,
                proof,
            }))
        })
    }
}

/// The state of the channel at this address, which has to run the channel's code: any other could
/// answer whatever it likes.
async fn state(chain: &OpenChain, address: &Address) -> Result<ChannelState, Failure> {
    let account = chain.account(address).await.map_err(chain_failure)?;
    let code = match account.status {
        AccountStatus::Active(init) => init.code,
        _ => None,
    };
    if code.map(|code| *code.repr_hash()) != Some(*channel_code().repr_hash()) {
        let message = format!("there is no channel at {address} on this chain");
        return Err(Failure::not_verified(message));
    }
    let state = chain.run_get_method(address, ChannelState::METHOD, Vec::new());
    ChannelState::from_stack(state.await.map_err(chain_failure)?).map_err(chain_failure)
}

/// The proof by this host's book, whichever of the two has the channel.
fn prove(
    id: &ChannelId,
    index: u64,
    receipts: u64,
    digest: &Digest,
) -> Result<InclusionProof, Failure> {
    let no_book = || {
        Failure::usage("this host has no book of the receipt's channel")
            .help("have one of its two parties make the proof, and name it with --proof FILE")
    };
    let behind = |error: TreeError| match error {
        TreeError::Proof(error) => Failure::usage(error)
            .context("this host's book is behind the chain")
            .help("name a proof by the other party with --proof FILE"),
        error => Failure::host(error),
    };
    let home = Home::open()?;
    if !home.root().join("channels").exists() {
        return Err(no_book());
    }
    let channels = Channels::open(&home)?;
    let proven = match channels.client.prove_inclusion(id, index, receipts) {
        Err(ClientError::Unknown(_)) => {
            match channels.provider.prove_inclusion(id, index, receipts) {
                Err(ProviderError::Unknown(_)) => Err(no_book()),
                Err(ProviderError::Tree(error)) => Err(behind(error)),
                proven => proven.map_err(provider_failure),
            }
        }
        Err(ClientError::Tree(error)) => Err(behind(error)),
        proven => proven.map_err(client_failure),
    };
    let (held, _, proof) = proven?;
    if held != *digest {
        let message = format!("the channel's receipt {index} is another one, {held}");
        return Err(Failure::not_verified(message));
    }
    Ok(proof)
}

fn read_proof(path: &Path) -> Result<InclusionProof, Failure> {
    let bytes = input::bytes(path, PROOF_BYTES_MAX)?;
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::usage(error)
            .context(format!("{} holds no proof", path.display()))
            .help("make one with `tussah receipt verify FILE --chain CHAIN --json`")
    };
    let file: ProofFile = serde_json::from_slice(&bytes).map_err(|error| wrong(error.into()))?;
    let ProofText {
        index,
        receipts,
        path,
    } = file.inclusion.proof;
    let hashes = path.iter().map(|hash| hash.parse());
    Ok(InclusionProof {
        index: index.parse().map_err(|error| wrong(Box::new(error)))?,
        receipts: receipts.parse().map_err(|error| wrong(Box::new(error)))?,
        path: hashes
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(Box::new(error)))?,
    })
}

/// Has the contract find the receipt in its root.
async fn ask(
    chain: &OpenChain,
    address: &Address,
    digest: &Digest,
    proof: &InclusionProof,
) -> Result<(), Failure> {
    let arguments = verify_inclusion_arguments(digest, proof);
    let answer = chain.run_get_method(address, "verify_inclusion", arguments);
    let found = match answer.await {
        Ok(stack) => matches!(&stack[..], [StackValue::Int(yes)] if *yes == (-1).into()),
        Err(error) if error.contract_error() == Some(ContractError::NotIncluded) => false,
        Err(error) => return Err(chain_failure(error)),
    };
    if found {
        return Ok(());
    }
    let message = "the channel's contract does not find the receipt in its root";
    Err(Failure::not_verified(message))
}
