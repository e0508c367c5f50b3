//! A channel's receipt tree at a million receipts: time and memory of appending, of 1,000 inclusion
//! proofs and of 1,000 consistency proofs, each proof checked.
//!
//! In: nothing. Out: a line a figure on stdout. `cargo xtask bench receipts` runs it in release.

#![expect(clippy::print_stdout, reason = "figures are its output")]
#![expect(clippy::unwrap_used, reason = "a bench that fails shows where")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tussah_manifest::{Digest, ReceiptTree};

const RECEIPTS: u64 = 1_000_000;
const PROOFS: u64 = 1_000;

fn receipt(index: u64) -> Digest {
    Digest::of(&index.to_be_bytes())
}

/// Places all over the tree, the same in each run: multiples of a prime.
fn places() -> impl Iterator<Item = u64> {
    (0..PROOFS).map(|number| number * 982_451_653 % RECEIPTS)
}

fn main() {
    // Digests are made before the clock starts: a host has them already.
    let receipts: Vec<Digest> = (0..RECEIPTS).map(receipt).collect();
    let before = resident_kib();
    let started = Instant::now();
    let mut tree = ReceiptTree::new();
    for receipt in &receipts {
        tree.append(receipt);
    }
    let appended = started.elapsed();
    let after = resident_kib();
    println!("{RECEIPTS} receipts appended: {}", each(appended, RECEIPTS));
    if let (Some(before), Some(after)) = (before, after) {
        println!(
            "memory of the tree: {} MiB",
            after.saturating_sub(before) >> 10
        );
    }

    let started = Instant::now();
    let commitment = tree.commitment();
    println!("the root: {} us", started.elapsed().as_micros());

    let started = Instant::now();
    let proofs: Vec<_> = places()
        .map(|index| (index, tree.prove_inclusion(index, RECEIPTS).unwrap()))
        .collect();
    println!(
        "{PROOFS} inclusion proofs made: {}",
        each(started.elapsed(), PROOFS)
    );
    let started = Instant::now();
    for (index, proof) in &proofs {
        let index = usize::try_from(*index).unwrap();
        black_box(proof.verify(&receipts[index], &commitment)).unwrap();
    }
    println!(
        "{PROOFS} inclusion proofs checked: {}",
        each(started.elapsed(), PROOFS)
    );
    let longest = proofs.iter().map(|(_, proof)| proof.path.len()).max();
    println!(
        "the longest has {} hashes of 32 bytes",
        longest.unwrap_or(0)
    );

    let older = places().map(|index| index.max(1));
    let older: Vec<_> = older
        .map(|count| tree.commitment_at(count).unwrap())
        .collect();
    let started = Instant::now();
    let proofs: Vec<_> = older
        .iter()
        .map(|older| tree.prove_consistency(older.receipts, RECEIPTS).unwrap())
        .collect();
    println!(
        "{PROOFS} consistency proofs made: {}",
        each(started.elapsed(), PROOFS)
    );
    let started = Instant::now();
    for (older, proof) in older.iter().zip(&proofs) {
        black_box(proof.verify(older, &commitment)).unwrap();
    }
    println!(
        "{PROOFS} consistency proofs checked: {}",
        each(started.elapsed(), PROOFS)
    );
}

fn each(time: Duration, count: u64) -> String {
    let nanoseconds = time.as_nanos() / u128::from(count);
    format!("{} ms, {nanoseconds} ns each", time.as_millis())
}

/// What Linux says that this process has in memory; nothing elsewhere.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
