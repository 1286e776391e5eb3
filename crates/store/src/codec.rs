//! Layouts on disk. Everything here is encrypted before it is written.

use crate::{
    EntityWrite, Packed, Series, StoreError,
    points::{RichPoint, Run},
};
use model::{Entity, Time};
use pco::ChunkConfig;
use pco::standalone::{FileDecompressor, simple_compress};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// An entity as kept: its fields one after another.
pub struct EntityDoc {
    pub number: u64,
    pub dataset: u32,
    pub per_subject: bool,
    pub entity: Entity,
    pub series: Vec<Series>,
    pub deleted: Option<Time>,
    /// The commit that wrote this: rows of later commits change the state further.
    pub commit: u64,
}

impl EntityDoc {
    /// The same bytes, made of what is encoded already: a document is its fields one after another.
    pub fn encode(write: &EntityWrite, commit: u64) -> Vec<u8> {
        let mut bytes = encode(&(write.number, write.dataset, write.per_subject));
        bytes.extend_from_slice(write.packed.bytes());
        bytes.extend(encode(&(write.deleted, commit, &write.evidence)));
        bytes
    }

    /// Reads a document; gives what is packed in it as it lies there, and its evidence, encoded: only
    /// whoever verifies looks at that.
    pub fn decode(bytes: &[u8]) -> Result<(EntityDoc, Packed, &[u8]), StoreError> {
        let damaged = |_| StoreError::Damaged("an entity".into());
        let (head, rest) = postcard::take_from_bytes::<(u64, u32, bool)>(bytes).map_err(damaged)?;
        let ((entity, series), tail) =
            postcard::take_from_bytes::<(Entity, Vec<Series>)>(rest).map_err(damaged)?;
        let packed = Packed::from_bytes(&rest[..rest.len() - tail.len()]);
        let ((deleted, commit), evidence) = postcard::take_from_bytes(tail).map_err(damaged)?;
        let (number, dataset, per_subject) = head;
        let doc = EntityDoc { number, dataset, per_subject, entity, series, deleted, commit };
        Ok((doc, packed, evidence))
    }
}

/// Observations of one commit and dataset. Numbers in columns, the rest whole.
#[derive(Clone, Default)]
pub struct Blob {
    /// When it was committed.
    pub time: i64,
    pub series: Vec<u32>,
    pub at: Vec<i64>,
    pub value: Vec<f64>,
    pub rich: Vec<RichPoint>,
}

/// What a generation of sealed chunks holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub generation: u32,
    pub chunks: Vec<ChunkRef>,
}

/// One sealed chunk.
#[derive(Clone, Serialize, Deserialize)]
pub struct ChunkRef {
    pub series: u32,
    pub rich: bool,
    pub first: i64,
    pub last: i64,
    pub count: u32,
    /// Keyed digest of the plain chunk.
    pub digest: [u8; 32],
    pub key: u32,
}

/// What a generation of segments holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Segments {
    pub generation: u32,
    /// By number of the part, in the order of their series.
    pub parts: Vec<PartRef>,
}

/// One part of a generation of segments: points of a range of series.
#[derive(Clone, Serialize, Deserialize)]
pub struct PartRef {
    pub first_series: u32,
    pub last_series: u32,
    pub first: i64,
    pub last: i64,
    pub count: u32,
    /// Keyed digest of the plain part.
    pub digest: [u8; 32],
}

/// What was forgotten of a series: everything before this commit and generation.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Forgotten {
    pub series: u32,
    pub commit: u64,
    pub generation: u32,
}

/// Largest number of points in a blob or chunk that is believed when reading.
const MAX_POINTS: usize = 1 << 24;

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data into memory: this cannot fail.
    postcard::to_stdvec(value).unwrap_or_default()
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| StoreError::Damaged(what.to_owned()))
}

fn config() -> ChunkConfig {
    ChunkConfig::default().with_compression_level(1)
}

fn column<T: pco::data_types::Number>(out: &mut Vec<u8>, numbers: &[T]) {
    // Level 1 on plain slices: this cannot fail.
    let bytes = simple_compress(numbers, &config()).unwrap_or_default();
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *rest = after;
    Some(part)
}

fn numbers<T: pco::data_types::Number>(rest: &mut &[u8]) -> Option<Vec<T>> {
    let part = take(rest)?;
    let (file, body) = FileDecompressor::new(part).ok()?;
    let numbers = file.with_max_prealloc(1 << 20).simple_decompress::<T>(body).ok()?;
    (numbers.len() <= MAX_POINTS).then_some(numbers)
}

impl Blob {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.series.len() * 8);
        out.extend_from_slice(&self.time.to_be_bytes());
        column(&mut out, &self.series);
        column(&mut out, &self.at);
        column(&mut out, &self.value);
        if !self.rich.is_empty() {
            out.extend(encode(&self.rich));
        }
        out
    }

    pub fn decode(mut bytes: &[u8]) -> Result<Blob, StoreError> {
        let damaged = || StoreError::Damaged("a blob of observations".into());
        let (time, after) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        bytes = after;
        let rest = &mut bytes;
        let blob = Blob {
            time: i64::from_be_bytes(*time),
            series: numbers(rest).ok_or_else(damaged)?,
            at: numbers(rest).ok_or_else(damaged)?,
            value: numbers(rest).ok_or_else(damaged)?,
            rich: if rest.is_empty() {
                Vec::new()
            } else {
                decode(rest, "a blob of observations")?
            },
        };
        let same = blob.series.len() == blob.at.len() && blob.at.len() == blob.value.len();
        if same { Ok(blob) } else { Err(damaged()) }
    }
}

/// A sealed chunk of a numeric series: times and values.
pub fn encode_points(points: &[(i64, f64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(points.len() * 4);
    column(&mut out, &points.iter().map(|(at, _)| *at).collect::<Vec<_>>());
    column(&mut out, &points.iter().map(|(_, value)| *value).collect::<Vec<_>>());
    out
}

pub fn decode_points(mut bytes: &[u8]) -> Result<Run, StoreError> {
    let damaged = || StoreError::Damaged("a sealed chunk".into());
    let at: Vec<i64> = numbers(&mut bytes).ok_or_else(damaged)?;
    let value: Vec<f64> = numbers(&mut bytes).ok_or_else(damaged)?;
    if at.len() != value.len() {
        return Err(damaged());
    }
    Ok(Run { at, value })
}
