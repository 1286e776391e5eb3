//! What lies on disk, read again and digested again, for whoever verifies.

use crate::batch::{Evidence, Under};
use crate::codec::{self, Blob, EntityDoc, Manifest};
use crate::engine::Table;
use crate::store::{MANIFEST, chunk_key};
use crate::{Packed, Store, StoreError};
use journal::Hash;

/// Something on disk that does not fit, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What: `record 17`, `entity urn:x:1`, `chunk of series 4`.
    pub what: String,
    /// How it does not fit.
    pub why: String,
}

/// An entity's document as it lies on disk.
pub struct DiskState {
    pub id: String,
    pub dataset: u32,
    /// Keyed digest of the state, computed anew.
    pub digest: Hash,
    pub evidence: std::sync::Arc<Evidence>,
}

fn number<const N: usize>(key: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| key.get(at + index).copied().unwrap_or(0))
}

impl Store {
    /// Every entity document on disk; what does not open becomes a finding.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn disk_states(
        &self,
        findings: &mut Vec<Finding>,
        each: &mut dyn FnMut(DiskState),
    ) -> Result<(), StoreError> {
        self.engine().scan(Table::Entity, b"", |key, sealed| {
            let entity = u64::from_be_bytes(number(key, 4));
            let what = format!("entity number {entity}");
            match self.unseal_if_open(Table::Entity, key, sealed) {
                Ok(None) => {}
                Ok(Some(plain)) => match EntityDoc::decode(&plain) {
                    Ok((doc, packed)) => each(self.disk_state(&doc, &packed)),
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                },
                Err(error) => findings.push(Finding { what, why: error.to_string() }),
            }
            Ok(())
        })
    }

    fn disk_state(&self, doc: &EntityDoc, packed: &Packed) -> DiskState {
        let under = if doc.per_subject {
            Under::Subject(doc.dataset, doc.number)
        } else {
            Under::Dataset(doc.dataset)
        };
        let digest = self.state_digest(under, doc.number, packed, doc.deleted);
        DiskState {
            id: doc.entity.id.clone(),
            dataset: doc.dataset,
            digest,
            evidence: doc.evidence.clone(),
        }
    }

    /// Every unsealed blob on disk: dataset, commit, subject, digest.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn disk_blobs(
        &self,
        findings: &mut Vec<Finding>,
        each: &mut dyn FnMut(u32, u64, u64, Hash),
    ) -> Result<(), StoreError> {
        self.engine().scan(Table::Recent, b"", |key, sealed| {
            let dataset = u32::from_be_bytes(number(key, 0));
            let (commit, subject) =
                (u64::from_be_bytes(number(key, 4)), u64::from_be_bytes(number(key, 12)));
            let what = format!("observations of commit {commit} in dataset {dataset}");
            match self.unseal_if_open(Table::Recent, key, sealed) {
                Ok(None) => {}
                Ok(Some(plain)) => match Blob::decode(&plain) {
                    Ok(_) => {
                        let under = if subject == 0 {
                            Under::Dataset(dataset)
                        } else {
                            Under::Subject(dataset, subject)
                        };
                        let digest = self
                            .digest_key(under)
                            .map_or([0; 32], |key| vault::keyed_digest(&key, &[&plain]));
                        each(dataset, commit, subject, digest);
                    }
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                },
                Err(error) => findings.push(Finding { what, why: error.to_string() }),
            }
            Ok(())
        })
    }

    /// Every manifest on disk: dataset, generation, digest; each chunk is checked against it.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn disk_manifests(
        &self,
        findings: &mut Vec<Finding>,
        each: &mut dyn FnMut(u32, u32, Hash),
    ) -> Result<(), StoreError> {
        let mut manifests = Vec::new();
        self.engine().scan(Table::Manifest, b"", |key, sealed| {
            if key.get(4) != Some(&MANIFEST) {
                return Ok(());
            }
            let dataset = u32::from_be_bytes(number(key, 0));
            let what =
                format!("manifest {} of dataset {dataset}", u32::from_be_bytes(number(key, 5)));
            match self.unseal_if_open(Table::Manifest, key, sealed) {
                Ok(None) => {}
                Ok(Some(plain)) => match codec::decode::<Manifest>(&plain, &what) {
                    Ok(manifest) => manifests.push((dataset, plain, manifest)),
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                },
                Err(error) => findings.push(Finding { what, why: error.to_string() }),
            }
            Ok(())
        })?;
        for (dataset, plain, manifest) in manifests {
            let Some(key) = self.digest_key(Under::Dataset(dataset)) else { continue };
            each(dataset, manifest.generation, vault::keyed_digest(&key, &[&plain]));
            let history = self.histories().read();
            for chunk in &manifest.chunks {
                let known = history.chunks.get(&chunk.series).into_iter().flatten();
                if !known.clone().any(|held| held.generation == manifest.generation) {
                    // Forgotten or past its retention, which the store knows from its own marks.
                    continue;
                }
                let what = format!("sealed chunk of series {} in dataset {dataset}", chunk.series);
                let at = chunk_key(dataset, chunk.series, manifest.generation);
                let plain = match self.engine().get(Table::Chunk, &at) {
                    Ok(Some(sealed)) => self.unseal(Table::Chunk, &at, &sealed),
                    Ok(None) => Err(StoreError::Damaged("it is missing".into())),
                    Err(error) => Err(error),
                };
                match plain {
                    Ok(plain) if vault::keyed_digest(&key, &[&plain]) == chunk.digest => {}
                    Ok(_) => findings
                        .push(Finding { what, why: "its digest is not the manifest's".into() }),
                    Err(error) => findings.push(Finding { what, why: error.to_string() }),
                }
            }
        }
        Ok(())
    }
}
