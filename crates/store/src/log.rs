//! The log's leaves, tiles and records on disk.

use crate::engine::{Engine, Table, Writes};
use crate::{Store, StoreError};
use journal::{Hash, HashReader, TILE_WIDTH, TileKind, TilePath, leaf_hash};

/// Key of a leaf: after all levels.
pub fn leaf_key(index: u64) -> [u8; 9] {
    tile_key(u8::MAX, index)
}

pub fn tile_key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Reads the log as it lies on disk.
pub struct LogReader<'a> {
    pub(crate) engine: &'a Engine,
}

impl LogReader<'_> {
    /// The commitment of a record.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.engine.get(Table::Log, &leaf_key(index)).ok()??.try_into().ok()
    }

    /// The bytes of a tile of a log of `size` leaves; none when it has no such tile.
    pub fn tile(&self, path: TilePath, size: u64) -> Option<Vec<u8>> {
        let start = path.index.checked_mul(TILE_WIDTH)?;
        let end = start.checked_add(path.width)?;
        match path.kind {
            TileKind::Entries => {
                let leaves: Option<Vec<Hash>> =
                    (start..end.min(size + 1)).map(|index| self.leaf(index)).collect();
                (end <= size).then(|| leaves.map(|leaves| journal::entries_bundle(&leaves)))?
            }
            TileKind::Hashes(level) => {
                let count = (0..level).fold(size, |count, _| count / TILE_WIDTH);
                if end > count {
                    return None;
                }
                let hashes: Option<Vec<Hash>> =
                    (start..end).map(|index| self.hash(level, index)).collect();
                hashes.map(|hashes| hashes.concat())
            }
        }
    }
}

impl HashReader for LogReader<'_> {
    fn hash(&self, level: u8, index: u64) -> Option<Hash> {
        let tile = self.engine.get(Table::Log, &tile_key(level, index / TILE_WIDTH)).ok()?;
        if let Some(tile) = tile {
            let at = usize::try_from(index % TILE_WIDTH).ok()? * 32;
            return tile.get(at..at + 32)?.try_into().ok();
        }
        if level == 0 {
            return self.leaf(index).map(|leaf| leaf_hash(&leaf));
        }
        let below = self.engine.get(Table::Log, &tile_key(level - 1, index)).ok()??;
        let mut hashes: Vec<Hash> =
            below.chunks(32).map(|hash| hash.try_into().ok()).collect::<Option<_>>()?;
        while hashes.len() > 1 {
            hashes = hashes.chunks(2).map(|pair| journal::node_hash(&pair[0], &pair[1])).collect();
        }
        hashes.pop()
    }
}

/// Writes a leaf and the tiles it completes.
pub fn write_leaf(
    engine: &Engine,
    writes: &mut Writes,
    tree: &mut journal::Tree,
    commitment: &Hash,
) {
    engine.put(writes, Table::Log, &leaf_key(tree.size()), commitment.to_vec());
    for (level, index, hashes) in tree.push(commitment) {
        engine.put(writes, Table::Log, &tile_key(level, index), hashes.concat());
    }
}

impl Store {
    /// The log on disk.
    pub fn log(&self) -> LogReader<'_> {
        LogReader { engine: self.engine() }
    }

    /// Salt and record by index; none when it was shredded or never was.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn record(&self, index: u64) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        let key = index.to_be_bytes();
        let Some(sealed) = self.engine().get(Table::Record, &key)? else { return Ok(None) };
        let plain = self.unseal(Table::Record, &key, &sealed)?;
        match plain.split_first_chunk::<32>() {
            Some((salt, record)) => Ok(Some((*salt, record.to_vec()))),
            None => Err(StoreError::Damaged(format!("record {index}"))),
        }
    }
}
