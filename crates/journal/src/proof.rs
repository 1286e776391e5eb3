//! Checking proofs (RFC 9162 clauses 2.1.3.2 and 2.1.4.2).

use crate::{Hash, node_hash};

/// Longest proof of a tree of up to 2^63 leaves.
pub const MAX_PROOF_HASHES: usize = 63;

/// Whether `proof` shows that the leaf is at `index` in the tree of `size` leaves with `root`.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size || proof.len() > MAX_PROOF_HASHES {
        return false;
    }
    let (mut first, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if first & 1 == 1 || first == last {
            hash = node_hash(sibling, &hash);
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        first >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `old` leaves is the beginning of that of `new` leaves.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> bool {
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty();
    }
    if old > new || proof.is_empty() || proof.len() > MAX_PROOF_HASHES {
        return false;
    }
    let (start, rest) =
        if old.is_power_of_two() { (*old_root, proof) } else { (proof[0], &proof[1..]) };
    let (mut first, mut last) = (old - 1, new - 1);
    while first & 1 == 1 {
        first >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (start, start);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if first & 1 == 1 || first == last {
            from_old = node_hash(hash, &from_old);
            from_new = node_hash(hash, &from_new);
            while first & 1 == 0 && first != 0 {
                first >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, hash);
        }
        first >>= 1;
        last >>= 1;
    }
    last == 0 && from_old == *old_root && from_new == *new_root
}
