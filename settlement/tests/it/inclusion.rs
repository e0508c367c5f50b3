//! Proofs that a receipt is in the posted root, checked by the contract against the tree that
//! `tussah-manifest` keeps.

use tussah_manifest::{Digest, InclusionProof, TreeHash};
use tussah_settlement::chain::StackValue;
use tussah_settlement::{ChainError, ContractError, channel};

use crate::fixture::*;

/// What the get-method says: true, false, or that the path fits no tree of this size.
fn included(world: &World, receipt: &Digest, proof: &InclusionProof) -> bool {
    let arguments = channel::verify_inclusion_arguments(receipt, proof);
    match world
        .chain
        .get(&world.channel, "verify_inclusion", arguments)
    {
        Ok(answer) => answer == [StackValue::Int((-1).into())],
        Err(error) => {
            assert_eq!(
                error.contract_error(),
                Some(ContractError::NotIncluded),
                "{error}"
            );
            assert!(matches!(error, ChainError::GetMethod { .. }));
            false
        }
    }
}

/// Every receipt of every small tree, and what a liar would try with each.
#[test]
fn the_contract_agrees_with_the_tree() {
    let mut world = World::open(90 * GRAM);
    for receipts in 1..=17_u64 {
        assert_eq!(world.redeem(receipts * STEP_MIN), "ok");
        let commitment = world.state().commitment;
        assert_eq!(commitment, world.tree.commitment());
        for index in 0..receipts {
            let proof = world.tree.prove_inclusion(index, receipts).unwrap();
            assert_eq!(proof.verify(&receipt(index), &commitment), Ok(()));
            assert!(
                included(&world, &receipt(index), &proof),
                "{index} of {receipts}"
            );
            let lies = [
                (receipt(index + 1), proof.clone(), "another receipt"),
                (receipt(index), at(&proof, index + 1), "another place"),
                (
                    receipt(index),
                    at(&proof, index ^ 1),
                    "its neighbour's place",
                ),
                (receipt(index), at(&proof, receipts), "a place past the end"),
                (
                    receipt(index),
                    at(&proof, u64::MAX),
                    "a place far past the end",
                ),
                (receipt(index), longer(&proof), "a hash too many"),
                (receipt(index), shorter(&proof), "a hash too few"),
            ];
            for (receipt, lie, what) in lies {
                if lie != proof || receipt != crate::fixture::receipt(index) {
                    assert_eq!(
                        lie.verify(&receipt, &commitment).is_ok(),
                        included(&world, &receipt, &lie),
                        "{what}"
                    );
                    assert!(
                        !included(&world, &receipt, &lie),
                        "{what}, {index} of {receipts}"
                    );
                }
            }
        }
    }
}

fn at(proof: &InclusionProof, index: u64) -> InclusionProof {
    InclusionProof {
        index,
        ..proof.clone()
    }
}

fn longer(proof: &InclusionProof) -> InclusionProof {
    let mut proof = proof.clone();
    proof.path.push(TreeHash::from_bytes([1; 32]));
    proof
}

fn shorter(proof: &InclusionProof) -> InclusionProof {
    let mut proof = proof.clone();
    proof.path.pop();
    proof
}

#[test]
fn a_message_proves_it_to_its_sender() {
    let mut world = World::open(2 * GRAM);
    world.receipts(1_023);
    assert_eq!(world.redeem(100_000_000), "ok");
    let stranger = world.stranger.clone();
    let proof = world.tree.prove_inclusion(700, 1_024).unwrap();
    let at = world.channel.clone();
    let owed = world.state().owed;
    let body = channel::prove_inclusion(5, &receipt(700), &proof);
    let all = world.deliver_to(&at, &stranger, FEE, None, body);
    assert_eq!(ended(&all[0]), "ok");
    assert_eq!(all[0].out_messages.len(), 1);
    let body = channel::prove_inclusion(5, &receipt(701), &proof);
    assert_eq!(world.send(&stranger, body), "NotIncluded");
    assert_eq!(world.state().owed, owed);
}

#[test]
fn nothing_is_in_a_channel_without_receipts() {
    let mut world = World::open(GRAM);
    world.receipts(1);
    let proof = world.tree.prove_inclusion(0, 1).unwrap();
    assert!(!included(&world, &receipt(0), &proof));
}
