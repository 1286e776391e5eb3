//! Records in proportion to risk and cost: what is counted, and what is written one by one.

use crate::job::Job;
use crate::{Hub, HubError, TENANT};
use model::{Action, Decision, Record, Sensitivity, Session, Time, Value, Verb};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Reads by dataset, then by principal (0 for all) and purpose.
type Counts = HashMap<String, HashMap<(u64, Option<Arc<str>>), u64>>;

fn count(counts: &Mutex<Counts>, dataset: &str, principal: u64, purpose: Option<Arc<str>>) {
    let mut counts = counts.lock();
    if !counts.contains_key(dataset) {
        counts.insert(dataset.to_owned(), HashMap::new());
    }
    if let Some(counts) = counts.get_mut(dataset) {
        *counts.entry((principal, purpose)).or_default() += 1;
    }
}

/// Counts that become records by the minute and the hour.
#[derive(Default)]
pub struct Recorder {
    open: Mutex<Counts>,
    internal: Mutex<Counts>,
    /// Refusals of a principal in this minute.
    refusals: Mutex<HashMap<u64, u32>>,
    /// Refusals of unknown callers: by door and source block.
    unknown: Mutex<HashMap<(String, String), u64>>,
    /// When they last did: by time that passes, for a clock may be set.
    flushed: Mutex<Option<(Instant, Instant)>>,
    /// Records nobody waited for whose commit failed: they are in the next one that does not.
    kept: Mutex<Vec<Record>>,
    /// There are such, or were at the last commit: who reads what is confidential waits for his record.
    behind: AtomicBool,
}

impl Recorder {
    /// Keeps records whose commit failed.
    pub fn keep(&self, mut records: Vec<Record>, most: usize) {
        self.behind.store(true, Ordering::Release);
        let mut kept = self.kept.lock();
        let room = most.saturating_sub(kept.len());
        if records.len() > room {
            tracing::error!(lost = records.len() - room, "more records than can be kept");
            records.truncate(room);
        }
        kept.append(&mut records);
    }

    /// What was kept, for another try.
    pub fn take_kept(&self) -> Vec<Record> {
        if !self.behind.load(Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.kept.lock())
    }

    /// A commit was made.
    pub fn caught_up(&self) {
        if self.behind.load(Ordering::Relaxed) {
            self.behind.store(!self.kept.lock().is_empty(), Ordering::Release);
        }
    }
}

/// A record with nothing special in it.
pub fn record(session: &Session, verb: Verb, dataset: &str, time: Time, detail: Value) -> Record {
    Record {
        time,
        tenant: TENANT,
        actor: session.principal.number,
        verb,
        dataset: dataset.to_owned(),
        purpose: session.purpose.as_deref().map(str::to_owned),
        decision: Decision::Allowed,
        policy_version: 0,
        subjects: Vec::new(),
        detail,
        public: false,
    }
}

pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

impl Hub {
    /// Records a read in proportion: personal and special before the answer, confidential within a
    /// second, the rest counted. Gives the record's index if it was written before the answer.
    pub(crate) async fn record_read(
        &self,
        session: &Session,
        dataset: &str,
        level: Sensitivity,
        subjects: Vec<String>,
        detail: Value,
    ) -> Result<Option<u64>, HubError> {
        self.counters.add(crate::Counter::Reads, 1);
        match level {
            Sensitivity::Open => {
                count(&self.recorder.open, dataset, 0, session.purpose.clone());
                return Ok(None);
            }
            Sensitivity::Internal => {
                let principal = session.principal.number;
                count(&self.recorder.internal, dataset, principal, session.purpose.clone());
                return Ok(None);
            }
            _ => {}
        }
        // While records cannot be written, nothing that has one of its own is read without it.
        let level = match level {
            Sensitivity::Confidential if self.recorder.behind.load(Ordering::Acquire) => {
                Sensitivity::Personal
            }
            level => level,
        };
        let mut made = record(session, Verb::Read, dataset, self.now(), detail);
        made.policy_version = self.state.snapshot().version;
        made.subjects = subjects;
        match level {
            Sensitivity::Open | Sensitivity::Internal => Ok(None),
            Sensitivity::Confidential => {
                let job = Job::Records { records: vec![made], reply: None };
                self.jobs.send(job).await.map_err(|_| HubError::Stopping)?;
                Ok(None)
            }
            Sensitivity::Personal | Sensitivity::Special => {
                let records = vec![made.clone()];
                let index = self.submit(|reply| Job::Records { records, reply: Some(reply) });
                match index.await? {
                    Ok(index) => Ok(Some(index)),
                    // Class B: in an emergency the list is shown, and its record waits in the ring.
                    Err(_) if self.ring_record(made) => Ok(None),
                    Err(error) => Err(HubError::Storage(error)),
                }
            }
        }
    }

    /// Counts a refusal of a principal; whether it has a record of its own: the first ones of a minute.
    pub(crate) fn is_recorded(&self, principal: u64) -> bool {
        self.state.note_refused(principal);
        let mut refusals = self.recorder.refusals.lock();
        let seen = refusals.entry(principal).or_default();
        *seen += 1;
        *seen as usize <= self.options.limits.refusals_recorded
    }

    /// Records a refusal: one by one up to a rate, then counted; of unknown callers only counted.
    pub(crate) async fn record_refusal(
        &self,
        session: &Session,
        verb: Verb,
        action: Action,
        dataset: &str,
    ) {
        self.counters.add(crate::Counter::Refusals, 1);
        let principal = session.principal.number;
        if session.credential == 0 && session.principal.kind == model::Kind::Public {
            self.count_unknown("hub", "public");
            return;
        }
        if !self.is_recorded(principal) {
            return;
        }
        let detail = map([("action", Value::from(action.word()))]);
        let mut made = record(session, verb, dataset, self.now(), detail);
        made.decision = Decision::Refused;
        made.policy_version = self.state.snapshot().version;
        drop(self.jobs.send(Job::Records { records: vec![made], reply: None }).await);
    }

    /// Records a look for what is not there as it would be if it were there and kept from the caller:
    /// neither the length of the log nor a count tells who is on a list about people.
    pub(crate) async fn record_absence(&self, session: &Session, verb: Verb, action: Action) {
        let snapshot = self.state.snapshot();
        let is_kept = |number: u32, dataset: &Arc<model::Dataset>| {
            let verdict = self.state.verdict(session, Action::Read, number, dataset);
            dataset.about_people && (!verdict.allowed || verdict.lens.aggregate_only)
        };
        if snapshot.datasets.values().any(|(number, dataset)| is_kept(*number, dataset)) {
            self.record_refusal(session, verb, action, "*").await;
        }
    }

    /// Keeps a record of the hub's upkeep of a dataset for the next commit, whichever that is.
    pub(crate) fn keep_record(&self, dataset: &str, what: &str) {
        let detail = map([(what, Value::from(dataset))]);
        let mut made = record(&self.own_session(), Verb::Upkeep, dataset, self.now(), detail);
        made.policy_version = self.state.snapshot().version;
        self.recorder.keep(vec![made], self.options.limits.records_kept);
    }

    /// Counts a refusal of somebody who showed no valid credential.
    pub fn count_unknown(&self, door: &str, source_block: &str) {
        self.counters.add(crate::Counter::Refusals, 1);
        let mut unknown = self.recorder.unknown.lock();
        if unknown.len() < self.options.limits.sources_counted {
            *unknown.entry((door.to_owned(), source_block.to_owned())).or_default() += 1;
        }
    }

    /// The counts that are due as records; everything when the hub stops.
    pub(crate) fn due_counts(&self, stopping: bool) -> Vec<Record> {
        let now = self.now();
        let (minute, hour) = {
            let mut flushed = self.recorder.flushed.lock();
            let passed = Instant::now();
            let flushed = flushed.get_or_insert((passed, passed));
            let minute = stopping || flushed.0.elapsed() >= MINUTE;
            let hour = stopping || flushed.1.elapsed() >= 60 * MINUTE;
            if minute {
                flushed.0 = passed;
            }
            if hour {
                flushed.1 = passed;
            }
            (minute, hour)
        };
        let mut records = Vec::new();
        let own = self.own_session();
        let mut counted = |counts: Counts| {
            for (dataset, counts) in counts {
                for ((principal, purpose), count) in counts {
                    let detail = map([("reads", Value::Integer(count.cast_signed()))]);
                    let mut made = record(&own, Verb::Read, &dataset, now, detail);
                    made.actor = principal;
                    made.purpose = purpose.as_deref().map(str::to_owned);
                    records.push(made);
                }
            }
        };
        if hour {
            counted(std::mem::take(&mut *self.recorder.open.lock()));
        }
        if minute {
            counted(std::mem::take(&mut *self.recorder.internal.lock()));
            for (principal, seen) in std::mem::take(&mut *self.recorder.refusals.lock()) {
                if seen as usize > self.options.limits.refusals_recorded {
                    let more = i64::from(seen) - self.options.limits.refusals_recorded as i64;
                    let detail = map([("more_refusals", Value::Integer(more))]);
                    let mut made = record(&own, Verb::Read, "", now, detail);
                    made.actor = principal;
                    made.decision = Decision::Refused;
                    records.push(made);
                }
            }
            for ((door, block), count) in std::mem::take(&mut *self.recorder.unknown.lock()) {
                let detail = map([
                    ("door", Value::from(door)),
                    ("source", Value::from(block)),
                    ("refusals", Value::Integer(count.cast_signed())),
                ]);
                let mut made = record(&own, Verb::Open, "", now, detail);
                made.actor = 0;
                made.decision = Decision::Refused;
                records.push(made);
            }
        }
        records
    }
}
