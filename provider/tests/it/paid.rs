//! Jobs at places of a channel, over a book on paper that refuses and forgets as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tussah_manifest::{Channel, ChannelAddress, Digest, ExitStatus, Receipt, Request};
use tussah_provider::gateway::{
    Ask, ChannelCounts, ClaimError, Gateway, JobEnd, PayError, Paymaster, PlaceClaim, PlaceGrant,
    PriceSheet, Standing, Submission, SubmitError, VoucherForm,
};
use tussah_provider::ledger::LedgerError;
use tussah_provider::wire::Opening;

use crate::fixture::*;
use crate::gateway::{check, end_of, exit_of, house};
use crate::peer;

const OPENING: Opening = Opening {
    network: -3,
    incarnation: [5; 32],
};

/// An opening of the channel, and a place in it.
type Place = ([u8; 32], u64);

/// A book that is not kept.
#[derive(Debug, Default)]
struct Paper {
    places: Mutex<BTreeMap<Place, Digest>>,
    claims: Mutex<BTreeMap<Place, PlaceClaim>>,
    /// How often the channel was opened anew.
    openings: Mutex<u8>,
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

impl Paper {
    fn now(&self) -> Opening {
        let openings = *self.openings.lock().unwrap();
        Opening {
            incarnation: [5 + openings; 32],
            ..OPENING
        }
    }
}

impl Paymaster for Paper {
    fn admit(&self, request: &Request) -> Result<PlaceGrant, PayError> {
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        let index = index_of(request.body.channel);
        let (opening, job) = (self.now(), request.body.job_id());
        let mut places = self.places.lock().unwrap();
        let at = places.entry((opening.incarnation, index)).or_insert(job);
        if *at != job {
            return Err(PayError::Refused("the place is taken".to_owned()));
        }
        Ok(PlaceGrant {
            opening,
            granted: request.body.price_nanograms_max,
            stop_at_unix_s: u32::MAX,
        })
    }

    fn release(&self, request: &Request, opening: &Opening) -> Result<bool, PayError> {
        let place = (opening.incarnation, index_of(request.body.channel));
        let mut places = self.places.lock().unwrap();
        let has_it = places.get(&place) == Some(&request.body.job_id());
        if has_it {
            places.remove(&place);
        }
        Ok(has_it)
    }

    fn opening(&self, _: &ChannelAddress) -> Result<Opening, PayError> {
        Ok(self.now())
    }

    fn finish(&self, receipt: &Receipt, claim: &PlaceClaim) -> Result<(), PayError> {
        if *self.is_full.lock().unwrap() {
            return Err(PayError::Failed("no disk".to_owned()));
        }
        assert_eq!(claim.receipt, receipt.digest());
        let place = (claim.opening.incarnation, claim.index);
        self.claims.lock().unwrap().insert(place, *claim);
        self.written.notify_one();
        Ok(())
    }

    fn claim(
        &self,
        _: &ChannelAddress,
        opening: &Opening,
        index: u64,
    ) -> Result<Option<PlaceClaim>, PayError> {
        let claims = self.claims.lock().unwrap();
        Ok(claims.get(&(opening.incarnation, index)).copied())
    }

    fn unfinished(&self) -> Result<Vec<Digest>, PayError> {
        let claims = self.claims.lock().unwrap();
        let places = self.places.lock().unwrap();
        let missing = places
            .iter()
            .filter(|(place, _)| !claims.contains_key(place));
        Ok(missing.map(|(_, job)| *job).collect())
    }

    fn standing(&self, channel: &ChannelAddress) -> Result<Standing, PayError> {
        Err(PayError::NoChannel(*channel))
    }

    fn counts(&self) -> ChannelCounts {
        ChannelCounts::default()
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
    saying(gateway, index, "hello")
}

fn saying(gateway: &Gateway, index: u64, input: &str) -> Submission {
    let local = house(gateway, input, None);
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

#[test]
fn a_place_is_free_again_where_the_ledger_refused_its_job() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let gateway = gateway(folder.path(), &book).await;
        let ledger = rusqlite::Connection::open(folder.path().join("ledger.sqlite")).unwrap();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON jobs \
                      BEGIN SELECT RAISE(ABORT, 'no'); END";
        ledger.execute_batch(refuse).unwrap();
        let error = gateway.submit(at(&gateway, 0)).await.unwrap_err();
        assert!(matches!(error, SubmitError::Ledger(_)), "{error}");
        assert!(book.places.lock().unwrap().is_empty());
        ledger.execute_batch("DROP TRIGGER refuse").unwrap();
        let other = saying(&gateway, 0, "another job");
        let accepted = gateway.submit(other).await.unwrap();
        let job = accepted.id;
        accepted.leave();
        assert_eq!(book.unfinished().unwrap(), [job]);
        check(&gateway);
    });
}

#[test]
fn a_place_is_free_again_where_its_job_is_refused_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let gateway = gateway(folder.path(), &book).await;
        let mut late = at(&gateway, 0);
        let Ask::Signed(request) = &late.ask else {
            panic!("it is signed");
        };
        let request = (**request).clone();
        late.deadline_ms = Some(0);
        // The process ended once the book had it: the ledger has nothing.
        book.admit(&request).unwrap();
        // Only the request's own client may give it up.
        let mut forged = request.clone();
        let Ask::Signed(other) = saying(&gateway, 0, "another job").ask else {
            panic!("it is signed");
        };
        forged.signature = other.signature;
        let stranger = Submission {
            ask: Ask::Signed(Box::new(forged)),
            input: vec![0; 64 << 20],
            ..saying(&gateway, 0, "hello")
        };
        let error = gateway.submit(stranger).await.unwrap_err();
        assert!(
            matches!(error, SubmitError::InputTooLarge { .. }),
            "{error}"
        );
        assert_eq!(book.unfinished().unwrap(), [request.body.job_id()]);
        let error = gateway.submit(late).await.unwrap_err();
        assert!(matches!(error, SubmitError::Late), "{error}");
        assert_eq!(book.unfinished().unwrap(), []);
        let accepted = gateway.submit(saying(&gateway, 0, "another job")).await;
        let accepted = accepted.unwrap();
        assert!(!accepted.known);
        // What the ledger has is given up by no refusal.
        let mut again = saying(&gateway, 0, "another job");
        again.deadline_ms = Some(0);
        assert!(gateway.submit(again).await.unwrap().known);
        assert_eq!(book.unfinished().unwrap(), [accepted.id]);
        accepted.leave();
        check(&gateway);
    });
}

#[test]
fn a_channel_that_was_opened_anew_has_its_places_anew() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let gateway = gateway(folder.path(), &book).await;
        drop(peer::attach(&gateway));
        let mut claims = Vec::new();
        for (opening, input) in [(0, "first"), (1, "second")] {
            *book.openings.lock().unwrap() = opening;
            let mut ticket = gateway.submit(saying(&gateway, 0, input)).await.unwrap();
            end_of(&mut ticket).await;
            let claim = gateway.claim(&ticket.id).await.unwrap();
            assert_eq!(claim.opening, book.now());
            claims.push((ticket.id, claim));
            ticket.leave();
        }
        // Each job's claim is to its own receipt, also when its opening is over.
        for (job, claim) in &claims {
            assert_eq!(gateway.claim(job).await.unwrap(), *claim);
        }
        assert_ne!(claims[0].1.receipt, claims[1].1.receipt);
        // Within an opening a place is one job's, and the ledger says so before the book is asked.
        book.places.lock().unwrap().clear();
        let again = gateway.submit(saying(&gateway, 0, "third")).await;
        let again = again.unwrap_err();
        let is_taken = matches!(&again, SubmitError::Ledger(LedgerError::PlaceTaken(_)));
        assert!(is_taken, "{again}");
        assert!(book.places.lock().unwrap().is_empty());
        check(&gateway);
    });
}

#[test]
fn a_claim_to_another_receipt_is_not_given_out() {
    let folder = tempfile::tempdir().unwrap();
    wait(async {
        let book = Arc::new(Paper::default());
        let gateway = gateway(folder.path(), &book).await;
        drop(peer::attach(&gateway));
        let mut ticket = gateway.submit(at(&gateway, 0)).await.unwrap();
        end_of(&mut ticket).await;
        let claim = gateway.claim(&ticket.id).await.unwrap();
        let other = PlaceClaim {
            receipt: Digest::of(b"another receipt"),
            ..claim
        };
        let place = (OPENING.incarnation, 0);
        book.claims.lock().unwrap().insert(place, other);
        let error = gateway.claim(&ticket.id).await.unwrap_err();
        assert!(
            matches!(error, ClaimError::OtherReceipt { index: 0, .. }),
            "{error}"
        );
        ticket.leave();
    });
}
