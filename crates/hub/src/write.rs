//! Writing: decide, check the data model, and hand over to be committed.

use crate::job::{Job, Planned, WriteJob};
use crate::recorder::{hex, map, record};
use crate::{Counter, Hub, HubError, ReceiptRef, Why, kinds};
use model::{
    Action, Change, Dataset, Entity, Kind, Outcome, Record, Refusal, Sensitivity, Session, Status,
    Value, Verb,
};
use ngsild::{Context, Options, render_entity};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use store::{Document, Under};

/// How one change of a write ended.
#[derive(Debug)]
pub enum ItemResult {
    Done(Outcome),
    /// Kept apart for the steward, with the reason.
    Quarantined(String),
    /// Kept, encrypted to the sensitive root, to be done when that is opened.
    Sealed,
    Refused(HubError),
}

/// How a write ended.
#[derive(Debug)]
pub struct WriteReport {
    /// In the order of the changes.
    pub results: Vec<ItemResult>,
    /// None when nothing was committed.
    pub receipt: Option<ReceiptRef>,
}

/// A reading kept apart, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quarantined {
    pub time: model::Time,
    pub dataset: String,
    pub writer: u64,
    pub reason: String,
    /// The entity as it was sent, normalized JSON.
    pub entity: String,
}

/// The decisions of one write, each made once.
pub(crate) struct Deciding<'a> {
    hub: &'a Hub,
    session: &'a Session,
    pub snapshot: Arc<guard::Snapshot>,
    decided: Vec<(Action, u32, Arc<guard::Verdict>)>,
    /// Why not, of those that are not allowed.
    whys: Vec<(Action, u32, Why)>,
    /// Readings in quarantine by dataset and their bytes, with those this write adds.
    apart: HashMap<u32, Kept>,
    /// Changes this write adds to those that wait for the sensitive root.
    waiting: usize,
}

impl<'a> Deciding<'a> {
    pub fn new(hub: &'a Hub, session: &'a Session) -> Deciding<'a> {
        Deciding {
            hub,
            session,
            snapshot: hub.state.snapshot(),
            decided: Vec::new(),
            whys: Vec::new(),
            apart: HashMap::new(),
            waiting: 0,
        }
    }

    /// Why something may not be done, worked out once.
    fn why(&mut self, action: Action, number: u32, dataset: &Arc<Dataset>) -> Why {
        let same = |(a, n, _): &&(Action, u32, _)| *a == action && *n == number;
        if let Some((.., why)) = self.whys.iter().find(same) {
            return why.clone();
        }
        let why = self.hub.why_not(self.session, action, dataset);
        self.whys.push((action, number, why.clone()));
        why
    }

    pub fn on(
        &mut self,
        action: Action,
        number: u32,
        dataset: &Arc<Dataset>,
    ) -> Arc<guard::Verdict> {
        let same = |(a, n, _): &&(Action, u32, _)| *a == action && *n == number;
        if let Some((.., verdict)) = self.decided.iter().find(same) {
            return verdict.clone();
        }
        let verdict = self.hub.state.verdict(self.session, action, number, dataset);
        self.decided.push((action, number, verdict.clone()));
        verdict
    }
}

/// Readings in a dataset's quarantine.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kept {
    readings: usize,
    bytes: usize,
}

pub(crate) enum Plan {
    Go(Planned),
    Keep(Document, String),
    /// Kept until the sensitive root is opened.
    Seal(Document, Record),
    Refuse(HubError),
}

impl Hub {
    /// Writes changes: each is decided and checked on its own; those that pass are committed
    /// together, with their record, before this returns.
    ///
    /// # Errors
    /// When there are too many, or nothing could be committed.
    pub async fn write(
        &self,
        session: &Session,
        changes: Vec<Change>,
    ) -> Result<WriteReport, HubError> {
        self.write_into(session, None, changes).await
    }

    /// The same, into one dataset: what does not belong there is refused.
    ///
    /// # Errors
    /// When there are too many, or nothing could be committed.
    pub async fn write_into(
        &self,
        session: &Session,
        dataset: Option<&str>,
        changes: Vec<Change>,
    ) -> Result<WriteReport, HubError> {
        self.options.limits.check_batch(changes.len())?;
        self.state.note_seen(session.principal.number, self.now());
        let mut results: Vec<Option<ItemResult>> = Vec::with_capacity(changes.len());
        let mut planned = Vec::new();
        let mut places = Vec::new();
        let mut documents = Vec::new();
        let mut records = Vec::new();
        let mut deciding = Deciding::new(self, session);
        for change in changes {
            match self.plan(&mut deciding, dataset, change).await {
                Plan::Go(plan) => {
                    self.note_personal(session, &plan, &mut records);
                    places.push(results.len());
                    planned.push(plan);
                    results.push(None);
                }
                Plan::Keep(document, reason) => {
                    self.counters.add(Counter::Quarantined, 1);
                    self.state.note_refused(session.principal.number);
                    // Where it lies, and not why: a reason says what was sent, which is not for records.
                    let detail = map([("quarantined", Value::from(document.name.as_str()))]);
                    records.push(record(session, Verb::Write, "", self.now(), detail));
                    documents.push(document);
                    results.push(Some(ItemResult::Quarantined(reason)));
                }
                Plan::Seal(document, made) => {
                    documents.push(document);
                    records.push(made);
                    results.push(Some(ItemResult::Sealed));
                }
                Plan::Refuse(error) => results.push(Some(ItemResult::Refused(error))),
            }
        }
        let mut receipt = None;
        if !planned.is_empty() || !documents.is_empty() {
            let writer = session.principal.number;
            let committed = self
                .submit(|reply| {
                    Job::Write(WriteJob {
                        planned,
                        documents,
                        records,
                        ..WriteJob::new(writer, reply)
                    })
                })
                .await??;
            receipt = ReceiptRef::of(&committed);
            for (place, result) in places.into_iter().zip(committed.results) {
                results[place] = Some(match result {
                    Ok(outcome) => ItemResult::Done(outcome),
                    Err(refusal) => ItemResult::Refused(HubError::Refusal(refusal)),
                });
            }
        }
        let missing = || ItemResult::Refused(HubError::Stopping);
        let results = results.into_iter().map(|result| result.unwrap_or_else(missing)).collect();
        Ok(WriteReport { results, receipt })
    }

    async fn plan(&self, deciding: &mut Deciding<'_>, into: Option<&str>, change: Change) -> Plan {
        let (session, snapshot) = (deciding.session, deciding.snapshot.clone());
        if session.principal.kind == Kind::Public {
            // Before anything is looked up: nobody learns by trying whether an id is there.
            self.record_refusal(session, Verb::Write, Action::Write, "*").await;
            let what = "changes need a credential; send `Authorization: Bearer TOKEN`";
            return Plan::Refuse(HubError::Unauthenticated(what.into()));
        }
        let held = self.store.entity(change.id());
        let closed = if held.is_none() { self.store.closed_owner(change.id()) } else { None };
        let owner = held.as_ref().map(|held| held.dataset).or(closed);
        let (number, dataset) = match (owner, change.entity()) {
            (Some(owner), _) => match snapshot.by_number(owner) {
                Some(dataset) => (owner, dataset.clone()),
                None => return Plan::Refuse(self.no_dataset(change.entity())),
            },
            (None, Some(entity)) if change.may_create() && !entity.types.is_empty() => {
                match snapshot.claimant(&entity.types, &entity.scopes) {
                    Some((number, dataset)) => (*number, dataset.clone()),
                    None => return Plan::Refuse(self.no_dataset(Some(entity))),
                }
            }
            _ => {
                self.record_absence(session, Verb::Write, change.action()).await;
                return Plan::Refuse(HubError::Refusal(Refusal::NotFound(change.id().to_owned())));
            }
        };
        let sized = match &change {
            Change::Remember { entity } => crate::size::check_width(entity),
            other => other.entity().map_or(Ok(()), crate::size::check),
        };
        if let Err(refusal) = sized {
            return Plan::Refuse(HubError::Refusal(refusal));
        }
        let action = change.action();
        let taken = closed.is_some() || held.as_ref().is_some_and(|held| held.deleted.is_none());
        if !deciding.on(action, number, &dataset).allowed {
            // An id taken in a dataset the caller cannot see answers as taken, whoever asks.
            self.record_refusal(session, Verb::Write, action, &dataset.id).await;
            if taken && matches!(change, Change::Create(_)) {
                return Plan::Refuse(HubError::Refusal(Refusal::Exists(change.id().to_owned())));
            }
            let lens = deciding.on(Action::Read, number, &dataset);
            let blind = !lens.allowed || lens.lens.aggregate_only;
            if owner.is_some() && dataset.about_people && blind {
                return Plan::Refuse(HubError::Refusal(Refusal::NotFound(change.id().to_owned())));
            }
            let why = deciding.why(action, number, &dataset);
            return Plan::Refuse(HubError::Forbidden(Box::new(why)));
        }
        let device = session.principal.kind == Kind::Device;
        if device && !session.principal.may_stream(change.id()) {
            self.alarm(session, &dataset, "posts as another").await;
            let streams = session.principal.streams.join(", ");
            let title = format!("a device writes its own streams only, which are: {streams}");
            let mut why = deciding.why(action, number, &dataset);
            why.purposes.clear();
            why.reasons = vec![guard::Reason { policy: "device-streams".into(), title }];
            return Plan::Refuse(HubError::Forbidden(Box::new(why)));
        }
        if into.is_some_and(|into| into != dataset.id) {
            let what = format!("`{}` belongs to dataset `{}`", change.id(), dataset.id);
            return Plan::Refuse(HubError::Conflict(what));
        }
        if self.is_closed(number, &dataset) {
            let plan = self.seal_away(session, change, number, &dataset, deciding.waiting);
            deciding.waiting += usize::from(matches!(plan, Plan::Seal(..)));
            return plan;
        }
        let sensitive = dataset.is_sensitive();
        if let Err(error) = self.store.ensure_key(Under::Dataset(number), sensitive) {
            // Only this change: others in its group must not fail for a key that is sealed.
            return Plan::Refuse(HubError::Storage(error));
        }
        if taken && change.replaces() {
            let lens = deciding.on(Action::Read, number, &dataset);
            if !device && !lens.lens.shows_model() {
                return Plan::Refuse(HubError::PartialSight(change.id().to_owned()));
            }
        }
        if let Some(entity) = change.entity() {
            let before = held.as_ref().filter(|held| held.deleted.is_none());
            let before = before.map(|held| held.entity.as_ref());
            let whole = before.is_none() || change.replaces();
            let quarantined = session.principal.status == Status::Quarantined;
            let problem = self
                .problem(entity, &dataset, before, whole)
                .or_else(|| quarantined.then(|| "the device is quarantined".to_owned()));
            if let Some(reason) = problem {
                if !device {
                    let place = format!("/{}", entity.id);
                    return Plan::Refuse(HubError::Invalid(ngsild::Invalid::data(place, reason)));
                }
                let kept = deciding.apart.entry(number).or_insert_with(|| self.kept_of(&dataset));
                let writer = session.principal.number;
                let plan = self.set_apart(writer, entity, number, &dataset, reason, *kept);
                if let Plan::Keep(document, _) = &plan {
                    kept.readings += 1;
                    kept.bytes += document.body.as_ref().map_or(0, Vec::len);
                }
                return plan;
            }
        }
        Plan::Go(Planned { change, number, dataset, late: device })
    }

    /// Why an entity does not fit its dataset; none when it does.
    pub(crate) fn problem(
        &self,
        entity: &Entity,
        dataset: &Dataset,
        before: Option<&Entity>,
        whole: bool,
    ) -> Option<String> {
        if let Err(error) = dataset.check(entity, before) {
            return Some(error.to_string());
        }
        if whole && let Err(error) = dataset.check_complete(entity) {
            return Some(error.to_string());
        }
        let seconds = self.options.limits.ahead as i64;
        let limit = self.now().plus_seconds(seconds);
        let times =
            entity.attributes.iter().flat_map(|a| &a.instances).filter_map(|i| i.observed_at);
        let ahead = times.filter(|at| *at > limit).max()?;
        Some(Refusal::Future(ahead, seconds).to_string())
    }

    pub(crate) fn kept_of(&self, dataset: &Dataset) -> Kept {
        let prefix = format!("{}/", dataset.id);
        let (readings, bytes) = self.store.documents_under(kinds::QUARANTINE, &prefix);
        Kept { readings, bytes }
    }

    /// A reading that does not fit is kept for the steward, beside the `kept` ones there are.
    pub(crate) fn set_apart(
        &self,
        writer: u64,
        entity: &Entity,
        number: u32,
        dataset: &Dataset,
        reason: String,
        kept: Kept,
    ) -> Plan {
        let prefix = format!("{}/", dataset.id);
        let limits = &self.options.limits;
        let full = |name: &'static str, limit: usize| {
            let remedy = "the steward has to look at what is there".into();
            Plan::Refuse(HubError::Limit { name, limit: limit as u64, remedy })
        };
        if kept.readings >= limits.quarantine {
            return full("quarantine", limits.quarantine);
        }
        let mut json = Vec::new();
        render_entity(&mut json, entity, &Context::core(), &Options::default());
        let body = crate::kept::to_json(&Quarantined {
            time: self.now(),
            dataset: dataset.id.clone(),
            writer,
            reason: reason.clone(),
            entity: String::from_utf8_lossy(&json).into_owned(),
        });
        if kept.bytes + body.len() > limits.quarantine_bytes {
            return full("quarantine_bytes", limits.quarantine_bytes);
        }
        let sensitive = dataset.is_sensitive();
        if let Err(error) = self.store.ensure_key(Under::Dataset(number), sensitive) {
            return Plan::Refuse(HubError::Storage(error));
        }
        let name = format!("{prefix}{}-{}", self.now().0, hex(&vault::random::<6>()));
        Plan::Keep(
            Document {
                kind: kinds::QUARANTINE,
                name,
                under: Under::Dataset(number),
                body: Some(body),
            },
            reason,
        )
    }

    /// A change of personal data gets a record of its own.
    fn note_personal(&self, session: &Session, planned: &Planned, records: &mut Vec<Record>) {
        let dataset = &planned.dataset;
        let touched = planned.change.entity().map(|entity| {
            entity
                .attributes
                .iter()
                .map(|a| dataset.treatment(&a.name).0)
                .max()
                .unwrap_or(Sensitivity::Open)
        });
        let level = touched.unwrap_or_else(|| dataset.ceiling());
        if level < Sensitivity::Personal || dataset.catch_all && !dataset.about_people {
            return;
        }
        let detail = map([("change", Value::from(word(&planned.change)))]);
        let mut made = record(session, Verb::Write, &dataset.id, self.now(), detail);
        made.policy_version = self.state.snapshot().version;
        let number = self.store.entity(planned.change.id()).map(|held| held.number);
        made.subjects = vec![self.subject(planned.number, dataset, planned.change.id(), number)];
        records.push(made);
    }

    /// The keyed reference by which records name an entity.
    pub(crate) fn subject(
        &self,
        number: u32,
        dataset: &Dataset,
        id: &str,
        entity: Option<u64>,
    ) -> String {
        let own = entity.filter(|_| dataset.about_people);
        let key = own.and_then(|entity| self.store.digest_key(Under::Subject(number, entity)));
        let key = key.or_else(|| self.store.digest_key(Under::Dataset(number)));
        key.map_or_else(String::new, |key| {
            hex(&vault::keyed_digest(&key, &[b"subject", id.as_bytes()])[..16])
        })
    }

    fn no_dataset(&self, entity: Option<&Entity>) -> HubError {
        let types = entity.map_or_else(String::new, |entity| {
            entity.types.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        });
        let snapshot = self.state.snapshot();
        let known = snapshot.datasets.values().flat_map(|(_, dataset)| &dataset.claims);
        let mut known: Vec<&str> = known.map(|claim| claim.of_type.as_str()).collect();
        known.dedup();
        HubError::NoDataset(types, known.join(", "))
    }

    /// Records a message of a known principal that could not be used, in proportion.
    pub async fn note_refused_message(&self, session: &Session, dataset: &str) {
        // What is none goes into no record: it may be any text.
        let known = self.state.snapshot().dataset(dataset).is_some();
        let dataset = if known { dataset } else { "*" };
        self.record_refusal(session, Verb::Write, Action::Write, dataset).await;
    }

    /// Records something that a person should look at.
    pub(crate) async fn alarm(&self, session: &Session, dataset: &Arc<Dataset>, what: &str) {
        self.counters.add(Counter::Refusals, 1);
        if !self.is_recorded(session.principal.number) {
            return;
        }
        tracing::warn!(principal = session.principal.number, dataset = dataset.id, what, "alarm");
        let detail = map([("alarm", Value::from(what))]);
        let mut made = record(session, Verb::Write, &dataset.id, self.now(), detail);
        made.decision = model::Decision::Refused;
        made.policy_version = self.state.snapshot().version;
        drop(self.jobs.send(Job::Records { records: vec![made], reply: None }).await);
    }

    /// Why the session may not, with what would change it.
    pub(crate) fn forbidden(
        &self,
        session: &Session,
        action: Action,
        dataset: &Arc<Dataset>,
    ) -> HubError {
        if session.principal.kind == Kind::Public {
            let what = format!(
                "dataset `{}` is not for everyone; send `Authorization: Bearer TOKEN`",
                dataset.id
            );
            return HubError::Unauthenticated(what);
        }
        HubError::Forbidden(Box::new(self.why_not(session, action, dataset)))
    }

    pub(crate) fn why_not(&self, session: &Session, action: Action, dataset: &Arc<Dataset>) -> Why {
        let snapshot = self.state.snapshot();
        let decide = |session: &Session| match action {
            Action::Read => snapshot.lens(session, dataset),
            action => snapshot.decide(session, action, dataset),
        };
        let under = |purpose: &&String| {
            let mut other = session.clone();
            other.purpose = Some(purpose.as_str().into());
            decide(&other).allowed
        };
        Why {
            action: action.word().to_owned(),
            dataset: dataset.id.clone(),
            purpose: session.purpose.as_deref().map(str::to_owned),
            reasons: decide(session).reasons,
            purposes: dataset.purposes.iter().filter(under).cloned().collect(),
            grantor: dataset.steward.clone(),
        }
    }
}

fn word(change: &Change) -> &'static str {
    match change {
        Change::Create(_) => "create",
        Change::Put(_) | Change::Replace(_) => "replace",
        Change::Upsert(_) | Change::Append { .. } | Change::Remember { .. } => "append",
        Change::Update(_) | Change::ReplaceAttribute(_) => "update",
        Change::Merge(_) | Change::MergeAttribute(_) => "merge",
        Change::DeleteAttribute { .. } => "delete attribute",
        Change::Delete { .. } => "delete",
        Change::Forget { .. } => "forget",
    }
}

impl Hub {
    /// The keyed references by which records may name an entity.
    pub fn references(&self, id: &str) -> Vec<String> {
        let held = self.store.entity(id);
        let snapshot = self.state.snapshot();
        let of = |(number, dataset): &(u32, Arc<Dataset>)| {
            let own = held.as_ref().filter(|held| held.dataset == *number).map(|held| held.number);
            let plain = self.subject(*number, dataset, id, None);
            [plain, self.subject(*number, dataset, id, own)]
        };
        snapshot.datasets.values().flat_map(of).collect()
    }
}
