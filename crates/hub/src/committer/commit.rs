//! A group is written, in one atomic commit with its records, and everybody hears of it.

use super::chores::Chores;
use super::entries::Entries;
use super::failed::Failed;
use super::{Group, UPKEEP, Work};
use crate::job::{Committed, Shred};
use crate::state::State;
use crate::subscription::Changed;
use crate::watch::ChangeEvent;
use crate::{Counter, kinds};
use model::Record;
use std::collections::BTreeMap;
use store::{Batch, EntityWrite, Row, Rows, StoreError, Under};

impl Group<'_> {
    /// Commits what the group holds, then does its chores.
    pub fn commit(mut self) {
        let mut chores = Chores {
            rewraps: std::mem::take(&mut self.rewraps),
            shreds: std::mem::take(&mut self.shreds),
            checkpoint: self.checkpoint,
        };
        let hub = self.hub;
        let idle = self.sealed.is_empty() && self.jobs.is_empty() && self.retained.is_empty();
        let documents = std::mem::take(&mut self.documents);
        let idle = idle && documents.is_empty();
        if !idle || !self.records.is_empty() || !self.unasked.is_empty() {
            self.write_documents(&documents);
            self.join_ahead();
            match self.ensure_keys() {
                Ok(()) => chores.shreds.extend(self.commit_changes()),
                Err(error) => self.fail(&error),
            }
        }
        chores.run(hub);
    }

    /// A seal drops blobs: states that still rest on their rows are written with it.
    fn join_ahead(&mut self) {
        let store = &self.hub.store;
        let seals = self.sealed.iter();
        let ahead: Vec<u64> = seals.flat_map(|seal| store.ahead(seal.dataset, seal.upto)).collect();
        self.write_documents(&ahead);
    }

    /// Has documents written of entities as they are in this group.
    fn write_documents(&mut self, numbers: &[u64]) {
        for number in numbers {
            if !self.works.contains_key(number) {
                let Some(held) = self.hub.store.peek(*number) else { continue };
                let work = Work {
                    number: held.number,
                    dataset: held.dataset,
                    model: guard::hub_dataset(),
                    before: None,
                    entity: self.with_steps(&held),
                    series: held.series.clone(),
                    deleted: held.deleted,
                    durable: true,
                    changed: false,
                    job: UPKEEP,
                    touched: Vec::new(),
                    gone: Vec::new(),
                };
                self.works.insert(*number, work);
            }
            if let Some(work) = self.works.get_mut(number) {
                if !work.changed {
                    work.job = UPKEEP;
                }
                (work.durable, work.changed) = (true, true);
            }
        }
    }

    /// Gives the keys that the committed acts delete.
    fn commit_changes(mut self) -> Vec<Shred> {
        let first_record = self.hub.store.log_size();
        let mut entries = self.entries();
        let rewritten = self.sealed.iter().any(|sealed| !sealed.residual.is_empty());
        let (time, undated) = (self.now, self.undated.latest);
        let mut batch = Batch { time, undated, ..Batch::default() };
        batch.rows = self.take_rows();
        batch.steps = std::mem::take(&mut self.steps);
        batch.forgotten = std::mem::take(&mut self.forgotten);
        batch.sealed = std::mem::take(&mut self.sealed);
        batch.retained = std::mem::take(&mut self.retained);
        let mut shreds = Vec::new();
        for (job, _) in &mut self.jobs {
            batch.documents.append(&mut job.documents);
            if let Some(mut shred) = job.shred.take() {
                batch.documents.push(shred.note(&self.hub.store, self.now));
                shreds.push(shred);
            }
        }
        batch.erased.extend(shreds.iter().map(|shred| shred.under));
        let mut matched = self.matched();
        batch.documents.append(&mut matched.documents);
        let events = self.take_states(&mut batch, &mut entries);
        batch.states = self.hub.store.states_after(&batch, &kinds::GOVERNING);
        let grouped = !entries.leaves.is_empty() || !batch.states.is_empty() || rewritten;
        if grouped {
            let made = self.group_record(&entries, &batch);
            push_record(&mut batch, &made);
        }
        let own_records_at = first_record + u64::from(grouped);
        let mut starts = Vec::with_capacity(self.jobs.len());
        for (job, _) in &self.jobs {
            let start = own_records_at + self.records.len() as u64;
            starts.push((!job.records.is_empty()).then_some(start));
            // Kept there, too: they go to the ring with what is written, when that has to.
            self.records.extend(job.records.iter().cloned());
        }
        self.records.append(&mut matched.records);
        let records = self.records.iter().chain(&self.unasked);
        records.for_each(|record| push_record(&mut batch, record));
        let stepped = self.hub.watches.are_there().then(|| batch.steps.clone());
        let counters = &self.hub.counters;
        let observations: usize = batch.rows.iter().map(|rows| rows.rows.len()).sum();
        let sealed: usize = batch.sealed.iter().map(|sealed| sealed.points).sum();
        let records = batch.records.len() as u64;
        let governs = batch.documents.iter().filter(|one| State::KINDS.contains(&one.kind));
        let governs: Vec<_> = governs.map(|one| (one.kind, one.name.clone())).collect();
        if let Err(error) = self.hub.store.commit(batch) {
            self.hub.take_back(matched);
            self.fail(&error);
            return Vec::new();
        }
        self.hub.recorder.caught_up();
        counters.add(Counter::Commits, 1);
        counters.add(Counter::Records, records);
        counters.add(Counter::Observations, observations as u64);
        counters.add(Counter::Sealed, sealed as u64);
        if !governs.is_empty()
            && let Err(error) = self.hub.state.refresh(&self.hub.store, &governs)
        {
            tracing::error!(%error, "governing documents cannot be read again");
        }
        self.hub.watches.tell(events);
        self.hub.watches.tell(self.hub.events_of(&stepped.unwrap_or_default()));
        self.hub.told(matched);
        self.answer(&entries, first_record, own_records_at, &starts);
        shreds
    }

    /// Notifications that the changes give rise to.
    fn matched(&self) -> crate::subscription::Matched {
        let changed = self.works.values().filter(|work| work.changed && work.job != UPKEEP);
        let changed = changed.map(|work| Changed {
            dataset: work.dataset,
            before: work.before.clone(),
            after: work.deleted.is_none().then(|| work.entity.clone()),
            set: work.touched.as_slice(),
        });
        self.hub.match_subscriptions(changed, self.now)
    }

    /// Rows by dataset, in the order of their writers, encoded.
    fn take_rows(&mut self) -> Vec<Rows> {
        let mut by_dataset: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        for ((_, dataset), mut rows) in std::mem::take(&mut self.rows) {
            by_dataset.entry(dataset).or_default().append(&mut rows);
        }
        let store = &self.hub.store;
        let encode = |(dataset, rows)| {
            store.encode_rows(dataset, self.about_people.contains(&dataset), rows, self.now)
        };
        by_dataset.into_iter().map(encode).collect()
    }

    /// States go into the batch; gives what is told afterwards.
    fn take_states(&mut self, batch: &mut Batch, entries: &mut Entries) -> Vec<ChangeEvent> {
        let mut events = Vec::with_capacity(self.works.len());
        let works = std::mem::take(&mut self.works);
        for work in works.into_values().filter(|work| work.changed) {
            if work.job != UPKEEP {
                events.push(ChangeEvent {
                    number: work.number,
                    dataset: work.dataset,
                    entity: work.entity.clone(),
                    deleted: work.deleted.is_some(),
                    created: work.before.is_none(),
                    // Of what is gone, all is.
                    attributes: match work.deleted {
                        Some(_) => Vec::new(),
                        None => work.touched.into_iter().chain(work.gone).collect(),
                    },
                });
            }
            batch.entities.push(EntityWrite {
                number: work.number,
                dataset: work.dataset,
                per_subject: entries.per_subject.get(&work.number).copied().unwrap_or(false),
                entity: work.entity,
                series: work.series,
                deleted: work.deleted,
                durable: work.durable,
                packed: entries.packed.remove(&work.number).unwrap_or_default(),
                digest: entries.digests.get(&work.number).copied().unwrap_or_default(),
                evidence: entries.evidence.get(&work.number).cloned().unwrap_or_default(),
            });
        }
        events
    }

    /// Everybody hears that it is durable, and under which record.
    fn answer(self, entries: &Entries, group_record: u64, own_at: u64, starts: &[Option<u64>]) {
        for (at, (job, results)) in self.jobs.into_iter().enumerate() {
            self.hub.counters.add(Counter::Writes, results.len() as u64);
            let leaf = entries.of_job.get(&at).copied();
            let (position, hash) = leaf.unwrap_or((0, [0; 32]));
            let own = starts.get(at).copied().flatten();
            drop(job.reply.send(Ok(Committed {
                results,
                record: leaf.map(|_| group_record).or(own),
                own,
                in_ring: false,
                position,
                group: u32::try_from(entries.leaves.len()).unwrap_or(u32::MAX),
                path: entries.paths.get(position as usize).cloned().unwrap_or_default(),
                leaf: hash,
            })));
        }
        for (at, reply) in self.replies {
            drop(reply.send(Ok(own_at + at as u64)));
        }
    }

    fn ensure_keys(&self) -> Result<(), StoreError> {
        for work in self.works.values().filter(|work| work.job != UPKEEP) {
            let sensitive = work.model.is_sensitive();
            self.hub.store.ensure_key(Under::Dataset(work.dataset), sensitive)?;
            if work.model.about_people {
                self.hub.store.ensure_key(Under::Subject(work.dataset, work.number), true)?;
            }
        }
        Ok(())
    }

    fn fail(self, error: &StoreError) {
        self.hub.recorder.keep(self.unasked, self.hub.options.limits.records_kept);
        let (jobs, ring, replies) = (self.jobs, self.ring, self.replies);
        Failed { hub: self.hub, jobs, ring, replies }.answer(error);
    }
}

fn push_record(batch: &mut Batch, record: &Record) {
    batch.records.push((vault::random(), crate::kept::to_json(record)));
}
