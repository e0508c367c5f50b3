//! Price sheets: what they may say, and whether a contract lists this one.

use tussah_manifest::Digest;
use tussah_settlement::offer::{OfferDocument, OfferError};
use tussah_settlement::provider::{self, Listing, Offer, ProviderState};
use tussah_settlement::voucher::NetworkId;

use crate::bond::Bond;
use crate::fixture::*;

const NETWORK: NetworkId = NetworkId::LOCALNET;

fn document() -> String {
    let key = key(2).public_key();
    let endpoint = "07".repeat(32);
    format!(
        "offer = 1\nnetwork = {}\nkey = \"{key}\"\nendpoint = \"{endpoint}\"\nfuel_price_nanograms = 10000\ninference_price_nanograms = 20000\n",
        NETWORK.0
    )
}

#[test]
fn documents_say_what_they_say_and_nothing_else() {
    let text = document();
    let offer = OfferDocument::parse(text.as_bytes()).unwrap();
    assert_eq!(offer.digest, Digest::of(text.as_bytes()));
    assert_eq!((offer.key, offer.network), (key(2).public_key(), NETWORK));
    assert_eq!(
        (offer.fuel_price.get(), offer.inference_price.get()),
        (10_000, 20_000)
    );
    assert_eq!((offer.endpoint, offer.attestation), ([7; 32], None));
    let attested = format!("{text}attestation = \"{}\"\n", Digest::of(b"quote"));
    let attested = OfferDocument::parse(attested.as_bytes()).unwrap();
    assert_eq!(attested.posted().attestation, Digest::of(b"quote"));
    for (from, to, words) in [
        ("offer = 1", "offer = 2", "`offer` is not 1"),
        ("offer = 1\n", "", "missing field `offer`"),
        ("ed25519:", "", "`key` is not a public key"),
        ("0707", "07", "`endpoint` is not 64 lowercase hex digits"),
        ("10000", "-1", "invalid value"),
        ("10000", "0.5", "invalid type"),
        (
            "10000",
            "6000000000000000000",
            "`fuel_price_nanograms` is not an amount that there is",
        ),
        ("offer = 1", "offer = 1\nprice = 1", "unknown field `price`"),
        ("offer = 1", "offer = ", "line 1"),
        ("network = ", "network = 4294967296 # ", "invalid value"),
    ] {
        let text = document().replacen(from, to, 1);
        let error = OfferDocument::parse(text.as_bytes()).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let shown = format!("{error}: {}", source.unwrap_or_default());
        assert!(shown.contains(words), "{shown}\nlacks {words}");
    }
    let large = format!("{}{}", document(), " ".repeat(64 << 10));
    assert!(matches!(
        OfferDocument::parse(large.as_bytes()),
        Err(OfferError::Size)
    ));
    assert!(OfferDocument::parse(&[0xff; 40]).is_err());
}

/// The contract's answer is compared with the file, field by field.
#[test]
fn a_listed_offer_is_the_document_or_it_is_said_what_differs() {
    let mut bond = Bond::new();
    let offer = OfferDocument::parse(document().as_bytes()).unwrap();
    let listing = Listing {
        payout: bond.world.payout.clone(),
        key: offer.key,
        endpoint: offer.endpoint,
        offer: offer.posted(),
    };
    let owner = bond.world.owner.clone();
    let init = Some(provider::state_init(&bond.terms));
    let done = bond.world.deliver_to(
        &bond.at.clone(),
        &owner,
        FEE,
        init,
        provider::list(1, &listing),
    );
    assert_eq!(ended(&done[0]), "ok");
    let get = |method| bond.world.chain.get(&bond.at, method, Vec::new()).unwrap();
    let state = ProviderState::from_stack(get(ProviderState::METHOD)).unwrap();
    let posted = Offer::from_stack(get(Offer::METHOD)).unwrap();
    assert_eq!(posted, offer.posted());
    offer.check(NETWORK, &state, &posted).unwrap();

    let differs = |offer: &OfferDocument, state: &ProviderState, posted: &Offer| {
        let error = offer.check(NETWORK, state, posted).unwrap_err().to_string();
        error.replace("the provider's contract lists another offer: ", "")
    };
    let spaced = document().replacen("offer = 1", "offer  = 1", 1);
    let spaced = OfferDocument::parse(spaced.as_bytes()).unwrap();
    assert_eq!(differs(&spaced, &state, &posted), "the digest differs");
    let mut dearer = posted.clone();
    dearer.fuel_price = nano(10_001);
    assert_eq!(
        differs(&offer, &state, &dearer),
        "the prices or the attestation beside the digest differs"
    );
    let mut other = state.clone();
    other.key = [9; 32];
    assert_eq!(differs(&offer, &other, &posted), "the key differs");
    let mut other = state.clone();
    other.endpoint = [9; 32];
    assert_eq!(differs(&offer, &other, &posted), "the endpoint differs");
    let error = offer
        .check(NetworkId::MAINNET, &state, &posted)
        .unwrap_err();
    assert!(error.to_string().contains("the network differs"), "{error}");
}
