//! Which members of an entity an answer has: `attrs`, `pick`, `omit` and `datasetId`.

use crate::parse::check_name;
use crate::{Context, Invalid};
use model::{Entity, Instance, Name};

/// What of an entity is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// Only these attributes; none: all.
    only: Option<Vec<Name>>,
    without: Vec<Name>,
    no_id: bool,
    no_type: bool,
    /// `id` or `type` was picked by name.
    named: bool,
    /// Only instances with these ids, none being the default one; empty: all.
    instances: Vec<Option<String>>,
}

impl Members {
    /// Reads the parameters, given as lists of terms.
    ///
    /// # Errors
    /// When a term is no name, is both picked and omitted, or `attrs` comes with either.
    pub fn parse(
        (attrs, pick, omit): (&[&str], &[&str], &[&str]),
        instances: &[&str],
        context: &Context,
    ) -> Result<Members, Invalid> {
        for (place, terms) in [("?attrs", attrs), ("?pick", pick), ("?omit", omit)] {
            for term in terms {
                check_name(term).map_err(|invalid| Invalid::data(place, invalid.to_string()))?;
            }
        }
        let others = pick.iter().chain(omit).count();
        if !attrs.is_empty() && others > 0 {
            return Err(Invalid::data("?attrs", "goes with neither `pick` nor `omit`"));
        }
        if let Some(both) = pick.iter().find(|term| omit.contains(term)) {
            return Err(Invalid::data("?omit", format!("`{both}` is picked and omitted")));
        }
        let is_own = |term: &&&str| matches!(**term, "id" | "type");
        let names = |terms: &[&str]| -> Vec<Name> {
            terms.iter().filter(|term| !is_own(term)).map(|term| context.expand(term)).collect()
        };
        let picks = !pick.is_empty();
        Ok(Members {
            only: (picks || !attrs.is_empty()).then(|| names(if picks { pick } else { attrs })),
            without: names(omit),
            no_id: omit.contains(&"id") || (picks && !pick.contains(&"id")),
            no_type: omit.contains(&"type") || (picks && !pick.contains(&"type")),
            named: pick.iter().any(|term| is_own(&term)),
            instances: instances
                .iter()
                .map(|id| (*id != "@none").then(|| (*id).to_owned()))
                .collect(),
        })
    }

    /// Only these attributes; all when none is named.
    pub fn only(names: Vec<Name>) -> Members {
        Members { only: (!names.is_empty()).then_some(names), ..Members::default() }
    }

    pub(crate) fn id(&self) -> bool {
        !self.no_id
    }

    pub(crate) fn types(&self) -> bool {
        !self.no_type
    }

    /// The attributes that are wanted, when only some are.
    pub fn attributes(&self) -> &[Name] {
        self.only.as_deref().unwrap_or_default()
    }

    /// Whether an attribute is written.
    pub fn wants(&self, name: &Name) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name)) && !self.without.contains(name)
    }

    /// Whether an instance of an attribute is written.
    pub fn wants_instance(&self, instance: &Instance) -> bool {
        self.instances.is_empty() || self.instances.contains(&instance.instance_id)
    }

    /// Whether anything of an entity is left to be written.
    pub fn leaves(&self, entity: &Entity) -> bool {
        let own = (self.only.is_none() || self.named) && (self.id() || self.types());
        own || entity.attributes.iter().any(|attribute| self.wants(&attribute.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_and_omitted() {
        let parse = |attrs: &[&str], pick: &[&str], omit: &[&str]| {
            Members::parse((attrs, pick, omit), &[], &Context::core())
        };
        let picked = parse(&[], &["id", "a"], &[]).unwrap();
        assert!(picked.id() && !picked.types() && picked.wants(&Name::new("a")));
        assert!(!picked.wants(&Name::new("b")));
        let omitted = parse(&[], &[], &["type", "a"]).unwrap();
        assert!(omitted.id() && !omitted.types() && !omitted.wants(&Name::new("a")));
        for (attrs, pick, omit) in [
            (vec![], vec!["a"], vec!["a"]),
            (vec!["a"], vec!["b"], vec![]),
            (vec![], vec!["a;b"], vec![]),
            (vec![], vec![], vec!["a{b"]),
        ] {
            assert!(parse(&attrs, &pick, &omit).is_err(), "{pick:?} {omit:?}");
        }
    }
}
