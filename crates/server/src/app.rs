//! What handlers share, and the router over the table of routes.

use crate::places::Places;
use crate::routes::ROUTES;
use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use courier::Courier;
use hub::Hub;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// What handlers share.
pub struct App {
    pub hub: Arc<Hub>,
    pub courier: Arc<Courier>,
    pub limits: crate::Limits,
    /// A map in PMTiles, from the operator.
    pub map: Option<std::path::PathBuf>,
    /// Until when the certificate holds.
    pub certificate_until: Option<model::Time>,
    /// How long requests took, and how many were answered with what class of status.
    pub requests: hub::Durations,
    pub statuses: [AtomicU64; 6],
    /// Connections of the doors: HTTPS, MQTT.
    pub(crate) doors: [Arc<Places>; 2],
    /// The address clients use, without a trailing slash.
    pub base_url: String,
    /// Set when all doors answer.
    pub ready: AtomicBool,
}

impl App {
    /// What the handlers of these doors share; not ready yet.
    pub fn new(
        hub: Arc<Hub>,
        courier: Arc<Courier>,
        limits: crate::Limits,
        base_url: String,
    ) -> App {
        let doors = [limits.http_connections, limits.mqtt_connections].map(Places::new);
        App {
            hub,
            courier,
            limits,
            base_url,
            map: None,
            certificate_until: None,
            requests: hub::Durations::default(),
            statuses: Default::default(),
            doors,
            ready: AtomicBool::new(false),
        }
    }

    /// Every limit, those of the doors first.
    pub fn all_limits(&self) -> Vec<hub::Limit> {
        let own = self.hub.limits().all();
        self.limits.all().into_iter().chain(own).chain(hub::FIXED_LIMITS.iter().copied()).collect()
    }
}

/// Every route of the table.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.handler)());
    }
    router
        .fallback(crate::ops::not_found)
        .method_not_allowed_fallback(crate::ops::not_allowed)
        .with_state(app)
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
