//! What a change makes of an entity (ETSI GS CIM 009 clauses 5.6.1 to 5.6.21). Pure: the same
//! change to the same state always gives the same.

use model::{Attribute, Change, Content, Entity, Instance, Name, Outcome, Refusal, Time, Value};
use std::collections::HashMap;

/// A changed state and how it came about.
#[derive(Debug)]
pub struct Applied {
    /// None when the entity is gone.
    pub state: Option<Entity>,
    pub outcome: Outcome,
    /// The instances as they were set: their rows go into the history, late ones too.
    pub set: Vec<(Name, Instance)>,
    /// More changed than numbers and their times: a document must be written.
    pub structural: bool,
}

/// What an observation does that is older than the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It moves the state like any other.
    Moves,
    /// It changes only the history; without `observedAt`, nothing is older.
    Remembered,
    /// The same, and what has no `observedAt` is as old as the change: for what is done long after it came.
    AsOld,
}

impl From<bool> for Late {
    fn from(remembered: bool) -> Late {
        if remembered { Late::Remembered } else { Late::Moves }
    }
}

/// Applies a change at `now`.
///
/// # Errors
/// When the change does not fit the state.
pub fn apply(
    change: Change,
    current: Option<&Entity>,
    now: Time,
    late: impl Into<Late>,
) -> Result<Applied, Refusal> {
    let late = late.into();
    let not_found = |id: &str| Refusal::NotFound(id.to_owned());
    match (change, current) {
        (Change::Create(entity), Some(_)) => Err(Refusal::Exists(entity.id)),
        (Change::Create(entity) | Change::Put(entity) | Change::Upsert(entity), None)
        | (Change::Remember { entity }, None) => Ok(created(entity, now)),
        (Change::Put(entity) | Change::Replace(entity), Some(current)) => {
            Ok(replaced(entity, current, now))
        }
        (Change::Upsert(entity), Some(current)) => {
            let mut applied = edit(current, now, |edit| edit.append(entity, true, late));
            if late == Late::AsOld
                && let Some(state) = &mut applied.state
            {
                // Nothing was changed before it was.
                state.modified = state.modified.max(current.modified);
            }
            Ok(applied)
        }
        (Change::Append { entity, overwrite }, Some(current)) => {
            Ok(edit(current, now, |edit| edit.append(entity, overwrite, Late::Moves)))
        }
        // Attributes that are not there are added (V1.9.1 clause 5.6.2).
        (Change::Update(entity), Some(current)) => {
            Ok(edit(current, now, |edit| edit.append(entity, true, Late::Moves)))
        }
        (Change::Merge(entity), Some(current)) => Ok(edit(current, now, |edit| edit.merge(entity))),
        (Change::ReplaceAttribute(entity), Some(current)) => {
            must_have(&entity, current)?;
            Ok(edit(current, now, |edit| edit.replace_attributes(entity)))
        }
        (Change::MergeAttribute(entity), Some(current)) => {
            must_have(&entity, current)?;
            must_have_instance(&entity, current)?;
            Ok(edit(current, now, |edit| edit.merge(entity)))
        }
        (Change::DeleteAttribute { id, name, instance_id, all }, Some(current)) => {
            delete_attribute(current, &id, name, instance_id.as_deref(), all, now)
        }
        (Change::Delete { .. }, Some(current)) => Ok(Applied {
            state: None,
            outcome: Outcome::Deleted,
            set: Vec::new(),
            structural: !current.id.is_empty(),
        }),
        // What is newer than the state moves it, what is older only joins the history.
        (Change::Remember { entity }, Some(current)) => {
            Ok(edit(current, now, |edit| edit.append(entity, true, Late::Remembered)))
        }
        (Change::Forget { .. }, Some(current)) => Ok(Applied {
            state: Some(current.clone()),
            outcome: Outcome::Deleted,
            set: Vec::new(),
            structural: true,
        }),
        (other, None) => Err(not_found(other.id())),
    }
}

fn must_have(entity: &Entity, current: &Entity) -> Result<(), Refusal> {
    match entity.attributes.iter().find(|a| current.attribute(a.name.as_str()).is_none()) {
        Some(missing) => Err(Refusal::NoAttribute(entity.id.clone(), missing.name.clone())),
        None => Ok(()),
    }
}

fn must_have_instance(entity: &Entity, current: &Entity) -> Result<(), Refusal> {
    for attribute in &entity.attributes {
        let there = current.attribute(attribute.name.as_str());
        let same = |wanted: &Instance| {
            let mut all = there.iter().flat_map(|there| &there.instances);
            all.any(|instance| instance.instance_id == wanted.instance_id)
        };
        if !attribute.instances.iter().all(same) {
            return Err(Refusal::NoAttribute(entity.id.clone(), attribute.name.clone()));
        }
    }
    Ok(())
}

/// Every instance of an entity.
fn instances(entity: &Entity) -> Vec<(Name, Instance)> {
    let of =
        |a: &Attribute| a.instances.iter().map(|i| (a.name.clone(), i.clone())).collect::<Vec<_>>();
    entity.attributes.iter().flat_map(of).collect()
}

fn stamp(instance: &mut Instance, created: Time, now: Time) {
    instance.created = created;
    instance.modified = now;
    for (_, part) in &mut instance.parts {
        stamp(part, created, now);
    }
}

fn created(mut entity: Entity, now: Time) -> Applied {
    for attribute in &mut entity.attributes {
        attribute.instances.retain(|instance| instance.content != Content::Null);
        attribute.instances.iter_mut().for_each(|instance| stamp(instance, now, now));
    }
    entity.attributes.retain(|attribute| !attribute.instances.is_empty());
    entity.created = now;
    entity.modified = now;
    let set = instances(&entity);
    Applied { state: Some(entity), outcome: Outcome::Created, set, structural: true }
}

fn replaced(entity: Entity, current: &Entity, now: Time) -> Applied {
    let mut applied = created(entity, now);
    if let Some(state) = &mut applied.state {
        state.created = current.created;
        if state.types.is_empty() {
            state.types.clone_from(&current.types);
        }
    }
    applied.outcome = Outcome::Updated { done: Vec::new(), left: Vec::new() };
    applied
}

/// An entity under change.
struct Edit {
    state: Entity,
    now: Time,
    left: Vec<Name>,
    set: Vec<(Name, Instance)>,
    structural: bool,
    /// Something of the state is not as it was.
    moved: bool,
}

fn edit(current: &Entity, now: Time, change: impl FnOnce(&mut Edit)) -> Applied {
    let mut edit = Edit {
        state: current.clone(),
        now,
        left: Vec::new(),
        set: Vec::new(),
        structural: false,
        moved: false,
    };
    change(&mut edit);
    if edit.structural || edit.moved {
        edit.state.modified = now;
    }
    let mut done: Vec<Name> = edit.set.iter().map(|(name, _)| name.clone()).collect();
    done.dedup();
    Applied {
        state: Some(edit.state),
        outcome: Outcome::Updated { done, left: edit.left },
        set: edit.set,
        structural: edit.structural,
    }
}

impl Edit {
    fn widen(&mut self, types: &[Name], scopes: &[String]) {
        for name in types {
            if !self.state.types.contains(name) {
                self.state.types.push(name.clone());
                self.structural = true;
            }
        }
        if !scopes.is_empty() && self.state.scopes != scopes {
            self.state.scopes = scopes.to_vec();
            self.structural = true;
        }
    }

    fn append(&mut self, entity: Entity, overwrite: bool, late: Late) {
        self.widen(&entity.types, &entity.scopes);
        for attribute in entity.attributes {
            let there = self.state.attribute(attribute.name.as_str()).is_some();
            if there && !overwrite {
                self.left.push(attribute.name);
                continue;
            }
            for instance in attribute.instances {
                self.put(&attribute.name, instance, late);
            }
        }
    }

    fn replace_attributes(&mut self, entity: Entity) {
        for attribute in entity.attributes {
            for instance in attribute.instances {
                self.put(&attribute.name, instance, Late::Moves);
            }
        }
    }

    fn merge(&mut self, entity: Entity) {
        self.widen(&entity.types, &entity.scopes);
        for attribute in entity.attributes {
            for instance in attribute.instances {
                self.merge_instance(&attribute.name, instance);
            }
        }
    }

    fn merge_instance(&mut self, name: &Name, patch: Instance) {
        if patch.content == Content::Null {
            self.remove(name, patch.instance_id.as_deref());
            return;
        }
        let now = self.now;
        let old = self.state.attribute_mut(name.as_str());
        let same = |old: &&mut Instance| old.instance_id == patch.instance_id;
        let Some(old) = old.and_then(|a| a.instances.iter_mut().find(same)) else {
            self.put(name, patch, Late::Moves);
            return;
        };
        let mut merged = old.clone();
        merged.content = merge_content(&old.content, patch.content);
        merged.unit = patch.unit.or(merged.unit);
        merged.observed_at = patch.observed_at.or(merged.observed_at);
        for (part_name, part) in patch.parts {
            merged.parts.retain(|(found, _)| *found != part_name);
            if part.content != Content::Null {
                merged.parts.push((part_name, part));
            }
        }
        merged.modified = now;
        self.put(name, merged, Late::Moves);
    }

    /// Sets one instance.
    fn put(&mut self, name: &Name, mut instance: Instance, late: Late) {
        if instance.content == Content::Null {
            self.remove(name, instance.instance_id.as_deref());
            return;
        }
        let Some(attribute) = self.state.attribute_mut(name.as_str()) else {
            stamp(&mut instance, self.now, self.now);
            self.set.push((name.clone(), instance.clone()));
            self.state.attributes.push(Attribute { name: name.clone(), instances: vec![instance] });
            self.structural = true;
            return;
        };
        let same = |old: &&mut Instance| old.instance_id == instance.instance_id;
        match attribute.instances.iter_mut().find(same) {
            None => {
                stamp(&mut instance, self.now, self.now);
                self.set.push((name.clone(), instance.clone()));
                attribute.instances.push(instance);
                self.structural = true;
            }
            Some(old) => {
                let older = instance.observed_at < old.observed_at;
                let undated = instance.observed_at.is_none() && old.observed_at.is_none();
                if late == Late::AsOld && undated && old.modified > self.now {
                    // The row is not the last of its series by when it is written: only a document
                    // tells the state.
                    self.set.push((name.clone(), instance));
                    self.structural = true;
                    return;
                }
                if late != Late::Moves && older && instance.observed_at.is_some() {
                    // A late reading: its row goes into the history, the state stays.
                    self.set.push((name.clone(), instance));
                    return;
                }
                let now = if late == Late::AsOld { self.now.max(old.modified) } else { self.now };
                stamp(&mut instance, old.created, now);
                self.structural |= older || !is_numeric_step(old, &instance);
                self.set.push((name.clone(), instance.clone()));
                self.moved = true;
                *old = instance;
            }
        }
    }

    fn remove(&mut self, name: &Name, instance_id: Option<&str>) {
        if let Some(attribute) = self.state.attribute_mut(name.as_str()) {
            attribute.instances.retain(|i| i.instance_id.as_deref() != instance_id);
            self.structural = true;
        }
        self.state.attributes.retain(|attribute| !attribute.instances.is_empty());
    }
}

/// Whether an instance differs from the one before only in its number and time.
pub fn is_numeric_step(old: &Instance, new: &Instance) -> bool {
    let number = |instance: &Instance| match &instance.content {
        Content::Property(value) => value.as_exact_number().is_some(),
        _ => false,
    };
    number(old)
        && number(new)
        && old.unit == new.unit
        && old.parts.is_empty()
        && new.parts.is_empty()
        && old.observed_at.is_some() == new.observed_at.is_some()
}

/// Goes into objects (clause 5.5.12); anything else is replaced.
fn merge_content(old: &Content, new: Content) -> Content {
    match (old, new) {
        (Content::Property(old), Content::Property(new)) => {
            Content::Property(merge_value(old, new))
        }
        (Content::JsonProperty(old), Content::JsonProperty(new)) => {
            Content::JsonProperty(merge_value(old, new))
        }
        (Content::LanguageProperty(old), Content::LanguageProperty(new)) => {
            match merge_value(&Value::Map(old.clone()), Value::Map(new)) {
                Value::Map(map) => Content::LanguageProperty(map),
                other => Content::Property(other),
            }
        }
        (_, new) => new,
    }
}

fn merge_value(old: &Value, new: Value) -> Value {
    let (Value::Map(old), Value::Map(new)) = (old, &new) else { return new };
    // By key, for there may be many.
    let known: HashMap<&str, usize> =
        old.iter().enumerate().map(|(at, (key, _))| (key.as_str(), at)).collect();
    let mut merged: Vec<Option<(String, Value)>> = old.iter().cloned().map(Some).collect();
    for (key, value) in new {
        let deleted = value.as_text() == Some("urn:ngsi-ld:null");
        match known.get(key.as_str()).map(|at| &mut merged[*at]) {
            Some(there) if deleted => *there = None,
            Some(Some((_, found))) => *found = merge_value(found, value.clone()),
            _ if deleted => {}
            _ => merged.push(Some((key.clone(), value.clone()))),
        }
    }
    Value::Map(merged.into_iter().flatten().collect())
}

fn delete_attribute(
    current: &Entity,
    id: &str,
    name: Name,
    instance_id: Option<&str>,
    all: bool,
    now: Time,
) -> Result<Applied, Refusal> {
    let missing = || Refusal::NoAttribute(id.to_owned(), name.clone());
    let attribute = current.attribute(name.as_str()).ok_or_else(missing)?;
    let goes = |instance: &Instance| all || instance.instance_id.as_deref() == instance_id;
    if !attribute.instances.iter().any(goes) {
        return Err(missing());
    }
    let mut state = current.clone();
    state.modified = now;
    if let Some(attribute) = state.attribute_mut(name.as_str()) {
        attribute.instances.retain(|instance| !goes(instance));
    }
    state.attributes.retain(|attribute| !attribute.instances.is_empty());
    Ok(Applied { state: Some(state), outcome: Outcome::Deleted, set: Vec::new(), structural: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ngsild::{Context, Form, Options, parse_fragment, parse_json, render_entity};

    fn entity(json: &str) -> Entity {
        let value = parse_json(json.as_bytes()).unwrap();
        let mut entity = parse_fragment(&value, &Context::core(), Form::Any).unwrap();
        entity.id = "urn:x:1".into();
        entity
    }

    fn show(entity: &Entity) -> String {
        let mut out = Vec::new();
        let options =
            Options { representation: ngsild::Representation::Concise, ..Options::default() };
        render_entity(&mut out, entity, &Context::core(), &options);
        String::from_utf8(out).unwrap().replace(r#""id":"urn:x:1","type":"T","#, "")
    }

    fn check(change: impl Fn(Entity) -> Change, patch: &str, expected: &str, structural: bool) {
        let current = created(
            entity(
                r#"{"type":"T","a":{"value":1,"observedAt":"2026-01-01T00:00:00Z"},"b":{"value":{"x":1,"y":{"z":2}}}}"#,
            ),
            Time(0),
        );
        let applied = apply(change(entity(patch)), current.state.as_ref(), Time(5), true).unwrap();
        assert_eq!(show(applied.state.as_ref().unwrap()), expected);
        assert_eq!(applied.structural, structural, "{patch}");
    }

    #[test]
    fn changes() {
        let b = r#""b":{"value":{"x":1,"y":{"z":2}}}"#;
        let a = r#"{"a":{"value":1,"observedAt":"2026-01-01T00:00:00Z"}"#;
        check(
            Change::Upsert,
            r#"{"a":{"value":2,"observedAt":"2026-01-02T00:00:00Z"}}"#,
            &format!(r#"{{"a":{{"value":2,"observedAt":"2026-01-02T00:00:00Z"}},{b}}}"#),
            false,
        );
        check(
            Change::Upsert,
            r#"{"a":{"value":9,"observedAt":"2025-01-02T00:00:00Z"}}"#,
            &format!("{a},{b}}}"),
            false,
        );
        check(Change::Upsert, r#"{"c":3}"#, &format!(r#"{a},{b},"c":3}}"#), true);
        check(
            |entity| Change::Append { entity, overwrite: false },
            r#"{"a":7,"c":3}"#,
            &format!(r#"{a},{b},"c":3}}"#),
            true,
        );
        check(Change::Update, r#"{"a":7,"c":3}"#, &format!(r#"{{"a":7,{b},"c":3}}"#), true);
        check(
            Change::Merge,
            r#"{"b":{"value":{"y":{"z":"urn:ngsi-ld:null","w":1}}}}"#,
            &format!(r#"{a},"b":{{"value":{{"x":1,"y":{{"w":1}}}}}}}}"#),
            true,
        );
        check(Change::Merge, r#"{"a":"urn:ngsi-ld:null"}"#, &format!("{{{b}}}"), true);
        check(Change::Replace, r#"{"type":"T","c":3}"#, r#"{"c":3}"#, true);
    }

    #[test]
    fn refusals() {
        let current = entity(r#"{"type":"T","a":1}"#);
        let refuse =
            |change, current| apply(change, current, Time(0), false).unwrap_err().to_string();
        assert!(refuse(Change::Create(current.clone()), Some(&current)).contains("exists"));
        assert!(refuse(Change::Delete { id: "urn:x:2".into() }, None).contains("no entity"));
        let gone = |name| Change::DeleteAttribute {
            id: "urn:x:1".into(),
            name: Name::new(name),
            instance_id: None,
            all: false,
        };
        assert!(refuse(gone("b"), Some(&current)).contains("no attribute"));
        assert!(apply(gone("a"), Some(&current), Time(0), false).is_ok());
        assert!(
            refuse(Change::ReplaceAttribute(entity(r#"{"b":1}"#)), Some(&current))
                .contains("no attribute")
        );
    }
}
