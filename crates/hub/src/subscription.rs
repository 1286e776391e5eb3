//! Subscriptions (ETSI GS CIM 009 clauses 5.2.12 and 5.8): what was asked for, matching in the
//! committer, and delivery at least once and in order, from notifications that lie in the store.

use crate::committer::{Job, WriteJob};
use crate::recorder::{map, record};
use crate::state::{from_json, to_json};
use crate::{Counter, Hub, HubError, kinds};
use courier::Courier;
use model::{Action, Entity, Name, Record, Sensitivity, Session, Status, Time, Value, Verb};
use ngsild::{Context, Filter, GeoQuery, Invalid, Members, Options, Representation, TypeSelection};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{Document, Store, Under};

/// A subscription as kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscription {
    pub id: String,
    /// Surrogate of whoever subscribed: deliveries are decided as this principal.
    pub owner: u64,
    pub purpose: Option<String>,
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
    options: Options,
    context: Arc<Context>,
    uri: String,
    accept: String,
    receiver_info: Vec<(String, String)>,
    active: bool,
    expires: Option<Time>,
    throttling_s: f64,
    outcome: Mutex<Outcome>,
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
}

/// A notification on its way, as kept.
#[derive(Serialize, Deserialize)]
struct Waiting {
    subscription: String,
    time: Time,
    /// The idempotency key.
    id: String,
    body: String,
}

/// All subscriptions, and which of them an entity can concern: by the ids and types they name.
#[derive(Default)]
struct All {
    by_id: BTreeMap<String, Arc<Compiled>>,
    of_entity: HashMap<String, Vec<Arc<Compiled>>>,
    of_type: HashMap<Name, Vec<Arc<Compiled>>>,
    of_any: Vec<Arc<Compiled>>,
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
    /// Names of waiting notifications by subscription, in order.
    waiting: Mutex<HashMap<String, std::collections::VecDeque<(String, u32)>>>,
    wake: tokio::sync::Notify,
    sequence: std::sync::atomic::AtomicU64,
}

/// A changed entity as the committer hands it over: dataset, state after, attributes set.
pub type Changed<'a> = (u32, Option<Arc<Entity>>, &'a [Name]);

/// What changes give rise to: belongs to their commit, all but the queue, which comes after it.
#[derive(Default)]
pub struct Matched {
    pub documents: Vec<Document>,
    pub records: Vec<Record>,
    /// Subscription and name of each notification.
    pub queued: Vec<(String, String)>,
}

impl Subscriptions {
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
            let compiled = compile(kept, Context::core())?;
            subscriptions.all.write().insert(id, Arc::new(compiled));
        }
        for (name, body) in store.documents(kinds::OUTBOX) {
            let waiting: Waiting = from_json(&body)?;
            let sequence = name.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            subscriptions.sequence.fetch_max(sequence + 1, Ordering::Relaxed);
            subscriptions
                .waiting
                .lock()
                .entry(waiting.subscription)
                .or_default()
                .push_back((name, 0));
        }
        subscriptions.wake.notify_one();
        Ok(subscriptions)
    }
}

fn names(value: Option<&Value>, context: &Context) -> Vec<Name> {
    let items = value.map(Value::items).unwrap_or_default();
    items.iter().filter_map(Value::as_text).map(|term| context.expand(term)).collect()
}

/// What a subscription may ask for by the standard and does not get here is refused in plain words,
/// never left out in silence.
fn check_offered(body: &Value, notification: &Value) -> Result<(), HubError> {
    let of_body = ["timeInterval", "scopeQ", "temporalQ", "csf", "jsonldContext", "lang"];
    let of_notification = ["join", "joinLevel"];
    let asked = of_body.iter().find(|key| body.get(key).is_some());
    let asked = asked.or(of_notification.iter().find(|key| notification.get(key).is_some()));
    if let Some(key) = asked {
        return Err(HubError::NotOffered(format!("`{key}` in a subscription")));
    }
    if notification.get("showChanges") == Some(&Value::Bool(true)) {
        return Err(HubError::NotOffered("`showChanges` in a subscription".into()));
    }
    let triggers = body.get("notificationTrigger").map(Value::items).unwrap_or_default();
    let usual = |trigger: &Value| {
        matches!(trigger.as_text(), Some("attributeCreated" | "attributeUpdated"))
    };
    let as_usual = triggers.len() == 2 && triggers.iter().all(usual);
    if !triggers.is_empty() && !as_usual {
        let what = "a `notificationTrigger` other than attributeCreated with attributeUpdated";
        return Err(HubError::NotOffered(what.into()));
    }
    Ok(())
}

/// Which members of an entity a notification has.
fn members_of(notification: &Value, context: &Context) -> Result<Members, Invalid> {
    let terms = |key: &str| -> Vec<&str> {
        let items = notification.get(key).map(Value::items).unwrap_or_default();
        items.iter().filter_map(Value::as_text).collect()
    };
    let (pick, omit) = (terms("pick"), terms("omit"));
    if pick.is_empty() && omit.is_empty() {
        return Ok(Members::only(names(notification.get("attributes"), context)));
    }
    Members::parse((&terms("attributes"), &pick, &omit), &[], context)
}

fn compile(kept: Subscription, context: Arc<Context>) -> Result<Compiled, HubError> {
    let body = &kept.body;
    let missing = |place: &str, what: &str| Invalid::data(place, what);
    if body.get("type").and_then(Value::as_text) != Some("Subscription") {
        return Err(missing("/type", "is not `Subscription`").into());
    }
    let notification =
        body.get("notification").ok_or_else(|| missing("/notification", "is missing"))?;
    check_offered(body, notification)?;
    let endpoint = notification.get("endpoint");
    let endpoint = endpoint.ok_or_else(|| missing("/notification/endpoint", "is missing"))?;
    let uri = endpoint.get("uri").and_then(Value::as_text);
    let uri = uri.ok_or_else(|| missing("/notification/endpoint/uri", "is missing"))?.to_owned();
    if uri.starts_with("mqtt://") || uri.starts_with("mqtts://") {
        return Err(HubError::NotOffered("notifying over MQTT".into()));
    }
    if !uri.starts_with("http://") && !uri.starts_with("https://") {
        return Err(missing("/notification/endpoint/uri", "is no http or https URL").into());
    }
    let accept = endpoint.get("accept").and_then(Value::as_text).unwrap_or("application/json");
    let pair = |item: &Value| {
        Some((item.get("key")?.as_text()?.to_owned(), item.get("value")?.as_text()?.to_owned()))
    };
    let receiver_info = endpoint.get("receiverInfo").map(Value::items).unwrap_or_default();
    let receiver_info = receiver_info.iter().filter_map(pair).collect();
    let watched = names(body.get("watchedAttributes"), &context);
    let base = Filter {
        q: match body.get("q").and_then(Value::as_text) {
            Some(q) => Some(ngsild::parse_q(q, &context)?),
            None => None,
        },
        geo: body.get("geoQ").map(|geo| parse_geo(geo, &context)).transpose()?,
        ..Filter::default()
    };
    let filters = match body.get("entities") {
        None if watched.is_empty() => {
            return Err(missing("/entities", "is missing, and so is `watchedAttributes`").into());
        }
        None => vec![base],
        Some(selectors) => {
            let compiled =
                selectors.items().iter().map(|selector| selector_filter(selector, &base, &context));
            compiled.collect::<Result<_, _>>()?
        }
    };
    let representation = match notification.get("format").and_then(Value::as_text) {
        None | Some("normalized") => Representation::Normalized,
        Some("concise") => Representation::Concise,
        Some("simplified" | "keyValues") => Representation::Simplified,
        Some(other) => {
            let what = format!("`{other}` is none of: normalized, concise, simplified");
            return Err(missing("/notification/format", &what).into());
        }
    };
    let expires = match body.get("expiresAt").and_then(Value::as_text) {
        Some(text) => {
            let time = Time::parse(text);
            Some(time.map_err(|error| missing("/expiresAt", &error.to_string()))?)
        }
        None => None,
    };
    let throttling_s = body.get("throttling").map_or(Some(0.0), Value::as_number);
    let throttling_s = throttling_s.filter(|s| *s >= 0.0);
    Ok(Compiled {
        filters,
        watched,
        options: Options {
            representation,
            members: members_of(notification, &context)?,
            system: notification.get("sysAttrs") == Some(&Value::Bool(true)),
            ..Options::default()
        },
        uri,
        accept: accept.to_owned(),
        receiver_info,
        active: body.get("isActive") != Some(&Value::Bool(false)),
        expires,
        throttling_s: throttling_s
            .ok_or_else(|| missing("/throttling", "is no number of seconds"))?,
        outcome: Mutex::default(),
        context,
        kept,
    })
}

fn parse_geo(geo: &Value, context: &Context) -> Result<GeoQuery, Invalid> {
    let text = |key| geo.get(key).and_then(Value::as_text);
    let value = map([
        ("type", Value::from(text("geometry").unwrap_or_default())),
        (
            "coordinates",
            match geo.get("coordinates") {
                Some(Value::Text(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
                Some(other) => other.clone(),
                None => Value::Null,
            },
        ),
    ]);
    let property = context.expand(text("geoproperty").unwrap_or("location"));
    GeoQuery::of(text("georel").unwrap_or_default(), &value, property)
}

fn selector_filter(selector: &Value, base: &Filter, context: &Context) -> Result<Filter, HubError> {
    let text = |key| selector.get(key).and_then(Value::as_text);
    let mut filter = base.clone();
    let types = text("type").ok_or_else(|| Invalid::data("/entities/type", "is missing"))?;
    if types != "*" {
        filter.types = Some(TypeSelection::parse(types, context)?);
    }
    if let Some(id) = text("id") {
        ngsild::check_uri(id, "/entities/id")?;
        filter.ids = vec![id.to_owned()];
    }
    if let Some(pattern) = text("idPattern") {
        filter.id_pattern = Some(Filter::parse_id_pattern(pattern)?);
    }
    Ok(filter)
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
            return Err(HubError::NotOffered("subscribing as a device".into()));
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
        if self.subscriptions.all.read().by_id.contains_key(&id) {
            return Err(HubError::Exists("subscription", id));
        }
        self.keep_subscription(session, id, body, context_source, courier).await
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
            created: self.now(),
            body: Value::Map(entries.cloned().collect()),
            context: context.clone(),
        };
        let compiled = compile(kept.clone(), self.context(&context)?)?;
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

    /// Compiles what was loaded under the contexts it was made with, once the hub knows them. A
    /// context that is not known any more leaves its subscriptions on the core context.
    pub(crate) fn recompile_subscriptions(&self) {
        let mut all = self.subscriptions.all.write();
        let loaded: Vec<Arc<Compiled>> = all.by_id.values().cloned().collect();
        for compiled in loaded {
            let again = self.context(&compiled.kept.context);
            let again = again.and_then(|context| compile(compiled.kept.clone(), context));
            match again {
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
        let old = self.own_subscription(session, id)?;
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
        self.own_subscription(session, id)?;
        let mut documents = vec![crate::govern::document(kinds::SUBSCRIPTION, id, None)];
        let waiting = self.subscriptions.waiting.lock().remove(id).unwrap_or_default();
        documents.extend(
            waiting.iter().map(|(name, _)| crate::govern::document(kinds::OUTBOX, name, None)),
        );
        let effects = crate::Effects {
            documents,
            detail: map([("unsubscribed", Value::from(id))]),
            ..crate::Effects::default()
        };
        self.commit_act(session, "subscription.delete", effects, Vec::new()).await?;
        self.subscriptions.all.write().remove(id);
        Ok(())
    }

    /// The session's own subscriptions as the standard shows them, with how delivery went.
    pub fn subscriptions(&self, session: &Session) -> Vec<Value> {
        let all = self.subscriptions.all.read();
        let own = all.by_id.values().filter(|s| s.kept.owner == session.principal.number);
        own.map(|subscription| self.show_subscription(subscription)).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// When there is none of one's own.
    pub fn subscription(&self, session: &Session, id: &str) -> Result<Value, HubError> {
        let own = self.own_subscription(session, id)?;
        Ok(self.show_subscription(&own))
    }

    fn show_subscription(&self, subscription: &Compiled) -> Value {
        let outcome = subscription.outcome.lock().clone();
        let mut entries = vec![("id".to_owned(), Value::from(subscription.kept.id.as_str()))];
        for (key, value) in subscription.kept.body.entries() {
            let value = match (key.as_str(), value) {
                ("notification", Value::Map(inner)) => {
                    let mut inner = inner.clone();
                    let mut add = |key: &str, time: Option<Time>| {
                        inner.extend(
                            time.map(|time| (key.to_owned(), Value::from(time.to_string()))),
                        );
                    };
                    add("lastNotification", outcome.last_notification);
                    add("lastSuccess", outcome.last_success);
                    add("lastFailure", outcome.last_failure);
                    inner.push(("timesSent".into(), Value::Integer(outcome.sent.cast_signed())));
                    inner
                        .push(("timesFailed".into(), Value::Integer(outcome.failed.cast_signed())));
                    inner.push(("timesLost".into(), Value::Integer(outcome.lost.cast_signed())));
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
        entries.push(("status".into(), Value::from(status)));
        Value::Map(entries)
    }

    /// The owner's session for deciding; none when the owner is gone.
    fn owner_session(&self, subscription: &Compiled) -> Option<Session> {
        let owner = self.state.principal(subscription.kept.owner)?;
        let live = owner.status == Status::Active
            && (owner.kind != model::Kind::App || self.state.has_credential(owner.number));
        live.then(|| {
            let mut session = self.imagine(owner, subscription.kept.purpose.as_deref());
            session.assurance = 1;
            session
        })
    }

    /// Notifications that the changes of a group give rise to.
    pub(crate) fn match_subscriptions<'a>(
        &self,
        changed: impl Iterator<Item = Changed<'a>>,
        now: Time,
    ) -> Matched {
        let mut matched = Matched::default();
        if self.subscriptions.all.read().by_id.is_empty() {
            return matched;
        }
        let snapshot = self.state.snapshot();
        for (number, after, touched) in changed {
            let (Some(entity), Some(dataset)) = (after, snapshot.by_number(number)) else {
                continue;
            };
            let concerned = self.subscriptions.all.read().concerned(&entity);
            for subscription in &concerned {
                let Some((owner, seen, level)) =
                    self.match_one(subscription, number, dataset, &entity, touched, now)
                else {
                    continue;
                };
                self.notification(subscription, &seen, number, now, &mut matched);
                if level >= Sensitivity::Confidential {
                    let detail = map([("delivered", Value::Integer(1))]);
                    let mut made = record(&owner, Verb::Watch, &dataset.id, now, detail);
                    made.policy_version = snapshot.version;
                    matched.records.push(made);
                }
            }
        }
        matched
    }

    /// Whether a changed entity concerns a subscription: as whom it is seen, what, how sensitive.
    fn match_one(
        &self,
        subscription: &Compiled,
        number: u32,
        dataset: &Arc<model::Dataset>,
        entity: &Arc<Entity>,
        touched: &[Name],
        now: Time,
    ) -> Option<(Session, Arc<Entity>, Sensitivity)> {
        let typed = |f: &Filter| f.types.as_ref().is_none_or(|t| t.matches(&entity.types));
        let watched = &subscription.watched;
        let ended = subscription.expires.is_some_and(|expires| expires <= now);
        if ended || !subscription.active || !subscription.filters.iter().any(typed) {
            return None;
        }
        let owner = self.owner_session(subscription)?;
        let verdict = self.state.verdict(&owner, Action::Read, number, dataset);
        if !verdict.allowed || verdict.lens.aggregate_only {
            return None;
        }
        // A hidden attribute does not exist: its changes tell nothing.
        let shown = |name: &&Name| verdict.lens.sight(name).0 != model::Sight::Hidden;
        let mut told = touched.iter().filter(shown);
        if !told.any(|name| watched.is_empty() || watched.contains(name)) {
            return None;
        }
        let seen =
            if verdict.clear { entity.clone() } else { Arc::new(verdict.lens.apply(entity)) };
        let matches = subscription.filters.iter().any(|filter| filter.matches(&seen));
        let level = crate::seen::level_of(&verdict.lens, seen.attributes.iter().map(|a| &a.name));
        matches.then_some((owner, seen, level))
    }

    /// Queues notifications that are committed.
    pub(crate) fn enqueue(&self, queued: Vec<(String, String)>) {
        if queued.is_empty() {
            return;
        }
        let mut queues = self.subscriptions.waiting.lock();
        for (id, name) in queued {
            queues.entry(id).or_default().push_back((name, 0));
        }
        drop(queues);
        self.subscriptions.wake.notify_one();
    }

    /// Renders one notification into what belongs to the commit.
    fn notification(
        &self,
        subscription: &Compiled,
        entity: &Entity,
        dataset: u32,
        now: Time,
        matched: &mut Matched,
    ) {
        let id = &subscription.kept.id;
        {
            let mut outcome = subscription.outcome.lock();
            let since =
                outcome.last_matched.map_or(f64::INFINITY, |last| (now.0 - last.0) as f64 / 1e6);
            if since < subscription.throttling_s {
                return;
            }
            outcome.last_matched = Some(now);
        }
        let sequence = self.subscriptions.sequence.fetch_add(1, Ordering::Relaxed);
        let notification_id = format!("urn:ngsi-ld:Notification:{}-{sequence}", now.0);
        let mut body = format!(
            r#"{{"id":"{notification_id}","type":"Notification","subscriptionId":{},"notifiedAt":"{now}","data":["#,
            String::from_utf8_lossy(&to_json(&Value::from(id.as_str())))
        )
        .into_bytes();
        ngsild::render_entity(&mut body, entity, &subscription.context, &subscription.options);
        body.push(b']');
        if subscription.accept == "application/ld+json" {
            body.extend_from_slice(b",\"@context\":");
            let source = match subscription.context.source() {
                Value::Null => Value::from(ngsild::CORE_CONTEXT),
                other => other.clone(),
            };
            body.extend(to_json(&source));
        }
        body.push(b'}');
        let waiting = Waiting {
            subscription: id.clone(),
            time: now,
            id: notification_id,
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let name = format!("{id}/{sequence:020}");
        let mut queues = self.subscriptions.waiting.lock();
        let queue = queues.entry(id.clone()).or_default();
        if queue.len() >= self.options.limits.outbox
            && let Some((oldest, _)) = queue.pop_front()
        {
            matched.documents.push(crate::govern::document(kinds::OUTBOX, &oldest, None));
            subscription.outcome.lock().lost += 1;
            self.counters.add(Counter::NotificationsLost, 1);
        }
        drop(queues);
        let under = Under::Dataset(dataset);
        let body = Some(to_json(&waiting));
        matched.documents.push(Document { kind: kinds::OUTBOX, name: name.clone(), under, body });
        matched.queued.push((id.clone(), name));
    }

    /// Delivers waiting notifications until the hub stops: one at a time and in order for each
    /// subscription, many subscriptions at once.
    pub async fn deliver(self: Arc<Hub>, courier: Arc<Courier>) {
        let mut busy: HashMap<String, tokio::task::JoinHandle<()>> = HashMap::new();
        while !self.stopping.load(Ordering::Acquire) {
            let woken = self.subscriptions.wake.notified();
            drop(tokio::time::timeout(Duration::from_millis(500), woken).await);
            busy.retain(|_, task| !task.is_finished());
            let queued: Vec<String> = {
                let queues = self.subscriptions.waiting.lock();
                queues
                    .iter()
                    .filter(|(_, queue)| !queue.is_empty())
                    .map(|(id, _)| id.clone())
                    .collect()
            };
            for id in queued {
                if !busy.contains_key(&id) {
                    let (hub, courier) = (self.clone(), courier.clone());
                    let key = id.clone();
                    busy.insert(
                        key,
                        tokio::spawn(async move { hub.deliver_to(&id, &courier).await }),
                    );
                }
            }
        }
    }

    async fn deliver_to(&self, id: &str, courier: &Courier) {
        loop {
            let next =
                self.subscriptions.waiting.lock().get(id).and_then(|queue| queue.front().cloned());
            let Some((name, tries)) = next else { return };
            let subscription = self.subscriptions.all.read().by_id.get(id).cloned();
            let Some(subscription) = subscription else { return };
            if self.owner_session(&subscription).is_none() {
                // Paused: whoever asked for it may not have it now.
                return;
            }
            let Some(body) = self.store.document(kinds::OUTBOX, &name) else {
                self.drop_waiting(id, &name);
                continue;
            };
            let Ok(waiting) = from_json::<Waiting>(&body) else { return };
            let mut headers = subscription.receiver_info.clone();
            headers.push(("Content-Type".into(), subscription.accept.clone()));
            headers.push(("Idempotency-Key".into(), waiting.id.clone()));
            let now = self.now();
            let sent = courier.post(&subscription.uri, &headers, waiting.body.into_bytes()).await;
            let mut outcome = subscription.outcome.lock().clone();
            outcome.last_notification = Some(now);
            let expired =
                now.0 - waiting.time.0 > self.options.limits.outbox_keep as i64 * 1_000_000;
            match sent {
                Ok(()) => {
                    outcome.sent += 1;
                    outcome.last_success = Some(now);
                    self.counters.add(Counter::Notifications, 1);
                }
                Err(_) => {
                    outcome.failed += 1;
                    outcome.last_failure = Some(now);
                    if expired {
                        outcome.lost += 1;
                        self.counters.add(Counter::NotificationsLost, 1);
                    }
                }
            }
            let failed = sent.is_err();
            {
                let mut held = subscription.outcome.lock();
                outcome.last_matched = held.last_matched;
                *held = outcome;
            }
            if failed && !expired {
                self.count_try(id, &name);
                let wait_ms = 250u64 << tries.min(7);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                if self.stopping.load(Ordering::Acquire) {
                    return;
                }
                continue;
            }
            self.drop_waiting(id, &name);
            let documents = vec![crate::govern::document(kinds::OUTBOX, &name, None)];
            let job =
                self.submit(|reply| Job::Write(WriteJob { documents, ..WriteJob::new(1, reply) }));
            drop(job.await);
        }
    }

    fn count_try(&self, id: &str, name: &str) {
        if let Some((front, tries)) =
            self.subscriptions.waiting.lock().get_mut(id).and_then(|q| q.front_mut())
            && front == name
        {
            *tries += 1;
        }
    }

    fn drop_waiting(&self, id: &str, name: &str) {
        let mut queues = self.subscriptions.waiting.lock();
        if let Some(queue) = queues.get_mut(id) {
            queue.retain(|(found, _)| found != name);
            if queue.is_empty() {
                queues.remove(id);
            }
        }
    }
}
