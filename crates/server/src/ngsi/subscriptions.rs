//! Subscriptions (clause 6.10, 6.11).

use super::answer::Reply;
use crate::call::Call;
use crate::problem::Problem;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::Value;

type Handled = Result<Response, Problem>;

fn id_of(call: &Call) -> Result<String, Problem> {
    let id = call.path("id");
    ngsild::check_uri(&id, "{id}")?;
    Ok(id)
}

pub async fn create(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let body = call.json()?;
    let (_, source) = call.context(Some(&body))?;
    let id = call.app.hub.subscribe(&call.session, body, source, &call.app.courier).await?;
    let mut response = StatusCode::CREATED.into_response();
    let location = HeaderValue::from_str(&format!("/ngsi-ld/v1/subscriptions/{id}")).ok();
    response.headers_mut().extend(location.map(|location| (header::LOCATION, location)));
    Ok(response)
}

pub async fn list(call: Call) -> Handled {
    call.params.only(&["limit", "offset", "count", "options"])?;
    let reply = Reply::of(&call, call.context(None)?.0)?.without_geojson()?;
    let all = call.app.hub.subscriptions(&call.session, &reply.context);
    let offset = call.params.number("offset")?.unwrap_or(0);
    let limit = call.params.number("limit")?.unwrap_or(20).min(1_000);
    let (count, next) = (all.len(), (all.len() > offset + limit).then_some(offset + limit));
    let page = all.into_iter().skip(offset).take(limit);
    let page = page.map(|one| reply.with_context(one)).collect();
    let mut response = reply.respond_value(&Value::List(page));
    let count = call.params.flag("count")?.then_some(count);
    super::entities::page_headers(&mut response, &call, offset, Some(limit), count, next);
    Ok(response)
}

pub async fn retrieve(call: Call) -> Handled {
    let reply = Reply::of(&call, call.context(None)?.0)?.without_geojson()?;
    let shown = call.app.hub.subscription(&call.session, &id_of(&call)?, &reply.context)?;
    Ok(reply.respond_value(&reply.with_context(shown)))
}

pub async fn update(call: Call) -> Handled {
    let body = call.json()?;
    let (_, source) = call.context(Some(&body))?;
    let hub = &call.app.hub;
    hub.update_subscription(&call.session, &id_of(&call)?, &body, source, &call.app.courier)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn delete(call: Call) -> Handled {
    call.app.hub.unsubscribe(&call.session, &id_of(&call)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
