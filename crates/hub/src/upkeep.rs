//! The hub's own upkeep, in a thread of its own: checkpoints, counts, sealing, retention.

use crate::Hub;
use crate::job::{Job, Rewrapping};
use crate::recorder::{hex, map, record};
use model::{Dataset, Time, Value, Verb};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::Sealed;
use tokio::sync::oneshot;

/// Between two looks, in milliseconds: how soon a stop is seen.
const LOOK_MS: u64 = 100;
/// Looks between checkpoints: one a second at most.
const LOOKS_PER_CHECKPOINT: u64 = 10;
/// Entities whose documents are written in one commit before a seal, between two of which others come.
const DOCUMENTS_AT_ONCE: usize = 250;

/// Seconds.
const DAY_S: i64 = 86_400;

/// Looks between two looks at the whole log, and before the first.
const LOOKS_PER_CHECK: u64 = 24 * 3_600 * 1_000 / LOOK_MS;
const LOOKS_BEFORE_CHECK: u64 = 10 * 1_000 / LOOK_MS;

/// How often the hub tidies up.
#[derive(Clone, Copy, Debug)]
pub struct Tidying {
    /// Milliseconds between two passes of sealing.
    pub seal_ms: u64,
    /// Milliseconds between two passes of retention.
    pub retain_ms: u64,
}

impl Default for Tidying {
    fn default() -> Self {
        Tidying { seal_ms: 2_000, retain_ms: 3_600_000 }
    }
}

/// Runs until the hub stops.
pub fn run(hub: &Arc<Hub>) {
    let looks = |every_ms: u64| (every_ms / LOOK_MS).max(1);
    let Tidying { seal_ms, retain_ms } = hub.options.tidying;
    let mut look = 0u64;
    let mut clock = Clock { since: Instant::now(), then: hub.now() };
    while !hub.stopping.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(LOOK_MS));
        look += 1;
        if look.is_multiple_of(LOOKS_PER_CHECKPOINT) {
            let records = hub.due_counts(false);
            if !records.is_empty() {
                send(hub, Job::Records { records, reply: None });
            }
            send(hub, Job::Checkpoint);
            hub.store.sync_position();
        }
        if look.is_multiple_of(looks(seal_ms)) {
            seal_all(hub);
            hub.reconcile_ring();
            hub.finish_shredding(false);
        }
        if look % LOOKS_PER_CHECK == LOOKS_BEFORE_CHECK {
            hub.check_log();
        }
        if look.is_multiple_of(looks(retain_ms)) && clock.is_steady(hub.now()) {
            retain_all(hub);
        }
    }
}

/// A clock that jumped ends no history: what it says is believed once it goes on as time does.
struct Clock {
    since: Instant,
    then: Time,
}

/// Seconds that a clock may be set by, from one pass of retention to the next.
const SET_BY_S: u64 = 3_600;

impl Clock {
    fn is_steady(&mut self, now: Time) -> bool {
        let passed = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        let drift = now.0.saturating_sub(self.then.0).saturating_sub(passed);
        (self.since, self.then) = (Instant::now(), now);
        let steady = drift.unsigned_abs() <= SET_BY_S * 1_000_000;
        if !steady {
            tracing::error!(
                drift_s = drift / 1_000_000,
                "the clock jumped; nothing is ended by it"
            );
        }
        steady
    }
}

fn send(hub: &Hub, job: Job) {
    // Fails only when the committer has stopped.
    drop(hub.jobs.blocking_send(job));
}

pub(crate) fn seal_all(hub: &Hub) {
    // Also while nothing else is written, for it makes room.
    if !hub.store.is_poisoned()
        && let Err(error) = hub.store.clean_ahead()
    {
        tracing::error!(%error, "what no seal came to name stays for now");
    }
    if hub.trouble().is_some() {
        // It could not be written.
        return;
    }
    for (number, dataset) in hub.state.snapshot().datasets.values() {
        if hub.stopping.load(Ordering::Acquire) {
            return;
        }
        for (job, done) in sealing(hub, *number, dataset) {
            send(hub, job);
            if let Some(done) = done {
                // That it is gone says so, whatever became of it.
                drop(done.blocking_recv());
            }
        }
    }
}

/// A job, and what ends when it is done, where the next is to wait for that.
pub(crate) type InTurn = (Job, Option<oneshot::Receiver<()>>);

/// What is to be asked of the committer so that a dataset is sealed, planned as it is now.
pub(crate) fn sealing(hub: &Hub, number: u32, dataset: &Dataset) -> Vec<InTurn> {
    let mut jobs = Vec::new();
    if hub.store.has_superseded(number) && hub.rewrapping.lock().insert(number) {
        let one = Rewrapping { dataset: number, id: dataset.id.clone(), from: None };
        jobs.push((Job::Rewrap(one), None));
    }
    match hub.store.plan_seal(number, dataset.about_people, hub.options.seal) {
        Ok(None) => {}
        Ok(Some(sealed)) => {
            let ahead = hub.store.ahead(number, sealed.upto);
            jobs.extend(ahead.chunks(DOCUMENTS_AT_ONCE).map(|some| {
                let (done, when) = oneshot::channel();
                (Job::Documents { numbers: some.to_vec(), done }, Some(when))
            }));
            let detail = detail_of(number, &sealed);
            let made = record(&hub.own_session(), Verb::Upkeep, &dataset.id, hub.now(), detail);
            jobs.push((Job::Seal(Box::new(sealed), made), None));
        }
        Err(error) => {
            tracing::warn!(%error, dataset = dataset.id, "a dataset cannot be sealed")
        }
    }
    jobs
}

/// What a seal's record says: what was sealed, and what it stands for.
fn detail_of(number: u32, sealed: &Sealed) -> Value {
    let mut detail = vec![
        ("sealed", Value::Integer(i64::from(number))),
        ("generation", Value::Integer(i64::from(sealed.generation))),
        ("upto", Value::Integer(sealed.upto.cast_signed())),
        ("points", Value::Integer(sealed.points as i64)),
    ];
    let digest = |digest: journal::Hash| Value::from(hex(&digest));
    detail.extend(sealed.chunks_digest.map(|found| ("digest", digest(found))));
    detail.extend(sealed.segments_digest.map(|found| ("segments", digest(found))));
    let left = sealed.left as i64;
    detail.extend((left > 0).then_some(("rewritten", Value::Integer(left))));
    detail.extend(sealed.merged.map(|from| ("merged", Value::Integer(i64::from(from)))));
    Value::Map(detail.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn retain_all(hub: &Hub) {
    for (number, dataset) in hub.state.snapshot().datasets.values() {
        let Some(days) = dataset.retention_days else { continue };
        if !hub.store.has_key(store::Under::Dataset(*number)) {
            continue;
        }
        // In whole days: each time all open points are looked at, and those about people written anew.
        let past = hub.now().plus_seconds(-i64::from(days) * DAY_S);
        let floor = Time(past.0 - past.0.rem_euclid(DAY_S * 1_000_000));
        // What has ended does not come back, whoever asks for more: lists still name what is gone.
        if hub.store.retained(*number).is_some_and(|old| old >= floor) {
            continue;
        }
        let detail = map([("history_before_ends", Value::from(floor.to_string()))]);
        let made = record(&hub.own_session(), Verb::Upkeep, &dataset.id, hub.now(), detail);
        send(hub, Job::Retain { dataset: *number, floor, record: made });
    }
}

impl Hub {
    /// Seals and retains now instead of when it is due.
    pub fn tidy(&self) {
        seal_all(self);
        retain_all(self);
    }
}
