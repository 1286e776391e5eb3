//! The store itself: opening, committing, reading.

mod keys;
mod loading;
mod reading;

pub use reading::Now;

use crate::batch::{Batch, Document, Encoded, Row, RowValue, Rows, Under};
use crate::codec::{self, Blob, EntityDoc, Forgotten};
use crate::engine::{Engine, Table, Writes};
use crate::entities::{Entities, Stored};
use crate::history::History;
use crate::log::write_leaf;
use crate::points::RichPoint;
use crate::segment::{Kept, Place};
use crate::{Files, Held, Packed, Position, StoreError};
use journal::{Hash, MultisetHash, Tree};
use model::{Entity, Time};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use vault::{Keyring, Root, Scope, Secret};

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ordinary writes are refused when the disk has less left.
    pub min_free_bytes: u64,
    /// What a table of a new store holds in memory and in the engine's journal before it goes to a file.
    pub memtable_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { min_free_bytes: 64 << 20, memtable_bytes: 64 << 20 }
    }
}

/// What lies in the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub entities: u64,
    pub open_points: u64,
    pub records: u64,
    pub commits: u64,
    pub disk_bytes: u64,
    pub free_bytes: u64,
}

/// An open store.
pub struct Store {
    engine: Engine,
    files: Files,
    options: Options,
    keyring: RwLock<Keyring>,
    entities: RwLock<Entities>,
    history: RwLock<History>,
    /// Documents by kind and name.
    documents: RwLock<BTreeMap<(u8, String), Arc<[u8]>>>,
    /// Held by the one who commits.
    head: Mutex<Head>,
    /// Held by the one who plans a seal.
    pub(crate) planning: Mutex<()>,
    /// Held while a chunk that lies there is written anew, or cleaned away.
    pub(crate) rewrapping: Mutex<()>,
    position_file: std::fs::File,
    commits: AtomicU64,
    records: AtomicU64,
    poisoned: AtomicBool,
    checkpoint: RwLock<String>,
    next_series: AtomicU64,
    next_entity: AtomicU64,
    /// Microseconds: no row that brought no time of its own was given one after this.
    undated: AtomicI64,
    /// Keyed digests of ids whose entities are closed, with their datasets.
    closed: RwLock<HashMap<[u8; 16], u32>>,
    /// Things that came in while the sensitive root was closed.
    inbox: AtomicU64,
    /// Digest keys of datasets, which never change.
    digest_keys: RwLock<HashMap<u32, Secret>>,
    /// Parts of segments that were read of late.
    parts: Kept,
    /// By dataset, or 0 for what governs: the digest of all states.
    pub(crate) states: RwLock<HashMap<u32, MultisetHash>>,
    /// Whose keys are to be deleted, and are not yet.
    pub(crate) leaving: RwLock<HashSet<Under>>,
    /// Datasets of which a key, perhaps an older one, lies under the sensitive root, and that is closed.
    pub(crate) partly_closed: HashSet<u32>,
    /// Half a line may lie at the end of the keyring's file.
    pub(crate) keyring_torn: AtomicBool,
}

struct Head {
    tree: Tree,
}

fn entity_key(dataset: u32, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&dataset.to_be_bytes());
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Recent table: `dataset, commit, subject`, then the number of the part if it is not the first.
pub(crate) fn blob_key(dataset: u32, commit: u64, subject: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&dataset.to_be_bytes());
    key[4..12].copy_from_slice(&commit.to_be_bytes());
    key[12..].copy_from_slice(&subject.to_be_bytes());
    key
}

pub(crate) fn chunk_key(dataset: u32, series: u32, generation: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&dataset.to_be_bytes());
    key[4..8].copy_from_slice(&series.to_be_bytes());
    key[8..].copy_from_slice(&generation.to_be_bytes());
    key
}

/// Manifest table: `dataset, kind, number`.
pub(crate) fn manifest_key(dataset: u32, kind: u8, number: u32) -> [u8; 9] {
    let mut key = [kind; 9];
    key[..4].copy_from_slice(&dataset.to_be_bytes());
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) const MANIFEST: u8 = 0;
pub(crate) const SEGMENTS: u8 = 3;
const FORGOTTEN: u8 = 1;
const RETAINED: u8 = 2;

pub(crate) fn number_at<const N: usize>(key: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| key.get(at + index).copied().unwrap_or(0))
}

fn number_of(head: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(number_at(head, at))
}

impl Store {
    /// Opens the data directory; makes the keyring when it is new.
    ///
    /// # Errors
    /// When it is not ours, locked, damaged, shorter than acknowledged, or its keys do not fit.
    pub fn open(files: Files, options: Options) -> Result<Store, StoreError> {
        files.check_format()?;
        let (operational, sensitive) = files.roots()?;
        let mut keyring = match files.keyring()? {
            Some(bytes) => Keyring::from_bytes(operational, sensitive, &bytes)?,
            None => {
                let mut ring = Keyring::new(operational, sensitive);
                ring.create(Scope::Hub, Root::Operational);
                files.replace_keyring(&ring.to_bytes())?;
                ring
            }
        };
        let noted = keyring.note_public();
        let partly_closed = keyring.closed_datasets().collect();
        let (position_file, acknowledged) = files.position()?;
        let copied = files.copy_journal();
        let engine =
            Engine::open(&files.engine(), options.memtable_bytes).inspect_err(|error| {
                // Somebody else is at it, and goes on: a copy of now would be taken for one of its end.
                if copied && matches!(error, StoreError::Locked(_)) {
                    files.drop_rescue();
                }
            })?;
        let head = engine.get(Table::Meta, b"head")?;
        let head = head.unwrap_or_default();
        let found = Position { commits: number_of(&head, 0), records: number_of(&head, 8) };
        if found.commits < acknowledged.commits || found.records < acknowledged.records {
            return Err(StoreError::Shorter {
                found_commits: found.commits,
                found_records: found.records,
                commits: acknowledged.commits,
                records: acknowledged.records,
                rescue: files.rescue().display().to_string(),
            });
        }
        let reader = crate::LogReader { engine: &engine };
        let tree = Tree::restore(found.records, &reader)
            .ok_or_else(|| StoreError::Damaged("the log: a leaf or tile is missing".into()))?;
        let checkpoint = engine.get(Table::Meta, b"checkpoint")?.unwrap_or_default();
        let store = Store {
            engine,
            files,
            options,
            keyring: RwLock::new(keyring),
            entities: RwLock::default(),
            history: RwLock::default(),
            documents: RwLock::default(),
            head: Mutex::new(Head { tree }),
            planning: Mutex::new(()),
            rewrapping: Mutex::new(()),
            position_file,
            commits: AtomicU64::new(found.commits),
            records: AtomicU64::new(found.records),
            poisoned: AtomicBool::new(false),
            checkpoint: RwLock::new(String::from_utf8(checkpoint).unwrap_or_default()),
            next_series: AtomicU64::new(number_of(&head, 24).max(1)),
            next_entity: AtomicU64::new(number_of(&head, 16).max(1)),
            undated: AtomicI64::new(number_of(&head, 32).cast_signed()),
            closed: RwLock::default(),
            inbox: AtomicU64::new(0),
            digest_keys: RwLock::default(),
            parts: Kept::default(),
            states: RwLock::default(),
            leaving: RwLock::default(),
            keyring_torn: AtomicBool::new(false),
            partly_closed,
        };
        store.load_states()?;
        store.load()?;
        // Not before it is known that nothing lies under a key that a torn line may have held.
        let ring = store.keyring.read();
        if ring.is_torn() {
            store.files.replace_keyring(&ring.to_bytes())?;
        } else if let Some(line) = noted {
            store.files.append_keyring(&line)?;
        }
        drop(ring);
        // Only once all of it was read.
        store.files.drop_rescue();
        Ok(store)
    }

    /// Notes that an id is taken by an entity under the sensitive root.
    pub(crate) fn put_id(&self, writes: &mut Writes, dataset: u32, id: &str) {
        self.engine.put(writes, Table::Meta, &self.id_key(id), dataset.to_be_bytes().to_vec());
    }

    /// Where it is noted that an id is taken by an entity under the sensitive root.
    fn id_key(&self, id: &str) -> Vec<u8> {
        [b"id/".as_slice(), &self.id_digest(id)].concat()
    }

    pub(crate) fn id_digest(&self, id: &str) -> [u8; 16] {
        number_at(&vault::keyed_digest(&self.derived_key("ids"), &[id.as_bytes()]), 0)
    }

    /// The dataset of an entity that is there but closed, for the sensitive root is.
    pub fn closed_owner(&self, id: &str) -> Option<u32> {
        let closed = self.closed.read();
        if closed.is_empty() { None } else { closed.get(&self.id_digest(id)).copied() }
    }

    /// How many things came in that only the sensitive root can open.
    pub fn inbox(&self) -> u64 {
        self.inbox.load(Ordering::Relaxed)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn keys(&self) -> &RwLock<Keyring> {
        &self.keyring
    }

    pub(crate) fn entities(&self) -> &RwLock<Entities> {
        &self.entities
    }

    pub(crate) fn histories(&self) -> &RwLock<History> {
        &self.history
    }

    /// The files beside the engine.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// A key derived from the operational root.
    pub fn derived_key(&self, usage: &str) -> Secret {
        self.keyring.read().derived(usage)
    }

    /// Whether the sensitive root is closed.
    pub fn is_sealed(&self) -> bool {
        self.keyring.read().is_sealed()
    }

    /// The number the next new entity gets.
    pub fn next_entity(&self) -> u64 {
        self.next_entity.load(Ordering::Acquire)
    }

    /// A fresh series number.
    pub fn next_series(&self) -> u32 {
        u32::try_from(self.next_series.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// The number of the next commit.
    pub fn next_commit(&self) -> u64 {
        self.commits.load(Ordering::Acquire) + 1
    }

    /// How many records the log has.
    pub fn log_size(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    /// The root over the log now.
    pub fn log_root(&self) -> (u64, Hash) {
        let head = self.head.lock();
        (head.tree.size(), head.tree.root())
    }

    /// The last signed checkpoint.
    pub fn checkpoint(&self) -> String {
        self.checkpoint.read().clone()
    }

    /// Commits everything in the batch, or nothing. Durable on return. Gives the commit's number.
    ///
    /// # Errors
    /// When the store is poisoned, the disk is full or a key is missing; nothing is changed then.
    pub fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        self.check_writable()?;
        self.check_room(1)?;
        let mut head = self.head.lock();
        let commit = self.next_commit();
        let mut writes = self.engine.writes();
        self.write_entities(&mut writes, &batch, commit)?;
        self.write_rows(&mut writes, &batch, commit)?;
        self.write_forgotten(&mut writes, &batch, commit)?;
        for document in &batch.documents {
            self.write_document(&mut writes, document)?;
        }
        for sealed in &batch.sealed {
            let ends = batch.retained.iter().filter(|(dataset, _)| *dataset == sealed.dataset);
            let floor = ends.map(|(_, floor)| floor.0).max();
            self.write_sealed(&mut writes, sealed, floor)?;
        }
        for (dataset, floor) in &batch.retained {
            let key = manifest_key(*dataset, RETAINED, 0);
            let body = self.seal(
                Table::Manifest,
                &key,
                Under::Dataset(*dataset),
                &codec::encode(&floor.0),
            )?;
            self.engine.put(&mut writes, Table::Manifest, &key, body);
            let history = self.history.read();
            for chunk in history.chunks.values().flatten() {
                if chunk.dataset == *dataset && chunk.reference.last < floor.0 {
                    let key = chunk_key(*dataset, chunk.reference.series, chunk.generation);
                    self.engine.remove(&mut writes, Table::Chunk, &key);
                }
            }
            for segments in history.segments(*dataset) {
                for (part, _) in segments.parts.iter().filter(|(_, part)| part.last < floor.0) {
                    let (dataset, generation) = (*dataset, segments.number);
                    let key = Place { dataset, generation, part: *part }.key();
                    self.engine.remove(&mut writes, Table::Chunk, &key);
                }
            }
        }
        self.write_states(&mut writes, &batch)?;
        let mut tree = head.tree.clone();
        for (salt, record) in &batch.records {
            let key = tree.size().to_be_bytes();
            let plain = [salt.as_slice(), record].concat();
            let sealed = self.seal(Table::Record, &key, Under::Hub, &plain)?;
            self.engine.put(&mut writes, Table::Record, &key, sealed);
            write_leaf(&self.engine, &mut writes, &mut tree, &journal::commitment(salt, record));
        }
        if let Some(checkpoint) = &batch.checkpoint {
            self.engine.put(
                &mut writes,
                Table::Meta,
                b"checkpoint",
                checkpoint.clone().into_bytes(),
            );
        }
        let position = Position { commits: commit, records: tree.size() };
        let next_entity = batch.entities.iter().map(|write| write.number + 1).max().unwrap_or(0);
        let next_entity = next_entity.max(self.next_entity());
        let next_series = self.next_series.load(Ordering::Relaxed);
        let undated = batch.undated.0.max(self.undated.load(Ordering::Acquire));
        let Position { commits, records } = position;
        let meta = [commits, records, next_entity, next_series, undated.cast_unsigned()];
        let meta = meta.map(u64::to_be_bytes).concat();
        self.engine.put(&mut writes, Table::Meta, b"head", meta);
        self.write(writes)?;
        head.tree = tree;
        self.next_entity.store(next_entity, Ordering::Release);
        self.undated.store(undated, Ordering::Release);
        self.apply(batch, commit);
        self.commits.store(position.commits, Ordering::Release);
        self.records.store(position.records, Ordering::Release);
        // Best effort by nature: it only has to outlive the process.
        if let Err(error) = Files::write_position(&self.position_file, position) {
            tracing::error!(%error, "the position file cannot be written");
        }
        Ok(commit)
    }

    /// Whether there is so many times the room left that has to be.
    pub(crate) fn check_room(&self, times: u64) -> Result<(), StoreError> {
        if self.files.free_bytes() < self.options.min_free_bytes.saturating_mul(times) {
            return Err(StoreError::Full(self.options.min_free_bytes >> 20));
        }
        Ok(())
    }

    /// Whether there is room for what only takes away.
    pub(crate) fn check_room_for_less(&self) -> Result<(), StoreError> {
        if self.files.free_bytes() < self.options.min_free_bytes / 2 {
            return Err(StoreError::Full(self.options.min_free_bytes >> 20));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_poisoned() {
            return Err(StoreError::Poisoned("an earlier write or fsync failed".into()));
        }
        Ok(())
    }

    /// Everything that is written goes this way: after a failed write or fsync nothing is, any more.
    pub(crate) fn write(&self, writes: Writes) -> Result<(), StoreError> {
        self.check_writable()?;
        self.engine.commit(writes).map_err(|error| {
            self.poisoned.store(true, Ordering::Release);
            StoreError::Poisoned(error.to_string())
        })
    }

    fn write_entities(
        &self,
        writes: &mut Writes,
        batch: &Batch,
        commit: u64,
    ) -> Result<(), StoreError> {
        for write in batch.entities.iter().filter(|write| write.durable) {
            let key = entity_key(write.dataset, write.number);
            let under = Under::of(write.dataset, write.per_subject, write.number);
            let sealed =
                self.seal(Table::Entity, &key, under, &EntityDoc::encode(write, commit))?;
            self.engine.put(writes, Table::Entity, &key, sealed);
            if self.is_sensitive(under) {
                self.put_id(writes, write.dataset, &write.entity.id);
            }
        }
        Ok(())
    }

    fn write_rows(
        &self,
        writes: &mut Writes,
        batch: &Batch,
        commit: u64,
    ) -> Result<(), StoreError> {
        for rows in &batch.rows {
            for blob in &rows.blobs {
                let under = Under::of(rows.dataset, rows.per_subject, blob.subject);
                let key = blob_key(rows.dataset, commit, blob.subject);
                let sealed = self.seal(Table::Recent, &key, under, &blob.plain)?;
                self.engine.put(writes, Table::Recent, &key, sealed);
            }
        }
        Ok(())
    }

    fn write_forgotten(
        &self,
        writes: &mut Writes,
        batch: &Batch,
        commit: u64,
    ) -> Result<(), StoreError> {
        let history = self.history.read();
        for (dataset, series) in &batch.forgotten {
            let generation = history.generation(*dataset);
            let entry = Forgotten { series: *series, commit, generation };
            let key = manifest_key(*dataset, FORGOTTEN, *series);
            let under = Under::Dataset(*dataset);
            let sealed = self.seal(Table::Manifest, &key, under, &codec::encode(&entry))?;
            self.engine.put(writes, Table::Manifest, &key, sealed);
            for chunk in history.chunks.get(series).into_iter().flatten() {
                let key = chunk_key(*dataset, *series, chunk.generation);
                self.engine.remove(writes, Table::Chunk, &key);
            }
        }
        Ok(())
    }

    fn document_key(&self, kind: u8, name: &str) -> [u8; 16] {
        let key = self.derived_key("document names");
        number_at(&vault::keyed_digest(&key, &[&[kind], name.as_bytes()]), 0)
    }

    /// Whether a document lies on disk, closed or not.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn has_document(&self, kind: u8, name: &str) -> Result<bool, StoreError> {
        let found = self.engine.get(Table::Document, &self.document_key(kind, name))?;
        Ok(found.is_some())
    }

    fn write_document(&self, writes: &mut Writes, document: &Document) -> Result<(), StoreError> {
        let key = &self.document_key(document.kind, &document.name);
        match &document.body {
            None => self.engine.remove(writes, Table::Document, key),
            Some(body) => {
                let plain = codec::encode(&(document.kind, &document.name, body));
                let sealed = self.seal(Table::Document, key, document.under, &plain)?;
                self.engine.put(writes, Table::Document, key, sealed);
            }
        }
        Ok(())
    }

    /// Brings memory to where the disk now is.
    fn apply(&self, batch: Batch, commit: u64) {
        let mut entities = self.entities.write();
        let mut history = self.history.write();
        for step in &batch.steps {
            entities.replay(step, commit, batch.time);
        }
        for write in batch.entities {
            if !write.durable {
                entities.set_state(write.number, &write.entity);
                continue;
            }
            for one in write.series.iter() {
                history.set_owner(one.number, write.dataset, write.number);
            }
            let stored = Stored {
                number: write.number,
                dataset: write.dataset,
                per_subject: write.per_subject,
                deleted: write.deleted,
                commit,
                packed: write.packed,
            };
            entities.put(stored, &write.entity, &write.series);
        }
        for (dataset, series) in batch.forgotten {
            history.forget(dataset, series, commit);
        }
        for Rows { dataset, rows, .. } in batch.rows {
            let (points, mut bytes) = (rows.len(), 0);
            for row in rows {
                match row.value {
                    RowValue::Number(value) => history.put_number(row.series, row.at.0, value),
                    RowValue::Rich(instance) => {
                        bytes += history.put_rich(row.series, row.at.0, &instance);
                    }
                }
            }
            history.note_blob(dataset, commit, points, bytes);
        }
        for sealed in batch.sealed {
            sealed.apply(&mut history);
        }
        for (dataset, floor) in batch.retained {
            history.retain(dataset, floor.0);
        }
        drop((entities, history));
        self.states.write().extend(batch.states.iter().map(|states| (states.of, states.sum)));
        self.leaving.write().extend(batch.erased);
        let mut documents = self.documents.write();
        for document in batch.documents {
            match document.body {
                Some(_) if document.under == Under::Inbox && self.is_sealed() => {
                    // What cannot be read is not kept in memory either.
                    self.inbox.fetch_add(1, Ordering::Relaxed);
                }
                Some(body) => drop(documents.insert((document.kind, document.name), body.into())),
                None => drop(documents.remove(&(document.kind, document.name))),
            }
        }
        if let Some(checkpoint) = batch.checkpoint {
            *self.checkpoint.write() = checkpoint;
        }
    }

    /// Points of a dataset that are not sealed.
    pub fn open_points_of(&self, dataset: u32) -> u64 {
        self.history.read().open_points_of(dataset)
    }

    /// The instant before which no history of a dataset is kept, if there is one.
    pub fn retained(&self, dataset: u32) -> Option<Time> {
        self.history.read().retained.get(&dataset).copied().map(Time)
    }

    /// What lies in the store.
    pub fn usage(&self) -> Usage {
        Usage {
            entities: self.entities.read().living() as u64,
            open_points: self.history.read().open_points(),
            records: self.log_size(),
            commits: self.commits.load(Ordering::Acquire),
            disk_bytes: self.engine.disk_bytes(),
            free_bytes: self.files.free_bytes(),
        }
    }

    /// Whether writes are refused since one failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Makes the position outlive the machine; once a second is enough.
    pub fn sync_position(&self) {
        if let Err(error) = self.position_file.sync_data() {
            tracing::error!(%error, "the position file cannot be made durable");
        }
    }

    /// Deletes keys of a scope for good, those of them that are still there: what they encrypt cannot be
    /// read again.
    ///
    /// # Errors
    /// When the keyring cannot be replaced; the keys are still there then.
    pub fn shred(&self, under: Under, ids: &[u32]) -> Result<usize, StoreError> {
        let ids = self.keys_left(under, ids);
        if ids.is_empty() {
            // It was done: what lies there now came later, and has keys of its own.
            self.leaving.write().remove(&under);
            return Ok(0);
        }
        let gone: Vec<Arc<Held>> = {
            let entities = self.entities.read();
            let goes = |number: &u64| match under {
                Under::Hub | Under::Inbox => false,
                Under::Dataset(dataset) => entities.dataset_of(*number) == Some(dataset),
                Under::Subject(dataset, subject) => {
                    *number == subject && entities.dataset_of(*number) == Some(dataset)
                }
            };
            entities.all(0).filter(goes).filter_map(|number| entities.peek(number)).collect()
        };
        let mut writes = self.engine.writes();
        for held in &gone {
            self.engine.remove(&mut writes, Table::Meta, &self.id_key(&held.entity.id));
        }
        self.write(writes)?;
        self.drop_keys(&ids)?;
        self.parts.clear();
        let mut entities = self.entities.write();
        let mut history = self.history.write();
        if let Under::Dataset(dataset) = under {
            history.drop_segments(dataset);
        }
        for held in gone {
            held.series.iter().for_each(|one| history.drop_series(one.number));
            entities.remove(held.number);
        }
        // A seal that was planned before may hold rows that nothing encrypts any more.
        if let Under::Dataset(dataset) | Under::Subject(dataset, _) = under {
            history.forgotten_at.insert(dataset, self.next_commit());
        }
        // Until here no seal is planned of what goes.
        drop((entities, history));
        self.leaving.write().remove(&under);
        Ok(ids.len())
    }

    /// Closes in order: what only the operating system holds is made durable.
    pub fn close(&self) {
        if !self.is_poisoned()
            && let Err(error) = self.engine.persist()
        {
            tracing::error!(%error, "the store cannot be closed in order");
        }
        self.sync_position();
    }
}

/// The rows of one dataset as blobs: one, or one a subject.
pub(crate) fn blobs_of(rows: &[Row], per_subject: bool, time: Time) -> BTreeMap<u64, Blob> {
    let mut blobs: BTreeMap<u64, Blob> = BTreeMap::new();
    for row in rows {
        let blob = blobs.entry(if per_subject { row.entity } else { 0 }).or_default();
        blob.time = time.0;
        match &row.value {
            RowValue::Number(value) => {
                blob.series.push(row.series);
                blob.at.push(row.at.0);
                blob.value.push(*value);
            }
            RowValue::Rich(instance) => blob.rich.push(RichPoint {
                series: row.series,
                at: row.at.0,
                instance: instance.as_ref().clone(),
            }),
        }
    }
    blobs
}

impl Store {
    /// Keyed digest of an entity's state: what records commit to.
    pub fn state_digest(
        &self,
        under: Under,
        number: u64,
        packed: &Packed,
        deleted: Option<Time>,
    ) -> Hash {
        let (number, deleted) = (codec::encode(&number), codec::encode(&deleted));
        let parts = [number.as_slice(), packed.bytes(), &deleted];
        self.digest_key(under).map_or([0; 32], |key| vault::keyed_digest(&key, &parts))
    }

    /// Encodes the rows of one dataset in a commit, once: to be digested, encrypted and written.
    pub fn encode_rows(&self, dataset: u32, per_subject: bool, rows: Vec<Row>, time: Time) -> Rows {
        let encode = |(subject, blob): (u64, Blob)| {
            let plain = blob.encode();
            let key = self.digest_key(Under::of(dataset, per_subject, subject));
            let digest = key.map_or([0; 32], |key| vault::keyed_digest(&key, &[&plain]));
            Encoded { subject, plain, digest }
        };
        let blobs = blobs_of(&rows, per_subject, time).into_iter().map(encode).collect();
        Rows { dataset, per_subject, rows, blobs }
    }

    /// Keyed digests of what one writer brought to one dataset, one a subject: what its receipt
    /// stands for.
    pub fn rows_digests(&self, dataset: u32, per_subject: bool, rows: &[Row]) -> Vec<Hash> {
        let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for row in rows {
            let subject = if per_subject { row.entity } else { 0 };
            let part = parts.entry(subject).or_insert_with(|| Vec::with_capacity(32 * rows.len()));
            part.extend_from_slice(&row.entity.to_be_bytes());
            part.extend_from_slice(&row.series.to_be_bytes());
            part.extend_from_slice(&row.at.0.to_be_bytes());
            match &row.value {
                RowValue::Number(number) => part.extend_from_slice(&number.to_be_bytes()),
                RowValue::Rich(instance) => part.extend(codec::encode(instance)),
            }
        }
        let digest = |(subject, part): (u64, Vec<u8>)| {
            let key = self.digest_key(Under::of(dataset, per_subject, subject))?;
            Some(vault::keyed_digest(&key, &[&part]))
        };
        parts.into_iter().filter_map(digest).collect()
    }
}

impl Store {
    /// Shows states in memory that are not on disk: what went to the ring while writes fail.
    pub fn show(&self, states: impl Iterator<Item = (u64, Arc<Entity>)>) {
        let mut entities = self.entities.write();
        for (number, entity) in states {
            entities.set_state(number, &entity);
        }
    }
}
