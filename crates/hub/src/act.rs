//! Acts: to govern and to command. An act is data: a registered name, a dataset, a body, effects.
//! Services register theirs; the hub does not list them.

use crate::job::{Job, Planned, Shred, WriteJob};
use crate::kept::{from_json, to_json};
use crate::recorder::{hex, map, record};
use crate::{Hub, HubError, ReceiptRef, kinds};
use model::{Action, Record, Session, Value, Verb};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use store::{Document, Under};
use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// An act that somebody wants done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Act {
    /// Such as `dataset.put`.
    pub name: String,
    pub body: Value,
}

/// What an act does.
#[derive(Default)]
pub struct Effects {
    pub documents: Vec<Document>,
    pub(crate) change: Option<Planned>,
    /// The dataset that it concerns, if it is one.
    pub dataset: String,
    /// What goes into the record.
    pub detail: Value,
    /// What the caller gets: also what is shown once and never kept.
    pub answer: Value,
    /// Anybody may read the record.
    pub public: bool,
    /// Keys to delete after the commit.
    pub(crate) shred: Option<Shred>,
    /// To be done before the commit, and harmless should that fail.
    pub first: Option<First>,
}

/// What is done before an act is committed.
pub type First = Box<dyn FnOnce(&Hub) -> Result<(), HubError> + Send>;

type Prepare = dyn Fn(&Hub, &Session, &Value) -> Result<Effects, HubError> + Send + Sync;
/// What a body names.
pub type OfBody = dyn Fn(&Value) -> Option<String> + Send + Sync;

/// When an act needs a second person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    Never,
    /// Of one who governs the hub, and is not the steward of the dataset that it concerns.
    OfOthers,
    Always,
}

/// A kind of act.
pub struct ActKind {
    pub name: &'static str,
    pub title: &'static str,
    pub action: Action,
    /// When a second person with the same right must agree.
    pub second: Second,
    /// A trial tells nothing of what is there, for that alone tells something.
    pub blind: bool,
    /// The dataset it concerns; none: the hub itself.
    pub dataset: Box<OfBody>,
    /// The one thing that it looks at and changes, by name, besides what no such act changes; acts on
    /// other things are done beside it. None: nothing else is decided or done meanwhile.
    pub touches: Option<Box<OfBody>>,
    /// Checks the body and says what is to be done; does nothing itself.
    pub prepare: Box<Prepare>,
}

/// How an act ended.
#[derive(Debug)]
pub struct ActReport {
    pub receipt: ReceiptRef,
    pub answer: Value,
    /// Waits for a second person, under this name.
    pub pending: Option<String>,
}

/// What an act would do.
#[derive(Debug)]
pub struct Rehearsal {
    /// It would wait for a second person.
    pub four_eyes: bool,
    /// What its record would say.
    pub detail: Value,
    /// Who would gain and who would lose, where the act tells.
    pub effect: Value,
}

/// An act that waits, as kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pending {
    pub id: String,
    pub asked_by: u64,
    pub purpose: Option<String>,
    pub time: model::Time,
    pub act: Act,
    /// What it would do when it was asked for; what is agreed to does the same, or is asked for anew.
    #[serde(default)]
    pub would: Value,
}

/// Acts of one principal that wait at once, and how long they may.
const MAX_PENDING: usize = 100;
const PENDING_S: i64 = 30 * 86_400;

/// What an act does to others: who gains and loses, and which version that makes.
fn would(effects: &Effects) -> Value {
    let of = |value: &Value, key: &str| value.get(key).cloned().unwrap_or(Value::Null);
    map([("effect", of(&effects.answer, "effect")), ("version", of(&effects.detail, "version"))])
}

/// Who governs: one alone, or several that each touch another thing.
pub(crate) struct Governing {
    all: RwLock<()>,
    /// By hash of a thing's name: two that share one wait for each other.
    things: [Mutex<()>; Governing::THINGS],
}

impl Governing {
    const THINGS: usize = 1_024;

    pub fn new() -> Governing {
        Governing { all: RwLock::new(()), things: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// Until it is dropped nobody else governs.
    pub async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }

    /// Until they are dropped nobody governs alone, or touches this thing.
    pub async fn beside(&self, thing: &str) -> (RwLockReadGuard<'_, ()>, MutexGuard<'_, ()>) {
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        // In this order: who waits for a thing is in nobody's way who governs alone.
        let thing = self.things[hasher.finish() as usize % Self::THINGS].lock().await;
        (self.all.read().await, thing)
    }
}

impl Hub {
    /// Adds a kind of act.
    pub fn register(&self, kind: ActKind) {
        self.acts.write().insert(kind.name, Arc::new(kind));
    }

    /// Does an act, or, where four eyes are asked for, keeps it for a second person.
    ///
    /// # Errors
    /// When it is unknown, not permitted, does not fit, or cannot be committed.
    pub async fn act(&self, session: &Session, act: Act) -> Result<ActReport, HubError> {
        // Whoever may not is not in the way of those who may.
        let kind = self.permitted(&self.still(session)?, &act).await?;
        if let Some(thing) = kind.touches.as_ref().and_then(|of| of(&act.body)) {
            let _beside = self.governing.beside(&thing).await;
            let session = &self.still(session)?;
            let kind = self.permitted(session, &act).await?;
            if !self.needs_second(session, &kind, &act.body) {
                let effects = self.prepare(session, &kind, &act)?;
                return self.commit_act(session, &act.name, effects, Vec::new()).await;
            }
        }
        let _alone = self.governing.alone().await;
        let session = &self.still(session)?;
        let kind = self.permitted(session, &act).await?;
        let effects = self.prepare(session, &kind, &act)?;
        if self.needs_second(session, &kind, &act.body)
            && session.principal.kind != model::Kind::Hub
        {
            if self.others_who_may(session, &kind, &act.body) > 0 {
                return self.keep_pending(session, act, effects).await;
            }
            tracing::warn!(act = kind.name, "done by one person, for there is no second one yet");
        }
        self.commit_act(session, &act.name, effects, Vec::new()).await
    }

    fn prepare(&self, session: &Session, kind: &ActKind, act: &Act) -> Result<Effects, HubError> {
        let effects = (kind.prepare)(self, session, &act.body)?;
        Ok(Effects { dataset: (kind.dataset)(&act.body).unwrap_or_default(), ..effects })
    }

    /// Says what an act would do, and does nothing.
    ///
    /// # Errors
    /// As [`Hub::act`].
    pub async fn rehearse(&self, session: &Session, act: &Act) -> Result<Rehearsal, HubError> {
        let kind = self.permitted(session, act).await?;
        let four_eyes = self.needs_second(session, &kind, &act.body)
            && self.others_who_may(session, &kind, &act.body) > 0;
        if kind.blind {
            let dataset = (kind.dataset)(&act.body).unwrap_or_default();
            let detail = map([("dataset", Value::from(dataset))]);
            return Ok(Rehearsal { four_eyes, detail, effect: Value::Null });
        }
        let effects = (kind.prepare)(self, session, &act.body)?;
        let effect = effects.answer.get("effect").cloned().unwrap_or(Value::Null);
        Ok(Rehearsal { four_eyes, detail: effects.detail, effect })
    }

    fn needs_second(&self, session: &Session, kind: &ActKind, body: &Value) -> bool {
        let snapshot = self.state.snapshot();
        let steward = || {
            let dataset = snapshot.dataset(&(kind.dataset)(body)?)?.1.clone();
            Some(dataset.steward == session.principal.login)
        };
        match kind.second {
            Second::Never => false,
            Second::Always => true,
            Second::OfOthers => {
                snapshot.decide_hub(session, kind.action).allowed && steward() != Some(true)
            }
        }
    }

    async fn permitted(&self, session: &Session, act: &Act) -> Result<Arc<ActKind>, HubError> {
        let kind = self.acts.read().get(act.name.as_str()).cloned();
        let kind =
            kind.ok_or_else(|| HubError::NotFound(format!("there is no act `{}`", act.name)))?;
        let snapshot = self.state.snapshot();
        let dataset = (kind.dataset)(&act.body);
        let allowed_hub = snapshot.decide_hub(session, kind.action).allowed;
        let concerned = dataset.and_then(|id| snapshot.dataset(&id).cloned());
        let allowed = match &concerned {
            Some((_, dataset)) => {
                allowed_hub || snapshot.decide(session, kind.action, dataset).allowed
            }
            None => allowed_hub,
        };
        if allowed {
            return Ok(kind);
        }
        let dataset = concerned.map_or_else(guard::hub_dataset, |(_, dataset)| dataset);
        self.record_refusal(session, Verb::Act, kind.action, &dataset.id).await;
        Err(self.forbidden(session, kind.action, &dataset))
    }

    /// How many other officials could agree.
    fn others_who_may(&self, session: &Session, kind: &ActKind, body: &Value) -> usize {
        let snapshot = self.state.snapshot();
        let dataset = (kind.dataset)(body).and_then(|id| snapshot.dataset(&id).cloned());
        let may = |principal: &Arc<model::Principal>| {
            let session = self.imagine(principal.clone(), None);
            snapshot.decide_hub(&session, kind.action).allowed
                || dataset
                    .as_ref()
                    .is_some_and(|(_, d)| snapshot.decide(&session, kind.action, d).allowed)
        };
        let others = self.state.principals();
        let others = others.iter().filter(|p| {
            p.kind == model::Kind::Official
                && p.status == model::Status::Active
                && p.number != session.principal.number
        });
        others.filter(|principal| may(principal)).count()
    }

    async fn keep_pending(
        &self,
        session: &Session,
        act: Act,
        effects: Effects,
    ) -> Result<ActReport, HubError> {
        let waiting = self.pending_now().into_iter();
        let own = waiting.filter(|one| one.asked_by == session.principal.number).count();
        if own >= MAX_PENDING {
            return Err(HubError::Limit {
                name: "pending",
                limit: MAX_PENDING as u64,
                remedy: "somebody has to agree to what waits, or you withdraw it".into(),
            });
        }
        let id = hex(&vault::random::<8>());
        let pending = Pending {
            id: id.clone(),
            asked_by: session.principal.number,
            would: would(&effects),
            purpose: session.purpose.as_deref().map(str::to_owned),
            time: self.now(),
            act: act.clone(),
        };
        let document = Document {
            kind: kinds::PENDING,
            name: id.clone(),
            under: Under::Hub,
            body: Some(to_json(&pending)),
        };
        let mut documents = vec![document];
        let ended =
            self.store.documents(kinds::PENDING).into_iter().filter(|(_, body)| {
                from_json::<Pending>(body).is_ok_and(|one| self.has_ended(&one))
            });
        documents.extend(ended.map(|(name, _)| crate::kept::document(kinds::PENDING, &name, None)));
        let asked = Effects {
            documents,
            dataset: effects.dataset,
            detail: map([("asks_for", Value::from(act.name.as_str())), ("would", effects.detail)]),
            answer: effects.answer,
            ..Effects::default()
        };
        // What is shown once is shown when it is done, not while it waits.
        let effect = asked.answer.get("effect").cloned().unwrap_or(Value::Null);
        let mut report = self
            .commit_act(session, "act.ask", Effects { answer: effect, ..asked }, Vec::new())
            .await?;
        report.pending = Some(id);
        Ok(report)
    }

    /// Agrees to an act that waits; the one who asked cannot.
    ///
    /// # Errors
    /// When there is none, it is one's own, or it is not permitted any more.
    pub async fn approve(&self, session: &Session, id: &str) -> Result<ActReport, HubError> {
        Self::check_known(session)?;
        let missing = || HubError::NotFound(format!("no act `{id}` waits for a second person"));
        let waiting = || -> Result<Pending, HubError> {
            let body = self.store.document(kinds::PENDING, id).ok_or_else(missing)?;
            let pending: Pending = from_json(&body)?;
            if self.has_ended(&pending) { Err(missing()) } else { Ok(pending) }
        };
        self.permitted(&self.still(session)?, &waiting()?.act).await?;
        let _alone = self.governing.alone().await;
        let session = &self.still(session)?;
        let pending = waiting()?;
        if pending.asked_by == session.principal.number {
            return Err(HubError::Conflict(
                "a second person has to agree, not the one who asked".into(),
            ));
        }
        let kind = self.permitted(session, &pending.act).await?;
        let asker = self.state.principal(pending.asked_by).ok_or_else(missing)?;
        if asker.status != model::Status::Active {
            return Err(HubError::Conflict("whoever asked for it is not active any more".into()));
        }
        let asker = self.imagine(asker, pending.purpose.as_deref());
        self.permitted(&asker, &pending.act).await?;
        let mut effects = self.prepare(&asker, &kind, &pending.act)?;
        if pending.would != Value::Null && pending.would != would(&effects) {
            let what = "what it would do is not what it was when it was asked for; ask again";
            return Err(HubError::Conflict(what.into()));
        }
        effects.documents.push(Document {
            kind: kinds::PENDING,
            name: id.to_owned(),
            under: Under::Hub,
            body: None,
        });
        let by = map([("agreed_with", Value::Integer(pending.asked_by.cast_signed()))]);
        self.commit_act(session, &pending.act.name, effects, by.entries().to_vec()).await
    }

    /// Takes an act back that waits: by whoever asked for it, or could agree to it.
    ///
    /// # Errors
    /// When there is none, or it is not permitted.
    pub async fn withdraw(&self, session: &Session, id: &str) -> Result<ActReport, HubError> {
        Self::check_known(session)?;
        let _alone = self.governing.alone().await;
        let session = &self.still(session)?;
        let missing = || HubError::NotFound(format!("no act `{id}` waits for a second person"));
        let body = self.store.document(kinds::PENDING, id).ok_or_else(missing)?;
        let pending: Pending = from_json(&body)?;
        if pending.asked_by != session.principal.number {
            self.permitted(session, &pending.act).await?;
        }
        let gone =
            Document { kind: kinds::PENDING, name: id.to_owned(), under: Under::Hub, body: None };
        let effects = Effects {
            documents: vec![gone],
            detail: map([("withdrawn", Value::from(pending.act.name.as_str()))]),
            ..Effects::default()
        };
        self.commit_act(session, "act.withdraw", effects, Vec::new()).await
    }

    /// What is for whoever is known.
    pub(crate) fn check_known(session: &Session) -> Result<(), HubError> {
        if session.principal.kind == model::Kind::Public {
            return Err(HubError::Unauthenticated("sign in first".into()));
        }
        Ok(())
    }

    /// Acts that wait for a second person: one's own, and those that one could agree to.
    pub fn pending(&self, session: &Session) -> Vec<Pending> {
        let snapshot = self.state.snapshot();
        let kinds = self.acts.read();
        let may = |one: &Pending| {
            let Some(kind) = kinds.get(one.act.name.as_str()) else { return false };
            let dataset = (kind.dataset)(&one.act.body).and_then(|id| snapshot.dataset(&id));
            snapshot.decide_hub(session, kind.action).allowed
                || dataset.is_some_and(|(_, d)| snapshot.decide(session, kind.action, d).allowed)
        };
        let mut all = self.pending_now();
        all.retain(|one| one.asked_by == session.principal.number || may(one));
        all
    }

    fn pending_now(&self) -> Vec<Pending> {
        let all = self.store.documents(kinds::PENDING);
        let all = all.iter().filter_map(|(_, body)| from_json::<Pending>(body).ok());
        all.filter(|one| !self.has_ended(one)).collect()
    }

    fn has_ended(&self, pending: &Pending) -> bool {
        pending.time.plus_seconds(PENDING_S) < self.now()
    }

    pub(crate) async fn commit_act(
        &self,
        session: &Session,
        name: &str,
        effects: Effects,
        more: Vec<(String, Value)>,
    ) -> Result<ActReport, HubError> {
        let mut detail = vec![("act".to_owned(), Value::from(name))];
        detail.extend(effects.detail.entries().iter().cloned());
        detail.extend(more);
        let mut made: Record =
            record(session, Verb::Act, &effects.dataset, self.now(), Value::Map(detail));
        made.policy_version = self.state.snapshot().version;
        made.public = effects.public;
        let (shred, wait) = effects
            .shred
            .map(|shred| {
                let (reply, wait) = tokio::sync::oneshot::channel();
                (Shred { reply: Some(reply), ..shred }, wait)
            })
            .unzip();
        if let Some(first) = effects.first {
            first(self)?;
        }
        let committed = self
            .submit(|reply| {
                Job::Write(WriteJob {
                    planned: effects.change.into_iter().collect(),
                    whole: true,
                    documents: effects.documents,
                    records: vec![made],
                    shred,
                    ..WriteJob::new(session.principal.number, reply)
                })
            })
            .await??;
        committed.results.into_iter().find_map(Result::err).map_or(Ok(()), Err)?;
        if let Some(gone) = wait {
            gone.await.map_err(|_| HubError::Stopping)??;
        }
        // An act has a record of its own, always.
        let index = committed.own.unwrap_or(u64::MAX);
        let receipt = ReceiptRef { index, position: 0, group: 0, path: Vec::new() };
        Ok(ActReport { receipt, answer: effects.answer, pending: None })
    }
}
