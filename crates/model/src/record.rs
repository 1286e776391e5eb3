//! What the hub writes about an act.

use crate::{Time, Value};
use serde::{Deserialize, Serialize};

/// What policies decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// See values as they are.
    Read,
    /// See the stand-ins of values.
    Glimpse,
    /// Get sums over many.
    Aggregate,
    Write,
    Delete,
    /// Change datasets, policies and principals.
    Govern,
    /// Read records.
    Audit,
    /// Tell the hub or a device to do something.
    Command,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 8] = [
        Action::Read,
        Action::Glimpse,
        Action::Aggregate,
        Action::Write,
        Action::Delete,
        Action::Govern,
        Action::Audit,
        Action::Command,
    ];

    /// The word policies use.
    pub fn word(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::Glimpse => "glimpse",
            Action::Aggregate => "aggregate",
            Action::Write => "write",
            Action::Delete => "delete",
            Action::Govern => "govern",
            Action::Audit => "audit",
            Action::Command => "command",
        }
    }
}

/// Which verb of the hub was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Open,
    Read,
    Write,
    Watch,
    Act,
    /// The hub's own upkeep.
    Upkeep,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Allowed,
    Refused,
}

/// A record: who did what with which dataset for what, and what was decided.
///
/// It holds no personal data in clear: principals by surrogate number, entities by keyed digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub time: Time,
    pub tenant: u32,
    /// Surrogate of the principal.
    pub actor: u64,
    pub verb: Verb,
    /// Empty when no dataset is concerned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dataset: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    pub decision: Decision,
    pub policy_version: u64,
    /// Keyed digests of the entities concerned, in hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// What else belongs to the act, by name.
    pub detail: Value,
    /// The record and its salt may be read by anybody.
    #[serde(default)]
    pub public: bool,
}
