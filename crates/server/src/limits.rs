//! Limits of the doors; with the hub's own, `tanggul limits` prints them.

use hub::Limit;

/// Largest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 16 << 20;
/// Largest head of a request, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 << 10;
/// Seconds a client may take to send a head.
pub const HEAD_TIMEOUT_S: u64 = 10;
/// Seconds a client may take to send a body.
pub const BODY_TIMEOUT_S: u64 = 30;
/// Seconds for a TLS handshake.
pub const HANDSHAKE_TIMEOUT_S: u64 = 10;
/// HTTPS connections at once.
pub const MAX_HTTP_CONNECTIONS: usize = 10_000;
/// MQTT connections at once.
pub const MAX_MQTT_CONNECTIONS: usize = 20_000;
/// Largest MQTT packet, in bytes.
pub const MAX_MQTT_PACKET_BYTES: usize = 1 << 20;
/// Messages of one MQTT connection that are written together.
pub const MAX_MQTT_IN_FLIGHT: usize = 1_000;
/// Refused messages of one MQTT 3.1.1 connection before it is closed.
pub const MAX_MQTT_REFUSALS: u32 = 30;
/// Records in one page.
pub const MAX_RECORDS_PAGE: usize = 1_000;

/// All of them.
pub const LIMITS: &[Limit] = &[
    Limit { name: "http_body", value: MAX_BODY_BYTES as u64, unit: "bytes", answer: "413" },
    Limit { name: "http_head", value: MAX_HEAD_BYTES as u64, unit: "bytes", answer: "431" },
    Limit { name: "http_head_timeout", value: HEAD_TIMEOUT_S, unit: "seconds", answer: "closed" },
    Limit { name: "http_body_timeout", value: BODY_TIMEOUT_S, unit: "seconds", answer: "408" },
    Limit {
        name: "tls_handshake_timeout",
        value: HANDSHAKE_TIMEOUT_S,
        unit: "seconds",
        answer: "closed",
    },
    Limit {
        name: "http_connections",
        value: MAX_HTTP_CONNECTIONS as u64,
        unit: "connections",
        answer: "waits",
    },
    Limit {
        name: "mqtt_connections",
        value: MAX_MQTT_CONNECTIONS as u64,
        unit: "connections",
        answer: "waits",
    },
    Limit {
        name: "mqtt_packet",
        value: MAX_MQTT_PACKET_BYTES as u64,
        unit: "bytes",
        answer: "0x95, closed",
    },
    Limit {
        name: "mqtt_in_flight",
        value: MAX_MQTT_IN_FLIGHT as u64,
        unit: "messages",
        answer: "read later",
    },
    Limit {
        name: "mqtt_refusals",
        value: MAX_MQTT_REFUSALS as u64,
        unit: "a 3.1.1 connection",
        answer: "closed",
    },
    Limit { name: "records_page", value: MAX_RECORDS_PAGE as u64, unit: "records", answer: "400" },
];
