//! Writes whose commit failed: life-safety ones go on through the ring.

use crate::Hub;
use crate::job::{Committed, Done, Planned, WriteJob, WriterStep};
use crate::readings::as_entity;
use crate::watch::ChangeEvent;
use model::{Change, Entity, Outcome, Refusal};
use std::collections::HashMap;
use std::sync::Arc;
use store::StoreError;

/// What a write brings to life-safety datasets, if it does nothing else.
pub fn for_ring(job: &WriteJob, planned: &[Planned]) -> Option<Vec<Entity>> {
    let fits = job.documents.is_empty() && !job.governs && job.writer != 1 && !planned.is_empty();
    let entity = |planned: &Planned| match &planned.change {
        Change::Upsert(entity) if planned.dataset.life_safety => Some(entity.clone()),
        _ => None,
    };
    if fits { planned.iter().map(entity).collect() } else { None }
}

/// Writes whose commit failed.
pub struct Failed<'a> {
    pub hub: &'a Arc<Hub>,
    pub jobs: Vec<(WriteJob, Vec<Result<Outcome, Refusal>>)>,
    pub ring: HashMap<usize, Vec<Entity>>,
    pub replies: Vec<(usize, Done<u64>)>,
}

impl Failed<'_> {
    /// What steps into life-safety datasets bring, and the states they lead to.
    fn steps(hub: &Hub, job: &WriteJob) -> (Option<Vec<Entity>>, Vec<ChangeEvent>) {
        let snapshot = hub.state.snapshot();
        let now = hub.store.now();
        let (mut entities, mut shown) = (Vec::new(), Vec::new());
        for WriterStep { step, .. } in &job.steps {
            let held = now.by_number(step.entity);
            let held = held.filter(|held| {
                snapshot.by_number(held.dataset).is_some_and(|dataset| dataset.life_safety)
            });
            let brought = held.and_then(|held| Some((as_entity(&held, step)?, held)));
            let Some((brought, held)) = brought else { return (None, Vec::new()) };
            let mut entity = held.entity.clone();
            if let Some(series) = held.series.iter().find(|series| series.number == step.series) {
                let (at, time) = (step.at.unwrap_or(hub.now()), hub.now());
                series.step(Arc::make_mut(&mut entity), at, step.value, time);
            }
            entities.push(brought);
            shown.push(ChangeEvent {
                number: held.number,
                dataset: held.dataset,
                entity,
                deleted: false,
                created: false,
                attributes: Vec::new(),
            });
        }
        ((!entities.is_empty()).then_some(entities), shown)
    }

    /// Life-safety writes go on through the ring; all others hear that nothing was done.
    pub fn answer(mut self, error: &StoreError, events: &[ChangeEvent]) {
        tracing::error!(%error, "a commit failed");
        let (mut kept, mut stepped) = (Vec::new(), Vec::new());
        for (at, (job, results)) in self.jobs.into_iter().enumerate() {
            let (entities, mut shown) = match self.ring.remove(&at) {
                Some(entities) => (Some(entities), Vec::new()),
                None => Self::steps(self.hub, &job),
            };
            let entities = entities.filter(|_| results.iter().all(Result::is_ok));
            if entities.is_some_and(|entities| self.hub.ring_write(job.writer, &entities)) {
                let committed = Committed {
                    results,
                    record: None,
                    in_ring: true,
                    position: 0,
                    group: 0,
                    path: Vec::new(),
                    leaf: [0; 32],
                };
                stepped.append(&mut shown);
                kept.push((job.reply, committed));
            } else {
                drop(job.reply.send(Err(copy(error))));
            }
        }
        for (_, reply) in self.replies {
            drop(reply.send(Err(copy(error))));
        }
        if !kept.is_empty() {
            self.hub.show_from_ring(events);
            self.hub.show_from_ring(&stepped);
        }
        for (reply, committed) in kept {
            drop(reply.send(Ok(committed)));
        }
    }
}

fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(mebibytes) => StoreError::Full(*mebibytes),
        StoreError::NoKey(what) => StoreError::NoKey(what.clone()),
        other => StoreError::Poisoned(other.to_string()),
    }
}
