//! Kinds of documents the hub keeps in the store.

pub const DATASET: u8 = 1;
pub const POLICIES: u8 = 2;
pub const PRINCIPAL: u8 = 3;
/// By digest of the token or code.
pub const CREDENTIAL: u8 = 4;
/// Password hash by principal number.
pub const PASSWORD: u8 = 5;
pub const SUBSCRIPTION: u8 = 6;
/// Contexts hosted here.
pub const CONTEXT: u8 = 7;
/// Readings that did not fit, under their dataset's key.
pub const QUARANTINE: u8 = 8;
/// Notifications on their way.
pub const OUTBOX: u8 = 9;
/// Acts that wait for a second person.
pub const PENDING: u8 = 10;
pub const PURPOSE: u8 = 11;
/// Keys that are to be deleted.
pub const SHREDDING: u8 = 12;
/// Changes that came while the sensitive root was closed, encrypted to it.
pub const INBOX: u8 = 13;
/// Datasets as they were: `id/version`.
pub const DATASET_VERSION: u8 = 14;

/// Kinds that say who may do what, what is sent to whom, and what names mean: every record of a commit
/// that changes one says what they are together.
pub const GOVERNING: [u8; 10] = [
    DATASET,
    POLICIES,
    PRINCIPAL,
    CREDENTIAL,
    PASSWORD,
    SUBSCRIPTION,
    CONTEXT,
    PENDING,
    PURPOSE,
    DATASET_VERSION,
];
