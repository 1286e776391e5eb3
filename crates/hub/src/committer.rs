//! The one thread that commits: it takes whatever waits, applies it, writes changes and records in
//! one atomic commit, and only then tells. A group is what came while the one before it was made
//! durable; only one of nothing but devices' readings waits for more.

mod chores;
mod commit;
mod entries;
mod failed;

use self::failed::for_ring;
use crate::Hub;
use crate::apply::{Applied, Late, apply};
use crate::job::{Done, Job, Planned, Rewrapping, Shred, WriteJob, WriterStep};
use crate::readings::{as_entity, still_fits};
use crate::ring::Urgent;
use crate::size::MAX_SERIES;
use model::{Change, Content, Dataset, Entity, Instance, Name, Outcome, Record, Refusal, Time};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Glance, Held, Row, RowValue, Sealed, Series, Step, Store, StoreError, Under};
use tokio::sync::{mpsc, oneshot};

/// Stands for the hub's own upkeep where a write's number does.
const UPKEEP: usize = usize::MAX;

/// An entity in a group, ahead of the store.
struct Work {
    number: u64,
    dataset: u32,
    model: Arc<Dataset>,
    before: Option<Arc<Entity>>,
    entity: Arc<Entity>,
    series: Arc<Vec<Series>>,
    deleted: Option<Time>,
    durable: bool,
    /// A change was done, not only asked for.
    changed: bool,
    /// The last write that changed it.
    job: usize,
    touched: Vec<Name>,
    /// Attributes that went, or some of their instances or history.
    gone: Vec<Name>,
}

/// Runs until told to stop.
pub fn run(hub: &Arc<Hub>, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        if !step(hub, first, &mut queue) {
            return;
        }
    }
}

/// Commits one group, of the first job and what waits behind it; false when it was told to stop.
pub(crate) fn step(hub: &Arc<Hub>, first: Job, queue: &mut mpsc::Receiver<Job>) -> bool {
    let begun = Instant::now();
    let mut group = Group::new(hub);
    let mut stop = None;
    let mut next = Some(first);
    while let Some(job) = next.take() {
        match job {
            Job::Stop(reply) => stop = Some(reply),
            job => group.take(job),
        }
        if stop.is_none() && group.changes < hub.options.limits.group_changes {
            next = queue.try_recv().ok();
        }
        if next.is_none() && group.patient && stop.is_none() && !hub.options.patience.is_zero() {
            next = more(hub, queue, &group, begun);
        }
    }
    group.commit();
    let Some(reply) = stop else { return true };
    // Nobody can ask for more; who asked already is not left without it.
    queue.close();
    let mut last = Group::new(hub);
    while let Ok(job) = queue.try_recv() {
        last.take(job);
        if last.changes >= hub.options.limits.group_changes {
            std::mem::replace(&mut last, Group::new(hub)).commit();
        }
    }
    last.unasked.extend(hub.due_counts(true));
    last.commit();
    let mut last = Group::new(hub);
    last.checkpoint = true;
    last.commit();
    // Fails only when whoever asked has gone.
    let _ = reply.send(());
    false
}

/// Between two looks at whether something came.
const LOOK: Duration = Duration::from_millis(1);
/// Changes that are worth a commit and a record of their own.
const WORTH: usize = 1_000;

/// What comes next while a group of devices' readings waits for more: each group costs a record and a
/// flush, and no device minds some milliseconds. Whoever else comes ends the waiting.
fn more(
    hub: &Hub,
    queue: &mut mpsc::Receiver<Job>,
    group: &Group<'_>,
    begun: Instant,
) -> Option<Job> {
    while group.changes < WORTH && begun.elapsed() < hub.options.patience {
        std::thread::sleep(LOOK);
        if let Ok(job) = queue.try_recv() {
            return Some(job);
        }
    }
    None
}

struct Group<'a> {
    hub: &'a Arc<Hub>,
    now: Time,
    /// When the write that is taken came, if that was long ago: it is done as of then.
    came: Option<Time>,
    works: BTreeMap<u64, Work>,
    ids: HashMap<String, u64>,
    next_entity: u64,
    rows: BTreeMap<(usize, u32), Vec<Row>>,
    forgotten: Vec<(u32, u32)>,
    jobs: Vec<(WriteJob, Vec<Result<Outcome, Refusal>>)>,
    /// Steps taken so far, and, once another change asks for them, where those of each entity are.
    steps: Vec<Step>,
    steps_of: Option<HashMap<u64, Vec<usize>>>,
    undated: Undated,
    /// By series: the latest of the steps, once somebody's come whose order matters.
    latest: Option<HashMap<u32, Time>>,
    /// Datasets touched whose subjects have keys of their own.
    about_people: HashSet<u32>,
    /// What life-safety writes brought, should the commit fail: by job.
    ring: HashMap<usize, Vec<Urgent>>,
    records: Vec<Record>,
    /// Records nobody waits for: they outlive a commit that fails.
    unasked: Vec<Record>,
    /// Where the records of each `Records` job start among `records`.
    replies: Vec<(usize, Done<u64>)>,
    /// Entities whose documents are to be written as they are in this group.
    documents: Vec<u64>,
    /// Dropped with the group, which tells who waits for them.
    documents_done: Vec<oneshot::Sender<()>>,
    sealed: Vec<Sealed>,
    retained: Vec<(u32, Time)>,
    rewraps: Vec<Rewrapping>,
    shreds: Vec<Shred>,
    /// Whose keys could not be deleted yet, though an act did: nothing may come under them.
    leaving: HashSet<Under>,
    changes: usize,
    checkpoint: bool,
    /// There is nothing in it but readings of devices.
    patient: bool,
}

impl<'a> Group<'a> {
    fn new(hub: &'a Arc<Hub>) -> Group<'a> {
        Group {
            hub,
            now: hub.now(),
            came: None,
            works: BTreeMap::new(),
            ids: HashMap::new(),
            next_entity: hub.store.next_entity(),
            rows: BTreeMap::new(),
            steps: Vec::new(),
            steps_of: None,
            latest: None,
            undated: Undated::default(),
            about_people: HashSet::new(),
            forgotten: Vec::new(),
            jobs: Vec::new(),
            ring: HashMap::new(),
            records: Vec::new(),
            unasked: hub.recorder.take_kept(),
            replies: Vec::new(),
            documents: Vec::new(),
            documents_done: Vec::new(),
            sealed: Vec::new(),
            retained: Vec::new(),
            rewraps: Vec::new(),
            shreds: Vec::new(),
            leaving: hub.store.leaving(),
            changes: 0,
            checkpoint: false,
            patient: true,
        }
    }

    fn take(&mut self, job: Job) {
        self.patient &= match &job {
            Job::Write(job) => {
                let readings = !job.planned.is_empty() || !job.steps.is_empty();
                let of_device = (job.steps.is_empty() || job.late)
                    && job.planned.iter().all(|planned| planned.late);
                readings
                    && of_device
                    && job.came.is_none()
                    && job.documents.is_empty()
                    && job.records.is_empty()
            }
            _ => false,
        };
        match job {
            Job::Write(job) if !self.has_keys(&job) => {
                // Only this one: others in its group must not fail for a key that is gone.
                let gone = StoreError::NoKey("what was deleted".into());
                drop(job.reply.send(Err(gone)));
            }
            Job::Write(mut job) => {
                let at = self.jobs.len();
                self.changes += (job.planned.len() + job.steps.len()).max(1);
                let planned = std::mem::take(&mut job.planned);
                if let Some(entities) = for_ring(&job, &planned) {
                    self.ring.insert(at, entities);
                }
                self.came = job.came;
                let mut results: Vec<_> = planned.into_iter().map(|p| self.change(at, p)).collect();
                results.extend(self.steps(at, &job));
                self.came = None;
                if job.whole && results.iter().any(Result::is_err) {
                    // It has one change at most: nothing of it was done.
                    job.documents.clear();
                    job.records.clear();
                    job.shred = None;
                }
                if job.shred.is_some() {
                    // Nothing later may join the group that still knows what goes.
                    self.changes = usize::MAX;
                }
                self.jobs.push((job, results));
            }
            Job::Records { records, reply } => {
                self.changes += records.len();
                if let Some(reply) = reply {
                    self.replies.push((self.records.len(), reply));
                    self.records.extend(records);
                } else {
                    self.unasked.extend(records);
                }
            }
            Job::Documents { numbers, done } => {
                self.changes += numbers.len();
                self.documents.extend(numbers);
                self.documents_done.push(done);
            }
            // Nor may it hold what this very group forgets.
            Job::Seal(sealed, record)
                if self.hub.store.is_current(&sealed)
                    && self.forgotten.iter().all(|(dataset, _)| *dataset != sealed.dataset) =>
            {
                self.sealed.push(*sealed);
                self.records.push(record);
                self.changes = usize::MAX;
            }
            Job::Seal(..) | Job::Stop(_) => {}
            Job::Retain { dataset, floor, record } => {
                self.retained.push((dataset, floor));
                self.records.push(record);
            }
            Job::Rewrap(one) => self.rewraps.push(one),
            Job::Shred(shred) => {
                self.shreds.push(shred);
                // Nothing later may join the group that still knows what goes.
                self.changes = usize::MAX;
            }
            Job::Checkpoint => self.checkpoint = true,
        }
    }

    /// Whether there are keys, that are to stay, for the documents of a write.
    fn has_keys(&self, job: &WriteJob) -> bool {
        let kept = job.documents.iter().filter(|document| document.body.is_some());
        kept.map(|document| document.under).all(|under| {
            matches!(under, Under::Hub | Under::Inbox)
                || (self.hub.store.has_key(under) && !self.leaving.contains(&under))
        })
    }

    /// The entity as it is in this group, if there is one.
    ///
    /// # Errors
    /// When it lies in another dataset than the one that was decided on: the id was taken meanwhile.
    fn work(&mut self, job: usize, planned: &Planned) -> Result<Option<u64>, Refusal> {
        let id = planned.change.id();
        let lies_in = |dataset: u32| {
            let fits = dataset == planned.number;
            fits.then_some(()).ok_or_else(|| Refusal::Exists(id.to_owned()))
        };
        let number = self.hub.store.number_of(id).or_else(|| self.ids.get(id).copied());
        let Some(number) = number else {
            self.hub.store.closed_owner(id).map_or(Ok(()), lies_in)?;
            return Ok(None);
        };
        if let Some(work) = self.works.get(&number) {
            return lies_in(work.dataset).map(|()| Some(number));
        }
        let Some(held) = self.hub.store.entity_by_number(number) else { return Ok(None) };
        lies_in(held.dataset)?;
        let entity = self.with_steps(&held);
        let work = Work {
            number,
            dataset: held.dataset,
            model: planned.dataset.clone(),
            before: held.deleted.is_none().then(|| held.entity.clone()),
            entity,
            series: held.series.clone(),
            deleted: held.deleted,
            durable: false,
            changed: false,
            job,
            touched: Vec::new(),
            gone: Vec::new(),
        };
        self.works.insert(number, work);
        Ok(Some(number))
    }

    fn change(&mut self, job: usize, planned: Planned) -> Result<Outcome, Refusal> {
        let known = self.work(job, &planned)?;
        if self.leaves(planned.number, known) {
            return Err(Refusal::Leaving(planned.change.id().to_owned()));
        }
        let work = known.and_then(|number| self.works.get(&number));
        let deleted = work.and_then(|work| work.deleted);
        if self.came.is_some_and(|came| deleted.is_some_and(|deleted| deleted >= came)) {
            // It came before the deletion, and is done only now.
            return Err(Refusal::NotFound(planned.change.id().to_owned()));
        }
        let living = work.filter(|work| work.deleted.is_none()).map(|work| work.entity.clone());
        if let (Change::Forget { id, name, instance_id, all }, Some(number)) =
            (&planned.change, known)
        {
            let gone = |series: &Series| {
                name.as_ref().is_none_or(|name| series.name == *name)
                    && (*all || series.instance_id == *instance_id)
            };
            return match (self.forget(number, job, gone), name) {
                (true, _) => Ok(Outcome::Deleted),
                (false, Some(name)) => Err(Refusal::NoAttribute(id.clone(), name.clone())),
                (false, None) => Err(Refusal::NotFound(id.clone())),
            };
        }
        if living.is_none()
            && planned.change.entity().is_some_and(|brought| brought.types.is_empty())
        {
            // It was there when this was decided, and was deleted before it was done.
            return Err(Refusal::NotFound(planned.change.id().to_owned()));
        }
        // A history that was deleted begins anew.
        let begins = matches!(planned.change, Change::Remember { .. })
            && work.is_some_and(|work| work.series.is_empty());
        let new_id = known.is_none().then(|| planned.change.id().to_owned());
        let late = if self.came.is_some() { Late::AsOld } else { planned.late.into() };
        let id = planned.change.id().to_owned();
        let applied = apply(planned.change, living.as_deref(), self.at(), late)?;
        self.hub.check_state(&applied, living.as_deref(), planned.number, &planned.dataset)?;
        if let Some(work) = known.and_then(|number| self.works.get(&number))
            && work.series.len() >= MAX_SERIES
            && applied.set.iter().any(|(name, one)| series_of(&work.series, name, one).is_none())
        {
            let what = "histories of attributes, instances and units";
            return Err(Refusal::TooMuch { id, what, most: MAX_SERIES as u64 });
        }
        let number = match (known, new_id) {
            (Some(number), _) => number,
            (None, id) => {
                self.new_entity(&id.unwrap_or_default(), job, &planned.number, &planned.dataset)
            }
        };
        let (at, came) = (self.at(), self.came.is_some());
        let Some(work) = self.works.get_mut(&number) else {
            return Err(Refusal::NotFound(String::new()));
        };
        if !applied.structural
            && applied.set.is_empty()
            && living.is_some()
            && applied.state.is_some()
        {
            // Nothing was changed, and so nothing is told of.
            return Ok(applied.outcome);
        }
        work.job = job;
        work.changed = true;
        // What came long ago is not what its row's commit says: only a document tells the state.
        work.durable |= applied.structural || living.is_none() || came;
        work.touched.extend(applied.set.iter().map(|(name, _)| name.clone()));
        if let (Some(before), Some(after), true) = (&living, &applied.state, applied.structural) {
            let left = |one: &model::Attribute| {
                after.attribute(one.name.as_str()).map_or(0, |after| after.instances.len())
            };
            let less = before.attributes.iter().filter(|one| left(one) < one.instances.len());
            work.gone.extend(less.map(|one| one.name.clone()));
        }
        match applied.state {
            None => {
                work.deleted = Some(at);
                work.durable = true;
            }
            Some(state) => {
                work.deleted = None;
                work.entity = Arc::new(state);
            }
        }
        self.remember(number, job, applied.set);
        Ok(if begins { Outcome::Created } else { applied.outcome })
    }

    /// Takes steps into the group; one that is more than a step by now is done as a change.
    fn steps(&mut self, job: usize, write: &WriteJob) -> Vec<Result<Outcome, Refusal>> {
        let done = || Ok(Outcome::Updated { done: Vec::new(), left: Vec::new() });
        let mut results: Vec<_> = (0..write.readings).map(|_| done()).collect();
        let mut others = Vec::new();
        // One that came since then may have to be told.
        let untold = write.subscriptions == self.hub.subscriptions.version();
        if !write.late && self.latest.is_none() {
            let at = |step: &Step| Some((step.series, step.at?));
            self.latest = Some(self.steps.iter().filter_map(at).collect());
        }
        let now = self.hub.store.now();
        for one in &write.steps {
            let step = one.step;
            let latest = self.latest.as_ref().and_then(|latest| latest.get(&step.series));
            let fits = |entity: &Glance<'_>| {
                untold
                    && (write.late || latest.is_none_or(|latest| step.at >= Some(*latest)))
                    && !self.works.contains_key(&step.entity)
                    && still_fits(entity, &step, write.late)
                    && !self.leaves(entity.table().dataset, Some(step.entity))
            };
            let Some(entity) = now.glance_at(step.entity).filter(fits) else {
                others.push(*one);
                continue;
            };
            let row = Row {
                entity: step.entity,
                series: step.series,
                at: step.at.unwrap_or_else(|| {
                    self.undated.moment(&self.hub.store, (step.series, false), self.now)
                }),
                value: RowValue::Number(step.value),
            };
            self.rows.entry((job, entity.table().dataset)).or_default().push(row);
            if let (Some(latest), Some(at)) = (&mut self.latest, step.at) {
                let latest = latest.entry(step.series).or_insert(at);
                *latest = at.max(*latest);
            }
            if let Some(steps_of) = &mut self.steps_of {
                steps_of.entry(step.entity).or_default().push(self.steps.len());
            }
            self.steps.push(step);
        }
        drop(now);
        for one in others {
            if let Err(refusal) = self.step_as_change(job, write, &one)
                && let Some(result) = results.get_mut(one.reading as usize)
            {
                *result = Err(refusal);
            }
        }
        results
    }

    /// As of when the write that is taken is done.
    fn at(&self) -> Time {
        self.came.unwrap_or(self.now)
    }

    fn leaves(&self, dataset: u32, number: Option<u64>) -> bool {
        !self.leaving.is_empty()
            && (self.leaving.contains(&Under::Dataset(dataset))
                || number.is_some_and(|n| self.leaving.contains(&Under::Subject(dataset, n))))
    }

    fn step_as_change(
        &mut self,
        job: usize,
        write: &WriteJob,
        WriterStep { step, typed, .. }: &WriterStep,
    ) -> Result<Outcome, Refusal> {
        let gone = || Refusal::NotFound(format!("number {}", step.entity));
        let held = self.hub.store.entity_by_number(step.entity).ok_or_else(gone)?;
        let dataset = self.hub.state.snapshot().by_number(held.dataset).cloned();
        let mut entity = as_entity(&held, step).ok_or_else(gone)?;
        if *typed {
            entity.types.clone_from(&held.entity.types);
        }
        let planned = Planned {
            change: Change::Upsert(entity),
            number: held.dataset,
            dataset: dataset.ok_or_else(gone)?,
            late: write.late,
        };
        self.change(job, planned)
    }

    /// The state of an entity with the steps that this group took for it.
    fn with_steps(&mut self, held: &Held) -> Arc<Entity> {
        if self.steps.is_empty() {
            return held.entity.clone();
        }
        let steps = &self.steps;
        let steps_of = self.steps_of.get_or_insert_with(|| {
            let mut steps_of: HashMap<u64, Vec<usize>> = HashMap::new();
            for (at, step) in steps.iter().enumerate() {
                steps_of.entry(step.entity).or_default().push(at);
            }
            steps_of
        });
        let mut entity = held.entity.clone();
        for step in steps_of.get(&held.number).into_iter().flatten().map(|at| &steps[*at]) {
            if let Some(series) = held.series.iter().find(|series| series.number == step.series) {
                let at = step.at.unwrap_or(self.now);
                series.step(Arc::make_mut(&mut entity), at, step.value, self.now);
            }
        }
        entity
    }

    fn new_entity(&mut self, id: &str, job: usize, dataset: &u32, model: &Arc<Dataset>) -> u64 {
        let number = self.next_entity;
        self.next_entity += 1;
        let empty = Entity {
            id: id.to_owned(),
            types: Vec::new(),
            scopes: Vec::new(),
            created: self.at(),
            modified: self.at(),
            attributes: Vec::new(),
        };
        let work = Work {
            number,
            dataset: *dataset,
            model: model.clone(),
            before: None,
            entity: Arc::new(empty),
            series: Arc::default(),
            deleted: None,
            durable: true,
            changed: false,
            job,
            touched: Vec::new(),
            gone: Vec::new(),
        };
        self.works.insert(number, work);
        self.ids.insert(id.to_owned(), number);
        number
    }

    /// Makes rows of the instances that were set.
    fn remember(&mut self, number: u64, job: usize, set: Vec<(Name, Instance)>) {
        let as_of = self.at();
        let Some(work) = self.works.get_mut(&number) else { return };
        if work.model.about_people {
            self.about_people.insert(work.dataset);
        }
        for (name, instance) in set {
            let keeps = work.model.attribute(name.as_str()).is_none_or(|model| model.history);
            if !keeps {
                // Without rows, only a document tells the state.
                work.durable = true;
                continue;
            }
            let plain = plain_number(&instance).map(RowValue::Number);
            let rich = plain.is_none();
            let observed = instance.observed_at.is_some();
            let series = match series_of(&work.series, &name, &instance) {
                Some(series) => series.number,
                None => {
                    let fresh = Series {
                        number: self.hub.store.next_series(),
                        name: name.clone(),
                        instance_id: instance.instance_id.clone(),
                        unit: instance.unit.clone(),
                        observed,
                        rich,
                    };
                    let number = fresh.number;
                    Arc::make_mut(&mut work.series).push(fresh);
                    work.durable = true;
                    number
                }
            };
            if rich {
                work.durable = true;
            }
            let undated = &mut self.undated;
            let at = instance.observed_at.unwrap_or_else(|| match self.came {
                Some(came) => undated.as_of(came),
                None => undated.moment(&self.hub.store, (series, rich), as_of),
            });
            let value = plain.unwrap_or_else(|| RowValue::Rich(Box::new(instance)));
            let row = Row { entity: number, series, at, value };
            self.rows.entry((job, work.dataset)).or_default().push(row);
        }
    }

    /// Forgets the series that `gone` names; false when there is none.
    fn forget(&mut self, number: u64, job: usize, gone: impl Fn(&Series) -> bool) -> bool {
        let Some(work) = self.works.get_mut(&number) else { return false };
        let before = self.forgotten.len();
        for series in work.series.iter().filter(|series| gone(series)) {
            self.forgotten.push((work.dataset, series.number));
            for rows in self.rows.values_mut() {
                rows.retain(|row| row.series != series.number);
            }
        }
        if self.forgotten.len() == before {
            return false;
        }
        work.gone.extend(work.series.iter().filter(|s| gone(s)).map(|series| series.name.clone()));
        Arc::make_mut(&mut work.series).retain(|series| !gone(series));
        work.durable = true;
        work.changed = true;
        work.job = job;
        true
    }
}

/// The times of what brings none of its own, in this group.
#[derive(Default)]
struct Undated {
    /// By series: the last.
    of: HashMap<u32, Time>,
    latest: Time,
}

impl Undated {
    /// When a point of a series (its number, and whether it keeps whole instances) was: now, but after the
    /// one before it, which it would replace otherwise. Of damage, the daily look at everything tells.
    fn moment(&mut self, store: &Store, (series, rich): (u32, bool), now: Time) -> Time {
        let before = || store.last_undated(series, rich, now).ok().flatten();
        let last = self.of.get(&series).copied().or_else(before);
        let at = last.filter(|last| *last >= now).map_or(now, |last| Time(last.0 + 1));
        self.of.insert(series, at);
        self.as_of(at)
    }

    /// The same for a point that came at a time that is known, long ago.
    fn as_of(&mut self, at: Time) -> Time {
        self.latest = self.latest.max(at);
        at
    }
}

/// The number an instance is, if that and its unit and time are all there is to it.
fn plain_number(instance: &Instance) -> Option<f64> {
    match &instance.content {
        Content::Property(value) if instance.parts.is_empty() => value.as_exact_number(),
        _ => None,
    }
}

/// The history that an instance joins, if there is one.
fn series_of<'a>(series: &'a [Series], name: &Name, instance: &Instance) -> Option<&'a Series> {
    let (observed, rich) = (instance.observed_at.is_some(), plain_number(instance).is_none());
    series.iter().find(|series| {
        series.name == *name
            && series.instance_id == instance.instance_id
            && series.unit == instance.unit
            && series.observed == observed
            && series.rich == rich
    })
}

impl Hub {
    /// Whether what a change makes of an entity is not too large, and still belongs to its dataset.
    ///
    /// # Errors
    /// When it is, or does not.
    pub(crate) fn check_state(
        &self,
        applied: &Applied,
        before: Option<&Entity>,
        number: u32,
        dataset: &Dataset,
    ) -> Result<(), Refusal> {
        let Some(state) = applied.state.as_ref().filter(|_| applied.structural) else {
            return Ok(());
        };
        crate::size::check(state)?;
        let same = |before: &Entity| before.types == state.types && before.scopes == state.scopes;
        if before.is_some_and(same) {
            return Ok(());
        }
        let snapshot = self.state.snapshot();
        let claimant = snapshot.claimant(&state.types, &state.scopes);
        if claimant.is_some_and(|(claimant, _)| *claimant == number) {
            return Ok(());
        }
        Err(Refusal::LeavesDataset(state.id.clone(), dataset.id.clone()))
    }
}
