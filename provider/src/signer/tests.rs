//! What the signer signs and what not, as the gateway sees it: over its socket.

use std::{cell::RefCell, rc::Rc};

use tokio::io::duplex;
use tussah_manifest::{
    Determinism, Domain, ExitStatus, Nanograms, Nonce, PublicKey, Signature, Version,
};

use super::*;
use crate::fixture::{PRICE_MAX, body, evidence, key};

/// A ledger on paper; `None` cannot be read.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Option<BTreeMap<Digest, KnownJob>>>>);

impl Jobs for Paper {
    fn job(&mut self, id: &Digest) -> Result<Option<KnownJob>, JobsError> {
        let jobs = self.0.borrow();
        let jobs = jobs.as_ref().ok_or(JobsError {
            message: "no disk".to_owned(),
            is_damaged: false,
        })?;
        Ok(jobs.get(id).cloned())
    }
}

fn consensus(body: &RequestBody) -> Consensus {
    Consensus {
        version: Version::V1,
        job: body.job_id(),
        module: body.module,
        manifest: body.manifest,
        models: BTreeMap::new(),
        output: Digest::salted(&body.nonce.derive_salt(), Domain::Output, b"output"),
        exit: ExitStatus::Done,
        determinism: Determinism::Exact,
        profile: Digest::of(b"profile"),
        fuel_used: 1,
        inference_units_used: 0,
        price_nanograms: Nanograms::new(PRICE_MAX).unwrap(),
        channel: body.channel,
    }
}

impl Paper {
    /// One that knows these jobs.
    fn knowing(bodies: &[&RequestBody]) -> Self {
        let known = bodies.iter().map(|body| {
            let request = (*body).clone().sign(&key(1)).unwrap().to_bytes();
            let known = KnownJob {
                request,
                finished: false,
                receipt: None,
                opening: None,
            };
            (body.job_id(), known)
        });
        Self(Rc::new(RefCell::new(Some(known.collect()))))
    }

    fn change(&self, job: &Digest, change: impl FnOnce(&mut KnownJob)) {
        let mut jobs = self.0.borrow_mut();
        change(jobs.as_mut().unwrap().get_mut(job).unwrap());
    }
}

fn signer(paper: &Paper) -> Signer<Paper> {
    Signer::new(key(2), key(1), paper.clone())
}

fn sign(
    signer: &mut Signer<Paper>,
    consensus: &Consensus,
    evidence: &Evidence,
) -> Result<Receipt, Denial> {
    let bytes = signer.sign_receipt(&consensus.to_bytes(), &evidence.to_bytes())?;
    Ok(Receipt::from_verified_bytes(&bytes).unwrap())
}

#[test]
fn over_a_socket_it_greets_and_answers_by_number_until_the_other_side_closes() {
    let paper = Paper::knowing(&[&body(1)]);
    let (ours, theirs) = duplex(1 << 16);
    let (their_reader, their_writer) = tokio::io::split(theirs);
    let (our_reader, our_writer) = tokio::io::split(ours);
    let gateway = async {
        let mut reader = FrameReader::<_, FromSigner>::new(our_reader);
        let mut writer = FrameWriter::new(our_writer);
        let Some(FromSigner::Hello(hello)) = reader.read().await.unwrap() else {
            panic!("no hello");
        };
        let provider = PublicKey::from_bytes(hello.provider_key).unwrap();
        assert_eq!(provider, key(2).public_key());
        assert_eq!(&hello.client_key, key(1).public_key().as_bytes());
        let body = body(9);
        let ask = ToSigner::SignRequest {
            id: 7,
            body: Content(body.to_bytes()),
        };
        writer.write(&ask).await.unwrap();
        let Some(FromSigner::Signed { id: 7, document }) = reader.read().await.unwrap() else {
            panic!("not signed");
        };
        let request = Request::from_bytes(&document.0).unwrap();
        request.verify().unwrap();
        assert_eq!(request.body, body);
        let ask = ToSigner::SignReceipt {
            id: 8,
            consensus: Content(consensus(&body).to_bytes()),
            evidence: Content(evidence(1).to_bytes()),
        };
        writer.write(&ask).await.unwrap();
        let denied = FromSigner::Denied {
            id: 8,
            denial: Denial::UnknownJob,
        };
        assert_eq!(reader.read().await.unwrap(), Some(denied));
        writer.close().await.unwrap();
    };
    let served = signer(&paper).serve(their_reader, their_writer);
    let executor = tokio::runtime::Builder::new_current_thread().build();
    let (served, ()) = executor
        .unwrap()
        .block_on(async { tokio::join!(served, gateway) });
    served.unwrap();
}

#[test]
fn a_request_is_signed_for_its_own_client_and_no_channel() {
    let mut signer = signer(&Paper::default());
    let mut sign = |body: &RequestBody| signer.sign_request(&body.to_bytes());
    assert!(sign(&body(1)).is_ok());
    let other = RequestBody {
        client_key: key(3).public_key(),
        ..body(1)
    };
    assert_eq!(sign(&other), Err(Denial::OtherClient));
    let address = format!("0:{}", "11".repeat(32)).parse().unwrap();
    let paid = RequestBody {
        channel: Channel::Ton { address, index: 1 },
        ..body(1)
    };
    assert_eq!(sign(&paid), Err(Denial::Channel));
    for bytes in [
        &b""[..],
        b"\xff",
        &body(1).sign(&key(1)).unwrap().to_bytes(),
    ] {
        let found = signer.sign_request(bytes);
        assert!(matches!(found, Err(Denial::Malformed { .. })), "{found:?}");
    }
}

#[test]
fn an_account_is_signed_as_it_was_requested_and_not_otherwise() {
    let body = body(1);
    let paper = Paper::knowing(&[&body]);
    let other = |field: &str| Denial::OtherThanRequested {
        field: field.to_owned(),
    };
    let good = consensus(&body);
    let address = format!("0:{}", "11".repeat(32)).parse().unwrap();
    let cases = [
        (
            Consensus {
                module: Digest::of(b"other"),
                ..good.clone()
            },
            other("module"),
        ),
        (
            Consensus {
                manifest: Digest::of(b"other"),
                ..good.clone()
            },
            other("manifest"),
        ),
        (
            Consensus {
                channel: Channel::Ton { address, index: 1 },
                ..good.clone()
            },
            other("channel"),
        ),
        (
            Consensus {
                price_nanograms: Nanograms::new(PRICE_MAX + 1).unwrap(),
                ..good.clone()
            },
            Denial::OverCap {
                price: PRICE_MAX + 1,
                cap: PRICE_MAX,
            },
        ),
        (
            Consensus {
                job: Digest::of(b"other"),
                ..good.clone()
            },
            Denial::UnknownJob,
        ),
    ];
    let mut signer = signer(&paper);
    for (account, expected) in cases {
        assert_eq!(sign(&mut signer, &account, &evidence(1)), Err(expected));
    }
    // What was denied left no trace.
    let receipt = sign(&mut signer, &good, &evidence(1)).unwrap();
    assert_eq!(receipt.consensus, good);
    assert_eq!(receipt.provider_key, key(2).public_key());
}

#[test]
fn a_job_has_one_receipt() {
    let body = body(1);
    let (paper, account) = (Paper::knowing(&[&body]), consensus(&body));
    let mut first = signer(&paper);
    let receipt = sign(&mut first, &account, &evidence(1)).unwrap();
    // The store was full: the gateway asks for the same again, and must not get another.
    assert_eq!(sign(&mut first, &account, &evidence(1)), Ok(receipt));
    assert_eq!(
        sign(&mut first, &account, &evidence(2)),
        Err(Denial::OtherAccount)
    );
    // The daemon died before it stored the first: nobody has that one, and the job ran again.
    let mut second = signer(&paper);
    sign(&mut second, &account, &evidence(2)).unwrap();
    paper.change(&body.job_id(), |job| job.finished = true);
    assert_eq!(
        sign(&mut second, &account, &evidence(2)),
        Err(Denial::Finished)
    );
    assert_eq!(
        sign(&mut signer(&paper), &account, &evidence(2)),
        Err(Denial::Finished)
    );
}

#[test]
fn a_ledger_that_cannot_be_believed_gives_no_receipt() {
    let body = body(1);
    let account = consensus(&body);
    let forged = Request {
        body: body.clone(),
        signature: Signature::from_bytes([7; 64]),
    };
    let others = crate::fixture::body(2).sign(&key(1)).unwrap();
    for (request, expected) in [
        (b"no request".to_vec(), "the request of"),
        (forged.to_bytes(), "signature"),
        (others.to_bytes(), "another job's"),
    ] {
        let paper = Paper::knowing(&[&body]);
        paper.change(&body.job_id(), |job| job.request = request);
        let denial = sign(&mut signer(&paper), &account, &evidence(1)).unwrap_err();
        assert!(matches!(denial, Denial::Damaged { .. }), "{denial:?}");
        assert!(denial.to_string().contains(expected), "{denial}");
    }
    let denial = sign(&mut signer(&Paper::default()), &account, &evidence(1)).unwrap_err();
    assert_eq!(denial.to_string(), "the ledger cannot be read: no disk");
}

#[test]
fn what_has_finished_is_forgotten_and_what_has_not_is_kept() {
    let bodies: Vec<RequestBody> = (0..=REMEMBERED_MAX)
        .map(|at| RequestBody {
            nonce: Nonce::from_bytes(*Digest::of(&at.to_le_bytes()).as_bytes()),
            ..body(0)
        })
        .collect();
    let paper = Paper::knowing(&bodies.iter().collect::<Vec<_>>());
    let mut signer = signer(&paper);
    for body in &bodies[..REMEMBERED_MAX] {
        sign(&mut signer, &consensus(body), &evidence(1)).unwrap();
    }
    for body in &bodies[1..REMEMBERED_MAX] {
        paper.change(&body.job_id(), |job| job.finished = true);
    }
    sign(
        &mut signer,
        &consensus(&bodies[REMEMBERED_MAX]),
        &evidence(1),
    )
    .unwrap();
    // One that has finished made room for it.
    assert_eq!(signer.signed.len(), REMEMBERED_MAX);
    let again = sign(&mut signer, &consensus(&bodies[0]), &evidence(2));
    assert_eq!(again, Err(Denial::OtherAccount));
}

#[test]
fn a_job_that_vanishes_from_the_ledger_and_comes_back_gets_no_second_receipt() {
    let bodies: Vec<RequestBody> = (0..=REMEMBERED_MAX)
        .map(|at| RequestBody {
            nonce: Nonce::from_bytes(*Digest::of(&at.to_le_bytes()).as_bytes()),
            ..body(0)
        })
        .collect();
    let paper = Paper::knowing(&bodies.iter().collect::<Vec<_>>());
    let mut signer = signer(&paper);
    let (first, id) = (&bodies[0], bodies[0].job_id());
    for body in &bodies[..REMEMBERED_MAX] {
        sign(&mut signer, &consensus(body), &evidence(1)).unwrap();
    }
    let row = paper.0.borrow_mut().as_mut().unwrap().remove(&id);
    let last = &bodies[REMEMBERED_MAX];
    sign(&mut signer, &consensus(last), &evidence(1)).unwrap();
    (paper.0.borrow_mut().as_mut().unwrap()).insert(id, row.unwrap());
    let again = sign(&mut signer, &consensus(first), &evidence(2));
    assert_eq!(again, Err(Denial::OtherAccount));
}

/// A claim's bytes as a test would have them: of all that they are over.
fn test_claim(
    address: &ChannelAddress,
    index: u64,
    opening: &Opening,
    receipt: &Digest,
    key: &SigningKey,
) -> Option<Signature> {
    let bytes = format!("{address} {index} {opening:?} {receipt}");
    (address.workchain == 0).then(|| key.sign(&Digest::of(bytes.as_bytes())))
}

#[test]
fn a_claim_is_signed_for_the_receipt_that_the_ledger_has_and_no_other() {
    let address: ChannelAddress = format!("0:{}", "11".repeat(32)).parse().unwrap();
    let paid = RequestBody {
        channel: Channel::Ton { address, index: 7 },
        ..body(1)
    };
    let local = body(2);
    let opening = Opening {
        network: -3,
        incarnation: [5; 32],
    };
    let paper = Paper::knowing(&[&paid, &local]);
    let (job, unpaid) = (paid.job_id(), local.job_id());
    let receipt_of = |body: &RequestBody, signer: u8| {
        let receipt = Receipt::sign(consensus(body), evidence(1), &key(signer)).unwrap();
        (receipt.digest(), receipt.to_bytes())
    };
    let mut without = signer(&paper);
    assert_eq!(without.sign_claim(&job, &opening), Err(Denial::NoChannel));
    let mut signer = signer(&paper).with_claims(test_claim);
    let unknown = Digest::of(b"unknown");
    assert_eq!(
        signer.sign_claim(&unknown, &opening),
        Err(Denial::UnknownJob)
    );
    // Accepted, and even signed, is not on the disk.
    assert!(sign(&mut signer, &consensus(&paid), &evidence(1)).is_ok());
    assert_eq!(signer.sign_claim(&job, &opening), Err(Denial::NoReceipt));
    let (_, forged) = receipt_of(&paid, 5);
    let (_, of_another_job) = receipt_of(&local, 2);
    for wrong in [forged, of_another_job] {
        paper.change(&job, |known| known.receipt = Some(wrong.clone()));
        let field = "job".to_owned();
        let denied = Denial::OtherThanRequested { field };
        assert_eq!(signer.sign_claim(&job, &opening), Err(denied));
    }
    let (digest, bytes) = receipt_of(&paid, 2);
    paper.change(&job, |known| known.receipt = Some(bytes.clone()));
    let signed = signer.sign_claim(&job, &opening).unwrap();
    let expected = test_claim(&address, 7, &opening, &digest, &key(2)).unwrap();
    assert_eq!(signed, expected.as_bytes());
    assert_eq!(signer.sign_claim(&job, &opening).unwrap(), signed);
    // A place of another opening is another place, which may be another job's.
    let other = Opening {
        incarnation: [6; 32],
        ..opening
    };
    paper.change(&job, |known| known.opening = Some(opening));
    let field = "opening".to_owned();
    let denied = Denial::OtherThanRequested { field };
    assert_eq!(signer.sign_claim(&job, &other), Err(denied));
    assert_eq!(signer.sign_claim(&job, &opening).unwrap(), signed);
    // What is on credit has no place.
    let (_, bytes) = receipt_of(&local, 2);
    paper.change(&unpaid, |known| known.receipt = Some(bytes.clone()));
    assert_eq!(signer.sign_claim(&unpaid, &opening), Err(Denial::NoChannel));
}
