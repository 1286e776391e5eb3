//! Keys: two roots, a hierarchy under them, envelope encryption and shredding. The vault does no
//! I/O: it is handed key files and a keyring as bytes, and gives bytes back to be kept. It does not
//! know whose data it encrypts.

mod aead;
mod keyring;
mod sealing;

pub use aead::{NONCE_BYTES, OVERHEAD_BYTES, Secret, open, random, seal};
pub use keyring::{KeyId, Keyring, KeyringError, Root, Scope};
pub use sealing::{PublicKey, open_sealed, public_of, seal_to};

/// `HMAC-SHA-256(key, parts)`, in one go.
pub fn keyed_digest(key: &Secret, parts: &[&[u8]]) -> [u8; 32] {
    use aws_lc_rs::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.bytes());
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.sign().as_ref());
    digest
}

/// Whether two secrets are equal, in time that does not depend on where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// SHA-256 of something public or already random.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}
