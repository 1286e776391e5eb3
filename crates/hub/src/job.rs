//! What the committer is asked for, and what it answers.

use journal::Hash;
use model::{Change, Dataset, Outcome, Record, Refusal, Time};
use std::sync::Arc;
use store::{Document, Rewrapped, Sealed, Step, StoreError, Under};
use tokio::sync::oneshot;

/// A change that was decided and checked, with the dataset it goes to.
#[derive(Clone)]
pub struct Planned {
    pub change: Change,
    pub number: u32,
    pub dataset: Arc<Dataset>,
    /// An older observation changes only the history.
    pub late: bool,
}

/// What became of a write.
pub struct Committed {
    pub results: Vec<Result<Outcome, Refusal>>,
    /// Index of the record that stands for the write; none when nothing was recorded.
    pub record: Option<u64>,
    /// Index of the first of its own records.
    pub own: Option<u64>,
    /// It went to the ring: its record comes when that is reconciled.
    pub in_ring: bool,
    /// The write's leaf in the record's small tree, and how many leaves that has.
    pub position: u32,
    pub group: u32,
    pub path: Vec<Hash>,
    pub leaf: Hash,
}

pub type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// One write.
pub struct WriteJob {
    pub writer: u64,
    pub planned: Vec<Planned>,
    /// Documents that belong to it: quarantined readings.
    pub documents: Vec<Document>,
    /// Records of its own, for acts and for personal data.
    pub records: Vec<Record>,
    /// An act: where its change is refused, nothing of it is done.
    pub whole: bool,
    /// Keys to delete right after the commit.
    pub shred: Option<Shred>,
    /// Numbers that only move states, of so many readings; the changes above come first.
    pub steps: Vec<WriterStep>,
    pub readings: usize,
    /// What subscriptions there were when it was found that none concerns the steps.
    pub subscriptions: u64,
    /// Of the steps: an older one changes only the history.
    pub late: bool,
    /// When it came, if that was long ago: what has no time of its own is as old.
    pub came: Option<Time>,
    pub reply: Done<Committed>,
}

impl WriteJob {
    /// A write of nothing yet.
    pub fn new(writer: u64, reply: Done<Committed>) -> WriteJob {
        WriteJob {
            writer,
            planned: Vec::new(),
            documents: Vec::new(),
            records: Vec::new(),
            whole: false,
            shred: None,
            steps: Vec::new(),
            readings: 0,
            subscriptions: 0,
            late: false,
            came: None,
            reply,
        }
    }
}

/// Keys that are to be deleted for good.
pub struct Shred {
    pub under: Under,
    pub dataset: String,
    /// Which; taken when the act is committed.
    pub keys: Vec<u32>,
    /// When that is: what came later stays.
    pub time: Time,
    pub reply: Option<Done<()>>,
}

impl Shred {
    /// All keys there are when the act is committed.
    pub fn of(under: Under, dataset: &str) -> Shred {
        let dataset = dataset.to_owned();
        Shred { under, dataset, keys: Vec::new(), time: Time::MAX, reply: None }
    }
}

/// A dataset that is encrypted anew, step by step.
pub struct Rewrapping {
    pub dataset: u32,
    pub id: String,
    pub from: Option<Rewrapped>,
}

/// What the committer is asked for.
pub enum Job {
    Write(WriteJob),
    /// Records alone; the reply is the first one's index.
    Records {
        records: Vec<Record>,
        reply: Option<Done<u64>>,
    },
    /// Documents of some entities that are ahead of theirs, before a seal: a seal alone would hold up
    /// everybody for as long as it takes to write all of them. Whoever sends the next when this one's
    /// `done` is gone lets others come in between.
    Documents {
        numbers: Vec<u64>,
        done: oneshot::Sender<()>,
    },
    Seal(Box<Sealed>, Record),
    Retain {
        dataset: u32,
        floor: Time,
        record: Record,
    },
    /// Encrypt anew what lies under older keys of a dataset, going on from where that was left.
    Rewrap(Rewrapping),
    /// Delete keys that an act before the last end was to delete.
    Shred(Shred),
    Checkpoint,
    Stop(oneshot::Sender<()>),
}

/// A step of a write, with the reading it came from.
#[derive(Clone, Copy)]
pub struct WriterStep {
    pub step: Step,
    /// Place of the reading in its message.
    pub reading: u32,
    /// The reading named the entity's type: it may bring back one that was deleted meanwhile.
    pub typed: bool,
}
