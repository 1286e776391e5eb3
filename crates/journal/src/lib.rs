//! The tamper-evident log as a craft: RFC 6962 hashing, C2SP tiles, signed checkpoints,
//! inclusion and consistency proofs, receipts. It does no I/O and does not know what a record means.
//!
//! Formats: C2SP `signed-note`, `tlog-checkpoint`, `tlog-tiles`, `tlog-proof`.

mod commitment;
mod group;
mod multiset;
mod note;
mod proof;
mod receipt;
mod tile;
mod tree;

pub use commitment::{SALT_BYTES, commitment};
pub use group::{GroupEntry, group_paths, group_root, verify_group_path};
pub use multiset::MultisetHash;
pub use note::{Checkpoint, NoteError, SigningKey, VerifyingKey, open_checkpoint};
pub use proof::{verify_consistency, verify_inclusion};
pub use receipt::{Receipt, ReceiptError};
pub use tile::{TILE_WIDTH, TileKind, TilePath, entries_bundle, read_entries_bundle};
pub use tree::{HashReader, Tree, consistency_proof, inclusion_proof, root_at};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The root of the empty tree: SHA-256 of nothing (RFC 6962 clause 2.1).
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The hash of a leaf: `SHA-256(0x00 || data)` (RFC 6962 clause 2.1).
pub fn leaf_hash(data: &[u8]) -> Hash {
    sha256(&[&[0], data])
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)` (RFC 6962 clause 2.1).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).ok()
}

pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    from_base64(text)?.try_into().ok()
}
