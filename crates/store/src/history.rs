//! Histories: open runs in memory, sealed chunks on disk, and one merged view of both.
//!
//! A point is known by series and time; a later commit's point replaces an earlier one's. Chunks of
//! later generations win over earlier ones, open runs over all chunks.

use crate::StoreError;
use crate::codec::{self, Blob, ChunkRef, Manifest, Segments};
use crate::points::{RawPoint, Run};
use crate::segment::{Generation, Place};
use model::Instance;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// The place of a series in what is kept by series.
fn place<T>(all: &mut Vec<Option<T>>, series: u32) -> &mut Option<T> {
    let at = series as usize;
    if all.len() <= at {
        all.resize_with(at + 1, || None);
    }
    &mut all[at]
}

#[derive(Clone)]
pub struct Chunk {
    pub dataset: u32,
    pub generation: u32,
    pub reference: ChunkRef,
}

/// Numbers of one series, ordered by time. Most series of most cities have one.
pub type Numbers = SmallVec<[RawPoint; 1]>;
/// Whole instances of one series, ordered by time; encoded, for they are seldom read.
pub type Instances = SmallVec<[(i64, Box<[u8]>); 1]>;

/// Open points of one series.
#[derive(Clone, Debug)]
pub enum Open {
    Numbers(Numbers),
    Rich(Instances),
}

impl Open {
    /// How many points there are.
    pub fn len(&self) -> usize {
        match self {
            Open::Numbers(run) => run.len(),
            Open::Rich(run) => run.len(),
        }
    }

    /// About how many bytes its whole instances take.
    pub fn bytes(&self) -> usize {
        match self {
            Open::Numbers(_) => 0,
            Open::Rich(run) => run.iter().map(|(_, bytes)| bytes.len()).sum(),
        }
    }

    /// Takes away what is before `floor`; whether there was any.
    pub fn cut(&mut self, floor: i64) -> bool {
        let before = self.len();
        match self {
            Open::Numbers(run) => run.retain(|(at, _)| *at >= floor),
            Open::Rich(run) => run.retain(|(at, _)| *at >= floor),
        }
        self.len() < before
    }
}

/// Whether it came after all others.
fn insert<T>(run: &mut SmallVec<[(i64, T); 1]>, at: i64, value: T) -> bool {
    match run.last() {
        Some((last, _)) if *last >= at => {
            match run.binary_search_by_key(&at, |(at, _)| *at) {
                Ok(index) => run[index].1 = value,
                Err(index) => run.insert(index, (at, value)),
            }
            false
        }
        _ => {
            run.push((at, value));
            true
        }
    }
}

/// While there is one, a dataset's plan is made or waits to be committed.
#[derive(Debug)]
pub struct UnderWay;

/// A seal that is planned, or waits to be committed, while there is one.
struct Plan {
    under_way: Weak<UnderWay>,
    /// Points that came since, and not after all others of their series.
    late: Late,
}

/// Instants of points that came late, by series.
pub type Late = HashMap<u32, HashSet<i64>>;

/// Dataset and entity of a series.
pub type Owner = (u32, NonZeroU64);

/// Points of a run that is long: those of fewer are not looked at for sealing.
pub const LONG: usize = 512;

/// Points of a commit that are not sealed yet, and what whole instances among them take encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsealed {
    points: u32,
    bytes: u32,
}

#[derive(Default)]
pub struct History {
    /// By series: numbers of series are given in order.
    open: Vec<Option<Open>>,
    /// Series whose run is long, by dataset, until they are sealed.
    pub long: HashMap<u32, HashSet<u32>>,
    pub chunks: HashMap<u32, Vec<Chunk>>,
    /// Per dataset: generations of segments, oldest first.
    segments: HashMap<u32, Vec<Generation>>,
    /// Per series: the last generation in which it was forgotten.
    forgotten: HashMap<u32, u32>,
    /// By series: dataset and entity.
    owners: Vec<Option<Owner>>,
    /// Per dataset: commits with unsealed blobs, and what is in each.
    pub blobs: HashMap<u32, BTreeMap<u64, Unsealed>>,
    /// Per dataset: the instant before which nothing is kept.
    pub retained: HashMap<u32, i64>,
    pub generations: HashMap<u32, u32>,
    /// Datasets of which open points lie on disk that are past their retention: to be sealed, so that
    /// they go there too.
    pub expired: HashSet<u32>,
    /// By dataset.
    plans: HashMap<u32, Plan>,
    /// When each dataset was last forgotten of, so that a plan made before is thrown away.
    pub forgotten_at: HashMap<u32, u64>,
}

impl History {
    /// Makes room for so many series, once instead of again and again.
    pub fn reserve(&mut self, series: usize) {
        self.open.reserve_exact(series.saturating_sub(self.open.len()));
        self.owners.reserve_exact(series.saturating_sub(self.owners.len()));
    }

    pub fn next_series(&self) -> u32 {
        u32::try_from(self.owners.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Dataset and entity of a series.
    pub fn owner(&self, series: u32) -> Option<(u32, u64)> {
        let (dataset, entity) = (*self.owners.get(series as usize)?)?;
        Some((dataset, entity.get()))
    }

    pub fn set_owner(&mut self, series: u32, dataset: u32, entity: u64) {
        *place(&mut self.owners, series) = NonZeroU64::new(entity).map(|entity| (dataset, entity));
    }

    /// The open points of a series.
    pub fn open(&self, series: u32) -> Option<&Open> {
        self.open.get(series as usize)?.as_ref()
    }

    pub fn open_mut(&mut self, series: u32) -> Option<&mut Open> {
        self.open.get_mut(series as usize)?.as_mut()
    }

    /// The series of a dataset that have open points, in order, from one on.
    pub fn open_of(&self, dataset: u32, from: u32) -> impl Iterator<Item = (u32, &Open)> {
        let rest = self.open.get(from as usize..).unwrap_or_default();
        (from..).zip(rest).filter_map(move |(series, open)| {
            let open = open.as_ref().filter(|open| open.len() > 0)?;
            (self.owner(series)?.0 == dataset).then_some((series, open))
        })
    }

    pub fn put_number(&mut self, series: u32, at: i64, value: f64) {
        let open = place(&mut self.open, series);
        if let Open::Numbers(run) = open.get_or_insert_with(|| Open::Numbers(SmallVec::new())) {
            let last = insert(run, at, value);
            let length = run.len();
            self.note_point(series, at, last, length);
        }
    }

    /// Gives the bytes that it takes.
    pub fn put_rich(&mut self, series: u32, at: i64, instance: &Instance) -> usize {
        let open = place(&mut self.open, series);
        let bytes = codec::encode(instance).into_boxed_slice();
        let taken = bytes.len();
        if let Open::Rich(run) = open.get_or_insert_with(|| Open::Rich(SmallVec::new())) {
            let last = insert(run, at, bytes);
            let length = run.len();
            self.note_point(series, at, last, length);
        }
        taken
    }

    /// A point was put, the last of its series or not, which has so many now.
    fn note_point(&mut self, series: u32, at: i64, last: bool, length: usize) {
        if !last
            && let Some((dataset, _)) = self.owner(series)
            && let Some(plan) = self.plans.get_mut(&dataset)
            && plan.under_way.strong_count() > 0
        {
            plan.late.entry(series).or_default().insert(at);
        }
        self.note_length(series, length);
    }

    /// Begins to plan a seal: the number of its generation, and what stands for it.
    pub fn begin_plan(&mut self, dataset: u32) -> (u32, Arc<UnderWay>) {
        let generation = self.generation(dataset) + 1;
        // It is not given again, whatever becomes of the plan.
        self.note_generation(dataset, generation);
        let under_way = Arc::new(UnderWay);
        let plan = Plan { under_way: Arc::downgrade(&under_way), late: Late::new() };
        self.plans.insert(dataset, plan);
        (generation, under_way)
    }

    /// The plan for a dataset that is under way.
    pub fn plan_of(&self, dataset: u32) -> Option<Arc<UnderWay>> {
        self.plans.get(&dataset)?.under_way.upgrade()
    }

    /// Whether there is one.
    pub fn is_planned(&self, dataset: u32) -> bool {
        self.plan_of(dataset).is_some()
    }

    /// What came late since the plan began.
    pub fn end_plan(&mut self, dataset: u32) -> Late {
        self.plans.remove(&dataset).map(|plan| plan.late).unwrap_or_default()
    }

    /// Takes away the open points of a series up to an instant, but for those that are kept, and the
    /// memory they took.
    pub fn close_upto(&mut self, series: u32, last: i64, kept: Option<&HashSet<i64>>) {
        fn cut<T>(
            run: &mut SmallVec<[(i64, T); 1]>,
            last: i64,
            kept: Option<&HashSet<i64>>,
        ) -> bool {
            run.retain(|(at, _)| *at > last || kept.is_some_and(|kept| kept.contains(at)));
            run.shrink_to_fit();
            run.is_empty()
        }
        let empty = match self.open_mut(series) {
            None => return,
            Some(Open::Numbers(run)) => cut(run, last, kept),
            Some(Open::Rich(run)) => cut(run, last, kept),
        };
        if let Some(open) = self.open.get_mut(series as usize).filter(|_| empty) {
            *open = None;
        }
    }

    fn note_length(&mut self, series: u32, length: usize) {
        if length >= LONG
            && length.is_multiple_of(LONG)
            && let Some((dataset, _)) = self.owner(series)
        {
            self.long.entry(dataset).or_default().insert(series);
        }
    }

    /// Takes away everything known of a series.
    pub fn drop_series(&mut self, series: u32) {
        if let Some(open) = self.open.get_mut(series as usize) {
            *open = None;
        }
        self.chunks.remove(&series);
        if let Some((dataset, _)) = self.owner(series) {
            let generation = self.generation(dataset);
            self.set_forgotten(series, generation);
        }
    }

    /// The latest generation of a dataset's sealed points.
    pub fn generation(&self, dataset: u32) -> u32 {
        self.generations.get(&dataset).copied().unwrap_or(0)
    }

    /// Nothing that was sealed of a series up to this generation is there any more.
    pub fn set_forgotten(&mut self, series: u32, generation: u32) {
        self.forgotten.insert(series, generation);
    }

    /// Whether what a generation of segments holds of a series was forgotten.
    pub fn is_forgotten(&self, series: u32, generation: u32) -> bool {
        self.forgotten.get(&series).is_some_and(|upto| generation <= *upto)
    }

    pub fn add_manifest(&mut self, dataset: u32, manifest: &Manifest) {
        let generation = manifest.generation;
        self.note_generation(dataset, generation);
        for reference in &manifest.chunks {
            self.chunks.entry(reference.series).or_default().push(Chunk {
                dataset,
                generation,
                reference: reference.clone(),
            });
        }
    }

    /// Nothing of what was sealed of a dataset is there any more.
    pub fn drop_segments(&mut self, dataset: u32) {
        self.segments.remove(&dataset);
    }

    pub fn note_generation(&mut self, dataset: u32, generation: u32) {
        let latest = self.generations.entry(dataset).or_default();
        *latest = (*latest).max(generation);
    }

    /// Adds a generation of segments, in place of those from `merged` on.
    pub fn add_segments(&mut self, dataset: u32, segments: Segments, merged: Option<u32>) {
        self.note_generation(dataset, segments.generation);
        let floor = self.floor(dataset);
        let generations = self.segments.entry(dataset).or_default();
        if let Some(merged) = merged {
            generations.retain(|generation| generation.number < merged);
        }
        // One whose parts are all past their retention stays, so that its list goes when it is merged.
        let made = !segments.parts.is_empty();
        let parts: Vec<_> =
            (0..).zip(segments.parts).filter(|(_, part)| part.last >= floor).collect();
        if made {
            generations.push(Generation { number: segments.generation, parts });
        }
    }

    /// Generations of a dataset's segments, oldest first.
    pub fn segments(&self, dataset: u32) -> &[Generation] {
        self.segments.get(&dataset).map_or(&[], Vec::as_slice)
    }

    /// The parts that may hold points of a series in `from..until`, oldest generation first.
    pub fn parts_of(&self, series: u32, from: i64, until: i64) -> Vec<Place> {
        let Some((dataset, _)) = self.owner(series) else { return Vec::new() };
        let mut places = Vec::new();
        for generation in self.segments(dataset) {
            if self.is_forgotten(series, generation.number) {
                continue;
            }
            let inside = generation.of(series).filter(|(_, p)| p.first < until && p.last >= from);
            let place = |(part, _): &(u32, _)| Place {
                dataset,
                generation: generation.number,
                part: *part,
            };
            places.extend(inside.map(place));
        }
        places
    }

    /// Takes away everything known of a series.
    pub fn forget(&mut self, dataset: u32, series: u32, commit: u64) {
        self.drop_series(series);
        self.forgotten_at.insert(dataset, commit);
    }

    /// Takes away everything of a dataset before `floor`.
    pub fn retain(&mut self, dataset: u32, floor: i64) {
        self.retained.insert(dataset, floor);
        for chunks in self.chunks.values_mut() {
            chunks.retain(|chunk| chunk.dataset != dataset || chunk.reference.last >= floor);
        }
        for generation in self.segments.get_mut(&dataset).into_iter().flatten() {
            generation.parts.retain(|(_, part)| part.last >= floor);
        }
        for (open, owner) in self.open.iter_mut().zip(&self.owners) {
            if let (Some(open), Some((of, _))) = (open, owner)
                && *of == dataset
                && open.cut(floor)
            {
                self.expired.insert(dataset);
            }
        }
    }

    pub fn floor(&self, dataset: u32) -> i64 {
        self.retained.get(&dataset).copied().unwrap_or(i64::MIN)
    }

    /// Points of a dataset that are not sealed.
    pub fn open_points_of(&self, dataset: u32) -> u64 {
        let blobs = self.blobs.get(&dataset).into_iter().flat_map(BTreeMap::values);
        blobs.map(|blob| u64::from(blob.points)).sum()
    }

    /// Bytes of those of them that are whole instances.
    pub fn open_bytes_of(&self, dataset: u32) -> u64 {
        let blobs = self.blobs.get(&dataset).into_iter().flat_map(BTreeMap::values);
        blobs.map(|blob| u64::from(blob.bytes)).sum()
    }

    /// Notes a blob of so many points, and the bytes of whole instances among them.
    pub fn note_blob(&mut self, dataset: u32, commit: u64, points: usize, bytes: usize) {
        let few = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let blob = self.blobs.entry(dataset).or_default().entry(commit).or_default();
        blob.points = blob.points.saturating_add(few(points));
        blob.bytes = blob.bytes.saturating_add(few(bytes));
    }

    /// Points that are not sealed.
    pub fn open_points(&self) -> u64 {
        self.blobs.values().flat_map(BTreeMap::values).map(|blob| u64::from(blob.points)).sum()
    }

    /// The chunks of a series that may hold points in `from..until`.
    pub fn chunks_of(&self, series: u32, from: i64, until: i64) -> Vec<Chunk> {
        let chunks = self.chunks.get(&series).into_iter().flatten();
        let inside = |chunk: &&Chunk| chunk.reference.first < until && chunk.reference.last >= from;
        chunks.filter(inside).cloned().collect()
    }
}

/// Times and values, side by side.
type Slices<'a> = (&'a [i64], &'a [f64]);

/// Points shown where they lie, or made.
enum Points<'a> {
    There(Slices<'a>),
    Made(Run),
}

impl Points<'_> {
    fn slices(&self) -> Slices<'_> {
        match self {
            Points::There(slices) => *slices,
            Points::Made(run) => (&run.at, &run.value),
        }
    }
}

/// Sealed numbers of one series.
pub enum Sealed {
    /// To be read when it is its turn.
    Chunk(Chunk),
    /// In a part of a segment.
    Part { generation: u32, part: Arc<Blob>, range: Range<usize> },
}

impl Sealed {
    fn generation(&self) -> u32 {
        match self {
            Sealed::Chunk(chunk) => chunk.generation,
            Sealed::Part { generation, .. } => *generation,
        }
    }

    /// First and last instant.
    fn ends(&self) -> (i64, i64) {
        match self {
            Sealed::Chunk(chunk) => (chunk.reference.first, chunk.reference.last),
            Sealed::Part { part, range, .. } => {
                let at = &part.at[range.clone()];
                (at.first().map_or(i64::MAX, |at| *at), at.last().map_or(i64::MIN, |at| *at))
            }
        }
    }

    fn points(
        &self,
        read: &dyn Fn(&Chunk) -> Result<Run, StoreError>,
    ) -> Result<Points<'_>, StoreError> {
        Ok(match self {
            Sealed::Chunk(chunk) => Points::Made(read(chunk)?),
            Sealed::Part { part, range, .. } => {
                Points::There((&part.at[range.clone()], &part.value[range.clone()]))
            }
        })
    }
}

/// Pieces of one cluster overlap in time; clusters do not, and are in order.
fn clusters(mut pieces: Vec<Sealed>) -> Vec<Vec<Sealed>> {
    pieces.sort_by_key(|piece| piece.ends().0);
    let mut clusters: Vec<Vec<Sealed>> = Vec::new();
    let mut end = i64::MIN;
    for piece in pieces {
        let (first, last) = piece.ends();
        match clusters.last_mut() {
            Some(cluster) if first <= end => cluster.push(piece),
            _ => clusters.push(vec![piece]),
        }
        end = end.max(last);
    }
    clusters
}

/// Both, in order of time; where both have a point, the later's.
fn overlay((at, value): Slices, later: impl IntoIterator<Item = RawPoint>) -> Run {
    let mut later = later.into_iter().peekable();
    let mut run = Run::default();
    let mut push = |at, value| {
        run.at.push(at);
        run.value.push(value);
    };
    for (at, value) in at.iter().zip(value) {
        let mut replaced = false;
        while let Some((later_at, later_value)) = later.next_if(|(later, _)| later <= at) {
            push(later_at, later_value);
            replaced |= later_at == *at;
        }
        if !replaced {
            push(*at, *value);
        }
    }
    later.for_each(|(at, value)| push(at, value));
    run
}

/// Pieces in the order of their generations as one, halves of them first: pieces that all overlap cost
/// n log n, not each all that were before it.
fn laid_over<'a>(
    pieces: &'a [Sealed],
    read: &dyn Fn(&Chunk) -> Result<Run, StoreError>,
) -> Result<Option<Points<'a>>, StoreError> {
    let (older, later) = match pieces {
        [] => return Ok(None),
        [one] => return one.points(read).map(Some),
        many => many.split_at(many.len() / 2),
    };
    let (older, later) = (laid_over(older, read)?, laid_over(later, read)?);
    Ok(match (older, later) {
        (Some(older), Some(later)) => {
            let (at, value) = later.slices();
            let later = at.iter().copied().zip(value.iter().copied());
            Some(Points::Made(overlay(older.slices(), later)))
        }
        (older, later) => later.or(older),
    })
}

fn within((at, value): Slices, (from, until): (i64, i64)) -> Slices {
    let start = at.partition_point(|at| *at < from);
    let end = at.partition_point(|at| *at < until).max(start);
    (&at[start..end], &value[start..end])
}

/// Gives the numbers of a series in `from..until` to `each` in runs, in order of time, one cluster of
/// chunks in memory at a time. `open` is within that time.
pub fn each_run(
    sealed: Vec<Sealed>,
    open: &[RawPoint],
    time: (i64, i64),
    read: &dyn Fn(&Chunk) -> Result<Run, StoreError>,
    each: &mut dyn FnMut(&[i64], &[f64]),
) -> Result<(), StoreError> {
    let mut rest = open;
    for mut cluster in clusters(sealed) {
        cluster.sort_by_key(Sealed::generation);
        let Some(points) = laid_over(&cluster, read)? else { continue };
        let (at, value) = within(points.slices(), time);
        let Some(last) = at.last() else { continue };
        let (over, after) = rest.split_at(rest.partition_point(|(at, _)| at <= last));
        rest = after;
        if over.is_empty() {
            each(at, value);
        } else {
            let run = overlay((at, value), over.iter().copied());
            each(&run.at, &run.value);
        }
    }
    if !rest.is_empty() {
        let run: Run = rest.iter().copied().collect();
        each(&run.at, &run.value);
    }
    Ok(())
}
