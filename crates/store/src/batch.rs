//! What one commit changes.

use crate::{Packed, Series};
use model::{Entity, Instance, Time};
use std::sync::Arc;

/// Whose key a thing lies under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Under {
    /// The hub's own.
    Hub,
    /// A dataset's, by surrogate.
    Dataset(u32),
    /// One subject's (an entity's surrogate) in a dataset whose subjects may be erased.
    Subject(u32, u64),
    /// The sensitive root's public key: what cannot be read before that root is opened.
    Inbox,
}

impl Under {
    /// Of what says something of one subject in a dataset; `per_subject`: its subjects have keys of
    /// their own.
    pub fn of(dataset: u32, per_subject: bool, subject: u64) -> Under {
        if per_subject { Under::Subject(dataset, subject) } else { Under::Dataset(dataset) }
    }
}

/// What ties an entity's state to its record: its leaf in the group's small tree.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    /// Index of the record in the log.
    pub record: u64,
    /// The write's number in the group, and how many writes the group had.
    pub position: u32,
    pub group: u32,
    pub writer: u64,
    pub count: u32,
    /// The state's number in its write, and how many there were.
    pub item: u32,
    pub items: u32,
    /// From the state's digest to the write's digest, then to the group's root.
    pub item_path: Vec<[u8; 32]>,
    pub group_path: Vec<[u8; 32]>,
}

/// An entity's new state.
pub struct EntityWrite {
    pub number: u64,
    pub dataset: u32,
    pub per_subject: bool,
    pub entity: Arc<Entity>,
    pub series: Arc<Vec<Series>>,
    /// When it was deleted; its history may still be there.
    pub deleted: Option<Time>,
    /// Whether a document is written; otherwise the state follows from the observations.
    pub durable: bool,
    /// Entity and series, when a document is written.
    pub packed: Packed,
    /// Keyed digest of the state, when a document is written.
    pub digest: [u8; 32],
    pub evidence: Arc<Evidence>,
}

/// A row's value: a number in a series of numbers, or a whole instance.
#[derive(Clone, Debug, PartialEq)]
pub enum RowValue {
    Number(f64),
    Rich(Box<Instance>),
}

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Surrogate of the entity.
    pub entity: u64,
    /// Surrogate of the series.
    pub series: u32,
    /// `observedAt`, or the time of the change.
    pub at: Time,
    pub value: RowValue,
}

/// Observations of one dataset, in the order of their writers, encoded to be written.
pub struct Rows {
    pub dataset: u32,
    pub per_subject: bool,
    pub rows: Vec<Row>,
    pub(crate) blobs: Vec<Encoded>,
}

impl Rows {
    /// Subject (0: the whole dataset) and keyed digest of each blob.
    pub fn digests(&self) -> impl Iterator<Item = (u64, [u8; 32])> {
        self.blobs.iter().map(|blob| (blob.subject, blob.digest))
    }
}

/// A blob as it will be encrypted.
pub(crate) struct Encoded {
    pub subject: u64,
    pub plain: Vec<u8>,
    pub digest: [u8; 32],
}

/// A number that moves the state of a numeric series, and nothing else of its entity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Surrogate of the entity.
    pub entity: u64,
    /// Surrogate of the series.
    pub series: u32,
    /// `observedAt`; none in a series ordered by when it was changed.
    pub at: Option<Time>,
    pub value: f64,
}

/// A small thing by kind and name: a dataset, a principal, a subscription, a quarantined reading.
#[derive(Clone, Debug)]
pub struct Document {
    pub kind: u8,
    pub name: String,
    pub under: Under,
    /// None removes it.
    pub body: Option<Vec<u8>>,
}

/// One atomic commit.
#[derive(Default)]
pub struct Batch {
    /// When the changes were made.
    pub time: Time,
    /// The latest time given to a row that brought none; it may be earlier than those of other commits.
    pub undated: Time,
    pub entities: Vec<EntityWrite>,
    /// By dataset, as [`crate::Store::encode_rows`] makes them.
    pub rows: Vec<Rows>,
    /// Steps whose rows are among the rows above: done before the entities above are written.
    pub steps: Vec<Step>,
    /// History to forget: dataset, series.
    pub forgotten: Vec<(u32, u32)>,
    pub documents: Vec<Document>,
    /// Salt and record, in the order of their indices.
    pub records: Vec<([u8; 32], Vec<u8>)>,
    /// Sealed history that replaces open rows.
    pub sealed: Vec<crate::Sealed>,
    /// A dataset whose history before this instant ends.
    pub retained: Vec<(u32, Time)>,
    /// Whose keys are deleted next: from this commit on, no digest of states counts what lies under
    /// them.
    pub erased: Vec<Under>,
    /// As [`crate::Store::states_after`] gives them.
    pub states: Vec<crate::States>,
    /// A signed checkpoint of the log as it will be or was.
    pub checkpoint: Option<String>,
}

impl Batch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
            && self.rows.is_empty()
            && self.steps.is_empty()
            && self.forgotten.is_empty()
            && self.documents.is_empty()
            && self.records.is_empty()
            && self.sealed.is_empty()
            && self.retained.is_empty()
            && self.erased.is_empty()
            && self.checkpoint.is_none()
    }
}
