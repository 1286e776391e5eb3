//! The ring: a preallocated, encrypted file that takes life-safety data with its record when the
//! store cannot (failure class B). It is reconciled when the store can again; when it is full,
//! nothing more is acknowledged.

use crate::job::{Committed, Job, Planned, WriteJob};
use crate::watch::ChangeEvent;
use crate::write::{Kept, Plan};
use crate::{Counter, Hub, HubError, limits};
use model::{Change, Dataset, Entity, Record, Time};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use store::{Document, Files, StoreError};
use vault::Secret;

/// Frames that are handed to the committer before the first is waited for.
const BROUGHT_AT_ONCE: usize = 1_000;

/// What came back from the ring: records, what is to be set apart, for it does not fit any more, and how
/// much belongs to no dataset any more.
#[derive(Default)]
struct Back {
    records: Vec<Record>,
    apart: Vec<Document>,
    unclaimed: usize,
}

/// Life-safety data for the ring, and the dataset that it was decided for.
#[derive(Serialize, Deserialize)]
pub struct Urgent {
    pub home: u32,
    pub entity: Entity,
}

/// What a frame brought, on its way to the store.
struct Brought {
    writer: u64,
    planned: Vec<Planned>,
    answer: tokio::sync::oneshot::Receiver<Result<Committed, StoreError>>,
}

pub struct Ring {
    file: File,
    end: u64,
    /// Beside the keys, so that a ring that was emptied or put back at the disk is noticed.
    mark: File,
    /// How often it was reconciled: frames of before do not open any more.
    epoch: u64,
    /// Frames there are, and frames that were acknowledged and are not there.
    count: u64,
    missing: u64,
}

/// What the mark says: epoch and frames, and a check of both.
fn marked(epoch: u64, count: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&epoch.to_be_bytes());
    bytes[8..16].copy_from_slice(&count.to_be_bytes());
    let check = vault::digest(&bytes[..16]);
    bytes[16..].copy_from_slice(&check[..8]);
    bytes
}

/// Opens the mark; gives epoch and frames.
fn open_mark(files: &Files) -> Result<(File, u64, u64), HubError> {
    let path = files.keys.join("ring");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(wrong)?;
    let mut bytes = [0; 24];
    if file.metadata().map_err(wrong)?.len() == 0 {
        file.write_all_at(&marked(0, 0), 0).and_then(|()| file.sync_all()).map_err(wrong)?;
        File::open(&files.keys).and_then(|keys| keys.sync_all()).map_err(wrong)?;
        return Ok((file, 0, 0));
    }
    let damaged = || StoreError::Damaged(format!("the ring's mark `{}`", path.display()));
    file.read_exact_at(&mut bytes, 0).map_err(|_| damaged())?;
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
    let (epoch, count) = (number(0), number(8));
    if marked(epoch, count) == bytes { Ok((file, epoch, count)) } else { Err(damaged().into()) }
}

/// What a frame is bound to: its place, in this filling of the ring.
fn context(epoch: u64, index: u64) -> Vec<u8> {
    [b"ring".as_slice(), &epoch.to_be_bytes(), &index.to_be_bytes()].concat()
}

fn wrong(error: std::io::Error) -> HubError {
    HubError::Storage(StoreError::File("ring".into(), error))
}

impl Ring {
    /// Opens the ring file, at its full size so that a full disk cannot keep it from being used.
    pub fn open(files: &Files) -> Result<Ring, HubError> {
        let path = files.data.join("ring");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(wrong)?;
        let length = file.metadata().map_err(wrong)?.len();
        if length < limits::RING_BYTES {
            // Written, not just sized: the blocks must be there when the disk is full.
            let zeros = vec![0; 1 << 20];
            for at in (length..limits::RING_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, at).map_err(wrong)?;
            }
            file.sync_all().map_err(wrong)?;
            File::open(&files.data).and_then(|data| data.sync_all()).map_err(wrong)?;
        }
        let (mark, epoch, known) = open_mark(files)?;
        let mut ring = Ring { file, end: 0, mark, epoch, count: 0, missing: 0 };
        while let Some(frame) = ring.frame(ring.end) {
            ring.end += 4 + frame.len() as u64;
            ring.count += 1;
        }
        ring.missing = known.saturating_sub(ring.count);
        if ring.count == 0 && known == 0 {
            ring.wipe().map_err(wrong)?;
        }
        Ok(ring)
    }

    fn frame(&self, at: u64) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, at).ok()?;
        let length = u64::from(u32::from_be_bytes(length));
        if length == 0 || at + 4 + length > limits::RING_BYTES {
            return None;
        }
        let mut frame = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut frame, at + 4).ok()?;
        Some(frame)
    }

    /// Appends a frame durably; false when there is no room or the write failed.
    fn append(&mut self, key: &Secret, plain: &[u8]) -> bool {
        let sealed = vault::seal(key, &context(self.epoch, self.count), plain);
        let length = sealed.len() as u64;
        if self.end + 8 + length > limits::RING_BYTES {
            return false;
        }
        let Ok(prefix) = u32::try_from(length) else { return false };
        let mut bytes = prefix.to_be_bytes().to_vec();
        bytes.extend(sealed);
        // What follows must not be taken for another frame.
        bytes.extend([0; 4]);
        let written = self.file.write_all_at(&bytes, self.end).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            tracing::error!(%error, "the ring cannot be written");
            // It was not acknowledged, and must not be found there once the disk is well again.
            let undone = self.file.write_all_at(&[0; 4], self.end);
            drop(undone.and_then(|()| self.file.sync_data()));
            return false;
        }
        self.end += 4 + length;
        self.count += 1;
        // Like the store's position: it has to outlive the process.
        if let Err(error) = self.mark.write_all_at(&marked(self.epoch, self.count), 0) {
            tracing::error!(%error, "the ring's mark cannot be written");
        }
        true
    }

    /// All frames, oldest first; those that do not open are left out, and counted.
    fn frames(&self, key: &Secret) -> (Vec<Vec<u8>>, usize) {
        let (mut frames, mut damaged, mut at) = (Vec::new(), 0, 0);
        for index in 0..self.count {
            let Some(sealed) = self.frame(at) else { break };
            at += 4 + sealed.len() as u64;
            // Hubs before there was a mark bound frames to no place.
            let before = || (self.epoch == 0).then(|| vault::open(key, b"ring", &sealed)).flatten();
            match vault::open(key, &context(self.epoch, index), &sealed).or_else(before) {
                Some(plain) => frames.push(plain),
                None => damaged += 1,
            }
        }
        (frames, damaged)
    }

    /// Frames there are.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.count
    }

    fn clear(&mut self) -> std::io::Result<()> {
        // Ended in between, they are reconciled again, and none is missed.
        self.mark.write_all_at(&marked(self.epoch, 0), 0)?;
        self.mark.sync_data()?;
        self.file.write_all_at(&[0; 4], 0)?;
        // Whether that is safe or not: the next frame goes where the first one is looked for.
        (self.end, self.count, self.missing) = (0, 0, 0);
        self.file.sync_data()?;
        // Durable before a frame is bound to it: such a frame would not open after a power cut.
        self.mark.write_all_at(&marked(self.epoch + 1, 0), 0)?;
        self.mark.sync_data()?;
        self.epoch += 1;
        self.wipe()
    }

    /// Of an empty ring nothing is left in the file: a copy of what came home would outlive an erasure.
    fn wipe(&self) -> std::io::Result<()> {
        let mut bytes = vec![0; usize::try_from(limits::RING_BYTES).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, 0)?;
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return Ok(()) };
        bytes.fill(0);
        self.file.write_all_at(&bytes[..=last], 0)?;
        self.file.sync_data()
    }
}

/// What a frame holds: who wrote, when, and what was brought, or a record. It is data and record in
/// one.
#[derive(Default, Serialize, Deserialize)]
struct Frame {
    writer: u64,
    time: Time,
    #[serde(default)]
    urgent: Vec<Urgent>,
    /// Of hubs that did not note where it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entities: Vec<Entity>,
    #[serde(default)]
    records: Vec<Record>,
}

impl Frame {
    /// What it brings, and where to if that is known.
    fn brings(&self) -> impl Iterator<Item = (Option<u32>, &Entity)> {
        let urgent = self.urgent.iter().map(|one| (Some(one.home), &one.entity));
        urgent.chain(self.entities.iter().map(|entity| (None, entity)))
    }
}

impl Hub {
    /// Keeps what a life-safety write brought, and its own records, in the ring; gives it back, or none
    /// when that cannot be.
    pub(crate) fn ring_write(
        &self,
        writer: u64,
        urgent: Vec<Urgent>,
        records: Vec<Record>,
    ) -> Option<Vec<Urgent>> {
        let time = self.now();
        let frame = Frame { writer, time, urgent, entities: Vec::new(), records };
        self.ring_keep(&frame).then_some(frame.urgent)
    }

    /// Keeps the record of an emergency read in the ring; false when that cannot be.
    pub(crate) fn ring_record(&self, record: Record) -> bool {
        let emergency = record.purpose.as_deref().is_some_and(|p| self.state.is_emergency(p));
        let frame = Frame {
            writer: record.actor,
            time: record.time,
            records: vec![record],
            ..Frame::default()
        };
        emergency && self.ring_keep(&frame)
    }

    fn ring_keep(&self, frame: &Frame) -> bool {
        let bytes = crate::kept::to_json(frame);
        let kept = self.ring.lock().append(&self.store.derived_key("ring"), &bytes);
        if kept {
            self.counters.add(Counter::RingFrames, 1);
            tracing::error!(frame.writer, "the store cannot write; the ring took what must go on");
        }
        kept
    }

    /// Whether nothing is in the ring that would come home after what it belongs to was deleted.
    ///
    /// # Errors
    /// When something is.
    pub(crate) fn ring_is_home(&self) -> Result<(), HubError> {
        if self.ring.lock().end == 0 {
            return Ok(());
        }
        let what =
            "what went to the ring has not come home yet; try again when the store can write";
        Err(HubError::Conflict(what.into()))
    }

    /// Shows states that went to the ring, so that the picture goes on while writes fail.
    pub(crate) fn show_from_ring(&self, events: Vec<ChangeEvent>) {
        self.store.show(events.iter().map(|event| (event.number, event.entity.clone())));
        self.watches.tell(events);
    }

    /// Brings what the ring holds into the store, with a record that says so.
    pub(crate) fn reconcile_ring(&self) {
        // The committer may want the ring while it works on this: it is not held meanwhile.
        let (frames, damaged, missing, end) = {
            let ring = self.ring.lock();
            if (ring.end == 0 && ring.missing == 0) || self.trouble().is_some() {
                return;
            }
            let (frames, damaged) = ring.frames(&self.store.derived_key("ring"));
            let gone = ring.count.saturating_sub((frames.len() + damaged) as u64);
            (frames, damaged, ring.missing + gone, ring.end)
        };
        if missing > 0 || damaged > 0 {
            tracing::error!(missing, damaged, "the ring does not hold what it was given");
        }
        let count = frames.len();
        let read = |frame: &Vec<u8>| serde_json::from_slice::<Frame>(frame).ok();
        let frames: Vec<Frame> = frames.iter().filter_map(read).collect();
        let damaged = damaged + count - frames.len();
        let is_away = |frame: &Frame| frame.brings().any(|(home, one)| self.is_away(home, one));
        if self.store.is_sealed() && frames.iter().any(is_away) {
            // Together, so that they keep their order.
            tracing::warn!("the ring holds what waits for the sensitive root");
            return;
        }
        let Some(Back { mut records, apart, unclaimed }) = self.bring_back(frames) else { return };
        let detail = crate::recorder::map([
            ("reconciled", model::Value::Integer(count as i64)),
            ("damaged", model::Value::Integer(damaged as i64)),
            ("missing", model::Value::Integer(missing.cast_signed())),
            ("set_apart", model::Value::Integer(apart.len() as i64)),
            ("unclaimed", model::Value::Integer(unclaimed as i64)),
        ]);
        let own = self.own_session();
        let made = crate::recorder::record(&own, model::Verb::Upkeep, "", self.now(), detail);
        records.push(made);
        let (reply, answer) = tokio::sync::oneshot::channel();
        // At the end and together, so that nothing is there twice when it could not be done to the end.
        let job = Job::Write(WriteJob { documents: apart, records, ..WriteJob::new(1, reply) });
        if self.jobs.blocking_send(job).is_err() || !matches!(answer.blocking_recv(), Ok(Ok(_))) {
            return;
        }
        let mut ring = self.ring.lock();
        // What came meanwhile is reconciled, with all before it, the next time.
        if ring.end == end
            && let Err(error) = ring.clear()
        {
            tracing::error!(%error, "the ring cannot be cleared; it will be reconciled again");
        }
    }
}

impl Hub {
    /// The dataset that an entity from the ring was for; where that is not known the one that it lies in,
    /// closed or not, or that claims it.
    fn home_of(&self, noted: Option<u32>, entity: &Entity) -> Option<(u32, Arc<Dataset>)> {
        let snapshot = self.state.snapshot();
        if let Some(number) = noted {
            return Some((number, snapshot.by_number(number)?.clone()));
        }
        let held = self.store.entity(&entity.id).map(|held| held.dataset);
        let lies = held.or_else(|| self.store.closed_owner(&entity.id));
        let number = lies.or_else(|| Some(snapshot.claimant(&entity.types, &entity.scopes)?.0))?;
        Some((number, snapshot.by_number(number)?.clone()))
    }

    fn is_away(&self, noted: Option<u32>, entity: &Entity) -> bool {
        let home = self.home_of(noted, entity);
        home.is_some_and(|(number, dataset)| self.is_closed(number, &dataset))
    }

    /// Writes what frames brought, each as of when it came; none when that cannot be now. One that is
    /// done twice is the same again.
    fn bring_back(&self, frames: Vec<Frame>) -> Option<Back> {
        let mut back = Back::default();
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            let mut brought = Vec::with_capacity(BROUGHT_AT_ONCE);
            for mut frame in frames.by_ref().take(BROUGHT_AT_ONCE) {
                back.records.append(&mut frame.records);
                let all = frame.brings().count();
                if all > 0 {
                    let one = self.bring(&frame);
                    back.unclaimed += all - one.planned.len();
                    brought.push(one);
                }
            }
            for one in brought {
                back.apart.extend(self.brought(one)?);
            }
        }
        Some(back)
    }

    /// Hands what a frame brought to the committer.
    fn bring(&self, frame: &Frame) -> Brought {
        let (writer, came) = (frame.writer, frame.time);
        let mut planned = Vec::new();
        for (noted, entity) in frame.brings() {
            let Some((number, dataset)) = self.home_of(noted, entity) else {
                tracing::error!(id = entity.id, "no dataset claims what the ring took");
                continue;
            };
            let change = Change::Upsert(entity.clone());
            planned.push(Planned { change, number, dataset, late: true });
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        let job =
            WriteJob { planned: planned.clone(), came: Some(came), ..WriteJob::new(writer, reply) };
        // Fails only when the committer has stopped; then no answer comes either.
        drop(self.jobs.blocking_send(Job::Write(job)));
        Brought { writer, planned, answer }
    }

    /// Waits until it is written; gives what of it does not fit any more, for the steward. None when it
    /// cannot be written now.
    fn brought(&self, Brought { writer, planned, answer }: Brought) -> Option<Vec<Document>> {
        let committed = answer.blocking_recv().ok()?.ok()?;
        let mut documents = Vec::new();
        for (planned, result) in planned.iter().zip(committed.results) {
            let (Err(refusal), Change::Upsert(entity)) = (result, &planned.change) else {
                continue;
            };
            let (number, dataset) = (planned.number, &planned.dataset);
            let plan = self.set_apart(
                writer,
                entity,
                number,
                dataset,
                refusal.to_string(),
                Kept::default(),
            );
            let Plan::Keep(document, _) = plan else { return None };
            documents.push(document);
        }
        Some(documents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(&directory.path().join("data"), None);
        std::fs::create_dir(&files.data).unwrap();
        std::fs::create_dir(&files.keys).unwrap();
        (directory, files)
    }

    #[test]
    fn a_full_ring_takes_nothing_more() {
        let (_directory, files) = fresh();
        let key = Secret::random();
        let mut ring = Ring::open(&files).unwrap();
        let frame = vec![7; 1 << 20];
        let taken = (0..20).take_while(|_| ring.append(&key, &frame)).count();
        assert_eq!(taken as u64, limits::RING_BYTES / (1 << 20) - 1, "each is a little longer");
        assert!(ring.append(&key, b"small"), "what fits still goes in");
        drop(ring);
        let ring = Ring::open(&files).unwrap();
        let (frames, damaged) = ring.frames(&key);
        assert_eq!((frames.len(), damaged, ring.missing), (taken + 1, 0, 0));
        assert_eq!(files.data.join("ring").metadata().unwrap().len(), limits::RING_BYTES);
    }

    /// Such as is left of a frame whose writing failed.
    #[test]
    fn what_was_not_acknowledged_is_not_in_the_ring() {
        let (_directory, files) = fresh();
        let key = Secret::random();
        let mut ring = Ring::open(&files).unwrap();
        assert!(ring.append(&key, b"first"));
        let sealed = vault::seal(&key, &context(0, 1), b"refused");
        let mut bytes = u32::try_from(sealed.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(sealed);
        ring.file.write_all_at(&bytes, ring.end).unwrap();
        assert_eq!(ring.frames(&key), (vec![b"first".to_vec()], 0));
        // Where nothing can be written, nothing of it is found later.
        ring.file = File::open(files.data.join("ring")).unwrap();
        assert!(!ring.append(&key, b"second"));
        assert_eq!(ring.frames(&key), (vec![b"first".to_vec()], 0));
    }

    #[test]
    fn a_ring_that_was_emptied_or_put_back_is_noticed() {
        let (_directory, files) = fresh();
        let (path, key) = (files.data.join("ring"), Secret::random());
        let mut ring = Ring::open(&files).unwrap();
        assert!(ring.append(&key, b"first") && ring.append(&key, b"second"));
        drop(ring);
        let whole = std::fs::read(&path).unwrap();
        let emptied = [vec![0; 4], whole[4..].to_vec()].concat();
        std::fs::write(&path, emptied).unwrap();
        assert_eq!(Ring::open(&files).unwrap().missing, 2);
        std::fs::write(&path, &whole).unwrap();
        let mut ring = Ring::open(&files).unwrap();
        assert_eq!((ring.frames(&key).0.len(), ring.missing), (2, 0));
        ring.clear().unwrap();
        assert!(ring.append(&key, b"third"));
        assert_eq!(ring.frames(&key), (vec![b"third".to_vec()], 0));
        drop(ring);
        std::fs::write(&path, &whole).unwrap();
        let ring = Ring::open(&files).unwrap();
        assert_eq!(ring.frames(&key), (Vec::new(), 2), "of before it was reconciled");
    }
}
