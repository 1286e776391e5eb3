//! What a decision lets a session see.

use crate::{Attribute, Content, Dataset, Entity, Instance, Name, Sensitivity, Value, Withheld};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a session sees the attributes of one sensitivity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sight {
    /// The attribute does not exist for this session.
    Hidden,
    /// What the dataset says is shown instead: a mask, a coarser value, or nothing.
    Glimpse,
    /// As it is.
    Clear,
}

/// What a decision lets a session see of a dataset, attribute by attribute.
///
/// It is applied before any filter, order, count, aggregate, page or watch, so that no query is an
/// oracle for what is withheld.
#[derive(Clone, Debug)]
pub struct Lens {
    pub dataset: Arc<Dataset>,
    /// By [`Sensitivity`] as index.
    pub sights: [Sight; 5],
    /// Only sums over many may be answered.
    pub aggregate_only: bool,
}

/// The text that stands for a masked one.
pub const MASK: &str = "***";

impl Lens {
    /// The lens through which the hub itself looks: everything.
    pub fn clear(dataset: Arc<Dataset>) -> Lens {
        Lens { dataset, sights: [Sight::Clear; 5], aggregate_only: false }
    }

    /// Whether whatever may lie in the dataset is shown as it is: also what its model does not name any
    /// more, or did not yet when it came.
    pub fn is_clear(&self) -> bool {
        self.shows_model() && self.sight_of(self.dataset.undeclared) == Sight::Clear
    }

    /// Whether everything that the dataset's model allows is shown as it is.
    pub fn shows_model(&self) -> bool {
        let mut used = self.dataset.each_sensitivity();
        !self.aggregate_only && used.all(|s| self.sight_of(s) == Sight::Clear)
    }

    /// Whether nothing at all is shown.
    pub fn is_blind(&self) -> bool {
        let named = &self.dataset.attributes;
        let undeclared = !self.dataset.closed || named.is_empty();
        named.iter().all(|attribute| self.sight(&attribute.name).0 == Sight::Hidden)
            // Nothing stands in for what is not declared.
            && !(undeclared && self.sight_of(self.dataset.undeclared) == Sight::Clear)
    }

    /// Whether everything is shown alike through both.
    pub fn is_like(&self, other: &Lens) -> bool {
        let treated = |of: &Dataset| {
            (of.attributes == self.dataset.attributes, of.undeclared, of.about_people)
        };
        (self.sights, self.aggregate_only) == (other.sights, other.aggregate_only)
            && treated(&self.dataset) == treated(&other.dataset)
    }

    /// How attributes of this sensitivity are seen.
    pub fn sight_of(&self, sensitivity: Sensitivity) -> Sight {
        self.sights[sensitivity as usize]
    }

    /// How the attribute called `name` is seen, and what stands in for it when glimpsed.
    pub fn sight(&self, name: &Name) -> (Sight, Withheld) {
        let (sensitivity, withheld) = self.dataset.treatment(name);
        match (self.sight_of(sensitivity), withheld) {
            (Sight::Glimpse, Withheld::Hide) => (Sight::Hidden, Withheld::Hide),
            (sight, withheld) => (sight, withheld),
        }
    }

    /// The names of declared attributes that are not shown as they are.
    pub fn withheld(&self) -> Vec<&Name> {
        let hidden = |name: &&Name| self.sight(name).0 != Sight::Clear;
        self.dataset.attributes.iter().map(|a| &a.name).filter(hidden).collect()
    }

    /// The entity as this session sees it.
    pub fn apply(&self, entity: &Entity) -> Entity {
        let seen = |attribute: &Attribute| self.apply_attribute(attribute);
        let attributes: Vec<Attribute> = entity.attributes.iter().filter_map(seen).collect();
        // When something that is not shown was changed, or went, is not shown either.
        let shown = attributes.iter().flat_map(|attribute| &attribute.instances);
        let modified = shown.map(|instance| instance.modified).max();
        Entity {
            id: entity.id.clone(),
            types: entity.types.clone(),
            scopes: entity.scopes.clone(),
            created: entity.created,
            modified: modified.unwrap_or(entity.created),
            attributes,
        }
    }

    /// One attribute as this session sees it; none when hidden.
    pub fn apply_attribute(&self, attribute: &Attribute) -> Option<Attribute> {
        let (sight, withheld) = self.sight(&attribute.name);
        match sight {
            Sight::Hidden => None,
            Sight::Clear => Some(attribute.clone()),
            Sight::Glimpse => Some(Attribute {
                name: attribute.name.clone(),
                instances: attribute.instances.iter().map(|i| glimpse(i, withheld)).collect(),
            }),
        }
    }

    /// One value of a history as this session sees it; none when hidden.
    pub fn apply_instance(&self, name: &Name, instance: &Instance) -> Option<Instance> {
        match self.sight(name) {
            (Sight::Hidden, _) => None,
            (Sight::Clear, _) => Some(instance.clone()),
            (Sight::Glimpse, withheld) => Some(glimpse(instance, withheld)),
        }
    }
}

/// An instance with its value replaced, and nothing else said that could give it away.
fn glimpse(instance: &Instance, withheld: Withheld) -> Instance {
    let content = match (withheld, &instance.content) {
        (Withheld::Coarsen { step }, Content::Property(value)) => {
            Content::Property(coarsen_value(value, step))
        }
        (Withheld::Coarsen { step }, Content::GeoProperty(geometry)) => {
            Content::GeoProperty(coarsen_place(geometry, step))
        }
        (_, Content::GeoProperty(_)) => Content::Property(Value::from(MASK)),
        _ => Content::Property(Value::from(MASK)),
    };
    Instance {
        instance_id: instance.instance_id.clone(),
        unit: instance.unit.clone(),
        observed_at: instance.observed_at,
        created: instance.created,
        modified: instance.modified,
        ..Instance::of(content)
    }
}

fn coarsen_number(number: f64, step: f64) -> f64 {
    // Rounded again, so that 0.1 * 3 does not print its binary tail.
    let coarse = (number / step).floor() * step;
    (coarse * 1e9).round() / 1e9
}

fn coarsen_value(value: &Value, step: f64) -> Value {
    match value.as_number() {
        Some(number) if step > 0.0 => Value::from_number(coarsen_number(number, step)),
        _ => Value::from(MASK),
    }
}

/// The south-west corner of the cell of `step` degrees in which the geometry's first point lies:
/// whatever the shape was, a coarsened place is one point.
fn coarsen_place(geometry: &Value, step: f64) -> Value {
    fn first_position(value: &Value) -> Option<(f64, f64)> {
        match value {
            Value::List(items) => match items.as_slice() {
                [a, b, ..] if a.as_number().is_some() => Some((a.as_number()?, b.as_number()?)),
                items => items.iter().find_map(first_position),
            },
            _ => None,
        }
    }
    let Some((lon, lat)) = geometry.get("coordinates").and_then(first_position) else {
        return Value::from(MASK);
    };
    let axis = |number: f64| Value::from_number(coarsen_number(number, step));
    Value::Map(vec![
        ("type".into(), Value::from("Point")),
        ("coordinates".into(), Value::List(vec![axis(lon), axis(lat)])),
    ])
}
