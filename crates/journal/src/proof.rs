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
    if old == 0 {
        let empty = crate::empty_root();
        return proof.is_empty() && *old_root == empty && (new > 0 || *new_root == empty);
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
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

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::Value;
    use std::path::Path;

    /// Files of the public vectors (`testdata` of the Go module `transparency-dev/merkle`), which
    /// `TANGGUL_MERKLE_VECTORS` names; none where they are not there.
    fn vectors(kind: &str) -> Vec<Value> {
        let Some(root) = std::env::var_os("TANGGUL_MERKLE_VECTORS") else { return Vec::new() };
        fn read(directory: &Path, found: &mut Vec<Value>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "json") {
                    found.push(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
                }
            }
        }
        let mut found = Vec::new();
        read(&Path::new(&root).join(kind), &mut found);
        found
    }

    /// None for no hash; another length than a hash's stands for some hash that nothing leads to.
    fn hash(value: &Value) -> Option<Hash> {
        let bytes = STANDARD.decode(value.as_str()?).ok().filter(|bytes| !bytes.is_empty())?;
        Some(bytes.try_into().unwrap_or_else(|bytes: Vec<u8>| crate::leaf_hash(&bytes)))
    }

    fn proof(value: &Value) -> Option<Vec<Hash>> {
        value.as_array().map_or(Some(Vec::new()), |hashes| hashes.iter().map(hash).collect())
    }

    #[test]
    fn public_vectors_hold() {
        let number = |vector: &Value, name: &str| vector[name].as_u64();
        let mut held = 0;
        for vector in vectors("inclusion") {
            let holds = || {
                let (leaf, root) = (hash(&vector["leafHash"])?, hash(&vector["root"])?);
                let (index, size) = (number(&vector, "leafIdx")?, number(&vector, "treeSize")?);
                Some(verify_inclusion(&leaf, index, size, &proof(&vector["proof"])?, &root))
            };
            assert_eq!(holds() != Some(true), vector["wantErr"] == true, "{vector}");
            held += 1;
        }
        // The vectors leave growth out of nothing open; C2SP `tlog-witness` takes it without proof.
        let from_something = |vector: &Value| vector["size1"] != 0;
        for vector in vectors("consistency").into_iter().filter(from_something) {
            let holds = || {
                let (old, new) = (number(&vector, "size1")?, number(&vector, "size2")?);
                let (from, to) = (hash(&vector["root1"])?, hash(&vector["root2"])?);
                Some(verify_consistency(old, new, &proof(&vector["proof"])?, &from, &to))
            };
            assert_eq!(holds() != Some(true), vector["wantErr"] == true, "{vector}");
            held += 1;
        }
        println!("{held} public vectors");
        assert!(held > 150 || std::env::var_os("TANGGUL_MERKLE_VECTORS").is_none(), "{held}");
    }
}
