//! What is asked of the figures: the least or the most that each may be, at the size it is asked for.

/// How a figure is held.
#[derive(Clone, Copy)]
pub enum Asked {
    Least(f64),
    Most(f64),
}

use Asked::{Least, Most};

/// How a figure's name begins and ends, and what is asked of it.
const ROWS: &[(&str, &str, Asked)] = &[
    ("batch ingest, HTTPS", ": rate", Least(600_000.0)),
    ("batch ingest, MQTT", ": rate", Least(600_000.0)),
    ("MQTT QoS 1, one reading a message", ": rate", Least(60_000.0)),
    ("durable single write, 64 clients", ": rate", Least(12_000.0)),
    ("durable single write, 64 clients", ": CPU each", Most(60.0)),
    ("GET entity, 64 clients", ": per CPU-second of the server", Least(40_000.0)),
    ("query limit=20, 64 clients", ": per CPU-second of the server", Least(15_000.0)),
    ("durable PATCH, 64 clients", ": per CPU-second of the server", Least(16_000.0)),
    ("GET entity through a lens", ": per CPU-second of the server", Least(25_000.0)),
    ("query limit=20 through a lens", ": per CPU-second of the server", Least(5_000.0)),
    ("durable PATCH through a lens", ": per CPU-second of the server", Least(12_000.0)),
    ("q, place (polygon) and order", "of 1000000, p99", Most(20.0)),
    ("memory of 1000000 entities of 500 bytes", "with 20000000 observations", Most(1_907.0)),
    ("ready after start, 1000000 entities", "", Most(5.0)),
    ("storage of each observation from", ", all files", Most(3.0)),
    ("hourly mean of 10,000 series, 14.4 M", ": median of 5", Most(0.3)),
    ("notifications, 10,000 subscriptions", ": lost to living receivers", Most(0.0)),
    ("notifications, 10,000 subscriptions", ": out of order", Most(0.0)),
    ("notifications, 10,000 subscriptions", ": p99", Most(1_000.0)),
    ("acts and confidential reads", ": durable records", Least(20_000.0)),
    ("writes of personal data and confidential reads", ": durable records", Least(20_000.0)),
    ("confidential reads, one record each", ": durable records", Least(20_000.0)),
    ("receipt with its proof", ": p99", Most(1_500.0)),
    ("5000 devices", ": records, of what was sent", Most(5.0)),
    ("city, 600 s", ": p99 of an acknowledgement", Most(250.0)),
    ("city, 600 s", ": p99 of one due while the backlog is drained", Most(250.0)),
    ("city, observations acknowledged and not there", "", Most(0.0)),
    ("memory, idle", "", Most(57.0)),
    ("ready after start", "after start", Most(1.0)),
    // What is small fits into memory; cost is to grow no faster where it does not any more.
    ("growth of ", " to 3000000", Most(1.2)),
    ("growth of ", " to 100 M", Most(1.2)),
    ("cold release build", "", Most(600.0)),
];

/// What is asked of a figure by that name, if anything is.
pub fn of(name: &str) -> Option<Asked> {
    let row = ROWS.iter().find(|(begin, end, _)| name.starts_with(begin) && name.ends_with(end));
    row.map(|(_, _, asked)| *asked)
}

impl Asked {
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Least(least) => value >= least,
            Most(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Least(least) => write!(out, "at least {least}"),
            Most(most) => write!(out, "at most {most}"),
        }
    }
}
