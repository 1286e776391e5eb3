//! The doors in: HTTPS (NGSI-LD, the hub's API, the log, public pages) and MQTT over TLS. Protocols
//! and limits live here; no business rule does, and the store is out of reach.

mod api;
mod app;
mod call;
mod door;
mod limits;
mod log;
mod mqtt;
mod ngsi;
mod openapi;
mod ops;
mod params;
mod places;
mod problem;
mod public;
mod routes;

pub use app::{App, router};
pub use door::{Doors, Listening, TlsFiles};
pub use limits::Limits;
pub use mqtt::codec as mqtt_codec;
pub use openapi::document as openapi_document;
pub use routes::{ROUTES, Route};
