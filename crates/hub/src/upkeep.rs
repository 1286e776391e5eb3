//! The hub's own upkeep, in a thread of its own: checkpoints, counts, sealing, retention.

use crate::Hub;
use crate::committer::Job;
use crate::recorder::{hex, map, record};
use model::{Value, Verb};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks, in milliseconds: how soon a stop is seen.
const LOOK_MS: u64 = 100;
/// Looks between checkpoints: one a second at most.
const LOOKS_PER_CHECKPOINT: u64 = 10;
/// Looks between two passes of sealing.
const LOOKS_PER_SEAL: u64 = 100;
/// Looks between two passes of retention.
const LOOKS_PER_RETENTION: u64 = 36_000;

/// Runs until the hub stops.
pub fn run(hub: &Arc<Hub>) {
    let mut look = 0u64;
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
        if look.is_multiple_of(LOOKS_PER_SEAL) {
            seal_all(hub);
            hub.reconcile_ring();
        }
        if look.is_multiple_of(LOOKS_PER_RETENTION) {
            retain_all(hub);
        }
    }
}

fn send(hub: &Hub, job: Job) {
    // Fails only when the committer has stopped.
    drop(hub.jobs.blocking_send(job));
}

pub(crate) fn seal_all(hub: &Hub) {
    for (number, dataset) in hub.state.snapshot().datasets.values() {
        if hub.stopping.load(Ordering::Acquire) {
            return;
        }
        if hub.store.has_superseded(*number) {
            // Begun before a restart, or pushed aside by a full queue.
            let done = map([("old_keys_deleted", Value::from(dataset.id.as_str()))]);
            let made = record(&hub.own_session(), Verb::Upkeep, &dataset.id, hub.now(), done);
            send(hub, Job::Rewrap { dataset: *number, id: dataset.id.clone(), record: made });
        }
        match hub.store.plan_seal(*number, dataset.about_people, hub.options.seal) {
            Ok(None) => {}
            Ok(Some(sealed)) => {
                let detail = map([
                    ("sealed", Value::Integer(i64::from(*number))),
                    ("generation", Value::Integer(i64::from(sealed.generation))),
                    ("digest", Value::from(hex(&sealed.digest))),
                    ("points", Value::Integer(sealed.points as i64)),
                ]);
                let made = record(&hub.own_session(), Verb::Upkeep, &dataset.id, hub.now(), detail);
                send(hub, Job::Seal(Box::new(sealed), made));
            }
            Err(error) => {
                tracing::warn!(%error, dataset = dataset.id, "a dataset cannot be sealed")
            }
        }
    }
}

fn retain_all(hub: &Hub) {
    for (number, dataset) in hub.state.snapshot().datasets.values() {
        let Some(days) = dataset.retention_days else { continue };
        if !hub.store.has_key(store::Under::Dataset(*number)) {
            continue;
        }
        let floor = hub.now().plus_seconds(-i64::from(days) * 86_400);
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
