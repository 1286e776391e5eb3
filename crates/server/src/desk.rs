//! What the console's pages ask beside the rest of the API: purposes, charts, how things are.

use crate::call::Call;
use crate::problem::Problem;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hub::{ChartQuery, Durations, MAX_COLUMNS};
use model::{Time, Value};
use ngsild::{Context, Invalid};
use serde_json::json;
use std::sync::atomic::Ordering;

type Handled = Result<Response, Problem>;

/// Columns of a chart unless asked otherwise.
const COLUMNS: usize = 400;

pub async fn purposes(call: Call) -> Handled {
    Ok(Json(call.app.hub.purposes()).into_response())
}

pub async fn declare(call: Call) -> Handled {
    let body = call.json()?;
    let text = |key: &str| body.get(key).and_then(Value::as_text).unwrap_or_default();
    let index = call.app.hub.declare(&call.session, text("purpose"), text("reason")).await?;
    Ok(Json(json!({"receipt": index})).into_response())
}

/// A moment given as a parameter.
fn time(call: &Call, key: &str, missing: Time) -> Result<Time, Invalid> {
    let parse = |text: &str| {
        Time::parse(text).map_err(|error| Invalid::data(format!("?{key}"), error.to_string()))
    };
    call.params.get(key).map_or(Ok(missing), parse)
}

/// Times in milliseconds since 1970, for that is what browsers draw by.
pub async fn chart(call: Call) -> Handled {
    call.params.only(&["entity", "attribute", "from", "until", "columns"])?;
    let needed = |key: &'static str| {
        call.params.get(key).ok_or_else(|| Invalid::data(format!("?{key}"), "is missing"))
    };
    let query = ChartQuery {
        entity: needed("entity")?.to_owned(),
        attribute: Context::core().expand(needed("attribute")?),
        from: time(&call, "from", Time::MIN)?,
        until: time(&call, "until", Time::MAX)?,
        columns: call.params.number("columns")?.unwrap_or(COLUMNS).min(MAX_COLUMNS),
    };
    let chart = call.app.hub.chart(&call.session, &query).await?;
    let times: Vec<f64> = chart.points.iter().map(|(at, _)| at.0 as f64 / 1_000.0).collect();
    let values: Vec<f64> = chart.points.iter().map(|(_, value)| *value).collect();
    let body = json!({
        "unit": chart.unit, "times": times, "values": values, "counted": chart.counted,
        "receipt": chart.record,
    });
    Ok(Json(body).into_response())
}

pub async fn health(call: Call) -> Handled {
    let health = call.app.hub.dataset_health(&call.session, &call.path("id")).await?;
    let filled: Vec<_> = health
        .filled
        .iter()
        .map(|(name, count)| json!({"attribute": name, "entities": count}))
        .collect();
    let body = json!({
        "entities": health.entities, "looked_at": health.looked_at,
        "newest": health.newest.map(|time| time.to_string()),
        "ages": {"within_s": hub::AGES_S, "entities": health.ages},
        "unobserved": health.unobserved, "filled": filled, "open_points": health.open_points,
        "quarantined": health.quarantined, "devices": health.devices,
        "silent_devices": health.silent_devices,
    });
    Ok(Json(body).into_response())
}

pub async fn versions(call: Call) -> Handled {
    let versions = call.app.hub.versions(&call.path("id"))?;
    let all: Vec<_> = versions
        .iter()
        .map(|version| {
            json!({
                "time": version.time.map(|time| time.to_string()), "by": version.by,
                "dataset": version.dataset,
            })
        })
        .collect();
    Ok(Json(all).into_response())
}

pub async fn check(call: Call) -> Handled {
    // Whoever may see how the hub is may have its log looked at.
    call.app.hub.condition(&call.session).await?;
    call.app.hub.check_log();
    Ok((StatusCode::ACCEPTED, Json(json!({}))).into_response())
}

fn durations(of: &Durations) -> Vec<serde_json::Value> {
    // JSON knows no infinity: the last bucket's bound is null.
    of.all().map(|(bound, count)| json!({"under_s": bound, "count": count})).collect()
}

pub async fn state(call: Call) -> Handled {
    let app = &call.app;
    let condition = app.hub.condition(&call.session).await?;
    let door = |at: usize| {
        let (taken, most) = app.doors[at].taken();
        json!({"connections": taken, "most": most})
    };
    let used = |(used, most): (u64, u64)| json!({"used": used, "most": most});
    let counters: serde_json::Map<_, _> =
        app.hub.counters().all().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    let statuses: Vec<u64> =
        app.statuses.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let usage = condition.usage;
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": app.hub.now().to_string(), "started": condition.started.to_string(),
        "trouble": condition.trouble, "sealed": condition.sealed, "inbox": condition.inbox,
        "doors": {"https": door(0), "mqtt": door(1)},
        "requests": durations(&app.requests), "commits": durations(app.hub.waits()),
        "answers": {"2xx": statuses[2], "3xx": statuses[3], "4xx": statuses[4], "5xx": statuses[5]},
        "counters": counters,
        "storage": {
            "used": usage.disk_bytes, "free": usage.free_bytes, "kept_free": condition.min_free,
            "entities": usage.entities, "records": usage.records, "open_points": usage.open_points,
        },
        "queue": used(condition.queue), "watches": used(condition.watches),
        "subscriptions": used(condition.subscriptions),
        "quarantined": condition.quarantined, "pending": condition.pending,
        "certificate_until": app.certificate_until.map(|time| time.to_string()),
        "checked": condition.checked.map(|checked| json!({
            "time": checked.time.to_string(), "records": checked.records,
            "findings": checked.findings,
        })),
    });
    Ok(Json(body).into_response())
}
