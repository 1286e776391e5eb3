//! What the entities of a dataset are together, and what governs: one digest each, which the record of
//! every commit that changes one of them says. So nothing can be put back alone, taken away or added
//! without being named.

use crate::codec;
use crate::engine::{Table, Writes};
use crate::entities::Entities;
use crate::{Batch, Store, StoreError, Under};
use journal::{Hash, MultisetHash};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Stands for the documents that govern where a dataset's number does.
pub const GOVERNING: u32 = 0;

/// Digest of all states of a dataset before and after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    /// The dataset, or [`GOVERNING`].
    pub of: u32,
    /// None when it was not known: it was counted from what was there.
    pub before: Option<MultisetHash>,
    pub sum: MultisetHash,
}

fn states_key(of: u32) -> Vec<u8> {
    [b"states/".as_slice(), &of.to_be_bytes()].concat()
}

impl Store {
    /// The digests that a batch, but for its records, leads to: of each dataset whose documents it
    /// writes or whose subjects it erases, and of documents of the kinds that govern.
    pub fn states_after(&self, batch: &Batch, governing: &[u8]) -> Vec<States> {
        let entities = self.entities().read();
        let mut after: BTreeMap<u32, States> = BTreeMap::new();
        let mut leaving: HashSet<Under> = self.leaving.read().clone();
        leaving.extend(&batch.erased);
        let known = |of: u32| {
            let before = self.states(of);
            let sum = before.unwrap_or_else(|| match of {
                GOVERNING => self.count_documents_of(governing),
                dataset => self.count_entities(&entities, dataset),
            });
            States { of, before, sum }
        };
        for under in &batch.erased {
            match *under {
                Under::Dataset(of) => {
                    after.insert(of, States { sum: MultisetHash::default(), ..known(of) });
                }
                Under::Subject(of, number) => {
                    let states = after.entry(of).or_insert_with(|| known(of));
                    if let Some(digest) = self.written_digest(&entities, number) {
                        states.sum.remove(&digest);
                    }
                }
                Under::Hub | Under::Inbox => {}
            }
        }
        for write in batch.entities.iter().filter(|write| write.durable) {
            let of = write.dataset;
            let goes = [Under::Dataset(of), Under::Subject(of, write.number)];
            if goes.iter().any(|under| leaving.contains(under)) {
                continue;
            }
            let states = after.entry(of).or_insert_with(|| known(of));
            if let Some(digest) = self.written_digest(&entities, write.number) {
                states.sum.remove(&digest);
            }
            states.sum.add(&write.digest);
        }
        let mut changed: HashMap<(u8, &str), Option<Hash>> = HashMap::new();
        for document in batch.documents.iter().filter(|one| governing.contains(&one.kind)) {
            let states = after.entry(GOVERNING).or_insert_with(|| known(GOVERNING));
            let before = changed.entry((document.kind, &document.name)).or_insert_with(|| {
                let before = self.document(document.kind, &document.name)?;
                Some(self.document_digest(document.kind, &document.name, &before))
            });
            if let Some(before) = before.take() {
                states.sum.remove(&before);
            }
            if let Some(body) = &document.body {
                let digest = self.document_digest(document.kind, &document.name, body);
                states.sum.add(&digest);
                *before = Some(digest);
            }
        }
        after.into_values().collect()
    }

    /// Keys that an act before the last end was to delete: what lies under them is not counted.
    pub fn leave(&self, under: Under) {
        self.leaving.write().insert(under);
    }

    /// Whose keys are still to be deleted.
    pub fn leaving(&self) -> HashSet<Under> {
        self.leaving.read().clone()
    }

    /// What is known of a dataset's states, or of what governs; none when nothing was said of it yet.
    pub fn states(&self, of: u32) -> Option<MultisetHash> {
        self.states.read().get(&of).copied()
    }

    /// Keyed digest of a document.
    pub fn document_digest(&self, kind: u8, name: &str, body: &[u8]) -> Hash {
        let key = self.derived_key("document states");
        vault::keyed_digest(&key, &[&codec::encode(&(kind, name)), body])
    }

    /// The digest of documents of some kinds as they are.
    pub fn count_documents_of(&self, kinds: &[u8]) -> MultisetHash {
        let mut sum = MultisetHash::default();
        for kind in kinds {
            for (name, body) in self.documents(*kind) {
                sum.add(&self.document_digest(*kind, &name, &body));
            }
        }
        sum
    }

    fn count_entities(&self, entities: &Entities, dataset: u32) -> MultisetHash {
        let mut sum = MultisetHash::default();
        let of_it = entities.all(0).filter(|number| entities.dataset_of(*number) == Some(dataset));
        of_it.filter_map(|number| self.written_digest(entities, number)).for_each(|d| sum.add(&d));
        sum
    }

    /// Keyed digest of an entity's document as it lies on disk.
    fn written_digest(&self, entities: &Entities, number: u64) -> Option<Hash> {
        let (dataset, per_subject, deleted, packed) = entities.written(number)?;
        let under = Under::of(dataset, per_subject, number);
        Some(self.state_digest(under, number, packed, deleted))
    }

    pub(crate) fn write_states(
        &self,
        writes: &mut Writes,
        batch: &Batch,
    ) -> Result<(), StoreError> {
        for States { of, sum, .. } in &batch.states {
            let key = states_key(*of);
            let sealed = self.seal(Table::Meta, &key, Under::Hub, &sum.to_bytes())?;
            self.engine().put(writes, Table::Meta, &key, sealed);
        }
        Ok(())
    }

    pub(crate) fn load_states(&self) -> Result<(), StoreError> {
        let mut all = self.states.write();
        self.engine().scan(Table::Meta, b"states/", |key, sealed| {
            let damaged = || StoreError::Damaged("the digest of a dataset's states".into());
            let of = key.last_chunk::<4>().ok_or_else(damaged)?;
            let plain = self.unseal(Table::Meta, key, sealed)?;
            let sum = plain.as_slice().try_into().map_err(|_| damaged())?;
            all.insert(u32::from_be_bytes(*of), MultisetHash::from_bytes(sum));
            Ok(())
        })
    }
}
