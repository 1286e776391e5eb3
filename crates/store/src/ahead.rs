//! Chunks that are written ahead of the commit that names them.
//!
//! A seal may be of more than memory holds. What it makes goes to disk as it is made, with a note of
//! what that is; the commit that names it takes the notes away. What is noted and will not be named is
//! cleaned away: of a plan that did not fit any more, or of a process that ended meanwhile.

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
    /// The key that all of them lie under.
    key: Option<u32>,
}

impl Ahead<'_> {
    /// Adds a chunk.
    ///
    /// # Errors
    /// When the dataset got another key meanwhile: what was deleted with the old one would outlive it.
    pub fn put(&mut self, key: &[u8], plain: &[u8]) -> Result<(), StoreError> {
        let sealed = self.store.seal(Table::Chunk, key, Under::Dataset(self.dataset), plain)?;
        if Some(u32::from_be_bytes(number_at(&sealed, 0))) != self.key {
            return Err(StoreError::NoKey(format!("dataset {} as it was", self.dataset)));
        }
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
        // More than others need: a seal is in nobody's way.
        self.store.check_room(2)?;
        self.store.write(writes)
    }

    /// Writes the rest. Gives how many notes there are.
    pub fn finish(mut self) -> Result<u32, StoreError> {
        self.flush()?;
        Ok(self.notes)
    }
}

impl Store {
    /// Begins to write chunks of a generation that nothing names yet.
    pub(crate) fn write_ahead(&self, dataset: u32, generation: u32, key: Option<u32>) -> Ahead<'_> {
        let writes = self.engine().writes();
        Ahead {
            store: self,
            dataset,
            generation,
            writes,
            keys: Vec::new(),
            bytes: 0,
            notes: 0,
            key,
        }
    }

    /// Cleans away what was written ahead and will not be named, when there is a little room.
    ///
    /// # Errors
    /// When the engine cannot read or write.
    pub fn clean_ahead(&self) -> Result<(), StoreError> {
        let _alone = self.planning.lock();
        for (dataset, _) in self.unnamed()?.generations {
            self.clean_ahead_of(dataset)?;
        }
        Ok(())
    }

    /// The same of one dataset, by who holds `planning`.
    pub(crate) fn clean_ahead_of(&self, dataset: u32) -> Result<(), StoreError> {
        // First this, then the notes: those of a plan that is committed in between are gone by then.
        if self.histories().read().is_planned(dataset) || self.check_room_for_less().is_err() {
            return Ok(());
        }
        // What is encrypted anew meanwhile would come back.
        let _alone = self.rewrapping.lock();
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
        Ok(())
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
