//! Numbers and places of entities that are alike, in columns: what readings move and questions
//! compare, without decoding an entity.

use crate::{Series, Step};
use model::{Attribute, Content, Entity, Instance, Name, Time, Value};
use std::hash::{Hash, Hasher};

/// A number in the state of every entity of a table: a plain property of which nothing is said but
/// its unit and time.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: Name,
    pub instance_id: Option<String>,
    pub unit: Option<String>,
    pub observed: bool,
    /// Its attribute has no other instance.
    pub sole: bool,
}

/// The number an instance is, if that and its unit and time are all there is to it.
fn plain_number(instance: &Instance) -> Option<f64> {
    let Content::Property(value) = &instance.content else { return None };
    value.as_exact_number().filter(|_| instance.parts.is_empty())
}

fn numbers_of(entity: &Entity) -> impl Iterator<Item = (&Attribute, &Instance, f64)> {
    entity.attributes.iter().flat_map(|attribute| {
        attribute.instances.iter().filter_map(move |i| Some((attribute, i, plain_number(i)?)))
    })
}

/// Longitude and latitude of the entity's `location`, if that is one point.
fn place_of(entity: &Entity) -> Option<(f64, f64)> {
    match entity.attribute("location")?.instances.as_slice() {
        [Instance { content: Content::GeoProperty(place), .. }] => place.as_point(),
        _ => None,
    }
}

fn kind_of(attribute: &Attribute) -> &'static str {
    attribute.default_instance().map_or("Property", |instance| instance.content.kind())
}

/// A digest over what makes entities alike.
pub fn shape_hash(dataset: u32, entity: &Entity, mut hasher: impl Hasher) -> u64 {
    dataset.hash(&mut hasher);
    entity.types.hash(&mut hasher);
    for attribute in &entity.attributes {
        (&attribute.name, kind_of(attribute)).hash(&mut hasher);
    }
    for (attribute, instance, _) in numbers_of(entity) {
        attribute.name.hash(&mut hasher);
        (&instance.instance_id, &instance.unit, instance.observed_at.is_some()).hash(&mut hasher);
    }
    place_of(entity).is_some().hash(&mut hasher);
    hasher.finish()
}

#[derive(Clone, Copy)]
struct Cell {
    /// `observedAt`, where the field has one.
    at: i64,
    modified: i64,
    /// The series whose latest number this is; 0: none.
    series: u32,
}

/// The entities of one dataset that have the same types, attributes and numbers.
#[derive(Default)]
pub struct Table {
    pub dataset: u32,
    pub types: Vec<Name>,
    /// Of every entity here, in their order.
    pub attributes: Vec<Name>,
    /// What kind each of these is.
    pub kinds: Vec<&'static str>,
    pub fields: Vec<Field>,
    pub(crate) hash: u64,
    placed: bool,
    /// By row: surrogate of the entity.
    numbers: Vec<u64>,
    modified: Vec<i64>,
    /// By field, then row.
    values: Vec<Vec<f64>>,
    /// By row, then field.
    cells: Vec<Cell>,
    places: Vec<(f64, f64)>,
}

/// A number as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Current {
    pub series: u32,
    pub value: f64,
    pub observed_at: Option<Time>,
}

impl Table {
    pub(crate) fn new(dataset: u32, hash: u64, entity: &Entity) -> Table {
        let field = |(attribute, instance, _): (&Attribute, &Instance, f64)| Field {
            name: attribute.name.clone(),
            instance_id: instance.instance_id.clone(),
            unit: instance.unit.clone(),
            observed: instance.observed_at.is_some(),
            sole: attribute.instances.len() == 1,
        };
        let fields: Vec<Field> = numbers_of(entity).map(field).collect();
        Table {
            dataset,
            types: entity.types.clone(),
            attributes: entity.attributes.iter().map(|attribute| attribute.name.clone()).collect(),
            kinds: entity.attributes.iter().map(kind_of).collect(),
            hash,
            placed: place_of(entity).is_some(),
            numbers: Vec::new(),
            modified: Vec::new(),
            values: fields.iter().map(|_| Vec::new()).collect(),
            cells: Vec::new(),
            places: Vec::new(),
            fields,
        }
    }

    /// Whether an entity is alike those here.
    pub(crate) fn takes(&self, dataset: u32, entity: &Entity) -> bool {
        let same = |((attribute, instance, _), field): ((&Attribute, &Instance, f64), &Field)| {
            attribute.name == field.name
                && instance.instance_id == field.instance_id
                && instance.unit == field.unit
                && instance.observed_at.is_some() == field.observed
                && (attribute.instances.len() == 1) == field.sole
        };
        self.dataset == dataset
            && self.types == entity.types
            && self.attributes.iter().eq(entity.attributes.iter().map(|a| &a.name))
            && self.kinds.iter().copied().eq(entity.attributes.iter().map(kind_of))
            && numbers_of(entity).count() == self.fields.len()
            && numbers_of(entity).zip(&self.fields).all(same)
            && place_of(entity).is_some() == self.placed
    }

    /// How many entities are here.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Surrogates of the entities, by row.
    pub fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// The numbers of a field, by row.
    pub fn values(&self, field: usize) -> &[f64] {
        self.values.get(field).map(Vec::as_slice).unwrap_or_default()
    }

    /// Longitude and latitude of each entity's `location`, by row; none where that is no one point.
    pub fn places(&self) -> Option<&[(f64, f64)]> {
        self.placed.then_some(&self.places)
    }

    pub(crate) fn push(&mut self, number: u64, entity: &Entity, series: &[Series]) -> usize {
        self.numbers.push(number);
        self.modified.push(0);
        self.values.iter_mut().for_each(|column| column.push(0.0));
        let cell = Cell { at: 0, modified: 0, series: 0 };
        self.cells.resize(self.numbers.len() * self.fields.len(), cell);
        if self.placed {
            self.places.push((0.0, 0.0));
        }
        let row = self.numbers.len() - 1;
        self.set(row, entity, Some(series));
        row
    }

    /// Sets a row to the state of an entity that is alike; its series stay unless given.
    pub(crate) fn set(&mut self, row: usize, entity: &Entity, series: Option<&[Series]>) {
        self.modified[row] = entity.modified.0;
        let width = self.fields.len();
        let cells = &mut self.cells[row * width..(row + 1) * width];
        let parts = numbers_of(entity).zip(cells).zip(&mut self.values).zip(&self.fields);
        for ((((_, instance, number), cell), values), field) in parts {
            values[row] = number;
            cell.at = instance.observed_at.unwrap_or_default().0;
            cell.modified = instance.modified.0;
            if let Some(series) = series {
                let of_field = series.iter().find(|series| field.is_of(series));
                cell.series = of_field.map_or(0, |series| series.number);
            }
        }
        if let Some(place) = self.places.get_mut(row) {
            *place = place_of(entity).unwrap_or_default();
        }
    }

    /// Takes a row out; gives the entity that now has its place, if another does.
    pub(crate) fn swap_remove(&mut self, row: usize) -> Option<u64> {
        self.numbers.swap_remove(row);
        self.modified.swap_remove(row);
        for column in &mut self.values {
            column.swap_remove(row);
        }
        let (width, last) = (self.fields.len(), self.numbers.len());
        self.cells.copy_within(last * width.., row * width);
        self.cells.truncate(last * width);
        if self.placed {
            self.places.swap_remove(row);
        }
        self.numbers.get(row).copied()
    }

    /// Brings an encoded state up to its row.
    pub(crate) fn overlay(&self, row: usize, entity: &mut Entity) {
        entity.modified = Time(self.modified[row]);
        for (index, field) in self.fields.iter().enumerate() {
            let attribute = entity.attribute_mut(field.name.as_str());
            let same = |i: &&mut Instance| i.instance_id == field.instance_id;
            let Some(instance) = attribute.and_then(|a| a.instances.iter_mut().find(same)) else {
                continue;
            };
            let cell = self.cells[row * self.fields.len() + index];
            instance.content = Content::Property(Value::from_number(self.values[index][row]));
            instance.modified = Time(cell.modified);
            if field.observed {
                instance.observed_at = Some(Time(cell.at));
            }
        }
    }

    fn field_of(&self, row: usize, series: u32) -> Option<usize> {
        let cells = self.cells.get(row * self.fields.len()..)?.iter().take(self.fields.len());
        cells.into_iter().position(|cell| cell.series == series)
    }

    fn current(&self, row: usize, field: usize) -> Option<Current> {
        let cell = self.cells.get(row * self.fields.len() + field)?;
        let observed_at = self.fields.get(field)?.observed.then_some(Time(cell.at));
        let value = *self.values.get(field)?.get(row)?;
        (cell.series != 0).then_some(Current { series: cell.series, value, observed_at })
    }

    /// Moves a number, unless it is older than what is there; says whether it did. None when the
    /// series is of no field.
    pub(crate) fn step(&mut self, row: usize, step: &Step, now: Time) -> Option<bool> {
        let index = self.field_of(row, step.series)?;
        let cell = &mut self.cells[row * self.fields.len() + index];
        if self.fields[index].observed {
            let at = step.at.unwrap_or(now).0;
            if cell.at > at {
                return Some(false);
            }
            cell.at = at;
        }
        cell.modified = now.0;
        self.values[index][row] = step.value;
        self.modified[row] = now.0;
        Some(true)
    }
}

impl Field {
    fn is_of(&self, series: &Series) -> bool {
        !series.rich
            && series.name == self.name
            && series.instance_id == self.instance_id
            && series.unit == self.unit
            && series.observed == self.observed
    }
}

/// What is known of a living entity without decoding it.
#[derive(Clone, Copy)]
pub struct Glance<'a> {
    pub(crate) number: u64,
    pub(crate) id: &'a str,
    pub(crate) table: &'a Table,
    pub(crate) row: usize,
}

impl<'a> Glance<'a> {
    /// Surrogate of the entity.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn id(&self) -> &'a str {
        self.id
    }

    /// What all entities alike it have.
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// Its row in the table.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The number that an attribute's default instance is, in this unit, observed or not, if
    /// readings of it have a series.
    pub fn number_called(&self, name: &str, unit: Option<&str>, observed: bool) -> Option<Current> {
        let same = |field: &Field| {
            field.name.as_str() == name
                && field.instance_id.is_none()
                && field.unit.as_deref() == unit
                && field.observed == observed
        };
        self.table.current(self.row, self.table.fields.iter().position(same)?)
    }

    /// The number that a series ends in, if the state is that number.
    pub fn number_of(&self, series: u32) -> Option<Current> {
        self.table.current(self.row, self.table.field_of(self.row, series)?)
    }
}
