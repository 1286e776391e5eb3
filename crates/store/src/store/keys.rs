//! Keys of what is stored, and the sealing of values under them.

use crate::batch::Under;
use crate::engine::Table;
use crate::{Store, StoreError};
use std::sync::atomic::Ordering;
use vault::{Keyring, Root, Scope, Secret};

impl Store {
    pub(crate) fn scope_of(under: Under) -> Scope {
        match under {
            Under::Hub => Scope::Hub,
            Under::Dataset(dataset) => Scope::Dataset(dataset),
            Under::Subject(dataset, subject) => Scope::Subject(dataset, subject),
            Under::Inbox => Scope::Inbox,
        }
    }

    /// Makes sure that there is a key for `under`; durable on return.
    ///
    /// # Errors
    /// When its root is sealed or the keyring cannot be written.
    pub fn ensure_key(&self, under: Under, sensitive: bool) -> Result<(), StoreError> {
        let scope = Self::scope_of(under);
        if self.keyring.read().current(scope).is_some() {
            return Ok(());
        }
        let mut ring = self.keyring.write();
        // Somebody else may have made it meanwhile.
        if ring.current(scope).is_some() {
            Ok(())
        } else {
            self.add_key(&mut ring, under, sensitive)
        }
    }

    /// Whether there is a key for `under`, and it is not sealed.
    pub fn has_key(&self, under: Under) -> bool {
        let ring = self.keyring.read();
        ring.current(Self::scope_of(under)).is_some_and(|id| ring.secret(id).is_some())
    }

    /// Whether a dataset cannot be read or written now: its key, or those of its subjects, lies under
    /// the sensitive root, and that is closed.
    pub fn is_closed(&self, dataset: u32, sensitive: bool, about_people: bool) -> bool {
        let ring = self.keyring.read();
        if !ring.is_sealed() {
            return false;
        }
        if self.is_partly_closed(dataset) {
            return true;
        }
        let closed = match ring.current(Scope::Dataset(dataset)) {
            Some(id) => ring.secret(id).is_none(),
            None => sensitive,
        };
        closed || about_people
    }

    /// Whether some of a dataset cannot be read, for an older key of it is not here.
    pub(crate) fn is_partly_closed(&self, dataset: u32) -> bool {
        self.partly_closed.contains(&dataset)
    }

    /// Whether what lies under a scope's current key is under the sensitive root.
    pub(crate) fn is_sensitive(&self, under: Under) -> bool {
        let ring = self.keyring.read();
        ring.current(Self::scope_of(under)).is_some_and(|id| ring.is_sensitive(id))
    }

    /// Makes a new current key for `under`; durable on return.
    ///
    /// # Errors
    /// When its root is sealed or the keyring cannot be written.
    pub fn new_key(&self, under: Under, sensitive: bool) -> Result<(), StoreError> {
        self.add_key(&mut self.keyring.write(), under, sensitive)
    }

    fn add_key(&self, ring: &mut Keyring, under: Under, sensitive: bool) -> Result<(), StoreError> {
        let root = if sensitive { Root::Sensitive } else { Root::Operational };
        let (id, line) = ring
            .create(Self::scope_of(under), root)
            .ok_or_else(|| StoreError::NoKey(format!("{under:?}")))?;
        // Half a line may lie there after a failed append: nothing may come behind it.
        let torn = &self.keyring_torn;
        let written = if torn.load(Ordering::Acquire) {
            self.files.replace_keyring(&ring.to_bytes())
        } else {
            self.files.append_keyring(&line)
        };
        torn.store(written.is_err(), Ordering::Release);
        if written.is_err() {
            ring.take_back(id);
        }
        written
    }

    /// A digest key for what lies under `under`: gone when a subject's key is.
    pub fn digest_key(&self, under: Under) -> Option<Secret> {
        let ring = self.keyring.read();
        match under {
            Under::Hub | Under::Inbox => Some(ring.derived("digest")),
            Under::Dataset(dataset) => {
                if let Some(key) = self.digest_keys.read().get(&dataset) {
                    return Some(key.clone());
                }
                let key = ring.derived(&format!("digest/{dataset}"));
                self.digest_keys.write().insert(dataset, key.clone());
                Some(key)
            }
            Under::Subject(..) => {
                let id = ring.current(Self::scope_of(under))?;
                Some(ring.secret(id)?.derive("digest"))
            }
        }
    }

    pub(crate) fn seal(
        &self,
        table: Table,
        key: &[u8],
        under: Under,
        plain: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let ring = self.keyring.read();
        let missing = || StoreError::NoKey(format!("{under:?}"));
        if under == Under::Inbox {
            let (id, public) = ring.public().ok_or_else(missing)?;
            let context = [&[table as u8], key, &id.to_be_bytes()].concat();
            let sealed = vault::seal_to(&public, &context, plain).ok_or_else(missing)?;
            return Ok([id.to_be_bytes().as_slice(), &sealed].concat());
        }
        let id = ring.current(Self::scope_of(under)).ok_or_else(missing)?;
        let secret = ring.secret(id).ok_or_else(missing)?;
        let context = [&[table as u8], key, &id.to_be_bytes()].concat();
        Ok([id.to_be_bytes().as_slice(), &vault::seal(secret, &context, plain)].concat())
    }

    pub(crate) fn unseal(
        &self,
        table: Table,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        self.unseal_if_open(table, key, sealed)?
            .ok_or_else(|| StoreError::NoKey(format!("a value of table {table:?}")))
    }

    /// None when the key is not here.
    pub(crate) fn unseal_if_open(
        &self,
        table: Table,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let damaged = || StoreError::Damaged(format!("a value of table {table:?}"));
        let (id, body) = sealed.split_first_chunk::<4>().ok_or_else(damaged)?;
        let context = [&[table as u8], key, id].concat();
        let ring = self.keyring.read();
        let id = u32::from_be_bytes(*id);
        if ring.scope(id) == Some(Scope::Inbox) {
            let Some(root) = ring.sensitive() else { return Ok(None) };
            return vault::open_sealed(root, &context, body).map(Some).ok_or_else(damaged);
        }
        match ring.secret(id) {
            // Who writes it in front of a value that its key never encrypted hides that value.
            None if ring
                .scope(id)
                .or_else(|| ring.deleted_scope(id))
                .is_some_and(|scope| !may_encrypt(scope, table, key)) =>
            {
                Err(StoreError::Damaged(format!(
                    "a value of table {table:?} lies under key {id}, which is for something else"
                )))
            }
            None if ring.contains(id) || ring.is_deleted(id) => Ok(None),
            None => Err(StoreError::Damaged(format!(
                "the keyring: key {id} is missing from it, and was never deleted"
            ))),
            Some(secret) => vault::open(secret, &context, body).map(Some).ok_or_else(damaged),
        }
    }
}

/// Whether what lies at a key of a table may be encrypted for a scope.
fn may_encrypt(scope: Scope, table: Table, key: &[u8]) -> bool {
    let dataset = key.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let number = |at: usize| {
        let bytes = key.get(at..)?.first_chunk()?;
        Some(u64::from_be_bytes(*bytes))
    };
    match (scope, table) {
        (Scope::Dataset(of), Table::Entity | Table::Recent | Table::Chunk | Table::Manifest) => {
            dataset == Some(of)
        }
        (Scope::Subject(of, subject), Table::Entity) => {
            dataset == Some(of) && number(4) == Some(subject)
        }
        (Scope::Subject(of, subject), Table::Recent) => {
            dataset == Some(of) && number(12) == Some(subject)
        }
        (Scope::Subject(..), Table::Chunk | Table::Manifest) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_what_it_was_made_for() {
        let entity = [3u32.to_be_bytes().as_slice(), &7u64.to_be_bytes()].concat();
        let blob =
            [3u32.to_be_bytes().as_slice(), &1u64.to_be_bytes(), &7u64.to_be_bytes()].concat();
        for (scope, table, key, may) in [
            (Scope::Dataset(3), Table::Entity, &entity, true),
            (Scope::Dataset(4), Table::Entity, &entity, false),
            (Scope::Subject(3, 7), Table::Entity, &entity, true),
            (Scope::Subject(3, 8), Table::Entity, &entity, false),
            (Scope::Subject(3, 7), Table::Recent, &blob, true),
            (Scope::Subject(3, 1), Table::Recent, &blob, false),
            (Scope::Subject(3, 7), Table::Manifest, &entity, false),
            (Scope::Dataset(3), Table::Document, &entity, true),
        ] {
            assert_eq!(may_encrypt(scope, table, key), may, "{scope:?} {table:?}");
        }
    }
}
