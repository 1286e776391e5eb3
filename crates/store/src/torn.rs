//! The end of the engine's journal, as a power cut may leave it. The engine cuts off a last batch
//! that is short; one of which the middle did not reach the disk, and the end did, it takes for
//! damage and does not open. No more than the last batch can be so, for each is fsynced before the
//! next: it was never acknowledged, or the position beside the store says what is missing.

use crate::StoreError;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

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

fn wrong(path: &Path, error: std::io::Error) -> StoreError {
    StoreError::File(path.display().to_string(), error)
}

/// The engine's journals in a directory, oldest first.
fn journals(directory: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let number = |path: &Path| {
        let journal = path.extension().is_some_and(|extension| extension == "jnl");
        path.file_stem()?.to_str()?.parse::<u64>().ok().filter(|_| journal)
    };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| wrong(directory, error))?,
    };
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((number(&entry.path())?, entry.path())))
        .collect();
    all.sort();
    Ok(all)
}

/// What was ever written of a file: the engine makes room for its journals, which is long and empty.
fn written(path: &Path) -> std::io::Result<Vec<u8>> {
    use rustix::fs::SeekFrom;
    let file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut end = 0;
    loop {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(end)) {
            Ok(data) => data,
            // No more.
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that knows of no holes.
            Err(_) => {
                end = length;
                break;
            }
        };
        end = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap_or(length);
    }
    let mut bytes = vec![0; usize::try_from(end.min(length)).unwrap_or(0)];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Looks through the journals before the engine does: it takes whatever is damaged for the end of its file,
/// cuts that off, and goes on with the next one.
///
/// # Errors
/// When something sound comes after something that is not, or a file cannot be read.
pub fn check(directory: &Path) -> Result<(), StoreError> {
    let all = journals(directory)?;
    for (at, (_, path)) in all.iter().enumerate() {
        let bytes = written(path).map_err(|error| wrong(path, error))?;
        let mut end = 0;
        while let Some(length) = batch(&bytes[end..]) {
            end += length;
        }
        let rest = &bytes[end..];
        if rest.iter().all(|byte| *byte == 0) {
            continue;
        }
        // Only the last batch of all may be torn; the rest was safe before it was begun.
        let newest = at + 1 == all.len();
        let torn = newest && (1..rest.len()).all(|later| batch(&rest[later..]).is_none());
        if !torn {
            let what = format!("the engine's journal `{}`, at byte {end}", path.display());
            return Err(StoreError::Damaged(what));
        }
    }
    Ok(())
}

/// Cuts an unsound last batch off the newest journal in a directory; false when there is none.
///
/// # Errors
/// When a file cannot be read or written.
pub fn cut(directory: &Path) -> Result<bool, StoreError> {
    let Some((_, path)) = journals(directory)?.pop() else { return Ok(false) };
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
        let engine = Engine::open(&root, 64 << 20).unwrap();
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
        assert!(Engine::open(&root, 64 << 20).is_err());
        assert!(std::fs::read(&journal).unwrap() == damaged, "a refusal changes nothing");
        std::fs::write(&journal, torn(ends[2])).unwrap();
        let engine = Engine::open(&root, 64 << 20).unwrap();
        assert_eq!(engine.get(Table::Meta, &[1]).unwrap(), Some(vec![2; 3_000]));
        assert_eq!(engine.get(Table::Meta, &[2]).unwrap(), None);
        assert_eq!(engine.get(Table::Record, &[2]).unwrap(), None, "all of a batch or nothing");
    }

    /// The engine would cut an older journal off where it is damaged, and go on with the next.
    #[test]
    fn damage_before_the_last_batch_is_never_opened_over() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let engine = Engine::open(&root, 64 << 20).unwrap();
        for n in 0..2 {
            let mut writes = engine.writes();
            engine.put(&mut writes, Table::Meta, &[n], vec![1; 3_000]);
            engine.commit(writes).unwrap();
        }
        drop(engine);
        let whole = std::fs::read(root.join("0.jnl")).unwrap();
        let put = |name: &str, at: Option<usize>| {
            let mut bytes = whole.clone();
            at.iter().for_each(|at| bytes[*at] ^= 1);
            std::fs::write(root.join(name), bytes).unwrap();
        };
        let last = whole.len() - 100;
        put("0.jnl", Some(last));
        assert!(check(&root).is_ok(), "a last batch that is torn");
        put("1.jnl", None);
        assert!(matches!(check(&root), Err(StoreError::Damaged(_))), "it is not the last");
        put("0.jnl", None);
        put("1.jnl", Some(last));
        assert!(check(&root).is_ok());
        put("1.jnl", Some(whole.len() / 3));
        assert!(matches!(check(&root), Err(StoreError::Damaged(_))));
    }
}
