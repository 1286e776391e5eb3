//! What arrives for datasets under the sensitive root while that is closed: each change is decided,
//! encrypted to the root's public key and committed with its record; nobody can read it, the hub
//! included. When the root is open again the changes are done, in the order they came.

use crate::apply::apply;
use crate::job::{Committed, Job, Planned, WriteJob};
use crate::kept::{document, from_json, to_json};
use crate::recorder::{map, record};
use crate::write::Plan;
use crate::{Hub, HubError, kinds};
use model::{Action, Change, Dataset, Kind, Session, Status, Time, Value, Verb};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{Document, StoreError, Under};
use tokio::sync::oneshot::Receiver;

/// What a writer is told.
pub const SEALED: &str = "kept, encrypted; it is done when the custodians open the sensitive root";

/// A change as it waits.
#[derive(Serialize, Deserialize)]
struct Waiting {
    writer: u64,
    dataset: u32,
    late: bool,
    /// Why it is to be set apart whatever it is: its device was quarantined.
    apart: Option<String>,
    change: Change,
}

impl Hub {
    /// Whether a dataset cannot be read now, for the sensitive root is closed.
    pub(crate) fn is_closed(&self, number: u32, dataset: &Dataset) -> bool {
        self.store.is_closed(number, dataset.is_sensitive(), dataset.about_people)
    }

    /// Refused when a dataset is closed and the session might have read it.
    pub(crate) fn check_open(
        &self,
        session: &Session,
        number: u32,
        dataset: &Arc<Dataset>,
    ) -> Result<(), HubError> {
        let may = || {
            let verdict = self.state.verdict(session, Action::Read, number, dataset);
            verdict.allowed && !verdict.lens.aggregate_only
        };
        if self.store.is_sealed() && self.is_closed(number, dataset) && may() {
            return Err(HubError::Sealed(dataset.id.clone()));
        }
        Ok(())
    }

    /// Keeps a permitted change until the root is open. What is there already cannot be looked at,
    /// so the model is checked again then. `waiting` others of the same write are to be kept already.
    pub(crate) fn seal_away(
        &self,
        session: &Session,
        change: Change,
        number: u32,
        dataset: &Arc<Dataset>,
        waiting: usize,
    ) -> Plan {
        if self.store.inbox() + waiting as u64 >= self.options.limits.inbox as u64 {
            return Plan::Refuse(HubError::Limit {
                name: "inbox",
                limit: self.options.limits.inbox as u64,
                remedy: "the custodians have to open the sensitive root".into(),
            });
        }
        let device = session.principal.kind == Kind::Device;
        if let Some(entity) = change.entity() {
            let whole = matches!(change, Change::Create(_)) || change.replaces();
            if let Some(reason) = self.problem(entity, dataset, None, whole).filter(|_| !device) {
                let place = format!("/{}", entity.id);
                return Plan::Refuse(HubError::Invalid(ngsild::Invalid::data(place, reason)));
            }
        }
        let subject = self.subject(number, dataset, change.id(), None);
        let sequence = self.inbox_sequence.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:020}-{sequence:012}", self.now().0);
        let detail = map([("locked", Value::from(name.as_str()))]);
        let mut made = record(session, Verb::Write, &dataset.id, self.now(), detail);
        made.policy_version = self.state.snapshot().version;
        made.subjects = vec![subject];
        let writer = session.principal.number;
        let quarantined = session.principal.status == Status::Quarantined;
        let apart = quarantined.then(|| "the device was quarantined".to_owned());
        let body = to_json(&Waiting { writer, dataset: number, late: device, apart, change });
        let document = Document { kind: kinds::INBOX, name, under: Under::Inbox, body: Some(body) };
        Plan::Seal(document, made)
    }

    /// Does what waited, if the root is open. To be called before anybody else can write.
    pub(crate) fn open_inbox(&self) {
        if self.store.is_sealed() {
            return;
        }
        let mut answers: Vec<Receiver<Result<Committed, StoreError>>> = Vec::new();
        let mut touched = HashSet::new();
        let wait = |answers: &mut Vec<Receiver<Result<Committed, StoreError>>>| {
            for answer in answers.drain(..) {
                if !matches!(answer.blocking_recv(), Ok(Ok(_))) {
                    tracing::error!("a change that waited for the sensitive root waits on");
                }
            }
        };
        for (name, body) in self.store.documents(kinds::INBOX) {
            let Ok(waiting) = from_json::<Waiting>(&body) else {
                tracing::error!(name, "a change that waited cannot be read");
                continue;
            };
            // What comes later for the same entity is checked against what came before.
            if answers.len() >= 1_000 || !touched.insert(waiting.change.id().to_owned()) {
                wait(&mut answers);
                touched = HashSet::from([waiting.change.id().to_owned()]);
            }
            let (reply, answer) = tokio::sync::oneshot::channel();
            let Some(job) = self.unlock(&name, waiting) else {
                tracing::error!(name, "a change waits on: no dataset or no room in quarantine");
                continue;
            };
            let job = WriteJob { reply, ..job };
            if self.jobs.blocking_send(Job::Write(job)).is_ok() {
                answers.push(answer);
            }
        }
        wait(&mut answers);
    }

    /// The job that does a change that waited; what does not fit goes to the steward.
    fn unlock(&self, name: &str, waiting: Waiting) -> Option<WriteJob> {
        let Waiting { writer, dataset: number, late, apart, change } = waiting;
        let snapshot = self.state.snapshot();
        let dataset = snapshot.by_number(number)?.clone();
        let held = self.store.entity(change.id());
        let elsewhere = held.as_ref().is_some_and(|held| held.dataset != number);
        let held = held.filter(|held| held.deleted.is_none());
        let before = held.as_ref().map(|held| held.entity.as_ref());
        let now: Time = self.now();
        let whole = before.is_none() || change.replaces();
        let planned = Planned { change: change.clone(), number, dataset: dataset.clone(), late };
        let becomes = || {
            let applied = apply(change.clone(), before, now, late)?;
            self.check_state(&applied, before, number, &dataset)
        };
        let misfit = apart
            .or_else(|| elsewhere.then(|| "its id was taken elsewhere while it waited".to_owned()))
            .or_else(|| self.problem(change.entity()?, &dataset, before, whole))
            .or_else(|| becomes().err().map(|refusal| refusal.to_string()));
        let mut documents = vec![document(kinds::INBOX, name, None)];
        let mut fits = Vec::new();
        let mut detail = vec![("unlocked".to_owned(), Value::from(name))];
        match (misfit, change.entity()) {
            (None, _) => fits.push(planned),
            (Some(reason), Some(entity)) => {
                let kept = self.kept_of(&dataset);
                let kept = self.set_apart(writer, entity, number, &dataset, reason, kept);
                let Plan::Keep(document, _) = kept else { return None };
                detail.push(("quarantined".into(), Value::from(document.name.as_str())));
                documents.push(document);
            }
            (Some(_), None) => detail.push(("refused".into(), Value::Bool(true))),
        }
        let own = self.own_session();
        let made = record(&own, Verb::Upkeep, &dataset.id, now, Value::Map(detail));
        let (reply, _) = tokio::sync::oneshot::channel();
        let job = WriteJob::new(writer, reply);
        Some(WriteJob { planned: fits, documents, records: vec![made], ..job })
    }
}
