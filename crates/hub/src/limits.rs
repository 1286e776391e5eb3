//! Every limit by name; `tanggul limits` prints them, the configuration's `[limits]` changes those
//! that may be changed.

/// A limit as shown.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub name: &'static str,
    pub value: u64,
    pub unit: &'static str,
    /// What is answered when it is hit.
    pub answer: &'static str,
}

/// Makes a struct of limits, each with its name, default, unit and answer.
#[macro_export]
macro_rules! limits {
    ($(#[$of:meta])* $struct:ident { $($(#[$meaning:meta])* $name:ident = $value:expr, $unit:literal, $answer:literal;)* }) => {
        $(#[$of])*
        #[derive(Clone, Debug)]
        pub struct $struct { $($(#[$meaning])* pub $name: usize,)* }

        impl Default for $struct {
            fn default() -> Self { $struct { $($name: $value,)* } }
        }

        impl $struct {
            /// All of them.
            pub fn all(&self) -> Vec<$crate::Limit> {
                vec![$($crate::Limit { name: stringify!($name), value: self.$name as u64, unit: $unit, answer: $answer },)*]
            }

            /// Changes one by name; false when there is none of that name here.
            pub fn set(&mut self, name: &str, value: usize) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }
        }
    };
}

limits! {
    /// The hub's own limits.
    Limits {
        /// Jobs that wait for the committer.
        queue = 8_192, "jobs", "waits";
        /// Changes in one group commit.
        group_changes = 50_000, "changes", "next group";
        /// Entities in one batch operation.
        batch = 10_000, "entities", "413";
        /// Entities in one page.
        page = 1_000, "entities", "400";
        /// Points in one temporal answer.
        points = 100_000, "points", "206";
        /// Periods in one aggregated answer.
        periods = 200_000, "periods", "413";
        /// Readings kept in quarantine, per dataset.
        quarantine = 10_000, "readings a dataset", "507";
        /// Bytes of those.
        quarantine_bytes = 64 << 20, "bytes a dataset", "507";
        /// Subscriptions in all.
        subscriptions = 20_000, "subscriptions", "507";
        /// Contexts hosted at once.
        contexts = 1_000, "contexts", "507";
        /// Those of one principal.
        contexts_each = 100, "contexts a principal", "507";
        /// Notifications waiting for one subscription before the oldest are counted as lost.
        outbox = 1_000, "notifications a subscription", "counted as lost";
        /// Bytes of those, of one subscription and of all.
        outbox_bytes = 16 << 20, "bytes a subscription", "counted as lost";
        outbox_all = 256 << 20, "bytes in all", "counted as lost";
        /// Subscriptions of one principal, and positions in their `geoQ` together.
        subscriptions_each = 2_000, "a principal", "507";
        subscription_positions = 2_000, "positions a principal", "507";
        /// Bytes of a notification from which on linked entities are told by their ids.
        notification = 1 << 20, "bytes with linked entities", "told by their ids";
        /// Seconds that a notification is tried for.
        outbox_keep = 3_600, "seconds", "counted as lost";
        /// Refusals recorded one by one in a minute, per principal; the rest are counted.
        refusals_recorded = 30, "a minute and principal", "counted";
        /// Seconds a reading may be ahead of the hub's clock.
        ahead = 300, "seconds", "400, quarantine for devices";
        /// Records whose commit failed, kept for the next.
        records_kept = 100_000, "records", "lost, and said so";
        /// Password hashes computed at once, for strangers and for browsers that are known.
        password_hashes = 2, "at once", "waits";
        /// Sign-ins that wait for their turn at hashing.
        password_queue = 256, "sign-ins", "429";
        /// Those of one block of addresses.
        password_queue_block = 8, "sign-ins", "429";
        /// Questions about thousands of entities one by one that go on at once.
        long_looks = 2, "at once", "waits";
        /// Those of one principal that go on or wait.
        long_looks_waiting = 4, "a principal", "429";
        /// Those of all strangers, who have one place of their own.
        long_looks_strangers = 64, "of strangers", "429";
        /// Live watches.
        watches = 2_000, "streams", "429";
        /// Those of one principal.
        watches_each = 500, "streams a principal", "429";
        /// Groups of changes a slow stream may be behind before it misses some.
        watch_behind = 1_024, "groups", "told that some were missed";
        /// Entities told of in one delivery of a stream.
        watch_changes = 1_000, "entities", "told that some were missed";
        /// Blocks of unknown callers counted one by one in a minute.
        sources_counted = 10_000, "blocks", "counted no more";
        /// Decisions kept.
        decisions_cached = 100_000, "decisions", "decided again";
        /// Changes that wait for the sensitive root to be opened.
        inbox = 100_000, "changes", "507";
    }
}

impl Limits {
    /// Whether so many may come in one batch operation.
    ///
    /// # Errors
    /// When they are too many.
    pub fn check_batch(&self, count: usize) -> Result<(), crate::HubError> {
        if count <= self.batch {
            return Ok(());
        }
        Err(crate::HubError::Limit {
            name: "batch",
            limit: self.batch as u64,
            remedy: "send smaller batches".into(),
        })
    }
}

/// Entities in one page unless asked otherwise.
pub const DEFAULT_PAGE: usize = 20;
/// Values that a sum must be made of where only sums may be seen.
pub const MIN_AGGREGATED: u64 = 10;
/// Bytes of the ring that takes life-safety data when the store cannot.
pub const RING_BYTES: u64 = 8 << 20;

/// Limits that are the same everywhere.
pub const FIXED: &[Limit] = &[
    Limit { name: "ring", value: RING_BYTES, unit: "bytes", answer: "no acknowledgement" },
    Limit { name: "policy", value: 256 * 1024, unit: "bytes", answer: "400" },
    Limit {
        name: "attributes",
        value: ngsild::MAX_ATTRIBUTES as u64,
        unit: "an entity",
        answer: "400",
    },
    Limit {
        name: "types",
        value: ngsild::MAX_TYPES as u64,
        unit: "types, and scopes, of an entity",
        answer: "400",
    },
    Limit {
        name: "entity_instances",
        value: crate::size::MAX_INSTANCES as u64,
        unit: "of an entity's attributes together",
        answer: "400",
    },
    Limit {
        name: "entity_histories",
        value: crate::size::MAX_SERIES as u64,
        unit: "attributes, instances and units an entity ever had",
        answer: "400",
    },
    Limit {
        name: "entity_bytes",
        value: crate::size::MAX_BYTES as u64,
        unit: "an entity",
        answer: "400",
    },
    Limit { name: "json_depth", value: 64, unit: "levels", answer: "400" },
    Limit {
        name: "json_values",
        value: ngsild::MAX_JSON_VALUES as u64,
        unit: "values",
        answer: "400",
    },
    Limit {
        name: "instances",
        value: ngsild::MAX_INSTANCES as u64,
        unit: "an attribute in a request",
        answer: "400",
    },
    Limit {
        name: "context_links",
        value: ngsild::MAX_CONTEXTS as u64,
        unit: "contexts a context leads to",
        answer: "400",
    },
    Limit { name: "context_terms", value: 10_000, unit: "terms", answer: "400" },
    Limit { name: "query", value: 4_096, unit: "bytes of `q`", answer: "400" },
    Limit {
        name: "selectors",
        value: ngsild::MAX_SELECTORS as u64,
        unit: "of a query",
        answer: "400",
    },
    Limit { name: "ids", value: ngsild::MAX_IDS as u64, unit: "of a posted query", answer: "400" },
    Limit {
        name: "order_keys",
        value: ngsild::MAX_ORDER_KEYS as u64,
        unit: "of `orderBy`",
        answer: "400",
    },
    Limit { name: "parameters", value: 64, unit: "of a query string", answer: "400" },
    Limit { name: "patterns", value: ngsild::MAX_PATTERNS as u64, unit: "of `q`", answer: "400" },
    Limit {
        name: "geo_reference",
        value: ngsild::MAX_REFERENCE as u64,
        unit: "positions of a place that is asked about, a fifth of a line or with `near`",
        answer: "400",
    },
    Limit { name: "pending", value: 100, unit: "acts of one principal that wait", answer: "429" },
    Limit { name: "sign_ins", value: 20, unit: "of one principal", answer: "the oldest ends" },
    Limit {
        name: "batch_contexts",
        value: 8,
        unit: "different contexts in a batch",
        answer: "400",
    },
    Limit {
        name: "subscription",
        value: crate::subscription::MAX_BYTES as u64,
        unit: "bytes of one",
        answer: "400",
    },
    Limit { name: "query_string", value: 16 << 10, unit: "bytes", answer: "400" },
    Limit { name: "id_pattern", value: 1_024, unit: "bytes", answer: "400" },
    Limit { name: "selection", value: 4_096, unit: "bytes of `type` or `scopeQ`", answer: "400" },
    Limit { name: "name", value: 1_024, unit: "bytes of a name or URI", answer: "400" },
    Limit { name: "positions", value: 10_000, unit: "of a geometry", answer: "400" },
    Limit {
        name: "join_levels",
        value: ngsild::MAX_JOIN_LEVELS as u64,
        unit: "levels",
        answer: "400",
    },
    Limit { name: "interval", value: 1, unit: "seconds at least", answer: "400" },
    Limit { name: "password", value: 512, unit: "bytes", answer: "400" },
];
