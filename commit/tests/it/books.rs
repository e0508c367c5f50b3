//! What either book takes and refuses, as the other side would notice it.

use std::sync::Mutex;

use tussah_commit::{AdmitRules, ClientError, Delivery, ProviderError};
use tussah_manifest::{ExitStatus, Nanograms};
use tussah_settlement::provider::{self, Listing, Offer, ProviderState, ProviderTerms};
use tussah_settlement::voucher::{ChannelId, NetworkId, Voucher};
use tussah_settlement::{Chain, channel};

use crate::fixture::*;

#[test]
fn a_job_goes_from_request_to_voucher() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    for number in 0..5 {
        let index = client.next_index(id).unwrap();
        assert_eq!((index, provider.next_index(id).unwrap()), (number, number));
        let request = world.request(index, 0, 1_000);
        client.issue(id, &request).unwrap();
        let grant = provider.admit(id, &request, RULES).unwrap();
        assert_eq!((grant.index, grant.granted), (index, nano(1_000)));
        assert_eq!(grant.stop_at, EXPIRY - 600);
        let receipt = world.receipt(&request, 700);
        let claim = provider.finish(id, &receipt, &world.provider_key).unwrap();
        assert_eq!(client.deliver(id, &receipt, &claim).unwrap(), Delivery::New);
        assert_eq!(
            client.deliver(id, &receipt, &claim).unwrap(),
            Delivery::Known
        );
        let voucher = client
            .voucher(id, Nanograms::ZERO, &world.client_key)
            .unwrap();
        assert_eq!(provider.accept(id, &voucher).unwrap(), Nanograms::ZERO);
    }
    let (ours, theirs) = (client.view(id).unwrap(), provider.view(id).unwrap());
    assert_eq!(ours.commitment, theirs.commitment);
    assert_eq!(ours.commitment.receipts, 5);
    assert_eq!(theirs.vouchered(), nano(3_500));
    let (digest, commitment, proof) = client.prove_inclusion(id, 3, 5).unwrap();
    proof.verify(&digest, &commitment).unwrap();
    let older = client.prove_inclusion(id, 0, 2).unwrap().1;
    let proof = provider.prove_consistency(id, 2, 5).unwrap();
    proof.verify(&older, &commitment).unwrap();
}

#[test]
fn both_books_are_there_after_they_were_closed() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let id = world.id();
    let request = world.request(0, 0, 1_000);
    {
        let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
        client.issue(id, &request).unwrap();
        provider.admit(id, &request, RULES).unwrap();
    }
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    assert_eq!(client.outstanding(id).unwrap(), [(0, request.clone())]);
    let unfinished = provider.unfinished(id).unwrap();
    assert_eq!(unfinished.len(), 1);
    assert_eq!((unfinished[0].index, &unfinished[0].request), (0, &request));
    // The same request has its place; another one cannot have it, and nothing is next to a hole.
    let again = provider.admit(id, &request, RULES).unwrap();
    assert_eq!((again.index, again.granted), (0, nano(1_000)));
    let refused = provider.admit(id, &world.request(0, 1, 1_000), RULES);
    assert!(matches!(
        refused,
        Err(ProviderError::Taken { index: 0, .. })
    ));
    let refused = provider.admit(id, &world.request(2, 0, 1_000), RULES);
    assert!(matches!(
        refused,
        Err(ProviderError::NotNext { next: 1, asked: 2 })
    ));
    // A receipt of failure fills the place for nothing.
    let failed = receipt(&request, 0, ExitStatus::HostFailure, &world.provider_key);
    let claim = provider.finish(id, &failed, &world.provider_key).unwrap();
    client.deliver(id, &failed, &claim).unwrap();
    assert_eq!(provider.unfinished(id).unwrap(), []);
    assert_eq!(client.outstanding(id).unwrap(), []);
    assert_eq!(client.view(id).unwrap().commitment.receipts, 1);
}

#[test]
fn a_place_that_came_to_nothing_is_free_for_another_request() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let provider = world.provider(folder.path());
    let id = world.id();
    let [first, second] = [0, 1].map(|index| world.request(index, 0, 1_000));
    provider.admit(id, &first, RULES).unwrap();
    provider.admit(id, &second, RULES).unwrap();
    // What stands before others would leave a hole, and what is another job's is not given back.
    assert!(!provider.release(id, &first).unwrap());
    assert!(!provider.release(id, &world.request(1, 7, 1_000)).unwrap());
    assert_eq!(provider.next_index(id).unwrap(), 2);
    assert!(provider.release(id, &second).unwrap());
    assert!(!provider.release(id, &second).unwrap());
    assert_eq!(provider.view(id).unwrap().promised, nano(1_000));
    let other = world.request(1, 8, 2_000);
    assert_eq!(provider.admit(id, &other, RULES).unwrap().index, 1);
    // A place with its receipt is nobody's to give back.
    for request in [&first, &other] {
        let receipt = world.receipt(request, 10);
        provider.finish(id, &receipt, &world.provider_key).unwrap();
        assert!(!provider.release(id, request).unwrap());
    }
    assert_eq!(provider.view(id).unwrap().commitment.receipts, 2);
}

#[test]
fn receipts_wait_for_those_before_them() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    let requests: Vec<_> = (0..3).map(|index| world.request(index, 0, 1_000)).collect();
    for request in &requests {
        client.issue(id, request).unwrap();
        provider.admit(id, request, RULES).unwrap();
    }
    let finish = |index: usize| {
        let receipt = world.receipt(&requests[index], 10);
        provider.finish(id, &receipt, &world.provider_key).unwrap();
        provider.view(id).unwrap().commitment.receipts
    };
    assert_eq!([finish(2), finish(1), finish(0)], [0, 0, 3]);
    let deliveries = provider.deliveries(id, 0, 10).unwrap();
    let (third, claim) = &deliveries[2];
    let early = client.deliver(id, third, claim);
    assert!(matches!(
        early,
        Err(ClientError::NotNext { next: 0, asked: 2 })
    ));
    for (receipt, claim) in &deliveries {
        client.deliver(id, receipt, claim).unwrap();
    }
    let (ours, theirs) = (client.view(id).unwrap(), provider.view(id).unwrap());
    assert_eq!(ours.commitment, theirs.commitment);
}

#[test]
fn what_is_unpaid_stays_within_the_in_flight_maximum() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    let first = world.request(0, 0, IN_FLIGHT);
    client.issue(id, &first).unwrap();
    provider.admit(id, &first, RULES).unwrap();
    let second = world.request(1, 0, 1);
    client.issue(id, &second).unwrap();
    let refused = provider.admit(id, &second, RULES).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "1 nanograms more would leave 500000001 nanograms at risk, and the channel allows \
         500000000 nanograms: a voucher has to come first"
    );
    // Done and not vouchered is as much at risk as promised was.
    let receipt = world.receipt(&first, IN_FLIGHT);
    let claim = provider.finish(id, &receipt, &world.provider_key).unwrap();
    assert!(matches!(
        provider.admit(id, &second, RULES),
        Err(ProviderError::AtRisk { .. })
    ));
    client.deliver(id, &receipt, &claim).unwrap();
    let voucher = client
        .voucher(id, Nanograms::ZERO, &world.client_key)
        .unwrap();
    provider.accept(id, &voucher).unwrap();
    provider.admit(id, &second, RULES).unwrap();
}

#[test]
fn a_long_stream_is_paid_in_parts() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    // Four times the in-flight maximum, in grants of a quarter of it.
    let rules = AdmitRules {
        grant_max: nano(IN_FLIGHT / 4),
        ..RULES
    };
    let request = world.request(0, 0, 4 * IN_FLIGHT);
    client.issue(id, &request).unwrap();
    let mut granted = provider.admit(id, &request, rules).unwrap().granted.get();
    let mut vouchers = 0;
    while granted < 4 * IN_FLIGHT {
        match provider.extend(id, 0, nano(granted + IN_FLIGHT / 4), rules) {
            Ok(grant) => granted = grant.granted.get(),
            Err(ProviderError::AtRisk { .. }) => {
                // All that was granted is spent; the stream waits for this voucher.
                let part = client
                    .voucher(id, nano(granted), &world.client_key)
                    .unwrap();
                assert_eq!(provider.accept(id, &part).unwrap(), Nanograms::ZERO);
                vouchers += 1;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(provider.view(id).unwrap().at_risk() <= nano(IN_FLIGHT));
    }
    assert_eq!(vouchers, 3);
    let more = client.voucher(id, nano(4 * IN_FLIGHT + 1), &world.client_key);
    assert!(matches!(more, Err(ClientError::TooMuch { .. })));
    // It fails in the end: what was promised stays promised, and is used up by the next job.
    let failed = receipt(&request, 0, ExitStatus::DeviceLost, &world.provider_key);
    let claim = provider.finish(id, &failed, &world.provider_key).unwrap();
    client.deliver(id, &failed, &claim).unwrap();
    let voucher = client
        .voucher(id, Nanograms::ZERO, &world.client_key)
        .unwrap();
    assert_eq!(voucher.voucher.amount, nano(3 * IN_FLIGHT));
    provider.accept(id, &voucher).unwrap();
    assert_eq!(provider.view(id).unwrap().at_risk(), Nanograms::ZERO);
}

#[test]
fn vouchers_that_do_not_fit_change_nothing() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    for index in 0..2 {
        let request = world.request(index, 0, 1_000);
        client.issue(id, &request).unwrap();
        provider.admit(id, &request, RULES).unwrap();
        let receipt = world.receipt(&request, 1_000);
        let claim = provider.finish(id, &receipt, &world.provider_key).unwrap();
        client.deliver(id, &receipt, &claim).unwrap();
    }
    let good = client
        .voucher(id, Nanograms::ZERO, &world.client_key)
        .unwrap();
    let voucher = |change: &dyn Fn(&mut Voucher)| {
        let mut voucher = good.voucher.clone();
        change(&mut voucher);
        voucher.sign(&world.client_key)
    };
    let other_root = provider.prove_inclusion(id, 0, 1).unwrap().1.root;
    let refuse = |voucher, expected: &str| {
        let before = provider.view(id).unwrap();
        let refused = provider.accept(id, &voucher).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert_eq!(provider.view(id).unwrap(), before);
    };
    refuse(
        good.voucher.clone().sign(&world.provider_key),
        "signature is not",
    );
    refuse(
        voucher(&|v| v.channel.network = NetworkId::TESTNET),
        "not the channel",
    );
    refuse(
        voucher(&|v| v.channel.incarnation[0] ^= 1),
        "not the channel",
    );
    refuse(
        voucher(&|v| v.commitment.root = other_root),
        "over 2 receipts is not",
    );
    refuse(
        voucher(&|v| v.commitment.receipts = 3),
        "over 3 receipts is not",
    );
    provider.accept(id, &good).unwrap();
    refuse(
        voucher(&|v| v.amount = nano(1_999)),
        "an earlier one is for 2000",
    );
    let fewer = provider.prove_inclusion(id, 0, 1).unwrap().1;
    refuse(voucher(&|v| v.commitment = fewer), "over 1 receipts is not");
    assert_eq!(provider.accept(id, &good).unwrap(), Nanograms::ZERO);
}

/// The client paid ahead, the voucher was lost on its way, and the job failed. The next voucher is
/// for as much, though nothing is due; jobs to come use it up.
#[test]
fn what_was_paid_ahead_for_a_job_that_failed_is_taken_and_used_up() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    let first = world.request(0, 0, 1_000);
    client.issue(id, &first).unwrap();
    provider.admit(id, &first, RULES).unwrap();
    let lost = client.voucher(id, nano(1_000), &world.client_key).unwrap();
    let finish = |request, price| {
        let receipt = world.receipt(request, price);
        let claim = provider.finish(id, &receipt, &world.provider_key).unwrap();
        client.deliver(id, &receipt, &claim).unwrap();
        let voucher = client.voucher(id, Nanograms::ZERO, &world.client_key);
        voucher.unwrap()
    };
    let after = finish(&first, 0);
    assert_eq!(after.voucher.amount, lost.voucher.amount);
    assert_eq!(provider.accept(id, &after).unwrap(), Nanograms::ZERO);
    let second = world.request(1, 0, 900);
    client.issue(id, &second).unwrap();
    provider.admit(id, &second, RULES).unwrap();
    let after = finish(&second, 900);
    assert_eq!(after.voucher.amount, nano(1_000));
    assert_eq!(provider.accept(id, &after).unwrap(), Nanograms::ZERO);
    assert_eq!(provider.view(id).unwrap().earned, nano(900));
}

#[test]
fn receipts_that_were_not_asked_for_are_refused() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let client = world.client(folder.path());
    let id = world.id();
    let request = world.request(0, 0, 1_000);
    client.issue(id, &request).unwrap();
    let refuse = |receipt: tussah_manifest::Receipt, key, index, expected: &str| {
        let claim = id.claim(index, &receipt.digest(), key);
        let refused = client.deliver(id, &receipt, &claim).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert_eq!(client.view(id).unwrap().commitment.receipts, 0);
    };
    let (ours, other) = (&world.provider_key, &key(5));
    refuse(world.receipt(&request, 1_001), ours, 0, "costs more");
    refuse(
        world.receipt(&world.request(0, 1, 1_000), 5),
        ours,
        0,
        "asked for",
    );
    refuse(
        receipt(&request, 5, ExitStatus::Done, other),
        ours,
        0,
        "another key",
    );
    refuse(world.receipt(&request, 5), other, 0, "signature is not");
    refuse(world.receipt(&request, 5), ours, 1, "next index is 0");
    // A request that was refused can be replaced, and a late receipt of either is taken.
    client.issue(id, &world.request(0, 2, 900)).unwrap();
    assert_eq!(client.view(id).unwrap().promised, nano(900));
    let late = world.receipt(&request, 1_000);
    let claim = id.claim(0, &late.digest(), ours);
    assert_eq!(client.deliver(id, &late, &claim).unwrap(), Delivery::New);
}

#[test]
fn nothing_is_admitted_or_promised_beyond_the_deposit() {
    let world = World::open_with(GRAM / 4);
    let folder = tempfile::tempdir().unwrap();
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    let request = world.request(0, 0, GRAM / 4);
    let refused = client.issue(id, &request).unwrap_err();
    assert!(
        matches!(refused, ClientError::Underfunded { .. }),
        "{refused}"
    );
    let refused = provider.admit(id, &request, RULES).unwrap_err();
    assert!(
        matches!(refused, ProviderError::Underfunded { .. }),
        "{refused}"
    );
    let top_up = channel::top_up(1);
    world.deliver(&world.record.terms.client, GRAM, None, top_up);
    client.see(id, &world.look()).unwrap();
    wait(provider.see(&*world.chain, id)).unwrap();
    client.issue(id, &request).unwrap();
    provider.admit(id, &request, RULES).unwrap();
}

/// Rent goes on being due while nobody works; what was promised by then is still agreed on.
#[test]
fn a_promise_is_repeated_after_rent_has_eaten_into_the_deposit() {
    let world = World::open_with(GRAM / 4);
    let folder = tempfile::tempdir().unwrap();
    let client = world.client(folder.path());
    let id = world.id();
    let price = world.look().capacity.get();
    let request = world.request(0, 0, price);
    client.issue(id, &request).unwrap();
    let receipt = world.receipt(&request, price);
    let claim = id.claim(0, &receipt.digest(), &world.provider_key);
    client.deliver(id, &receipt, &claim).unwrap();
    let voucher = || client.voucher(id, Nanograms::ZERO, &world.client_key);
    let before = voucher().unwrap();
    world.advance(25 * 86_400);
    // Rent is taken with the next message.
    let stranger = &world.record.terms.owner;
    world.deliver(stranger, 200_000, None, channel::top_up(1));
    client.see(id, &world.look()).unwrap();
    assert!(client.view(id).unwrap().capacity < before.voucher.amount);
    assert_eq!(voucher().unwrap(), before);
    // Nothing more is promised.
    let refused = client.issue(id, &world.request(1, 0, 1)).unwrap_err();
    assert!(
        matches!(refused, ClientError::Underfunded { .. }),
        "{refused}"
    );
}

#[test]
fn jobs_stop_before_the_channel_ends() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let provider = world.provider(folder.path());
    let id = world.id();
    let running = world.request(0, 0, 10);
    provider.admit(id, &running, RULES).unwrap();
    world.advance(EXPIRY - 600 - START);
    let refused = provider.admit(id, &world.request(1, 0, 10), RULES);
    assert!(matches!(
        refused,
        Err(ProviderError::Ending {
            deadline: EXPIRY,
            ..
        })
    ));
    let refused = provider.extend(id, 0, nano(10), RULES);
    assert!(matches!(refused, Err(ProviderError::Ending { .. })));
    // What runs can still be finished, and a close that somebody started ends it sooner.
    let receipt = world.receipt(&running, 10);
    provider.finish(id, &receipt, &world.provider_key).unwrap();
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let provider = world.provider(folder.path());
    world.deliver(
        &world.record.terms.client,
        GRAM,
        None,
        channel::start_close(1),
    );
    wait(provider.see(&*world.chain, world.id())).unwrap();
    let refused = provider.admit(world.id(), &world.request(0, 0, 10), RULES);
    let Err(ProviderError::Ending { deadline, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(deadline, START + CHALLENGE);
}

#[test]
fn a_second_receipt_for_one_place_costs_the_bond() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let client = world.client(folder.path());
    let id = world.id();
    let request = world.request(0, 0, 1_000);
    client.issue(id, &request).unwrap();
    let claimed = |price| {
        let receipt = world.receipt(&request, price);
        let claim = id.claim(0, &receipt.digest(), &world.provider_key);
        (receipt, claim)
    };
    let (first, first_claim) = claimed(10);
    client.deliver(id, &first, &first_claim).unwrap();
    let (second, second_claim) = claimed(20);
    let refused = client.deliver(id, &second, &second_claim).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the provider claimed two different receipts for index 0: the proof is kept"
    );
    drop(client);
    let client = world.client(folder.path());
    let conflicts = client.conflicts(id).unwrap();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(client.view(id).unwrap().commitment.receipts, 1);

    // The provider's contract takes the proof and forfeits the stated half of the bond.
    let terms = ProviderTerms {
        owner: world.record.terms.owner.clone(),
        exit_seconds: 86_400,
        forfeit_permille: 500,
        salt: 1,
    };
    let (at, init) = (provider::address(&terms), provider::state_init(&terms));
    let listing = Listing {
        payout: world.record.side.payout.clone(),
        key: world.provider_key.public_key(),
        endpoint: [7; 32],
        offer: Offer {
            digest: tussah_manifest::Digest::of(b"offer"),
            attestation: tussah_manifest::Digest::from_bytes([0; 32]),
            fuel_price: nano(1),
            inference_price: nano(1),
        },
    };
    let (owner, prover) = (terms.owner.clone(), world.record.terms.client.clone());
    world.deliver_to(
        &at,
        &owner,
        GRAM / 10,
        Some(init),
        provider::list(1, &listing),
    );
    world.deliver_to(&at, &owner, 4 * GRAM, None, provider::add_bond(2));
    let state = || {
        let chain: &Mutex<_> = &world.chain;
        let answer = chain.run_get_method(&at, ProviderState::METHOD, Vec::new());
        ProviderState::from_stack(wait(answer).unwrap()).unwrap()
    };
    let bond = state().bond.get();
    world.deliver_to(&at, &prover, GRAM / 10, None, conflicts[0].message(3));
    assert_eq!(state().equivocations, 1);
    assert_eq!(state().bond.get(), bond - bond / 2);
}

#[test]
fn a_provider_signs_one_receipt_a_place() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let provider = world.provider(folder.path());
    let id = world.id();
    let request = world.request(0, 0, 1_000);
    provider.admit(id, &request, RULES).unwrap();
    let refuse = |receipt, expected: &str| {
        let refused = provider
            .finish(id, &receipt, &world.provider_key)
            .unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    };
    refuse(world.receipt(&world.request(0, 1, 5), 5), "another job's");
    refuse(
        world.receipt(&world.request(1, 0, 5), 5),
        "no job runs there",
    );
    refuse(world.receipt(&request, 1_001), "more than was granted");
    refuse(
        receipt(&request, 5, ExitStatus::Done, &key(5)),
        "another key",
    );
    let good = world.receipt(&request, 5);
    let claim = provider.finish(id, &good, &world.provider_key).unwrap();
    assert_eq!(
        provider.finish(id, &good, &world.provider_key).unwrap(),
        claim
    );
    refuse(world.receipt(&request, 6), "another receipt stands there");
}

/// A provider whose key is in another process: the book takes its word, and nobody else's.
#[test]
fn a_claim_that_was_signed_elsewhere_is_taken_for_its_receipt_and_place_alone() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    let request = world.request(0, 0, 1_000);
    client.issue(id, &request).unwrap();
    provider.admit(id, &request, RULES).unwrap();
    let good = world.receipt(&request, 5);
    let (digest, key_of) = (good.digest(), &world.provider_key);
    let other_opening = ChannelId {
        incarnation: [7; 32],
        ..id.clone()
    };
    for (claim, reason) in [
        (id.claim(1, &digest, key_of), "another place"),
        (
            id.claim(0, &world.receipt(&request, 6).digest(), key_of),
            "another receipt",
        ),
        (other_opening.claim(0, &digest, key_of), "another opening"),
        (id.claim(0, &digest, &key(5)), "another key"),
    ] {
        let refused = provider.finish_claimed(id, &good, &claim).unwrap_err();
        let words = "not the provider's word";
        assert!(refused.to_string().contains(words), "{reason}: {refused}");
    }
    assert_eq!(provider.finished(id, 0).unwrap(), None);
    let claim = id.claim(0, &digest, key_of);
    assert_eq!(provider.finish_claimed(id, &good, &claim).unwrap(), claim);
    assert_eq!(
        provider.finished(id, 0).unwrap(),
        Some((good.clone(), claim.clone()))
    );
    assert_eq!(client.deliver(id, &good, &claim).unwrap(), Delivery::New);
    // The same again is no second receipt.
    assert_eq!(provider.finish_claimed(id, &good, &claim).unwrap(), claim);
}
