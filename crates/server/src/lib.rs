//! The doors in: HTTPS (NGSI-LD, the hub's API, the log, public pages) and MQTT over TLS. Protocols
//! and limits live here; no business rule does, and the store is out of reach.

mod api;
mod app;
mod call;
mod console;
mod desk;
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
mod rest;
mod router;
mod routes;
mod unread;
mod words;

pub use app::App;
pub use console::{CONSOLE_BYTES, is_built as console_is_built};
pub use door::{Doors, Listening, TlsFiles};
pub use limits::Limits;
pub use mqtt::codec as mqtt_codec;
pub use openapi::document as openapi_document;
pub use router::router;
pub use routes::{ROUTES, Route};
