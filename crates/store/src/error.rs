//! What can go wrong with what lies on disk.

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the data directory `{0}` is in use by another process")]
    Locked(String),
    #[error("`{0}` holds no data directory of this program: {1}")]
    NotOurs(String, String),
    #[error("the data directory has format {found}, and this program reads format {known}")]
    Format { found: u32, known: u32 },
    #[error(
        "the data directory opens shorter than what was acknowledged: it holds {found_commits} \
         commits and {found_records} records, and {commits} commits and {records} records were \
         acknowledged. Restore a backup; the engine's journal as it was before lies in `{rescue}`"
    )]
    Shorter { found_commits: u64, found_records: u64, commits: u64, records: u64, rescue: String },
    #[error("{0} is damaged")]
    Damaged(String),
    #[error("the keys do not fit: {0}")]
    Keys(#[from] vault::KeyringError),
    #[error("the key of {0} is not here: it was erased, or its root is sealed")]
    NoKey(String),
    #[error("the store stopped writing after a failed write and must be reopened: {0}")]
    Poisoned(String),
    #[error("the disk has less than {0} MiB left; ordinary writes are refused until there is room")]
    Full(u64),
    #[error("a file operation on `{0}` failed")]
    File(String, #[source] std::io::Error),
    #[error("the storage engine failed: {0}")]
    Engine(String),
}
