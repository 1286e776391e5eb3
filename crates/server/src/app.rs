//! What handlers share.

use crate::places::Places;
use crate::unread::Unread;
use courier::Courier;
use hub::Hub;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
    /// Answers that lie unread.
    pub(crate) unread: Arc<Unread>,
    /// The address clients use, without a trailing slash.
    pub base_url: String,
    /// The description of all routes, as text, once there is a router over them.
    pub(crate) openapi: OnceLock<axum::body::Bytes>,
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
        let to_show = Duration::from_millis(limits.stranger_time as u64);
        let doors = [limits.http_connections, limits.mqtt_connections]
            .map(|most| Places::new(most, limits.connections_each, to_show));
        let unread = Unread::new(limits.unread);
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
            unread,
            openapi: OnceLock::new(),
            ready: AtomicBool::new(false),
        }
    }

    /// Every limit, those of the doors first.
    pub fn all_limits(&self) -> Vec<hub::Limit> {
        let own = self.hub.limits().all();
        self.limits.all().into_iter().chain(own).chain(hub::FIXED_LIMITS.iter().copied()).collect()
    }
}
