//! The storage engine: `fjall`, wrapped so that its types and traps stay in this file.
//!
//! Only batches write (single operations can brick the engine), every batch is fsynced, and a
//! failed one poisons the store: it is never tried again on the same file.

use crate::StoreError;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, UserKey, UserValue,
};
use std::ops::Bound;
use std::path::Path;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Meta = 0,
    /// Entities: dataset, number.
    Entity = 1,
    /// Observations not yet sealed: dataset, commit, subject.
    Recent = 2,
    /// Sealed chunks: dataset, series, generation.
    Chunk = 3,
    /// Manifests of sealed chunks, what was forgotten, and retention, by dataset.
    Manifest = 4,
    /// Leaves and tiles of the log.
    Log = 5,
    /// Records by index.
    Record = 6,
    /// Documents by keyed hash.
    Document = 7,
}

const NAMES: [&str; 8] =
    ["meta", "entity", "recent", "chunk", "manifest", "log", "record", "document"];

/// Bytes of the engine's journal before old parts are flushed.
const MAX_JOURNAL_BYTES: u64 = 128 << 20;
/// Bytes of the block cache.
const CACHE_BYTES: u64 = 32 << 20;

pub struct Engine {
    database: Database,
    tables: Vec<Keyspace>,
}

pub struct Writes(OwnedWriteBatch);

/// A key and its value, as the engine read them.
pub struct Item((UserKey, UserValue));

impl Item {
    pub fn key(&self) -> &[u8] {
        &self.0.0
    }

    pub fn value(&self) -> &[u8] {
        &self.0.1
    }
}

fn failed(error: fjall::Error) -> StoreError {
    StoreError::Engine(error.to_string())
}

fn table_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        // What is encrypted does not compress.
        .data_block_compression_policy(fjall::config::CompressionPolicy::disabled())
}

/// Compares each table's manifest with the checksum that the engine keeps of it and does not check.
fn check_manifests(directory: &Path) -> Result<(), StoreError> {
    let damaged =
        |path: &Path| StoreError::Damaged(format!("the engine's manifest `{}`", path.display()));
    // What is not there is the engine's to say.
    let Ok(tables) = std::fs::read_dir(directory.join("keyspaces")) else { return Ok(()) };
    for table in tables.flatten() {
        let current = table.path().join("current");
        // Without it the engine would take the table away.
        let bytes = match std::fs::read(&current) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged(&current));
            }
            read => read.map_err(|error| StoreError::File(current.display().to_string(), error))?,
        };
        // Which version, its XXH3 of 128 bits, and that it is one.
        let (Some(version), Some(sum), Some([0])) =
            (bytes.first_chunk(), bytes.get(8..24), bytes.get(24..))
        else {
            return Err(damaged(&current));
        };
        let manifest = table.path().join(format!("v{}", u64::from_le_bytes(*version)));
        let content = std::fs::read(&manifest).map_err(|_| damaged(&manifest))?;
        if xxhash_rust::xxh3::xxh3_128(&content).to_le_bytes() != sum {
            return Err(damaged(&manifest));
        }
    }
    Ok(())
}

impl Engine {
    /// Opens the tables; makes them, all or none, where there are none yet.
    pub fn open(directory: &Path, memtable_bytes: u64) -> Result<Engine, StoreError> {
        let options = || table_options(memtable_bytes);
        if !directory.exists() {
            Self::make(directory, options)?;
        }
        let database = Self::database(directory)?;
        let open = |name: &&str| {
            // The engine would make an empty one, and drop what its journal has for the old.
            if !database.keyspace_exists(name) {
                return Err(StoreError::Damaged(format!("the engine: its table `{name}`")));
            }
            database.keyspace(name, options).map_err(failed)
        };
        let tables = NAMES.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Engine { database, tables })
    }

    /// Makes the tables beside, and gives them their name when they are all there for good: the
    /// engine itself does not make the names of its directories durable.
    fn make(
        directory: &Path,
        options: impl Fn() -> KeyspaceCreateOptions,
    ) -> Result<(), StoreError> {
        let beside = directory.with_extension("new");
        drop(std::fs::remove_dir_all(&beside));
        let database = Self::database(&beside)?;
        for name in NAMES {
            drop(database.keyspace(name, &options).map_err(failed)?);
        }
        database.persist(PersistMode::SyncAll).map_err(failed)?;
        drop(database);
        crate::files::sync_directories(&beside)?;
        crate::files::rename(&beside, directory)
    }

    fn database(directory: &Path) -> Result<Database, StoreError> {
        let open = || {
            Database::builder(directory)
                .max_journaling_size(MAX_JOURNAL_BYTES)
                .journal_compression(fjall::CompressionType::None)
                // With more, an idle worker spins while another compacts.
                .worker_threads(1)
                .cache_size(CACHE_BYTES)
                .open()
        };
        // The engine asserts what it reads. On a damaged file that must not end the process: what it
        // asserts under its locks is checked before, for there it panics again while it unwinds.
        check_manifests(directory)?;
        crate::torn::check(directory)?;
        let open = || {
            std::panic::catch_unwind(open).map_err(|_| {
                StoreError::Damaged(format!("the engine's files in `{}`", directory.display()))
            })
        };
        let opened = match open()? {
            Err(fjall::Error::JournalRecovery(_)) if crate::torn::cut(directory)? => open()?,
            opened => opened,
        };
        opened.map_err(|error| match error {
            fjall::Error::Locked => StoreError::Locked(directory.display().to_string()),
            other => failed(other),
        })
    }

    pub fn writes(&self) -> Writes {
        Writes(self.database.batch().durability(Some(PersistMode::SyncData)))
    }

    /// Commits and fsyncs.
    pub fn commit(&self, writes: Writes) -> Result<(), StoreError> {
        writes.0.commit().map_err(failed)
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.tables[table as usize].get(key).map_err(failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Calls `each` with every key and value whose key starts with `prefix`, in order.
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.items(table, prefix).try_for_each(|item| item.and_then(|i| each(i.key(), i.value())))
    }

    /// The same as a sequence of what may be kept.
    pub fn items(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<Item, StoreError>> {
        let item = |guard: fjall::Guard| guard.into_inner().map(Item).map_err(failed);
        self.tables[table as usize].prefix(prefix).map(item)
    }

    /// The same from after a key on, until `each` says false; whether it never did.
    pub fn scan_after(
        &self,
        table: Table,
        prefix: &[u8],
        after: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let from = if after.is_empty() { Bound::Included(prefix) } else { Bound::Excluded(after) };
        for item in self.tables[table as usize].range::<&[u8], _>((from, Bound::Unbounded)) {
            let (key, value) = item.into_inner().map_err(failed)?;
            if !key.starts_with(prefix) {
                break;
            }
            if !each(&key, &value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn put(&self, writes: &mut Writes, table: Table, key: &[u8], value: Vec<u8>) {
        writes.0.insert(&self.tables[table as usize], key, value);
    }

    pub fn remove(&self, writes: &mut Writes, table: Table, key: &[u8]) {
        writes.0.remove(&self.tables[table as usize], key);
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    /// Makes everything durable, also what the file system knows of the files.
    pub fn persist(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_manifest_is_named_and_never_opened() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        drop(Engine::open(&root, 64 << 20).unwrap());
        let table = root.join("keyspaces/3");
        let entries = std::fs::read_dir(&table).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = entries.filter(|path| path.is_file()).collect();
        assert_eq!(files.len(), 2, "a manifest, and which it is: {files:?}");
        for path in files {
            let whole = std::fs::read(&path).unwrap();
            let refused = |bytes: &[u8], what: &str| {
                std::fs::write(&path, bytes).unwrap();
                let error = Engine::open(&root, 64 << 20).err().expect(what).to_string();
                assert!(error.contains("manifest"), "{what}: {error}");
            };
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                refused(&bytes, &format!("{}: byte {at} flipped", path.display()));
                refused(&whole[..at], &format!("{}: cut at {at}", path.display()));
            }
            std::fs::write(&path, &whole).unwrap();
        }
        Engine::open(&root, 64 << 20).unwrap();
    }
}
