//! Subscriptions as they are asked for, read into what is matched (clause 5.2.12).

use super::{Compiled, LEAST_INTERVAL_S, Subscription, Triggers};
use crate::recorder::map;
use crate::{HubError, Join};
use model::{Name, Time, Value};
use ngsild::{Context, Filter, GeoQuery, Invalid, Members, Options, Representation, TypeSelection};
use parking_lot::Mutex;
use std::sync::Arc;

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
pub(super) fn compile(
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
pub(super) fn positions_of(body: &Value) -> usize {
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
