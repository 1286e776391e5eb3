//! An entity as it is handed out: decoded, with what readers made of it.

use crate::Under;
use model::{Content, Entity, Instance, Name, Time, Value};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::sync::Arc;

/// The history of one instance of one attribute of one entity, in one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub number: u32,
    pub name: Name,
    pub instance_id: Option<String>,
    pub unit: Option<String>,
    /// Ordered by `observedAt`; otherwise by when it was changed.
    pub observed: bool,
    /// Whole instances, rather than numbers.
    pub rich: bool,
}

/// An entity as it was when it was asked for.
pub struct Held {
    pub number: u64,
    pub dataset: u32,
    pub per_subject: bool,
    pub entity: Arc<Entity>,
    pub series: Arc<Vec<Series>>,
    pub deleted: Option<Time>,
    /// The commit of its document: what readings move is not in it.
    pub(crate) commit: u64,
    /// What readers made of this state, to be used again by the next.
    pub derived: Derived,
}

/// Things made of an entity's state and kept beside it, by number: gone with the state.
#[derive(Default)]
pub struct Derived(Mutex<Vec<(u64, Arc<dyn Any + Send + Sync>)>>);

/// Things kept beside one state.
const MAX_DERIVED: usize = 4;

impl Derived {
    /// What was kept under a number, if it is of this type.
    pub fn get<T: Send + Sync + 'static>(&self, key: u64) -> Option<Arc<T>> {
        let kept = self.0.lock();
        let (_, found) = kept.iter().find(|(kept, _)| *kept == key)?;
        found.clone().downcast().ok()
    }

    /// Keeps something; the oldest goes when there are too many.
    pub fn keep(&self, key: u64, value: Arc<dyn Any + Send + Sync>) {
        let mut kept = self.0.lock();
        kept.retain(|(found, _)| *found != key);
        if kept.len() >= MAX_DERIVED {
            kept.remove(0);
        }
        kept.push((key, value));
    }
}

impl Held {
    /// Whose key it lies under.
    pub fn under(&self) -> Under {
        Under::of(self.dataset, self.per_subject, self.number)
    }
}

impl Series {
    /// The instance whose history this is.
    pub fn instance<'a>(&self, entity: &'a Entity) -> Option<&'a Instance> {
        let attribute = entity.attribute(self.name.as_str())?;
        attribute.instances.iter().find(|instance| instance.instance_id == self.instance_id)
    }

    /// Moves an entity's state to a number of this series, unless it is older than what is there;
    /// says whether it did.
    pub fn step(&self, entity: &mut Entity, at: Time, value: f64, now: Time) -> bool {
        let Some(attribute) = entity.attribute_mut(self.name.as_str()) else { return false };
        let same = |i: &&mut Instance| i.instance_id == self.instance_id;
        let Some(instance) = attribute.instances.iter_mut().find(same) else { return false };
        if self.observed {
            if instance.observed_at.is_some_and(|observed| observed > at) {
                return false;
            }
            instance.observed_at = Some(at);
        }
        instance.content = Content::Property(Value::from_number(value));
        instance.modified = now;
        entity.modified = now;
        true
    }
}
