//! The MQTT door: devices publish, a PUBACK means durable.

mod codec;
mod connection;

pub use connection::serve;
