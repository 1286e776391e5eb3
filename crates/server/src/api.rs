//! The hub's own API.

use crate::call::Call;
use crate::problem::Problem;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use hub::{Act, ActReport, Possible};
use model::{Action, Decision, Record, Session, Value};
use ngsild::Invalid;
use serde_json::json;
use std::convert::Infallible;

type Handled = Result<Response, Problem>;

fn text(body: &Value, key: &str) -> Result<String, Problem> {
    let found = body.get(key).and_then(Value::as_text).filter(|text| !text.is_empty());
    Ok(found.ok_or_else(|| Invalid::data(format!("/{key}"), "is missing, or no text"))?.to_owned())
}

pub async fn openapi() -> Json<serde_json::Value> {
    Json(crate::openapi::document())
}

fn who_am_i(session: &Session) -> serde_json::Value {
    let principal = &session.principal;
    json!({
        "login": principal.login, "name": principal.name, "kind": principal.kind,
        "department": principal.department, "roles": principal.roles,
        "purpose": session.purpose.as_deref(), "assurance": session.assurance,
        "zone": session.zone, "expires": session.expires.to_string(),
    })
}

pub async fn session(call: Call) -> Handled {
    Ok(Json(who_am_i(&call.session)).into_response())
}

/// The mark of a browser that signed in before.
const BROWSER_COOKIE: &str = "tanggul_browser";

fn browser_mark(call: &Call) -> Option<&str> {
    let cookies = call.header("cookie")?;
    cookies
        .split(';')
        .find_map(|cookie| cookie.trim().strip_prefix(BROWSER_COOKIE)?.strip_prefix('='))
}

pub async fn sign_in(call: Call) -> Handled {
    let body = call.json()?;
    let (login, password) = (text(&body, "login")?, text(&body, "password")?);
    let hub = &call.app.hub;
    let mut source = call.source.clone();
    source.browser = browser_mark(&call).and_then(|mark| hub.read_browser_mark(&login, mark));
    let (token, session) = hub.sign_in(&login, &password, &source).await?;
    let mut response = Json(json!({"token": token, "session": who_am_i(&session)})).into_response();
    let cookie = format!(
        "{BROWSER_COOKIE}={}; Path=/api/v1/session; Max-Age=31536000; Secure; HttpOnly; SameSite=Strict",
        hub.browser_mark(&login)
    );
    let cookie = HeaderValue::from_str(&cookie).ok();
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

pub async fn sign_out(call: Call) -> Handled {
    if let Some(token) =
        call.header("authorization").and_then(|v| v.split_once(' ')).map(|(_, t)| t)
    {
        call.app.hub.sign_out(token.trim());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn redeem(call: Call) -> Handled {
    let body = call.json()?;
    let password = body.get("password").and_then(Value::as_text);
    let token = call.app.hub.redeem(&text(&body, "code")?, password, &call.source).await?;
    Ok((StatusCode::CREATED, Json(json!({"token": token}))).into_response())
}

fn report(report: &ActReport) -> Response {
    let status = if report.pending.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    let body = json!({
        "receipt": report.receipt.index, "answer": report.answer, "pending": report.pending,
    });
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert("tanggul-receipt", HeaderValue::from(report.receipt.index));
    response
}

pub async fn act(call: Call) -> Handled {
    let body = call.json()?;
    let name = text(&body, "act")?;
    let act = Act { name, body: body.get("body").cloned().unwrap_or(Value::Map(Vec::new())) };
    Ok(report(&call.app.hub.act(&call.session, act).await?))
}

pub async fn pending(call: Call) -> Handled {
    // Whoever governs anything may see what waits.
    call.app.hub.principals(&call.session).await?;
    Ok(Json(call.app.hub.pending()).into_response())
}

pub async fn approve(call: Call) -> Handled {
    Ok(report(&call.app.hub.approve(&call.session, &call.path("id")).await?))
}

pub async fn datasets(call: Call) -> Handled {
    let all: Vec<_> = call
        .app
        .hub
        .datasets()
        .into_iter()
        .map(|(dataset, count)| {
            let count = (!dataset.about_people).then_some(count);
            json!({
                "id": dataset.id, "title": dataset.title, "department": dataset.department,
                "steward": dataset.steward, "purposes": dataset.purposes, "entities": count,
                "version": dataset.version, "publication": dataset.publication,
            })
        })
        .collect();
    Ok(Json(all).into_response())
}

pub async fn dataset(call: Call) -> Handled {
    let id = call.path("id");
    let found = call.app.hub.datasets().into_iter().find(|(dataset, _)| dataset.id == id);
    let (dataset, _) =
        found.ok_or_else(|| Problem::not_found(format!("there is no dataset `{id}`")))?;
    Ok(Json(dataset).into_response())
}

fn possible(one: &Possible) -> serde_json::Value {
    json!({
        "login": one.login, "name": one.name, "purpose": one.purpose, "clear": one.clear,
        "glimpsed": one.glimpsed, "writes": one.writes, "policies": one.policies,
    })
}

pub async fn who(call: Call) -> Handled {
    if call.session.principal.kind != model::Kind::Official {
        return Err(hub::HubError::Unauthenticated(
            "who can see a dataset is told to officials".into(),
        )
        .into());
    }
    let all: Vec<_> = call.app.hub.who_can_see(&call.path("id"))?.iter().map(possible).collect();
    Ok(Json(all).into_response())
}

pub async fn quarantine(call: Call) -> Handled {
    let readings = call.app.hub.quarantined(&call.session, &call.path("id")).await?;
    let readings: Vec<_> = readings
        .into_iter()
        .map(|(name, reading)| {
            let entity: serde_json::Value =
                serde_json::from_str(&reading.entity).unwrap_or_default();
            json!({
                "reading": name, "time": reading.time.to_string(), "writer": reading.writer,
                "reason": reading.reason, "entity": entity,
            })
        })
        .collect();
    Ok(Json(readings).into_response())
}

pub async fn why(call: Call) -> Handled {
    call.params.only(&["dataset", "action"])?;
    let dataset =
        call.params.get("dataset").ok_or_else(|| Invalid::data("?dataset", "is missing"))?;
    let word = call.params.get("action").unwrap_or("read");
    let action = Action::ALL.into_iter().find(|action| action.word() == word);
    let action = action.ok_or_else(|| {
        let all: Vec<_> = Action::ALL.iter().map(|action| action.word()).collect();
        Invalid::data("?action", format!("`{word}` is none of: {}", all.join(", ")))
    })?;
    let (allowed, why) = call.app.hub.why(&call.session, action, dataset)?;
    let reasons: Vec<_> =
        why.reasons.iter().map(|r| json!({"policy": r.policy, "title": r.title})).collect();
    Ok(Json(json!({
        "allowed": allowed, "action": why.action, "dataset": why.dataset, "purpose": why.purpose,
        "reasons": reasons, "purposes_that_would_do": why.purposes, "grantor": why.grantor,
    }))
    .into_response())
}

pub async fn policies(call: Call) -> Handled {
    let (text, version) = call.app.hub.policies();
    Ok(Json(json!({"text": text, "version": version})).into_response())
}

pub async fn principals(call: Call) -> Handled {
    let all: Vec<_> = call.app.hub.principals(&call.session).await?;
    Ok(Json(all).into_response())
}

pub async fn records(call: Call) -> Handled {
    call.params.only(&[
        "before", "limit", "actor", "dataset", "purpose", "decision", "verb", "subject", "from",
        "until",
    ])?;
    let limit = call.params.number("limit")?.unwrap_or(100);
    let most = call.app.limits.records_page;
    if limit > most {
        return Err(Invalid::data("?limit", format!("a page has at most {most} records")).into());
    }
    let get = |key: &str| call.params.get(key).map(str::to_owned);
    let (dataset, purpose, decision, subject) =
        (get("dataset"), get("purpose"), get("decision"), get("subject"));
    let verb = match get("verb") {
        None => None,
        Some(word) => {
            let known = serde_json::from_value::<model::Verb>(json!(word));
            let what = "is none of: open, read, write, watch, act, upkeep";
            Some(known.map_err(|_| Invalid::data("?verb", what))?)
        }
    };
    let actor = call.params.number("actor")?;
    let time = |key: &str| {
        let parse = |text: &str| {
            model::Time::parse(text).map_err(|e| Invalid::data(format!("?{key}"), e.to_string()))
        };
        call.params.get(key).map(parse).transpose()
    };
    let (from, until) = (time("from")?, time("until")?);
    // "Who read what about X": the entity's keyed references, computed here, compared there.
    let subjects = subject.as_deref().map(|id| call.app.hub.references(id));
    let wanted = move |record: &Record| {
        actor.is_none_or(|actor| record.actor == actor as u64)
            && dataset.as_ref().is_none_or(|dataset| record.dataset == *dataset)
            && (purpose.is_none() || record.purpose == purpose)
            && verb.is_none_or(|verb| record.verb == verb)
            && decision
                .as_deref()
                .is_none_or(|d| (d == "refused") == (record.decision == Decision::Refused))
            && subjects.as_ref().is_none_or(|s| record.subjects.iter().any(|r| s.contains(r)))
            && from.is_none_or(|from| record.time >= from)
            && until.is_none_or(|until| record.time < until)
    };
    let before = call.params.number("before")?.map(|before| before as u64);
    let found = call.app.hub.records(&call.session, before, limit, &wanted).await?;
    let found: Vec<_> = found
        .iter()
        .map(|(index, salt, record)| {
            let mut shown = serde_json::to_value(record).unwrap_or_default();
            shown["index"] = json!(index);
            shown["salt"] = json!(salt);
            shown["when"] = json!(record.time.to_string());
            shown
        })
        .collect();
    Ok(Json(found).into_response())
}

fn index(call: &Call) -> Result<u64, Problem> {
    let text = call.path("index");
    let text = text.split(';').next().unwrap_or_default();
    Ok(text
        .parse()
        .map_err(|_| Invalid::data("{index}", format!("`{text}` is no record's index")))?)
}

pub async fn public_record(call: Call) -> Handled {
    let index = index(&call)?;
    let found = call.app.hub.public_record(index)?;
    let (salt, record) =
        found.ok_or_else(|| Problem::not_found(format!("there is no public record {index}")))?;
    Ok(Json(json!({"index": index, "salt": salt, "record": record})).into_response())
}

pub async fn receipt(call: Call) -> Handled {
    let index = index(&call)?;
    match call.app.hub.receipt(index)? {
        Some(receipt) => {
            let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            Ok((headers, receipt.to_string()).into_response())
        }
        None => {
            // Not covered by a checkpoint yet: within 1.5 s it is.
            let headers = [(header::RETRY_AFTER, "1")];
            Ok((StatusCode::ACCEPTED, headers, Json(json!({"index": index, "proof": null})))
                .into_response())
        }
    }
}

pub async fn limits(call: Call) -> Handled {
    let one = |limit: &hub::Limit| json!({"name": limit.name, "value": limit.value, "unit": limit.unit, "answer": limit.answer});
    let all: Vec<_> = call.app.all_limits().iter().map(one).collect();
    Ok(Json(all).into_response())
}

pub async fn watch(call: Call) -> Handled {
    let (context, _) = call.context(None)?;
    let filter = super::ngsi::answer::filter_of(&call, &context)?;
    let watch = call.app.hub.watch(&call.session, filter)?;
    let events = futures_stream(watch);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Changes as server-sent events, until the session or the hub ends.
fn futures_stream(
    watch: hub::Watch,
) -> impl futures_core::Stream<Item = Result<Event, Infallible>> {
    async_stream::stream! {
        let mut watch = watch;
        while let Ok(Some((entities, missed))) = watch.next().await {
            let mut body = vec![b'['];
            for (index, entity) in entities.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                let options = ngsild::Options::default();
                ngsild::render_entity(&mut body, entity, &ngsild::Context::core(), &options);
            }
            body.push(b']');
            if missed {
                yield Ok(Event::default().event("missed").data("some changes were not sent"));
            }
            yield Ok(Event::default().event("changes").data(String::from_utf8_lossy(&body)));
        }
    }
}
