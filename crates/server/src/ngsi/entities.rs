//! Entities: create, retrieve, query, merge, replace, delete, and their attributes.

use super::answer::{FILTER_PARAMS, QUERY_PARAMS, Reply, filter_of, filter_of_body, one, order_of};
use crate::call::Call;
use crate::problem::Problem;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hub::{Join, Query};
use model::{Change, Entity, Time, Value};
use ngsild::{Context, Form, Invalid, Members, parse_attribute, parse_entity, parse_fragment};
use std::sync::Arc;

type Handled = Result<Response, Problem>;

/// Simplified bodies are told apart by `options` or `format`.
pub fn form_of(call: &Call) -> Form {
    let simplified = |word: &str| matches!(word, "keyValues" | "simplified");
    let asked =
        call.params.list("options").into_iter().chain(call.params.get("format")).any(simplified);
    if asked { Form::Simplified } else { Form::Full }
}

async fn write_one(call: &Call, change: Change, created: Option<String>) -> Handled {
    let report = call.app.hub.write(&call.session, vec![change]).await?;
    one(report, created)
}

fn id_of(call: &Call) -> Result<String, Problem> {
    let id = call.path("id");
    ngsild::check_uri(&id, "{id}")?;
    Ok(id)
}

/// A body that changes the entity in the path: its id, if given, must be the same.
fn fragment(call: &Call) -> Result<Entity, Problem> {
    let id = id_of(call)?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let mut entity = parse_fragment(&body, &context, form_of(call))?;
    if !entity.id.is_empty() && entity.id != id {
        return Err(Invalid::data("/id", "is not the id in the path").into());
    }
    entity.id = id;
    Ok(entity)
}

pub async fn create(call: Call) -> Handled {
    call.params.only(&["options", "format", "local"])?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let entity = parse_entity(&body, &context, form_of(&call))?;
    let location = format!("/ngsi-ld/v1/entities/{}", entity.id);
    write_one(&call, Change::Create(entity), Some(location)).await
}

pub async fn retrieve(call: Call) -> Handled {
    call.params.only_of(&[FILTER_PARAMS, QUERY_PARAMS])?;
    let id = id_of(&call)?;
    let (context, _) = call.context(None)?;
    let mut reply = Reply::of(&call, context)?;
    let join = join_param(&call)?;
    let answer = call.app.hub.retrieve(&call.session, &id).await?;
    let (linked, looked) = reply.join(&call, &answer.entities, join.as_ref()).await?;
    let record = answer.record.or(looked);
    if !linked.is_empty() {
        return Ok(reply.respond(reply.entities(&answer.entities, &linked)?, record));
    }
    let mut body = Vec::with_capacity(1024);
    for entity in &answer.entities {
        if !reply.options.members.leaves(entity) {
            return Err(Problem::not_found(format!("`{id}` has none of the attributes asked for")));
        }
        reply.entity(&mut body, entity);
        if reply.shape == super::Shape::GeoJson {
            body.pop();
            reply.close(&mut body);
        }
    }
    reply.check(&body)?;
    Ok(reply.respond(body, record))
}

fn join_param(call: &Call) -> Result<Option<Join>, Invalid> {
    let params = &call.params;
    Join::parse(params.get("join"), params.get("joinLevel"), &params.list("containedBy"))
}

pub async fn query(call: Call) -> Handled {
    call.params.only_of(&[FILTER_PARAMS, QUERY_PARAMS])?;
    let (context, _) = call.context(None)?;
    let narrow = ["id", "type", "idPattern", "attrs", "q", "georel", "scopeQ"];
    let local = call.params.flag("local")?;
    if !local && !narrow.iter().any(|key| call.params.get(key).is_some()) {
        let what = format!("is too broad: give at least one of {}", narrow.join(", "));
        return Err(Invalid::data("?", what).into());
    }
    let mut reply = Reply::of(&call, context.clone())?;
    let join = join_param(&call)?;
    let filter = filter_of(&call, &context)?;
    let query =
        page_of(&call, Query { filter, order: order_of(&call, &context)?, ..Query::default() })?;
    page(&call, &mut reply, &query, join.as_ref()).await
}

/// The page that the parameters ask for.
pub fn page_of(call: &Call, query: Query) -> Result<Query, Problem> {
    Ok(Query {
        offset: call.params.number("offset")?.unwrap_or(0),
        limit: call.params.number("limit")?,
        count: call.params.flag("count")? || call.params.list("options").contains(&"count"),
        ..query
    })
}

/// A page with its count and its links to the pages before and after.
async fn page(call: &Call, reply: &mut Reply, query: &Query, join: Option<&Join>) -> Handled {
    let answer = call.app.hub.read(&call.session, query).await?;
    let (linked, looked) = reply.join(call, &answer.entities, join).await?;
    let body = reply.entities(&answer.entities, &linked)?;
    let mut response = reply.respond(body, answer.record.or(looked));
    let next = answer.more.then(|| query.offset + query.limit.unwrap_or(20));
    page_headers(&mut response, call, query.offset, query.limit, answer.count, next);
    Ok(response)
}

/// `NGSILD-Results-Count` and `Link` (clauses 6.3.10 and 6.3.13).
pub fn page_headers(
    response: &mut Response,
    call: &Call,
    offset: usize,
    limit: Option<usize>,
    count: Option<usize>,
    next: Option<usize>,
) {
    let headers = response.headers_mut();
    if let Some(count) = count {
        headers.insert("ngsild-results-count", HeaderValue::from(count));
    }
    let limit = limit.unwrap_or(20);
    let linked = call.header("accept").is_some_and(|accept| accept.contains("ld+json"));
    let media = if linked { "application/ld+json" } else { "application/json" };
    let path = call.uri.path().trim_end_matches('/');
    let mut link = |offset: usize, relation: &str| {
        let query = call.params.with("offset", &offset.to_string());
        let link = format!("<{path}?{query}>; rel=\"{relation}\"; type=\"{media}\"");
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.append(header::LINK, link);
        }
    };
    if offset > 0 {
        link(offset.saturating_sub(limit), "prev");
    }
    if let Some(next) = next.filter(|next| *next > offset) {
        link(next, "next");
    }
}

pub async fn post_query(call: Call) -> Handled {
    call.params.only_of(&[FILTER_PARAMS, QUERY_PARAMS])?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let mut reply = Reply::of(&call, context.clone())?;
    let list = |key: &str| body.get(key).map(Value::items).unwrap_or_default();
    let texts = |key: &str| list(key).iter().filter_map(Value::as_text).collect::<Vec<_>>();
    let (pick, omit) = (texts("pick").join(","), texts("omit").join(","));
    if !pick.is_empty() || !omit.is_empty() {
        let members = Members::parse((None, Some(&pick), Some(&omit)), &[], &context)?;
        reply.take_members(members);
    }
    let levels = body.get("joinLevel").and_then(Value::as_number).map(|n| n.to_string());
    let join = body.get("join").and_then(Value::as_text);
    let join = Join::parse(join, levels.as_deref(), &texts("containedBy"))?;
    let filter = filter_of_body(&body, &context)?;
    let query =
        page_of(&call, Query { filter, order: order_of(&call, &context)?, ..Query::default() })?;
    page(&call, &mut reply, &query, join.as_ref()).await
}

pub async fn merge(call: Call) -> Handled {
    call.params.only(&["options", "format", "observedAt", "lang", "type", "local"])?;
    let mut entity = fragment(&call)?;
    if let Some(at) = call.params.get("observedAt") {
        let at =
            Time::parse(at).map_err(|error| Invalid::data("?observedAt", error.to_string()))?;
        for instance in entity.attributes.iter_mut().flat_map(|a| &mut a.instances) {
            instance.observed_at.get_or_insert(at);
        }
    }
    write_one(&call, Change::Merge(entity), None).await
}

pub async fn replace(call: Call) -> Handled {
    call.params.only(&["options", "format", "type", "local"])?;
    let entity = fragment(&call)?;
    write_one(&call, Change::Replace(entity), None).await
}

pub async fn delete(call: Call) -> Handled {
    call.params.only(&["type", "local"])?;
    let id = id_of(&call)?;
    write_one(&call, Change::Delete { id }, None).await
}

pub async fn append(call: Call) -> Handled {
    call.params.only(&["options", "type", "local"])?;
    let overwrite = !call.params.list("options").contains(&"noOverwrite");
    let entity = fragment(&call)?;
    write_one(&call, Change::Append { entity, overwrite }, None).await
}

pub async fn update(call: Call) -> Handled {
    call.params.only(&["options", "type", "local"])?;
    if call.is_plain_json() && call.params.get("options").is_none() {
        let id = id_of(&call)?;
        if let Some(reading) = ngsild::parse_reading_of(&id, &call.body)
            && let Some(report) =
                call.app.hub.write_readings(&call.session, None, &[reading]).await?
        {
            return one(report, None);
        }
    }
    let entity = fragment(&call)?;
    write_one(&call, Change::Update(entity), None).await
}

/// The attribute in the path as part of an entity.
fn attribute(call: &Call) -> Result<Entity, Problem> {
    let id = id_of(call)?;
    let body = call.json()?;
    let (context, _) = call.context(Some(&body))?;
    let name = call.name("attribute", &context);
    let without: Vec<_> =
        body.entries().iter().filter(|(key, _)| key != "@context").cloned().collect();
    let value = if without.is_empty() { body } else { Value::Map(without) };
    let attribute = parse_attribute(name, &value, &context, form_of(call))?;
    Ok(Entity {
        id,
        types: Vec::new(),
        scopes: Vec::new(),
        created: Time::default(),
        modified: Time::default(),
        attributes: vec![attribute],
    })
}

pub async fn patch_attribute(call: Call) -> Handled {
    call.params.only(&["options", "type", "local"])?;
    let entity = attribute(&call)?;
    write_one(&call, Change::MergeAttribute(entity), None).await
}

pub async fn put_attribute(call: Call) -> Handled {
    call.params.only(&["options", "type", "local"])?;
    let entity = attribute(&call)?;
    write_one(&call, Change::ReplaceAttribute(entity), None).await
}

pub async fn delete_attribute(call: Call) -> Handled {
    call.params.only(&["datasetId", "deleteAll", "type", "local"])?;
    let id = id_of(&call)?;
    let (context, _): (Arc<Context>, _) = call.context(None)?;
    let change = Change::DeleteAttribute {
        id,
        name: call.name("attribute", &context),
        instance_id: call.params.get("datasetId").map(str::to_owned),
        all: call.params.flag("deleteAll")?,
    };
    write_one(&call, change, None).await
}
