//! What a leaf holds: a commitment to a record, so that tiles can be public while records are not.

use crate::{Hash, sha256};

/// Bytes of a salt.
pub const SALT_BYTES: usize = 32;

/// `SHA-256(salt || record)`: says nothing of the record without the salt.
pub fn commitment(salt: &[u8; SALT_BYTES], record: &[u8]) -> Hash {
    sha256(&[salt, record])
}
