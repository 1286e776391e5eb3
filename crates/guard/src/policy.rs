//! Cedar policies under a strict schema.

use cedar_policy::{PolicyId, PolicySet, Schema, ValidationMode, Validator};
use std::str::FromStr;

/// What policies may speak of.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The policies a city starts with.
pub const DEFAULT_POLICIES: &str = include_str!("default.cedar");
/// Largest policy text.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// Why policies are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policies are longer than {MAX_POLICY_BYTES} bytes")]
    TooLong,
    #[error("the policies do not parse: {0}")]
    Syntax(String),
    #[error("the policies do not fit the schema: {0}")]
    Schema(String),
    #[error("a policy has no `@id`, or two have the id `{0}`")]
    Id(String),
}

/// Checked policies, with the text they came from.
#[derive(Clone)]
pub struct Policies {
    pub(crate) set: PolicySet,
    pub(crate) schema: Schema,
    text: String,
}

impl Policies {
    /// Parses and checks.
    ///
    /// # Errors
    /// When the text is too long, does not parse, speaks of what the schema does not have, or a
    /// policy has no id of its own.
    pub fn parse(text: &str) -> Result<Policies, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong);
        }
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA)
            .map_err(|error| PolicyError::Schema(error.to_string()))?;
        let set =
            PolicySet::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        if !result.validation_passed() {
            let errors: Vec<String> = result.validation_errors().map(ToString::to_string).collect();
            return Err(PolicyError::Schema(errors.join("; ")));
        }
        let mut seen = std::collections::BTreeSet::new();
        for policy in set.policies() {
            let id = policy.annotation("id").unwrap_or_default().to_owned();
            if id.is_empty() || !seen.insert(id.clone()) {
                return Err(PolicyError::Id(id));
            }
        }
        Ok(Policies { set, schema, text: text.to_owned() })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A policy's own id and title.
    pub(crate) fn title(&self, id: &PolicyId) -> (String, String) {
        let annotation = |key| self.set.annotation(id, key).unwrap_or_default().to_owned();
        (annotation("id"), annotation("title"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policies_hold() {
        assert!(
            Policies::parse(DEFAULT_POLICIES).is_ok(),
            "{:?}",
            Policies::parse(DEFAULT_POLICIES).err()
        );
    }

    #[test]
    fn refuses() {
        let check =
            |text: &str| Policies::parse(text).err().map(|error| error.to_string()).unwrap();
        assert!(check("permit(").contains("do not parse"));
        assert!(check("permit(principal, action, resource);").contains("no `@id`"));
        let twice = r#"@id("a") permit(principal, action, resource);"#.repeat(2);
        assert!(check(&twice).contains("two have the id `a`"));
        let unknown =
            r#"@id("a") permit(principal, action, resource) when { resource.colour == "red" };"#;
        assert!(check(unknown).contains("do not fit the schema"));
        assert!(check(&" ".repeat(MAX_POLICY_BYTES + 1)).contains("longer"));
        let longest = " ".repeat(MAX_POLICY_BYTES);
        assert_eq!(Policies::parse(&longest).unwrap().text(), longest);
    }
}
