//! Jobs at places of a channel, over a book on paper that refuses and forgets as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tussah_manifest::{Channel, ChannelAddress, Digest, ExitStatus, Receipt, Request};
use tussah_provider::gateway::{
    Ask, ClaimError, Gateway, JobEnd, PayError, Paymaster, PlaceClaim, PlaceGrant, PriceSheet,
    Standing, Submission, SubmitError, VoucherForm,
};
use tussah_provider::wire::Opening;

use crate::fixture::*;
use crate::gateway::{check, end_of, exit_of, house};
use crate::peer;

const OPENING: Opening = Opening {
    network: -3,
    incarnation: [5; 32],
};

/// A book that is not kept.
#[derive(Debug, Default)]
struct Paper {
    places: Mutex<BTreeMap<u64, Digest>>,
    claims: Mutex<BTreeMap<u64, PlaceClaim>>,
    /// What every request is answered.
    refusal: Mutex<Option<PayError>>,
    /// Whether receipts are not written down.
    is_full: Mutex<bool>,
    written: Notify,
}

fn index_of(channel: Channel) -> u64 {
    match channel {
        Channel::Ton { index, .. } => index,
        Channel::Local => panic!("no channel"),
    }
}

impl Paymaster for Paper {
    fn admit(&self, request: &Request) -> Result<PlaceGrant, PayError> {
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let index = index_of(request.body.channel);
        let mut places = self.places.lock().unwrap();
        places.insert(index, request.body.job_id());
        Ok(PlaceGrant {
            granted: request.body.price_nanograms_max,
            stop_at_unix_s: u32::MAX,
        })
    }

    fn opening(&self, _: &ChannelAddress) -> Result<Opening, PayError> {
        Ok(OPENING)
    }

    fn finish(&self, receipt: &Receipt, claim: &PlaceClaim) -> Result<(), PayError> {
        if *self.is_full.lock().unwrap() {
            return Err(PayError::Failed("no disk".to_owned()));
        }
        assert_eq!(claim.receipt, receipt.digest());
        self.claims.lock().unwrap().insert(claim.index, *claim);
        self.written.notify_one();
        Ok(())
    }

    fn claim(&self, _: &ChannelAddress, index: u64) -> Result<Option<PlaceClaim>, PayError> {
        Ok(self.claims.lock().unwrap().get(&index).copied())
    }

    fn unfinished(&self) -> Result<Vec<Digest>, PayError> {
        let claims = self.claims.lock().unwrap();
        let places = self.places.lock().unwrap();
        let missing = places
            .iter()
            .filter(|(index, _)| !claims.contains_key(index));
        Ok(missing.map(|(_, job)| *job).collect())
    }

    fn standing(&self, channel: &ChannelAddress) -> Result<Standing, PayError> {
        Err(PayError::NoChannel(*channel))
    }

    fn accept(&self, channel: &ChannelAddress, _: &VoucherForm) -> Result<(), PayError> {
        Err(PayError::NoChannel(*channel))
    }
}

async fn gateway(folder: &std::path::Path, book: &Arc<Paper>) -> Gateway {
    peer::gateway(folder, |config| {
        let book: Arc<dyn Paymaster> = book.clone();
        config.paymaster = Some(book);
        config.queue.queued_max = 1;
        config.prices = PriceSheet {
            base: nano(7),
            ..PriceSheet::default()
        };
    })
    .await
}

/// A job at a place, by a client with a key.
fn at(gateway: &Gateway, index: u64) -> Submission {
    let local = house(gateway, "hello", None);
    let mut body = request(index, &local.manifest, &local.input, 1_000).body;
    let address = format!("0:{}", "11".repeat(32)).parse().unwrap();
    body.channel = Channel::Ton { address, index };
    let request = body.sign(&client_key()).unwrap();
    Submission {
        ask: Ask::Signed(Box::new(request)),
        ..local
    }
}

#[test]
fn what_the_book_refuses_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let gateway = gateway(folder.path(), &book).await;
        for refusal in [
            PayError::Refused("a voucher has to come first".to_owned()),
            PayError::Failed("no disk".to_owned()),
        ] {
            *book.refusal.lock().unwrap() = Some(refusal.clone());
            // More often than there are places in the queue.
            for _ in 0..3 {
                let error = gateway.submit(at(&gateway, 0)).await.unwrap_err();
                assert!(
                    matches!(&error, SubmitError::Pay(found) if *found == refusal),
                    "{error}"
                );
            }
        }
        *book.refusal.lock().unwrap() = None;
        // What the ledger would refuse never reaches the book.
        let mut other = at(&gateway, 0);
        other.input = b"another".to_vec();
        assert!(gateway.submit(other).await.is_err());
        assert!(book.places.lock().unwrap().is_empty());
        assert_eq!(gateway.load(), (0, 0));
        let accepted = gateway.submit(at(&gateway, 0)).await.unwrap();
        assert!(!accepted.known);
        assert!(gateway.submit(at(&gateway, 0)).await.unwrap().known);
        assert!(matches!(
            gateway.claim(&accepted.id).await,
            Err(ClaimError::NoReceipt)
        ));
        accepted.leave();
        check(&gateway);
    });
}

#[test]
fn a_receipt_that_did_not_reach_the_book_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let first = gateway(folder.path(), &book).await;
        drop(peer::attach(&first));
        *book.is_full.lock().unwrap() = true;
        let mut ids = Vec::new();
        for index in 0..2 {
            let mut ticket = first.submit(at(&first, index)).await.unwrap();
            let end = end_of(&mut ticket).await;
            assert_eq!(exit_of(&end), ExitStatus::Done);
            ids.push(ticket.id);
            ticket.leave();
        }
        assert!(first.claim(&ids[0]).await.is_err());
        *book.is_full.lock().unwrap() = false;
        // Whoever asks for a claim has it made.
        let claim = first.claim(&ids[0]).await.unwrap();
        assert_eq!((claim.index, claim.opening), (0, OPENING));
        assert_eq!(first.claim(&ids[0]).await.unwrap(), claim);
        let key = provider_key().public_key();
        key.verify(&claim.receipt, &claim.signature).unwrap();
        assert_eq!(book.unfinished().unwrap(), [ids[1]]);
        // So does the next start.
        book.written.notified().await;
        drop(gateway(folder.path(), &book).await);
        book.written.notified().await;
        assert_eq!(book.unfinished().unwrap(), []);
        check(&first);
    });
}

#[test]
fn a_job_that_never_ran_has_a_receipt_at_its_place_that_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let gateway = gateway(folder.path(), &book).await;
        let mut ticket = gateway.submit(at(&gateway, 0)).await.unwrap();
        assert!(gateway.cancel(&ticket.id));
        let end = end_of(&mut ticket).await;
        assert_eq!(exit_of(&end), ExitStatus::Cancelled);
        let JobEnd::Receipt { receipt, .. } = end else {
            panic!("no receipt");
        };
        assert_eq!(receipt.consensus.price_nanograms, nano(0));
        let claim = gateway.claim(&ticket.id).await.unwrap();
        assert_eq!(claim.receipt, receipt.digest());
        assert_eq!(book.unfinished().unwrap(), []);
        check(&gateway);
    });
}
