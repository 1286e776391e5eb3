//! Entities and their attributes (ETSI GS CIM 009 clauses 4.5 and 5.2).

use crate::{Name, Time, Value};
use serde::{Deserialize, Serialize};

/// A thing the city knows: a gauge, a street, a person on a register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// A URI.
    pub id: String,
    /// At least one, in the order given.
    pub types: Vec<Name>,
    /// Scopes (clause 4.18), each starting with `/`.
    pub scopes: Vec<String>,
    pub created: Time,
    pub modified: Time,
    pub attributes: Vec<Attribute>,
}

/// An attribute: one instance for each instance id (NGSI-LD `datasetId`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    pub name: Name,
    /// At least one.
    pub instances: Vec<Instance>,
}

/// One value of an attribute with what is said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// NGSI-LD's `datasetId`; none is the default instance.
    pub instance_id: Option<String>,
    pub content: Content,
    /// UN/CEFACT common code.
    pub unit: Option<String>,
    pub observed_at: Option<Time>,
    pub created: Time,
    pub modified: Time,
    /// Attributes of this attribute, one instance each.
    pub parts: Vec<(Name, Instance)>,
}

/// The eight kinds of attribute with their values (clause 4.5.2 to 4.5.24).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    Property(Value),
    Relationship {
        objects: Vec<String>,
        many: bool,
        object_types: Vec<Name>,
    },
    /// A GeoJSON geometry (RFC 7946 clause 3.1).
    GeoProperty(Value),
    /// Texts by language tag.
    LanguageProperty(Vec<(String, Value)>),
    JsonProperty(Value),
    VocabProperty {
        words: Vec<Name>,
        many: bool,
    },
    ListProperty(Vec<Value>),
    ListRelationship(Vec<String>),
    /// Only in a patch: the instance is to go (`urn:ngsi-ld:null`, clause 4.5.0).
    Null,
}

impl Content {
    /// The standard's word for this kind of attribute.
    pub fn kind(&self) -> &'static str {
        match self {
            Content::Property(_) | Content::Null => "Property",
            Content::Relationship { .. } => "Relationship",
            Content::GeoProperty(_) => "GeoProperty",
            Content::LanguageProperty(_) => "LanguageProperty",
            Content::JsonProperty(_) => "JsonProperty",
            Content::VocabProperty { .. } => "VocabProperty",
            Content::ListProperty(_) => "ListProperty",
            Content::ListRelationship(_) => "ListRelationship",
        }
    }
}

impl Entity {
    /// The attribute called `name`, if there.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name.as_str() == name)
    }

    /// The attribute called `name`, if there, to change.
    pub fn attribute_mut(&mut self, name: &str) -> Option<&mut Attribute> {
        self.attributes.iter_mut().find(|attribute| attribute.name.as_str() == name)
    }
}

impl Attribute {
    /// The default instance, or else the first.
    pub fn default_instance(&self) -> Option<&Instance> {
        self.instances
            .iter()
            .find(|instance| instance.instance_id.is_none())
            .or_else(|| self.instances.first())
    }
}

impl Instance {
    /// An instance of `content` with nothing else said.
    pub fn of(content: Content) -> Instance {
        Instance {
            instance_id: None,
            content,
            unit: None,
            observed_at: None,
            created: Time::default(),
            modified: Time::default(),
            parts: Vec::new(),
        }
    }

    /// The value as one [`Value`], whatever the kind: what filters and simplified answers see.
    pub fn value(&self) -> Value {
        let texts = |words: &[String]| words.iter().map(|w| Value::from(w.as_str())).collect();
        match &self.content {
            Content::Property(value)
            | Content::GeoProperty(value)
            | Content::JsonProperty(value) => value.clone(),
            Content::Relationship { objects, many, .. } => match objects.as_slice() {
                [object] if !many => Value::from(object.as_str()),
                objects => Value::List(texts(objects)),
            },
            Content::LanguageProperty(map) => Value::Map(map.clone()),
            Content::VocabProperty { words, many } => match words.as_slice() {
                [word] if !many => Value::from(word.as_str()),
                words => Value::List(words.iter().map(|w| Value::from(w.as_str())).collect()),
            },
            Content::ListProperty(items) => Value::List(items.clone()),
            Content::ListRelationship(objects) => Value::List(texts(objects)),
            Content::Null => Value::Null,
        }
    }
}
