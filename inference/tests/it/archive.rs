//! Model folders as one file.

use std::path::Path;

use tussah_inference::archive::{Archive, ArchiveError, NAMES, write_folder};

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn archive(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = write_folder(folder, &mut bytes).unwrap();
    assert_eq!(length, bytes.len() as u64);
    bytes
}

const FILES: [(&str, &[u8]); 5] = [
    ("config.json", b"{}"),
    ("model.safetensors", &[7; 512]),
    ("vocab.txt", b""),
    ("1_Pooling/config.json", b"{\"x\": 1}"),
    ("README.md", b"left out"),
];

#[test]
fn a_folder_comes_back() {
    let folder = folder(&FILES);
    let bytes = archive(folder.path());
    assert_eq!(bytes, archive(folder.path()));
    assert!(Archive::is_archive(&bytes));
    let archive = Archive::from_bytes(bytes).unwrap();
    let names: Vec<&str> = archive.names().collect();
    assert_eq!(
        names,
        [
            "1_Pooling/config.json",
            "config.json",
            "model.safetensors",
            "vocab.txt"
        ]
    );
    for (name, bytes) in &FILES[..4] {
        assert_eq!(archive.get(name), Some(*bytes));
    }
    assert_eq!(archive.get("README.md"), None);
}

#[test]
fn the_same_files_give_the_same_digest_everywhere() {
    let folder = folder(&FILES);
    let digest = blake3::hash(&archive(folder.path()));
    expect_test::expect!["8869"].assert_eq(&digest.to_hex()[..4]);
}

#[test]
fn names_are_sorted() {
    assert!(NAMES.is_sorted());
}

#[test]
fn a_folder_without_a_needed_file_is_refused() {
    for left_out in ["config.json", "model.safetensors", "vocab.txt"] {
        let files: Vec<_> = FILES.into_iter().filter(|it| it.0 != left_out).collect();
        let error = write_folder(folder(&files).path(), &mut Vec::new()).unwrap_err();
        let wanted = format!("a model folder needs `{left_out}`, which is missing");
        assert_eq!(error.to_string(), wanted);
    }
}

/// Puts a header's checksum right after a change to it.
fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn what_the_writer_does_not_write_is_refused() {
    type Change = fn(&mut Vec<u8>);
    // Headers stand at 0 (1_Pooling), 1024 (config), 2048 (weights), 3072 (vocabulary), the end at 3584.
    let table: [(&str, Change); 20] = [
        ("empty", Vec::clear),
        ("a header cut off", |it| it.truncate(300)),
        ("no end", |it| it.truncate(3584)),
        ("half an end", |it| it.truncate(3584 + 512)),
        ("an end of 1023 bytes", |it| it.truncate(3584 + 1023)),
        ("more behind the end", |it| it.resize(3584 + 1536, 0)),
        ("a byte in the end", |it| it[4000] = 1),
        ("cut in the weights", |it| it.truncate(2600)),
        ("padding that is not zero", |it| it[1023] = 1),
        ("a wrong checksum", |it| it[149] ^= 1),
        ("an executable", |it| {
            it[106] = b'5';
            sign(&mut it[..512]);
        }),
        ("a link", |it| {
            it[156] = b'2';
            sign(&mut it[..512]);
        }),
        ("a time", |it| {
            it[146] = b'1';
            sign(&mut it[..512]);
        }),
        ("an owner's name", |it| {
            it[265] = b'r';
            sign(&mut it[..512]);
        }),
        ("a path out of the folder", |it| {
            it[..9].copy_from_slice(b"../../../");
            sign(&mut it[..512]);
        }),
        ("a size of 8 GiB", |it| {
            it[2048 + 124..2048 + 135].copy_from_slice(b"77777777777");
            sign(&mut it[2048..2560]);
        }),
        ("a size with a sign", |it| {
            it[124..135].copy_from_slice(b"+0000000010");
            sign(&mut it[..512]);
        }),
        ("a size in GNU's base 256", |it| {
            it[124] = 0x80;
            sign(&mut it[..512]);
        }),
        ("a file twice", |it| {
            let first = it[..1024].to_vec();
            it.splice(..0, first);
        }),
        ("files out of order", |it| {
            let first: Vec<u8> = it.drain(..1024).collect();
            it.splice(1024..1024, first);
        }),
    ];
    let good = archive(folder(&FILES).path());
    assert_eq!(good.len(), 3584 + 1024);
    for (what, change) in table {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = Archive::from_bytes(bytes).unwrap_err();
        assert!(
            matches!(error, ArchiveError::Malformed { .. }),
            "{what}: {error}"
        );
    }
    // A needed file left out of an archive that is well-formed otherwise.
    let mut bytes = good.clone();
    bytes.drain(1024..2048);
    let error = Archive::from_bytes(bytes).unwrap_err().to_string();
    assert_eq!(
        error,
        "a model folder needs `config.json`, which is missing"
    );
    // No change of one byte goes unseen in a header, or goes in unseen elsewhere than in a file.
    for at in (0..512).chain(3584..good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        assert!(Archive::from_bytes(bytes).is_err(), "{at}");
    }
}
