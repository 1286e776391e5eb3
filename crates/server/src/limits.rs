//! Limits of the doors; with the hub's own, `tanggul limits` prints them.

use std::time::Duration;

hub::limits! {
    /// The doors' limits.
    Limits {
        /// Largest body of a request.
        http_body = 16 << 20, "bytes", "413";
        /// Largest body of a request of somebody without a credential.
        http_body_stranger = 256 << 10, "bytes", "413";
        /// Largest answer with entities or histories.
        answer = 64 << 20, "bytes", "413";
        /// Answers that lie unread, of all connections.
        unread = 512 << 20, "bytes", "the connection with most for longest is closed";
        /// Largest head of a request.
        http_head = 64 << 10, "bytes", "431";
        /// Time a client may take to send a head.
        http_head_timeout = 10, "seconds", "closed";
        /// Time a client may take to send a body.
        http_body_timeout = 30, "seconds", "408";
        /// Time for a TLS handshake.
        tls_handshake_timeout = 10, "seconds", "closed";
        /// HTTPS connections at once.
        http_connections = 10_000, "connections", "the longest stranger is closed, or waits";
        /// MQTT connections at once.
        mqtt_connections = 20_000, "connections", "the longest stranger is closed, or waits";
        /// Time whoever comes has to show who it is before its place may be taken away: for a handshake and
        /// a request. Strangers who come faster than a door's places in that time wait for their turn,
        /// and so does who comes behind them.
        stranger_time = 250, "milliseconds", "the place is taken away when others need it";
        /// Connections of one principal at each door that keep their place.
        connections_each = 500, "connections a principal", "the rest are held as strangers hold theirs";
        /// Largest MQTT packet.
        mqtt_packet = 1 << 20, "bytes", "0x95, closed";
        /// Messages of one MQTT connection that are written together.
        mqtt_in_flight = 1_000, "messages", "read later";
        /// Refused messages of one MQTT 3.1.1 connection before it is closed.
        mqtt_refusals = 30, "a 3.1.1 connection", "closed";
        /// Records in one page.
        records_page = 1_000, "records", "400";
    }
}

/// A limit in seconds.
pub fn seconds(limit: usize) -> Duration {
    Duration::from_secs(limit as u64)
}
