//! The demo's devices: separate clients that really connect over MQTT/TLS and HTTPS, and know the
//! hub only by its doors. What they send is simulated from a seed, or replayed from recorded data.

mod city;
mod client;
mod replay;

pub use city::{CityOptions, Device, Door, Feed, city};
pub use client::{Addresses, ClientError, run};
pub use replay::ReplayError;
