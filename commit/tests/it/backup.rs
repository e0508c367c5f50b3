//! A book as a file, and a file as a book again.

use proptest::prelude::*;
use tussah_commit::backup::{Backup, BackupError};
use tussah_manifest::Nanograms;

use crate::fixture::*;

/// One more job, from request to voucher; the receipt's price.
fn pay(world: &World, folder: &std::path::Path, price: u64) {
    let (client, provider) = (world.client(folder), world.provider(folder));
    let id = world.id();
    let request = world.request(client.next_index(id).unwrap(), 0, price);
    client.issue(id, &request).unwrap();
    provider.admit(id, &request, RULES).unwrap();
    let receipt = world.receipt(&request, price);
    let claim = provider.finish(id, &receipt, &world.provider_key).unwrap();
    client.deliver(id, &receipt, &claim).unwrap();
    let voucher = client
        .voucher(id, Nanograms::ZERO, &world.client_key)
        .unwrap();
    provider.accept(id, &voucher).unwrap();
}

#[test]
fn both_books_go_on_elsewhere() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let id = world.id();
    for price in 1..=7 {
        pay(&world, folder.path(), price);
    }
    // One job runs, and one waits for it.
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    for index in [7, 8] {
        let request = world.request(index, 0, 100);
        client.issue(id, &request).unwrap();
        provider.admit(id, &request, RULES).unwrap();
    }
    let waiting = world.receipt(&world.request(8, 0, 100), 90);
    provider.finish(id, &waiting, &world.provider_key).unwrap();
    let files = [client.export(id).unwrap(), provider.export(id).unwrap()];

    let elsewhere = tempfile::tempdir().unwrap();
    let [client_file, provider_file] = files.clone().map(|file| Backup::from_file(&file).unwrap());
    assert_eq!(client_file.id(), id);
    let (new_client, new_provider) = (
        world.client(elsewhere.path()),
        world.provider(elsewhere.path()),
    );
    new_client.import(client_file, &world.look()).unwrap();
    new_provider.import(provider_file, &world.look()).unwrap();
    assert_eq!(new_client.view(id).unwrap(), client.view(id).unwrap());
    assert_eq!(new_provider.view(id).unwrap(), provider.view(id).unwrap());
    assert_eq!(
        new_provider.unfinished(id).unwrap(),
        provider.unfinished(id).unwrap()
    );
    assert_eq!(
        new_client.outstanding(id).unwrap(),
        client.outstanding(id).unwrap()
    );
    assert_eq!(
        [
            new_client.export(id).unwrap(),
            new_provider.export(id).unwrap()
        ],
        files
    );

    // The other side's file is no book of ours.
    let file = Backup::from_file(&files[0]).unwrap();
    let refused = new_provider.import(file, &world.look()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "this is a client's book, and a provider's is wanted"
    );
}

#[test]
fn a_file_never_takes_a_book_back() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let id = world.id();
    pay(&world, folder.path(), 10_000_000);
    let old = world.provider(folder.path()).export(id).unwrap();
    pay(&world, folder.path(), 10_000_000);
    let provider = world.provider(folder.path());
    let refused = provider
        .import(Backup::from_file(&old).unwrap(), &world.look())
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the file is older than the book: it has 1 receipts, and the book 2"
    );
    // Where the book is lost, the chain still knows.
    wait(provider.tend(&*world.chain, id, &world.provider_key, AT_ONCE)).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = world
        .provider(elsewhere.path())
        .import(Backup::from_file(&old).unwrap(), &world.look())
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the file is older than the chain: 2 receipts are posted, and it holds 1"
    );
}

#[test]
fn a_changed_file_is_refused() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    pay(&world, folder.path(), 5);
    let file = world.client(folder.path()).export(world.id()).unwrap();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        let refused = Backup::from_file(&changed).unwrap_err();
        assert!(
            matches!(refused, BackupError::Magic | BackupError::Digest),
            "{refused}"
        );
        assert!(Backup::from_file(&file[..at]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A digest is no signature: whoever changes a file can hash it again.
    #[test]
    fn a_changed_file_with_a_good_digest_is_refused(at in 22_usize..1_000_000, bit in 0..8_u8) {
        let file = file_of_one_job();
        let mut changed = file.clone();
        let end = file.len() - 32;
        changed[22 + at % (end - 22)] ^= 1 << bit;
        let digest = tussah_manifest::Digest::of(&changed[..end]);
        changed[end..].copy_from_slice(digest.as_bytes());
        // Only what nobody signed can be changed: the in-flight maximum, what was granted, the
        // voucher's date, the provider's present key.
        if let Ok(backup) = Backup::from_file(&changed) {
            let world = World::open();
            let folder = tempfile::tempdir().unwrap();
            let book = world.client(folder.path());
            let before = book.view(world.id()).unwrap();
            if book.import(backup, &world.look()).is_ok() {
                let after = book.view(world.id()).unwrap();
                prop_assert_eq!(after.vouchered(), nano(5));
                prop_assert_eq!(after.record, before.record);
            }
        }
    }
}

fn file_of_one_job() -> Vec<u8> {
    static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
        pay(&world, folder.path(), 5);
        world.client(folder.path()).export(world.id()).unwrap()
    })
    .clone()
}

/// A disk that was restored, not a file that was taken in: nobody checked it, until now.
#[test]
fn a_book_that_the_chain_is_ahead_of_is_not_gone_on_from() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (id, old, other) = (
        world.id(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    pay(&world, folder.path(), 10_000_000);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, old.path().join(path.file_name().unwrap())).unwrap();
    }
    pay(&world, folder.path(), 10_000_000);
    // As many receipts, and others.
    for _ in 0..2 {
        pay(&world, other.path(), 5);
    }
    let provider = world.provider(folder.path());
    wait(provider.tend(&*world.chain, id, &world.provider_key, AT_ONCE)).unwrap();
    let posted = world.state().commitment;
    assert_eq!(posted.receipts, 2);
    provider.check_posted(id, &posted).unwrap();
    world
        .client(folder.path())
        .check_posted(id, &posted)
        .unwrap();

    let (client, provider) = (world.client(old.path()), world.provider(old.path()));
    let words = "2 receipts are posted on chain, and the book has 1: it is an older copy";
    let refused = client.check_posted(id, &posted).unwrap_err();
    assert_eq!(refused.to_string(), words);
    let refused = provider.check_posted(id, &posted).unwrap_err();
    assert_eq!(refused.to_string(), words);
    // Whoever does not ask first takes no request either, once the chain was looked at: its place
    // has a claim that another one would contradict.
    client.see(id, &world.look()).unwrap();
    wait(provider.see(&*world.chain, id)).unwrap();
    let request = world.request(1, 1, 100);
    let refused = client.issue(id, &request).unwrap_err();
    assert_eq!(refused.to_string(), words);
    let refused = provider.admit(id, &request, RULES).unwrap_err();
    assert_eq!(refused.to_string(), words);

    let refused = world.client(other.path()).check_posted(id, &posted);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the root that is posted over 2 receipts is not the book's"
    );
}
