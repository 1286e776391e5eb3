//! Every limit of the hub by name; `tanggul limits` prints them.

/// A named limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub name: &'static str,
    pub value: u64,
    pub unit: &'static str,
    /// What is answered when it is hit.
    pub answer: &'static str,
}

/// Jobs that wait for the committer.
pub const MAX_QUEUE: usize = 8_192;
/// Changes in one group commit.
pub const MAX_GROUP_CHANGES: usize = 50_000;
/// Entities in one batch operation.
pub const MAX_BATCH: usize = 10_000;
/// Entities in one page.
pub const MAX_PAGE: usize = 1_000;
/// Entities in one page unless asked otherwise.
pub const DEFAULT_PAGE: usize = 20;
/// Points in one temporal answer.
pub const MAX_POINTS: usize = 100_000;
/// Periods in one aggregated answer.
pub const MAX_PERIODS: usize = 100_000;
/// Readings kept in quarantine, per dataset.
pub const MAX_QUARANTINE: usize = 10_000;
/// Subscriptions in all.
pub const MAX_SUBSCRIPTIONS: usize = 20_000;
/// Notifications waiting for one subscription before the oldest are counted as lost.
pub const MAX_OUTBOX: usize = 1_000;
/// Seconds that a notification is tried for.
pub const OUTBOX_KEEP_S: i64 = 3_600;
/// Refusals recorded one by one in a minute, per principal; the rest are counted.
pub const MAX_REFUSALS_PER_MINUTE: u32 = 30;
/// Seconds a reading may be ahead of the hub's clock.
pub const MAX_AHEAD_S: i64 = 300;
/// Password hashes computed at once.
pub const MAX_HASHES: usize = 2;
/// Values that a sum must be made of where only sums may be seen.
pub const MIN_AGGREGATED: u64 = 10;
/// Live watches.
pub const MAX_WATCHES: usize = 2_000;
/// Decisions kept.
pub const MAX_DECISIONS: usize = 100_000;
/// Bytes of the ring that takes life-safety data when the store cannot.
pub const RING_BYTES: u64 = 8 << 20;

/// All of them.
pub const LIMITS: &[Limit] = &[
    Limit { name: "queue", value: MAX_QUEUE as u64, unit: "jobs", answer: "429" },
    Limit {
        name: "group_changes",
        value: MAX_GROUP_CHANGES as u64,
        unit: "changes",
        answer: "next group",
    },
    Limit { name: "batch", value: MAX_BATCH as u64, unit: "entities", answer: "413" },
    Limit { name: "page", value: MAX_PAGE as u64, unit: "entities", answer: "400" },
    Limit { name: "points", value: MAX_POINTS as u64, unit: "points", answer: "206" },
    Limit { name: "periods", value: MAX_PERIODS as u64, unit: "periods", answer: "413" },
    Limit {
        name: "quarantine",
        value: MAX_QUARANTINE as u64,
        unit: "readings a dataset",
        answer: "507",
    },
    Limit {
        name: "subscriptions",
        value: MAX_SUBSCRIPTIONS as u64,
        unit: "subscriptions",
        answer: "507",
    },
    Limit {
        name: "outbox",
        value: MAX_OUTBOX as u64,
        unit: "notifications a subscription",
        answer: "counted as lost",
    },
    Limit {
        name: "outbox_keep",
        value: OUTBOX_KEEP_S as u64,
        unit: "seconds",
        answer: "counted as lost",
    },
    Limit {
        name: "refusals_recorded",
        value: MAX_REFUSALS_PER_MINUTE as u64,
        unit: "a minute and principal",
        answer: "counted",
    },
    Limit {
        name: "ahead",
        value: MAX_AHEAD_S as u64,
        unit: "seconds",
        answer: "400, quarantine for devices",
    },
    Limit { name: "password_hashes", value: MAX_HASHES as u64, unit: "at once", answer: "429" },
    Limit { name: "watches", value: MAX_WATCHES as u64, unit: "streams", answer: "429" },
    Limit {
        name: "decisions_cached",
        value: MAX_DECISIONS as u64,
        unit: "decisions",
        answer: "decided again",
    },
    Limit { name: "ring", value: RING_BYTES, unit: "bytes", answer: "no acknowledgement" },
    Limit { name: "policy", value: 256 * 1024, unit: "bytes", answer: "400" },
    Limit { name: "attributes", value: 1_000, unit: "an entity", answer: "400" },
    Limit { name: "json_depth", value: 64, unit: "levels", answer: "400" },
    Limit { name: "context_terms", value: 10_000, unit: "terms", answer: "400" },
    Limit { name: "query", value: 4_096, unit: "bytes of `q`", answer: "400" },
];
