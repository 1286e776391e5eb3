//! The growing tree: its right edge in memory, complete tiles handed out to be kept.

use crate::{Hash, TILE_WIDTH, empty_root, leaf_hash, node_hash};

/// Where hashes of complete subtrees are found again.
pub trait HashReader {
    /// Hash `index` of tile level `level`: the root of `256^level` leaves. None when not kept.
    fn hash(&self, level: u8, index: u64) -> Option<Hash>;
}

/// A tree that only grows, as the unfinished tiles of each level.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    /// By tile level: the hashes after the last complete tile.
    edges: Vec<Vec<Hash>>,
}

/// A tile just completed: its level, its index and its 256 hashes.
pub type FullTile = (u8, u64, Vec<Hash>);

impl Tree {
    /// Rebuilds the tree of `size` leaves from kept hashes; none when one is missing.
    pub fn restore(size: u64, reader: &dyn HashReader) -> Option<Tree> {
        let mut tree = Tree { size, edges: Vec::new() };
        let (mut level, mut count) = (0, size);
        while count > 0 {
            let start = count / TILE_WIDTH * TILE_WIDTH;
            let edge =
                (start..count).map(|index| reader.hash(level, index)).collect::<Option<_>>()?;
            tree.edges.push(edge);
            (level, count) = (level + 1, count / TILE_WIDTH);
        }
        Some(tree)
    }

    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; gives the tiles this completes.
    pub fn push(&mut self, leaf: &[u8]) -> Vec<FullTile> {
        let mut full = Vec::new();
        let mut hash = leaf_hash(leaf);
        let mut count = self.size + 1;
        self.size = count;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.edges.len() <= at {
                self.edges.push(Vec::new());
            }
            self.edges[at].push(hash);
            if !count.is_multiple_of(TILE_WIDTH) {
                break;
            }
            count /= TILE_WIDTH;
            let tile = std::mem::take(&mut self.edges[at]);
            hash = complete_root(&tile);
            full.push((level, count - 1, tile));
        }
        full
    }

    /// The root over all leaves (RFC 6962 clause 2.1).
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // From the smallest complete subtrees at the right to the largest at the left.
        for edge in &self.edges {
            let mut rest = edge.as_slice();
            while !rest.is_empty() {
                let lowest = 1 << rest.len().trailing_zeros();
                let (before, subtree) = rest.split_at(rest.len() - lowest);
                let hash = complete_root(subtree);
                root = Some(root.map_or(hash, |right| node_hash(&hash, &right)));
                rest = before;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}

/// The root over a power of two of hashes.
fn complete_root(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level[0]
}

/// The hash of the leaves from `start` on, `2^height` of them, complete.
fn subtree(reader: &dyn HashReader, start: u64, height: u32) -> Option<Hash> {
    let level = height / 8;
    let unit = 8 * level;
    let count = 1u64 << (height - unit);
    let first = start >> unit;
    let hashes: Vec<Hash> = (first..first + count)
        .map(|index| reader.hash(u8::try_from(level).ok()?, index))
        .collect::<Option<_>>()?;
    Some(complete_root(&hashes))
}

/// The root over the leaves `start..end` (RFC 6962 clause 2.1); none when a hash is missing.
fn range_root(reader: &dyn HashReader, start: u64, end: u64) -> Option<Hash> {
    let count = end - start;
    if count.is_power_of_two() && start.is_multiple_of(count) {
        return subtree(reader, start, count.trailing_zeros());
    }
    let middle = start + count.next_power_of_two() / 2;
    Some(node_hash(&range_root(reader, start, middle)?, &range_root(reader, middle, end)?))
}

/// The root of the first `size` leaves; none when a hash is missing.
pub fn root_at(reader: &dyn HashReader, size: u64) -> Option<Hash> {
    if size == 0 { Some(empty_root()) } else { range_root(reader, 0, size) }
}

/// The proof that leaf `index` is in the tree of `size` leaves, its sibling first
/// (RFC 6962 clause 2.1.1).
pub fn inclusion_proof(reader: &dyn HashReader, index: u64, size: u64) -> Option<Vec<Hash>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + (end - start).next_power_of_two() / 2;
        if index < middle {
            proof.push(range_root(reader, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(reader, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The proof that the tree of `old` leaves is the beginning of that of `new` leaves
/// (RFC 6962 clause 2.1.2).
pub fn consistency_proof(reader: &dyn HashReader, old: u64, new: u64) -> Option<Vec<Hash>> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let (mut start, mut end, mut whole) = (0, new, true);
    let mut proof = Vec::new();
    while old != end {
        let middle = start + (end - start).next_power_of_two() / 2;
        if old <= middle {
            proof.push(range_root(reader, middle, end)?);
            end = middle;
        } else {
            proof.push(range_root(reader, start, middle)?);
            start = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_root(reader, start, end)?);
    }
    proof.reverse();
    Some(proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{verify_consistency, verify_inclusion};
    use std::collections::HashMap;

    #[derive(Default)]
    struct Kept(HashMap<(u8, u64), Hash>);

    impl HashReader for Kept {
        fn hash(&self, level: u8, index: u64) -> Option<Hash> {
            self.0.get(&(level, index)).copied()
        }
    }

    /// A tree of `size` leaves and all its hashes.
    fn grown(size: u64) -> (Tree, Kept) {
        let mut tree = Tree::default();
        let mut kept = Kept::default();
        for index in 0..size {
            let leaf = index.to_be_bytes();
            kept.0.insert((0, index), leaf_hash(&leaf));
            for (level, tile, hashes) in tree.push(&leaf) {
                kept.0.insert((level + 1, tile), complete_root(&hashes));
            }
        }
        (tree, kept)
    }

    #[test]
    fn published_roots() {
        let leaves: [&[u8]; 8] = [
            &[],
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let roots = [
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
        let mut tree = Tree::default();
        for (size, root) in roots.iter().enumerate() {
            let hex: String = tree.root().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, *root, "size {size}");
            if let Some(leaf) = leaves.get(size) {
                tree.push(leaf);
            }
        }
    }

    #[test]
    fn every_proof_of_small_trees_holds_and_no_other() {
        let (_, kept) = grown(70);
        for size in 1..70 {
            let root = root_at(&kept, size).unwrap();
            for index in 0..size {
                let leaf = kept.hash(0, index).unwrap();
                let proof = inclusion_proof(&kept, index, size).unwrap();
                assert!(verify_inclusion(&leaf, index, size, &proof, &root), "{index} of {size}");
                assert!(!verify_inclusion(&leaf, (index + 1) % (size + 1), size, &proof, &root));
                let mut wrong = proof.clone();
                wrong.push([0; 32]);
                assert!(!verify_inclusion(&leaf, index, size, &wrong, &root));
            }
            for old in 0..=size {
                let proof = consistency_proof(&kept, old, size).unwrap();
                let old_root = root_at(&kept, old).unwrap();
                assert!(verify_consistency(old, size, &proof, &old_root, &root), "{old} to {size}");
                assert!(old == 0 || !verify_consistency(old, size, &proof, &[9; 32], &root));
            }
        }
    }

    #[test]
    fn tiles_and_restoring_agree_across_levels() {
        for size in [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 66_000] {
            let (tree, kept) = grown(size);
            assert_eq!(tree.root(), root_at(&kept, size).unwrap(), "size {size}");
            let restored = Tree::restore(size, &kept).unwrap();
            assert_eq!((restored.size(), restored.root()), (size, tree.root()));
            if size > 0 {
                let root = tree.root();
                for index in [0, size / 2, size - 1] {
                    let proof = inclusion_proof(&kept, index, size).unwrap();
                    let leaf = kept.hash(0, index).unwrap();
                    assert!(verify_inclusion(&leaf, index, size, &proof, &root));
                }
            }
        }
    }

    #[test]
    fn published_proofs() {
        let (_, kept) = grown(8);
        assert_eq!(inclusion_proof(&kept, 8, 8), None);
        assert_eq!(consistency_proof(&kept, 9, 8), None);
        assert_eq!(inclusion_proof(&kept, 0, 8).unwrap().len(), 3);
        assert_eq!(consistency_proof(&kept, 6, 8).unwrap().len(), 3);
    }
}
