//! Which members of an entity an answer has: `attrs`, `pick`, `omit` and `datasetId` (clause 4.21).

use crate::parse::check_name;
use crate::{Context, Invalid};
use model::{Entity, Instance, Name};

/// Braces of `pick` and `omit` lie at most this deep; entities are joined over as many levels.
pub const MAX_JOIN_LEVELS: usize = 4;

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
    /// What of the entities that an attribute leads to.
    within: Vec<(Name, Members)>,
}

/// A term, and what stands in the braces behind it.
type Term<'a> = (&'a str, Option<&'a str>);

/// Splits a list at the commas outside braces.
fn terms<'a>(place: &str, text: &'a str) -> Result<Vec<Term<'a>>, Invalid> {
    let wrong = |what: String| Invalid::data(place, what);
    let (mut depth, mut start) = (0usize, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                let what = || wrong("a brace is closed that was not opened".into());
                depth = depth.checked_sub(1).ok_or_else(what)?;
            }
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if depth > MAX_JOIN_LEVELS {
            return Err(wrong(format!("braces lie more than {MAX_JOIN_LEVELS} deep")));
        }
    }
    parts.push(&text[start..]);
    let term = |part: &'a str| {
        let (term, inner) = match part.split_once('{') {
            None => (part, None),
            Some((term, rest)) => {
                let inner = rest.strip_suffix('}');
                (term, Some(inner.ok_or_else(|| wrong("a brace is not closed".into()))?))
            }
        };
        check_name(term).map_err(|invalid| wrong(invalid.to_string()))?;
        Ok((term, inner))
    };
    parts.into_iter().map(term).collect()
}

impl Members {
    /// Reads the parameters `attrs`, `pick` and `omit` as they were given, and ids of instances.
    ///
    /// # Errors
    /// When a term is no name, is both picked and omitted, or `attrs` comes with either.
    pub fn parse(
        (attrs, pick, omit): (Option<&str>, Option<&str>, Option<&str>),
        instances: &[&str],
        context: &Context,
    ) -> Result<Members, Invalid> {
        let given = |place: &str, text: Option<&'_ str>| match text {
            Some("") if place == "?attrs" => Ok(Vec::new()),
            Some(text) => terms(place, text).map(|terms| {
                terms.into_iter().map(|(a, b)| (a.to_owned(), b.map(str::to_owned))).collect()
            }),
            None => Ok(Vec::<(String, Option<String>)>::new()),
        };
        let (attrs, pick, omit) =
            (given("?attrs", attrs)?, given("?pick", pick)?, given("?omit", omit)?);
        let narrowed = !pick.is_empty() || !omit.is_empty();
        if !attrs.is_empty() && narrowed {
            return Err(Invalid::data("?attrs", "goes with neither `pick` nor `omit`"));
        }
        let is_own = |term: &str| matches!(term, "id" | "type");
        if let Some((own, _)) = attrs.iter().find(|(term, _)| is_own(term)) {
            return Err(Invalid::data("?attrs", format!("`{own}` is no attribute")));
        }
        // What has braces is not omitted itself.
        let gone: Vec<&str> =
            omit.iter().filter(|(_, inner)| inner.is_none()).map(|(t, _)| t.as_str()).collect();
        if let Some((both, _)) = pick.iter().find(|(term, _)| gone.contains(&term.as_str())) {
            return Err(Invalid::data("?omit", format!("`{both}` is picked and omitted")));
        }
        let mut within = Vec::new();
        let braced = pick.iter().chain(&omit).filter(|(_, inner)| inner.is_some());
        for (term, _) in braced {
            let name = context.expand(term);
            if within.iter().all(|(known, _)| *known != name) {
                let of = |terms: &[(String, Option<String>)]| {
                    terms.iter().find(|(t, _)| t == term).and_then(|(_, inner)| inner.clone())
                };
                let (pick, omit) = (of(&pick), of(&omit));
                let inner = (None, pick.as_deref(), omit.as_deref());
                within.push((name, Members::parse(inner, &[], context)?));
            }
        }
        let picks = |own: &str| pick.iter().any(|(term, _)| term == own);
        let only = |terms: &[(String, Option<String>)]| -> Vec<Name> {
            let others = terms.iter().filter(|(term, _)| !is_own(term));
            others.map(|(term, _)| context.expand(term)).collect()
        };
        let chosen = if pick.is_empty() { &attrs } else { &pick };
        Ok(Members {
            only: (!chosen.is_empty()).then(|| only(chosen)),
            without: gone.iter().filter(|t| !is_own(t)).map(|t| context.expand(t)).collect(),
            no_id: gone.contains(&"id") || (!pick.is_empty() && !picks("id")),
            no_type: gone.contains(&"type") || (!pick.is_empty() && !picks("type")),
            named: picks("id") || picks("type"),
            instances: instances
                .iter()
                .map(|id| (*id != "@none").then(|| (*id).to_owned()))
                .collect(),
            within,
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

    /// Whether nothing was picked or omitted.
    pub fn is_all(&self) -> bool {
        self.only.is_none() && self.without.is_empty() && self.id() && self.types()
    }

    /// Whether an attribute is written.
    pub fn wants(&self, name: &Name) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name)) && !self.without.contains(name)
    }

    /// Whether an instance of an attribute is written.
    pub fn wants_instance(&self, instance: &Instance) -> bool {
        self.instances.is_empty() || self.instances.contains(&instance.instance_id)
    }

    /// What is written of the entities that an attribute leads to.
    pub fn within(&self, name: &Name) -> Members {
        let found = self.within.iter().find(|(known, _)| known == name);
        found.map(|(_, members)| members.clone()).unwrap_or_default()
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
        let parse = |attrs: &str, pick: &str, omit: &str| {
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let (attrs, pick, omit) = (given(attrs), given(pick), given(omit));
            let lists = (attrs.as_deref(), pick.as_deref(), omit.as_deref());
            Members::parse(lists, &[], &Context::core())
        };
        let picked = parse("", "id,a", "").unwrap();
        assert!(picked.id() && !picked.types() && picked.wants(&Name::new("a")));
        assert!(!picked.wants(&Name::new("b")));
        let omitted = parse("", "", "type,a").unwrap();
        assert!(omitted.id() && !omitted.types() && !omitted.wants(&Name::new("a")));
        let joined = parse("", "id,at{name,in{id}}", "at{id},in{a}").unwrap();
        assert!(joined.wants(&Name::new("at")) && !joined.wants(&Name::new("in")));
        let at = joined.within(&Name::new("at"));
        assert!(at.wants(&Name::new("name")) && !at.id() && !at.types());
        assert!(at.within(&Name::new("in")).id() && !at.within(&Name::new("in")).types());
        let deep = format!("{}id{}", "a{".repeat(5), "}".repeat(5));
        for (attrs, pick, omit) in [
            ("", "a", "a"),
            ("a", "b", ""),
            ("id", "", ""),
            ("", "a;b", ""),
            ("", "", "a{b"),
            ("", "", "a}b"),
            ("", "a{b}c", ""),
            ("", "a,,b", ""),
            ("", "a{}", "a{b c}"),
            ("", &deep, ""),
        ] {
            assert!(parse(attrs, pick, omit).is_err(), "{attrs} {pick} {omit}");
        }
    }
}
