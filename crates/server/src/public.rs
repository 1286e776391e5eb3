//! Pages for citizens: rendered here, no script needed.

use crate::app::App;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;

const STYLE: &str = "body{font:17px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b2a33;background:#fff}\
h1{font-size:1.6rem;margin:0}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #cdd6da;vertical-align:top}\
code,pre{font:14px/1.4 ui-monospace,monospace;background:#f1f5f6}pre{padding:.8rem;overflow:auto}.note{border-left:4px solid #b4690e;padding:.4rem .8rem;background:#fdf3e4}\
@media(prefers-color-scheme:dark){body{background:#10181d;color:#dfe8ec}th,td{border-color:#33444d}code,pre{background:#1a262d}.note{background:#33240d}}";

pub async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css")], STYLE).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What is sensed in the city, why, and how to check the log.
pub async fn home(State(app): State<Arc<App>>) -> Html<String> {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>Tanggul</title>\
         <link rel=\"stylesheet\" href=\"/public/style.css\"><h1>Tanggul</h1>\
         <p>What this city senses, why, and who answers for it.</p>",
    );
    if let Some(notice) = app.hub.notice() {
        let _ = write!(page, "<p class=\"note\">{}</p>", escape(notice));
    }
    page.push_str("<table><caption>Datasets</caption><tr><th scope=\"col\">Dataset<th scope=\"col\">Department<th scope=\"col\">Purposes<th scope=\"col\">Legal basis<th scope=\"col\">Things</tr>");
    for (dataset, count) in app.hub.datasets() {
        // Writing into a string cannot fail.
        let _ = write!(
            page,
            "<tr><td>{}<br><code>{}</code><td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&dataset.title),
            escape(&dataset.id),
            escape(&dataset.department),
            escape(&dataset.purposes.join(", ")),
            escape(&dataset.legal_basis),
            if dataset.about_people { "not told".to_owned() } else { count.to_string() },
        );
    }
    let _ = write!(
        page,
        "</table><h2>The log</h2><p>Every act is recorded in a log that anybody can check. Its key:</p>\
         <pre>{}</pre><p>Its last checkpoint:</p><pre>{}</pre><p>The log itself is at <code>/log/</code> \
         (C2SP tlog-tiles); the API is described in <a href=\"/api/v1/openapi.json\">openapi.json</a>.</p></html>",
        escape(&app.hub.vkey()),
        escape(&app.hub.checkpoint()),
    );
    Html(page)
}
