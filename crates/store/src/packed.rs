//! An entity with its series as bytes: encoded once for its digest, the disk and memory.

use crate::{Series, codec};
use model::Entity;

/// An encoded entity with its series.
#[derive(Clone, Default)]
pub struct Packed(Box<[u8]>);

impl Packed {
    /// Encodes an entity and its series.
    pub fn of(entity: &Entity, series: &[Series]) -> Packed {
        Packed(codec::encode(&(entity, series)).into_boxed_slice())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Packed {
        Packed(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The entity and its series; none when the bytes are not ours.
    pub(crate) fn unpack(&self) -> Option<(Entity, Vec<Series>)> {
        codec::decode(&self.0, "an entity in memory").ok()
    }

    /// The entity's id, which comes first.
    pub(crate) fn id(&self) -> &str {
        postcard::take_from_bytes::<&str>(&self.0).map(|(id, _)| id).unwrap_or_default()
    }
}
