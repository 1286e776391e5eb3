//! The log, for anybody (C2SP `tlog-tiles`).

use crate::app::App;
use crate::problem::Problem;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

pub async fn vkey(State(app): State<Arc<App>>) -> String {
    format!("{}\n", app.hub.vkey())
}

pub async fn checkpoint(State(app): State<Arc<App>>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, app.hub.checkpoint()).into_response()
}

pub async fn tile(
    State(app): State<Arc<App>>,
    Path(path): Path<String>,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found(format!("the log has no tile `{path}`"));
    let tile = journal::TilePath::parse(&format!("tile/{path}")).ok_or_else(missing)?;
    let bytes = app.hub.tile(tile).ok_or_else(missing)?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, bytes).into_response())
}
