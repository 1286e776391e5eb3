//! The console's files, as they were built into the program, and the operator's map.

use crate::app::App;
use crate::call::Call;
use crate::problem::Problem;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// A file of the console: its path, what it is, and its bytes as they are and under Brotli.
struct File {
    path: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    brotli: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// What the console takes in the program.
pub const CONSOLE_BYTES: usize = {
    let (mut sum, mut at) = (0, 0);
    while at < FILES.len() {
        sum += FILES[at].plain.len() + FILES[at].brotli.len();
        at += 1;
    }
    sum
};

/// Whether the console was built before the program was.
pub const fn is_built() -> bool {
    !FILES.is_empty()
}

/// Scripts and styles of the hub's own only, and no text ever becomes a script: the one policy for
/// trusted types is the one by which Svelte makes its own templates.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'none'; frame-ancestors 'none'; \
    base-uri 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html";

fn respond(file: &File, headers: &HeaderMap, named_by_content: bool) -> Response {
    let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let takes = |item: &str| item.split(';').next().is_some_and(|name| name.trim() == "br");
    let brotli = !file.brotli.is_empty() && accepts.is_some_and(|all| all.split(',').any(takes));
    let bytes = if brotli { file.brotli } else { file.plain };
    let mut response = Bytes::from_static(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if brotli {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    if named_by_content {
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        headers.insert(header::CACHE_CONTROL, forever);
    }
    response
}

/// The console's page; where it was not built, the citizens' page.
pub async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.path == "index.html") {
        Some(file) => respond(file, &headers, false),
        None => crate::public::home(State(app), headers, axum::extract::RawQuery(None))
            .await
            .into_response(),
    }
}

pub async fn file(Path(path): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let found = FILES.iter().find(|file| file.path == path);
    let missing = || Problem::not_found(format!("the console has no file `{path}`"));
    found.map(|file| respond(file, &headers, true)).ok_or_else(missing)
}

/// Most of the map that one answer holds, in bytes.
const MAP_PART: u64 = 4 << 20;

/// The operator's map, by ranges of bytes (RFC 9110, clause 14).
pub async fn map(call: Call) -> Result<Response, Problem> {
    let Some(path) = call.app.map.clone() else {
        return Err(Problem::not_found("the operator gave no map; `console.map` names one"));
    };
    let unreadable = |error: std::io::Error| {
        tracing::warn!(%error, "the map cannot be read");
        Problem::not_found("the map cannot be read")
    };
    let range = call.header("range").map(str::to_owned);
    let read = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Seek};
        let mut file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        let (start, end) = part_of(range.as_deref(), size).unwrap_or((size, size));
        file.seek(std::io::SeekFrom::Start(start))?;
        let mut part = Vec::new();
        file.take(end - start).read_to_end(&mut part)?;
        Ok((part, start, size))
    });
    let (part, start, size) = read
        .await
        .map_err(|_| Problem::not_found("the map cannot be read"))?
        .map_err(unreadable)?;
    if part.is_empty() {
        let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
        return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
    }
    let range = format!("bytes {start}-{}/{size}", start + part.len() as u64 - 1);
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.pmtiles".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, max-age=3600".to_owned()),
        (header::CONTENT_RANGE, range),
    ];
    Ok((StatusCode::PARTIAL_CONTENT, headers, Body::from(part)).into_response())
}

/// The bytes that a `Range` header asks for: first, and the one after the last.
fn part_of(range: Option<&str>, size: u64) -> Option<(u64, u64)> {
    let Some(range) = range else { return Some((0, size.min(MAP_PART))) };
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.is_empty(), last.is_empty()) {
        (true, _) => (size.saturating_sub(last.parse().ok()?), size),
        (false, true) => (first.parse().ok()?, size),
        (false, false) => {
            (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?.min(size))
        }
    };
    (start < end && start < size).then_some((start, end.min(start + MAP_PART)))
}

#[cfg(test)]
mod tests {
    use super::part_of;

    #[test]
    fn ranges_are_what_they_ask_for() {
        assert_eq!(part_of(Some("bytes=0-99"), 1_000), Some((0, 100)));
        assert_eq!(part_of(Some("bytes=990-2000"), 1_000), Some((990, 1_000)));
        assert_eq!(part_of(Some("bytes=-10"), 1_000), Some((990, 1_000)));
        assert_eq!(part_of(Some("bytes=500-"), 1_000), Some((500, 1_000)));
        for wrong in
            ["bytes=1000-", "bytes=9-3", "bytes=a-b", "lines=1-2", "bytes=5-18446744073709551615"]
        {
            let got = part_of(Some(wrong), 1_000);
            assert!(got.is_none() || got == Some((5, 1_000)), "{wrong}: {got:?}");
        }
        assert_eq!(part_of(None, 1_000), Some((0, 1_000)));
    }
}
