//! Histories: open runs in memory, sealed chunks on disk, and one merged view of both.
//!
//! A point is known by series and time; a later commit's point replaces an earlier one's. Chunks of
//! later generations win over earlier ones, open runs over all chunks.

use crate::StoreError;
use crate::codec::{self, ChunkRef, Manifest};
use model::{Instance, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// A numeric point: microseconds and value.
pub type RawPoint = (i64, f64);

/// A point of a series of whole instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RichPoint {
    pub series: u32,
    pub at: i64,
    pub instance: Instance,
}

/// A point of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    Number(Time, f64),
    Rich(Time, Box<Instance>),
}

impl Point {
    /// When it was.
    pub fn at(&self) -> Time {
        match self {
            Point::Number(at, _) | Point::Rich(at, _) => *at,
        }
    }
}

#[derive(Clone)]
pub struct Chunk {
    pub dataset: u32,
    pub generation: u32,
    pub reference: ChunkRef,
}

/// Open points of one series, ordered by time.
#[derive(Clone, Debug)]
pub enum Open {
    Numbers(Vec<RawPoint>),
    /// Whole instances, encoded: they are seldom read.
    Rich(Vec<(i64, Box<[u8]>)>),
}

fn insert<T>(run: &mut Vec<(i64, T)>, at: i64, value: T) {
    match run.last() {
        Some((last, _)) if *last >= at => match run.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(index) => run[index].1 = value,
            Err(index) => run.insert(index, (at, value)),
        },
        _ => run.push((at, value)),
    }
}

#[derive(Default)]
pub struct History {
    pub open: HashMap<u32, Open>,
    pub chunks: HashMap<u32, Vec<Chunk>>,
    /// Dataset and entity of each series.
    pub owner: HashMap<u32, (u32, u64)>,
    /// Per dataset: commits with unsealed blobs, and the points in each.
    pub blobs: HashMap<u32, BTreeMap<u64, u32>>,
    /// Per dataset: the instant before which nothing is kept.
    pub retained: HashMap<u32, i64>,
    pub generations: HashMap<u32, u32>,
    /// When each dataset was last forgotten of, so that a plan made before is thrown away.
    pub forgotten_at: HashMap<u32, u64>,
}

impl History {
    pub fn next_series(&self) -> u32 {
        self.owner.keys().max().map_or(1, |last| last + 1)
    }

    pub fn put_number(&mut self, series: u32, at: i64, value: f64) {
        let open = self.open.entry(series).or_insert_with(|| Open::Numbers(Vec::new()));
        if let Open::Numbers(run) = open {
            insert(run, at, value);
        }
    }

    pub fn put_rich(&mut self, series: u32, at: i64, instance: &Instance) {
        let open = self.open.entry(series).or_insert_with(|| Open::Rich(Vec::new()));
        if let Open::Rich(run) = open {
            insert(run, at, codec::encode(instance).into_boxed_slice());
        }
    }

    pub fn add_manifest(&mut self, dataset: u32, manifest: &Manifest) {
        let generation = manifest.generation;
        let latest = self.generations.entry(dataset).or_default();
        *latest = (*latest).max(generation);
        for reference in &manifest.chunks {
            self.chunks.entry(reference.series).or_default().push(Chunk {
                dataset,
                generation,
                reference: reference.clone(),
            });
        }
    }

    /// Takes away everything known of a series.
    pub fn forget(&mut self, dataset: u32, series: u32, commit: u64) {
        self.open.remove(&series);
        self.chunks.remove(&series);
        self.forgotten_at.insert(dataset, commit);
    }

    /// Takes away everything of a dataset before `floor`.
    pub fn retain(&mut self, dataset: u32, floor: i64) {
        self.retained.insert(dataset, floor);
        for chunks in self.chunks.values_mut() {
            chunks.retain(|chunk| chunk.dataset != dataset || chunk.reference.last >= floor);
        }
        for (series, open) in &mut self.open {
            if self.owner.get(series).is_some_and(|owner| owner.0 == dataset) {
                match open {
                    Open::Numbers(run) => run.retain(|(at, _)| *at >= floor),
                    Open::Rich(run) => run.retain(|(at, _)| *at >= floor),
                }
            }
        }
    }

    pub fn floor(&self, dataset: u32) -> i64 {
        self.retained.get(&dataset).copied().unwrap_or(i64::MIN)
    }

    pub fn open_points(&self) -> usize {
        let length = |open: &Open| match open {
            Open::Numbers(run) => run.len(),
            Open::Rich(run) => run.len(),
        };
        self.open.values().map(length).sum()
    }

    /// The chunks of a series that may hold points in `from..until`, in clusters: chunks of one
    /// cluster overlap in time, clusters do not and are in order.
    pub fn clusters(&self, series: u32, from: i64, until: i64) -> Vec<Vec<Chunk>> {
        let Some(chunks) = self.chunks.get(&series) else { return Vec::new() };
        let mut chunks: Vec<Chunk> = chunks
            .iter()
            .filter(|chunk| chunk.reference.first < until && chunk.reference.last >= from)
            .cloned()
            .collect();
        chunks.sort_by_key(|chunk| chunk.reference.first);
        let mut clusters: Vec<Vec<Chunk>> = Vec::new();
        let mut end = i64::MIN;
        for chunk in chunks {
            let last = chunk.reference.last;
            match clusters.last_mut() {
                Some(cluster) if chunk.reference.first <= end => cluster.push(chunk),
                _ => clusters.push(vec![chunk]),
            }
            end = end.max(last);
        }
        clusters
    }
}

/// Gives every number of a series in `from..until` to `each`, in order, one cluster of chunks in
/// memory at a time.
pub fn each_number(
    clusters: Vec<Vec<Chunk>>,
    open: &[RawPoint],
    (from, until): (i64, i64),
    read: &dyn Fn(&Chunk) -> Result<Vec<RawPoint>, StoreError>,
    each: &mut dyn FnMut(i64, f64),
) -> Result<(), StoreError> {
    let within = |at: i64| at >= from && at < until;
    let mut rest = open.iter().copied().filter(|(at, _)| within(*at)).peekable();
    for mut cluster in clusters {
        cluster.sort_by_key(|chunk| chunk.generation);
        let points = match cluster.as_slice() {
            [one] => read(one)?,
            many => {
                let mut merged = BTreeMap::new();
                for chunk in many {
                    merged.extend(read(chunk)?);
                }
                merged.into_iter().collect()
            }
        };
        for (at, value) in points.into_iter().filter(|(at, _)| within(*at)) {
            let mut replaced = false;
            while let Some((open_at, open_value)) = rest.next_if(|(open_at, _)| *open_at <= at) {
                each(open_at, open_value);
                replaced |= open_at == at;
            }
            if !replaced {
                each(at, value);
            }
        }
    }
    rest.for_each(|(at, value)| each(at, value));
    Ok(())
}
