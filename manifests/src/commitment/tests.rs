//! The tree against known answers, against the definitions of RFC 6962 written out naively, and
//! against proofs with one thing changed.

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// Leaves and roots of Certificate Transparency's reference tests (`cpp/merkletree/
/// merkle_tree_test.cc` of google/certificate-transparency; the same in transparency-dev/merkle).
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn reference_tree(leaves: usize) -> ReceiptTree {
    let mut tree = ReceiptTree::new();
    for data in &LEAVES[..leaves] {
        tree.append_data(data);
    }
    tree
}

fn hexes(path: &[TreeHash]) -> Vec<String> {
    path.iter().map(|hash| to_hex(hash.as_bytes())).collect()
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(
            to_hex(reference_tree(size).commitment().root.as_bytes()),
            *root,
            "size {size}"
        );
        let early = reference_tree(8).commitment_at(size as u64).unwrap();
        assert_eq!(to_hex(early.root.as_bytes()), *root, "size {size} of 8");
    }
}

#[test]
fn inclusion_proofs_are_those_of_certificate_transparency() {
    let tree = reference_tree(8);
    let first = tree.prove_inclusion(0, 8).unwrap();
    assert_eq!(
        hexes(&first.path),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    let sixth = tree.prove_inclusion(5, 8).unwrap();
    assert_eq!(
        hexes(&sixth.path),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    let third = tree.prove_inclusion(2, 3).unwrap();
    assert_eq!(
        hexes(&third.path),
        ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]
    );
}

#[test]
fn consistency_proofs_are_those_of_certificate_transparency() {
    let tree = reference_tree(8);
    assert_eq!(
        hexes(&tree.prove_consistency(1, 8).unwrap().path),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        hexes(&tree.prove_consistency(6, 8).unwrap().path),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        hexes(&tree.prove_consistency(2, 5).unwrap().path),
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ]
    );
}

/// MTH of RFC 6962 §2.1, as it is written there.
fn naive_root(leaves: &[Vec<u8>]) -> TreeHash {
    match leaves {
        [] => TreeHash(Sha256::digest([]).into()),
        [leaf] => TreeHash(Sha256::digest([&[0], leaf.as_slice()].concat()).into()),
        _ => {
            let (left, right) = leaves.split_at(naive_split(leaves.len()));
            let (left, right) = (naive_root(left).0, naive_root(right).0);
            TreeHash(Sha256::digest([[1].as_slice(), &left, &right].concat()).into())
        }
    }
}

fn naive_split(leaves: usize) -> usize {
    let mut k = 1;
    while k * 2 < leaves {
        k *= 2;
    }
    k
}

/// PATH of RFC 6962 §2.1.1.
fn naive_path(index: usize, leaves: &[Vec<u8>]) -> Vec<TreeHash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(naive_split(leaves.len()));
    let (mut path, beside) = if index < left.len() {
        (naive_path(index, left), naive_root(right))
    } else {
        (naive_path(index - left.len(), right), naive_root(left))
    };
    path.push(beside);
    path
}

/// SUBPROOF of RFC 6962 §2.1.2.
fn naive_proof(older: usize, leaves: &[Vec<u8>], complete: bool) -> Vec<TreeHash> {
    if older == leaves.len() {
        return if complete {
            Vec::new()
        } else {
            vec![naive_root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(naive_split(leaves.len()));
    let (mut path, beside) = if older <= left.len() {
        (naive_proof(older, left, complete), naive_root(right))
    } else {
        (
            naive_proof(older - left.len(), right, false),
            naive_root(left),
        )
    };
    path.push(beside);
    path
}

#[test]
fn every_proof_of_every_small_tree_is_the_definition_and_holds() {
    let receipts: Vec<Digest> = (0..40u8).map(|i| Digest::of(&[i])).collect();
    let leaves: Vec<Vec<u8>> = receipts.iter().map(|r| r.as_bytes().to_vec()).collect();
    let mut tree = ReceiptTree::new();
    assert!(tree.is_empty());
    for (index, receipt) in receipts.iter().enumerate() {
        assert_eq!(tree.append(receipt), index as u64);
    }
    for size in 1..=receipts.len() {
        let commitment = tree.commitment_at(size as u64).unwrap();
        assert_eq!(commitment.root, naive_root(&leaves[..size]));
        for (index, receipt) in receipts.iter().enumerate().take(size) {
            let proof = tree.prove_inclusion(index as u64, size as u64).unwrap();
            assert_eq!(
                proof.path,
                naive_path(index, &leaves[..size]),
                "{index} of {size}"
            );
            proof.verify(receipt, &commitment).unwrap();
        }
        for older in 1..=size {
            let proof = tree.prove_consistency(older as u64, size as u64).unwrap();
            assert_eq!(
                proof.path,
                naive_proof(older, &leaves[..size], true),
                "{older}, {size}"
            );
            let older = tree.commitment_at(older as u64).unwrap();
            proof.verify(&older, &commitment).unwrap();
        }
    }
}

#[test]
fn what_is_outside_the_tree_is_an_error() {
    let tree = reference_tree(3);
    let outside = |asked, receipts| ProofError::OutOfTree { asked, receipts };
    assert_eq!(tree.commitment_at(4), Err(outside(4, 3)));
    assert_eq!(tree.prove_inclusion(0, 4), Err(outside(4, 3)));
    assert_eq!(tree.prove_inclusion(3, 3), Err(outside(3, 3)));
    assert_eq!(tree.prove_inclusion(0, 0), Err(outside(0, 0)));
    assert_eq!(tree.prove_consistency(1, 4), Err(outside(4, 3)));
    assert_eq!(tree.prove_consistency(0, 3), Err(outside(0, 3)));
    assert_eq!(tree.prove_consistency(3, 2), Err(outside(3, 2)));
    assert_eq!(
        tree.prove_inclusion(u64::MAX, u64::MAX),
        Err(outside(u64::MAX, 3))
    );
}

#[test]
fn absurd_sizes_in_a_proof_are_refused_without_work() {
    let commitment = Commitment {
        receipts: u64::MAX,
        root: TreeHash([0; 32]),
    };
    let proof = InclusionProof {
        index: u64::MAX - 1,
        receipts: u64::MAX,
        path: Vec::new(),
    };
    assert_eq!(
        proof.verify(&Digest::of(b""), &commitment),
        Err(ProofError::Length)
    );
    let older = Commitment {
        receipts: u64::MAX - 1,
        root: TreeHash([0; 32]),
    };
    let proof = ConsistencyProof {
        older: u64::MAX - 1,
        newer: u64::MAX,
        path: Vec::new(),
    };
    assert_eq!(proof.verify(&older, &commitment), Err(ProofError::Length));
}

/// Changes one thing about a list of hashes.
fn spoil(path: &mut Vec<TreeHash>, place: usize, way: u8) {
    let place = place % (path.len() + 1);
    match way % 3 {
        0 if place < path.len() => path[place].0[place % 32] ^= 1,
        1 if place < path.len() => drop(path.remove(place)),
        _ => path.insert(place, TreeHash([7; 32])),
    }
}

proptest! {
    #[test]
    fn a_changed_proof_never_holds(
        size in 1u64..300,
        picks in any::<(u64, u64, usize, u8)>(),
    ) {
        let mut tree = ReceiptTree::new();
        for index in 0..size {
            tree.append(&Digest::of(&index.to_be_bytes()));
        }
        let newer = tree.commitment();
        let (index, older) = (picks.0 % size, 1 + picks.1 % size);
        let receipt = Digest::of(&index.to_be_bytes());

        let good = tree.prove_inclusion(index, size).unwrap();
        prop_assert!(good.verify(&receipt, &newer).is_ok());
        prop_assert!(good.verify(&Digest::of(b"another"), &newer).is_err());
        let mut bad = good.clone();
        spoil(&mut bad.path, picks.2, picks.3);
        prop_assert!(bad.verify(&receipt, &newer).is_err());
        let moved = InclusionProof { index: (index + 1) % size, ..good };
        prop_assert!(size == 1 || moved.verify(&receipt, &newer).is_err());

        let older = tree.commitment_at(older).unwrap();
        let good = tree.prove_consistency(older.receipts, size).unwrap();
        prop_assert!(good.verify(&older, &newer).is_ok());
        let mut bad = good.clone();
        spoil(&mut bad.path, picks.2, picks.3);
        prop_assert!(bad.verify(&older, &newer).is_err());
        let mut forged = older;
        forged.root.0[0] ^= 1;
        prop_assert!(good.verify(&forged, &newer).is_err());
    }
}
