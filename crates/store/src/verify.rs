//! What lies on disk, read again and digested again, for whoever verifies.

use crate::batch::{Evidence, Under};
use crate::codec::{self, Blob, EntityDoc, Manifest, Segments};
use crate::engine::Table;
use crate::segment::Place;
use crate::store::{MANIFEST, SEGMENTS, chunk_key};
use crate::{Packed, Store, StoreError};
use journal::Hash;
use std::collections::{HashMap, HashSet};

/// Something on disk that does not fit, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What: `record 17`, `entity urn:x:1`, `chunk of series 4`.
    pub what: String,
    /// How it does not fit.
    pub why: String,
}

/// Sealed points of a dataset on disk: what kind of list, and its keyed digest.
#[derive(Clone, Copy, Debug)]
pub struct DiskManifest {
    pub dataset: u32,
    pub generation: u32,
    /// A list of segments' parts; otherwise of chunks.
    pub segments: bool,
    /// None when its key is not here.
    pub digest: Option<Hash>,
}

/// An entity's document as it lies on disk.
pub struct DiskState {
    pub id: String,
    pub number: u64,
    pub dataset: u32,
    /// Keyed digest of the state, computed anew.
    pub digest: Hash,
    pub evidence: Evidence,
}

fn number<const N: usize>(key: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| key.get(at + index).copied().unwrap_or(0))
}

/// A document with its evidence.
fn documented(plain: &[u8]) -> Result<(EntityDoc, Packed, Evidence), StoreError> {
    let (doc, packed, evidence) = EntityDoc::decode(plain)?;
    Ok((doc, packed, codec::decode(evidence, "an entity")?))
}

impl Store {
    /// How many values of each dataset lie under a key of the dataset that was deleted: a dataset
    /// that was shredded has some, any other none.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn orphans(&self) -> Result<Vec<(u32, u64)>, StoreError> {
        let mut found = std::collections::BTreeMap::new();
        // A seal under way may lie under a key that goes meanwhile; nothing will name it then.
        let unnamed = self.unnamed()?.chunks;
        for table in [Table::Entity, Table::Recent, Table::Chunk, Table::Manifest] {
            self.engine().scan(table, b"", |key, sealed| {
                let id = u32::from_be_bytes(number(sealed, 0));
                if table == Table::Chunk && unnamed.contains(key) {
                    return Ok(());
                }
                if let Some(vault::Scope::Dataset(dataset)) = self.keys().read().deleted_scope(id) {
                    *found.entry(dataset).or_insert(0) += 1;
                }
                Ok(())
            })?;
        }
        Ok(found.into_iter().collect())
    }

    /// Every entity document on disk; what does not open becomes a finding. `leaving`: whose keys are to be
    /// deleted still. Gives the datasets with documents whose key is closed now.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn disk_states(
        &self,
        findings: &mut Vec<Finding>,
        leaving: &HashSet<Under>,
        each: &mut dyn FnMut(DiskState),
    ) -> Result<HashSet<u32>, StoreError> {
        let mut closed = HashSet::new();
        let mut taken = self.taken_ids(findings)?;
        self.engine().scan(Table::Entity, b"", |key, sealed| {
            let entity = u64::from_be_bytes(number(key, 4));
            let what = format!("entity number {entity}");
            match self.unseal_if_open(Table::Entity, key, sealed) {
                Ok(None) => {
                    let id = u32::from_be_bytes(number(sealed, 0));
                    if self.keys().read().contains(id) {
                        closed.insert(u32::from_be_bytes(number(key, 0)));
                    }
                }
                Ok(Some(plain)) => match documented(&plain) {
                    Ok((doc, packed, evidence)) => {
                        let id = u32::from_be_bytes(number(sealed, 0));
                        let noted = taken.remove(&self.id_digest(&doc.entity.id));
                        let wanted = self.keys().read().is_sensitive(id).then_some(doc.dataset);
                        // Of one that was sensitive once the note may be left, and of one whose keys are
                        // being deleted it is gone.
                        let goes = leaving.contains(&Under::Dataset(doc.dataset))
                            || leaving.contains(&Under::Subject(doc.dataset, doc.number));
                        let left = wanted.is_none() && noted == Some(doc.dataset);
                        if noted != wanted && !left && !goes {
                            let why = "that its id is taken is not noted as it should be".into();
                            findings.push(Finding { what, why });
                        }
                        each(self.disk_state(&doc, &packed, evidence));
                    }
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                },
                Err(error) => findings.push(Finding { what, why: error.to_string() }),
            }
            Ok(())
        })?;
        if !self.is_sealed() && !taken.is_empty() {
            let what = format!("{} ids", taken.len());
            findings.push(Finding {
                what,
                why: "they are noted as taken, and nothing has them".into(),
            });
        }
        Ok(closed)
    }

    /// Ids that are noted as taken by what may be closed, by their digest: the dataset.
    fn taken_ids(&self, findings: &mut Vec<Finding>) -> Result<HashMap<[u8; 16], u32>, StoreError> {
        let mut taken = HashMap::new();
        self.engine().scan(Table::Meta, b"id/", |key, dataset| {
            match (key.get(3..).map(<[u8; 16]>::try_from), <[u8; 4]>::try_from(dataset)) {
                (Some(Ok(digest)), Ok(dataset)) => {
                    taken.insert(digest, u32::from_be_bytes(dataset));
                }
                _ => findings.push(Finding {
                    what: "a note that an id is taken".into(),
                    why: "it has another form".into(),
                }),
            }
            Ok(())
        })?;
        Ok(taken)
    }

    fn disk_state(&self, doc: &EntityDoc, packed: &Packed, evidence: Evidence) -> DiskState {
        let under = Under::of(doc.dataset, doc.per_subject, doc.number);
        let digest = self.state_digest(under, doc.number, packed, doc.deleted);
        DiskState {
            id: doc.entity.id.clone(),
            number: doc.number,
            dataset: doc.dataset,
            digest,
            evidence,
        }
    }

    /// Every unsealed blob on disk: dataset, commit, subject, digest (none when its key is not here).
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn disk_blobs(
        &self,
        findings: &mut Vec<Finding>,
        each: &mut dyn FnMut(u32, u64, u64, Option<Hash>),
    ) -> Result<(), StoreError> {
        self.engine().scan(Table::Recent, b"", |key, sealed| {
            let dataset = u32::from_be_bytes(number(key, 0));
            let (commit, subject) =
                (u64::from_be_bytes(number(key, 4)), u64::from_be_bytes(number(key, 12)));
            let what = format!("observations of commit {commit} in dataset {dataset}");
            match self.unseal_if_open(Table::Recent, key, sealed) {
                Ok(None) => each(dataset, commit, subject, None),
                Ok(Some(plain)) => match Blob::decode(&plain) {
                    Ok(_) => {
                        let under = Under::of(dataset, subject != 0, subject);
                        let digest = self
                            .digest_key(under)
                            .map_or([0; 32], |key| vault::keyed_digest(&key, &[&plain]));
                        each(dataset, commit, subject, Some(digest));
                    }
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                },
                Err(error) => findings.push(Finding { what, why: error.to_string() }),
            }
            Ok(())
        })
    }

    /// Every list of sealed points on disk; each chunk and part is checked against its list.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn disk_manifests(
        &self,
        findings: &mut Vec<Finding>,
        each: &mut dyn FnMut(DiskManifest),
    ) -> Result<(), StoreError> {
        let mut lists = Vec::new();
        self.engine().scan(Table::Manifest, b"", |key, sealed| {
            let segments = match key.get(4) {
                Some(&MANIFEST) => false,
                Some(&SEGMENTS) => true,
                _ => return Ok(()),
            };
            let dataset = u32::from_be_bytes(number(key, 0));
            let generation = u32::from_be_bytes(number(key, 5));
            let found = DiskManifest { dataset, generation, segments, digest: None };
            let what = format!("manifest {generation} of dataset {dataset}");
            match self.unseal_if_open(Table::Manifest, key, sealed) {
                Ok(None) => each(found),
                Ok(Some(plain)) => lists.push((found, plain)),
                Err(error) => findings.push(Finding { what, why: error.to_string() }),
            }
            Ok(())
        })?;
        for (found, plain) in lists {
            let Some(key) = self.digest_key(Under::Dataset(found.dataset)) else { continue };
            let digest = |plain: &[u8]| vault::keyed_digest(&key, &[plain]);
            each(DiskManifest { digest: Some(digest(&plain)), ..found });
            for (what, at, expected) in self.pieces(found, &plain, findings) {
                let plain = match self.engine().get(Table::Chunk, &at) {
                    Ok(Some(sealed)) => self.unseal(Table::Chunk, &at, &sealed),
                    Ok(None) => Err(StoreError::Damaged("it is missing".into())),
                    Err(error) => Err(error),
                };
                match plain {
                    Ok(plain) if digest(&plain) == expected => {}
                    Ok(_) => findings
                        .push(Finding { what, why: "its digest is not the manifest's".into() }),
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                }
            }
        }
        Ok(())
    }

    /// What a list names and should be there: a name, the key it lies under, its digest. What was
    /// forgotten, or is past its retention, is not; the store knows from its own marks.
    fn pieces(
        &self,
        of: DiskManifest,
        plain: &[u8],
        findings: &mut Vec<Finding>,
    ) -> Vec<(String, Vec<u8>, Hash)> {
        let DiskManifest { dataset, generation, .. } = of;
        let what = format!("manifest {generation} of dataset {dataset}");
        let history = self.histories().read();
        let pieces = if of.segments {
            codec::decode::<Segments>(plain, &what).map(|list| {
                let there = history.segments(dataset).iter().find(|g| g.number == generation);
                let parts = (0u32..).zip(list.parts).filter(|(number, _)| {
                    there.is_some_and(|there| there.parts.iter().any(|(part, _)| part == number))
                });
                let piece = |(part, reference): (u32, codec::PartRef)| {
                    let what = format!(
                        "part {part} of the sealed points {generation} of dataset {dataset}"
                    );
                    (what, Place { dataset, generation, part }.key().to_vec(), reference.digest)
                };
                parts.map(piece).collect()
            })
        } else {
            codec::decode::<Manifest>(plain, &what).map(|list| {
                let chunks = list.chunks.into_iter().filter(|chunk| {
                    let mut known = history.chunks.get(&chunk.series).into_iter().flatten();
                    known.any(|held| held.generation == generation)
                });
                let piece = |chunk: codec::ChunkRef| {
                    let what =
                        format!("sealed chunk of series {} in dataset {dataset}", chunk.series);
                    (what, chunk_key(dataset, chunk.series, generation).to_vec(), chunk.digest)
                };
                chunks.map(piece).collect()
            })
        };
        pieces.unwrap_or_else(|error| {
            findings.push(Finding { what, why: error.to_string() });
            Vec::new()
        })
    }
}
