//! The small tree of a group record: one leaf for each write in a group commit, so that a single
//! record in the log stands for many writes and each writer still has a path to it.

use crate::{Hash, leaf_hash, node_hash};

/// One write in a group commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// Surrogate of the writer.
    pub writer: u64,
    /// Surrogate of the dataset.
    pub dataset: u32,
    /// How many changes the write held.
    pub count: u32,
    /// Keyed digest of what was written.
    pub digest: Hash,
}

impl GroupEntry {
    /// The bytes the leaf commits to: writer, dataset, count (big-endian), digest.
    pub fn bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&self.writer.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.dataset.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_be_bytes());
        bytes[16..].copy_from_slice(&self.digest);
        bytes
    }

    /// The leaf's hash.
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.bytes())
    }
}

/// The root over leaf hashes (RFC 6962 clause 2.1).
pub fn group_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => crate::empty_root(),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node_hash(&group_root(left), &group_root(right))
        }
    }
}

/// The path from leaf `index` to the root, its sibling first; empty when there is no such leaf.
pub fn group_path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() <= 1 || index >= leaves.len() {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (group_path(left, index), group_root(right))
    } else {
        (group_path(right, index - left.len()), group_root(left))
    };
    path.push(sibling);
    path
}

/// Whether the path leads from the leaf to the root.
pub fn verify_group_path(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    crate::verify_inclusion(leaf, index, size, path, root)
}

/// The largest power of two below `length`.
fn split(length: usize) -> usize {
    length.next_power_of_two() / 2
}
