//! Segments: short runs of many series, sealed together.
//!
//! A segment is a blob of many commits, ordered by series and time. A generation of segments lies in
//! parts that cover ranges of series; few generations are there at a time, for a seal merges its
//! points with those of younger generations that are not much larger (the logarithmic method).

use crate::codec::{Blob, PartRef};
use crate::points::{RawPoint, RichPoint};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of whole instances in one part.
const MAX_RICH_BYTES: usize = 256 << 10;
/// Decoded parts that are kept: those who read series after series read a part once.
const KEPT: usize = 16;

/// The parts of one generation, in memory.
#[derive(Clone)]
pub struct Generation {
    pub number: u32,
    /// The number of the part, and what is in it.
    pub parts: Vec<(u32, PartRef)>,
}

impl Generation {
    pub fn points(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.count as usize).sum()
    }

    /// The parts that may hold points of a series.
    pub fn of(&self, series: u32) -> impl Iterator<Item = &(u32, PartRef)> {
        let start = self.parts.partition_point(|(_, part)| part.last_series < series);
        self.parts[start..].iter().take_while(move |(_, part)| part.first_series <= series)
    }
}

/// Where a part lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub dataset: u32,
    pub generation: u32,
    pub part: u32,
}

impl Place {
    /// Its key in the table of chunks, where no series has the number 0.
    pub fn key(self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&self.dataset.to_be_bytes());
        key[8..12].copy_from_slice(&self.generation.to_be_bytes());
        key[12..].copy_from_slice(&self.part.to_be_bytes());
        key
    }
}

/// Where the numbers of a series lie in a part.
pub fn numbers_of(part: &Blob, series: u32) -> Range<usize> {
    let start = part.series.partition_point(|one| *one < series);
    let end = start + part.series[start..].partition_point(|one| *one == series);
    start..end
}

/// The whole instances of a series in a part.
pub fn rich_of(part: &Blob, series: u32) -> impl Iterator<Item = &RichPoint> {
    let start = part.rich.partition_point(|point| point.series < series);
    part.rich[start..].iter().take_while(move |point| point.series == series)
}

/// The latest parts that were read.
#[derive(Default)]
pub struct Kept(Mutex<VecDeque<(Place, Arc<Blob>)>>);

impl Kept {
    pub fn get(&self, place: Place) -> Option<Arc<Blob>> {
        let kept = self.0.lock();
        kept.iter().find(|(at, _)| *at == place).map(|(_, part)| part.clone())
    }

    pub fn put(&self, place: Place, part: Arc<Blob>) {
        let mut kept = self.0.lock();
        kept.push_front((place, part));
        kept.truncate(KEPT);
    }

    /// When a key is deleted, nothing it encrypted stays.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Makes parts of points that come in the order of their series; gives each as it is full.
pub struct Builder {
    /// Numbers in one part.
    max_numbers: usize,
    open: Blob,
    rich_bytes: usize,
}

impl Builder {
    pub fn new(max_numbers: usize) -> Builder {
        Builder { max_numbers, open: Blob::default(), rich_bytes: 0 }
    }

    #[must_use]
    pub fn number(&mut self, series: u32, (at, value): RawPoint) -> Option<Blob> {
        self.open.series.push(series);
        self.open.at.push(at);
        self.open.value.push(value);
        (self.open.series.len() >= self.max_numbers).then(|| self.cut())
    }

    /// An instance, and about how many bytes it takes.
    #[must_use]
    pub fn rich(&mut self, point: RichPoint, bytes: usize) -> Option<Blob> {
        self.open.rich.push(point);
        self.rich_bytes += bytes;
        (self.rich_bytes >= MAX_RICH_BYTES).then(|| self.cut())
    }

    fn cut(&mut self) -> Blob {
        self.rich_bytes = 0;
        std::mem::take(&mut self.open)
    }

    /// The part that is not full.
    pub fn finish(&mut self) -> Option<Blob> {
        (!self.open.series.is_empty() || !self.open.rich.is_empty()).then(|| self.cut())
    }
}

/// What is in a part that was just made, but for its digest.
pub fn describe(part: &Blob) -> PartRef {
    let series = part.series.iter().copied().chain(part.rich.iter().map(|point| point.series));
    let times = part.at.iter().copied().chain(part.rich.iter().map(|point| point.at));
    let (first_series, last_series) = ends(series).unwrap_or_default();
    let (first, last) = ends(times).unwrap_or_default();
    let count = u32::try_from(part.series.len() + part.rich.len()).unwrap_or(u32::MAX);
    PartRef { first_series, last_series, first, last, count, digest: [0; 32] }
}

fn ends<T: Ord + Copy>(mut all: impl Iterator<Item = T>) -> Option<(T, T)> {
    let first = all.next()?;
    Some(all.fold((first, first), |(least, most), one| (least.min(one), most.max(one))))
}
