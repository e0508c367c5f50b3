//! A book as a file, and a file as a book again.

use minicbor::{Decoder, Encoder};
use proptest::prelude::*;
use tussah_commit::backup::{Backup, BackupError};
use tussah_manifest::{ExitStatus, Nanograms};

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
    new_client
        .import(client_file, &world.look(), &world.provider_key.public_key())
        .unwrap();
    new_provider
        .import(
            provider_file,
            &world.look(),
            &world.provider_key.public_key(),
        )
        .unwrap();
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
    let refused = new_provider
        .import(file, &world.look(), &world.provider_key.public_key())
        .unwrap_err();
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
        .import(
            Backup::from_file(&old).unwrap(),
            &world.look(),
            &world.provider_key.public_key(),
        )
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
        .import(
            Backup::from_file(&old).unwrap(),
            &world.look(),
            &world.provider_key.public_key(),
        )
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
        // voucher's date, the provider's present key; and that one is not taken from the file.
        if let Ok(backup) = Backup::from_file(&changed) {
            let world = World::open();
            let folder = tempfile::tempdir().unwrap();
            let book = world.client(folder.path());
            let before = book.view(world.id()).unwrap();
            if book.import(backup, &world.look(), &world.provider_key.public_key()).is_ok() {
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

/// A file's fields by their numbers, each as its bytes; to be made a file again with a good digest.
struct Fields(Vec<(u64, Vec<u8>)>);

const MAGIC_BYTES: usize = 22;
const KEPT: u64 = 16;
const REQUESTS: u64 = 17;

impl Fields {
    fn of(file: &[u8]) -> Self {
        let content = &file[MAGIC_BYTES..file.len() - 32];
        let mut reader = Decoder::new(content);
        let count = reader.map().unwrap().unwrap();
        let fields = (0..count).map(|_| {
            let number = reader.u64().unwrap();
            let start = reader.position();
            reader.skip().unwrap();
            (number, content[start..reader.position()].to_vec())
        });
        Self(fields.collect())
    }

    fn field(&mut self, number: u64) -> &mut Vec<u8> {
        let mut fields = self.0.iter_mut();
        &mut fields.find(|(found, _)| *found == number).unwrap().1
    }

    /// The elements of a list, each as its bytes.
    fn list(&mut self, number: u64) -> Vec<Vec<u8>> {
        let list = self.field(number);
        let mut reader = Decoder::new(list);
        let count = reader.array().unwrap().unwrap();
        let items = (0..count).map(|_| {
            let start = reader.position();
            reader.skip().unwrap();
            list[start..reader.position()].to_vec()
        });
        items.collect()
    }

    fn set_list(&mut self, number: u64, items: &[Vec<u8>]) {
        let mut list = Encoder::new(Vec::new());
        list.array(items.len() as u64).unwrap();
        *self.field(number) = [list.into_writer(), items.concat()].concat();
    }

    fn file(&self) -> Vec<u8> {
        let mut content = Encoder::new(b"tussah channel book 1\n".to_vec());
        content.map(self.0.len() as u64).unwrap();
        for (number, bytes) in &self.0 {
            content.u64(*number).unwrap();
            content.writer_mut().extend(bytes);
        }
        let mut file = content.into_writer();
        let digest = tussah_manifest::Digest::of(&file);
        file.extend(digest.as_bytes());
        file
    }
}

/// Whoever makes a file can put good signatures together in another way than the books did.
#[test]
fn a_file_of_good_signatures_that_no_book_would_hold_is_refused() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let id = world.id();
    pay(&world, folder.path(), 5);
    pay(&world, folder.path(), 6);
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    for index in [2, 3] {
        let request = world.request(index, 0, 100);
        client.issue(id, &request).unwrap();
        provider.admit(id, &request, RULES).unwrap();
    }
    let files = [client.export(id).unwrap(), provider.export(id).unwrap()];
    let [clients, providers] = files.map(|file| Fields::of(&file).0);
    let asked = Fields(clients.clone()).list(REQUESTS);
    let of = |fields: &Vec<(u64, Vec<u8>)>, change: &dyn Fn(&mut Fields)| {
        let mut fields = Fields(fields.clone());
        change(&mut fields);
        Backup::from_file(&fields.file()).map(drop)
    };
    of(&clients, &|_| {}).unwrap();
    of(&providers, &|_| {}).unwrap();
    let cheap = world.request(0, 0, 4);
    type Change<'a> = Box<dyn Fn(&mut Fields) + 'a>;
    let requests = |items: Vec<Vec<u8>>| -> Change<'_> {
        Box::new(move |fields: &mut Fields| fields.set_list(REQUESTS, &items))
    };
    let cases: Vec<(&Vec<_>, Change<'_>, &str)> = vec![
        (
            &clients,
            requests(asked[1..].to_vec()),
            "receipt 0: it answers no request",
        ),
        (
            &clients,
            requests([&asked[..], &asked[3..]].concat()),
            "the request for index 3: it is there twice",
        ),
        (
            &clients,
            requests([&asked[..2], &asked[3..]].concat()),
            "the request for index 2: it is missing, and there are later ones",
        ),
        (
            &providers,
            requests(asked.clone()),
            "the request for index 0: the place is taken",
        ),
        (
            &providers,
            requests(vec![asked[3].clone()]),
            "the request for index 2: it is missing, and there are later ones",
        ),
    ];
    for (fields, change, words) in cases {
        let refused = of(fields, &*change).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("the exported book is refused: {words}")
        );
    }
    // A receipt for a cheaper request than the one that it answers: another job.
    let mut kept = Encoder::new(Vec::new());
    kept.array(2).unwrap().u64(0).unwrap();
    kept.bytes(&tussah_manifest::Document::to_bytes(&cheap))
        .unwrap();
    let mut other = asked.clone();
    other[0] = kept.into_writer();
    let refused = of(&clients, &*requests(other)).unwrap_err();
    assert!(
        matches!(refused, BackupError::Receipt { index: 0, .. }),
        "{refused}"
    );
    let receipts = Fields(providers.clone()).list(KEPT);
    let refused = of(&providers, &|fields| fields.set_list(KEPT, &receipts[..1]));
    assert!(
        matches!(refused, Err(BackupError::Wrong(_))),
        "a receipt less"
    );
}

/// What a file says of keys nobody signed; the chain knows.
#[test]
fn keys_and_the_root_are_the_chains() {
    let (world, folder) = (World::open(), tempfile::tempdir().unwrap());
    let (id, present) = (world.id(), world.provider_key.public_key());
    let client = world.client(folder.path());
    // A key that the channel never had signs a receipt, which a book was made to believe.
    let stranger = key(77);
    client.rotate(id, stranger.public_key()).unwrap();
    let request = world.request(0, 0, 100);
    client.issue(id, &request).unwrap();
    let forged = receipt(&request, 100, ExitStatus::Done, &stranger);
    let claim = id.claim(0, &forged.digest(), &stranger);
    client.deliver(id, &forged, &claim).unwrap();
    let file = client.export(id).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let book = world.client(elsewhere.path());
    let take = |file: &[u8]| {
        let backup = Backup::from_file(file).unwrap();
        book.import(backup, &world.look(), &present)
    };
    let refused = take(&file).unwrap_err();
    assert!(
        matches!(refused, BackupError::Receipt { index: 0, .. }),
        "{refused}"
    );
    assert_eq!(book.view(id).unwrap().earned, Nanograms::ZERO);

    // Without receipts only the key itself is wrong, and is not taken over.
    let empty = tempfile::tempdir().unwrap();
    let client = world.client(empty.path());
    client.rotate(id, stranger.public_key()).unwrap();
    take(&client.export(id).unwrap()).unwrap();
    assert_eq!(book.view(id).unwrap().provider_key, present);

    // As many receipts as are posted, and others.
    let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pay(&world, ours.path(), 10_000_000);
    pay(&world, others.path(), 5);
    let provider = world.provider(ours.path());
    wait(provider.tend(&*world.chain, id, &world.provider_key, AT_ONCE)).unwrap();
    let refused = take(&world.client(others.path()).export(id).unwrap()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the root that is posted over 1 receipts is not the file's"
    );
}
