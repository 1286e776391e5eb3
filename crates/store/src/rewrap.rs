//! Values of a dataset are encrypted anew under its new key, in steps; then the older keys go.

use crate::batch::Under;
use crate::engine::Table;
use crate::store::number_at;
use crate::{Store, StoreError};
use std::sync::atomic::Ordering;

/// Where values lie under a dataset's keys.
const REWRAPPED: [Table; 5] =
    [Table::Entity, Table::Recent, Table::Chunk, Table::Manifest, Table::Document];
/// Values that are only looked at cost a step about as much as one that is encrypted anew.
const SEEN_FOR_ONE: usize = 8;

/// How far a dataset was encrypted anew.
#[derive(Clone, Debug)]
pub struct Rewrapped {
    /// The keys that are left behind.
    older: Vec<u32>,
    table: usize,
    after: Vec<u8>,
}

/// How a step of encrypting a dataset anew ended.
#[derive(Debug)]
pub enum Rewrap {
    GoesOn(Rewrapped),
    /// Nothing is left under these keys, and nothing ever will be.
    Done(Vec<u32>),
}

impl Store {
    /// Encrypts values of a dataset anew that lie under older keys, up to a limit, going on where it
    /// ended before. What is written meanwhile lies under the new key: only the committer writes what is
    /// named, and it is the one who asks.
    ///
    /// # Errors
    /// When a value does not open or cannot be written.
    pub fn rewrap(
        &self,
        dataset: u32,
        from: Option<Rewrapped>,
        limit: usize,
    ) -> Result<Rewrap, StoreError> {
        let older: Vec<u32> = self.keys().read().superseded(vault::Scope::Dataset(dataset));
        if older.is_empty() {
            return Ok(Rewrap::Done(older));
        }
        let _alone = self.rewrapping.lock();
        // Rotated again meanwhile: what was written before that has to be looked at again.
        let from = from.filter(|from| from.older == older);
        let mut at = from.unwrap_or(Rewrapped { older, table: 0, after: Vec::new() });
        let mut writes = self.engine().writes();
        let (mut changed, mut seen) = (0, 0);
        let under = Under::Dataset(dataset);
        let sensitive = self.is_sensitive(under);
        while let Some(table) = REWRAPPED.get(at.table).copied() {
            let of_dataset = dataset.to_be_bytes();
            let prefix = if table == Table::Document { &[] } else { of_dataset.as_slice() };
            let mut last = Vec::new();
            let whole = self.engine().scan_after(table, prefix, &at.after, |key, sealed| {
                let id = sealed.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
                if id.is_some_and(|id| at.older.contains(&id)) {
                    let plain = self.unseal(table, key, sealed)?;
                    let bytes = self.seal(table, key, under, &plain)?;
                    self.engine().put(&mut writes, table, key, bytes);
                    if table == Table::Entity && sensitive {
                        // Known to be taken while the sensitive root is closed.
                        let number = u64::from_be_bytes(number_at(key, 4));
                        let held = self.entities().read().peek(number);
                        held.iter().for_each(|held| {
                            self.put_id(&mut writes, held.dataset, &held.entity.id)
                        });
                    }
                    changed += 1;
                }
                seen += 1;
                let goes_on = changed < limit && seen < limit.saturating_mul(SEEN_FOR_ONE);
                if !goes_on {
                    last = key.to_vec();
                }
                Ok(goes_on)
            })?;
            if !whole {
                at.after = last;
                break;
            }
            (at.table, at.after) = (at.table + 1, Vec::new());
        }
        if changed > 0 {
            self.write(writes)?;
        }
        let done = at.table == REWRAPPED.len();
        Ok(if done { Rewrap::Done(at.older) } else { Rewrap::GoesOn(at) })
    }

    /// Whether older keys of a dataset are still there.
    pub fn has_superseded(&self, dataset: u32) -> bool {
        !self.keys().read().superseded(vault::Scope::Dataset(dataset)).is_empty()
    }

    /// Deletes keys, such as those under which [`Store::rewrap`] found nothing left. Not whatever is
    /// older by now: a key that was the current one when it looked has everything under it.
    ///
    /// # Errors
    /// When the keyring cannot be replaced; the keys are still there then.
    pub fn drop_keys(&self, ids: &[u32]) -> Result<(), StoreError> {
        let mut ring = self.keys().write();
        let mut left = ring.clone();
        left.delete(ids);
        self.files().replace_keyring(&left.to_bytes())?;
        *ring = left;
        self.keyring_torn.store(false, Ordering::Release);
        Ok(())
    }

    /// Those of some keys that encrypt for a scope, and were not deleted.
    pub fn keys_left(&self, under: Under, ids: &[u32]) -> Vec<u32> {
        let there = self.keys_of(under);
        ids.iter().copied().filter(|id| there.contains(id)).collect()
    }

    /// All keys of a scope: of a dataset, those of its subjects too.
    pub fn keys_of(&self, under: Under) -> Vec<u32> {
        self.keys().read().of_scope(Self::scope_of(under))
    }
}
