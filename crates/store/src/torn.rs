//! The end of the engine's journal, as a power cut may leave it. The engine cuts off a last batch
//! that is short; one of which the middle did not reach the disk, and the end did, it takes for
//! damage and does not open. No more than the last batch can be so, for each is fsynced before the
//! next: it was never acknowledged, or the position beside the store says what is missing.

use crate::StoreError;
use std::fs::OpenOptions;
use std::path::Path;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// What the engine closes a batch with.
const TRAILER: &[u8] = b"FJL\x03";

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

/// The length of the whole and sound batch that `bytes` begin with.
fn batch(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    if take(&mut rest, 1)? != [START] {
        return None;
    }
    let items = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
    take(&mut rest, 8)?;
    let from = rest;
    for _ in 0..items {
        // Tag, kind, compression (none), table; then how long key, value and written value are.
        let head = take(&mut rest, 11)?;
        if head[0] != ITEM || head[2] != 0 {
            return None;
        }
        let key = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
        let value = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
        if take(&mut rest, 4)? != value.to_le_bytes() {
            return None;
        }
        take(&mut rest, usize::from(key).checked_add(value as usize)?)?;
    }
    let written = &from[..from.len() - rest.len()];
    let checksum = xxhash_rust::xxh3::xxh3_64(written).to_le_bytes();
    let sound = take(&mut rest, 1)? == [END]
        && take(&mut rest, 8)? == checksum
        && take(&mut rest, TRAILER.len())? == TRAILER;
    sound.then(|| bytes.len() - rest.len())
}

/// Where the last batch begins, if it is unsound and nothing sound comes after it.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(length) = batch(&bytes[at..]) {
        at += length;
    }
    let sound_after = (at + 1..bytes.len()).any(|later| batch(&bytes[later..]).is_some());
    (at < bytes.len() && !sound_after).then_some(at)
}

/// Cuts an unsound last batch off the newest journal in a directory; false when there is none.
///
/// # Errors
/// When a file cannot be read or written.
pub fn cut(directory: &Path) -> Result<bool, StoreError> {
    let wrong = |path: &Path, error| StoreError::File(path.display().to_string(), error);
    let entries = std::fs::read_dir(directory).map_err(|error| wrong(directory, error))?;
    let number = |path: &Path| {
        let journal = path.extension().is_some_and(|extension| extension == "jnl");
        path.file_stem()?.to_str()?.parse::<u64>().ok().filter(|_| journal)
    };
    let newest =
        entries.flatten().filter_map(|entry| Some((number(&entry.path())?, entry.path()))).max();
    let Some((_, path)) = newest else { return Ok(false) };
    let bytes = std::fs::read(&path).map_err(|error| wrong(&path, error))?;
    let Some(at) = torn_at(&bytes) else { return Ok(false) };
    let cut = || {
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(at as u64)?;
        file.sync_all()
    };
    cut().map_err(|error| wrong(&path, error))?;
    tracing::warn!(at, journal = %path.display(), "a batch that was not made durable is cut off");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Table};

    #[test]
    fn a_torn_last_batch_is_cut_off_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let engine = Engine::open(&root).unwrap();
        let journal = root.join("0.jnl");
        let mut ends = vec![std::fs::read(&journal).unwrap().len()];
        for n in 0..3u8 {
            let mut writes = engine.writes();
            engine.put(&mut writes, Table::Meta, &[n], vec![n + 1; 3_000]);
            engine.put(&mut writes, Table::Record, &[n], vec![n + 1; 10]);
            engine.commit(writes).unwrap();
            ends.push(std::fs::read(&journal).unwrap().len());
        }
        drop(engine);
        let whole = std::fs::read(&journal).unwrap();
        assert_eq!((whole.len(), torn_at(&whole)), (ends[3], None), "the engine's own is sound");
        let torn = |from: usize| {
            let mut bytes = whole.clone();
            bytes[from + 100..from + 612].fill(0);
            bytes
        };
        // In the middle it is damage, which is not for us to take away.
        let damaged = torn(ends[1]);
        assert_eq!(torn_at(&damaged), None);
        std::fs::write(&journal, &damaged).unwrap();
        assert!(Engine::open(&root).is_err());
        assert!(std::fs::read(&journal).unwrap() == damaged, "a refusal changes nothing");
        std::fs::write(&journal, torn(ends[2])).unwrap();
        let engine = Engine::open(&root).unwrap();
        assert_eq!(engine.get(Table::Meta, &[1]).unwrap(), Some(vec![2; 3_000]));
        assert_eq!(engine.get(Table::Meta, &[2]).unwrap(), None);
        assert_eq!(engine.get(Table::Record, &[2]).unwrap(), None, "all of a batch or nothing");
    }
}
