//! Batches: many entities in one request, committed together, each answered on its own.

use super::answer::with_receipt;
use super::entities::form_of;
use crate::call::Call;
use crate::problem::Problem;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hub::ItemResult;
use model::{Change, Entity, Outcome, Value};
use ngsild::{Context, Form, Invalid, parse_entity, parse_fragment};
use serde_json::json;

type Handled = Result<Response, Problem>;

/// Different contexts in one batch.
const MAX_CONTEXTS: usize = 8;

/// Parameters of a batch.
const PARAMS: &[&str] = &["options", "format", "local"];

/// The entities of a body: each parsed on its own, so that a bad one does not spoil the others.
fn entities(call: &Call, whole: bool) -> Result<Vec<(String, Result<Entity, Invalid>)>, Problem> {
    call.params.only(PARAMS)?;
    let body = call.json()?;
    let Value::List(items) = &body else {
        return Err(Invalid::data("", "a batch is a JSON list of entities").into());
    };
    if items.is_empty() {
        return Err(Invalid::data("", "the batch is empty").into());
    }
    call.app.hub.limits().check_batch(items.len())?;
    let form = form_of(call);
    // One context for all is the usual case.
    let shared = call.context(Some(items.first().unwrap_or(&Value::Null)))?;
    let mut entities = Vec::with_capacity(items.len());
    let mut contexts = vec![shared];
    for (index, item) in items.iter().enumerate() {
        let own = item.get("@context");
        let known = |source: &Value| contexts.iter().find(|(_, known)| known == source);
        let context = match own.map(|source| (source, known(source))) {
            None => contexts[0].0.clone(),
            Some((_, Some((context, _)))) => context.clone(),
            Some(_) if contexts.len() >= MAX_CONTEXTS => {
                let what = format!("is the {MAX_CONTEXTS}th other one; send smaller batches");
                return Err(Invalid::data(format!("/{index}/@context"), what).into());
            }
            Some((source, None)) => {
                let context = call.context(Some(item))?.0;
                contexts.push((context.clone(), source.clone()));
                context
            }
        };
        let id =
            item.get("id").or_else(|| item.get("@id")).and_then(Value::as_text).unwrap_or_default();
        let parsed =
            if whole { parse_entity(item, &context, form) } else { part(item, &context, form) };
        let parsed = parsed.map_err(|invalid| invalid.inside(&index.to_string()));
        entities.push((id.to_owned(), parsed));
    }
    Ok(entities)
}

/// What changes an entity needs its id only.
fn part(item: &Value, context: &Context, form: Form) -> Result<Entity, Invalid> {
    let entity = parse_fragment(item, context, form)?;
    if entity.id.is_empty() { Err(Invalid::data("/id", "is missing")) } else { Ok(entity) }
}

/// Writes a batch; `created_list` answers 201 with what was created.
async fn write(call: &Call, make: impl Fn(Entity) -> Change, created_list: bool) -> Handled {
    let mut ids = Vec::new();
    let mut errors = Vec::new();
    let mut changes = Vec::new();
    for (id, entity) in entities(call, created_list)? {
        match entity {
            Ok(entity) => {
                ids.push(id);
                changes.push(make(entity));
            }
            Err(invalid) => {
                errors.push(json!({"entityId": id, "error": Problem::from(invalid).json()}))
            }
        }
    }
    finish(call, ids, changes, errors, created_list).await
}

async fn finish(
    call: &Call,
    ids: Vec<String>,
    changes: Vec<Change>,
    errors: Vec<serde_json::Value>,
    created_list: bool,
) -> Handled {
    let report = call.app.hub.write(&call.session, changes).await?;
    answer(ids, report, errors, created_list)
}

fn answer(
    ids: Vec<String>,
    report: hub::WriteReport,
    mut errors: Vec<serde_json::Value>,
    created_list: bool,
) -> Handled {
    let (mut created, mut done, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
    let mut first_refusal = None;
    let mut results = Vec::new();
    let receipt = report.receipt;
    for (id, result) in ids.into_iter().zip(report.results) {
        match result {
            ItemResult::Done(Outcome::Updated { left, .. }) if !left.is_empty() => {
                let left: Vec<&str> = left.iter().map(model::Name::as_str).collect();
                let what = format!("left as they are: {}", left.join(", "));
                results.push((id, Problem::from(Invalid::data("", what))));
            }
            ItemResult::Done(outcome) => {
                if outcome == Outcome::Created {
                    created.push(id.clone());
                }
                done.push(id);
            }
            ItemResult::Sealed => {
                sealed.push(id.clone());
                done.push(id);
            }
            ItemResult::Quarantined(reason) => results
                .push((id, Problem::from(Invalid::data("", format!("quarantined: {reason}"))))),
            ItemResult::Refused(error) => {
                let problem = Problem::from(error);
                first_refusal.get_or_insert(problem.status);
                results.push((id, problem));
            }
        }
    }
    errors.extend(
        results.iter().map(|(id, problem)| json!({"entityId": id, "error": problem.json()})),
    );
    // Refused as a whole by the lock: the status says so at once.
    if done.is_empty()
        && let Some(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) = first_refusal
        && results.iter().all(|(_, problem)| problem.status == status)
        && let Some((_, problem)) = results.into_iter().next()
    {
        return Err(problem);
    }
    let response = if !errors.is_empty() {
        (StatusCode::MULTI_STATUS, Json(json!({"success": done, "errors": errors}))).into_response()
    } else if !sealed.is_empty() {
        let body = json!({"success": done, "sealed": sealed, "detail": hub::SEALED});
        (StatusCode::ACCEPTED, Json(body)).into_response()
    } else if created_list && !created.is_empty() {
        (StatusCode::CREATED, Json(json!(created))).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    };
    Ok(with_receipt(response, &hub::WriteReport { results: Vec::new(), receipt }))
}

pub async fn create(call: Call) -> Handled {
    write(&call, Change::Create, true).await
}

pub async fn upsert(call: Call) -> Handled {
    let options = call.params.list("options");
    let update = options.contains(&"update");
    // Most batches are numbers for series that are there: they go the short way.
    if options == ["update"]
        && call.is_plain_json()
        && call.params.only(PARAMS).is_ok()
        && let Some(readings) = ngsild::parse_readings(&call.body)
        && let Some(report) = call.app.hub.write_readings(&call.session, None, &readings).await?
    {
        let ids = readings.iter().map(|reading| reading.id.to_owned());
        return answer(ids.collect(), report, Vec::new(), true);
    }
    write(&call, if update { Change::Upsert } else { Change::Put }, true).await
}

pub async fn update(call: Call) -> Handled {
    let overwrite = !call.params.list("options").contains(&"noOverwrite");
    write(&call, |entity| Change::Append { entity, overwrite }, false).await
}

pub async fn merge(call: Call) -> Handled {
    write(&call, Change::Merge, false).await
}

pub async fn delete(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let body = call.json()?;
    let Value::List(items) = &body else {
        return Err(Invalid::data("", "the body is a JSON list of ids").into());
    };
    if items.is_empty() {
        return Err(Invalid::data("", "the list is empty").into());
    }
    call.app.hub.limits().check_batch(items.len())?;
    let mut ids = Vec::new();
    let mut errors = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let id = item.as_text().or_else(|| item.get("id")?.as_text()).unwrap_or_default();
        match ngsild::check_uri(id, &format!("/{index}")) {
            Ok(()) => ids.push(id.to_owned()),
            Err(invalid) => {
                errors.push(json!({"entityId": id, "error": Problem::from(invalid).json()}))
            }
        }
    }
    let changes = ids.iter().map(|id| Change::Delete { id: id.clone() }).collect();
    finish(&call, ids, changes, errors, false).await
}
