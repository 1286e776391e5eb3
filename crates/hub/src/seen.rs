//! Entities as sessions see them.

use guard::Verdict;
use model::{Entity, Lens, Name, Sensitivity, Sight};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use store::Held;

/// An entity as a session sees it: through its lens, and how sensitive that is.
#[derive(Debug)]
pub struct Seen {
    entity: Arc<Entity>,
    /// The highest sensitivity of what is shown.
    pub level: Sensitivity,
    text: OnceLock<Box<[u8]>>,
}

impl Deref for Seen {
    type Target = Entity;

    fn deref(&self) -> &Entity {
        &self.entity
    }
}

impl Seen {
    /// The entity as it is seen.
    pub fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    /// Looks at an entity through the lens of a verdict.
    pub(crate) fn new(held: &Held, verdict: &Verdict) -> Seen {
        let entity = verdict.see(&held.entity);
        let level = level_of(&verdict.lens, entity.attributes.iter().map(|a| &a.name));
        Seen { entity, level, text: OnceLock::new() }
    }

    /// The same, kept beside the entity's state for whoever looks through this lens next.
    pub(crate) fn kept(held: &Held, verdict: &Verdict) -> Arc<Seen> {
        if let Some(seen) = held.derived.get(verdict.id) {
            return seen;
        }
        let seen = Arc::new(Seen::new(held, verdict));
        held.derived.keep(verdict.id, seen.clone());
        seen
    }

    /// The entity written in the one form that most ask for, made by the first who asks.
    pub fn text(&self, write: impl FnOnce(&Entity) -> Vec<u8>) -> &[u8] {
        self.text.get_or_init(|| write(&self.entity).into_boxed_slice())
    }
}

/// The highest sensitivity shown of an entity with these attributes.
pub(crate) fn level_of<'a>(lens: &Lens, names: impl Iterator<Item = &'a Name>) -> Sensitivity {
    let shown = names.filter(|name| lens.sight(name).0 != Sight::Hidden);
    let level = shown.map(|name| lens.dataset.treatment(name).0).max().unwrap_or(Sensitivity::Open);
    // That somebody is on a list about people is personal in itself.
    if lens.dataset.about_people { level.max(Sensitivity::Personal) } else { level }
}
