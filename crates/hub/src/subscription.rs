//! Subscriptions (ETSI GS CIM 009 clauses 5.2.12 and 5.8): what was asked for, matching in the
//! committer, and delivery at least once and in order, from notifications that lie in the store.

mod delivery;
mod matching;
mod queues;

pub use matching::{Changed, Matched};
use queues::Queued;

use crate::job::{Job, WriteJob};
use crate::kept::{document, from_json, to_json};
use crate::recorder::map;
use crate::{Hub, HubError, Join, kinds};
use courier::Courier;
use model::{Entity, Name, Session, Status, Time, Value};
use ngsild::{Context, Filter, GeoQuery, Invalid, Members, Options, Representation, TypeSelection};
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
    /// Nobody else makes, changes or ends one meanwhile.
    pub async fn alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

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

fn names(value: Option<&Value>, context: &Context) -> Vec<Name> {
    let items = value.map(Value::items).unwrap_or_default();
    items.iter().filter_map(Value::as_text).map(|term| context.expand(term)).collect()
}

/// What a subscription may ask for by the standard and does not get here is refused in plain words,
/// never left out in silence.
fn check_offered(body: &Value) -> Result<(), HubError> {
    let of_body = ["scopeQ", "temporalQ", "csf", "lang"];
    match of_body.iter().find(|key| body.get(key).is_some()) {
        Some(key) => Err(HubError::NotOffered(format!("`{key}` in a subscription"))),
        None => Ok(()),
    }
}

/// How often something is told: often enough for people, and not a load in itself.
fn interval(body: &Value) -> Result<Option<f64>, Invalid> {
    let fits = |value: &Value| value.as_number().filter(|seconds| *seconds >= LEAST_INTERVAL_S);
    let wrong = || {
        let what = format!("is no number of seconds from {LEAST_INTERVAL_S}");
        Invalid::data("/timeInterval", what)
    };
    body.get("timeInterval").map(|value| fits(value).ok_or_else(wrong)).transpose()
}

/// Which members of an entity a notification has.
fn members_of(
    notification: &Value,
    instances: &[Value],
    context: &Context,
) -> Result<Members, Invalid> {
    let terms = |key: &str| -> String {
        let items = notification.get(key).map(Value::items).unwrap_or_default();
        items.iter().filter_map(Value::as_text).collect::<Vec<_>>().join(",")
    };
    let lists = [terms("attributes"), terms("pick"), terms("omit")];
    let given = |at: usize| Some(lists[at].as_str()).filter(|list| !list.is_empty());
    let ids = instances.iter().filter_map(Value::as_text).collect::<Vec<_>>();
    Members::parse((given(0), given(1), given(2)), &ids, context)
}

/// `written` is what notifications are written in, `context` what the subscription is.
fn compile(
    kept: Subscription,
    context: &Arc<Context>,
    written: Arc<Context>,
) -> Result<Compiled, HubError> {
    let body = &kept.body;
    let missing = |place: &str, what: &str| Invalid::data(place, what);
    if body.get("type").and_then(Value::as_text) != Some("Subscription") {
        return Err(missing("/type", "is not `Subscription`").into());
    }
    let notification =
        body.get("notification").ok_or_else(|| missing("/notification", "is missing"))?;
    check_offered(body)?;
    ngsild::check_texts(body, "", &["q", "expiresAt", "jsonldContext"])?;
    if body.get("isActive").is_some_and(|value| !matches!(value, Value::Bool(_))) {
        return Err(missing("/isActive", "is neither true nor false").into());
    }
    let watched = body.get("watchedAttributes").map(Value::items).unwrap_or_default();
    ngsild::check_all_texts(watched, "/watchedAttributes")?;
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
    let receiver_info: Vec<(String, String)> = receiver_info.iter().filter_map(pair).collect();
    // They would lead elsewhere behind an address that is allowed, or say what the hub says.
    let own = ["host", "content-length", "transfer-encoding", "connection", "content-type"];
    if let Some((key, _)) =
        receiver_info.iter().find(|(key, _)| own.iter().any(|one| key.eq_ignore_ascii_case(one)))
    {
        let what = format!("`{key}` is set by the hub");
        return Err(missing("/notification/endpoint/receiverInfo", &what).into());
    }
    let watched = names(body.get("watchedAttributes"), context);
    let base = Filter {
        q: match body.get("q").and_then(Value::as_text) {
            Some(q) => Some(ngsild::parse_q(q, context)?),
            None => None,
        },
        geo: body.get("geoQ").map(|geo| parse_geo(geo, context)).transpose()?,
        ..Filter::default()
    };
    let filters = match body.get("entities") {
        None if watched.is_empty() => {
            return Err(missing("/entities", "is missing, and so is `watchedAttributes`").into());
        }
        None => vec![base],
        Some(selectors) if selectors.items().len() > ngsild::MAX_SELECTORS => {
            let what = format!("has more than {} selectors", ngsild::MAX_SELECTORS);
            return Err(Invalid::data("/entities", what).into());
        }
        Some(selectors) => {
            let compiled =
                selectors.items().iter().map(|selector| selector_filter(selector, &base, context));
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
    let interval_s = interval(body)?;
    if interval_s.is_some() && (!watched.is_empty() || body.get("throttling").is_some()) {
        let what = "goes with neither `watchedAttributes` nor `throttling`";
        return Err(missing("/timeInterval", what).into());
    }
    let instances = body.get("datasetId").map(Value::items).unwrap_or_default();
    Ok(Compiled {
        filters,
        watched,
        triggers: Triggers::parse(body.get("notificationTrigger"))?,
        show_changes: notification.get("showChanges") == Some(&Value::Bool(true)),
        join: join_of(notification)?,
        interval_s,
        options: Options {
            representation,
            members: members_of(notification, instances, context)?,
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
        context: written,
        kept,
    })
}

fn join_of(notification: &Value) -> Result<Option<Join>, Invalid> {
    let text = |key: &str| notification.get(key).and_then(Value::as_text);
    let levels = notification.get("joinLevel").and_then(Value::as_number);
    Join::parse(text("join"), levels.map(|levels| levels.to_string()).as_deref(), &[])
}

/// Positions in the place that a subscription asks about.
fn positions_of(body: &Value) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::List(items) if items.iter().all(|one| one.as_number().is_some()) => 1,
            Value::List(items) => items.iter().map(of).sum(),
            // As text: two commas or brackets a position at least.
            Value::Text(text) => text.matches('[').count(),
            _ => 0,
        }
    }
    body.get("geoQ").and_then(|geo| geo.get("coordinates")).map_or(0, of)
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
    ngsild::check_texts(selector, "/entities", &["id", "type", "idPattern"])?;
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
        self.check_share(session, &body)?;
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

    /// Whether one more, with such a `geoQ`, is within the share of a principal.
    fn check_share(&self, session: &Session, body: &Value) -> Result<(), HubError> {
        let limits = &self.options.limits;
        let all = self.subscriptions.all.read();
        let own = all.by_id.values().filter(|one| one.kept.owner == session.principal.number);
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
                    let failing = outcome.last_failure > outcome.last_success;
                    if outcome.last_notification.is_some() {
                        let status = if failing { "failed" } else { "ok" };
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
