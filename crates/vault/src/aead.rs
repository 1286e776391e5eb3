//! XAES-256-GCM (C2SP `XAES-256-GCM`): AES-256-GCM under a key derived from 192-bit random nonces,
//! so that nonces never repeat, also after a rollback or a restore.

use aes::cipher::{BlockEncrypt, KeyInit, generic_array::GenericArray};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// How much longer a sealed text is: nonce and tag.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// A 256-bit key. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From bytes.
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    /// A fresh random one.
    pub fn random() -> Secret {
        Secret(random())
    }

    /// A key for one use, derived from this one (HMAC-SHA-256 with the use as message).
    pub fn derive(&self, usage: &str) -> Secret {
        Secret(crate::keyed_digest(self, &[b"tanggul key\0", usage.as_bytes()]))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Fails only when the operating system has no randomness at all; nothing may go on then.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

/// The key and the rest of the nonce for one message: NIST SP 800-108 counter mode with CMAC.
fn derived(key: &Secret, nonce: &[u8; NONCE_BYTES]) -> (LessSafeKey, Nonce) {
    let cipher = aes::Aes256::new(GenericArray::from_slice(key.bytes()));
    let mut subkey = [0u8; 16];
    cipher.encrypt_block(GenericArray::from_mut_slice(&mut subkey));
    let carry = subkey[0] >> 7;
    for index in 0..16 {
        subkey[index] = subkey[index] << 1 | subkey.get(index + 1).map_or(0, |next| next >> 7);
    }
    subkey[15] ^= 0x87 * carry;
    let mut message_key = [0u8; 32];
    for (half, block) in message_key.chunks_mut(16).enumerate() {
        block[..4].copy_from_slice(&[0, if half == 0 { 1 } else { 2 }, b'X', 0]);
        block[4..].copy_from_slice(&nonce[..12]);
        block.iter_mut().zip(subkey).for_each(|(byte, mask)| *byte ^= mask);
        cipher.encrypt_block(GenericArray::from_mut_slice(block));
    }
    let mut rest = [0; 12];
    rest.copy_from_slice(&nonce[12..]);
    let unbound = UnboundKey::new(&AES_256_GCM, &message_key);
    message_key.zeroize();
    match unbound {
        Ok(unbound) => (LessSafeKey::new(unbound), Nonce::assume_unique_for_key(rest)),
        // 32 bytes are always a key.
        Err(_) => std::process::abort(),
    }
}

/// Encrypts: nonce, ciphertext, tag. `context` is bound in, not contained.
pub fn seal(key: &Secret, context: &[u8], plain: &[u8]) -> Vec<u8> {
    seal_with(key, &random(), context, plain)
}

fn seal_with(key: &Secret, nonce: &[u8; NONCE_BYTES], context: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
    sealed.extend_from_slice(nonce);
    sealed.extend_from_slice(plain);
    let (key, nonce) = derived(key, nonce);
    match key.seal_in_place_separate_tag(nonce, Aad::from(context), &mut sealed[NONCE_BYTES..]) {
        Ok(tag) => sealed.extend_from_slice(tag.as_ref()),
        // Only beyond 64 GiB, which no limit above lets through.
        Err(_) => std::process::abort(),
    }
    sealed
}

/// Decrypts what [`seal`] made with the same key and context; none when it is anything else.
pub fn open(key: &Secret, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_BYTES)?;
    let (key, nonce) = derived(key, nonce.try_into().ok()?);
    let mut plain = body.to_vec();
    let length = key.open_in_place(nonce, Aad::from(context), &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        let check = |key: u8, context: &[u8], expected: &str| {
            let sealed = seal_with(&Secret::new([key; 32]), nonce, context, b"XAES-256-GCM");
            let hex: String = sealed[24..].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        };
        check(1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
        check(
            3,
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        );
    }

    #[test]
    fn opens_only_what_it_sealed() {
        let key = Secret::random();
        let sealed = seal(&key, b"here", b"plain");
        assert_eq!(open(&key, b"here", &sealed).unwrap(), b"plain");
        assert!(open(&key, b"there", &sealed).is_none());
        assert!(open(&Secret::random(), b"here", &sealed).is_none());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(open(&key, b"here", &changed).is_none());
            assert!(open(&key, b"here", &sealed[..index]).is_none());
        }
    }
}
