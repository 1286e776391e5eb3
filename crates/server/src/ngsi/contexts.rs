//! Contexts hosted here (clause 6.30).

use crate::call::Call;
use crate::problem::Problem;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ngsild::Invalid;
use serde_json::json;

type Handled = Result<Response, Problem>;

pub async fn create(call: Call) -> Handled {
    let body = call.json()?;
    if body.get("@context").is_none() {
        return Err(Invalid::data("/@context", "is missing").into());
    }
    let id = call.app.hub.host_context(&call.session, body).await?;
    let url = format!("{}/ngsi-ld/v1/jsonldContexts/{id}", call.app.base_url);
    let mut response = (StatusCode::CREATED, Json(serde_json::json!({"url": url}))).into_response();
    let location = HeaderValue::from_str(&format!("/ngsi-ld/v1/jsonldContexts/{id}")).ok();
    response.headers_mut().extend(location.map(|location| (header::LOCATION, location)));
    Ok(response)
}

pub async fn list(call: Call) -> Handled {
    call.params.only(&["details", "kind"])?;
    let base = &call.app.base_url;
    // All contexts here are hosted: none is fetched, and none made for a subscription.
    let ids = match call.params.get("kind") {
        None | Some("Hosted") => call.app.hub.hosted_contexts(),
        Some("Cached" | "ImplicitlyCreated") => Vec::new(),
        Some(other) => {
            let what = format!("`{other}` is none of: Hosted, Cached, ImplicitlyCreated");
            return Err(Invalid::data("?kind", what).into());
        }
    };
    let details = call.params.flag("details")?;
    let one = |id: &String| {
        let url = format!("{base}/ngsi-ld/v1/jsonldContexts/{id}");
        if details { json!({"URL": url, "localId": id, "kind": "Hosted"}) } else { json!(url) }
    };
    Ok(Json(ids.iter().map(one).collect::<Vec<_>>()).into_response())
}

pub async fn retrieve(call: Call) -> Handled {
    call.params.only(&["details"])?;
    if call.params.flag("details")? {
        return Err(Problem::not_offered(
            "`details` of one context is not offered; the list has them",
        ));
    }
    let body = call.app.hub.hosted_context(&call.path("id"))?;
    let mut response = body.into_response();
    let media = HeaderValue::from_static("application/ld+json");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    Ok(response)
}

pub async fn delete(call: Call) -> Handled {
    call.params.only(&[])?;
    call.app.hub.drop_context(&call.session, &call.path("id")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
