//! How large an entity may become, in however small parts it comes: what one writer makes of one
//! entity is walked through by everybody's committer, and lies in memory.

use model::{Content, Entity, Instance, Refusal, Value};
use ngsild::{MAX_ATTRIBUTES, MAX_TYPES};
use std::collections::HashSet;

/// Instances of all its attributes together.
pub const MAX_INSTANCES: usize = 1_000;
/// Histories of an entity over time: one for each attribute, instance and unit it ever had.
pub const MAX_SERIES: usize = 2_000;
/// Bytes of its texts, names, numbers and places.
pub const MAX_BYTES: usize = 4 << 20;

fn too_much(entity: &Entity, what: &'static str, most: usize) -> Result<(), Refusal> {
    Err(Refusal::TooMuch { id: entity.id.clone(), what, most: most as u64 })
}

/// Whether an entity, or what is brought to one, is within these limits.
///
/// # Errors
/// When it is not: which limit that is.
pub fn check(entity: &Entity) -> Result<(), Refusal> {
    check_width(entity)?;
    let all = entity.attributes.iter().flat_map(|attribute| &attribute.instances);
    if all.map(of_instance).sum::<usize>() > MAX_BYTES {
        return too_much(entity, "bytes", MAX_BYTES);
    }
    Ok(())
}

/// The same but for the bytes: what is brought to a history alone may be longer.
///
/// # Errors
/// As [`check`].
pub fn check_width(entity: &Entity) -> Result<(), Refusal> {
    if entity.types.len().max(entity.scopes.len()) > MAX_TYPES {
        return too_much(entity, "types or scopes", MAX_TYPES);
    }
    if entity.attributes.len() > MAX_ATTRIBUTES {
        return too_much(entity, "attributes", MAX_ATTRIBUTES);
    }
    // Of one instance a change may bring many points.
    let distinct = |instances: &[Instance]| match instances {
        [_] => 1,
        all => all.iter().map(|one| &one.instance_id).collect::<HashSet<_>>().len(),
    };
    let instances: usize = entity.attributes.iter().map(|one| distinct(&one.instances)).sum();
    if instances > MAX_INSTANCES {
        return too_much(entity, "instances of its attributes", MAX_INSTANCES);
    }
    Ok(())
}

fn of_instance(instance: &Instance) -> usize {
    let ids = [&instance.instance_id, &instance.unit].into_iter().flatten().map(String::len);
    let parts = instance.parts.iter().map(|(name, part)| name.as_str().len() + of_instance(part));
    ids.chain(parts).sum::<usize>() + of_content(&instance.content)
}

fn of_content(content: &Content) -> usize {
    match content {
        Content::Property(value) | Content::GeoProperty(value) | Content::JsonProperty(value) => {
            of_value(value)
        }
        Content::Relationship { objects, .. } | Content::ListRelationship(objects) => {
            objects.iter().map(|object| 8 + object.len()).sum()
        }
        Content::LanguageProperty(texts) => of_map(texts),
        Content::VocabProperty { words, .. } => words.iter().map(|word| word.as_str().len()).sum(),
        Content::ListProperty(values) => values.iter().map(of_value).sum(),
        Content::Null => 0,
    }
}

fn of_map(entries: &[(String, Value)]) -> usize {
    entries.iter().map(|(key, value)| key.len() + of_value(value)).sum()
}

fn of_value(value: &Value) -> usize {
    match value {
        Value::Text(text) => 8 + text.len(),
        Value::List(items) => 8 + items.iter().map(of_value).sum::<usize>(),
        Value::Map(entries) => 8 + of_map(entries),
        _ => 8,
    }
}
