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

/// The paths of all leaves to the root, each leaf's sibling first, and the root: every node is
/// hashed once, however many leaves there are.
pub fn group_paths(leaves: &[Hash]) -> (Vec<Vec<Hash>>, Hash) {
    fn fill(leaves: &[Hash], paths: &mut [Vec<Hash>]) -> Hash {
        match leaves {
            [] => crate::empty_root(),
            [one] => *one,
            many => {
                let middle = split(many.len());
                let (left, right) = paths.split_at_mut(middle);
                let left_root = fill(&many[..middle], left);
                let right_root = fill(&many[middle..], right);
                left.iter_mut().for_each(|path| path.push(right_root));
                right.iter_mut().for_each(|path| path.push(left_root));
                node_hash(&left_root, &right_root)
            }
        }
    }
    let mut paths = vec![Vec::new(); leaves.len()];
    let root = fill(leaves, &mut paths);
    (paths, root)
}

/// Whether the path leads from the leaf to the root.
pub fn verify_group_path(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    crate::verify_inclusion(leaf, index, size, path, root)
}

/// The largest power of two below `length`.
fn split(length: usize) -> usize {
    length.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_the_root() {
        for size in 0..40u8 {
            let leaves: Vec<Hash> = (0..size).map(|n| [n; 32]).collect();
            let (paths, root) = group_paths(&leaves);
            assert_eq!(root, group_root(&leaves));
            for (index, (leaf, path)) in leaves.iter().zip(&paths).enumerate() {
                let (index, size) = (index as u64, u64::from(size));
                assert!(verify_group_path(leaf, index, size, path, &root), "{index} of {size}");
                assert!(!verify_group_path(&[99; 32], index, size, path, &root));
            }
        }
    }
}
