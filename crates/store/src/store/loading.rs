//! Opening: what lies on disk becomes what is held in memory.

use super::{FORGOTTEN, MANIFEST, RETAINED, SEGMENTS, number_at};
use crate::codec::{self, Blob, EntityDoc, Forgotten, Manifest, Segments};
use crate::engine::{Item, Table};
use crate::entities::Stored;
use crate::{Step, Store, StoreError};
use model::Time;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use vault::Scope;

/// Takes what came of opening a part of a table.
type Sender<T> = flume::Sender<Result<Vec<T>, StoreError>>;
/// Encrypted bytes that are opened together, by one processor.
const OPENED_AT_ONCE: usize = 256 << 10;

impl Store {
    pub(super) fn load(&self) -> Result<(), StoreError> {
        let mut documents = self.documents.write();
        self.engine.scan(Table::Document, b"", |key, sealed| {
            let Some(plain) = self.unseal_if_open(Table::Document, key, sealed)? else {
                let id = u32::from_be_bytes(number_at(sealed, 0));
                if self.keyring.read().scope(id) == Some(Scope::Inbox) {
                    self.inbox.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(());
            };
            let (kind, name, body): (u8, String, Vec<u8>) = codec::decode(&plain, "a document")?;
            documents.insert((kind, name), body.into());
            Ok(())
        })?;
        let mut entities = self.entities.write();
        let mut history = self.history.write();
        // Known from the last commit: growing by halves would take, and fill, twice the memory.
        let known = |count: &AtomicU64| usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(0);
        entities.reserve(known(&self.next_entity));
        history.reserve(known(&self.next_series));
        let decode = |_: &[u8], plain: &[u8]| {
            let (doc, packed, _) = EntityDoc::decode(plain)?;
            Ok((doc, packed))
        };
        self.open_table(Table::Entity, decode, |(doc, packed)| {
            for series in &doc.series {
                history.set_owner(series.number, doc.dataset, doc.number);
            }
            let stored = Stored {
                number: doc.number,
                dataset: doc.dataset,
                per_subject: doc.per_subject,
                deleted: doc.deleted,
                commit: doc.commit,
                packed,
            };
            entities.put(stored, &doc.entity, &doc.series);
        })?;
        let mut forgotten: HashMap<u32, Forgotten> = HashMap::new();
        let mut manifests = Vec::new();
        let mut segments = Vec::new();
        self.engine.scan(Table::Manifest, b"", |key, sealed| {
            let dataset = u32::from_be_bytes(number_at(key, 0));
            let Some(plain) = self.unseal_if_open(Table::Manifest, key, sealed)? else {
                // Its number is not given again, though what it lists is gone or closed.
                if matches!(key.get(4), Some(&MANIFEST | &SEGMENTS)) {
                    history.note_generation(dataset, u32::from_be_bytes(number_at(key, 5)));
                }
                return Ok(());
            };
            match key.get(4) {
                Some(&FORGOTTEN) => {
                    let entry: Forgotten = codec::decode(&plain, "a list of forgotten series")?;
                    history.note_generation(dataset, entry.generation);
                    forgotten.insert(entry.series, entry);
                }
                Some(&RETAINED) => {
                    history.retained.insert(dataset, codec::decode(&plain, "a retention")?);
                }
                Some(&SEGMENTS) => {
                    segments.push((dataset, codec::decode::<Segments>(&plain, "a manifest")?));
                }
                _ => manifests.push((dataset, codec::decode::<Manifest>(&plain, "a manifest")?)),
            }
            Ok(())
        })?;
        for (dataset, mut manifest) in manifests {
            let floor = history.floor(dataset);
            let generation = manifest.generation;
            manifest.chunks.retain(|chunk| {
                let kept = forgotten.get(&chunk.series).is_none_or(|f| generation > f.generation);
                kept && chunk.last >= floor
            });
            history.add_manifest(dataset, &manifest);
        }
        // Keys are in the order of generations.
        for (dataset, segments) in segments {
            history.add_segments(dataset, segments, None);
        }
        for (dataset, generation) in self.unnamed()?.generations {
            history.note_generation(dataset, generation);
        }
        for entry in forgotten.values() {
            history.set_forgotten(entry.series, entry.generation);
        }
        // In the order of commits across datasets, so that states end as they were.
        let mut last_series = history.next_series();
        let decode = |key: &[u8], plain: &[u8]| {
            let dataset = u32::from_be_bytes(number_at(key, 0));
            Ok((dataset, u64::from_be_bytes(number_at(key, 4)), Blob::decode(plain)?))
        };
        self.open_table(Table::Recent, decode, |(dataset, commit, blob): (_, _, Blob)| {
            let floor = history.floor(dataset);
            let (numbers, rich) = (blob.at.iter(), blob.rich.iter().map(|point| &point.at));
            if numbers.chain(rich).any(|at| *at < floor) {
                history.expired.insert(dataset);
            }
            let live = |series: u32, at: i64| {
                at >= floor && forgotten.get(&series).is_none_or(|f| commit > f.commit)
            };
            for ((series, at), value) in blob.series.iter().zip(&blob.at).zip(&blob.value) {
                last_series = last_series.max(series + 1);
                // Rows written anew by a seal are older than the documents written with it.
                if let Some((_, entity)) = history.owner(*series).filter(|_| blob.time != 0) {
                    let (series, at) = (*series, Some(Time(*at)));
                    let step = Step { entity, series, at, value: *value };
                    entities.replay(&step, commit, Time(blob.time));
                }
                if live(*series, *at) {
                    history.put_number(*series, *at, *value);
                }
            }
            let mut bytes = 0;
            for point in &blob.rich {
                last_series = last_series.max(point.series + 1);
                if live(point.series, point.at) {
                    bytes += history.put_rich(point.series, point.at, &point.instance);
                }
            }
            let points = blob.series.len() + blob.rich.len();
            history.note_blob(dataset, commit, points, bytes);
        })?;
        self.next_series.fetch_max(u64::from(last_series), Ordering::Relaxed);
        self.next_entity.fetch_max(entities.next_number(), Ordering::Relaxed);
        if self.is_sealed() {
            self.load_closed()?;
        }
        Ok(())
    }

    /// Reads, decrypts and decodes a table on every processor there is while the caller takes, in the
    /// table's order, what is. What lies under a key that is not here is left out.
    fn open_table<T: Send>(
        &self,
        table: Table,
        decode: impl Fn(&[u8], &[u8]) -> Result<T, StoreError> + Sync,
        mut take: impl FnMut(T),
    ) -> Result<(), StoreError> {
        let open = |part: Vec<Item>| -> Result<Vec<T>, StoreError> {
            let mut opened = Vec::with_capacity(part.len());
            for item in &part {
                if let Some(plain) = self.unseal_if_open(table, item.key(), item.value())? {
                    opened.push(decode(item.key(), &plain)?);
                }
            }
            Ok(opened)
        };
        let open = &open;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            // What comes of each part is awaited in the order of the parts.
            let (read, to_open) = flume::bounded::<(Vec<Item>, Sender<T>)>(threads);
            let (next, opened) = flume::bounded(2 * threads);
            for _ in 0..threads {
                let to_open = to_open.clone();
                scope.spawn(move || {
                    for (part, opened) in to_open {
                        // Nobody takes any more when the caller met an error.
                        drop(opened.send(open(part)));
                    }
                });
            }
            drop(to_open);
            let reader = scope.spawn(move || {
                let gone = || StoreError::Damaged(format!("table {table:?}: reading stopped"));
                let send = |part: &mut Vec<Item>| {
                    let (opened, taken) = flume::bounded(1);
                    next.send(taken).map_err(|_| gone())?;
                    read.send((std::mem::take(part), opened)).map_err(|_| gone())
                };
                let (mut part, mut bytes) = (Vec::new(), 0);
                for item in self.engine.items(table, b"") {
                    let item = item?;
                    bytes += item.value().len();
                    part.push(item);
                    if bytes >= OPENED_AT_ONCE {
                        bytes = 0;
                        send(&mut part)?;
                    }
                }
                send(&mut part)
            });
            let ended = || StoreError::Damaged(format!("table {table:?}"));
            for part in opened {
                part.recv().map_err(|_| ended())??.into_iter().for_each(&mut take);
            }
            reader.join().map_err(|_| ended())?
        })
    }

    fn load_closed(&self) -> Result<(), StoreError> {
        let mut closed = self.closed.write();
        self.engine.scan(Table::Meta, b"id/", |key, dataset| {
            closed.insert(number_at(key, 3), u32::from_be_bytes(number_at(dataset, 0)));
            Ok(())
        })
    }
}
