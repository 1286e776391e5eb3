//! Reading: documents, entities, and histories merged from chunks and open runs.

use crate::codec::{self, Blob};
use crate::engine::Table;
use crate::history::{Chunk, History, Instances, Open, Sealed, each_run};
use crate::points::{Point, RawPoint, RichPoint, Run};
use crate::segment::{Place, numbers_of, rich_of};
use crate::store::chunk_key;
use crate::{Glance, Held, Series, Store, StoreError, Table as Alike};
use model::{Name, Time};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How soon a commit that is on disk is shown, at the latest.
const SHOWN_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

fn key_of(chunk: &Chunk) -> [u8; 12] {
    chunk_key(chunk.dataset, chunk.reference.series, chunk.generation)
}

fn names_chunk(history: &History, chunk: &Chunk) -> bool {
    let of_series = history.chunks.get(&chunk.reference.series);
    of_series.into_iter().flatten().any(|named| named.generation == chunk.generation)
}

fn names_part(history: &History, place: Place) -> bool {
    let mut generations = history.segments(place.dataset).iter();
    generations.any(|one| {
        one.number == place.generation && one.parts.iter().any(|(part, _)| *part == place.part)
    })
}

/// Entities as they are now.
pub struct Now<'a>(parking_lot::RwLockReadGuard<'a, crate::entities::Entities>);

impl Now<'_> {
    /// The number of an entity, deleted ones included.
    pub fn number_of(&self, id: &str) -> Option<u64> {
        self.0.number_of(id)
    }

    /// A living entity by id, as it lies; none also for one that is unlike all others.
    pub fn glance(&self, id: &str) -> Option<Glance<'_>> {
        self.0.glance(self.0.number_of(id)?)
    }

    /// The same by number.
    pub fn glance_at(&self, number: u64) -> Option<Glance<'_>> {
        self.0.glance(number)
    }

    /// An entity by number, deleted ones included.
    pub fn by_number(&self, number: u64) -> Option<Arc<Held>> {
        self.0.held(number)
    }

    /// The same for who looks at many in a row.
    pub fn peek(&self, number: u64) -> Option<Arc<Held>> {
        self.0.peek(number)
    }

    /// Living entities with those alike.
    pub fn tables(&self) -> &[Alike] {
        self.0.tables()
    }

    /// Living entities that are in no table.
    pub fn loose(&self) -> impl Iterator<Item = u64> {
        self.0.loose()
    }

    /// Entities that have one of these types (none given: all), from a number on, in the order they
    /// were created. Deleted ones are included.
    pub fn of_types<'a>(
        &'a self,
        types: Option<&[Name]>,
        from: u64,
    ) -> Box<dyn Iterator<Item = u64> + 'a> {
        match types {
            None => Box::new(self.0.all(from)),
            Some([one]) => Box::new(self.0.of_type(one.as_str(), from)),
            Some(many) => {
                let each = many.iter().map(|name| self.0.of_type(name.as_str(), from).peekable());
                Box::new(Merged(each.collect()))
            }
        }
    }
}

/// Rising numbers of several, each once.
struct Merged<I: Iterator<Item = u64>>(Vec<Peekable<I>>);

impl<I: Iterator<Item = u64>> Iterator for Merged<I> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let least = self.0.iter_mut().filter_map(|one| one.peek().copied()).min()?;
        for one in &mut self.0 {
            one.next_if_eq(&least);
        }
        Some(least)
    }
}

impl Store {
    /// A document.
    pub fn document(&self, kind: u8, name: &str) -> Option<Arc<[u8]>> {
        self.documents.read().get(&(kind, name.to_owned())).cloned()
    }

    /// How many documents of a kind have names that start so.
    pub fn count_documents(&self, kind: u8, prefix: &str) -> usize {
        self.documents_under(kind, prefix).0
    }

    /// The same, and the bytes of them.
    pub fn documents_under(&self, kind: u8, prefix: &str) -> (usize, usize) {
        let documents = self.documents.read();
        let range = documents.range((kind, prefix.to_owned())..);
        range
            .take_while(|((k, name), _)| *k == kind && name.starts_with(prefix))
            .fold((0, 0), |(count, bytes), (_, body)| (count + 1, bytes + body.len()))
    }

    /// All documents of a kind, by name.
    pub fn documents(&self, kind: u8) -> Vec<(String, Arc<[u8]>)> {
        let documents = self.documents.read();
        let range = documents.range((kind, String::new())..);
        let of_kind = range.take_while(|((found, _), _)| *found == kind);
        of_kind.map(|((_, name), body)| (name.clone(), body.clone())).collect()
    }

    /// An entity by id, deleted ones included.
    pub fn entity(&self, id: &str) -> Option<Arc<Held>> {
        let entities = self.entities.read();
        entities.held(entities.number_of(id)?)
    }

    /// Entities as they are now, for many looks in a row. Commits wait meanwhile.
    pub fn now(&self) -> Now<'_> {
        Now(self.entities.read())
    }

    /// The number of an entity, deleted ones included.
    pub fn number_of(&self, id: &str) -> Option<u64> {
        self.entities.read().number_of(id)
    }

    /// An entity by number.
    pub fn entity_by_number(&self, number: u64) -> Option<Arc<Held>> {
        self.entities.read().held(number)
    }

    /// The same for who looks at many in a row.
    pub fn peek(&self, number: u64) -> Option<Arc<Held>> {
        self.entities.read().peek(number)
    }

    /// Whether an entity is as it was found, but for what readings moved.
    pub fn is_as_found(&self, held: &Held) -> bool {
        self.entities.read().is_as_found(held)
    }

    /// The types that entities have.
    pub fn types(&self) -> Vec<Name> {
        self.entities.read().types().cloned().collect()
    }

    /// Living entities in a dataset.
    pub fn count_of(&self, dataset: u32) -> u64 {
        self.entities.read().count_of(dataset)
    }

    /// Gives the numbers of a series in `from..until` to `each` in runs: times (microseconds), in
    /// order within a run and from run to run, and the value at each.
    ///
    /// # Errors
    /// When a chunk is damaged or its key is gone.
    pub fn each_run(
        &self,
        series: u32,
        from: Time,
        until: Time,
        each: &mut dyn FnMut(&[i64], &[f64]),
    ) -> Result<(), StoreError> {
        let (chunks, places, open, from) = {
            let history = self.history.read();
            let floor = history.owner(series).map_or(i64::MIN, |(d, _)| history.floor(d));
            let from = from.0.max(floor);
            let open: Vec<RawPoint> = match history.open(series) {
                Some(Open::Numbers(run)) => {
                    let start = run.partition_point(|(at, _)| *at < from);
                    let end = run.partition_point(|(at, _)| *at < until.0);
                    run[start..end.max(start)].to_vec()
                }
                _ => Vec::new(),
            };
            let chunks = history.chunks_of(series, from, until.0);
            (chunks, history.parts_of(series, from, until.0), open, from)
        };
        let mut sealed: Vec<Sealed> = chunks.into_iter().map(Sealed::Chunk).collect();
        let Some(parts) = self.parts_at(&places)? else {
            return self.each_run(series, Time(from), until, each);
        };
        for (place, part) in places.iter().zip(parts) {
            let range = numbers_of(&part, series);
            if !range.is_empty() {
                sealed.push(Sealed::Part { generation: place.generation, part, range });
            }
        }
        let read = |chunk: &Chunk| match self.chunk_at(chunk)? {
            Some(plain) => codec::decode_points(&plain),
            None => Ok(Run::default()),
        };
        each_run(sealed, &open, (from, until.0), &read, each)
    }

    /// The points of a series in `from..until`, in order; only the latest `last` when given.
    ///
    /// # Errors
    /// When a chunk is damaged or its key is gone.
    pub fn points(
        &self,
        series: &Series,
        from: Time,
        until: Time,
        last: Option<usize>,
    ) -> Result<Vec<Point>, StoreError> {
        let mut points = std::collections::VecDeque::new();
        let keep = last.unwrap_or(usize::MAX);
        let mut push = |point: Point| {
            points.push_back(point);
            if points.len() > keep {
                points.pop_front();
            }
        };
        if series.rich {
            for (at, instance) in self.rich_points(series.number, from, until)? {
                push(Point::Rich(Time(at), Box::new(instance)));
            }
        } else {
            self.each_run(series.number, from, until, &mut |at, value| {
                at.iter().zip(value).for_each(|(at, value)| push(Point::Number(Time(*at), *value)));
            })?;
        }
        Ok(points.into())
    }

    /// When the last point of a series was whose rows bring no time of their own, of those at `from` or
    /// later. There are none unless the clock that gave them theirs stood still or was put back, and only
    /// then is it looked for, in what is sealed where the open run does not tell.
    ///
    /// # Errors
    /// When a chunk is damaged or its key is gone.
    pub fn last_undated(
        &self,
        series: u32,
        rich: bool,
        from: Time,
    ) -> Result<Option<Time>, StoreError> {
        if from.0 > self.undated.load(Ordering::Acquire) {
            return Ok(None);
        }
        let open = self.history.read().open(series).and_then(|open| match open {
            Open::Numbers(run) => run.last().map(|(at, _)| *at),
            Open::Rich(run) => run.last().map(|(at, _)| *at),
        });
        // What is open came after what is sealed, and so got later times (but for what waited in the ring
        // since before a clock was put back, and would have to meet the same microsecond).
        if let Some(last) = open.filter(|last| *last >= from.0) {
            return Ok(Some(Time(last)));
        }
        if rich {
            let points = self.rich_points(series, from, Time::MAX)?;
            return Ok(points.last_key_value().map(|(at, _)| Time(*at)));
        }
        let mut last = None;
        self.each_run(series, from, Time::MAX, &mut |at, _| {
            last = at.last().map(|at| Time(*at)).or(last);
        })?;
        Ok(last)
    }

    fn rich_points(
        &self,
        series: u32,
        from: Time,
        until: Time,
    ) -> Result<BTreeMap<i64, model::Instance>, StoreError> {
        let (chunks, places, open, from) = {
            let history = self.history.read();
            let floor = history.owner(series).map_or(i64::MIN, |(d, _)| history.floor(d));
            let open = match history.open(series) {
                Some(Open::Rich(run)) => run.clone(),
                _ => Instances::new(),
            };
            let from = from.0.max(floor);
            let chunks = history.chunks_of(series, from, until.0);
            (chunks, history.parts_of(series, from, until.0), open, from)
        };
        let mut runs: Vec<(u32, Vec<RichPoint>)> = Vec::new();
        for chunk in chunks {
            if let Some(plain) = self.chunk_at(&chunk)? {
                runs.push((chunk.generation, codec::decode(&plain, "a sealed chunk")?));
            }
        }
        let Some(parts) = self.parts_at(&places)? else {
            return self.rich_points(series, Time(from), until);
        };
        for (place, part) in places.iter().zip(parts) {
            runs.push((place.generation, rich_of(&part, series).cloned().collect()));
        }
        runs.sort_by_key(|(generation, _)| *generation);
        let mut points = BTreeMap::new();
        for (_, run) in runs {
            points.extend(run.into_iter().map(|point| (point.at, point.instance)));
        }
        for (at, bytes) in open {
            points.insert(at, codec::decode(&bytes, "an open instance")?);
        }
        points.retain(|at, _| *at >= from && *at < until.0);
        Ok(points)
    }

    /// A chunk; none when it is past its retention, or was forgotten, since it was looked for.
    fn chunk_at(&self, chunk: &Chunk) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read_chunk(chunk) {
            Err(StoreError::Damaged(_))
                if self.moved_on(&key_of(chunk), |history| !names_chunk(history, chunk)) =>
            {
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Parts of segments, decoded; none when a seal put others in their place meanwhile.
    fn parts_at(&self, places: &[Place]) -> Result<Option<Vec<Arc<Blob>>>, StoreError> {
        let mut parts = Vec::with_capacity(places.len());
        for place in places {
            match self.part(*place) {
                Ok(part) => parts.push(part),
                Err(StoreError::Damaged(_))
                    if self.moved_on(&place.key(), |history| !names_part(history, *place)) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(parts))
    }

    /// Whether what is missing on disk is not looked for any more: a commit that takes it away does so on
    /// disk first, and shows it before it is done. What stays named is damage.
    fn moved_on(&self, key: &[u8], gone: impl Fn(&History) -> bool) -> bool {
        if !matches!(self.engine.get(Table::Chunk, key), Ok(None)) {
            return false;
        }
        // Waits for the commit that is under way, if there is one.
        drop(self.head.try_lock_for(SHOWN_WITHIN));
        gone(&self.history.read())
    }

    /// A part of a segment, decoded.
    pub(crate) fn part(&self, place: Place) -> Result<Arc<Blob>, StoreError> {
        if let Some(part) = self.parts.get(place) {
            return Ok(part);
        }
        let part = Arc::new(self.read_part(place)?);
        self.parts.put(place, part.clone());
        Ok(part)
    }

    /// The same for who reads it once.
    pub(crate) fn read_part(&self, place: Place) -> Result<Blob, StoreError> {
        let key = place.key();
        let sealed = self.engine.get(Table::Chunk, &key)?;
        let missing = || {
            let Place { dataset, generation, part } = place;
            StoreError::Damaged(format!(
                "dataset {dataset}: part {part} of the sealed points of generation {generation} is missing"
            ))
        };
        Blob::decode(&self.unseal(Table::Chunk, &key, &sealed.ok_or_else(missing)?)?)
    }

    pub(crate) fn read_chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, StoreError> {
        let key = key_of(chunk);
        let sealed = self.engine.get(Table::Chunk, &key)?;
        let sealed = sealed.ok_or_else(|| {
            StoreError::Damaged(format!(
                "series {}: a sealed chunk is missing",
                chunk.reference.series
            ))
        })?;
        self.unseal(Table::Chunk, &key, &sealed)
    }
}
