//! Sealing: open points of a dataset become compressed, encrypted chunks, off the writer's path.
//!
//! A plan is made from what is open at a commit, in any thread; only its last step is a commit. A
//! series with many points gets a chunk of its own; the short runs of all others go to segments
//! ([`crate::segment`]), together with those of younger generations that are not much larger.
//! Where each subject has a key of its own, points stay open and are written anew.

use crate::batch::{Row, RowValue, Rows, Under};
use crate::codec::{self, Blob, ChunkRef, Manifest, PartRef, Segments};
use crate::engine::{Table, Writes};
use crate::history::{History, Instances, LONG, Numbers, Open};
use crate::points::{RawPoint, RichPoint};
use crate::segment::{self, Builder, Generation, Place};
use crate::store::{MANIFEST, SEGMENTS, chunk_key, manifest_key, number_at};
use crate::{Store, StoreError};
use journal::Hash;
use model::{Instance, Time};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// When sealing is worth it.
#[derive(Clone, Copy, Debug)]
pub struct SealPlan {
    /// Points of a series before it gets a chunk of its own; twice as many are reason to seal.
    pub min_points: usize,
    /// Unsealed blobs of a dataset that are reason to seal.
    pub max_blobs: usize,
    /// Unsealed points of a dataset that are reason to seal, unless it has so many entities that
    /// writing all their documents would cost more than it gains.
    pub max_open: u64,
    /// Bytes of a dataset's unsealed whole instances that are reason to seal, as with points.
    pub max_open_bytes: u64,
    /// Points in one chunk, and in one blob that is written anew.
    pub max_part: usize,
    /// Numbers in one part of a segment: what a look at a short run has to read.
    pub segment_points: usize,
}

/// Points that are worth writing an entity's document anew for.
const POINTS_PER_DOCUMENT: u64 = 16;
const BYTES_PER_DOCUMENT: u64 = 256;

impl Default for SealPlan {
    fn default() -> Self {
        SealPlan {
            min_points: 256,
            max_blobs: 4_096,
            max_open: 1 << 20,
            max_open_bytes: 64 << 20,
            max_part: 1 << 20,
            segment_points: 8_192,
        }
    }
}

/// Where values lie under a dataset's keys.
const REWRAPPED: [Table; 5] =
    [Table::Entity, Table::Recent, Table::Chunk, Table::Manifest, Table::Document];
/// Values that are only looked at cost a step about as much as one that is encrypted anew.
const SEEN_FOR_ONE: usize = 8;

/// How far a dataset was encrypted anew.
#[derive(Clone, Debug)]
pub struct Rewrapped {
    /// The keys that are left behind.
    older: Vec<u32>,
    table: usize,
    after: Vec<u8>,
}

/// How a step of encrypting a dataset anew ended.
#[derive(Debug)]
pub enum Rewrap {
    GoesOn(Rewrapped),
    /// Nothing is left under these keys, and nothing ever will be.
    Done(Vec<u32>),
}

/// Sealed history, ready to be committed in place of open rows.
pub struct Sealed {
    pub dataset: u32,
    pub per_subject: bool,
    pub generation: u32,
    /// The last commit it covers.
    pub upto: u64,
    /// Keyed digest of the manifest of chunks; none when no chunk was made.
    pub chunks_digest: Option<Hash>,
    /// The same of the parts of segments.
    pub segments_digest: Option<Hash>,
    /// It stands for the generations of segments from this one on, too.
    pub merged: Option<u32>,
    /// Open points that it seals.
    pub points: usize,
    chunks: Vec<(ChunkRef, Vec<u8>)>,
    segments: Vec<(PartRef, Vec<u8>)>,
    gone: Vec<Generation>,
    /// What stays open, written anew in parts: as if it had come in the last commit covered.
    pub residual: Vec<Rows>,
    numbers: HashMap<u32, Numbers>,
    rich: HashMap<u32, Instances>,
}

impl Sealed {
    fn manifest(&self) -> Manifest {
        let chunks = self.chunks.iter().map(|(reference, _)| reference.clone()).collect();
        Manifest { generation: self.generation, chunks }
    }

    fn parts(&self) -> Segments {
        let parts = self.segments.iter().map(|(reference, _)| reference.clone()).collect();
        Segments { generation: self.generation, parts }
    }

    pub(crate) fn apply(self, history: &mut History) {
        if !self.chunks.is_empty() {
            history.add_manifest(self.dataset, &self.manifest());
        }
        history.add_segments(self.dataset, self.parts(), self.merged);
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
                let mut sealed = sealed.into_iter().peekable();
                run.retain(|point| {
                    while sealed.next_if(|before| before.0 < point.0).is_some() {}
                    sealed.next_if(|sealed| sealed == point).is_none()
                });
            }
        }
        history.long.remove(&self.dataset);
        history.expired.remove(&self.dataset);
        let blobs = history.blobs.entry(self.dataset).or_default();
        *blobs = blobs.split_off(&(self.upto + 1));
        let points: usize = self.residual.iter().map(|part| part.rows.len()).sum();
        if points > 0 {
            // Only of what is about people something is left, which no seal makes less.
            history.note_blob(self.dataset, self.upto, points, 0);
        }
    }
}

/// What one seal is made of, while it is made.
struct Making<'a> {
    sealed: Sealed,
    when: SealPlan,
    floor: i64,
    rest: Vec<Row>,
    builder: Builder,
    older: Vec<Older<'a>>,
}

/// A generation of segments that is merged, read part by part.
struct Older<'a> {
    store: &'a Store,
    dataset: u32,
    generation: Generation,
    next: usize,
    part: Blob,
    numbers: usize,
    rich: usize,
}

impl Older<'_> {
    /// The next series of which there are points.
    fn series(&mut self) -> Result<Option<u32>, StoreError> {
        loop {
            let number = self.part.series.get(self.numbers).copied();
            let rich = self.part.rich.get(self.rich).map(|point| point.series);
            match (number, rich) {
                (None, None) => {}
                (a, b) => return Ok(a.into_iter().chain(b).min()),
            }
            let Some((part, _)) = self.generation.parts.get(self.next) else { return Ok(None) };
            let (dataset, generation) = (self.dataset, self.generation.number);
            self.part = self.store.read_part(Place { dataset, generation, part: *part })?;
            (self.next, self.numbers, self.rich) = (self.next + 1, 0, 0);
        }
    }

    /// Takes the points of a series, which is the next; it may go on in the next part.
    fn take(
        &mut self,
        series: u32,
        numbers: &mut Vec<RawPoint>,
        rich: &mut Vec<RichPoint>,
    ) -> Result<(), StoreError> {
        while self.series()? == Some(series) {
            while self.part.series.get(self.numbers) == Some(&series) {
                numbers.push((self.part.at[self.numbers], self.part.value[self.numbers]));
                self.numbers += 1;
            }
            while let Some(point) = self.part.rich.get(self.rich).filter(|p| p.series == series) {
                rich.push(point.clone());
                self.rich += 1;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Prepares the sealing of a dataset; none when it is not worth it yet.
    ///
    /// # Errors
    /// When the dataset's key is not here, or a part of a segment is damaged.
    pub fn plan_seal(
        &self,
        dataset: u32,
        per_subject: bool,
        when: SealPlan,
    ) -> Result<Option<Sealed>, StoreError> {
        if self.is_partly_closed(dataset) {
            // Rows that cannot be read would go with those that can.
            return Ok(None);
        }
        let most = self.count_of(dataset).saturating_mul(POINTS_PER_DOCUMENT);
        let most_bytes = self.count_of(dataset).saturating_mul(BYTES_PER_DOCUMENT);
        let max_open_bytes = when.max_open_bytes.max(most_bytes);
        let when = SealPlan { max_open: when.max_open.max(most), max_open_bytes, ..when };
        let (upto, runs, generation, floor, gone) = {
            // The commit number is read under the lock that every commit takes to show its points.
            let history = self.histories().read();
            let upto = self.next_commit() - 1;
            if !is_due(&history, dataset, per_subject, upto, when) {
                return Ok(None);
            }
            let runs: Vec<(u32, Open)> =
                history.open_of(dataset).map(|(series, open)| (series, open.clone())).collect();
            let points = runs.iter().map(|(_, open)| open.len()).sum();
            let gone = younger(history.segments(dataset), points);
            (upto, runs, history.generation(dataset) + 1, history.floor(dataset), gone)
        };
        let older = gone.iter().map(|generation| Older {
            store: self,
            dataset,
            generation: generation.clone(),
            next: 0,
            part: Blob::default(),
            numbers: 0,
            rich: 0,
        });
        let mut making = Making {
            older: older.collect(),
            sealed: Sealed {
                dataset,
                per_subject,
                generation,
                upto,
                chunks_digest: None,
                segments_digest: None,
                merged: gone.first().map(|generation| generation.number),
                points: 0,
                chunks: Vec::new(),
                segments: Vec::new(),
                gone,
                residual: Vec::new(),
                numbers: HashMap::new(),
                rich: HashMap::new(),
            },
            when,
            floor,
            rest: Vec::new(),
            builder: Builder::new(when.segment_points),
        };
        let mut runs = runs.into_iter().peekable();
        loop {
            let mut next = runs.peek().map(|(series, _)| *series);
            for older in &mut making.older {
                next = next.into_iter().chain(older.series()?).min();
            }
            let Some(series) = next else { break };
            let open = runs.next_if(|(of, _)| *of == series).map(|(_, open)| open);
            self.plan_series(&mut making, series, open)?;
        }
        self.finish(making).map(Some)
    }

    fn finish(&self, making: Making) -> Result<Sealed, StoreError> {
        let Making { mut sealed, when, mut rest, builder, .. } = making;
        let dataset = sealed.dataset;
        while !rest.is_empty() {
            let after = rest.split_off(rest.len().min(when.max_part));
            let part = std::mem::replace(&mut rest, after);
            let rows = self.encode_rows(dataset, sealed.per_subject, part, Time::default());
            sealed.residual.push(rows);
        }
        let digest_key = self.digest_key(Under::Dataset(dataset));
        let digest_key =
            digest_key.ok_or_else(|| StoreError::NoKey(format!("dataset {dataset}")))?;
        for (part, blob) in (0..).zip(builder.finish()) {
            let place = Place { dataset, generation: sealed.generation, part };
            let plain = blob.encode();
            let digest = vault::keyed_digest(&digest_key, &[&plain]);
            let bytes = self.seal(Table::Chunk, &place.key(), Under::Dataset(dataset), &plain)?;
            sealed.segments.push((PartRef { digest, ..segment::describe(&blob) }, bytes));
        }
        let digest = |plain: Vec<u8>| vault::keyed_digest(&digest_key, &[&plain]);
        sealed.chunks_digest =
            (!sealed.chunks.is_empty()).then(|| digest(codec::encode(&sealed.manifest())));
        sealed.segments_digest =
            (!sealed.segments.is_empty()).then(|| digest(codec::encode(&sealed.parts())));
        Ok(sealed)
    }

    /// Decides where the points of one series go: to a chunk, a segment, or the rest that stays open.
    fn plan_series(
        &self,
        making: &mut Making,
        series: u32,
        open: Option<Open>,
    ) -> Result<(), StoreError> {
        let owner = self.histories().read().owner(series);
        let (mut numbers, mut rich) = self.merged(making, series)?;
        let Some((_, entity)) = owner else { return Ok(()) };
        let floor = making.floor;
        match open {
            None => {}
            Some(Open::Numbers(run)) => {
                let kept = run.iter().filter(|(at, _)| *at >= floor);
                if making.sealed.per_subject {
                    making.rest.extend(kept.map(|(at, value)| Row {
                        entity,
                        series,
                        at: Time(*at),
                        value: RowValue::Number(*value),
                    }));
                } else {
                    numbers.extend(kept);
                    making.sealed.points += run.len();
                    making.sealed.numbers.insert(series, run);
                }
            }
            Some(Open::Rich(run)) => {
                for (at, bytes) in run.iter().filter(|(at, _)| *at >= floor) {
                    let instance: Instance = codec::decode(bytes, "an open instance")?;
                    if making.sealed.per_subject {
                        let value = RowValue::Rich(Box::new(instance));
                        making.rest.push(Row { entity, series, at: Time(*at), value });
                    } else {
                        rich.push(RichPoint { series, at: *at, instance });
                    }
                }
                if !making.sealed.per_subject {
                    making.sealed.points += run.len();
                    making.sealed.rich.insert(series, run);
                }
            }
        }
        latest(&mut numbers, |(at, _)| *at);
        latest(&mut rich, |point| point.at);
        let when = making.when;
        let own =
            |length: usize| if length < when.min_points { 0 } else { length.min(when.max_part) };
        let (some, others) = numbers.split_at(own(numbers.len()));
        if let (Some((first, _)), Some((last, _))) = (some.first(), some.last()) {
            let plain = codec::encode_points(some);
            self.chunk(&mut making.sealed, (series, false), (*first, *last), some.len(), &plain)?;
        }
        others.iter().for_each(|point| making.builder.number(series, *point));
        let others = rich.split_off(own(rich.len()));
        if let (Some(first), Some(last)) = (rich.first(), rich.last()) {
            let (ends, plain) = ((first.at, last.at), codec::encode(&rich));
            self.chunk(&mut making.sealed, (series, true), ends, rich.len(), &plain)?;
        }
        for point in others {
            let bytes = codec::encode(&point).len();
            making.builder.rich(point, bytes);
        }
        Ok(())
    }

    /// What the generations that are merged hold of a series, oldest first.
    fn merged(
        &self,
        making: &mut Making,
        series: u32,
    ) -> Result<(Vec<RawPoint>, Vec<RichPoint>), StoreError> {
        let (mut numbers, mut rich) = (Vec::new(), Vec::new());
        for older in &mut making.older {
            let (from_numbers, from_rich) = (numbers.len(), rich.len());
            older.take(series, &mut numbers, &mut rich)?;
            if numbers.len() + rich.len() == from_numbers + from_rich {
                continue;
            }
            let generation = older.generation.number;
            let chunks = {
                let history = self.histories().read();
                if history.is_forgotten(series, generation) {
                    numbers.truncate(from_numbers);
                    rich.truncate(from_rich);
                }
                history.chunks_of(series, i64::MIN, i64::MAX)
            };
            // A point of a later chunk stands, and must not be covered by an older one of its time.
            for chunk in chunks.iter().filter(|chunk| chunk.generation > generation) {
                let ends = chunk.reference.first..=chunk.reference.last;
                let new_numbers = numbers[from_numbers..].iter().map(|(at, _)| *at);
                let mut new = new_numbers.chain(rich[from_rich..].iter().map(|point| point.at));
                if !new.any(|at| ends.contains(&at)) {
                    continue;
                }
                let plain = self.read_chunk(chunk)?;
                let stand: Vec<i64> = if chunk.reference.rich {
                    let points: Vec<RichPoint> = codec::decode(&plain, "a sealed chunk")?;
                    points.iter().map(|point| point.at).collect()
                } else {
                    codec::decode_points(&plain)?.at
                };
                let stands = |at: i64| stand.binary_search(&at).is_ok();
                let mut keep = numbers.split_off(from_numbers);
                keep.retain(|(at, _)| !stands(*at));
                numbers.append(&mut keep);
                let mut keep = rich.split_off(from_rich);
                keep.retain(|point| !stands(point.at));
                rich.append(&mut keep);
            }
        }
        numbers.retain(|(at, _)| *at >= making.floor);
        rich.retain(|point| point.at >= making.floor);
        Ok((numbers, rich))
    }

    fn chunk(
        &self,
        sealed: &mut Sealed,
        (series, rich): (u32, bool),
        (first, last): (i64, i64),
        count: usize,
        plain: &[u8],
    ) -> Result<(), StoreError> {
        let (dataset, under) = (sealed.dataset, Under::Dataset(sealed.dataset));
        let key = chunk_key(dataset, series, sealed.generation);
        let bytes = self.seal(Table::Chunk, &key, under, plain)?;
        let digest = self.digest_key(under).map(|key| vault::keyed_digest(&key, &[plain]));
        let reference = ChunkRef {
            series,
            rich,
            first,
            last,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            digest: digest.unwrap_or_default(),
            key: 0,
        };
        sealed.chunks.push((reference, bytes));
        Ok(())
    }

    /// Whether a plan still fits: since then nothing of its dataset was forgotten, and its key is
    /// still the one that encrypts.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        let history = self.histories().read();
        let forgotten = history.forgotten_at.get(&sealed.dataset).copied().unwrap_or(0);
        let key = self.keys().read().current(vault::Scope::Dataset(sealed.dataset));
        let under_key = |bytes: &[u8]| key.is_some_and(|id| bytes.starts_with(&id.to_be_bytes()));
        forgotten <= sealed.upto
            && history.generation(sealed.dataset) < sealed.generation
            && sealed.chunks.iter().all(|(_, bytes)| under_key(bytes))
            && sealed.segments.iter().all(|(_, bytes)| under_key(bytes))
    }

    /// Entities of a dataset whose state rests on rows of commits up to this one: their documents
    /// are to be written before those rows go.
    pub fn ahead(&self, dataset: u32, upto: u64) -> Vec<u64> {
        self.entities().read().ahead(dataset, upto).collect()
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
            self.write_manifest(writes, sealed, MANIFEST, &codec::encode(&sealed.manifest()))?;
        }
        for generation in &sealed.gone {
            let key = manifest_key(dataset, SEGMENTS, generation.number);
            self.engine().remove(writes, Table::Manifest, &key);
            for (part, _) in &generation.parts {
                let place = Place { dataset, generation: generation.number, part: *part };
                self.engine().remove(writes, Table::Chunk, &place.key());
            }
        }
        for (part, (_, bytes)) in (0..).zip(&sealed.segments) {
            let key = Place { dataset, generation: sealed.generation, part }.key();
            self.engine().put(writes, Table::Chunk, &key, bytes.clone());
        }
        if !sealed.segments.is_empty() {
            self.write_manifest(writes, sealed, SEGMENTS, &codec::encode(&sealed.parts()))?;
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
                let under = Under::of(dataset, sealed.per_subject, blob.subject);
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

    fn write_manifest(
        &self,
        writes: &mut Writes,
        sealed: &Sealed,
        kind: u8,
        plain: &[u8],
    ) -> Result<(), StoreError> {
        let key = manifest_key(sealed.dataset, kind, sealed.generation);
        let bytes = self.seal(Table::Manifest, &key, Under::Dataset(sealed.dataset), plain)?;
        self.engine().put(writes, Table::Manifest, &key, bytes);
        Ok(())
    }

    /// Encrypts values of a dataset anew that lie under older keys, up to a limit, going on where it
    /// ended before. What is written meanwhile lies under the new key: only the committer writes, and
    /// it is the one who asks.
    ///
    /// # Errors
    /// When a value does not open or cannot be written.
    pub fn rewrap(
        &self,
        dataset: u32,
        from: Option<Rewrapped>,
        limit: usize,
    ) -> Result<Rewrap, StoreError> {
        let older: Vec<u32> = self.keys().read().superseded(vault::Scope::Dataset(dataset));
        if older.is_empty() {
            return Ok(Rewrap::Done(older));
        }
        // Rotated again meanwhile: what was written before that has to be looked at again.
        let from = from.filter(|from| from.older == older);
        let mut at = from.unwrap_or(Rewrapped { older, table: 0, after: Vec::new() });
        let mut writes = self.engine().writes();
        let (mut changed, mut seen) = (0, 0);
        let under = Under::Dataset(dataset);
        let sensitive = self.is_sensitive(under);
        while let Some(table) = REWRAPPED.get(at.table).copied() {
            let of_dataset = dataset.to_be_bytes();
            let prefix = if table == Table::Document { &[] } else { of_dataset.as_slice() };
            let mut last = Vec::new();
            let whole = self.engine().scan_after(table, prefix, &at.after, |key, sealed| {
                let id = sealed.first_chunk::<4>().map(|id| u32::from_be_bytes(*id));
                if id.is_some_and(|id| at.older.contains(&id)) {
                    let plain = self.unseal(table, key, sealed)?;
                    let bytes = self.seal(table, key, under, &plain)?;
                    self.engine().put(&mut writes, table, key, bytes);
                    if table == Table::Entity && sensitive {
                        // Known to be taken while the sensitive root is closed.
                        let number = u64::from_be_bytes(number_at(key, 4));
                        let held = self.entities().read().peek(number);
                        held.iter().for_each(|held| {
                            self.put_id(&mut writes, held.dataset, &held.entity.id)
                        });
                    }
                    changed += 1;
                }
                seen += 1;
                let goes_on = changed < limit && seen < limit.saturating_mul(SEEN_FOR_ONE);
                if !goes_on {
                    last = key.to_vec();
                }
                Ok(goes_on)
            })?;
            if !whole {
                at.after = last;
                break;
            }
            (at.table, at.after) = (at.table + 1, Vec::new());
        }
        if changed > 0 {
            self.write(writes)?;
        }
        let done = at.table == REWRAPPED.len();
        Ok(if done { Rewrap::Done(at.older) } else { Rewrap::GoesOn(at) })
    }

    /// Whether older keys of a dataset are still there.
    pub fn has_superseded(&self, dataset: u32) -> bool {
        !self.keys().read().superseded(vault::Scope::Dataset(dataset)).is_empty()
    }

    /// Deletes keys, such as those under which [`Store::rewrap`] found nothing left. Not whatever is
    /// older by now: a key that was the current one when it looked has everything under it.
    ///
    /// # Errors
    /// When the keyring cannot be replaced; the keys are still there then.
    pub fn drop_keys(&self, ids: &[u32]) -> Result<(), StoreError> {
        let mut ring = self.keys().write();
        let mut left = ring.clone();
        left.delete(ids);
        self.files().replace_keyring(&left.to_bytes())?;
        *ring = left;
        self.keyring_torn.store(false, Ordering::Release);
        Ok(())
    }

    /// Those of some keys that encrypt for a scope, and were not deleted.
    pub fn keys_left(&self, under: Under, ids: &[u32]) -> Vec<u32> {
        let there = self.keys_of(under);
        ids.iter().copied().filter(|id| there.contains(id)).collect()
    }

    /// All keys of a scope: of a dataset, those of its subjects too.
    pub fn keys_of(&self, under: Under) -> Vec<u32> {
        self.keys().read().of_scope(Self::scope_of(under))
    }
}

fn is_due(history: &History, dataset: u32, per_subject: bool, upto: u64, when: SealPlan) -> bool {
    let blobs = history.blobs.get(&dataset).map_or(0, |blobs| blobs.range(..=upto).count());
    if blobs >= when.max_blobs || (blobs > 0 && history.expired.contains(&dataset)) {
        return true;
    }
    if per_subject {
        return false;
    }
    let enough = 2 * when.min_points;
    let long = |open: Option<&Open>| open.is_some_and(|open| open.len() >= enough);
    history.open_points_of(dataset) >= when.max_open
        || history.open_bytes_of(dataset) >= when.max_open_bytes
        || match history.long.get(&dataset) {
            known if enough >= LONG => {
                known.into_iter().flatten().any(|series| long(history.open(*series)))
            }
            _ => history.open_of(dataset).any(|(_, open)| long(Some(open))),
        }
}

/// The youngest generations of segments, as many as are not much larger than what is added to them:
/// so a point is written anew as often as the number of points doubles.
fn younger(segments: &[Generation], mut points: usize) -> Vec<Generation> {
    let mut start = segments.len();
    while let Some(before) = start.checked_sub(1)
        && segments[before].points() < points.saturating_mul(2)
    {
        points += segments[before].points();
        start = before;
    }
    segments[start..].to_vec()
}

/// Orders points by time, the last of each time only.
fn latest<T>(points: &mut Vec<T>, at: impl Fn(&T) -> i64) {
    if points.is_sorted_by(|a, b| at(a) < at(b)) {
        return;
    }
    points.reverse();
    points.sort_by_key(&at);
    points.dedup_by_key(|point| at(point));
}
