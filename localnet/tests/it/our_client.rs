//! `Toncenter`, our own client, sees over HTTP what the chain has.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::Runtime;
use tussah_localnet::{Network, developer, giver};
use tussah_manifest::{Digest, Nanograms};
use tussah_settlement::chain::embedded::external_message;
use tussah_settlement::chain::{EmbeddedChain, Toncenter, ToncenterConfig};
use tussah_settlement::channel::{self, ChannelState, ProviderSide, Terms};
use tussah_settlement::voucher::NetworkId;
use tussah_settlement::wallet::OutMessage;
use tussah_settlement::{Address, Cell, Chain, StackValue};
use tycho_types::boc::Boc;

use crate::fixture::*;

/// Everything that `Chain` answers about these accounts, as text.
async fn all(chain: &impl Chain, accounts: &[Address], channel: &Address) -> Vec<String> {
    let mut answers = vec![format!("{:?}", chain.network())];
    answers.push(format!("{:?}", chain.time().await.unwrap()));
    for address in accounts {
        answers.push(format!("{:?}", chain.account(address).await.unwrap()));
        let transactions = chain.transactions(address, 0).await.unwrap();
        if let Some(first) = transactions.first() {
            let later = chain.transactions(address, first.lt).await.unwrap();
            assert_eq!(later, transactions[1..]);
        }
        answers.push(format!("{transactions:?}"));
        for method in [
            "seqno",
            "get_public_key",
            "get_plugin_list",
            ChannelState::METHOD,
        ] {
            let answer = chain.run_get_method(address, method, Vec::new()).await;
            answers.push(format!("{method}: {answer:?}"));
        }
    }
    // With arguments of every kind; there is no receipt, so there is no proof of one.
    let receipt = Digest::of(b"none");
    for path in [StackValue::Null, StackValue::Cell(Cell::default())] {
        let arguments = vec![
            StackValue::from_bytes32(receipt.as_bytes()),
            StackValue::from(0),
            path,
        ];
        let answer = chain
            .run_get_method(channel, "verify_inclusion", arguments)
            .await;
        answers.push(format!("{answer:?}"));
    }
    answers
}

/// The developer's wallet opens a channel with itself.
fn open_channel(server: &Running) -> Address {
    let (wallet, key) = developer();
    let terms = Terms {
        client: wallet.address(),
        owner: wallet.address(),
        client_key: key.public_key(),
        challenge_seconds: 600,
        redeem_step_min: Nanograms::new(10_000_000).unwrap(),
        salt: 1,
    };
    let side = ProviderSide {
        key: key.public_key(),
        payout: wallet.address(),
    };
    let message = OutMessage {
        to: channel::address(&terms, &side),
        value: Nanograms::new(2 * GRAM).unwrap(),
        bounce: true,
        init: Some(channel::state_init(&terms, &side)),
        body: channel::open(1, [9; 32], START + 86_400),
    };
    let to = message.to.clone();
    let body = wallet.transfer(&key, server.seqno(), u32::MAX, &[message]);
    let message = external_message(&wallet.address(), None, &body.unwrap()).unwrap();
    let boc = base64(&Boc::encode(message));
    server.ask("sendBoc", serde_json::json!({ "boc": boc }));
    to
}

#[test]
fn our_client_sees_what_the_chain_has() {
    let folder = tempfile::tempdir().unwrap();
    let server = Running::in_folder(folder.path());
    let channel = open_channel(&server);
    // More than a page of transactions.
    for _ in 0..40 {
        server.pay(&stranger(1), GRAM, Cell::default());
    }
    let accounts = [
        developer().0.address(),
        giver().0.address(),
        stranger(1),
        stranger(2),
        channel.clone(),
    ];
    let runtime = Runtime::new().unwrap();
    let run =
        |future: std::pin::Pin<Box<dyn Future<Output = Vec<String>>>>| runtime.block_on(future);
    let url = format!("http://{}/api/v2", server.address);
    let mut config = ToncenterConfig::new(url, None);
    config.pause = Duration::ZERO;
    config.network = Some(NetworkId::LOCALNET);
    let client = runtime.block_on(Toncenter::connect(config)).unwrap();
    let stale = transfer(0, &stranger(3), GRAM, Cell::default());
    let stale = Boc::decode_base64(stale).unwrap();
    let refused = runtime.block_on(client.send_boc(stale)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the message was not accepted: exit code 133"
    );
    let (asked, of) = (accounts.clone(), channel.clone());
    let over_http = run(Box::pin(async move { all(&client, &asked, &of).await }));
    server.stop();
    let network = Network::open(folder.path(), Box::new(|| START)).unwrap();
    let chain = EmbeddedChain::restore(&network.chain().save().unwrap()).unwrap();
    let chain = Mutex::new(chain);
    let direct = run(Box::pin(
        async move { all(&chain, &accounts, &channel).await },
    ));
    assert_eq!(over_http, direct);
}
