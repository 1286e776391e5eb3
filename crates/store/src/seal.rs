//! Sealing: open points of a dataset become compressed, encrypted chunks, off the writer's path.
//!
//! A plan is made from what is open at a commit, in any thread, and writes chunks as it makes them
//! ([`crate::ahead`]), so that little of it is in memory; only the commit that names them ends it. A
//! series with many points gets a chunk of its own; the short runs of all others go to segments
//! ([`crate::segment`]), together with those of younger generations that are not much larger.
//! Where each subject has a key of its own, points stay open and are written anew.

use crate::ahead::Ahead;
use crate::batch::{Row, RowValue, Rows, Under};
use crate::codec::{self, Blob, ChunkRef, Manifest, PartRef, Segments};
use crate::engine::{Table, Writes};
use crate::history::{History, LONG, Open, UnderWay};
use crate::points::{RawPoint, RichPoint};
use crate::segment::{self, Builder, Generation, Place};
use crate::store::{MANIFEST, SEGMENTS, chunk_key, manifest_key};
use crate::{Store, StoreError};
use journal::Hash;
use model::{Instance, Time};
use std::collections::VecDeque;
use std::sync::Arc;
use vault::Secret;

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

/// Points, and bytes of whole instances, that are copied at a time while nobody can commit.
const COPIED_POINTS: usize = 1 << 16;
const COPIED_BYTES: usize = 8 << 20;

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
    chunks: Vec<ChunkRef>,
    segments: Vec<PartRef>,
    gone: Vec<Generation>,
    /// Points that stay open.
    pub left: usize,
    /// They, written anew in parts: as if they had come in the last commit covered. Encoded only.
    pub residual: Vec<Rows>,
    /// Series whose open points are in it, up to this instant.
    upto_of: Vec<(u32, i64)>,
    /// Of what is before it nothing was taken.
    floor: i64,
    /// The key that all of it lies under.
    key: Option<u32>,
    /// Its notes of what was written ahead.
    notes: u32,
    under_way: Arc<UnderWay>,
}

impl Sealed {
    fn manifest(&self) -> Manifest {
        Manifest { generation: self.generation, chunks: self.chunks.clone() }
    }

    fn parts(&self) -> Segments {
        Segments { generation: self.generation, parts: self.segments.clone() }
    }

    pub(crate) fn apply(self, history: &mut History) {
        let floor = history.floor(self.dataset);
        if !self.chunks.is_empty() {
            let mut manifest = self.manifest();
            manifest.chunks.retain(|chunk| chunk.last >= floor);
            history.add_manifest(self.dataset, &manifest);
        }
        history.add_segments(self.dataset, self.parts(), self.merged);
        let late = history.end_plan(self.dataset);
        for (series, last) in self.upto_of {
            // What came late since then may not be in it: it stays open, and wins over what is.
            history.close_upto(series, last, late.get(&series));
        }
        history.long.remove(&self.dataset);
        if floor <= self.floor {
            history.expired.remove(&self.dataset);
        }
        let blobs = history.blobs.entry(self.dataset).or_default();
        *blobs = blobs.split_off(&(self.upto + 1));
        if self.left > 0 {
            // Only of what is about people something is left, which no seal makes less.
            history.note_blob(self.dataset, self.upto, self.left, 0);
        }
    }
}

/// What one seal is made of, while it is made.
struct Making<'a> {
    sealed: Sealed,
    ahead: Ahead<'a>,
    digest_key: Secret,
    when: SealPlan,
    rest: Vec<Row>,
    builder: Builder,
    older: Vec<Older<'a>>,
}

impl Making<'_> {
    /// So many open points of a series are sealed, the last of this instant.
    fn note(&mut self, series: u32, points: usize, last: Option<i64>) {
        self.sealed.points += points;
        self.sealed.upto_of.extend(last.map(|last| (series, last)));
    }
}

/// Open runs of a dataset, copied some at a time.
struct Runs<'a> {
    store: &'a Store,
    dataset: u32,
    /// The next series to look at; none at the end.
    next: Option<u32>,
    some: VecDeque<(u32, Open)>,
}

impl Runs<'_> {
    /// The next series that has open points.
    fn series(&mut self) -> Option<u32> {
        while self.some.is_empty() {
            let from = self.next?;
            let history = self.store.histories().read();
            let (mut points, mut bytes) = (0, 0);
            self.next = None;
            for (series, open) in history.open_of(self.dataset, from) {
                if points >= COPIED_POINTS || bytes >= COPIED_BYTES {
                    self.next = Some(series);
                    break;
                }
                points += open.len();
                bytes += open.bytes();
                self.some.push_back((series, open.clone()));
            }
        }
        self.some.front().map(|(series, _)| *series)
    }

    fn take(&mut self, series: u32) -> Option<Open> {
        self.some.pop_front_if(|(of, _)| *of == series).map(|(_, open)| open)
    }
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
        let _alone = self.planning.lock();
        let key = || self.keys().read().current(vault::Scope::Dataset(dataset));
        let before = key();
        if self.leaving().contains(&Under::Dataset(dataset)) {
            return Ok(None);
        }
        match self.plan(dataset, per_subject, when, before) {
            Ok(Some(sealed)) => Ok(Some(sealed)),
            ended => {
                self.clean_ahead_of(dataset)?;
                // With another key it is planned again.
                if key() == before { ended } else { Ok(None) }
            }
        }
    }

    fn plan(
        &self,
        dataset: u32,
        per_subject: bool,
        when: SealPlan,
        key: Option<u32>,
    ) -> Result<Option<Sealed>, StoreError> {
        let most = self.count_of(dataset).saturating_mul(POINTS_PER_DOCUMENT);
        let most_bytes = self.count_of(dataset).saturating_mul(BYTES_PER_DOCUMENT);
        let max_open_bytes = when.max_open_bytes.max(most_bytes);
        let when = SealPlan { max_open: when.max_open.max(most), max_open_bytes, ..when };
        let gone = {
            let history = self.histories().read();
            let upto = self.next_commit() - 1;
            if history.is_planned(dataset) || !is_due(&history, dataset, per_subject, upto, when) {
                return Ok(None);
            }
            let points = history.open_of(dataset, 0).map(|(_, open)| open.len()).sum();
            younger(history.segments(dataset), points)
        };
        let (upto, generation, floor, under_way) = {
            // The commit number is read under the lock that every commit takes to show its points.
            let mut history = self.histories().write();
            let (generation, under_way) = history.begin_plan(dataset);
            (self.next_commit() - 1, generation, history.floor(dataset), under_way)
        };
        let no_key = || StoreError::NoKey(format!("dataset {dataset}"));
        let digest_key = self.digest_key(Under::Dataset(dataset)).ok_or_else(no_key)?;
        let ahead = self.write_ahead(dataset, generation, key);
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
                left: 0,
                residual: Vec::new(),
                upto_of: Vec::new(),
                floor,
                key,
                notes: 0,
                under_way,
            },
            ahead,
            digest_key,
            when,
            rest: Vec::new(),
            builder: Builder::new(when.segment_points),
        };
        let mut runs = Runs { store: self, dataset, next: Some(0), some: VecDeque::new() };
        loop {
            let mut next = runs.series();
            for older in &mut making.older {
                next = next.into_iter().chain(older.series()?).min();
            }
            let Some(series) = next else { break };
            let open = runs.take(series);
            self.plan_series(&mut making, series, open)?;
        }
        self.finish(making).map(Some)
    }

    fn finish(&self, mut making: Making) -> Result<Sealed, StoreError> {
        if let Some(last) = making.builder.finish() {
            self.segment(&mut making, &last)?;
        }
        self.encode_rest(&mut making, 0);
        let Making { mut sealed, ahead, digest_key, .. } = making;
        sealed.notes = ahead.finish()?;
        let digest = |plain: Vec<u8>| vault::keyed_digest(&digest_key, &[&plain]);
        sealed.chunks_digest =
            (!sealed.chunks.is_empty()).then(|| digest(codec::encode(&sealed.manifest())));
        sealed.segments_digest =
            (!sealed.segments.is_empty()).then(|| digest(codec::encode(&sealed.parts())));
        Ok(sealed)
    }

    /// Encodes what stays open when it is more than so many rows.
    fn encode_rest(&self, making: &mut Making, most: usize) {
        while making.rest.len() > most {
            let after = making.rest.split_off(making.rest.len().min(making.when.max_part));
            let part = std::mem::replace(&mut making.rest, after);
            making.sealed.left += part.len();
            let (dataset, per_subject) = (making.sealed.dataset, making.sealed.per_subject);
            let mut rows = self.encode_rows(dataset, per_subject, part, Time::default());
            rows.rows = Vec::new();
            making.sealed.residual.push(rows);
        }
    }

    /// Writes a part of a segment.
    fn segment(&self, making: &mut Making, blob: &Blob) -> Result<(), StoreError> {
        let (dataset, generation) = (making.sealed.dataset, making.sealed.generation);
        let part = u32::try_from(making.sealed.segments.len()).unwrap_or(u32::MAX);
        let plain = blob.encode();
        let digest = vault::keyed_digest(&making.digest_key, &[&plain]);
        making.sealed.segments.push(PartRef { digest, ..segment::describe(blob) });
        making.ahead.put(&Place { dataset, generation, part }.key(), &plain)
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
        let floor = making.sealed.floor;
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
                    making.note(series, run.len(), run.last().map(|(at, _)| *at));
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
                    making.note(series, run.len(), run.last().map(|(at, _)| *at));
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
            Self::chunk(making, (series, false), (*first, *last), some.len(), &plain)?;
        }
        for point in others {
            if let Some(part) = making.builder.number(series, *point) {
                self.segment(making, &part)?;
            }
        }
        let others = rich.split_off(own(rich.len()));
        if let (Some(first), Some(last)) = (rich.first(), rich.last()) {
            let (ends, plain) = ((first.at, last.at), codec::encode(&rich));
            Self::chunk(making, (series, true), ends, rich.len(), &plain)?;
        }
        for point in others {
            let bytes = codec::encode(&point).len();
            if let Some(part) = making.builder.rich(point, bytes) {
                self.segment(making, &part)?;
            }
        }
        self.encode_rest(making, when.max_part);
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
        let floor = making.sealed.floor;
        numbers.retain(|(at, _)| *at >= floor);
        rich.retain(|point| point.at >= floor);
        Ok((numbers, rich))
    }

    fn chunk(
        making: &mut Making,
        (series, rich): (u32, bool),
        (first, last): (i64, i64),
        count: usize,
        plain: &[u8],
    ) -> Result<(), StoreError> {
        let (dataset, generation) = (making.sealed.dataset, making.sealed.generation);
        making.sealed.chunks.push(ChunkRef {
            series,
            rich,
            first,
            last,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            digest: vault::keyed_digest(&making.digest_key, &[plain]),
            key: 0,
        });
        making.ahead.put(&chunk_key(dataset, series, generation), plain)
    }

    /// Whether a plan still fits: since then nothing of its dataset was forgotten, and its key is
    /// still the one that encrypts.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        let history = self.histories().read();
        let forgotten = history.forgotten_at.get(&sealed.dataset).copied().unwrap_or(0);
        let key = self.keys().read().current(vault::Scope::Dataset(sealed.dataset));
        forgotten <= sealed.upto
            && key == sealed.key
            && history.plan_of(sealed.dataset).is_some_and(|of| Arc::ptr_eq(&of, &sealed.under_way))
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
        floor: Option<i64>,
    ) -> Result<(), StoreError> {
        let dataset = sealed.dataset;
        // What ended while it was planned.
        let floor = self.histories().read().floor(dataset).max(floor.unwrap_or(i64::MIN));
        for chunk in sealed.chunks.iter().filter(|chunk| chunk.last < floor) {
            let key = chunk_key(dataset, chunk.series, sealed.generation);
            self.engine().remove(writes, Table::Chunk, &key);
        }
        for (part, _) in (0..).zip(&sealed.segments).filter(|(_, part)| part.last < floor) {
            let key = Place { dataset, generation: sealed.generation, part }.key();
            self.engine().remove(writes, Table::Chunk, &key);
        }
        self.forget_notes(writes, dataset, sealed.generation, sealed.notes);
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
            _ => history.open_of(dataset, 0).any(|(_, open)| long(Some(open))),
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
