//! The words of the hub as types (floor 1).
//!
//! Everything above speaks in these: what an entity, a dataset, a principal, a lens and a record
//! are. This crate does no I/O, reads no clock, draws no random number and knows no wire format:
//! JSON, HTTP and disk layouts belong to the floors above.

mod change;
mod dataset;
mod entity;
mod lens;
mod name;
mod principal;
mod record;
mod time;
mod value;

pub use change::{Change, Outcome, Refusal};
pub use dataset::{
    AttributeModel, Claim, Dataset, DatasetError, Publication, Purpose, PurposeKind, Sensitivity,
    ValueKind, Withheld,
};
pub use entity::{Attribute, Content, Entity, Instance};
pub use lens::{Lens, Sight};
pub use name::{Name, scope_within};
pub use principal::{Credential, Kind, Principal, Role, Session, Status, Zone};
pub use record::{Action, Decision, Record, Verb};
pub use time::{Time, TimeError, TimeText};
pub use value::Value;
