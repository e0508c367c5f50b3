//! `Toncenter`: a chain behind toncenter's HTTP API v2; a localnet, the test network, the main one.
//!
//! In: the root of such an API, an API key, the network that it must be. Out: what [`Chain`] asks
//! for. The server is not trusted further than it must be: every field is checked, sizes are
//! bounded, transactions are read from their cells and must form the account's own chain of
//! hashes. That the newest of them is the newest, and what a get-method answers, is its word.
//!
//! The interface is that of `toncenter/ton-http-api-cpp` (methods of `<root>/jsonRPC`).

mod answer;
mod http;
mod stack;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::{StateInit, StdAddr};
use zeroize::Zeroizing;

use self::answer::Reply;
use self::http::Http;
pub use self::http::{Destination, ToncenterError};
use crate::chain::clock::{Clock, SystemClock};
use crate::chain::describe::describe;
use crate::chain::{Account, AccountStatus, Chain, ChainError, StackValue, Transaction};
use crate::voucher::NetworkId;

/// Transactions asked for at once; servers allow 100. Fewer where an answer gets too large.
const PAGE: usize = 32;
/// Transactions that one call reads.
const TRANSACTIONS_MAX: usize = 20_000;
/// What servers answer where a get-method is asked of an account without code: liteservers the
/// first, tonlib the second; no code of a contract ends so.
const EXIT_NO_CODE: [i64; 2] = [-256, -13];

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct ToncenterConfig {
    /// The API's root, with `/api/v2`; https, or http on this machine.
    pub url: String,
    /// What the server knows us by; it never appears in errors.
    pub api_key: Option<Zeroizing<String>>,
    /// The network that it must be; nothing where the server's word is taken.
    pub network: Option<NetworkId>,
    /// How long one request may take, its answer included.
    pub timeout: Duration,
    /// From the start of one request to the start of the next.
    pub pause: Duration,
    /// How often a request is repeated that failed for a passing reason.
    pub retries: u32,
}

impl ToncenterConfig {
    /// The public server of the main network.
    pub const MAINNET: &str = "https://toncenter.com/api/v2";
    /// The public server of the test network.
    pub const TESTNET: &str = "https://testnet.toncenter.com/api/v2";

    /// The usual settings: requests within 20 seconds, five retries; one request a second, or
    /// ten with a key, as the public servers allow. A server on this machine sets no such limit.
    pub fn new(url: impl Into<String>, api_key: Option<Zeroizing<String>>) -> Self {
        let url = url.into();
        let pause = match (http::is_local(&url), &api_key) {
            (true, _) => Duration::ZERO,
            (false, Some(_)) => Duration::from_millis(100),
            (false, None) => Duration::from_secs(1),
        };
        Self {
            url,
            api_key,
            network: None,
            timeout: Duration::from_secs(20),
            pause,
            retries: 5,
        }
    }
}

/// A chain behind a server. Its calls need a tokio runtime with time and input/output.
#[derive(Debug)]
pub struct Toncenter<C: Clock = SystemClock> {
    http: Http<C>,
    network: NetworkId,
}

impl Toncenter {
    /// Asks the server which network it is.
    ///
    /// # Errors
    /// [`ToncenterError`] if it does not say, or is another than it must be.
    pub async fn connect(config: ToncenterConfig) -> Result<Self, ChainError> {
        Self::connect_with(config, SystemClock::default()).await
    }
}

impl<C: Clock> Toncenter<C> {
    /// The same, with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Toncenter::connect`].
    pub async fn connect_with(config: ToncenterConfig, clock: C) -> Result<Self, ChainError> {
        let expected = config.network;
        let http = Http::new(config, clock)?;
        let params = json!({ "config_id": 19 });
        let reply = http.call("getConfigParam", &params).await?;
        let answer = reply.result();
        let cell = answer.get("config")?.get("bytes")?.cell()?;
        let id = cell.as_slice().and_then(|mut slice| slice.load_u32());
        let found = NetworkId(
            id.map_err(|_| answer.wrong("32 bits of network id"))?
                .cast_signed(),
        );
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ToncenterError::OtherNetwork { expected, found }.into());
        }
        Ok(Self {
            http,
            network: found,
        })
    }

    async fn information(&self, address: &StdAddr) -> Result<Reply, ChainError> {
        let params = json!({ "address": address.to_string() });
        Ok(self.http.call("getAddressInformation", &params).await?)
    }

    /// Transactions from the given one back; each as its cell, after checks of what is beside it.
    async fn page(
        &self,
        address: &StdAddr,
        from: Option<Link>,
        count: usize,
    ) -> Result<Vec<Cell>, ChainError> {
        let mut params = json!({ "address": address.to_string(), "limit": count });
        if let Some(link) = from {
            params["lt"] = Value::String(link.lt.to_string());
            params["hash"] = Value::String(BASE64_STANDARD.encode(link.hash.0));
        }
        let reply = self.http.call("getTransactions", &params).await?;
        let mut cells = Vec::new();
        for entry in reply.result().items(count)? {
            let cell = entry.get("data")?.cell()?;
            let id = entry.get("transaction_id")?;
            if id.get("hash")?.bytes32()? != cell.repr_hash().0 {
                return Err(id.wrong("the hash of `data`").into());
            }
            cells.push(cell);
        }
        Ok(cells)
    }

    /// From the newest transaction back, until `after_lt` or `count_max` of them; the oldest
    /// first, and whether these are all.
    async fn walk(
        &self,
        address: &StdAddr,
        after_lt: u64,
        count_max: usize,
    ) -> Result<(Vec<Transaction>, bool), ChainError> {
        let (mut found, mut from, mut page_max) = (Vec::new(), None::<Link>, PAGE);
        while found.len() < count_max {
            let count = page_max.min(count_max - found.len());
            let page = match self.page(address, from, count).await {
                Err(ChainError::Toncenter(ToncenterError::TooLarge { .. })) if count > 1 => {
                    page_max = (count / 4).max(1);
                    continue;
                }
                page => page?,
            };
            if page.is_empty() {
                return match from {
                    None => Ok((found, true)),
                    Some(link) => Err(broken(address, link.lt)),
                };
            }
            for cell in page {
                let raw = cell.parse::<tycho_types::models::Transaction>()?;
                let is_next =
                    from.is_none_or(|link| (link.lt, &link.hash) == (raw.lt, cell.repr_hash()));
                if !is_next || raw.account != address.address || raw.prev_trans_lt >= raw.lt {
                    return Err(broken(address, from.map_or(raw.lt, |link| link.lt)));
                }
                if raw.lt > after_lt {
                    found.push(describe(address, &cell)?);
                }
                if raw.prev_trans_lt <= after_lt {
                    found.reverse();
                    return Ok((found, true));
                }
                from = Some(Link {
                    lt: raw.prev_trans_lt,
                    hash: raw.prev_trans_hash,
                });
            }
        }
        found.reverse();
        Ok((found, false))
    }
}

/// A transaction's place: each names the one before it.
#[derive(Debug, Clone, Copy)]
struct Link {
    lt: u64,
    hash: HashBytes,
}

impl<C: Clock> Chain for Toncenter<C> {
    fn network(&self) -> NetworkId {
        self.network
    }

    async fn time(&self) -> Result<u32, ChainError> {
        // The configuration's contract is on every network.
        let address = StdAddr::new(-1, HashBytes([0x55; 32]));
        let reply = self.information(&address).await?;
        let answer = reply.result();
        let time = answer.get("sync_utime")?;
        let seconds = u32::try_from(time.u64()?);
        Ok(seconds.map_err(|_| time.wrong("a second of the Unix epoch"))?)
    }

    async fn send_boc(&self, message: Cell) -> Result<(), ChainError> {
        let params = json!({ "boc": Boc::encode_base64(&message) });
        let (result, tries) = self.http.call_counted("sendBoc", &params).await;
        match result {
            Ok(_) => Ok(()),
            // A try before this one may have brought it through, whatever this one came to.
            Err(_) if tries > 1 => Ok(()),
            Err(ToncenterError::NotAccepted { exit_code }) => {
                Err(ChainError::NotAccepted { exit_code })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn account(&self, address: &StdAddr) -> Result<Account, ChainError> {
        let reply = self.information(address).await?;
        let answer = reply.result();
        let balance = answer.get("balance")?.nanograms()?;
        let last_lt = answer.get("last_transaction_id")?.get("lt")?.u64()?;
        let state = answer.get("state")?;
        let status = match state.str()? {
            "uninitialized" if last_lt == 0 && balance.get() == 0 => AccountStatus::Missing,
            "uninitialized" => AccountStatus::Uninit,
            "frozen" => AccountStatus::Frozen(answer.get("frozen_hash")?.bytes32()?),
            "active" => AccountStatus::Active(Box::new(StateInit {
                code: answer.get("code")?.maybe_cell()?,
                data: answer.get("data")?.maybe_cell()?,
                ..StateInit::default()
            })),
            _ => return Err(state.wrong("`active`, `uninitialized` or `frozen`").into()),
        };
        Ok(Account {
            balance,
            status,
            last_lt,
        })
    }

    async fn run_get_method(
        &self,
        address: &StdAddr,
        method: &str,
        arguments: Vec<StackValue>,
    ) -> Result<Vec<StackValue>, ChainError> {
        let stack = stack::write(&arguments);
        let params =
            json!({ "address": address.to_string(), "method": method, "stack": stack.values });
        let reply = self.http.call(stack.call, &params).await?;
        let answer = reply.result();
        let exit_code = answer.get("exit_code")?;
        match exit_code.i64()? {
            0 | 1 => Ok(stack::read(&answer.get("stack")?)?),
            code if EXIT_NO_CODE.contains(&code) => Err(ChainError::NoCode(address.clone())),
            code => Err(ChainError::GetMethod {
                method: method.to_owned(),
                exit_code: i32::try_from(code).map_err(|_| exit_code.wrong("an exit code"))?,
            }),
        }
    }

    async fn transactions(
        &self,
        address: &StdAddr,
        after_lt: u64,
    ) -> Result<Vec<Transaction>, ChainError> {
        match self.walk(address, after_lt, TRANSACTIONS_MAX).await? {
            (found, true) => Ok(found),
            (_, false) => Err(ToncenterError::TooMany {
                account: address.clone(),
                transactions_max: TRANSACTIONS_MAX,
            }
            .into()),
        }
    }

    async fn newest_transactions(
        &self,
        address: &StdAddr,
        after_lt: u64,
        count_max: usize,
    ) -> Result<Vec<Transaction>, ChainError> {
        Ok(self.walk(address, after_lt, count_max).await?.0)
    }
}

fn broken(account: &StdAddr, lt: u64) -> ChainError {
    let account = account.clone();
    ToncenterError::Broken { account, lt }.into()
}
