//! Entities in memory: their current state, by id, number and type.

use crate::codec::EntityDoc;
use crate::{Evidence, Under};
use model::{Content, Entity, Name, Time, Value};
use serde::{Deserialize, Serialize};
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
    pub evidence: Evidence,
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
    slots: Vec<Option<Held>>,
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

    pub fn get(&self, number: u64) -> Option<&Held> {
        self.slots.get(usize::try_from(number).ok()?)?.as_ref()
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Held> {
        self.slots.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    pub fn by_id(&self, id: &str) -> Option<&Held> {
        self.get(*self.by_id.get(id)?)
    }

    pub fn living(&self) -> usize {
        self.living
    }

    /// Living entities in a dataset.
    pub fn count_of(&self, dataset: u32) -> u64 {
        self.by_dataset.get(&dataset).copied().unwrap_or(0)
    }

    /// Entities that have the type, in the order they were created.
    pub fn of_type<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Held> + use<'a> {
        self.by_type.get(name).into_iter().flatten().filter_map(|number| self.get(*number))
    }

    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.slots.iter().flatten()
    }

    pub fn types(&self) -> impl Iterator<Item = &Name> {
        self.by_type.iter().filter(|(_, numbers)| !numbers.is_empty()).map(|(name, _)| name)
    }

    pub fn put(&mut self, held: Held) {
        let number = held.number;
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
        self.slots[at] = Some(held);
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
            evidence: doc.evidence,
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
        let Some(held) = self.get_mut(number).filter(|held| held.commit < commit) else { return };
        let Some(series) = held.series.iter().find(|s| s.number == series).cloned() else { return };
        let entity = Arc::make_mut(&mut held.entity);
        let Some(attribute) = entity.attribute_mut(series.name.as_str()) else { return };
        let same = |i: &&mut model::Instance| i.instance_id == series.instance_id;
        let Some(instance) = attribute.instances.iter_mut().find(same) else { return };
        if series.observed {
            if instance.observed_at.is_some_and(|observed| observed.0 > at) {
                return;
            }
            instance.observed_at = Some(Time(at));
        }
        instance.content = Content::Property(Value::from_number(value));
        instance.modified = time;
        entity.modified = time;
        held.ahead = true;
    }
}
