//! The keyring: every data key, each wrapped under its root. It lies outside the store and outside
//! ordinary backups, so that deleting a key here is what makes its data unreadable.

use crate::PublicKey;
use crate::aead::{Secret, open, seal};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Number of a data key; written before everything it encrypts.
pub type KeyId = u32;

/// Which root a key lies under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Root {
    /// Opens at start without a person.
    Operational,
    /// Confidential data and above.
    Sensitive,
}

/// What a key encrypts, by surrogate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Records, principals, datasets, everything of the hub itself.
    Hub,
    /// A dataset.
    Dataset(u32),
    /// One person's data in a dataset.
    Subject(u32, u64),
    /// What arrives while the sensitive root is closed. Its line holds that root's public key, kept
    /// under the operational one.
    Inbox,
}

/// Why a keyring cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("the keyring does not open with the {0:?} root key: it is another key, or damaged")]
    WrongRoot(Root),
    #[error("the keyring is damaged at byte {0}")]
    Damaged(usize),
}

#[derive(Serialize, Deserialize)]
struct Line {
    id: KeyId,
    scope: Scope,
    root: Root,
    /// The key, sealed under its root; empty when it was deleted.
    wrapped: Vec<u8>,
}

#[derive(Clone)]
struct Held {
    scope: Scope,
    root: Root,
    /// None while the root is sealed.
    secret: Option<Secret>,
    wrapped: Vec<u8>,
}

/// Most bytes of a line, its length included.
const MAX_LINE_BYTES: usize = 256;
/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

const MAGIC: &[u8; 8] = b"TGKEYS01";

/// All data keys.
#[derive(Clone)]
pub struct Keyring {
    operational: Secret,
    sensitive: Option<Secret>,
    keys: HashMap<KeyId, Held>,
    current: HashMap<Scope, KeyId>,
    /// The other keys of those scopes that have any, oldest first.
    older: HashMap<Scope, Vec<KeyId>>,
    /// What deleted keys encrypted: a key that is missing without having been deleted is a loss.
    deleted: BTreeMap<KeyId, (Scope, Root)>,
    next: KeyId,
    torn: bool,
}

impl Keyring {
    /// An empty keyring under these roots; without the sensitive one it is sealed.
    pub fn new(operational: Secret, sensitive: Option<Secret>) -> Keyring {
        Keyring {
            operational,
            sensitive,
            keys: HashMap::new(),
            current: HashMap::new(),
            older: HashMap::new(),
            deleted: BTreeMap::new(),
            next: 1,
            torn: false,
        }
    }

    /// Reads what [`Keyring::to_bytes`] wrote, with lines appended since. A last line that a crash
    /// tore was never acknowledged and is left out: see [`Keyring::is_torn`].
    ///
    /// # Errors
    /// When a root does not fit or a line is damaged.
    pub fn from_bytes(
        operational: Secret,
        sensitive: Option<Secret>,
        bytes: &[u8],
    ) -> Result<Keyring, KeyringError> {
        let mut ring = Keyring::new(operational, sensitive);
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(KeyringError::Damaged(0))?;
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            match ring.read_line(rest, at) {
                Ok(after) => rest = after,
                Err(_) if is_torn(at, rest) => {
                    ring.torn = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ring)
    }

    /// Whether a torn last line was left out. What is appended behind it would be lost: the file is
    /// to be replaced first.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Takes in the line that `rest` begins with; gives what comes after it.
    fn read_line<'a>(&mut self, rest: &'a [u8], at: usize) -> Result<&'a [u8], KeyringError> {
        let damaged = || KeyringError::Damaged(at);
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (line, after) = after.split_at_checked(length).ok_or_else(damaged)?;
        let line: Line = postcard::from_bytes(line).map_err(|_| damaged())?;
        if line.wrapped.is_empty() {
            self.deleted.insert(line.id, (line.scope, line.root));
            self.next = self.next.max(line.id + 1);
            return Ok(after);
        }
        let secret = match self.root(line.root) {
            Some(root) => {
                let plain = open(root, &context(line.id, line.scope), &line.wrapped)
                    .ok_or(KeyringError::WrongRoot(line.root))?;
                Some(Secret::new(plain.try_into().map_err(|_| damaged())?))
            }
            None => None,
        };
        let held = Held { scope: line.scope, root: line.root, secret, wrapped: line.wrapped };
        self.hold(line.id, held);
        Ok(after)
    }

    fn hold(&mut self, id: KeyId, held: Held) {
        // The newest key of a scope is the one that encrypts.
        let newest = self.current.get(&held.scope).map_or(id, |current| id.max(*current));
        if let Some(before) = self.current.insert(held.scope, newest)
            && before.min(id) != newest
        {
            let older = self.older.entry(held.scope).or_default();
            older.push(before.min(id));
            older.sort_unstable();
            older.dedup();
        }
        self.next = self.next.max(id + 1);
        self.keys.insert(id, held);
    }

    fn root(&self, root: Root) -> Option<&Secret> {
        match root {
            Root::Operational => Some(&self.operational),
            Root::Sensitive => self.sensitive.as_ref(),
        }
    }

    /// Everything, to be written to a fresh file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut ids: Vec<_> = self.keys.keys().chain(self.deleted.keys()).copied().collect();
        ids.sort_unstable();
        for id in ids {
            bytes.extend(self.line(id));
        }
        bytes
    }

    fn line(&self, id: KeyId) -> Vec<u8> {
        let line = match (self.keys.get(&id), self.deleted.get(&id)) {
            (Some(Held { scope, root, wrapped, .. }), _) => {
                Line { id, scope: *scope, root: *root, wrapped: wrapped.clone() }
            }
            (None, Some((scope, root))) => {
                Line { id, scope: *scope, root: *root, wrapped: Vec::new() }
            }
            (None, None) => return Vec::new(),
        };
        // Plain data into memory: this cannot fail.
        let body = postcard::to_stdvec(&line).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
        [length.as_slice(), &body].concat()
    }

    /// Makes a new current key for a scope; the bytes are to be appended to the keyring's file and
    /// made durable before the key is used. None while the root is sealed.
    pub fn create(&mut self, scope: Scope, root: Root) -> Option<(KeyId, Vec<u8>)> {
        let id = self.next;
        let secret = Secret::random();
        let wrapped = seal(self.root(root)?, &context(id, scope), secret.bytes());
        self.hold(id, Held { scope, root, secret: Some(secret), wrapped });
        Some((id, self.line(id)))
    }

    /// Takes back a key that was created, for it could not be made durable. Its number is not given again.
    pub fn take_back(&mut self, id: KeyId) {
        let Some(held) = self.keys.remove(&id) else { return };
        match self.older.get_mut(&held.scope).and_then(Vec::pop) {
            Some(before) => self.current.insert(held.scope, before),
            None => self.current.remove(&held.scope),
        };
    }

    /// Notes the public key of the sensitive root, if that is open and not noted yet; the bytes are to
    /// be appended to the keyring's file.
    pub fn note_public(&mut self) -> Option<Vec<u8>> {
        let public = crate::public_of(self.sensitive.as_ref()?)?;
        let noted = self.current(Scope::Inbox).and_then(|id| self.secret(id));
        if noted.is_some_and(|noted| *noted.bytes() == public) {
            return None;
        }
        let id = self.next;
        let wrapped = seal(&self.operational, &context(id, Scope::Inbox), &public);
        let secret = Some(Secret::new(public));
        self.hold(id, Held { scope: Scope::Inbox, root: Root::Operational, secret, wrapped });
        Some(self.line(id))
    }

    /// The number and the public key that things are encrypted to while the sensitive root is closed.
    pub fn public(&self) -> Option<(KeyId, PublicKey)> {
        let id = self.current(Scope::Inbox)?;
        Some((id, *self.secret(id)?.bytes()))
    }

    /// What a key encrypts.
    pub fn scope(&self, id: KeyId) -> Option<Scope> {
        self.keys.get(&id).map(|held| held.scope)
    }

    /// Whether a key lies under the sensitive root.
    pub fn is_sensitive(&self, id: KeyId) -> bool {
        self.keys.get(&id).is_some_and(|held| held.root == Root::Sensitive)
    }

    /// The sensitive root, while it is open.
    pub fn sensitive(&self) -> Option<&Secret> {
        self.sensitive.as_ref()
    }

    /// The key that encrypts for a scope now.
    pub fn current(&self, scope: Scope) -> Option<KeyId> {
        self.current.get(&scope).copied()
    }

    /// A key by number; none when it was deleted, never was, or its root is sealed.
    pub fn secret(&self, id: KeyId) -> Option<&Secret> {
        self.keys.get(&id)?.secret.as_ref()
    }

    /// What a deleted key encrypted.
    pub fn deleted_scope(&self, id: KeyId) -> Option<Scope> {
        self.deleted.get(&id).map(|(scope, _)| *scope)
    }

    /// Whether the key was deleted, so that what it encrypted is gone for good.
    pub fn is_deleted(&self, id: KeyId) -> bool {
        self.deleted.contains_key(&id)
    }

    /// Whether the key is there, sealed or not.
    pub fn contains(&self, id: KeyId) -> bool {
        self.keys.contains_key(&id)
    }

    /// Whether the sensitive root is closed.
    pub fn is_sealed(&self) -> bool {
        self.sensitive.is_none()
    }

    /// The keys of a scope that are not the current one.
    pub fn superseded(&self, scope: Scope) -> Vec<KeyId> {
        self.older.get(&scope).cloned().unwrap_or_default()
    }

    /// Datasets that have a key that is not here: its root is closed.
    pub fn closed_datasets(&self) -> impl Iterator<Item = u32> {
        self.keys.values().filter(|held| held.secret.is_none()).filter_map(|held| {
            match held.scope {
                Scope::Dataset(dataset) => Some(dataset),
                _ => None,
            }
        })
    }

    /// Every key of a scope, and of the subjects inside it when it is a dataset.
    pub fn of_scope(&self, scope: Scope) -> Vec<KeyId> {
        let inside = |held: &Held| match (held.scope, scope) {
            (Scope::Subject(dataset, _), Scope::Dataset(outer)) => dataset == outer,
            (own, wanted) => own == wanted,
        };
        self.keys.iter().filter(|(_, held)| inside(held)).map(|(id, _)| *id).collect()
    }

    /// Deletes keys: what they encrypt can never be read again once [`Keyring::to_bytes`] has
    /// replaced the file.
    pub fn delete(&mut self, ids: &[KeyId]) {
        for id in ids {
            let Some(held) = self.keys.remove(id) else { continue };
            self.deleted.insert(*id, (held.scope, held.root));
            if self.current.get(&held.scope) == Some(id) {
                self.current.remove(&held.scope);
            } else if let Some(older) = self.older.get_mut(&held.scope) {
                older.retain(|one| one != id);
                if older.is_empty() {
                    self.older.remove(&held.scope);
                }
            }
        }
    }

    /// A key derived from the operational root: for signing, hashing tokens and the like.
    pub fn derived(&self, usage: &str) -> Secret {
        self.operational.derive(usage)
    }
}

/// Whether the end of a file, from byte `at` on, is a line that a crash tore: no longer than a line,
/// and cut short, or with zeros where a sector of the disk was not written.
fn is_torn(at: usize, end: &[u8]) -> bool {
    let sector = |offset: usize| (at + offset) / SECTOR;
    let unwritten = (0..end.len()).map(sector).any(|number| {
        let mut of_it = end.iter().enumerate().filter(|(offset, _)| sector(*offset) == number);
        of_it.all(|(_, byte)| *byte == 0)
    });
    let whole = end
        .split_first_chunk::<4>()
        .is_some_and(|(length, after)| u32::from_be_bytes(*length) as usize <= after.len());
    end.len() <= MAX_LINE_BYTES && (unwritten || !whole)
}

fn context(id: KeyId, scope: Scope) -> Vec<u8> {
    postcard::to_stdvec(&("tanggul keyring", id, scope)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> (Secret, Secret) {
        (Secret::new([1; 32]), Secret::new([2; 32]))
    }

    #[test]
    fn keys_come_back_and_deleted_ones_do_not() {
        let (operational, sensitive) = roots();
        let mut ring = Keyring::new(operational.clone(), Some(sensitive.clone()));
        let (first, _) = ring.create(Scope::Dataset(1), Root::Operational).unwrap();
        let (second, _) = ring.create(Scope::Dataset(1), Root::Operational).unwrap();
        let mut file = ring.to_bytes();
        let (subject, line) = ring.create(Scope::Subject(2, 9), Root::Sensitive).unwrap();
        file.extend(line);
        let open =
            |bytes: &[u8]| Keyring::from_bytes(operational.clone(), Some(sensitive.clone()), bytes);
        let again = open(&file).unwrap();
        assert_eq!(again.current(Scope::Dataset(1)), Some(second));
        assert_eq!(again.superseded(Scope::Dataset(1)), vec![first]);
        assert_eq!(again.secret(subject).unwrap().bytes(), ring.secret(subject).unwrap().bytes());
        assert!(!again.is_torn());
        // A last line that was cut, or of which a sector was not written, was never told of.
        let start = file.len() - ring.line(subject).len();
        for kept in start + 1..file.len() {
            let torn = open(&file[..kept]).unwrap();
            assert!(torn.secret(subject).is_none() && torn.is_torn(), "cut at {kept}");
        }
        let mut zeros = file.clone();
        zeros[start..].fill(0);
        assert!(open(&zeros).unwrap().is_torn());
        // Anything else is damage.
        for at in start..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x10;
            let refused = open(&flipped).is_err() || open(&flipped).unwrap().is_torn();
            assert!(refused, "byte {at}");
        }
        let mut zeros = file.clone();
        zeros[start - 30..].fill(0);
        assert!(open(&zeros).is_err(), "more than a line");
        ring.delete(&[subject]);
        let mut again = open(&ring.to_bytes()).unwrap();
        assert!(again.secret(subject).is_none() && again.is_deleted(subject));
        let (next, _) = again.create(Scope::Dataset(3), Root::Operational).unwrap();
        assert!(next > subject, "no number is given twice");
        assert_eq!(ring.of_scope(Scope::Dataset(2)), Vec::<KeyId>::new());
    }

    #[test]
    fn a_sealed_root_keeps_its_keys_closed() {
        let (operational, sensitive) = roots();
        let mut ring = Keyring::new(operational.clone(), Some(sensitive));
        let (id, _) = ring.create(Scope::Dataset(1), Root::Sensitive).unwrap();
        let mut sealed = Keyring::from_bytes(operational.clone(), None, &ring.to_bytes()).unwrap();
        assert!(sealed.is_sealed() && sealed.contains(id));
        assert!(sealed.secret(id).is_none());
        assert!(sealed.create(Scope::Dataset(2), Root::Sensitive).is_none());
        let wrong = Keyring::from_bytes(Secret::new([9; 32]), None, &ring.to_bytes());
        assert!(wrong.is_ok(), "only sensitive keys inside");
        let other = Some(Secret::new([9; 32]));
        let wrong = Keyring::from_bytes(operational.clone(), other, &ring.to_bytes());
        assert_eq!(wrong.err(), Some(KeyringError::WrongRoot(Root::Sensitive)));
        assert!(sealed.public().is_none() && sealed.note_public().is_none());
        assert!(ring.note_public().is_some() && ring.note_public().is_none());
        let sealed = Keyring::from_bytes(operational.clone(), None, &ring.to_bytes()).unwrap();
        let (_, public) = sealed.public().unwrap();
        let kept = crate::seal_to(&public, b"", b"plain").unwrap();
        assert_eq!(crate::open_sealed(&roots().1, b"", &kept).unwrap(), b"plain");
    }
}
