//! Writes whose commit failed: life-safety ones go on through the ring.

use crate::Hub;
use crate::apply::apply;
use crate::job::{Committed, Done, Planned, WriteJob, WriterStep};
use crate::readings::as_entity;
use crate::ring::Urgent;
use crate::watch::ChangeEvent;
use model::{Change, Outcome, Refusal};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use store::StoreError;

/// What a write brings to life-safety datasets, if it does nothing else and does not come from the ring.
pub fn for_ring(job: &WriteJob, planned: &[Planned]) -> Option<Vec<Urgent>> {
    let own = job.writer == 1 || job.came.is_some();
    let fits = job.documents.is_empty() && !own && !planned.is_empty();
    let entity = |planned: &Planned| match &planned.change {
        Change::Upsert(entity) if planned.dataset.life_safety => {
            Some(Urgent { home: planned.number, entity: entity.clone() })
        }
        _ => None,
    };
    if fits { planned.iter().map(entity).collect() } else { None }
}

/// Writes whose commit failed.
pub struct Failed<'a> {
    pub hub: &'a Arc<Hub>,
    pub jobs: Vec<(WriteJob, Vec<Result<Outcome, Refusal>>)>,
    pub ring: HashMap<usize, Vec<Urgent>>,
    pub replies: Vec<(usize, Done<u64>)>,
}

impl Failed<'_> {
    /// What steps into life-safety datasets bring; none when they go elsewhere too, or there are none.
    fn steps(hub: &Hub, job: &WriteJob) -> Option<Vec<Urgent>> {
        let snapshot = hub.state.snapshot();
        let now = hub.store.now();
        let brings = |one: &WriterStep| {
            let held = now.by_number(one.step.entity)?;
            let safety = snapshot.by_number(held.dataset).is_some_and(|d| d.life_safety);
            let entity = safety.then(|| as_entity(&held, &one.step))??;
            Some(Urgent { home: held.dataset, entity })
        };
        if job.steps.is_empty() { None } else { job.steps.iter().map(brings).collect() }
    }

    /// Life-safety writes go on through the ring; all others hear that nothing was done. Shown is what
    /// the ring took and nothing else, whatever else was in the group.
    pub fn answer(mut self, error: &StoreError) {
        tracing::error!(%error, "a commit failed");
        let mut kept = Vec::new();
        let mut shown: BTreeMap<u64, ChangeEvent> = BTreeMap::new();
        for (at, (mut job, results)) in self.jobs.into_iter().enumerate() {
            let entities = self.ring.remove(&at).or_else(|| Self::steps(self.hub, &job));
            let entities = entities.filter(|_| results.iter().all(Result::is_ok));
            let records = std::mem::take(&mut job.records);
            let urgent =
                entities.and_then(|urgent| self.hub.ring_write(job.writer, urgent, records));
            match urgent {
                Some(urgent) => {
                    let committed = Committed {
                        results,
                        record: None,
                        own: None,
                        in_ring: true,
                        position: 0,
                        group: 0,
                        path: Vec::new(),
                        leaf: [0; 32],
                    };
                    urgent.into_iter().for_each(|one| show(self.hub, &mut shown, one));
                    kept.push((job.reply, committed));
                }
                None => drop(job.reply.send(Err(copy(error)))),
            }
        }
        for (_, reply) in self.replies {
            drop(reply.send(Err(copy(error))));
        }
        self.hub.show_from_ring(shown.into_values().collect());
        for (reply, committed) in kept {
            drop(reply.send(Ok(committed)));
        }
    }
}

/// What an entity becomes by what the ring took.
fn show(hub: &Hub, shown: &mut BTreeMap<u64, ChangeEvent>, urgent: Urgent) {
    let Urgent { home, entity: brought } = urgent;
    // New ones are there once the ring is reconciled.
    let held = hub.store.entity(&brought.id);
    let held = held.filter(|held| held.deleted.is_none() && held.dataset == home);
    let Some(held) = held else { return };
    let before = shown.get(&held.number).map_or(&held.entity, |event| &event.entity);
    let Ok(applied) = apply(Change::Upsert(brought), Some(before), hub.now(), true) else { return };
    let Some(state) = applied.state else { return };
    let event = ChangeEvent {
        number: held.number,
        dataset: held.dataset,
        entity: Arc::new(state),
        deleted: false,
        created: false,
        attributes: applied.set.into_iter().map(|(name, _)| name).collect(),
    };
    shown.insert(held.number, event);
}

fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(mebibytes) => StoreError::Full(*mebibytes),
        StoreError::NoKey(what) => StoreError::NoKey(what.clone()),
        other => StoreError::Poisoned(other.to_string()),
    }
}
