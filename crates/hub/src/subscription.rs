//! Subscriptions (ETSI GS CIM 009 clauses 5.2.12 and 5.8): what was asked for, matching in the
//! committer, and delivery at least once and in order, from notifications that lie in the store.

mod compiling;
mod delivery;
mod matching;
mod queues;

use compiling::{compile, positions_of};
pub use matching::{Changed, Matched};
use queues::Queued;

use crate::job::{Job, WriteJob};
use crate::kept::{document, from_json, to_json};
use crate::recorder::map;
use crate::{Hub, HubError, Join, kinds};
use courier::Courier;
use model::{Entity, Name, Session, Status, Time, Value};
use ngsild::{Context, Filter, Invalid, Options};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{Document, Store, Under};

/// Seconds between two notifications at intervals, at least.
const LEAST_INTERVAL_S: f64 = 1.0;

/// Bytes of one subscription, and members of it.
pub const MAX_BYTES: usize = 64 << 10;
const MAX_MEMBERS: usize = 100;

/// A subscription as kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscription {
    pub id: String,
    /// Surrogate of whoever subscribed: deliveries are decided as this principal.
    pub owner: u64,
    pub purpose: Option<String>,
    /// Where it was made; of hubs that did not note it, the city's own networks.
    #[serde(default)]
    pub zone: Option<model::Zone>,
    pub created: Time,
    /// As it was given, without `@context`.
    pub body: Value,
    pub context: Value,
}

/// A subscription ready to be matched.
struct Compiled {
    kept: Subscription,
    filters: Vec<Filter>,
    watched: Vec<Name>,
    triggers: Triggers,
    show_changes: bool,
    join: Option<Join>,
    options: Options,
    /// What notifications are written in.
    context: Arc<Context>,
    uri: String,
    accept: String,
    receiver_info: Vec<(String, String)>,
    active: bool,
    expires: Option<Time>,
    throttling_s: f64,
    /// Told of at intervals, whatever changes.
    interval_s: Option<f64>,
    outcome: Mutex<Outcome>,
}

impl Compiled {
    /// Whether it may be told of again so soon; if so, that it was is noted.
    fn is_due(&self, now: Time) -> bool {
        let mut outcome = self.outcome.lock();
        let since =
            outcome.last_matched.map_or(f64::INFINITY, |last| (now.0 - last.0) as f64 / 1e6);
        let due = since >= self.interval_s.unwrap_or(self.throttling_s);
        if due {
            outcome.last_matched = Some(now);
        }
        due
    }
}

/// What kinds of changes are told of (clause 5.2.12, `notificationTrigger`).
#[derive(Clone, Copy, Debug)]
struct Triggers {
    entity_created: bool,
    entity_updated: bool,
    entity_deleted: bool,
    attribute_created: bool,
    attribute_updated: bool,
    attribute_deleted: bool,
}

impl Triggers {
    fn parse(given: Option<&Value>) -> Result<Triggers, Invalid> {
        let mut triggers = Triggers {
            entity_created: false,
            entity_updated: false,
            entity_deleted: false,
            attribute_created: given.is_none(),
            attribute_updated: given.is_none(),
            attribute_deleted: false,
        };
        if given.is_some_and(|given| given.items().is_empty()) {
            return Err(Invalid::data("/notificationTrigger", "is empty"));
        }
        for trigger in given.map(Value::items).unwrap_or_default() {
            match trigger.as_text() {
                Some("entityCreated") => triggers.entity_created = true,
                Some("entityUpdated") => triggers.entity_updated = true,
                Some("entityDeleted") => triggers.entity_deleted = true,
                Some("attributeCreated") => triggers.attribute_created = true,
                Some("attributeUpdated") => triggers.attribute_updated = true,
                Some("attributeDeleted") => triggers.attribute_deleted = true,
                _ => {
                    let what = "holds something that is none of: entityCreated, entityUpdated, \
                        entityDeleted, attributeCreated, attributeUpdated, attributeDeleted";
                    return Err(Invalid::data("/notificationTrigger", what));
                }
            }
        }
        Ok(triggers)
    }

    /// Whether what was before decides.
    fn looks_back(&self) -> bool {
        self.attribute_deleted || self.entity_updated || self.entity_deleted
    }
}

/// How delivery went.
#[derive(Clone, Debug, Default)]
struct Outcome {
    last_matched: Option<Time>,
    last_notification: Option<Time>,
    last_success: Option<Time>,
    last_failure: Option<Time>,
    sent: u64,
    failed: u64,
    lost: u64,
    /// Whether the last try failed.
    failing: bool,
}

impl Outcome {
    /// Notes how a try ended.
    fn note(&mut self, now: Time, arrived: bool) {
        self.last_notification = Some(now);
        self.failing = !arrived;
        let (count, last) = if arrived {
            (&mut self.sent, &mut self.last_success)
        } else {
            (&mut self.failed, &mut self.last_failure)
        };
        *count += 1;
        *last = Some(now);
    }
}

/// A notification on its way, as kept.
#[derive(Serialize, Deserialize)]
struct Waiting {
    subscription: String,
    time: Time,
    /// The idempotency key.
    id: String,
    body: String,
    /// Whose subscription it was; of hubs that did not note it, nobody's.
    #[serde(default)]
    owner: u64,
    /// Datasets that it tells of, and through which lens.
    #[serde(default)]
    lenses: Vec<(u32, String)>,
}

/// All subscriptions, and which of them an entity can concern: by the ids and types they name.
#[derive(Default)]
struct All {
    by_id: BTreeMap<String, Arc<Compiled>>,
    of_entity: HashMap<String, Vec<Arc<Compiled>>>,
    of_type: HashMap<Name, Vec<Arc<Compiled>>>,
    of_any: Vec<Arc<Compiled>>,
    /// How often one was added.
    version: u64,
}

impl All {
    /// The lists a subscription stands in.
    fn lists(&mut self, compiled: &Compiled, mut each: impl FnMut(&mut Vec<Arc<Compiled>>)) {
        for filter in &compiled.filters {
            match &filter.types {
                _ if !filter.ids.is_empty() => {
                    for id in &filter.ids {
                        each(self.of_entity.entry(id.clone()).or_default());
                    }
                }
                Some(types) => {
                    for name in types.0.iter().filter_map(|group| group.first()) {
                        each(self.of_type.entry(name.clone()).or_default());
                    }
                }
                None => each(&mut self.of_any),
            }
        }
    }

    fn insert(&mut self, id: String, compiled: Arc<Compiled>) {
        self.remove(&id);
        self.version += 1;
        self.lists(&compiled, |list| list.push(compiled.clone()));
        self.by_id.insert(id, compiled);
    }

    fn remove(&mut self, id: &str) {
        if let Some(old) = self.by_id.remove(id) {
            self.lists(&old, |list| list.retain(|one| !Arc::ptr_eq(one, &old)));
            self.of_entity.retain(|_, list| !list.is_empty());
            self.of_type.retain(|_, list| !list.is_empty());
        }
    }

    /// The subscriptions that may match an entity, each once.
    fn concerned(&self, entity: &Entity) -> Vec<Arc<Compiled>> {
        let named = self.of_entity.get(&entity.id).into_iter();
        let typed = entity.types.iter().filter_map(|name| self.of_type.get(name));
        let lists = named.chain(typed).chain(std::iter::once(&self.of_any));
        let mut found: Vec<Arc<Compiled>> = lists.flatten().cloned().collect();
        if found.len() > 1 {
            found.sort_by(|a, b| a.kept.id.cmp(&b.kept.id));
            found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        }
        found
    }
}

#[derive(Default)]
pub struct Subscriptions {
    all: RwLock<All>,
    waiting: Mutex<queues::Queues>,
    /// Marks of lenses, by verdict.
    marks: Mutex<HashMap<u64, String>>,
    /// Notifications that were found at the start and belong to no subscription.
    orphans: Mutex<Vec<String>>,
    wake: tokio::sync::Notify,
    /// Held while one is made, changed or ended: two never take the same id.
    changing: tokio::sync::Mutex<()>,
    sequence: std::sync::atomic::AtomicU64,
}

impl Subscriptions {
    /// Another number once there is another subscription.
    pub fn version(&self) -> u64 {
        self.all.read().version
    }

    /// Whether any may match an entity.
    pub fn concern(&self, id: &str, types: &[Name]) -> bool {
        let all = self.all.read();
        !all.of_any.is_empty()
            || all.of_entity.contains_key(id)
            || types.iter().any(|name| all.of_type.contains_key(name))
    }

    pub fn load(store: &Store) -> Result<Subscriptions, HubError> {
        let subscriptions = Subscriptions::default();
        for (id, body) in store.documents(kinds::SUBSCRIPTION) {
            let kept: Subscription = from_json(&body)?;
            let compiled = compile(kept, &Context::core(), Context::core())?;
            subscriptions.all.write().insert(id, Arc::new(compiled));
        }
        for (name, body) in store.documents(kinds::OUTBOX) {
            let waiting: Waiting = from_json(&body)?;
            let sequence = name.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            subscriptions.sequence.fetch_max(sequence + 1, Ordering::Relaxed);
            let queued = Queued { name, tries: 0, bytes: body.len() };
            let owner = |kept: &Arc<Compiled>| kept.kept.owner;
            let owner = subscriptions.all.read().by_id.get(&waiting.subscription).map(owner);
            if owner.is_some_and(|owner| waiting.owner == 0 || waiting.owner == owner) {
                subscriptions.waiting.lock().push_back(&waiting.subscription, queued);
            } else {
                subscriptions.orphans.lock().push(queued.name);
            }
        }
        subscriptions.wake.notify_one();
        Ok(subscriptions)
    }
}

/// Waiting notifications that tell of a dataset, taken away.
pub(crate) fn telling_of(store: &Store, dataset: u32) -> Vec<Document> {
    let tells = |body: &[u8]| {
        let waiting = from_json::<Waiting>(body);
        waiting.is_ok_and(|waiting| waiting.lenses.iter().any(|(of, _)| *of == dataset))
    };
    let all = store.documents(kinds::OUTBOX).into_iter().filter(|(_, body)| tells(body));
    all.map(|(name, _)| document(kinds::OUTBOX, &name, None)).collect()
}

/// Names, or a selection of types, from one context into another.
fn renamed(value: &Value, from: &Context, to: &Context) -> Value {
    match value {
        Value::Text(text) => {
            let cut = |c: char| "()|,;".contains(c);
            let (mut out, mut rest) = (String::new(), text.as_str());
            while !rest.is_empty() {
                let end = rest.find(cut).unwrap_or(rest.len());
                if end > 0 && &rest[..end] != "*" {
                    out += &to.compact(&from.expand(&rest[..end]));
                } else {
                    out += &rest[..end];
                }
                let next = rest[end..].chars().next();
                out.extend(next);
                rest = &rest[end + next.map_or(0, char::len_utf8)..];
            }
            Value::Text(out)
        }
        Value::List(items) => {
            Value::List(items.iter().map(|item| renamed(item, from, to)).collect())
        }
        other => other.clone(),
    }
}

/// A map with some of its members changed.
fn with_members(value: &Value, keys: &[&str], change: &dyn Fn(&Value) -> Value) -> Value {
    let one = |(key, value): &(String, Value)| {
        let value = if keys.contains(&key.as_str()) { change(value) } else { value.clone() };
        (key.clone(), value)
    };
    Value::Map(value.entries().iter().map(one).collect())
}

impl Hub {
    /// Subscribes: from now on, changes that match and that the owner may see are sent.
    ///
    /// # Errors
    /// When it does not fit, its receiver is not allowed, or there are too many.
    pub async fn subscribe(
        &self,
        session: &Session,
        body: Value,
        context_source: Value,
        courier: &Courier,
    ) -> Result<String, HubError> {
        if session.principal.kind == model::Kind::Public {
            return Err(HubError::Unauthenticated(
                "subscriptions belong to somebody; send a token".into(),
            ));
        }
        if session.principal.kind == model::Kind::Device {
            // It reads nothing.
            return Err(self.forbidden(session, model::Action::Read, &guard::hub_dataset()));
        }
        if self.subscriptions.all.read().by_id.len() >= self.options.limits.subscriptions {
            return Err(HubError::Limit {
                name: "subscriptions",
                limit: self.options.limits.subscriptions as u64,
                remedy: "delete one that is not needed".into(),
            });
        }
        let id = match body.get("id").and_then(Value::as_text) {
            Some(id) => id.to_owned(),
            None => {
                format!("urn:ngsi-ld:Subscription:{}", crate::recorder::hex(&vault::random::<12>()))
            }
        };
        ngsild::check_uri(&id, "/id")?;
        let _alone = self.subscriptions.changing.lock().await;
        if self.subscriptions.all.read().by_id.contains_key(&id) {
            return Err(HubError::Exists("subscription", id));
        }
        self.keep_subscription(session, id, body, context_source, courier).await
    }

    /// Whether this one, new or changed, is within the share of a principal.
    fn check_share(&self, session: &Session, id: &str, body: &Value) -> Result<(), HubError> {
        let limits = &self.options.limits;
        let all = self.subscriptions.all.read();
        let own = all.by_id.values().filter(|one| one.kept.owner == session.principal.number);
        let own = own.filter(|one| one.kept.id != id);
        let (mut count, mut positions) = (0, positions_of(body));
        for one in own {
            count += 1;
            positions += positions_of(&one.kept.body);
        }
        let full = |name: &'static str, limit: usize| {
            let remedy = "delete one that is not needed".into();
            Err(HubError::Limit { name, limit: limit as u64, remedy })
        };
        if count >= limits.subscriptions_each {
            return full("subscriptions_each", limits.subscriptions_each);
        }
        if positions > limits.subscription_positions {
            return full("subscription_positions", limits.subscription_positions);
        }
        Ok(())
    }

    async fn keep_subscription(
        &self,
        session: &Session,
        id: String,
        body: Value,
        context: Value,
        courier: &Courier,
    ) -> Result<String, HubError> {
        let entries =
            body.entries().iter().filter(|(key, _)| !matches!(key.as_str(), "@context" | "id"));
        let kept = Subscription {
            id: id.clone(),
            owner: session.principal.number,
            purpose: session.purpose.as_deref().map(str::to_owned),
            zone: Some(session.zone),
            created: self.now(),
            body: Value::Map(entries.cloned().collect()),
            context: context.clone(),
        };
        let bytes = to_json(&kept).len();
        if bytes > MAX_BYTES {
            let what =
                format!("a subscription has at most {MAX_BYTES} bytes, and this has {bytes}");
            return Err(Invalid::data("", what).into());
        }
        self.check_share(session, &id, &kept.body)?;
        let compiled = self.compile(kept.clone())?;
        if compiled.expires.is_some_and(|expires| expires <= self.now()) {
            return Err(Invalid::data("/expiresAt", "is in the past").into());
        }
        courier.check(&compiled.uri).map_err(|error| {
            HubError::Invalid(Invalid::data("/notification/endpoint/uri", error.to_string()))
        })?;
        let document = Document {
            kind: kinds::SUBSCRIPTION,
            name: id.clone(),
            under: Under::Hub,
            body: Some(to_json(&kept)),
        };
        let effects = crate::Effects {
            documents: vec![document],
            detail: map([("subscription", Value::from(id.as_str()))]),
            ..crate::Effects::default()
        };
        self.commit_act(session, "subscription.put", effects, Vec::new()).await?;
        self.subscriptions.all.write().insert(id.clone(), Arc::new(compiled));
        Ok(id)
    }

    fn compile(&self, kept: Subscription) -> Result<Compiled, HubError> {
        let context = self.context(&kept.context)?;
        let written = match kept.body.get("jsonldContext") {
            None => context.clone(),
            Some(Value::Text(url)) => {
                ngsild::check_uri(url, "/jsonldContext")?;
                self.context_as_named(url)?
            }
            Some(_) => return Err(Invalid::data("/jsonldContext", "is no URL").into()),
        };
        compile(kept, &context, written)
    }

    /// Compiles what was loaded under the contexts it was made with, once the hub knows them. A
    /// context that is not known any more leaves its subscriptions on the core context.
    pub(crate) fn recompile_subscriptions(&self) {
        let orphans = std::mem::take(&mut *self.subscriptions.orphans.lock());
        if !orphans.is_empty() {
            let gone = orphans.iter().map(|name| document(kinds::OUTBOX, name, None));
            let (reply, _) = tokio::sync::oneshot::channel();
            let job = WriteJob { documents: gone.collect(), ..WriteJob::new(1, reply) };
            // A full queue: they are found again at the next start.
            drop(self.jobs.try_send(Job::Write(job)));
        }
        let mut all = self.subscriptions.all.write();
        let loaded: Vec<Arc<Compiled>> = all.by_id.values().cloned().collect();
        for compiled in loaded {
            match self.compile(compiled.kept.clone()) {
                Ok(again) => all.insert(compiled.kept.id.clone(), Arc::new(again)),
                Err(error) => {
                    tracing::warn!(%error, subscription = compiled.kept.id, "kept as it was")
                }
            }
        }
    }

    /// A subscription of the session's own.
    fn own_subscription(&self, session: &Session, id: &str) -> Result<Arc<Compiled>, HubError> {
        let found = self.subscriptions.all.read().by_id.get(id).cloned();
        let own = found.filter(|s| s.kept.owner == session.principal.number);
        own.ok_or_else(|| {
            HubError::NotFound(format!("there is no subscription with the id `{id}`"))
        })
    }

    /// Changes a subscription.
    ///
    /// # Errors
    /// When there is none of one's own, or it does not fit afterwards.
    pub async fn update_subscription(
        &self,
        session: &Session,
        id: &str,
        patch: &Value,
        context: Value,
        courier: &Courier,
    ) -> Result<(), HubError> {
        let _alone = self.subscriptions.changing.lock().await;
        let old = self.own_subscription(session, id)?;
        if patch.entries().len() > MAX_MEMBERS {
            let what = format!("a subscription has at most {MAX_MEMBERS} members");
            return Err(Invalid::data("", what).into());
        }
        let mut entries = old.kept.body.entries().to_vec();
        for (key, value) in patch.entries() {
            entries.retain(|(found, _)| found != key);
            if *value != Value::Null && value.as_text() != Some("urn:ngsi-ld:null") {
                entries.push((key.clone(), value.clone()));
            }
        }
        let context = if context == Value::Null { old.kept.context.clone() } else { context };
        self.keep_subscription(session, id.to_owned(), Value::Map(entries), context, courier)
            .await
            .map(drop)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// When there is none of one's own.
    pub async fn unsubscribe(&self, session: &Session, id: &str) -> Result<(), HubError> {
        let _alone = self.subscriptions.changing.lock().await;
        self.own_subscription(session, id)?;
        let mut documents = vec![document(kinds::SUBSCRIPTION, id, None)];
        let waiting = self.subscriptions.waiting.lock().remove(id);
        documents.extend(waiting.iter().map(|one| document(kinds::OUTBOX, &one.name, None)));
        let effects = crate::Effects {
            documents,
            detail: map([("unsubscribed", Value::from(id))]),
            ..crate::Effects::default()
        };
        self.commit_act(session, "subscription.delete", effects, Vec::new()).await?;
        self.subscriptions.all.write().remove(id);
        // What was queued meanwhile is nobody's any more, whoever takes the same id next.
        let late = self.subscriptions.waiting.lock().remove(id);
        self.delete_waiting(late).await
    }

    /// The session's own subscriptions as the standard shows them, with how delivery went.
    pub fn subscriptions(&self, session: &Session, context: &Context) -> Vec<Value> {
        let all = self.subscriptions.all.read();
        let own = all.by_id.values().filter(|s| s.kept.owner == session.principal.number);
        own.map(|subscription| self.show_subscription(subscription, context)).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is none of one's own.
    pub fn subscription(
        &self,
        session: &Session,
        id: &str,
        context: &Context,
    ) -> Result<Value, HubError> {
        let own = self.own_subscription(session, id)?;
        Ok(self.show_subscription(&own, context))
    }

    /// Names are shown in the context of whoever asks.
    fn show_subscription(&self, subscription: &Compiled, context: &Context) -> Value {
        let own = self.context(&subscription.kept.context).unwrap_or_else(|_| Context::core());
        let rename = |value: &Value| renamed(value, &own, context);
        let outcome = subscription.outcome.lock().clone();
        let mut entries = vec![("id".to_owned(), Value::from(subscription.kept.id.as_str()))];
        for (key, value) in subscription.kept.body.entries() {
            let value = match (key.as_str(), value) {
                ("watchedAttributes", names) => rename(names),
                ("entities", Value::List(selectors)) => {
                    let one = |selector: &Value| with_members(selector, &["type"], &rename);
                    Value::List(selectors.iter().map(one).collect())
                }
                ("geoQ", geo) => with_members(geo, &["geoproperty"], &rename),
                ("notification", inner) => {
                    let mut inner = with_members(inner, &["attributes", "pick", "omit"], &rename)
                        .entries()
                        .to_vec();
                    let mut add = |key: &str, time: Option<Time>| {
                        inner.extend(
                            time.map(|time| (key.to_owned(), Value::from(time.to_string()))),
                        );
                    };
                    add("lastNotification", outcome.last_notification);
                    add("lastSuccess", outcome.last_success);
                    add("lastFailure", outcome.last_failure);
                    let counts = [
                        ("timesSent", outcome.sent),
                        ("timesFailed", outcome.failed),
                        ("timesLost", outcome.lost),
                    ];
                    for (key, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                        inner.push((key.into(), Value::Integer(count.cast_signed())));
                    }
                    if outcome.last_notification.is_some() {
                        let status = if outcome.failing { "failed" } else { "ok" };
                        inner.push(("status".into(), Value::from(status)));
                    }
                    Value::Map(inner)
                }
                (_, other) => other.clone(),
            };
            entries.push((key.clone(), value));
        }
        let status = match (subscription.active, subscription.expires) {
            (_, Some(expires)) if expires <= self.now() => "expired",
            (true, _) if self.owner_session(subscription).is_some() => "active",
            _ => "paused",
        };
        if subscription.kept.body.get("notificationTrigger").is_none()
            && subscription.interval_s.is_none()
        {
            let usual = ["attributeCreated", "attributeUpdated"].map(Value::from);
            entries.push(("notificationTrigger".into(), Value::List(usual.to_vec())));
        }
        entries.push(("status".into(), Value::from(status)));
        Value::Map(entries)
    }

    /// The owner's session for deciding; none when the owner is gone.
    fn owner_session(&self, subscription: &Compiled) -> Option<Session> {
        let owner = self.state.principal(subscription.kept.owner)?;
        let live = owner.status == Status::Active
            && (owner.kind != model::Kind::App
                || self.state.has_credential(owner.number, self.now()));
        live.then(|| {
            let mut session = self.imagine(owner, subscription.kept.purpose.as_deref());
            session.assurance = 1;
            session.zone = subscription.kept.zone.unwrap_or(session.zone);
            session
        })
    }
}
