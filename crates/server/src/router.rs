//! The router over the table of routes, and what every answer bears.

use crate::app::App;
use crate::routes::ROUTES;
use crate::{openapi, ops};
use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use std::sync::Arc;

/// Every route of the table.
pub fn router(app: Arc<App>) -> Router {
    app.openapi.get_or_init(|| openapi::document().to_string().into());
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.handler)());
    }
    router.fallback(ops::not_found).method_not_allowed_fallback(ops::not_allowed).with_state(app)
}

/// Headers that make browsers careful, on everything.
pub fn harden(headers: &mut HeaderMap) {
    let all = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ];
    headers.reserve(all.len());
    for (name, value) in all {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
