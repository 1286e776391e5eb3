//! Sealing: open points of a dataset become compressed, encrypted chunks, off the writer's path.
//!
//! A plan is made from what is open at a commit, in any thread; only its last step is a commit.
//! Series with few points are written anew into one blob, so that they pin no old ones.

use crate::batch::{Row, RowValue, Rows, Under};
use crate::codec::{self, ChunkRef, Manifest};
use crate::engine::{Table, Writes};
use crate::history::{History, Instances, LONG, Numbers, Open, RawPoint, RichPoint};
use crate::store::{MANIFEST, chunk_key, manifest_key, under};
use crate::{Held, Store, StoreError};
use journal::Hash;
use model::{Instance, Time};
use std::collections::HashMap;
use std::sync::Arc;

/// When sealing is worth it.
#[derive(Clone, Copy, Debug)]
pub struct SealPlan {
    /// Points of a series before it gets a chunk.
    pub min_points: usize,
    /// Unsealed blobs of a dataset before they are written anew.
    pub max_blobs: usize,
    /// Points in one chunk, and in one blob that is written anew.
    pub max_part: usize,
}

impl Default for SealPlan {
    fn default() -> Self {
        SealPlan { min_points: 512, max_blobs: 4_096, max_part: 1 << 20 }
    }
}

/// Sealed history, ready to be committed in place of open rows.
pub struct Sealed {
    pub dataset: u32,
    pub per_subject: bool,
    pub generation: u32,
    /// The last commit it covers.
    pub upto: u64,
    /// Keyed digest of the manifest; zero when no chunk was made.
    pub digest: Hash,
    pub points: usize,
    chunks: Vec<(ChunkRef, Vec<u8>)>,
    /// What stays open, written anew in parts: as if it had come in the last commit covered.
    pub residual: Vec<Rows>,
    numbers: HashMap<u32, Numbers>,
    rich: HashMap<u32, Instances>,
}

impl Sealed {
    pub(crate) fn apply(self, history: &mut History) {
        let chunks: Vec<ChunkRef> =
            self.chunks.into_iter().map(|(reference, _)| reference).collect();
        if !chunks.is_empty() {
            history.add_manifest(self.dataset, &Manifest { generation: self.generation, chunks });
        }
        for (series, sealed) in self.numbers {
            if let Some(Open::Numbers(run)) = history.open_mut(series) {
                // A point changed since then stays open, and wins over the chunk.
                let mut sealed = sealed.into_iter().peekable();
                run.retain(|(at, value)| {
                    while sealed.next_if(|(before, _)| before < at).is_some() {}
                    let is_sealed =
                        |point: &RawPoint| point.0 == *at && point.1.to_bits() == value.to_bits();
                    sealed.next_if(is_sealed).is_none()
                });
            }
        }
        for (series, sealed) in self.rich {
            if let Some(Open::Rich(run)) = history.open_mut(series) {
                run.retain(|point| !sealed.contains(point));
            }
        }
        history.long.remove(&self.dataset);
        let blobs = history.blobs.entry(self.dataset).or_default();
        *blobs = blobs.split_off(&(self.upto + 1));
        let points: usize = self.residual.iter().map(|part| part.rows.len()).sum();
        if points > 0 {
            blobs.insert(self.upto, u32::try_from(points).unwrap_or(u32::MAX));
        }
    }
}

impl Store {
    /// Prepares the sealing of a dataset; none when it is not worth it yet.
    ///
    /// # Errors
    /// When the dataset's key is not here.
    pub fn plan_seal(
        &self,
        dataset: u32,
        per_subject: bool,
        when: SealPlan,
    ) -> Result<Option<Sealed>, StoreError> {
        let (upto, mut runs, generation, floor) = {
            // The commit number is read under the lock that every commit takes to show its points.
            let history = self.histories().read();
            let upto = self.next_commit() - 1;
            let blobs = history.blobs.get(&dataset).map_or(0, |blobs| blobs.range(..=upto).count());
            let long = |open: Option<&Open>| open.is_some_and(|o| o.len() >= when.min_points);
            let any_long = || match history.long.get(&dataset) {
                known if when.min_points >= LONG => {
                    known.into_iter().flatten().any(|series| long(history.open(*series)))
                }
                _ => history.open_of(dataset).any(|(_, open)| long(Some(open))),
            };
            if blobs < when.max_blobs && !any_long() {
                return Ok(None);
            }
            let runs: Vec<(u32, Open)> =
                history.open_of(dataset).map(|(series, open)| (series, open.clone())).collect();
            let generation = history.generations.get(&dataset).copied().unwrap_or(0) + 1;
            (upto, runs, generation, history.floor(dataset))
        };
        runs.sort_by_key(|(series, _)| *series);
        let mut sealed = Sealed {
            dataset,
            per_subject,
            generation,
            upto,
            digest: [0; 32],
            points: 0,
            chunks: Vec::new(),
            residual: Vec::new(),
            numbers: HashMap::new(),
            rich: HashMap::new(),
        };
        let mut rest = Vec::new();
        for (series, open) in runs {
            self.plan_series(&mut sealed, &mut rest, series, open, when, floor)?;
        }
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(when.max_part));
            let part = std::mem::replace(&mut rest, after);
            sealed.residual.push(self.encode_rows(dataset, per_subject, part, Time::default()));
        }
        if !sealed.chunks.is_empty() {
            let chunks = sealed.chunks.iter().map(|(reference, _)| reference.clone()).collect();
            let manifest = codec::encode(&Manifest { generation, chunks });
            let key = self.digest_key(Under::Dataset(dataset));
            let key = key.ok_or_else(|| StoreError::NoKey(format!("dataset {dataset}")))?;
            sealed.digest = vault::keyed_digest(&key, &[&manifest]);
        }
        Ok(Some(sealed))
    }

    fn plan_series(
        &self,
        sealed: &mut Sealed,
        rest: &mut Vec<Row>,
        series: u32,
        open: Open,
        when: SealPlan,
        floor: i64,
    ) -> Result<(), StoreError> {
        let Some((dataset, entity)) = self.histories().read().owner(series) else {
            return Ok(());
        };
        let keep_open = |length: usize| sealed.per_subject || length < when.min_points;
        let (rich, count, first, last, plain) = match open {
            Open::Numbers(mut run) => {
                run.retain(|(at, _)| *at >= floor);
                let sealable = if keep_open(run.len()) { 0 } else { run.len().min(when.max_part) };
                rest.extend(run.drain(sealable..).map(|(at, value)| Row {
                    entity,
                    series,
                    at: Time(at),
                    value: RowValue::Number(value),
                }));
                if run.is_empty() {
                    return Ok(());
                }
                let ends = (run[0].0, run[run.len() - 1].0);
                let plain = codec::encode_points(&run);
                let count = run.len();
                sealed.numbers.insert(series, run);
                (false, count, ends.0, ends.1, plain)
            }
            Open::Rich(mut run) => {
                run.retain(|(at, _)| *at >= floor);
                let decode = |bytes: &[u8]| codec::decode::<Instance>(bytes, "an open instance");
                let sealable = if keep_open(run.len()) { 0 } else { run.len().min(when.max_part) };
                for (at, bytes) in run.drain(sealable..) {
                    let value = RowValue::Rich(Box::new(decode(&bytes)?));
                    rest.push(Row { entity, series, at: Time(at), value });
                }
                if run.is_empty() {
                    return Ok(());
                }
                let ends = (run[0].0, run[run.len() - 1].0);
                let point = |(at, bytes): &(i64, Box<[u8]>)| {
                    Ok(RichPoint { series, at: *at, instance: decode(bytes)? })
                };
                let points = run.iter().map(point).collect::<Result<Vec<_>, StoreError>>()?;
                sealed.rich.insert(series, run);
                (true, points.len(), ends.0, ends.1, codec::encode(&points))
            }
        };
        let key = chunk_key(dataset, series, sealed.generation);
        let bytes = self.seal(Table::Chunk, &key, Under::Dataset(dataset), &plain)?;
        let digest_key = self.digest_key(Under::Dataset(dataset));
        let digest = digest_key.map_or([0; 32], |key| vault::keyed_digest(&key, &[&plain]));
        let reference = ChunkRef {
            series,
            rich,
            first,
            last,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            digest,
            key: 0,
        };
        sealed.points += count;
        sealed.chunks.push((reference, bytes));
        Ok(())
    }

    /// Whether a plan still fits: since then nothing of its dataset was forgotten, and its key is
    /// still the one that encrypts.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        let history = self.histories().read();
        let forgotten = history.forgotten_at.get(&sealed.dataset).copied().unwrap_or(0);
        let generation = history.generations.get(&sealed.dataset).copied().unwrap_or(0);
        let key = self.keys().read().current(vault::Scope::Dataset(sealed.dataset));
        let under_key = |bytes: &[u8]| key.is_some_and(|id| bytes.starts_with(&id.to_be_bytes()));
        forgotten <= sealed.upto
            && generation < sealed.generation
            && sealed.chunks.iter().all(|(_, bytes)| under_key(bytes))
    }

    /// Entities of a dataset whose state is ahead of their documents: to be written with the seal.
    pub fn ahead(&self, dataset: u32) -> Vec<Arc<Held>> {
        let entities = self.entities().read();
        entities.ahead(dataset).filter_map(|number| entities.peek(number)).collect()
    }

    pub(crate) fn write_sealed(
        &self,
        writes: &mut Writes,
        sealed: &Sealed,
    ) -> Result<(), StoreError> {
        let dataset = sealed.dataset;
        for (reference, bytes) in &sealed.chunks {
            let key = chunk_key(dataset, reference.series, sealed.generation);
            self.engine().put(writes, Table::Chunk, &key, bytes.clone());
        }
        if !sealed.chunks.is_empty() {
            let chunks = sealed.chunks.iter().map(|(reference, _)| reference.clone()).collect();
            let manifest = Manifest { generation: sealed.generation, chunks };
            let key = manifest_key(dataset, MANIFEST, sealed.generation);
            let plain = codec::encode(&manifest);
            let bytes = self.seal(Table::Manifest, &key, Under::Dataset(dataset), &plain)?;
            self.engine().put(writes, Table::Manifest, &key, bytes);
        }
        self.engine().scan(Table::Recent, &dataset.to_be_bytes(), |key, _| {
            let commit =
                u64::from_be_bytes(std::array::from_fn(|i| key.get(4 + i).copied().unwrap_or(0)));
            if commit <= sealed.upto {
                self.engine().remove(writes, Table::Recent, key);
            }
            Ok(())
        })?;
        for (part, rows) in (0u32..).zip(&sealed.residual) {
            for blob in &rows.blobs {
                let under = under(dataset, sealed.per_subject, blob.subject);
                let mut key = crate::store::blob_key(dataset, sealed.upto, blob.subject).to_vec();
                if part > 0 {
                    key.extend_from_slice(&part.to_be_bytes());
                }
                let bytes = self.seal(Table::Recent, &key, under, &blob.plain)?;
                self.engine().put(writes, Table::Recent, &key, bytes);
            }
        }
        Ok(())
    }

    /// Encrypts up to `limit` values of a dataset anew that still lie under older keys; gives how
    /// many there were. None are left when it gives fewer than `limit`.
    ///
    /// # Errors
    /// When a value is damaged or the commit fails.
    pub fn rewrap(&self, dataset: u32, limit: usize) -> Result<usize, StoreError> {
        let ids: Vec<u32> = self.keys().read().superseded(vault::Scope::Dataset(dataset));
        if ids.is_empty() {
            return Ok(0);
        }
        let mut writes = self.engine().writes();
        let mut count = 0;
        let under = Under::Dataset(dataset);
        for (table, prefix) in [
            (Table::Entity, dataset.to_be_bytes().to_vec()),
            (Table::Recent, dataset.to_be_bytes().to_vec()),
            (Table::Chunk, dataset.to_be_bytes().to_vec()),
            (Table::Manifest, dataset.to_be_bytes().to_vec()),
            (Table::Document, Vec::new()),
        ] {
            self.engine().scan(table, &prefix, |key, sealed| {
                let id = sealed.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
                if count < limit && id.is_some_and(|id| ids.contains(&id)) {
                    let plain = self.unseal(table, key, sealed)?;
                    let bytes = self.seal(table, key, under, &plain)?;
                    self.engine().put(&mut writes, table, key, bytes);
                    count += 1;
                }
                Ok(())
            })?;
        }
        if count > 0 {
            self.engine().commit(writes)?;
        }
        Ok(count)
    }

    /// Whether older keys of a dataset are still there.
    pub fn has_superseded(&self, dataset: u32) -> bool {
        !self.keys().read().superseded(vault::Scope::Dataset(dataset)).is_empty()
    }

    /// Deletes the older keys of a dataset; to be called when [`Store::rewrap`] found nothing left.
    ///
    /// # Errors
    /// When the keyring cannot be replaced.
    pub fn drop_superseded(&self, dataset: u32) -> Result<usize, StoreError> {
        let mut ring = self.keys().write();
        let ids = ring.superseded(vault::Scope::Dataset(dataset));
        if !ids.is_empty() {
            ring.delete(&ids);
            self.files().replace_keyring(&ring.to_bytes())?;
        }
        Ok(ids.len())
    }
}
