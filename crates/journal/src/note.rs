//! Signed notes and checkpoints (C2SP `signed-note`, `tlog-checkpoint`), Ed25519 only.

use crate::{Hash, from_base64, hash_from_base64, sha256, to_base64};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// The signature type byte of Ed25519.
const ED25519_TYPE: u8 = 0x01;
/// Largest note that is read.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Most signatures a note may carry.
pub const MAX_SIGNATURES: usize = 64;

/// Why a note is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note is malformed: {0}")]
    Malformed(&'static str),
    #[error("the note has no signature by the key `{0}`")]
    Unsigned(String),
    #[error("the signature by the key `{0}` does not fit the note")]
    BadSignature(String),
    #[error("the verifier key is malformed: {0}")]
    BadKey(&'static str),
}

/// The log's own key. Its secret is never printed.
pub struct SigningKey {
    name: String,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// From a name (the log's origin) and a 32-byte seed.
    ///
    /// # Errors
    /// When the name is empty or holds a space or `+`.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<SigningKey, NoteError> {
        check_name(name)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| NoteError::BadKey("the seed makes no key"))?;
        Ok(SigningKey { name: name.to_owned(), pair })
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey { name: self.name.clone(), public }
    }

    /// Signs a checkpoint: the note's whole text.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.name, to_base64(root));
        let mut blob = self.verifying_key().id().to_vec();
        blob.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n\u{2014} {} {}\n", self.name, to_base64(&blob))
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    if name.is_empty() || name.contains('+') || name.contains(char::is_whitespace) {
        return Err(NoteError::BadKey("a name is not empty and holds no space or `+`"));
    }
    Ok(())
}

/// A log's public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    public: [u8; 32],
}

impl VerifyingKey {
    /// The log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of `SHA-256(name || 0x0A || type || key)`.
    fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.public]);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Reads a vkey: `name+hex id+base64(type || key)`.
    ///
    /// # Errors
    /// When it has another form, another type, or an id that does not fit.
    pub fn parse(text: &str) -> Result<VerifyingKey, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::BadKey("it is not `name+id+key`"));
        };
        check_name(name)?;
        let key = from_base64(key).ok_or(NoteError::BadKey("the key is no base64"))?;
        let public = match key.split_first() {
            Some((&ED25519_TYPE, public)) => {
                public.try_into().map_err(|_| NoteError::BadKey("the key is not 32 bytes long"))?
            }
            _ => return Err(NoteError::BadKey("the key's type is not Ed25519")),
        };
        let key = VerifyingKey { name: name.to_owned(), public };
        if id != key.id().map(|byte| format!("{byte:02x}")).concat() {
            return Err(NoteError::BadKey("its id does not fit its name and key"));
        }
        Ok(key)
    }
}

impl std::fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.id().map(|byte| format!("{byte:02x}")).concat();
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{id}+{}", self.name, to_base64(&key))
    }
}

/// How long the log was, and its root then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

impl Checkpoint {
    /// Why a log with these leaves is not the one that was signed, or what that has grown into; none
    /// when it is.
    pub fn disagrees(&self, leaves: &[Hash]) -> Option<&'static str> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let Some(covered) = leaves.get(..size) else {
            return Some("it covers more records than there are");
        };
        let mut tree = crate::Tree::default();
        covered.iter().for_each(|leaf| drop(tree.push(leaf)));
        (tree.root() != self.root).then_some("its root is not the root of the records it covers")
    }
}

/// Reads a checkpoint and checks that the key signed it.
///
/// # Errors
/// When it is malformed, of another origin, not signed by the key, or signed over another text.
pub fn open_checkpoint(note: &str, key: &VerifyingKey) -> Result<Checkpoint, NoteError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::Malformed("it is too large"));
    }
    let cut = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line before signatures"))?;
    let (text, signatures) = (&note[..=cut], &note[cut + 2..]);
    let checkpoint = parse_checkpoint(text)?;
    if checkpoint.origin != key.name {
        return Err(NoteError::Unsigned(key.name.clone()));
    }
    if !signatures.ends_with('\n') || signatures.lines().count() > MAX_SIGNATURES {
        return Err(NoteError::Malformed("its signature lines are cut or too many"));
    }
    for line in signatures.lines() {
        let mut parts = line.strip_prefix("\u{2014} ").unwrap_or_default().splitn(2, ' ');
        let (Some(name), Some(blob)) = (parts.next(), parts.next()) else {
            return Err(NoteError::Malformed("a signature line is not `\u{2014} name base64`"));
        };
        let blob = from_base64(blob).ok_or(NoteError::Malformed("a signature is no base64"))?;
        if name == key.name && blob.starts_with(&key.id()) {
            let public = UnparsedPublicKey::new(&ED25519, &key.public);
            return match public.verify(text.as_bytes(), &blob[4..]) {
                Ok(()) => Ok(checkpoint),
                Err(_) => Err(NoteError::BadSignature(key.name.clone())),
            };
        }
    }
    Err(NoteError::Unsigned(key.name.clone()))
}

fn parse_checkpoint(text: &str) -> Result<Checkpoint, NoteError> {
    let mut lines = text.lines();
    let origin = lines.next().filter(|origin| !origin.is_empty());
    let size = lines.next().filter(|size| *size == "0" || !size.starts_with(['0', '+']));
    let size = size.and_then(|size| size.parse().ok());
    let root = lines.next().and_then(hash_from_base64);
    match (origin, size, root) {
        (Some(origin), Some(size), Some(root)) => {
            Ok(Checkpoint { origin: origin.to_owned(), size, root })
        }
        _ => Err(NoteError::Malformed("its lines are not origin, size and root")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed("city.example/log", &[7; 32]).unwrap()
    }

    #[test]
    fn a_published_checkpoint_is_signed_the_same_here() {
        // C2SP issue 99: seed 11 00*31, size 10.
        let mut seed = [0; 32];
        seed[0] = 0x11;
        let name =
            "sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69";
        let key = SigningKey::from_seed(name, &seed).unwrap();
        let mut root = [0; 32];
        root[..4].copy_from_slice(&[0x1c, 0x0e, 0x47, 0x00]);
        let note = key.sign(10, &root);
        assert!(note.ends_with(
            "gJ2ho0n8F8olcerUF1FFdv235A/5as/coWrpLrtE7ovMeP5whgwouYExowG/lTznxu6OUGjjt5yJQ6bXtTcf718MqAQ=\n"
        ), "{note}");
    }

    #[test]
    fn opens_what_it_signs_and_nothing_else() {
        let note = key().sign(5, &[3; 32]);
        let vkey = key().verifying_key();
        assert_eq!(VerifyingKey::parse(&vkey.to_string()).unwrap(), vkey);
        assert_eq!(open_checkpoint(&note, &vkey).unwrap().size, 5);
        for index in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[index] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(open_checkpoint(&changed, &vkey).is_err(), "byte {index}");
            }
        }
        let other = SigningKey::from_seed("city.example/log", &[8; 32]).unwrap().verifying_key();
        assert_eq!(
            open_checkpoint(&note, &other),
            Err(NoteError::Unsigned("city.example/log".into()))
        );
    }

    #[test]
    fn a_published_key_is_read() {
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(VerifyingKey::parse(vkey).unwrap().to_string(), vkey);
        assert!(VerifyingKey::parse(&vkey.replace("c74f20a3", "c74f20a4")).is_err());
        assert!(SigningKey::from_seed("a b", &[0; 32]).is_err());
    }
}
