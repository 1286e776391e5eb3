//! For those who run the hub: health, readiness, metrics; and what is not here.

use crate::app::App;
use crate::call::Call;
use crate::problem::Problem;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.hub.trouble() {
        None if app.ready.load(Ordering::Acquire) => "ready\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

/// Counts and sizes in the text format of Prometheus; for anybody on the machine itself, and for
/// those with a credential elsewhere.
pub async fn metrics(call: Call) -> Result<Response, Problem> {
    let local = call.source.zone == model::Zone::Local;
    if !local && call.session.principal.kind == model::Kind::Public {
        return Err(hub::HubError::Unauthenticated(
            "metrics are not for everyone; send a token".into(),
        )
        .into());
    }
    let hub = &call.app.hub;
    let mut text = String::new();
    for (name, count) in hub.counters().all() {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "# TYPE {name} counter\n{name} {count}");
    }
    let usage = hub.usage();
    // How many are on lists about people is for those who may know it.
    let knows = hub.may_audit(&call.session) || hub.may_govern(&call.session);
    let people = hub.datasets().into_iter().filter(|(dataset, _)| dataset.about_people && !knows);
    let people: u64 = people.map(|(_, count)| count).sum();
    for (name, value) in [
        ("tanggul_entities", usage.entities.saturating_sub(people)),
        ("tanggul_open_points", usage.open_points),
        ("tanggul_log_records", usage.records),
        ("tanggul_disk_used_bytes", usage.disk_bytes),
        ("tanggul_disk_free_bytes", usage.free_bytes),
    ] {
        let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
    }
    Ok(text.into_response())
}

pub async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_found(format!("there is nothing at `{}`; see /api/v1/openapi.json", uri.path()))
}

pub async fn not_allowed(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_allowed(format!(
        "`{}` does not take this method; see /api/v1/openapi.json",
        uri.path()
    ))
}

pub async fn not_offered(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::not_offered(format!(
        "this method of `{}` is part of the standard and is not offered: this hub answers alone, histories \
         have no instance ids, and entities are deleted one by one or in batches",
        uri.path()
    ))
}
