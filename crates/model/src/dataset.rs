//! Datasets: the unit of government.

use crate::{Content, Entity, Instance, Name, Value, scope_within};
use serde::{Deserialize, Serialize};

/// How much harm a value can do; the order is the order of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    Open,
    Internal,
    Confidential,
    Personal,
    Special,
}

impl Sensitivity {
    /// All five, least first.
    pub const ALL: [Sensitivity; 5] =
        [Self::Open, Self::Internal, Self::Confidential, Self::Personal, Self::Special];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Personal => "personal",
            Self::Special => "special",
        }
    }
}

/// Whether a purpose serves citizens or watches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurposeKind {
    Service,
    Surveillance,
}

/// Why data is used (Data Privacy Vocabulary terms where one fits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purpose {
    pub id: String,
    pub title: String,
    pub kind: PurposeKind,
    /// Reads for it go on while the log cannot be written: their records wait in the ring.
    #[serde(default)]
    pub emergency: bool,
}

/// What stands in for an attribute that is only glimpsed.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Withheld {
    /// Nothing: the attribute does not exist.
    #[default]
    Hide,
    /// `***`.
    Mask,
    /// The value rounded down to a multiple of `step` (a place: degrees).
    Coarsen { step: f64 },
}

/// What values an attribute may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueKind {
    #[default]
    Any,
    Number,
    Text,
    Boolean,
    Place,
    Relationship,
    DateTime,
}

/// One attribute in a dataset's data model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributeModel {
    pub name: Name,
    #[serde(default)]
    pub kind: ValueKind,
    pub sensitivity: Sensitivity,
    #[serde(default)]
    pub withheld: Withheld,
    /// UN/CEFACT common code that a reading must carry if it carries one.
    #[serde(default)]
    pub unit: Option<String>,
    #[serde(default)]
    pub minimum: Option<f64>,
    #[serde(default)]
    pub maximum: Option<f64>,
    /// Largest believable difference from the value before it.
    #[serde(default)]
    pub max_step: Option<f64>,
    /// The only texts allowed, when not empty.
    #[serde(default)]
    pub choices: Vec<String>,
    #[serde(default)]
    pub required: bool,
    /// Whether past values are kept.
    #[serde(default = "yes")]
    pub history: bool,
}

fn yes() -> bool {
    true
}

/// The entities a dataset claims: of this type, at or below this scope (empty: any).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    #[serde(rename = "type")]
    pub of_type: Name,
    #[serde(default)]
    pub scope: String,
}

/// Whether citizens may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publication {
    #[default]
    Withheld,
    /// Attributes of sensitivity `open` are for everyone.
    Open,
}

/// The unit of government (DCAT's dataset): what is kept, who answers for it, who may see it why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// A short word, unique in the tenant.
    pub id: String,
    pub title: String,
    /// The owning department.
    pub department: String,
    /// Login of the official who answers for it.
    pub steward: String,
    pub claims: Vec<Claim>,
    /// Takes every type no other dataset claims.
    #[serde(default)]
    pub catch_all: bool,
    /// The data model. An attribute not listed has sensitivity [`Dataset::undeclared`].
    pub attributes: Vec<AttributeModel>,
    /// Sensitivity of attributes the model does not list.
    #[serde(default = "personal")]
    pub undeclared: Sensitivity,
    /// Whether attributes the model does not list are refused.
    #[serde(default)]
    pub closed: bool,
    pub purposes: Vec<String>,
    pub legal_basis: String,
    #[serde(default)]
    pub recipients: Vec<String>,
    /// Days that past values are kept; none: for ever.
    #[serde(default)]
    pub retention_days: Option<u32>,
    #[serde(default)]
    pub publication: Publication,
    /// Each entity is about one person, and is kept under a key of its own that can be erased.
    #[serde(default)]
    pub about_people: bool,
    /// Writes go on when records cannot be made durable (failure class B).
    #[serde(default)]
    pub life_safety: bool,
    /// Counted up by every change.
    #[serde(default)]
    pub version: u64,
}

fn personal() -> Sensitivity {
    Sensitivity::Personal
}

/// Why an entity does not fit a dataset's data model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DatasetError {
    #[error("attribute `{0}` is not in the data model of dataset `{1}`")]
    Undeclared(Name, String),
    #[error("attribute `{0}` is required by dataset `{1}`")]
    Missing(Name, String),
    #[error("attribute `{name}` is {found}, where dataset `{dataset}` wants {wanted}")]
    WrongKind { name: Name, found: String, wanted: &'static str, dataset: String },
    #[error("attribute `{name}` is {found}, outside {minimum} to {maximum}")]
    OutOfRange { name: Name, found: f64, minimum: f64, maximum: f64 },
    #[error("attribute `{name}` is `{found}`, which is none of: {choices}")]
    NoChoice { name: Name, found: String, choices: String },
    #[error("attribute `{name}` has unit `{found}`, where dataset `{dataset}` wants `{wanted}`")]
    WrongUnit { name: Name, found: String, wanted: String, dataset: String },
    // What it was before is for those who may see it.
    #[error("attribute `{name}` jumps to {found}, by more than {max_step} at once")]
    Jump { name: Name, found: f64, max_step: f64 },
}

impl Dataset {
    /// Whether the dataset claims an entity of this type and these scopes.
    pub fn claims(&self, of_type: &Name, scopes: &[String]) -> bool {
        let within = |claim: &Claim| {
            claim.scope.is_empty() || scopes.iter().any(|s| scope_within(s, &claim.scope))
        };
        self.claims.iter().any(|claim| claim.of_type == *of_type && within(claim))
    }

    /// A type and scope that both datasets claim, if there is one.
    pub fn overlap<'a>(&'a self, other: &'a Dataset) -> Option<&'a Claim> {
        let meet = |a: &Claim, b: &Claim| {
            a.of_type == b.of_type
                && (a.scope.is_empty() == b.scope.is_empty())
                && (scope_within(&a.scope, &b.scope) || scope_within(&b.scope, &a.scope))
        };
        self.claims.iter().find(|a| other.claims.iter().any(|b| meet(a, b)))
    }

    /// The model of an attribute, if declared.
    pub fn attribute(&self, name: &str) -> Option<&AttributeModel> {
        self.attributes.iter().find(|attribute| attribute.name.as_str() == name)
    }

    /// Sensitivity of an attribute and what stands in for it.
    pub fn treatment(&self, name: &Name) -> (Sensitivity, Withheld) {
        match self.attribute(name.as_str()) {
            Some(model) => (model.sensitivity, model.withheld),
            None => (self.undeclared, Withheld::Hide),
        }
    }

    /// The sensitivities of all attributes there may be, in no order and with repeats.
    pub fn each_sensitivity(&self) -> impl Iterator<Item = Sensitivity> {
        let undeclared = !self.closed || self.attributes.is_empty();
        let declared = self.attributes.iter().map(|a| a.sensitivity);
        declared.chain(undeclared.then_some(self.undeclared))
    }

    /// The sensitivities that occur, least first, without repeats.
    pub fn sensitivities(&self) -> Vec<Sensitivity> {
        let mut all: Vec<_> = self.each_sensitivity().collect();
        all.sort();
        all.dedup();
        all
    }

    /// The highest sensitivity in the model: decides keys and records.
    pub fn ceiling(&self) -> Sensitivity {
        self.each_sensitivity().max().unwrap_or(self.undeclared)
    }

    /// Whether the data lies under the sensitive root.
    pub fn is_sensitive(&self) -> bool {
        self.about_people
            || self.attributes.iter().any(|a| a.sensitivity >= Sensitivity::Confidential)
    }

    /// Checks what is to be stored against the model; `before` is what is stored now.
    ///
    /// # Errors
    /// The first attribute that does not fit, with why.
    pub fn check(&self, entity: &Entity, before: Option<&Entity>) -> Result<(), DatasetError> {
        for attribute in &entity.attributes {
            let Some(model) = self.attribute(attribute.name.as_str()) else {
                if self.closed && !self.catch_all {
                    return Err(DatasetError::Undeclared(attribute.name.clone(), self.id.clone()));
                }
                continue;
            };
            let old = before.and_then(|entity| entity.attribute(attribute.name.as_str()));
            for instance in &attribute.instances {
                let same = |old: &&Instance| old.instance_id == instance.instance_id;
                let old = old.and_then(|old| old.instances.iter().find(same));
                model.check(instance, old, &self.id)?;
            }
        }
        Ok(())
    }

    /// Whether a number may be stored as the default instance of an attribute whose history is kept;
    /// `before` is the number stored now. [`Dataset::check`] says why not.
    pub fn fits_number(&self, name: &str, unit: Option<&str>, found: f64, before: f64) -> bool {
        let Some(model) = self.attribute(name) else { return !self.closed || self.catch_all };
        let fits = match model.kind {
            ValueKind::Any => true,
            ValueKind::Number => model.check_number(found, Some(before)).is_ok(),
            _ => false,
        };
        model.history && fits && model.check_unit(unit, &self.id).is_ok()
    }

    /// Checks that a whole entity has all that is required.
    ///
    /// # Errors
    /// The first required attribute that is missing.
    pub fn check_complete(&self, entity: &Entity) -> Result<(), DatasetError> {
        let missing = |model: &&AttributeModel| {
            model.required && entity.attribute(model.name.as_str()).is_none()
        };
        match self.attributes.iter().find(missing) {
            Some(model) => Err(DatasetError::Missing(model.name.clone(), self.id.clone())),
            None => Ok(()),
        }
    }
}

impl AttributeModel {
    fn check(
        &self,
        instance: &Instance,
        before: Option<&Instance>,
        dataset: &str,
    ) -> Result<(), DatasetError> {
        let wrong = |wanted: &'static str, found: &str| DatasetError::WrongKind {
            name: self.name.clone(),
            found: found.to_owned(),
            wanted,
            dataset: dataset.to_owned(),
        };
        self.check_unit(instance.unit.as_deref(), dataset)?;
        match (&instance.content, self.kind) {
            (Content::Null, _) | (_, ValueKind::Any) => Ok(()),
            (Content::Property(value), ValueKind::Number) => match value.as_number() {
                Some(number) => {
                    let before = before.and_then(|instance| match &instance.content {
                        Content::Property(value) => value.as_number(),
                        _ => None,
                    });
                    self.check_number(number, before)
                }
                None => Err(wrong("a number", kind_word(value))),
            },
            (Content::Property(value), ValueKind::Text) => match value.as_text() {
                Some(text) => self.check_text(text),
                None => Err(wrong("a text", kind_word(value))),
            },
            (Content::Property(Value::Bool(_)), ValueKind::Boolean) => Ok(()),
            (Content::Property(value), ValueKind::Boolean) => {
                Err(wrong("true or false", kind_word(value)))
            }
            (Content::Property(value), ValueKind::DateTime) => {
                let text = value.as_text().or_else(|| value.get("@value").and_then(Value::as_text));
                match text.map(crate::Time::parse) {
                    Some(Ok(_)) => Ok(()),
                    _ => Err(wrong("a date and time", kind_word(value))),
                }
            }
            (Content::GeoProperty(_), ValueKind::Place) => Ok(()),
            (
                Content::Relationship { .. } | Content::ListRelationship(_),
                ValueKind::Relationship,
            ) => Ok(()),
            (_, ValueKind::Place) => {
                Err(wrong("a place (GeoProperty)", "another kind of attribute"))
            }
            (_, ValueKind::Relationship) => {
                Err(wrong("a relationship", "another kind of attribute"))
            }
            (_, _) => Err(wrong("a plain property", "another kind of attribute")),
        }
    }

    fn check_unit(&self, unit: Option<&str>, dataset: &str) -> Result<(), DatasetError> {
        match (self.unit.as_deref(), unit) {
            (Some(wanted), Some(found)) if wanted != found => Err(DatasetError::WrongUnit {
                name: self.name.clone(),
                found: found.to_owned(),
                wanted: wanted.to_owned(),
                dataset: dataset.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn check_number(&self, found: f64, before: Option<f64>) -> Result<(), DatasetError> {
        let minimum = self.minimum.unwrap_or(f64::NEG_INFINITY);
        let maximum = self.maximum.unwrap_or(f64::INFINITY);
        let name = self.name.clone();
        if !(minimum..=maximum).contains(&found) {
            return Err(DatasetError::OutOfRange { name, found, minimum, maximum });
        }
        match (self.max_step, before) {
            (Some(max_step), Some(before)) if (found - before).abs() > max_step => {
                Err(DatasetError::Jump { name, found, max_step })
            }
            _ => Ok(()),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), DatasetError> {
        if self.choices.is_empty() || self.choices.iter().any(|choice| choice == text) {
            return Ok(());
        }
        Err(DatasetError::NoChoice {
            name: self.name.clone(),
            found: text.chars().take(60).collect(),
            choices: self.choices.join(", "),
        })
    }
}

fn kind_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Integer(_) | Value::Real(_) => "a number",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Map(_) => "an object",
    }
}
