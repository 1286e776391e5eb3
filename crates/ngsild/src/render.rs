//! Entities as JSON: normalized, concise, simplified and GeoJSON (clauses 4.5.1 to 4.5.16).

use crate::{Context, Members};
use model::{Attribute, Content, Entity, Instance, Name, Time, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// How entities are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Representation {
    #[default]
    Normalized,
    Concise,
    Simplified,
}

/// What of an entity is written, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub representation: Representation,
    /// Write `createdAt` and `modifiedAt`.
    pub system: bool,
    /// The one language to choose from a LanguageProperty.
    pub language: Option<String>,
    pub members: Members,
    /// Which property is a feature's geometry; none: `location`.
    pub geometry: Option<Name>,
    /// Entities that are written inside the relationships which lead to them.
    pub linked: Linked,
    pub notes: Notes,
}

/// What is said of a change beside the state it led to (clauses 5.2.14 and 5.3.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// When the entity was deleted.
    pub deleted_at: Option<Time>,
    of_instances: Vec<Note>,
}

#[derive(Clone, Debug, PartialEq)]
struct Note {
    name: Name,
    instance_id: Option<String>,
    deleted_at: Option<Time>,
    previous: Option<Content>,
}

impl Notes {
    /// Says of an instance when it was deleted and what it was before.
    pub fn add(
        &mut self,
        name: &Name,
        instance: &Instance,
        deleted_at: Option<Time>,
        previous: Option<Content>,
    ) {
        let (name, instance_id) = (name.clone(), instance.instance_id.clone());
        self.of_instances.push(Note { name, instance_id, deleted_at, previous });
    }

    fn of(&self, name: &Name, instance: &Instance) -> Option<&Note> {
        let is = |note: &&Note| note.name == *name && note.instance_id == instance.instance_id;
        self.of_instances.iter().find(is)
    }
}

/// Entities that relationships lead to, by id, and over how many levels they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Linked {
    pub entities: Arc<HashMap<String, Arc<Entity>>>,
    pub levels: usize,
    /// Once so many bytes are written, only ids are: an entity is written wherever it is linked.
    pub most: usize,
}

impl Options {
    /// How the entities that an attribute leads to are written inside it.
    fn within(&self, attribute: &Attribute) -> Option<Options> {
        let is_link = |instance: &Instance| {
            matches!(instance.content, Content::Relationship { .. } | Content::ListRelationship(_))
        };
        let linked = self.linked.levels > 0 && attribute.instances.iter().any(is_link);
        linked.then(|| Options {
            members: self.members.within(&attribute.name),
            linked: Linked {
                entities: self.linked.entities.clone(),
                levels: self.linked.levels - 1,
                most: self.linked.most,
            },
            ..self.clone()
        })
    }

    fn linked<'a>(&'a self, objects: &'a [String]) -> impl Iterator<Item = &'a Arc<Entity>> {
        objects.iter().filter_map(|id| self.linked.entities.get(id))
    }
}

/// Writes a JSON text with its quotes.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    out.push(b'"');
    if text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                c if u32::from(c) < 0x20 => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.push(b'"');
}

/// Writes a value as JSON.
pub fn render_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        // Writing a number into memory cannot fail.
        Value::Integer(number) => drop(serde_json::to_writer(out, number)),
        Value::Real(number) => drop(serde_json::to_writer(out, number)),
        Value::Text(text) => write_text(out, text),
        Value::List(items) => list(out, items, render_value),
        Value::Map(entries) => {
            out.push(b'{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(out, key);
                out.push(b':');
                render_value(out, value);
            }
            out.push(b'}');
        }
    }
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

fn one_or_list<T>(out: &mut Vec<u8>, items: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    match items {
        [one] => each(out, one),
        items => list(out, items, each),
    }
}

fn key(out: &mut Vec<u8>, name: &str) {
    if !matches!(out.last(), Some(b'{') | None) {
        out.push(b',');
    }
    write_text(out, name);
    out.push(b':');
}

fn time(out: &mut Vec<u8>, name: &str, time: Time) {
    key(out, name);
    write_text(out, &time.text());
}

/// Writes one entity as a JSON object.
pub fn render_entity(out: &mut Vec<u8>, entity: &Entity, context: &Context, options: &Options) {
    out.push(b'{');
    if options.members.id() {
        key(out, "id");
        write_text(out, &entity.id);
    }
    if options.members.types() {
        key(out, "type");
        one_or_list(out, &entity.types, |out, name| write_text(out, &context.compact(name)));
    }
    render_rest(out, entity, context, options);
    out.push(b'}');
}

fn render_rest(out: &mut Vec<u8>, entity: &Entity, context: &Context, options: &Options) {
    if !entity.scopes.is_empty() {
        key(out, "scope");
        one_or_list(out, &entity.scopes, |out, scope| write_text(out, scope));
    }
    if options.system {
        time(out, "createdAt", entity.created);
        time(out, "modifiedAt", entity.modified);
    }
    if let Some(deleted_at) = options.notes.deleted_at {
        time(out, "deletedAt", deleted_at);
    }
    let members = &options.members;
    for attribute in entity.attributes.iter().filter(|one| members.wants(&one.name)) {
        if attribute.instances.iter().all(|instance| members.wants_instance(instance)) {
            key(out, &context.compact(&attribute.name));
            render_attribute(out, attribute, context, options);
            continue;
        }
        let mut some = attribute.clone();
        some.instances.retain(|instance| members.wants_instance(instance));
        if !some.instances.is_empty() {
            key(out, &context.compact(&attribute.name));
            render_attribute(out, &some, context, options);
        }
    }
}

/// Writes one entity as a GeoJSON feature (clause 4.5.16).
pub fn render_feature(out: &mut Vec<u8>, entity: &Entity, context: &Context, options: &Options) {
    out.push(b'{');
    key(out, "id");
    write_text(out, &entity.id);
    out.extend_from_slice(b",\"type\":\"Feature\",\"geometry\":");
    let name = options.geometry.as_ref().map_or("location", Name::as_str);
    let place = entity.attribute(name).and_then(Attribute::default_instance);
    match place.map(|instance| &instance.content) {
        Some(Content::GeoProperty(geometry)) => render_value(out, geometry),
        _ => out.extend_from_slice(b"null"),
    }
    key(out, "properties");
    out.push(b'{');
    key(out, "type");
    one_or_list(out, &entity.types, |out, name| write_text(out, &context.compact(name)));
    render_rest(out, entity, context, options);
    out.extend_from_slice(b"}}");
}

fn render_attribute(
    out: &mut Vec<u8>,
    attribute: &Attribute,
    context: &Context,
    options: &Options,
) {
    let within = options.within(attribute);
    let within = within.as_ref();
    if options.representation == Representation::Simplified && attribute.instances.len() > 1 {
        // Several instances are told apart by their `datasetId` (clause 4.5.4).
        out.extend_from_slice(b"{\"dataset\":{");
        for (index, instance) in attribute.instances.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(out, instance.instance_id.as_deref().unwrap_or("@none"));
            out.push(b':');
            instance_within(out, instance, context, options, (within, None));
        }
        out.extend_from_slice(b"}}");
        return;
    }
    one_or_list(out, &attribute.instances, |out, instance| {
        let note = options.notes.of(&attribute.name, instance);
        instance_within(out, instance, context, options, (within, note));
    });
}

/// What a relationship leads to.
fn objects_of(instance: &Instance) -> Option<&[String]> {
    match &instance.content {
        Content::Relationship { objects, .. } | Content::ListRelationship(objects) => Some(objects),
        _ => None,
    }
}

/// Whether a concise instance is just its value.
fn is_bare(instance: &Instance, options: &Options) -> bool {
    let bare_kind = match &instance.content {
        Content::Property(value) => !matches!(value, Value::Map(_)),
        Content::GeoProperty(_) => true,
        _ => false,
    };
    bare_kind
        && !options.system
        && instance.unit.is_none()
        && instance.observed_at.is_none()
        && instance.instance_id.is_none()
        && instance.parts.is_empty()
}

/// Writes one instance of an attribute.
pub fn render_instance(
    out: &mut Vec<u8>,
    instance: &Instance,
    context: &Context,
    options: &Options,
) {
    instance_within(out, instance, context, options, (None, None));
}

/// Writes one instance, with the entities it leads to as `within` says, and what is said of it.
fn instance_within(
    out: &mut Vec<u8>,
    instance: &Instance,
    context: &Context,
    options: &Options,
    (within, note): (Option<&Options>, Option<&Note>),
) {
    let within = within.filter(|within| out.len() < within.linked.most);
    let normalized = options.representation == Representation::Normalized;
    let simplified = options.representation == Representation::Simplified;
    if let (true, Some(within), Some(objects)) = (simplified, within, objects_of(instance)) {
        // An entity stands where its id would.
        one_or_list(out, objects, |out, id| match within.linked.entities.get(id) {
            Some(entity) if out.len() < within.linked.most => {
                render_entity(out, entity, context, within);
            }
            _ => write_text(out, id),
        });
        return;
    }
    if simplified || (!normalized && is_bare(instance, options)) {
        render_content(out, &instance.content, context, options, simplified);
        return;
    }
    out.push(b'{');
    let (kind, member) = words(&instance.content, options);
    if normalized {
        key(out, "type");
        write_text(out, kind);
    }
    key(out, member);
    render_content(out, &instance.content, context, options, false);
    if let Content::Relationship { object_types, .. } = &instance.content
        && !object_types.is_empty()
    {
        key(out, "objectType");
        one_or_list(out, object_types, |out, name| write_text(out, &context.compact(name)));
    }
    if let (Some(within), Some(objects)) = (within, objects_of(instance)) {
        let linked: Vec<&Arc<Entity>> = within.linked(objects).collect();
        if !linked.is_empty() {
            let list = matches!(instance.content, Content::ListRelationship(_));
            key(out, if list { "entityList" } else { "entity" });
            if let [one] = linked.as_slice() {
                render_entity(out, one, context, within);
            } else {
                out.push(b'[');
                for (index, entity) in linked.into_iter().enumerate() {
                    if out.len() >= within.linked.most {
                        break;
                    }
                    if index > 0 {
                        out.push(b',');
                    }
                    render_entity(out, entity, context, within);
                }
                out.push(b']');
            }
        }
    }
    if let Some(unit) = &instance.unit {
        key(out, "unitCode");
        write_text(out, unit);
    }
    if let (Content::LanguageProperty(map), Some(language)) = (&instance.content, &options.language)
        && let Some((chosen, _)) = choose_language(map, language)
    {
        key(out, "lang");
        write_text(out, chosen);
    }
    if let Some(observed_at) = instance.observed_at {
        time(out, "observedAt", observed_at);
    }
    if let Some(id) = &instance.instance_id {
        key(out, "datasetId");
        write_text(out, id);
    }
    if let Some(previous) = note.and_then(|note| note.previous.as_ref()) {
        key(out, previous_word(previous));
        render_content(out, previous, context, options, false);
    }
    if options.system {
        time(out, "createdAt", instance.created);
        time(out, "modifiedAt", instance.modified);
        if let Some(deleted_at) = note.and_then(|note| note.deleted_at) {
            time(out, "deletedAt", deleted_at);
        }
    }
    for (name, part) in &instance.parts {
        key(out, &context.compact(name));
        render_instance(out, part, context, options);
    }
    out.push(b'}');
}

fn previous_word(content: &Content) -> &'static str {
    match content {
        Content::Property(_) | Content::GeoProperty(_) | Content::Null => "previousValue",
        Content::Relationship { .. } => "previousObject",
        Content::LanguageProperty(_) => "previousLanguageMap",
        Content::JsonProperty(_) => "previousJson",
        Content::VocabProperty { .. } => "previousVocab",
        Content::ListProperty(_) => "previousValueList",
        Content::ListRelationship(_) => "previousObjectList",
    }
}

fn words(content: &Content, options: &Options) -> (&'static str, &'static str) {
    match content {
        Content::Property(_) | Content::Null => ("Property", "value"),
        Content::Relationship { .. } => ("Relationship", "object"),
        Content::GeoProperty(_) => ("GeoProperty", "value"),
        Content::LanguageProperty(_) if options.language.is_some() => ("Property", "value"),
        Content::LanguageProperty(_) => ("LanguageProperty", "languageMap"),
        Content::JsonProperty(_) => ("JsonProperty", "json"),
        Content::VocabProperty { .. } => ("VocabProperty", "vocab"),
        Content::ListProperty(_) => ("ListProperty", "valueList"),
        Content::ListRelationship(_) => ("ListRelationship", "objectList"),
    }
}

fn choose_language<'a>(map: &'a [(String, Value)], wanted: &str) -> Option<&'a (String, Value)> {
    let short = wanted.split('-').next().unwrap_or(wanted);
    map.iter()
        .find(|(language, _)| language == wanted)
        .or_else(|| map.iter().find(|(language, _)| language == short))
        .or_else(|| map.iter().find(|(language, _)| language == "@none"))
        .or_else(|| map.first())
}

fn render_content(
    out: &mut Vec<u8>,
    content: &Content,
    context: &Context,
    options: &Options,
    simplified: bool,
) {
    // In the simplified form these keep their member, to be told from a plain value.
    let wrap = |out: &mut Vec<u8>, member: &str| {
        if simplified {
            out.push(b'{');
            key(out, member);
        }
    };
    let close = |out: &mut Vec<u8>| {
        if simplified {
            out.push(b'}');
        }
    };
    match content {
        Content::Property(value) | Content::GeoProperty(value) => render_value(out, value),
        Content::Relationship { objects, many: false, .. } if objects.len() == 1 => {
            write_text(out, &objects[0]);
        }
        Content::Relationship { objects, .. } => {
            list(out, objects, |out, object| write_text(out, object));
        }
        Content::LanguageProperty(map) => match &options.language {
            Some(language) => match choose_language(map, language) {
                Some((_, text)) => render_value(out, text),
                None => out.extend_from_slice(b"null"),
            },
            None => {
                wrap(out, "languageMap");
                render_value(out, &Value::Map(map.clone()));
                close(out);
            }
        },
        Content::JsonProperty(value) => {
            wrap(out, "json");
            render_value(out, value);
            close(out);
        }
        Content::VocabProperty { words, many } => {
            wrap(out, "vocab");
            match words.as_slice() {
                [word] if !many => write_text(out, &context.compact(word)),
                words => list(out, words, |out, word| write_text(out, &context.compact(word))),
            }
            close(out);
        }
        Content::ListProperty(items) => {
            wrap(out, "valueList");
            list(out, items, render_value);
            close(out);
        }
        Content::ListRelationship(objects) => {
            wrap(out, "objectList");
            list(out, objects, |out, object| {
                out.push(b'{');
                key(out, "object");
                write_text(out, object);
                out.push(b'}');
            });
            close(out);
        }
        Content::Null => write_text(out, crate::parse::NGSILD_NULL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, parse_entity, parse_json};

    const NORMALIZED: &str = concat!(
        r#"{"id":"urn:x:1","type":["A","B"],"scope":"/bandung","level":[{"type":"Property","value":1.5,"#,
        r#""unitCode":"MTR","observedAt":"2026-01-01T00:00:00Z","by":{"type":"Relationship","object":"urn:x:9"}},"#,
        r#"{"type":"Property","value":2,"datasetId":"urn:d:2"}],"#,
        r#""location":{"type":"GeoProperty","value":{"type":"Point","coordinates":[107.6,-6.9]}},"#,
        r#""name":{"type":"LanguageProperty","languageMap":{"id":"Sungai \"X\"","en":"River"}},"#,
        r#""kind":{"type":"VocabProperty","vocab":"deep"},"raw":{"type":"JsonProperty","json":{"a":[1,null]}},"#,
        r#""owners":{"type":"Relationship","object":["urn:o:1","urn:o:2"]},"#,
        r#""steps":{"type":"ListProperty","valueList":[1,2]},"#,
        r#""path":{"type":"ListRelationship","objectList":[{"object":"urn:o:1"}]}}"#
    );

    fn render(representation: Representation) -> String {
        let value = parse_json(NORMALIZED.as_bytes()).unwrap();
        let entity = parse_entity(&value, &Context::core(), Form::Full).unwrap();
        let mut out = Vec::new();
        let options = Options { representation, ..Options::default() };
        render_entity(&mut out, &entity, &Context::core(), &options);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn normalized_comes_back_as_it_was() {
        assert_eq!(render(Representation::Normalized), NORMALIZED);
    }

    #[test]
    fn concise_says_the_same_in_less() {
        let concise = render(Representation::Concise);
        assert!(concise.contains(r#""location":{"type":"Point""#), "{concise}");
        let value = parse_json(concise.as_bytes()).unwrap();
        let again = parse_entity(&value, &Context::core(), Form::Full).unwrap();
        let mut out = Vec::new();
        render_entity(&mut out, &again, &Context::core(), &Options::default());
        assert_eq!(String::from_utf8(out).unwrap(), NORMALIZED);
    }

    #[test]
    fn simplified_keeps_values_only() {
        let simplified = render(Representation::Simplified);
        assert!(
            simplified.contains(r#""level":{"dataset":{"@none":1.5,"urn:d:2":2}}"#),
            "{simplified}"
        );
        assert!(simplified.contains(r#""raw":{"json":{"a":[1,null]}}"#), "{simplified}");
    }
}
