//! The MQTT door: devices publish, a PUBACK means durable.

pub mod codec;
mod connection;

pub use connection::serve;
