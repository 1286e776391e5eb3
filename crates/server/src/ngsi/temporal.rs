//! Histories: temporal retrieve and query, aggregated and simplified (clauses 5.7.3, 5.7.4, 6.18).

use super::answer::{FILTER_PARAMS, Reply, filter_of, filter_of_body, one};
use super::entities::{form_of, page_headers};
use crate::call::Call;
use crate::problem::Problem;
use axum::http::StatusCode;
use axum::response::Response;
use hub::{HistoryAnswer, HistoryQuery, SeriesAnswer};
use model::{Change, Entity, Instance, Name, Value};
use ngsild::{
    Aggregation, Context, Filter, Invalid, Members, TemporalQuery, parse_entity, parse_fragment,
    render_value, write_text,
};

type Handled = Result<Response, Problem>;

/// What queries over histories take beside [`FILTER_PARAMS`].
const PARAMS: &[&str] = &[
    "timerel",
    "timeAt",
    "endTimeAt",
    "timeproperty",
    "lastN",
    "aggrMethods",
    "aggrPeriodDuration",
    "pick",
    "omit",
    "limit",
    "offset",
    "count",
    "options",
    "format",
    "lang",
    "local",
    "datasetId",
];

fn words(call: &Call) -> Vec<&str> {
    call.params.list("options").into_iter().chain(call.params.get("format")).collect()
}

fn history_query(call: &Call, context: &Context, filter: Filter) -> Result<HistoryQuery, Problem> {
    let params = &call.params;
    match params.get("timeproperty") {
        None | Some("observedAt") => {}
        Some(other @ ("createdAt" | "modifiedAt" | "deletedAt")) => {
            return Err(Problem::not_offered(format!(
                "`timeproperty={other}` is not offered: histories are kept by `observedAt`"
            )));
        }
        Some(other) => {
            let what =
                format!("`{other}` is none of: observedAt, createdAt, modifiedAt, deletedAt");
            return Err(Invalid::data("?timeproperty", what).into());
        }
    }
    let time = TemporalQuery::parse(
        params.get("timerel"),
        params.get("timeAt"),
        params.get("endTimeAt"),
        params.get("lastN"),
    )?;
    let aggregated = words(call).contains(&"aggregatedValues");
    let aggregation = match (aggregated, params.get("aggrMethods")) {
        (true, None) => {
            return Err(
                Invalid::data("?aggrMethods", "is missing beside `aggregatedValues`").into()
            );
        }
        (true, Some(methods)) => {
            Some(Aggregation::parse(methods, params.get("aggrPeriodDuration"))?)
        }
        (false, Some(_)) => {
            return Err(
                Invalid::data("?aggrMethods", "goes with `options=aggregatedValues`").into()
            );
        }
        (false, None) => None,
    };
    let members = Members::parse((params.get("attrs"), params.get("pick"), None), &[], context)?;
    Ok(HistoryQuery {
        filter,
        time,
        attributes: members.attributes().to_vec(),
        aggregation,
        offset: params.number("offset")?.unwrap_or(0),
        limit: params.number("limit")?,
        count: params.flag("count")? || params.list("options").contains(&"count"),
    })
}

pub async fn retrieve(call: Call) -> Handled {
    call.params.only_of(&[FILTER_PARAMS, PARAMS])?;
    let id = call.path("id");
    ngsild::check_uri(&id, "{id}")?;
    let (context, _) = call.context(None)?;
    let filter = Filter { ids: vec![id], ..Filter::default() };
    let query = history_query(&call, &context, filter)?;
    let reply = Reply::of(&call, context)?.without_geojson()?;
    let answer = call.app.hub.read_history(&call.session, &query, true).await?;
    let mut body = Vec::new();
    let members = &reply.options.members;
    for (frame, attributes) in &answer.entities {
        let some = attributes.iter().any(|(name, _)| members.wants(name));
        if !some && !members.is_all() {
            let what = format!("`{}` has none of the histories asked for", frame.id);
            return Err(Problem::not_found(what));
        }
        render(&mut body, &reply, &call, frame, attributes)?;
    }
    Ok(respond(&reply, body, &answer))
}

pub async fn query(call: Call) -> Handled {
    call.params.only_of(&[FILTER_PARAMS, PARAMS])?;
    let (context, _) = call.context(None)?;
    let narrow = ["id", "type", "idPattern", "attrs", "q", "georel", "scopeQ"];
    let local = call.params.flag("local")?;
    if !local && !narrow.iter().any(|key| call.params.get(key).is_some()) {
        return Err(Invalid::data(
            "?",
            format!("is too broad: give at least one of {}", narrow.join(", ")),
        )
        .into());
    }
    if call.params.get("timerel").is_none() && call.params.get("lastN").is_none() {
        return Err(Invalid::data(
            "?timerel",
            "is missing; give before, after or between, or `lastN`",
        )
        .into());
    }
    let filter = filter_of(&call, &context)?;
    answer_list(&call, context, filter).await
}

pub async fn post_query(call: Call) -> Handled {
    call.params.only_of(&[FILTER_PARAMS, PARAMS])?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let filter = filter_of_body(&body, &context)?;
    let mut call = call;
    if let Some(temporal) = body.get("temporalQ") {
        for (key, value) in temporal.entries() {
            let text = match value {
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                _ => continue,
            };
            call.params = crate::params::Params::parse(&call.params.with(key, &text))?;
        }
    }
    answer_list(&call, context, filter).await
}

async fn answer_list(call: &Call, context: std::sync::Arc<Context>, filter: Filter) -> Handled {
    let query = history_query(call, &context, filter)?;
    let reply = Reply::of(call, context)?.without_geojson()?;
    let answer = call.app.hub.read_history(&call.session, &query, false).await?;
    let mut body = vec![b'['];
    for (index, (frame, attributes)) in answer.entities.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        render(&mut body, &reply, call, frame, attributes)?;
    }
    body.push(b']');
    let mut response = respond(&reply, body, &answer);
    page_headers(&mut response, call, query.offset, query.limit, answer.count, answer.next);
    Ok(response)
}

fn respond(reply: &Reply, body: Vec<u8>, answer: &HistoryAnswer) -> Response {
    let mut response = reply.respond(body, answer.record);
    if answer.partial {
        // Clause 6.3.10: there is more than fits; the time has to be narrowed.
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn render(
    body: &mut Vec<u8>,
    reply: &Reply,
    call: &Call,
    frame: &Entity,
    attributes: &[(Name, SeriesAnswer)],
) -> Result<(), Problem> {
    let words = words(call);
    let simplified =
        words.iter().any(|word| matches!(*word, "temporalValues" | "simplified" | "keyValues"));
    ngsild::render_entity(body, frame, &reply.context, &reply.options);
    body.pop();
    let members = &reply.options.members;
    for (name, answer) in attributes.iter().filter(|(name, _)| members.wants(name)) {
        if body.last() != Some(&b'{') {
            body.push(b',');
        }
        write_text(body, &reply.context.compact(name));
        body.push(b':');
        match answer {
            SeriesAnswer::Aggregated(methods) => render_aggregated(body, methods),
            SeriesAnswer::Instances(instances) if simplified => render_values(body, instances),
            SeriesAnswer::Instances(instances) => {
                body.push(b'[');
                let wanted = instances.iter().filter(|one| members.wants_instance(one));
                for (index, instance) in wanted.enumerate() {
                    if index > 0 {
                        body.push(b',');
                    }
                    ngsild::render_instance(body, instance, &reply.context, &reply.options);
                }
                body.push(b']');
            }
        }
        reply.check(body)?;
    }
    body.push(b'}');
    if reply.shape == super::Shape::LinkedJson {
        body.pop();
        reply.close(body);
    }
    Ok(())
}

/// `{"type": "Property", "values": [[value, time], ...]}` (clause 4.5.9).
fn render_values(body: &mut Vec<u8>, instances: &[Instance]) {
    let kind = instances.first().map_or("Property", |instance| match instance.content {
        model::Content::Relationship { .. } => "Relationship",
        model::Content::GeoProperty(_) => "GeoProperty",
        _ => "Property",
    });
    let member = if kind == "Relationship" { "objects" } else { "values" };
    body.extend_from_slice(format!("{{\"type\":\"{kind}\",\"{member}\":[").as_bytes());
    for (index, instance) in instances.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.push(b'[');
        render_value(body, &instance.value());
        body.push(b',');
        write_text(body, &instance.observed_at.unwrap_or(instance.modified).text());
        body.push(b']');
    }
    body.extend_from_slice(b"]}");
}

/// `{"type": "Property", "avg": [[value, start, end], ...]}` (clause 4.5.19).
fn render_aggregated(
    body: &mut Vec<u8>,
    methods: &[(ngsild::Aggregate, Vec<(Value, model::Time, model::Time)>)],
) {
    body.extend_from_slice(b"{\"type\":\"Property\"");
    for (method, periods) in methods {
        body.extend_from_slice(format!(",\"{}\":[", method.word()).as_bytes());
        for (index, (value, start, end)) in periods.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.push(b'[');
            render_value(body, value);
            body.push(b',');
            write_text(body, &start.text());
            body.push(b',');
            write_text(body, &end.text());
            body.push(b']');
        }
        body.push(b']');
    }
    body.push(b'}');
}

/// One change for each instance: a history is given as lists of instances.
fn histories(value: &Value, call: &Call, context: &Context) -> Result<Entity, Problem> {
    let attribute = |(key, value): &(String, Value)| {
        let own = matches!(key.as_str(), "id" | "@id" | "type" | "@type" | "scope" | "@context");
        let value = match value {
            Value::List(items) if !own => Value::List(
                items.iter().enumerate().map(|(index, item)| numbered(item, index)).collect(),
            ),
            other => other.clone(),
        };
        (key.clone(), value)
    };
    let numbered = Value::Map(value.entries().iter().map(attribute).collect());
    Ok(parse_fragment(&numbered, context, form_of(call))?)
}

const NUMBERED: &str = "urn:tanggul:instance:";

/// Instances of a history share their `datasetId`; a number keeps them apart while parsing.
fn numbered(item: &Value, index: usize) -> Value {
    match item {
        Value::Map(entries) => {
            let given = item.get("datasetId").and_then(Value::as_text).unwrap_or_default();
            let mut entries: Vec<_> =
                entries.iter().filter(|(key, _)| key != "datasetId").cloned().collect();
            entries.push(("datasetId".into(), Value::from(format!("{NUMBERED}{index}:{given}"))));
            Value::Map(entries)
        }
        other => other.clone(),
    }
}

/// The changes that add a history, oldest instance first.
fn remembering(entity: Entity) -> Result<Vec<Change>, Problem> {
    let mut singles: Vec<(Option<model::Time>, Entity)> = Vec::new();
    let frame = Entity { attributes: Vec::new(), ..entity.clone() };
    for attribute in entity.attributes {
        for mut instance in attribute.instances {
            instance.instance_id = instance.instance_id.and_then(|id| {
                match id.strip_prefix(NUMBERED).and_then(|rest| rest.split_once(':')) {
                    Some((_, given)) => (!given.is_empty()).then(|| given.to_owned()),
                    // One alone was not numbered.
                    None => Some(id),
                }
            });
            if instance.observed_at.is_none() {
                return Err(model::Refusal::Undated(attribute.name).into());
            }
            let single = model::Attribute {
                name: attribute.name.clone(),
                instances: vec![instance.clone()],
            };
            singles
                .push((instance.observed_at, Entity { attributes: vec![single], ..frame.clone() }));
        }
    }
    singles.sort_by_key(|(at, _)| *at);
    Ok(singles.into_iter().map(|(_, entity)| Change::Remember { entity }).collect())
}

async fn remember(call: &Call, entity: Entity, location: Option<String>) -> Handled {
    let count = entity.attributes.iter().map(|attribute| attribute.instances.len()).sum();
    call.app.hub.limits().check_batch(count)?;
    let changes = remembering(entity)?;
    if changes.is_empty() {
        return Err(Invalid::data("", "has no attribute whose history could be added").into());
    }
    let mut report = call.app.hub.write(&call.session, changes).await?;
    let refused =
        report.results.iter().position(|result| matches!(result, hub::ItemResult::Refused(_)));
    let keep = refused.unwrap_or(0);
    report.results = vec![report.results.swap_remove(keep)];
    one(report, location)
}

pub async fn create(call: Call) -> Handled {
    call.params.only(&["options", "format", "local"])?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let entity = histories(&body, &call, &context)?;
    parse_entity(
        &Value::Map(
            body.entries()
                .iter()
                .filter(|(k, _)| matches!(k.as_str(), "id" | "@id" | "type" | "@type"))
                .cloned()
                .collect(),
        ),
        &context,
        form_of(&call),
    )?;
    let location = format!("/ngsi-ld/v1/temporal/entities/{}", entity.id);
    remember(&call, entity, Some(location)).await
}

pub async fn append(call: Call) -> Handled {
    call.params.only(&["options", "format", "local"])?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let mut entity = histories(&body, &call, &context)?;
    entity.id = call.path("id");
    ngsild::check_uri(&entity.id, "{id}")?;
    remember(&call, entity, None).await
}

pub async fn delete(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let id = call.path("id");
    ngsild::check_uri(&id, "{id}")?;
    let change = Change::Forget { id, name: None, instance_id: None, all: true };
    one(call.app.hub.write(&call.session, vec![change]).await?, None)
}

pub async fn delete_attribute(call: Call) -> Handled {
    call.params.only(&["local", "datasetId", "deleteAll"])?;
    let id = call.path("id");
    ngsild::check_uri(&id, "{id}")?;
    let (context, _) = call.context(None)?;
    let change = Change::Forget {
        id,
        name: Some(call.name("attribute", &context)),
        instance_id: call.params.get("datasetId").map(str::to_owned),
        all: call.params.flag("deleteAll")?,
    };
    one(call.app.hub.write(&call.session, vec![change]).await?, None)
}
