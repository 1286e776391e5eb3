//! Entities in memory: their current state, by id, number and type.

use crate::Under;
use crate::codec::EntityDoc;
use model::{Content, Entity, Instance, Name, Time, Value};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::{BTreeSet, HashMap};
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

/// An entity as the store holds it.
#[derive(Clone)]
pub struct Held {
    pub number: u64,
    pub dataset: u32,
    pub per_subject: bool,
    pub entity: Arc<Entity>,
    pub series: Arc<Vec<Series>>,
    pub deleted: Option<Time>,
    /// The commit of the document on disk.
    pub commit: u64,
    /// The state is ahead of the document on disk by rows that are.
    pub ahead: bool,
    /// What readers made of this state, to be used again by the next.
    pub derived: Derived,
}

/// Things made of an entity's state and kept beside it, by number: gone with the state.
#[derive(Default)]
pub struct Derived(Mutex<Vec<(u64, Arc<dyn Any + Send + Sync>)>>);

/// Things kept beside one state.
const MAX_DERIVED: usize = 4;

impl Clone for Derived {
    /// A clone is about to become another state.
    fn clone(&self) -> Self {
        Derived::default()
    }
}

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
        if self.per_subject {
            Under::Subject(self.dataset, self.number)
        } else {
            Under::Dataset(self.dataset)
        }
    }
}

#[derive(Default)]
pub struct Entities {
    /// By number; numbers are given in order from 1.
    slots: Vec<Option<Arc<Held>>>,
    by_id: HashMap<String, u64>,
    by_type: HashMap<Name, BTreeSet<u64>>,
    by_dataset: HashMap<u32, u64>,
    living: usize,
}

impl Entities {
    pub fn next_number(&self) -> u64 {
        // 0 stands for no entity.
        self.slots.len().max(1) as u64
    }

    pub fn get(&self, number: u64) -> Option<&Arc<Held>> {
        self.slots.get(usize::try_from(number).ok()?)?.as_ref()
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Held> {
        let held = Arc::make_mut(self.slots.get_mut(usize::try_from(number).ok()?)?.as_mut()?);
        held.derived = Derived::default();
        Some(held)
    }

    pub fn by_id(&self, id: &str) -> Option<&Arc<Held>> {
        self.get(*self.by_id.get(id)?)
    }

    pub fn number_of(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    pub fn living(&self) -> usize {
        self.living
    }

    /// Living entities in a dataset.
    pub fn count_of(&self, dataset: u32) -> u64 {
        self.by_dataset.get(&dataset).copied().unwrap_or(0)
    }

    /// Entities that have the type, in the order they were created.
    pub fn of_type<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<Held>> + use<'a> {
        self.by_type.get(name).into_iter().flatten().filter_map(|number| self.get(*number))
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.slots.iter().flatten()
    }

    pub fn types(&self) -> impl Iterator<Item = &Name> {
        self.by_type.iter().filter(|(_, numbers)| !numbers.is_empty()).map(|(name, _)| name)
    }

    pub fn put(&mut self, mut held: Held) {
        let number = held.number;
        // What stays for years takes no more room than it needs.
        if let Some(entity) = Arc::get_mut(&mut held.entity) {
            entity.attributes.shrink_to_fit();
        }
        if let Some(series) = Arc::get_mut(&mut held.series) {
            series.shrink_to_fit();
        }
        self.unlink(number);
        for name in &held.entity.types {
            self.by_type.entry(name.clone()).or_default().insert(number);
        }
        self.by_id.insert(held.entity.id.clone(), number);
        if held.deleted.is_none() {
            self.living += 1;
            *self.by_dataset.entry(held.dataset).or_default() += 1;
        }
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
        }
        self.slots[at] = Some(Arc::new(held));
    }

    fn unlink(&mut self, number: u64) {
        let Some(old) = usize::try_from(number).ok().and_then(|at| self.slots.get(at)?.as_ref())
        else {
            return;
        };
        for name in &old.entity.types {
            if let Some(numbers) = self.by_type.get_mut(name) {
                numbers.remove(&number);
            }
        }
        if old.deleted.is_none() {
            self.living -= 1;
            *self.by_dataset.entry(old.dataset).or_default() -= 1;
        }
        self.by_id.remove(&old.entity.id);
    }

    /// Takes an entity away for good.
    pub fn remove(&mut self, number: u64) {
        self.unlink(number);
        if let Some(slot) = usize::try_from(number).ok().and_then(|at| self.slots.get_mut(at)) {
            *slot = None;
        }
    }

    /// Replaces the state only: id, types and dataset are as they were.
    pub fn set_state(&mut self, number: u64, entity: Arc<Entity>) {
        if let Some(held) = self.get_mut(number) {
            held.entity = entity;
            held.ahead = true;
        }
    }

    pub fn load(&mut self, doc: EntityDoc) {
        self.put(Held {
            number: doc.number,
            dataset: doc.dataset,
            per_subject: doc.per_subject,
            entity: Arc::new(doc.entity),
            series: Arc::new(doc.series),
            deleted: doc.deleted,
            commit: doc.commit,
            ahead: false,
            derived: Derived::default(),
        });
    }

    /// Brings the state up to a row of a later commit: what happened when it was written.
    pub fn replay(
        &mut self,
        number: u64,
        series: u32,
        (at, value): (i64, f64),
        commit: u64,
        time: Time,
    ) {
        if self.get(number).is_none_or(|held| held.commit >= commit) {
            return;
        }
        let Some(held) = self.get_mut(number) else { return };
        let known = held.series.clone();
        let Some(series) = known.iter().find(|known| known.number == series) else { return };
        held.ahead |= series.step(Arc::make_mut(&mut held.entity), Time(at), value, time);
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
