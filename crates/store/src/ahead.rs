//! Chunks that are written ahead of the commit that names them.
//!
//! A seal may be of more than memory holds. What it makes goes to disk as it is made, with a note of
//! what that is; the commit that names it takes the notes away. What is noted and never named is
//! cleaned away before the next seal of its dataset: a plan that did not fit any more, or a process
//! that ended meanwhile.

use crate::batch::Under;
use crate::codec;
use crate::engine::{Table, Writes};
use crate::store::number_at;
use crate::{Store, StoreError};
use std::collections::HashSet;

/// Bytes that are written at a time.
const AT_ONCE: usize = 4 << 20;

/// `ahead/`, dataset, generation, number of the note: the keys of chunks.
const NOTES: &[u8] = b"ahead/";

fn notes_of(dataset: u32, generation: u32) -> Vec<u8> {
    [NOTES, &dataset.to_be_bytes(), &generation.to_be_bytes()].concat()
}

fn note_key(dataset: u32, generation: u32, note: u32) -> Vec<u8> {
    [notes_of(dataset, generation).as_slice(), &note.to_be_bytes()].concat()
}

/// Chunks of one generation, written as they come.
pub struct Ahead<'a> {
    store: &'a Store,
    dataset: u32,
    generation: u32,
    writes: Writes,
    keys: Vec<Vec<u8>>,
    bytes: usize,
    notes: u32,
    /// The ids of the keys that they lie under.
    under: HashSet<[u8; 4]>,
}

impl Ahead<'_> {
    /// Adds a chunk.
    pub fn put(&mut self, key: &[u8], plain: &[u8]) -> Result<(), StoreError> {
        let sealed = self.store.seal(Table::Chunk, key, Under::Dataset(self.dataset), plain)?;
        self.under.insert(number_at(&sealed, 0));
        self.bytes += sealed.len();
        self.store.engine().put(&mut self.writes, Table::Chunk, key, sealed);
        self.keys.push(key.to_vec());
        if self.bytes < AT_ONCE { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let engine = self.store.engine();
        let mut writes = std::mem::replace(&mut self.writes, engine.writes());
        let note = note_key(self.dataset, self.generation, self.notes);
        let keys = std::mem::take(&mut self.keys);
        engine.put(&mut writes, Table::Meta, &note, codec::encode(&keys));
        (self.notes, self.bytes) = (self.notes + 1, 0);
        self.store.check_room()?;
        self.store.write(writes)
    }

    /// Writes the rest. Gives how many notes there are; none when not all lies under this key.
    pub fn finish(mut self, key: u32) -> Result<Option<u32>, StoreError> {
        self.flush()?;
        let fits = self.under.iter().all(|id| *id == key.to_be_bytes());
        Ok(fits.then_some(self.notes))
    }
}

impl Store {
    /// Begins to write chunks of a generation that nothing names yet, once what no plan of the dataset
    /// came to name is cleaned away.
    pub(crate) fn write_ahead(
        &self,
        dataset: u32,
        generation: u32,
    ) -> Result<Ahead<'_>, StoreError> {
        let mut notes = Vec::new();
        let of_dataset = [NOTES, &dataset.to_be_bytes()].concat();
        self.engine().scan(Table::Meta, &of_dataset, |key, keys| {
            notes.push((key.to_vec(), codec::decode::<Vec<Vec<u8>>>(keys, "a note of chunks")?));
            Ok(())
        })?;
        for (note, keys) in notes {
            let mut writes = self.engine().writes();
            keys.iter().for_each(|key| self.engine().remove(&mut writes, Table::Chunk, key));
            self.engine().remove(&mut writes, Table::Meta, &note);
            self.write(writes)?;
        }
        Ok(Ahead {
            store: self,
            dataset,
            generation,
            writes: self.engine().writes(),
            keys: Vec::new(),
            bytes: 0,
            notes: 0,
            under: HashSet::new(),
        })
    }

    /// What these notes tell of is named from now on.
    pub(crate) fn forget_notes(
        &self,
        writes: &mut Writes,
        dataset: u32,
        generation: u32,
        notes: u32,
    ) {
        for note in 0..notes {
            self.engine().remove(writes, Table::Meta, &note_key(dataset, generation, note));
        }
    }

    /// Keys of chunks that nothing names yet, and the generations of which they are.
    pub(crate) fn unnamed(&self) -> Result<Unnamed, StoreError> {
        let mut found = Unnamed::default();
        self.engine().scan(Table::Meta, NOTES, |key, keys| {
            let at = NOTES.len();
            let (dataset, generation) = (number_at(key, at), number_at(key, at + 4));
            let of = (u32::from_be_bytes(dataset), u32::from_be_bytes(generation));
            found.generations.insert(of);
            found.chunks.extend(codec::decode::<Vec<Vec<u8>>>(keys, "a note of chunks")?);
            Ok(())
        })?;
        Ok(found)
    }
}

/// What was written ahead, and is not named yet.
#[derive(Default)]
pub struct Unnamed {
    pub chunks: HashSet<Vec<u8>>,
    /// Dataset and generation.
    pub generations: HashSet<(u32, u32)>,
}
