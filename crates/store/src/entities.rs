//! Entities in memory: encoded as they were last written, with the numbers that readings move in
//! columns; by id, number, type, and with those that are alike.

use crate::held::{Derived, Held};
use crate::packed::Packed;
use crate::table::{Glance, Table, shape_hash};
use crate::{Series, Step};
use hashbrown::HashTable;
use model::{Entity, Name, Time};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Decoded entities kept for who asks next.
const MAX_WARM: usize = 16_384;
/// Tables; entities unlike all of these are decoded to be looked at.
const MAX_TABLES: usize = 16_384;
/// Numbers of entities in a table; one that has more is in none.
const MAX_FIELDS: usize = 256;
/// Of an entity in no table: it is deleted, has too many numbers, or there are too many tables.
const NO_TABLE: u32 = u32::MAX;

/// An entity as it comes from a commit or from disk.
pub struct Stored {
    pub number: u64,
    pub dataset: u32,
    pub per_subject: bool,
    pub deleted: Option<Time>,
    /// The commit of its document.
    pub commit: u64,
    pub packed: Packed,
}

struct Slot {
    packed: Packed,
    commit: u64,
    deleted: Option<Time>,
    dataset: u32,
    table: u32,
    row: u32,
    per_subject: bool,
    /// The state is ahead of the document on disk by rows that are.
    ahead: bool,
    /// The document on disk, where that is not what is packed.
    written: Option<Packed>,
    warm: Mutex<Option<Arc<Held>>>,
}

pub struct Entities {
    /// By number; numbers are given in order from 1.
    slots: Vec<Option<Slot>>,
    by_id: HashTable<u64>,
    by_type: HashMap<Name, BTreeSet<u64>>,
    by_dataset: HashMap<u32, u64>,
    tables: Vec<Table>,
    by_shape: HashTable<u32>,
    /// Places among the tables where none is.
    vacant: Vec<u32>,
    most_tables: usize,
    /// Living entities in no table.
    loose: BTreeSet<u64>,
    living: usize,
    hasher: RandomState,
    /// Entities that were decoded, the latest last.
    warmed: Mutex<VecDeque<u64>>,
}

impl Default for Entities {
    fn default() -> Self {
        Entities::new(MAX_TABLES)
    }
}

/// The hash of the id that an entity has.
fn hash_of(slots: &[Option<Slot>], hasher: &RandomState, number: u64) -> u64 {
    let slot = slots.get(index(number)).and_then(Option::as_ref);
    hasher.hash_one(slot.map_or("", |slot| slot.packed.id()))
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Entities {
    fn new(most_tables: usize) -> Entities {
        Entities {
            slots: Vec::new(),
            by_id: HashTable::new(),
            by_type: HashMap::new(),
            by_dataset: HashMap::new(),
            tables: Vec::new(),
            by_shape: HashTable::new(),
            vacant: Vec::new(),
            most_tables,
            loose: BTreeSet::new(),
            living: 0,
            hasher: RandomState::new(),
            warmed: Mutex::default(),
        }
    }

    /// Makes room for so many numbers, once instead of again and again.
    pub fn reserve(&mut self, numbers: usize) {
        self.slots.reserve_exact(numbers.saturating_sub(self.slots.len()));
        let (slots, hasher) = (&self.slots, &self.hasher);
        let more = numbers.saturating_sub(self.by_id.len());
        self.by_id.reserve(more, |number| hash_of(slots, hasher, *number));
    }

    pub fn next_number(&self) -> u64 {
        // 0 stands for no entity.
        self.slots.len().max(1) as u64
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        self.slots.get(index(number))?.as_ref()
    }

    /// An entity by number, deleted ones included, kept decoded for who asks next.
    pub fn held(&self, number: u64) -> Option<Arc<Held>> {
        let slot = self.slot(number)?;
        if let Some(held) = slot.warm.lock().clone() {
            return Some(held);
        }
        let held = Arc::new(self.decode(number, slot)?);
        *slot.warm.lock() = Some(held.clone());
        let mut warmed = self.warmed.lock();
        warmed.push_back(number);
        let coldest = if warmed.len() > MAX_WARM { warmed.pop_front() } else { None };
        drop(warmed);
        if let Some(slot) = coldest.and_then(|coldest| self.slot(coldest)) {
            *slot.warm.lock() = None;
        }
        Some(held)
    }

    /// The same for who looks at many in a row, and keeps none of them.
    pub fn peek(&self, number: u64) -> Option<Arc<Held>> {
        let slot = self.slot(number)?;
        let warm = slot.warm.lock().clone();
        warm.or_else(|| Some(Arc::new(self.decode(number, slot)?)))
    }

    /// Whether an entity is as it was found, but for what readings moved.
    pub fn is_as_found(&self, held: &Held) -> bool {
        self.slot(held.number).is_some_and(|slot| slot.commit == held.commit)
    }

    fn decode(&self, number: u64, slot: &Slot) -> Option<Held> {
        let (mut entity, series) = slot.packed.unpack()?;
        if let Some(table) = self.tables.get(slot.table as usize) {
            table.overlay(slot.row as usize, &mut entity);
        }
        Some(Held {
            number,
            dataset: slot.dataset,
            per_subject: slot.per_subject,
            entity: Arc::new(entity),
            series: Arc::new(series),
            deleted: slot.deleted,
            commit: slot.commit,
            derived: Derived::default(),
        })
    }

    /// A living entity as it lies; none also for one that is unlike all others.
    pub fn glance(&self, number: u64) -> Option<Glance<'_>> {
        let slot = self.slot(number)?;
        let table = self.tables.get(slot.table as usize)?;
        Some(Glance { number, id: slot.packed.id(), table, row: slot.row as usize })
    }

    pub fn number_of(&self, id: &str) -> Option<u64> {
        let is = |number: &u64| self.slot(*number).is_some_and(|slot| slot.packed.id() == id);
        self.by_id.find(self.hasher.hash_one(id), is).copied()
    }

    pub fn living(&self) -> usize {
        self.living
    }

    /// Living entities in a dataset.
    pub fn count_of(&self, dataset: u32) -> u64 {
        self.by_dataset.get(&dataset).copied().unwrap_or(0)
    }

    /// Entities that have the type, from a number on, in the order they were created; deleted ones too.
    pub fn of_type(&self, name: &str, from: u64) -> impl Iterator<Item = u64> + use<'_> {
        self.by_type.get(name).into_iter().flat_map(move |numbers| numbers.range(from..)).copied()
    }

    /// All entities from a number on, in the order they were created; deleted ones too.
    pub fn all(&self, from: u64) -> impl Iterator<Item = u64> + use<'_> {
        let there = |(number, slot): (usize, &Option<Slot>)| slot.as_ref().map(|_| number as u64);
        self.slots.iter().enumerate().skip(index(from)).filter_map(there)
    }

    /// Dataset of an entity.
    pub fn dataset_of(&self, number: u64) -> Option<u32> {
        self.slot(number).map(|slot| slot.dataset)
    }

    /// Dataset, whether its subjects have keys of their own, when it was deleted, and what is packed in
    /// the document on disk.
    pub fn written(&self, number: u64) -> Option<(u32, bool, Option<Time>, &Packed)> {
        let slot = self.slot(number)?;
        let packed = slot.written.as_ref().unwrap_or(&slot.packed);
        Some((slot.dataset, slot.per_subject, slot.deleted, packed))
    }

    /// Entities of a dataset whose state is ahead of documents that are not later than a commit.
    pub fn ahead(&self, dataset: u32, upto: u64) -> impl Iterator<Item = u64> + use<'_> {
        let ahead = move |(number, slot): (usize, &Option<Slot>)| {
            let slot = slot.as_ref()?;
            (slot.ahead && slot.dataset == dataset && slot.commit <= upto).then_some(number as u64)
        };
        self.slots.iter().enumerate().filter_map(ahead)
    }

    pub fn types(&self) -> impl Iterator<Item = &Name> {
        self.by_type.iter().filter(|(_, numbers)| !numbers.is_empty()).map(|(name, _)| name)
    }

    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Living entities in no table.
    pub fn loose(&self) -> impl Iterator<Item = u64> + use<'_> {
        self.loose.iter().copied()
    }

    /// Takes an entity as it was written: `entity` and `series` are what is packed.
    pub fn put(&mut self, stored: Stored, entity: &Entity, series: &[Series]) {
        let Stored { number, dataset, per_subject, deleted, commit, packed } = stored;
        let at = index(number);
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        let (mut table, mut row) = (NO_TABLE, 0);
        match self.slots[at].take() {
            None => {
                let (slots, hasher) = (&self.slots, &self.hasher);
                let again = |number: &u64| hash_of(slots, hasher, *number);
                self.by_id.insert_unique(hasher.hash_one(&*entity.id), number, again);
                self.link_types(number, &entity.types);
            }
            Some(old) => {
                let types = match self.tables.get(old.table as usize) {
                    Some(table) => table.types.clone(),
                    None => old.packed.unpack().map(|(e, _)| e.types).unwrap_or_default(),
                };
                if types != entity.types {
                    self.unlink_types(number, &types);
                    self.link_types(number, &entity.types);
                }
                (table, row) = (old.table, old.row);
                self.count(old.dataset, old.deleted, false);
            }
        }
        self.count(dataset, deleted, true);
        (table, row) = match self.tables.get_mut(table as usize) {
            Some(same) if deleted.is_none() && same.takes(dataset, entity) => {
                same.set(row as usize, entity, Some(series));
                (table, row)
            }
            _ => {
                self.leave(number, table, row);
                if deleted.is_some() {
                    (NO_TABLE, 0)
                } else {
                    self.join(dataset, number, entity, series)
                }
            }
        };
        let slot = Slot {
            packed,
            commit,
            deleted,
            dataset,
            table,
            row,
            per_subject,
            ahead: false,
            written: None,
            warm: Mutex::default(),
        };
        self.slots[at] = Some(slot);
    }

    fn link_types(&mut self, number: u64, types: &[Name]) {
        for name in types {
            self.by_type.entry(name.clone()).or_default().insert(number);
        }
    }

    fn unlink_types(&mut self, number: u64, types: &[Name]) {
        for name in types {
            if let Some(numbers) = self.by_type.get_mut(name) {
                numbers.remove(&number);
            }
        }
    }

    fn count(&mut self, dataset: u32, deleted: Option<Time>, comes: bool) {
        if deleted.is_some() {
            return;
        }
        let of = self.by_dataset.entry(dataset).or_default();
        (self.living, *of) =
            if comes { (self.living + 1, *of + 1) } else { (self.living - 1, *of - 1) };
    }

    /// Puts a living entity with those alike.
    fn join(
        &mut self,
        dataset: u32,
        number: u64,
        entity: &Entity,
        series: &[Series],
    ) -> (u32, u32) {
        let hash = shape_hash(dataset, entity, self.hasher.build_hasher());
        let tables = &self.tables;
        let takes = |at: &u32| tables[*at as usize].takes(dataset, entity);
        let at = match self.by_shape.find(hash, takes) {
            Some(at) => *at,
            None => {
                let table = Table::new(dataset, hash, entity);
                let full = self.vacant.is_empty() && self.tables.len() >= self.most_tables;
                if full || table.fields.len() > MAX_FIELDS {
                    self.loose.insert(number);
                    return (NO_TABLE, 0);
                }
                let new = || u32::try_from(self.tables.len()).unwrap_or(NO_TABLE);
                let at = self.vacant.pop().unwrap_or_else(new);
                let hash_of = |at: &u32| tables[*at as usize].hash;
                self.by_shape.insert_unique(hash, at, hash_of);
                match self.tables.get_mut(at as usize) {
                    Some(place) => *place = table,
                    None => self.tables.push(table),
                }
                at
            }
        };
        let row = self.tables[at as usize].push(number, entity, series);
        (at, u32::try_from(row).unwrap_or(u32::MAX))
    }

    fn leave(&mut self, number: u64, table: u32, row: u32) {
        self.loose.remove(&number);
        let Some(from) = self.tables.get_mut(table as usize) else { return };
        if let Some(moved) = from.swap_remove(row as usize)
            && let Some(Some(slot)) = self.slots.get_mut(index(moved))
        {
            slot.row = row;
        }
        if from.is_empty() {
            // Whoever changes what it looks like again and again leaves nothing behind.
            if let Ok(entry) = self.by_shape.find_entry(from.hash, |at| *at == table) {
                entry.remove();
            }
            *from = Table::default();
            self.vacant.push(table);
        }
    }

    /// Takes an entity away for good.
    pub fn remove(&mut self, number: u64) {
        let Some(old) = self.slots.get_mut(index(number)).and_then(Option::take) else { return };
        self.leave(number, old.table, old.row);
        self.count(old.dataset, old.deleted, false);
        let types = old.packed.unpack().map(|(entity, _)| entity.types).unwrap_or_default();
        self.unlink_types(number, &types);
        let hash = self.hasher.hash_one(old.packed.id());
        if let Ok(entry) = self.by_id.find_entry(hash, |found| *found == number) {
            entry.remove();
        }
    }

    /// Replaces the state only: id, types and dataset are as they were.
    pub fn set_state(&mut self, number: u64, entity: &Entity) {
        let Some(slot) = self.slots.get_mut(index(number)).and_then(Option::as_mut) else { return };
        *slot.warm.get_mut() = None;
        match self.tables.get_mut(slot.table as usize) {
            Some(table) if table.takes(slot.dataset, entity) => {
                table.set(slot.row as usize, entity, None);
                slot.ahead = true;
            }
            _ => self.replace(number, entity),
        }
    }

    /// Encodes a state anew that is more than moved numbers.
    fn replace(&mut self, number: u64, entity: &Entity) {
        let Some(slot) = self.slot(number) else { return };
        let Some((_, series)) = slot.packed.unpack() else { return };
        let written = slot.written.as_ref().unwrap_or(&slot.packed).clone();
        let stored = Stored {
            number,
            dataset: slot.dataset,
            per_subject: slot.per_subject,
            deleted: slot.deleted,
            commit: slot.commit,
            packed: Packed::of(entity, &series),
        };
        self.put(stored, entity, &series);
        if let Some(slot) = self.slots.get_mut(index(number)).and_then(Option::as_mut) {
            (slot.ahead, slot.written) = (true, Some(written));
        }
    }

    /// Brings the state up to a row of a later commit: what happened when it was written.
    pub fn replay(&mut self, step: &Step, commit: u64, time: Time) {
        let slot = self.slots.get_mut(index(step.entity)).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.commit < commit) else { return };
        let table = self.tables.get_mut(slot.table as usize);
        if let Some(moved) = table.and_then(|table| table.step(slot.row as usize, step, time)) {
            slot.ahead |= moved;
            if moved {
                *slot.warm.get_mut() = None;
            }
            return;
        }
        let Some(held) = self.peek(step.entity) else { return };
        let known = held.series.iter().find(|known| known.number == step.series);
        let mut entity = held.entity.as_ref().clone();
        let at = step.at.unwrap_or(time);
        if known.is_some_and(|series| series.step(&mut entity, at, step.value, time)) {
            self.replace(step.entity, &entity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Attribute, Content, Instance, Value};
    use proptest::prelude::*;

    /// An entity whose attributes are numbers, texts or missing, by what the digits of `like` say.
    fn entity(number: u64, like: u32, value: f64) -> (Entity, Vec<Series>) {
        let (mut attributes, mut all) = (Vec::new(), Vec::new());
        for n in 0..3u32 {
            let digit = like / 4u32.pow(n) % 4;
            let content = match digit {
                0 => continue,
                1 => Content::Property(Value::from("text")),
                _ => Content::Property(Value::from_number(value)),
            };
            let name = Name::new(&format!("a{n}"));
            let observed_at = (digit == 3).then_some(Time(5));
            let instance = Instance { observed_at, ..Instance::of(content) };
            all.push(Series {
                number: u32::try_from(number).unwrap() * 10 + n,
                name: name.clone(),
                instance_id: None,
                unit: None,
                observed: digit == 3,
                rich: digit == 1,
            });
            attributes.push(Attribute { name, instances: vec![instance] });
        }
        let types = vec![Name::new(if like.is_multiple_of(2) { "Even" } else { "Odd" })];
        let id = format!("urn:x:{number}");
        let (scopes, created, modified) = (Vec::new(), Time(1), Time(1));
        (Entity { id, types, scopes, created, modified, attributes }, all)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// With tables or without, after whatever was done, the same is there.
        #[test]
        fn tables_change_nothing(
            acts in prop::collection::vec((0u8..8, 1u64..7, 0u32..64, -50f64..50.0), 1..80),
        ) {
            let mut all = [Entities::new(64), Entities::new(2), Entities::new(0)];
            for (commit, (act, number, like, value)) in (1u64..).zip(acts) {
                let (state, series) = entity(number, like, value);
                for entities in &mut all {
                    let before = entities.peek(number).filter(|held| held.deleted.is_none());
                    match (act, before) {
                        (0..3, _) | (3, Some(_)) => {
                            let deleted = (act == 3).then_some(Time(9));
                            let packed = Packed::of(&state, &series);
                            let (dataset, per_subject) = (like % 3, false);
                            let stored =
                                Stored { number, dataset, per_subject, deleted, commit, packed };
                            entities.put(stored, &state, &series);
                        }
                        (4, _) => entities.remove(number),
                        (5, Some(before)) => {
                            let mut moved = before.entity.as_ref().clone();
                            moved.modified = Time(7);
                            entities.set_state(number, &moved);
                        }
                        (_, Some(_)) => {
                            let series = u32::try_from(number).unwrap() * 10 + like % 3;
                            let at = Some(Time(i64::from(like % 9)));
                            let step = Step { entity: number, series, at, value };
                            entities.replay(&step, commit, Time(8));
                        }
                        _ => {}
                    }
                }
            }
            let shown = |entities: &Entities| {
                let of = |number| {
                    let held = entities.peek(number)?;
                    assert_eq!(entities.number_of(&held.entity.id), Some(number));
                    Some((held.entity.clone(), held.series.clone(), held.deleted, held.dataset))
                };
                let counts = [0, 1, 2].map(|dataset| entities.count_of(dataset));
                let ahead: Vec<u64> = entities.ahead(1, u64::MAX).collect();
                let even: Vec<u64> = entities.of_type("Even", 0).collect();
                for from in 1..8 {
                    let later = even.iter().copied().filter(|number| *number >= from);
                    assert!(entities.of_type("Even", from).eq(later));
                    assert!(entities.all(from).eq(entities.all(0).filter(|n| *n >= from)));
                }
                ((1..7).map(of).collect::<Vec<_>>(), entities.living(), counts, ahead, even)
            };
            prop_assert_eq!(shown(&all[0]), shown(&all[1]));
            prop_assert_eq!(shown(&all[0]), shown(&all[2]));
            for number in 1..7 {
                prop_assert!(all[2].glance(number).is_none());
                if let Some(found) = all[0].glance(number) {
                    prop_assert_eq!(found.id(), format!("urn:x:{number}"));
                    prop_assert_eq!(found.table().numbers()[found.row()], number);
                }
            }
        }
    }
}
