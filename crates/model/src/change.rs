//! Changes to entities, and how each ended.

use crate::{Action, DatasetError, Entity, Name, Time};
use serde::{Deserialize, Serialize};

/// One change to one entity (ETSI GS CIM 009 clauses 5.6.1 to 5.6.21).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Create; refused when the id is taken.
    Create(Entity),
    /// Create, or replace what is there.
    Put(Entity),
    /// Create, or add to what is there and overwrite.
    Upsert(Entity),
    /// Replace; refused when there is none.
    Replace(Entity),
    /// Add attributes, overwriting those there only if told to.
    Append { entity: Entity, overwrite: bool },
    /// Overwrite attributes that are there, leave out others.
    Update(Entity),
    /// Merge (clause 5.5.12): go into attributes, `Null` deletes.
    Merge(Entity),
    /// Delete an attribute: one instance, or all.
    DeleteAttribute { id: String, name: Name, instance_id: Option<String>, all: bool },
    /// Replace one attribute that is there.
    ReplaceAttribute(Entity),
    /// Merge into one attribute that is there.
    MergeAttribute(Entity),
    /// Delete the entity; its history stays until retention or [`Change::Forget`].
    Delete { id: String },
    /// Delete the history of an entity, or of one attribute of it: of one instance, or all.
    Forget { id: String, name: Option<Name>, instance_id: Option<String>, all: bool },
    /// Add to the history only.
    Remember { entity: Entity },
}

impl Change {
    /// The id of the entity concerned.
    pub fn id(&self) -> &str {
        match self {
            Change::Create(entity)
            | Change::Put(entity)
            | Change::Upsert(entity)
            | Change::Replace(entity)
            | Change::Append { entity, .. }
            | Change::Update(entity)
            | Change::Merge(entity)
            | Change::ReplaceAttribute(entity)
            | Change::MergeAttribute(entity)
            | Change::Remember { entity } => &entity.id,
            Change::DeleteAttribute { id, .. }
            | Change::Delete { id }
            | Change::Forget { id, .. } => id,
        }
    }

    /// What the change brings, if it brings something.
    pub fn entity(&self) -> Option<&Entity> {
        match self {
            Change::Create(entity)
            | Change::Put(entity)
            | Change::Upsert(entity)
            | Change::Replace(entity)
            | Change::Append { entity, .. }
            | Change::Update(entity)
            | Change::Merge(entity)
            | Change::ReplaceAttribute(entity)
            | Change::MergeAttribute(entity)
            | Change::Remember { entity } => Some(entity),
            _ => None,
        }
    }

    /// Whether this brings an entity that may be new.
    pub fn may_create(&self) -> bool {
        matches!(
            self,
            Change::Create(_) | Change::Put(_) | Change::Upsert(_) | Change::Remember { .. }
        )
    }

    /// What it takes to be allowed.
    pub fn action(&self) -> Action {
        match self {
            Change::Delete { .. } | Change::Forget { .. } => Action::Delete,
            _ => Action::Write,
        }
    }

    /// Whether it takes away what is there beyond what it names.
    pub fn replaces(&self) -> bool {
        matches!(self, Change::Put(_) | Change::Replace(_))
    }
}

/// How a change ended when it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Updated {
        /// Attributes that were set.
        done: Vec<Name>,
        /// Attributes the change named that were left as they are.
        left: Vec<Name>,
    },
    Deleted,
}

/// Why a change was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("an entity with the id `{0}` exists already")]
    Exists(String),
    #[error("there is no entity with the id `{0}`")]
    NotFound(String),
    #[error("the entity `{0}` has no attribute `{1}`")]
    NoAttribute(String, Name),
    #[error("the type of `{0}` cannot be changed so that it would leave dataset `{1}`")]
    LeavesDataset(String, String),
    #[error(transparent)]
    Model(#[from] DatasetError),
    #[error("the observation is dated {0}, more than {1} seconds ahead of the hub's clock")]
    Future(Time, i64),
    #[error("what is known of `{0}` is being deleted; try again in a minute")]
    Leaving(String),
    #[error("`{id}` would have more than {most} {what}")]
    TooMuch { id: String, what: &'static str, most: u64 },
    #[error("history can only be added with `observedAt`, which `{0}` lacks")]
    Undated(Name),
}
