//! The hub's own API.

use crate::app::App;
use crate::call::{Call, SESSION_COOKIE, cookie};
use crate::ngsi::answer::{FILTER_PARAMS, filter_of, plain_text};
use crate::places::Place;
use crate::problem::Problem;
use crate::words::{Language, say, say_effect};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hub::{Act, ActReport, Possible};
use model::{Action, Decision, Principal, Record, Session, Value};
use ngsild::Invalid;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

type Handled = Result<Response, Problem>;

fn text(body: &Value, key: &str) -> Result<String, Problem> {
    let found = body.get(key).and_then(Value::as_text).filter(|text| !text.is_empty());
    Ok(found.ok_or_else(|| Invalid::data(format!("/{key}"), "is missing, or no text"))?.to_owned())
}

/// Anybody may ask for it, as often as he likes: it is written once.
pub async fn openapi(State(app): State<Arc<App>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, app.openapi.get().cloned().unwrap_or_default()).into_response()
}

fn who_am_i(call: &Call, session: &Session) -> serde_json::Value {
    let hub = &call.app.hub;
    let notice = hub.notice().map(|notice| say(notice, Language::of(&call.headers)));
    let principal = &session.principal;
    let known = principal.kind != model::Kind::Public;
    json!({
        "number": principal.number,
        "may": {
            "govern": known && hub.may_govern(session), "audit": known && hub.may_audit(session),
            "datasets": if known { hub.governed(session) } else { Vec::new() },
        },
        "notice": notice,
        "login": principal.login, "name": principal.name, "kind": principal.kind,
        "department": principal.department, "roles": principal.roles,
        "purpose": session.purpose.as_deref(), "assurance": session.assurance,
        "zone": session.zone, "expires": session.expires.to_string(),
    })
}

pub async fn session(call: Call) -> Handled {
    Ok(Json(who_am_i(&call, &call.session)).into_response())
}

/// The mark of a browser that signed in before.
const BROWSER_COOKIE: &str = "tanggul_browser";

/// Hands a session over: to the console as a cookie, to everybody else as a token.
fn hand_over(
    call: &Call,
    status: StatusCode,
    token: &str,
    mut body: serde_json::Value,
) -> Response {
    if !call.is_console() {
        body["token"] = json!(token);
        return (status, Json(body)).into_response();
    }
    let mut response = (status, Json(body)).into_response();
    set_cookie(&mut response, &session_cookie(token, hub::SIGN_IN_S));
    response
}

fn session_cookie(token: &str, seconds: i64) -> String {
    format!(
        "{SESSION_COOKIE}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"
    )
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

pub async fn sign_in(call: Call) -> Handled {
    let body = call.json()?;
    let (login, password) = (text(&body, "login")?, text(&body, "password")?);
    let hub = &call.app.hub;
    let mut source = call.source.clone();
    let mark = cookie(&call.headers, BROWSER_COOKIE);
    source.browser = mark.and_then(|mark| hub.read_browser_mark(&login, mark));
    let (token, session) = hub.sign_in(&login, &password, &source).await?;
    let body = json!({"session": who_am_i(&call, &session)});
    let mut response = hand_over(&call, StatusCode::OK, &token, body);
    let cookie = format!(
        "{BROWSER_COOKIE}={}; Path=/api/v1/session; Max-Age=31536000; Secure; HttpOnly; SameSite=Strict",
        hub.browser_mark(&login)
    );
    set_cookie(&mut response, &cookie);
    Ok(response)
}

pub async fn sign_out(call: Call) -> Handled {
    if let Some(token) =
        call.header("authorization").and_then(|v| v.split_once(' ')).map(|(_, t)| t)
    {
        call.app.hub.sign_out(token.trim());
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if call.is_console() {
        if let Some(token) = cookie(&call.headers, SESSION_COOKIE) {
            call.app.hub.sign_out(token);
        }
        set_cookie(&mut response, &session_cookie("", 0));
    }
    Ok(response)
}

pub async fn redeem(call: Call) -> Handled {
    let body = call.json()?;
    let password = body.get("password").and_then(Value::as_text);
    let token = call.app.hub.redeem(&text(&body, "code")?, password, &call.source).await?;
    Ok(hand_over(&call, StatusCode::CREATED, &token, json!({})))
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
    if call.params.flag("dryRun")? {
        let would = call.app.hub.rehearse(&call.session, &act).await?;
        let language = Language::of(&call.headers);
        let lines = |key: &str| {
            let lines = would.effect.get(key).map(Value::items).unwrap_or_default();
            let said =
                lines.iter().filter_map(Value::as_text).map(|line| say_effect(line, language));
            said.collect::<Vec<_>>()
        };
        let tells = would.effect != Value::Null;
        let effect = tells.then(|| json!({"gain": lines("gain"), "lose": lines("lose")}));
        let body = json!({
            "four_eyes": would.four_eyes, "detail": would.detail, "effect": effect,
        });
        return Ok(Json(body).into_response());
    }
    Ok(report(&call.app.hub.act(&call.session, act).await?))
}

pub async fn pending(call: Call) -> Handled {
    // Whoever governs anything may see what waits.
    call.app.hub.principals(&call.session).await?;
    Ok(Json(call.app.hub.pending(&call.session)).into_response())
}

pub async fn withdraw(call: Call) -> Handled {
    Ok(report(&call.app.hub.withdraw(&call.session, &call.path("id")).await?))
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
    let all = call.app.hub.clone().who_can_see(call.path("id").to_owned()).await?;
    let all: Vec<_> = all.iter().map(possible).collect();
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
    call.params.only(&["dataset", "action", "login", "purpose"])?;
    let dataset =
        call.params.get("dataset").ok_or_else(|| Invalid::data("?dataset", "is missing"))?;
    let word = call.params.get("action").unwrap_or("read");
    let action = Action::ALL.into_iter().find(|action| action.word() == word);
    let action = action.ok_or_else(|| {
        let all: Vec<_> = Action::ALL.iter().map(|action| action.word()).collect();
        Invalid::data("?action", format!("`{word}` is none of: {}", all.join(", ")))
    })?;
    let hub = &call.app.hub;
    let Some(login) = call.params.get("login") else {
        let (allowed, why) = hub.why(&call.session, action, dataset)?;
        return Ok(Json(answered(allowed, &why)).into_response());
    };
    let purpose = call.params.get("purpose").filter(|purpose| !purpose.is_empty());
    let found = hub.why_for(&call.session, login, purpose, action, dataset).await?;
    let mut body = answered(found.allowed, &found.why);
    body["login"] = json!(login);
    body["roles_that_would_do"] = json!(found.roles);
    body["clear"] = json!(found.clear);
    body["glimpsed"] = json!(found.glimpsed);
    Ok(Json(body).into_response())
}

fn answered(allowed: bool, why: &hub::Why) -> serde_json::Value {
    let reasons: Vec<_> =
        why.reasons.iter().map(|r| json!({"policy": r.policy, "title": r.title})).collect();
    json!({
        "allowed": allowed, "action": why.action, "dataset": why.dataset, "purpose": why.purpose,
        "reasons": reasons, "purposes_that_would_do": why.purposes, "grantor": why.grantor,
    })
}

pub async fn policies(call: Call) -> Handled {
    let (text, version) = call.app.hub.policies();
    Ok(Json(json!({"text": text, "version": version})).into_response())
}

pub async fn principals(call: Call) -> Handled {
    let all = call.app.hub.principals(&call.session).await?;
    let one = |known: &hub::Known| {
        let mut shown = serde_json::to_value(known.principal.as_ref()).unwrap_or_default();
        shown["seen"] = json!(known.seen.map(|time| time.to_string()));
        shown["refused"] = json!(known.refused);
        shown["expires"] = json!(known.expires.map(|time| time.to_string()));
        shown["invited"] = json!(known.invited);
        shown
    };
    Ok(Json(all.iter().map(one).collect::<Vec<_>>()).into_response())
}

pub async fn records(call: Call) -> Handled {
    call.params.only(&[
        "before", "limit", "actor", "dataset", "purpose", "decision", "verb", "subject", "from",
        "until", "hub",
    ])?;
    let all = call.params.get("hub").is_none() || call.params.flag("hub")?;
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
    if decision.as_deref().is_some_and(|word| !["allowed", "refused"].contains(&word)) {
        return Err(Invalid::data("?decision", "is none of: allowed, refused").into());
    }
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
        (all || record.actor != Principal::hub().number)
            && actor.is_none_or(|actor| record.actor == actor as u64)
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
        .map(|(index, salt, record, text)| {
            let mut shown = serde_json::to_value(record).unwrap_or_default();
            shown["index"] = json!(index);
            shown["salt"] = json!(salt);
            shown["when"] = json!(record.time.to_string());
            // What the leaf commits to, byte by byte.
            shown["text"] = json!(text);
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
    call.params.only(FILTER_PARAMS)?;
    let filter = filter_of(&call, &context)?;
    let watch = call.app.hub.watch(&call.session, filter)?;
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events_of(watch, call.place))).into_response())
}

/// How often a stream says that it lives, so that a broken connection is noticed.
const BEAT: Duration = Duration::from_secs(10);

/// How long a stream may lie unread.
const UNREAD: Duration = Duration::from_secs(30);

/// Changes as server-sent events (WHATWG HTML, clause 9.2), until the session or the hub ends: the
/// entities in normalized form, in the core context.
fn events_of(
    watch: hub::Watch,
    place: Option<Arc<Place>>,
) -> impl futures_core::Stream<Item = Result<Bytes, Infallible>> {
    let (sender, mut receiver) = mpsc::channel(1);
    // A task of its own: a stream that nobody reads takes its changes all the same, and notices that
    // its session has ended.
    tokio::spawn(async move {
        tokio::select! {
            () = tell(watch, &sender, place) => {}
            () = sender.closed() => {}
        }
    });
    async_stream::stream! {
        while let Some(bytes) = receiver.recv().await {
            yield Ok(bytes);
        }
    }
}

async fn tell(mut watch: hub::Watch, sender: &mpsc::Sender<Bytes>, place: Option<Arc<Place>>) {
    let principal = watch.principal();
    let lives = watch.liveness();
    let mut text = Bytes::from_static(b"event: open\ndata: []\n\n");
    loop {
        let room = tokio::select! {
            room = tokio::time::timeout(UNREAD, sender.reserve()) => room,
            () = watch.drain() => return,
        };
        let Ok(Ok(room)) = room else { return };
        room.send(text);
        // Its session was asked for just now.
        place.iter().for_each(|place| place.make_known(principal));
        let next = {
            let mut next = std::pin::pin!(watch.next());
            loop {
                match tokio::time::timeout(BEAT, next.as_mut()).await {
                    Ok(next) => break next,
                    // When there is no room for it, it has something to read.
                    Err(_) if lives() => {
                        place.iter().for_each(|place| place.make_known(principal));
                        drop(sender.try_send(Bytes::from_static(b": alive\n\n")));
                    }
                    Err(_) => break Ok(None),
                }
            }
        };
        let Ok(Some(changes)) = next else { break };
        text = Bytes::from(told(&changes));
    }
    drop(sender.send(Bytes::from_static(b"event: ended\ndata: []\n\n")).await);
}

/// The events of one delivery.
fn told(changes: &hub::Changes) -> Vec<u8> {
    let mut out = Vec::new();
    if changes.missed {
        out.extend_from_slice(b"event: missed\ndata: some changes were not sent\n\n");
    }
    if !changes.gone.is_empty() {
        out.extend_from_slice(b"event: gone\ndata: ");
        out.extend_from_slice(json!(changes.gone).to_string().as_bytes());
        out.extend_from_slice(b"\n\n");
    }
    if !changes.entities.is_empty() {
        out.extend_from_slice(b"event: changes\ndata: [");
        for (index, seen) in changes.entities.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(plain_text(seen));
        }
        out.extend_from_slice(b"]\n\n");
    }
    out
}
