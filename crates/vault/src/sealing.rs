//! Encryption to a root that is closed: anybody with its public key can put something in, only the
//! root itself gets it out. X25519 with a fresh key each time (RFC 7748), HMAC-SHA-256 over the
//! shared secret and both public keys for the message key, then XAES-256-GCM.

use crate::aead::{self, Secret};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

/// Bytes of a public key.
const PUBLIC_BYTES: usize = 32;

/// The public half of a root.
pub type PublicKey = [u8; PUBLIC_BYTES];

fn private_of(root: &Secret) -> Option<PrivateKey> {
    PrivateKey::from_private_key(&X25519, root.derive("sealing").bytes()).ok()
}

fn public_half(private: &PrivateKey) -> Option<PublicKey> {
    private.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// The public key of a root; none only when the root is no key at all.
pub fn public_of(root: &Secret) -> Option<PublicKey> {
    public_half(&private_of(root)?)
}

fn message_key(own: &PrivateKey, other: &PublicKey, context: [&PublicKey; 2]) -> Option<Secret> {
    let other = UnparsedPublicKey::new(&X25519, other);
    agree(own, other, (), |shared| {
        let shared = Secret::new(shared.try_into().map_err(|_| ())?);
        let parts = [b"tanggul sealed to\0".as_slice(), context[0], context[1]];
        Ok(Secret::new(crate::keyed_digest(&shared, &parts)))
    })
    .ok()
}

/// Encrypts to the public key of a root: fresh public key, then nonce, ciphertext, tag. None when
/// `to` is no usable key.
pub fn seal_to(to: &PublicKey, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let fresh = PrivateKey::generate(&X25519).ok()?;
    let public = public_half(&fresh)?;
    let key = message_key(&fresh, to, [&public, to])?;
    Some([public.as_slice(), &aead::seal(&key, context, plain)].concat())
}

/// Decrypts what [`seal_to`] made for this root with the same context; none when it is anything
/// else.
pub fn open_sealed(root: &Secret, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (public, body) = sealed.split_first_chunk::<PUBLIC_BYTES>()?;
    let own = private_of(root)?;
    let key = message_key(&own, public, [public, &public_half(&own)?])?;
    aead::open(&key, context, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_opens_what_was_sealed_to_it() {
        let (root, other) = (Secret::random(), Secret::random());
        let public = public_of(&root).unwrap();
        let sealed = seal_to(&public, b"here", b"plain").unwrap();
        assert_eq!(open_sealed(&root, b"here", &sealed).unwrap(), b"plain");
        assert!(open_sealed(&root, b"there", &sealed).is_none());
        assert!(open_sealed(&other, b"here", &sealed).is_none());
        assert_ne!(sealed, seal_to(&public, b"here", b"plain").unwrap());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            // The top bit of a public key does not count (RFC 7748, section 5), yet it is bound in.
            assert!(open_sealed(&root, b"here", &changed).is_none(), "byte {index}");
        }
        assert!(seal_to(&[0; 32], b"", b"").is_none(), "a point of small order");
    }
}
