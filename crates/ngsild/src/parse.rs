//! Entities and attributes from JSON: normalized, concise and simplified (clauses 4.5, 5.2.4).

use crate::{Context, Invalid, geo};
use model::{Attribute, Content, Entity, Instance, Name, Time, Value};
use std::collections::HashSet;

/// Most attributes of one entity.
pub const MAX_ATTRIBUTES: usize = 1_000;
/// Most types, and most scopes, of one entity.
pub const MAX_TYPES: usize = 100;
/// Attributes of attributes lie at most this deep.
pub const MAX_PARTS_DEPTH: usize = 4;
/// Longest id, name or unit, in bytes.
pub const MAX_NAME_BYTES: usize = 1_024;
/// JSON may lie at most this deep.
pub const MAX_JSON_DEPTH: usize = 64;
/// Most values in one JSON text.
pub const MAX_JSON_VALUES: usize = 2_000_000;
/// Most instances of one attribute in a request.
pub const MAX_INSTANCES: usize = 10_000;
/// The text that stands for null in a patch (clause 4.5.0).
pub const NGSILD_NULL: &str = "urn:ngsi-ld:null";

/// Which forms of attributes are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Normalized or concise.
    Full,
    /// Simplified: every value is the value itself.
    Simplified,
    /// Whatever can be understood: what devices send.
    Any,
}

/// Reads JSON.
///
/// # Errors
/// When it is none, or lies too deep, with line and column.
pub fn parse_json(bytes: &[u8]) -> Result<Value, Invalid> {
    // Counted before anything is made of them; commas in texts count, too.
    if bytes.iter().filter(|byte| **byte == b',').count() >= MAX_JSON_VALUES {
        let what = format!("the JSON holds more than {MAX_JSON_VALUES} values; send fewer at once");
        return Err(Invalid::request("", what));
    }
    // The parser itself gives up at a depth of 128, before the stack does.
    let deep = || Invalid::request("", format!("the JSON is more than {MAX_JSON_DEPTH} deep"));
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let what = error.to_string();
        if what.starts_with("recursion limit") {
            return deep();
        }
        Invalid::request("", format!("no valid JSON: {what}"))
    })?;
    if is_deeper(&value, MAX_JSON_DEPTH) { Err(deep()) } else { Ok(value) }
}

/// Whether a value lies in more than so many lists and objects.
fn is_deeper(value: &Value, levels: usize) -> bool {
    match (value, levels) {
        (Value::List(_) | Value::Map(_), 0) => true,
        (Value::List(items), _) => items.iter().any(|item| is_deeper(item, levels - 1)),
        (Value::Map(entries), _) => entries.iter().any(|(_, item)| is_deeper(item, levels - 1)),
        _ => false,
    }
}

/// Checks that a text is an absolute URI (RFC 3986 clause 4.3, loosely).
///
/// # Errors
/// When it has no scheme, or holds a space, a control or a delimiter that URIs do not have.
pub fn check_uri(text: &str, place: &str) -> Result<(), Invalid> {
    let scheme_end = text.find(':').unwrap_or(0);
    let scheme = &text.as_bytes()[..scheme_end];
    let good_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    let bad = |c: char| c.is_control() || c.is_whitespace() || "<>\"{}|\\^`".contains(c);
    if !good_scheme || text.len() == scheme_end + 1 || text.contains(bad) {
        let shown: String = text.chars().take(80).collect();
        return Err(Invalid::data(
            place,
            format!("`{shown}` is no URI such as `urn:ngsi-ld:Vehicle:1`"),
        ));
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(Invalid::data(place, format!("the URI is longer than {MAX_NAME_BYTES} bytes")));
    }
    Ok(())
}

pub(crate) fn check_name(name: &str) -> Result<(), Invalid> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "<>\"'=;()[]{}|\\^`,?&".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(bad) {
        let shown: String = name.chars().take(40).collect();
        return Err(Invalid::data(
            "",
            format!("`{shown}` is no name: letters, digits, `_`, `-`, `.` or an IRI"),
        ));
    }
    Ok(())
}

/// Whether these members are texts, where they are there: what has another kind is not left out, for then
/// more would be asked for than was meant.
///
/// # Errors
/// The first that is not, with its place.
pub fn check_texts(value: &Value, place: &str, members: &[&str]) -> Result<(), Invalid> {
    let wrong = |key: &&&str| value.get(key).is_some_and(|value| value.as_text().is_none());
    match members.iter().find(wrong) {
        Some(key) => Err(Invalid::data(format!("{place}/{key}"), "is no text")),
        None => Ok(()),
    }
}

/// The same of all items of a list.
///
/// # Errors
/// When one is not.
pub fn check_all_texts(items: &[Value], place: &str) -> Result<(), Invalid> {
    if items.iter().all(|item| item.as_text().is_some()) {
        return Ok(());
    }
    Err(Invalid::data(place, "is no text, or no list of texts"))
}

/// Reads a whole entity: id and type are needed.
///
/// # Errors
/// What does not fit, with its place.
pub fn parse_entity(value: &Value, context: &Context, form: Form) -> Result<Entity, Invalid> {
    let entity = parse_fragment(value, context, form)?;
    if entity.id.is_empty() {
        return Err(Invalid::data("/id", "is missing"));
    }
    if entity.types.is_empty() {
        return Err(Invalid::data("/type", "is missing"));
    }
    Ok(entity)
}

/// Reads part of an entity: id and type may be missing (empty), `urn:ngsi-ld:null` becomes
/// [`Content::Null`].
///
/// # Errors
/// What does not fit, with its place.
pub fn parse_fragment(value: &Value, context: &Context, form: Form) -> Result<Entity, Invalid> {
    let Value::Map(entries) = value else {
        return Err(Invalid::data("", "an entity is a JSON object"));
    };
    if entries.len() > MAX_ATTRIBUTES {
        return Err(Invalid::data(
            "",
            format!("an entity has at most {MAX_ATTRIBUTES} attributes"),
        ));
    }
    let mut entity = Entity {
        id: String::new(),
        types: Vec::new(),
        scopes: Vec::new(),
        created: Time::default(),
        modified: Time::default(),
        attributes: Vec::with_capacity(entries.len()),
    };
    for (key, value) in entries {
        match key.as_str() {
            "id" | "@id" => {
                let id = value.as_text().ok_or_else(|| Invalid::data("/id", "is no text"))?;
                check_uri(id, "/id")?;
                if !entity.id.is_empty() {
                    return Err(Invalid::data("/id", "occurs twice"));
                }
                entity.id = id.to_owned();
            }
            "type" | "@type" => entity.types = parse_types(value, context)?,
            "scope" => entity.scopes = parse_scopes(value)?,
            "@context" | "createdAt" | "modifiedAt" | "deletedAt" => {}
            name => {
                let attribute = attribute_name(name, context)
                    .and_then(|name| parse_attribute(name, value, context, form))
                    .map_err(|invalid| invalid.inside(name))?;
                if entity.attribute(attribute.name.as_str()).is_some() {
                    return Err(
                        Invalid::data("", "occurs twice under different names").inside(name)
                    );
                }
                entity.attributes.push(attribute);
            }
        }
    }
    Ok(entity)
}

fn parse_types(value: &Value, context: &Context) -> Result<Vec<Name>, Invalid> {
    let mut types = Vec::new();
    check_few(value, "/type")?;
    for item in value.items() {
        let text = item.as_text().ok_or_else(|| Invalid::data("/type", "is no text"))?;
        check_name(text).map_err(|invalid| invalid.inside("type"))?;
        let name = context.expand(text);
        if !types.contains(&name) {
            types.push(name);
        }
    }
    if types.is_empty() { Err(Invalid::data("/type", "is empty")) } else { Ok(types) }
}

fn parse_scopes(value: &Value) -> Result<Vec<String>, Invalid> {
    let scope = |item: &Value| {
        let text = item.as_text().unwrap_or_default();
        let good = |level: &str| {
            !level.is_empty() && level.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        };
        let path = text.trim_start_matches('/');
        if path.split('/').all(good) {
            Ok(format!("/{path}"))
        } else {
            Err(Invalid::data("/scope", format!("`{text}` is no scope such as `/bandung/coblong`")))
        }
    };
    check_few(value, "/scope")?;
    value.items().iter().map(scope).collect()
}

fn check_few(value: &Value, place: &str) -> Result<(), Invalid> {
    if value.items().len() > MAX_TYPES {
        return Err(Invalid::data(place, format!("has more than {MAX_TYPES} values")));
    }
    Ok(())
}

/// Members of an entity that are no attributes, and those of an attribute's instance that are no attributes
/// of it.
pub(crate) const OF_ENTITIES: [&str; 9] =
    ["id", "@id", "type", "@type", "scope", "@context", "createdAt", "modifiedAt", "deletedAt"];
pub(crate) const OF_INSTANCES: [&str; 20] = [
    "type",
    "@type",
    "createdAt",
    "modifiedAt",
    "deletedAt",
    "instanceId",
    "objectType",
    "previousValue",
    "previousObject",
    "previousLanguageMap",
    "observedAt",
    "unitCode",
    "datasetId",
    "value",
    "object",
    "languageMap",
    "json",
    "vocab",
    "valueList",
    "objectList",
];

/// A name that would be written as one of `members` is none: whoever reads what is written would take
/// the one for the other.
fn check_no_member(name: &Name, members: &[&str]) -> Result<(), Invalid> {
    if members.contains(&name.as_str()) {
        let what = format!("means `{name}`, which is no name for an attribute here");
        return Err(Invalid::data("", what));
    }
    Ok(())
}

/// The name that an attribute gets by a term, under a context.
///
/// # Errors
/// When it is no name, or means one of an entity's own members.
pub fn attribute_name(term: &str, context: &Context) -> Result<Name, Invalid> {
    check_name(term)?;
    let name = context.expand(term);
    check_no_member(&name, &OF_ENTITIES)?;
    Ok(name)
}

/// Reads one attribute: one instance, or a list of them with different `datasetId`s.
///
/// # Errors
/// What does not fit, with its place inside the attribute.
pub fn parse_attribute(
    name: Name,
    value: &Value,
    context: &Context,
    form: Form,
) -> Result<Attribute, Invalid> {
    let is_instance = |item: &Value| reserved_member(item).is_some() || kind_of(item).is_some();
    let instances = match value {
        Value::List(items)
            if form != Form::Simplified && !items.is_empty() && items.iter().all(is_instance) =>
        {
            if items.len() > MAX_INSTANCES {
                let what =
                    format!("an attribute has at most {MAX_INSTANCES} instances in a request");
                return Err(Invalid::data("", what));
            }
            let mut instances: Vec<Instance> = Vec::with_capacity(items.len());
            let mut ids = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let instance = parse_instance(item, context, form, 0)
                    .map_err(|invalid| invalid.inside(&index.to_string()))?;
                if !ids.insert(instance.instance_id.clone()) {
                    let what = "two instances have the same `datasetId`";
                    return Err(Invalid::data(format!("/{index}/datasetId"), what));
                }
                instances.push(instance);
            }
            instances
        }
        one => vec![parse_instance(one, context, form, 0)?],
    };
    Ok(Attribute { name, instances })
}

const KINDS: [&str; 8] = [
    "Property",
    "Relationship",
    "GeoProperty",
    "LanguageProperty",
    "JsonProperty",
    "VocabProperty",
    "ListProperty",
    "ListRelationship",
];
const MEMBERS: [&str; 8] =
    ["value", "object", "value", "languageMap", "json", "vocab", "valueList", "objectList"];

/// The kind that an object's `type` names, as an index into [`KINDS`].
fn kind_of(value: &Value) -> Option<usize> {
    let named = value.get("type").or_else(|| value.get("@type"))?.as_text()?;
    KINDS.iter().position(|kind| *kind == named)
}

/// The kind that a concise object's members tell.
fn reserved_member(value: &Value) -> Option<usize> {
    [1, 3, 4, 5, 6, 7, 0].into_iter().find(|kind| value.get(MEMBERS[*kind]).is_some())
}

fn parse_instance(
    value: &Value,
    context: &Context,
    form: Form,
    depth: usize,
) -> Result<Instance, Invalid> {
    if depth > MAX_PARTS_DEPTH {
        return Err(Invalid::data("", format!("attributes lie more than {MAX_PARTS_DEPTH} deep")));
    }
    let plain = |value: &Value| {
        if geo::is_geometry(value) {
            geo::check_geometry(value)?;
            return Ok(Instance::of(Content::GeoProperty(value.clone())));
        }
        match value {
            Value::Text(text) if text == NGSILD_NULL => Ok(Instance::of(Content::Null)),
            Value::Null => {
                Err(Invalid::data("", format!("is null; to delete it, send `{NGSILD_NULL}`")))
            }
            value => Ok(Instance::of(Content::Property(value.clone()))),
        }
    };
    if form == Form::Simplified || !matches!(value, Value::Map(_)) || geo::is_geometry(value) {
        return plain(value);
    }
    let kind = match (kind_of(value), reserved_member(value)) {
        (Some(kind), _) => kind,
        (None, Some(0)) if value.get("value").is_some_and(geo::is_geometry) => 2,
        (None, Some(kind)) if value.get("type").is_none() => kind,
        (None, _) if form == Form::Any => return plain(value),
        (None, _) => {
            let what = match value.get("type").and_then(Value::as_text) {
                Some(other) => format!("type `{other}` is none of: {}", KINDS.join(", ")),
                None => "has neither `value` nor another member that makes it an attribute".into(),
            };
            return Err(Invalid::data("", what));
        }
    };
    let member = MEMBERS[kind];
    let Some(content) = value.get(member) else {
        return Err(Invalid::data(
            format!("/{member}"),
            format!("is missing from this {}", KINDS[kind]),
        ));
    };
    let mut instance = Instance::of(
        parse_content(kind, content, value, context).map_err(|invalid| invalid.inside(member))?,
    );
    for (key, value) in value.entries() {
        match key.as_str() {
            "type"
            | "@type"
            | "createdAt"
            | "modifiedAt"
            | "deletedAt"
            | "instanceId"
            | "objectType"
            | "previousValue"
            | "previousObject"
            | "previousLanguageMap" => {}
            key if key == member => {}
            "observedAt" => instance.observed_at = Some(parse_time(value, "/observedAt")?),
            "unitCode" => instance.unit = Some(parse_text(value, "/unitCode")?),
            "datasetId" => {
                let id = parse_text(value, "/datasetId")?;
                check_uri(&id, "/datasetId")?;
                instance.instance_id = (id != "@none").then_some(id);
            }
            name => {
                check_name(name).map_err(|invalid| invalid.inside(name))?;
                let part_name = context.expand(name);
                // Members of another kind of attribute, by their own names, mean nothing here.
                if part_name.as_str() != name {
                    check_no_member(&part_name, &OF_INSTANCES).map_err(|e| e.inside(name))?;
                }
                if instance.parts.len() >= MAX_ATTRIBUTES {
                    let what = format!("an attribute has at most {MAX_ATTRIBUTES} of its own");
                    return Err(Invalid::data("", what));
                }
                if instance.parts.iter().any(|(known, _)| *known == part_name) {
                    let what = "occurs twice under different names";
                    return Err(Invalid::data("", what).inside(name));
                }
                let part = parse_instance(value, context, form, depth + 1)
                    .map_err(|invalid| invalid.inside(name))?;
                instance.parts.push((part_name, part));
            }
        }
    }
    Ok(instance)
}

fn parse_text(value: &Value, place: &str) -> Result<String, Invalid> {
    match value {
        Value::Text(text) if !text.is_empty() && text.len() <= MAX_NAME_BYTES => Ok(text.clone()),
        _ => Err(Invalid::data(place, "is no text, or empty, or too long")),
    }
}

fn parse_time(value: &Value, place: &str) -> Result<Time, Invalid> {
    let text = value.as_text().ok_or_else(|| Invalid::data(place, "is no text"))?;
    Time::parse(text).map_err(|error| Invalid::data(place, error.to_string()))
}

fn parse_content(
    kind: usize,
    content: &Value,
    whole: &Value,
    context: &Context,
) -> Result<Content, Invalid> {
    // A language map that says nothing is deleted by its `@none` (clause 4.5.0).
    let nothing = match (KINDS[kind], content) {
        ("LanguageProperty", Value::Map(entries)) => match entries.as_slice() {
            [(language, text)] => language == "@none" && text.as_text() == Some(NGSILD_NULL),
            _ => false,
        },
        _ => content.as_text() == Some(NGSILD_NULL),
    };
    if nothing {
        return Ok(Content::Null);
    }
    let uris = |value: &Value| -> Result<Vec<String>, Invalid> {
        let uri = |item: &Value| {
            let item = item.get("object").unwrap_or(item);
            let text = item.as_text().ok_or_else(|| Invalid::data("", "is no URI"))?;
            check_uri(text, "").map(|()| text.to_owned())
        };
        value.items().iter().map(uri).collect()
    };
    match KINDS[kind] {
        "Property" if *content == Value::Null => Err(Invalid::data("", "is null")),
        "Property" => Ok(Content::Property(content.clone())),
        "GeoProperty" => {
            geo::check_geometry(content)?;
            Ok(Content::GeoProperty(content.clone()))
        }
        "Relationship" => Ok(Content::Relationship {
            objects: uris(content)?,
            many: matches!(content, Value::List(_)),
            object_types: match whole.get("objectType") {
                Some(types) => parse_types(types, context)?,
                None => Vec::new(),
            },
        }),
        "LanguageProperty" => match content {
            Value::Map(entries)
                if entries.iter().all(|(_, v)| {
                    v.as_text().is_some()
                        || matches!(v, Value::List(l) if l.iter().all(|i| i.as_text().is_some()))
                }) && !entries.is_empty() =>
            {
                Ok(Content::LanguageProperty(entries.clone()))
            }
            _ => Err(Invalid::data(
                "",
                "is no object of texts by language, such as `{\"id\": \"sungai\"}`",
            )),
        },
        "JsonProperty" => Ok(Content::JsonProperty(content.clone())),
        "VocabProperty" => {
            let word = |item: &Value| {
                item.as_text()
                    .map(|t| context.expand(t))
                    .ok_or_else(|| Invalid::data("", "is no text"))
            };
            let words = content.items().iter().map(word).collect::<Result<_, _>>()?;
            Ok(Content::VocabProperty { words, many: matches!(content, Value::List(_)) })
        }
        "ListProperty" => match content {
            Value::List(items) => Ok(Content::ListProperty(items.clone())),
            _ => Err(Invalid::data("", "is no list")),
        },
        _ => match content {
            Value::List(_) => Ok(Content::ListRelationship(uris(content)?)),
            _ => Err(Invalid::data("", "is no list")),
        },
    }
}
