//! Entities that relationships lead to (ETSI GS CIM 009 clause 4.5.23), each through its own lens.

use crate::lenses::Lenses;
use crate::{Hub, HubError, Seen};
use model::{Content, Entity, Sensitivity, Session};
use ngsild::{Invalid, Linked, MAX_JOIN_LEVELS, Members};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How linked entities are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Inside the relationships that lead to them; otherwise beside the entities.
    pub inline: bool,
    pub levels: usize,
    /// Ids that are not followed.
    pub without: Vec<String>,
}

/// A linked entity: its dataset, what is seen of it, and what of that is wanted.
pub struct Found {
    pub number: u64,
    pub dataset: u32,
    pub seen: Arc<Seen>,
    pub members: Members,
}

fn objects<'a>(
    entity: &'a Entity,
    members: &'a Members,
) -> impl Iterator<Item = (&'a str, Members)> {
    let wanted = entity.attributes.iter().filter(|attribute| members.wants(&attribute.name));
    wanted.flat_map(|attribute| {
        let of = |content: &'a Content| match content {
            Content::Relationship { objects, .. } | Content::ListRelationship(objects) => {
                objects.as_slice()
            }
            _ => &[],
        };
        let instances = attribute.instances.iter().filter(|one| members.wants_instance(one));
        let ids = instances.flat_map(move |instance| of(&instance.content));
        ids.map(|id| (id.as_str(), members.within(&attribute.name)))
    })
}

impl Hub {
    /// Follows relationships from entities, each entity once; what is not there for the session is
    /// left out. None when there are more than a page may have.
    pub(crate) fn follow<'a>(
        &self,
        lenses: &mut Lenses<'_>,
        from: impl Iterator<Item = (&'a Entity, &'a Members)>,
        join: &Join,
    ) -> Option<Vec<Found>> {
        let from: Vec<_> = from.collect();
        let mut known: HashSet<String> = join.without.iter().cloned().collect();
        if !join.inline {
            known.extend(from.iter().map(|(entity, _)| entity.id.clone()));
        }
        let mut found: Vec<Found> = Vec::new();
        let mut next: Vec<(String, Members)> = Vec::new();
        let add = |next: &mut Vec<(String, Members)>, entity: &Entity, members: &Members| {
            next.extend(objects(entity, members).map(|(id, within)| (id.to_owned(), within)));
        };
        from.iter().for_each(|(entity, members)| add(&mut next, entity, members));
        let now = self.store.now();
        for _ in 0..join.levels {
            let begun = found.len();
            for (id, members) in std::mem::take(&mut next) {
                let held = now.number_of(&id).and_then(|number| now.by_number(number));
                let seen = held.as_ref().and_then(|held| lenses.see(held));
                let (Some(held), Some(seen), true) = (held, seen, known.insert(id)) else {
                    continue;
                };
                if found.len() >= self.options.limits.page {
                    return None;
                }
                found.push(Found { number: held.number, dataset: held.dataset, seen, members });
            }
            found[begun..].iter().for_each(|one| add(&mut next, &one.seen, &one.members));
        }
        Some(found)
    }

    /// The entities that relationships of an answer lead to, as the session sees them, recorded as
    /// any other look at them.
    ///
    /// # Errors
    /// When there are more than a page may have, or a look cannot be recorded.
    pub async fn linked(
        &self,
        session: &Session,
        entities: &[Arc<Seen>],
        members: &Members,
        join: &Join,
    ) -> Result<(Vec<(Arc<Seen>, Members)>, Option<u64>), HubError> {
        let mut lenses = Lenses::new(self, session);
        let from = entities.iter().map(|seen| (&**seen.entity(), members));
        let found = self.follow(&mut lenses, from, join).ok_or_else(|| HubError::Limit {
            name: "page",
            limit: self.options.limits.page as u64,
            remedy: "ask for fewer entities at once with `limit`".into(),
        })?;
        let mut levels: HashMap<u32, (Sensitivity, i64)> = HashMap::new();
        for one in &found {
            let told = levels.entry(one.dataset).or_insert((Sensitivity::Open, 0));
            *told = (told.0.max(one.seen.level), told.1 + 1);
        }
        let shown: Vec<_> =
            found.iter().map(|one| (one.number, one.dataset, one.seen.clone())).collect();
        let record = self.record_page(session, &mut lenses, &levels, &shown, &[]).await?;
        Ok((found.into_iter().map(|one| (one.seen, one.members)).collect(), record))
    }
}

impl Join {
    /// Reads `join`, `joinLevel` and `containedBy`; none when nothing is to be joined.
    ///
    /// # Errors
    /// What does not fit.
    pub fn parse(
        join: Option<&str>,
        levels: Option<&str>,
        without: &[&str],
    ) -> Result<Option<Join>, Invalid> {
        let inline = match join {
            None | Some("@none") => return Ok(None),
            Some("inline") => true,
            Some("flat") => false,
            Some(other) => {
                let what = format!("`{other}` is none of: inline, flat, @none");
                return Err(Invalid::data("?join", what));
            }
        };
        let levels = match levels.map(str::parse::<usize>) {
            None => 1,
            Some(Ok(levels)) if (1..=MAX_JOIN_LEVELS).contains(&levels) => levels,
            Some(_) => {
                let what = format!("is no whole number from 1 to {MAX_JOIN_LEVELS}");
                return Err(Invalid::data("?joinLevel", what));
            }
        };
        let without = without.iter().map(|id| (*id).to_owned()).collect();
        Ok(Some(Join { inline, levels, without }))
    }

    /// What is written inside the relationships of entities, until so many bytes are written.
    pub fn inside<'a>(&self, found: impl Iterator<Item = &'a Arc<Seen>>, most: usize) -> Linked {
        let by_id = found.map(|seen| (seen.id.clone(), seen.entity().clone()));
        Linked { entities: Arc::new(by_id.collect()), levels: self.levels, most }
    }
}
